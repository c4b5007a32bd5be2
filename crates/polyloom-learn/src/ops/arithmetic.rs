//! Sums, products, scales, dropout.

use polyloom_core::nn::dropout::apply;
use polyloom_core::nn::elementwise::{map, map2};
use polyloom_core::rng::Stream;

use super::{cpu, dense};
use crate::engine::{Into, Meaning, Op, Tensor, Value, compose, slice, tensor};
use crate::error::{Error, In, Result};

fn same(op: &'static str, a: &Value, b: &Value) -> Result<()> {
    if a.dims() == b.dims() {
        Ok(())
    } else {
        Err(Error::shape(
            op,
            format!("{:?} and {:?}", a.dims(), b.dims()),
        ))
    }
}

fn pairwise(
    op: &'static str,
    a: &Value,
    b: &Value,
    f: impl Fn(f32, f32) -> f32 + Sync + Copy,
) -> Result<Tensor> {
    let (x, y) = (dense(a.data(), op)?, dense(b.data(), op)?);
    tensor(map2(&slice(&x)?, &slice(&y)?, f), a.dims())
}

/// `a + b`, of one shape.
///
/// # Errors
/// Two shapes.
pub fn add(a: &Value, b: &Value) -> Result<Value> {
    combine(a, b, 1.0)
}

/// `a - b`, of one shape.
///
/// # Errors
/// Two shapes.
pub fn sub(a: &Value, b: &Value) -> Result<Value> {
    combine(a, b, -1.0)
}

fn combine(a: &Value, b: &Value, sign: f32) -> Result<Value> {
    same("sum", a, b)?;
    if !cpu(&[a, b]) {
        return compose("sum", &[a, b], move |t| &t[0] + (&t[1] * f64::from(sign))?);
    }
    let out = pairwise(
        "sum",
        a,
        b,
        #[inline(always)]
        move |x, y| x + sign * y,
    )?;
    Ok(Value::made(out, Sum(sign), &[a, b]))
}

struct Sum(f32);

impl Op for Sum {
    fn name(&self) -> &'static str {
        "sum"
    }

    fn meaning(&self) -> Option<Meaning<'_>> {
        Some(Meaning::Sum(self.0))
    }

    fn backward(&self, _: &[Value], _: &Tensor, grad: &Tensor, into: &mut Into<'_>) -> Result<()> {
        into.share(0, grad)?;
        if self.0 == 1.0 {
            return into.share(1, grad);
        }
        if into.wants(1) {
            let g = dense(grad, "sum")?;
            into.give_values(
                1,
                map(
                    &slice(&g)?,
                    #[inline(always)]
                    |g| -g,
                ),
            )?;
        }
        Ok(())
    }
}

/// `a b` element by element, of one shape.
///
/// # Errors
/// Two shapes.
pub fn mul(a: &Value, b: &Value) -> Result<Value> {
    same("element product", a, b)?;
    if !cpu(&[a, b]) {
        return compose("element product", &[a, b], |t| t[0].mul(&t[1]));
    }
    Ok(Value::made(
        pairwise(
            "element product",
            a,
            b,
            #[inline(always)]
            |x, y| x * y,
        )?,
        Mul,
        &[a, b],
    ))
}

struct Mul;

impl Op for Mul {
    fn name(&self) -> &'static str {
        "element product"
    }

    fn meaning(&self) -> Option<Meaning<'_>> {
        Some(Meaning::Mul)
    }

    fn backward(
        &self,
        inputs: &[Value],
        _: &Tensor,
        grad: &Tensor,
        into: &mut Into<'_>,
    ) -> Result<()> {
        let g = Value::constant(grad.clone());
        for (i, other) in [(0, 1), (1, 0)] {
            if into.wants(i) {
                into.give(
                    i,
                    pairwise(
                        "element product",
                        &g,
                        &inputs[other],
                        #[inline(always)]
                        |x, y| x * y,
                    )?,
                )?;
            }
        }
        Ok(())
    }
}

/// `a / b` element by element, of one shape; `b` is a constant.
///
/// # Errors
/// Two shapes, a `b` whose gradient is wanted.
pub fn div(a: &Value, b: &Value) -> Result<Value> {
    if b.wants_gradient() {
        return Err(Error::shape(
            "quotient",
            "no gradient flows through what divides".to_owned(),
        ));
    }
    let reciprocal = b.data().recip().during("quotient")?;
    mul(a, &Value::constant(reciprocal))
}

/// `factor x`.
///
/// # Errors
/// What the device refuses.
pub fn scale(x: &Value, factor: f32) -> Result<Value> {
    if !cpu(&[x]) {
        return compose("scale", &[x], move |t| &t[0] * f64::from(factor));
    }
    let data = dense(x.data(), "scale")?;
    let out = tensor(
        map(
            &slice(&data)?,
            #[inline(always)]
            move |x| x * factor,
        ),
        x.dims(),
    )?;
    Ok(Value::made(out, Scale(factor), &[x]))
}

struct Scale(f32);

impl Op for Scale {
    fn name(&self) -> &'static str {
        "scale"
    }

    fn meaning(&self) -> Option<Meaning<'_>> {
        Some(Meaning::Scale(self.0))
    }

    fn backward(&self, _: &[Value], _: &Tensor, grad: &Tensor, into: &mut Into<'_>) -> Result<()> {
        let g = dense(grad, "scale")?;
        let factor = self.0;
        let found = map(
            &slice(&g)?,
            #[inline(always)]
            move |g| g * factor,
        );
        into.give_values(0, found)
    }
}

/// Sum of all elements, a value without axes.
///
/// # Errors
/// What the device refuses.
pub fn sum(x: &Value) -> Result<Value> {
    if !cpu(&[x]) {
        return compose("sum of all", &[x], |t| t[0].sum_all());
    }
    let data = dense(x.data(), "sum of all")?;
    let total: f64 = slice(&data)?.iter().map(|x| f64::from(*x)).sum();
    Ok(Value::made(tensor(vec![total as f32], ())?, Total, &[x]))
}

/// Mean of all elements.
///
/// # Errors
/// What the device refuses.
pub fn mean(x: &Value) -> Result<Value> {
    scale(&sum(x)?, 1.0 / x.data().elem_count().max(1) as f32)
}

struct Total;

impl Op for Total {
    fn name(&self) -> &'static str {
        "sum of all"
    }

    fn backward(
        &self,
        inputs: &[Value],
        _: &Tensor,
        grad: &Tensor,
        into: &mut Into<'_>,
    ) -> Result<()> {
        let g: f32 = grad.to_scalar().during("sum of all")?;
        into.give_values(0, vec![g; inputs[0].data().elem_count()])
    }
}

/// Sets a share `rate` of the elements to 0 and multiplies the others by `1 / (1 - rate)`. Which ones: a function of the
/// seed alone.
///
/// # Errors
/// A rate that is not in 0 to below 1.
pub fn dropout(x: &Value, rate: f32, seed: u64) -> Result<Value> {
    if rate == 0.0 {
        return Ok(x.clone());
    }
    if !(0.0..1.0).contains(&rate) {
        return Err(Error::shape(
            "dropout",
            format!("a rate of {rate}, not in 0 to below 1"),
        ));
    }
    let op = Drop { rate, seed };
    if !cpu(&[x]) {
        let mask = tensor(op.of(vec![1.0; x.data().elem_count()]), x.dims())?
            .to_device(x.data().device())
            .during("dropout")?;
        return mul(x, &Value::constant(mask));
    }
    let data = dense(x.data(), "dropout")?;
    let out = op.of(slice(&data)?.to_vec());
    Ok(Value::made(tensor(out, x.dims())?, op, &[x]))
}

struct Drop {
    rate: f32,
    seed: u64,
}

impl Drop {
    fn of(&self, mut x: Vec<f32>) -> Vec<f32> {
        apply(&mut x, 0, self.rate, Stream::new(self.seed, "dropout", 0));
        x
    }
}

impl Op for Drop {
    fn name(&self) -> &'static str {
        "dropout"
    }

    fn backward(&self, _: &[Value], _: &Tensor, grad: &Tensor, into: &mut Into<'_>) -> Result<()> {
        let g = dense(grad, "dropout")?;
        let g = slice(&g)?.to_vec();
        into.give_values(0, self.of(g))
    }
}
