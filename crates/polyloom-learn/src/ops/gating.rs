//! Functions of single numbers that gates and their penalties are made of.

use candle_core::Tensor as T;
use polyloom_core::nn::elementwise::{map, map2};

use super::{cpu, dense};
use crate::engine::{Into, Meaning, Op, Tensor, Value, compose, slice, tensor};
use crate::error::{Error, Result};

/// A function with its slope.
#[derive(Debug, Clone, Copy)]
enum Kind {
    SmoothStep(f32),
    Entropy(f32),
    Reciprocal(f32),
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::SmoothStep(_) => "smooth step",
            Self::Entropy(_) => "entropies",
            Self::Reciprocal(_) => "reciprocal",
        }
    }

    fn value(self, x: f32) -> f32 {
        match self {
            Self::SmoothStep(gamma) => {
                let t = (x / gamma).clamp(-0.5, 0.5);
                (1.5 - 2.0 * t * t) * t + 0.5
            }
            Self::Entropy(eps) => -x * (x + eps).ln(),
            Self::Reciprocal(eps) => 1.0 / (x + eps),
        }
    }

    fn slope(self, x: f32) -> f32 {
        match self {
            Self::SmoothStep(gamma) => {
                let t = (x / gamma).clamp(-0.5, 0.5);
                (1.5 - 6.0 * t * t) / gamma
            }
            Self::Entropy(eps) => -(x + eps).ln() - x / (x + eps),
            Self::Reciprocal(eps) => -1.0 / ((x + eps) * (x + eps)),
        }
    }

    fn composed(self, x: &T) -> candle_core::Result<T> {
        match self {
            Self::SmoothStep(gamma) => {
                let t = (x / f64::from(gamma))?.clamp(-0.5, 0.5)?;
                ((1.5 - (t.sqr()? * 2.0)?)? * t)? + 0.5
            }
            Self::Entropy(eps) => x.mul(&(x + f64::from(eps))?.log()?)?.neg(),
            Self::Reciprocal(eps) => (x + f64::from(eps))?.recip(),
        }
    }

    fn of(self, x: &Value) -> Result<Value> {
        if !cpu(&[x]) {
            return compose(self.name(), &[x], move |t| self.composed(&t[0]));
        }
        let data = dense(x.data(), self.name())?;
        let out = map(
            &slice(&data)?,
            #[inline(always)]
            move |x| self.value(x),
        );
        Ok(Value::made(tensor(out, x.dims())?, Map(self), &[x]))
    }
}

struct Map(Kind);

impl Op for Map {
    fn name(&self) -> &'static str {
        self.0.name()
    }

    fn meaning(&self) -> Option<Meaning<'_>> {
        match self.0 {
            Kind::SmoothStep(width) => Some(Meaning::SmoothStep(width)),
            Kind::Entropy(_) | Kind::Reciprocal(_) => None,
        }
    }

    fn backward(
        &self,
        inputs: &[Value],
        _: &Tensor,
        grad: &Tensor,
        into: &mut Into<'_>,
    ) -> Result<()> {
        let (x, g) = (
            dense(inputs[0].data(), self.name())?,
            dense(grad, self.name())?,
        );
        let kind = self.0;
        let found = map2(
            &slice(&x)?,
            &slice(&g)?,
            #[inline(always)]
            move |x, g| g * kind.slope(x),
        );
        into.give_values(0, found)
    }
}

/// A cubic from 0 to 1 over `-gamma / 2` to `gamma / 2`, flat at both ends and beyond.
///
/// # Errors
/// A `gamma` that is not above 0.
pub fn smooth_step(x: &Value, gamma: f32) -> Result<Value> {
    if gamma > 0.0 && gamma.is_finite() {
        Kind::SmoothStep(gamma).of(x)
    } else {
        Err(Error::shape(
            "smooth step",
            format!("a width of {gamma}, not above 0"),
        ))
    }
}

/// `-x log(x + eps)` of every element, of probabilities.
///
/// # Errors
/// What the device refuses.
pub fn entropies(x: &Value, eps: f32) -> Result<Value> {
    Kind::Entropy(eps).of(x)
}

/// `1 / (x + eps)` of every element, none below 0.
///
/// # Errors
/// What the device refuses.
pub fn reciprocal(x: &Value, eps: f32) -> Result<Value> {
    Kind::Reciprocal(eps).of(x)
}
