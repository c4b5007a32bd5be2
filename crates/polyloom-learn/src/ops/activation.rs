//! Activations, alone and as gates.

use candle_core::Tensor as T;
use polyloom_core::nn::activation::Activation;
use polyloom_core::nn::elementwise::map2;

use super::{cpu, dense};
use crate::engine::{Into, Meaning, Op, Tensor, Value, compose, slice, tensor};
use crate::error::{Error, Result};

const ACTIVATE: &str = "activation";

/// An activation of every element.
///
/// # Errors
/// What the device refuses.
pub fn activate(x: &Value, kind: Activation) -> Result<Value> {
    if !cpu(&[x]) {
        return compose(ACTIVATE, &[x], move |t| composed(&t[0], kind));
    }
    let data = dense(x.data(), ACTIVATE)?;
    let out = kind.forward(&slice(&data)?);
    Ok(Value::made(tensor(out, x.dims())?, Activate(kind), &[x]))
}

/// The same by candle's operations.
fn composed(x: &T, kind: Activation) -> candle_core::Result<T> {
    let sigmoid = |x: &T| (x.neg()?.exp()? + 1.0)?.recip();
    match kind {
        Activation::Gelu => x.gelu_erf(),
        Activation::GeluTanh => x.gelu(),
        Activation::QuickGelu => x.mul(&sigmoid(&(x * 1.702)?)?),
        Activation::Silu => x.silu(),
        Activation::Relu => x.relu(),
        Activation::Tanh => x.tanh(),
        Activation::Sigmoid => sigmoid(x),
    }
}

struct Activate(Activation);

impl Op for Activate {
    fn name(&self) -> &'static str {
        ACTIVATE
    }

    fn meaning(&self) -> Option<Meaning<'_>> {
        Some(Meaning::Activation(self.0))
    }

    fn backward(
        &self,
        inputs: &[Value],
        _: &Tensor,
        grad: &Tensor,
        into: &mut Into<'_>,
    ) -> Result<()> {
        let (x, g) = (dense(inputs[0].data(), ACTIVATE)?, dense(grad, ACTIVATE)?);
        let found = self.0.backward(&slice(&x)?, &slice(&g)?);
        into.give_values(0, found)
    }
}

const GATED: &str = "gate";

/// `activation(gate) up`, element by element: SwiGLU, GeGLU.
///
/// # Errors
/// Two shapes.
pub fn gated(gate: &Value, up: &Value, kind: Activation) -> Result<Value> {
    if gate.dims() != up.dims() {
        return Err(Error::shape(
            GATED,
            format!("{:?} for {:?}", gate.dims(), up.dims()),
        ));
    }
    if !cpu(&[gate, up]) {
        return compose(GATED, &[gate, up], move |t| {
            composed(&t[0], kind)?.mul(&t[1])
        });
    }
    let (g, u) = (dense(gate.data(), GATED)?, dense(up.data(), GATED)?);
    let out = map2(
        &kind.forward(&slice(&g)?),
        &slice(&u)?,
        #[inline(always)]
        |a, u| a * u,
    );
    Ok(Value::made(
        tensor(out, up.dims())?,
        Gated(kind),
        &[gate, up],
    ))
}

struct Gated(Activation);

impl Op for Gated {
    fn name(&self) -> &'static str {
        GATED
    }

    fn backward(
        &self,
        inputs: &[Value],
        _: &Tensor,
        grad: &Tensor,
        into: &mut Into<'_>,
    ) -> Result<()> {
        let (gate, up, grad) = (
            dense(inputs[0].data(), GATED)?,
            dense(inputs[1].data(), GATED)?,
            dense(grad, GATED)?,
        );
        let (gate, up, grad) = (slice(&gate)?, slice(&up)?, slice(&grad)?);
        if into.wants(0) {
            into.give_values(
                0,
                self.0.backward(
                    &gate,
                    &map2(
                        &grad,
                        &up,
                        #[inline(always)]
                        |g, u| g * u,
                    ),
                ),
            )?;
        }
        if into.wants(1) {
            into.give_values(
                1,
                map2(
                    &grad,
                    &self.0.forward(&gate),
                    #[inline(always)]
                    |g, a| g * a,
                ),
            )?;
        }
        Ok(())
    }
}
