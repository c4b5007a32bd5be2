//! Linear layers and products of matrices.

use polyloom_core::nn::elementwise::{add_column_sums, repeated};
use polyloom_core::nn::matmul::{self, Threads, View, ViewMut, matmul};

use super::{cpu, dense, width};
use crate::engine::{Into, Meaning, Op, Tensor, Value, compose, slice, tensor};
use crate::error::{Error, Result};

const LINEAR: &str = "linear";

/// `x Wᵀ + b` of `x [.., in]`, `W [out, in]` and `b [out]`, as checkpoints store them.
///
/// # Errors
/// Shapes that do not fit together.
pub fn linear(x: &Value, weight: &Value, bias: Option<&Value>) -> Result<Value> {
    let input = width(x, LINEAR)?;
    let &[out, of] = weight.dims() else {
        return Err(Error::shape(
            LINEAR,
            format!("a weight of {:?}, not [out, in]", weight.dims()),
        ));
    };
    if of != input || bias.is_some_and(|b| b.dims() != [out]) {
        let bias = bias.map(|b| b.dims().to_vec());
        return Err(Error::shape(
            LINEAR,
            format!(
                "input {:?}, weight {:?}, bias {bias:?}",
                x.dims(),
                weight.dims()
            ),
        ));
    }
    let mut shape = x.dims().to_vec();
    shape[x.dims().len() - 1] = out;
    let inputs: Vec<&Value> = [Some(x), Some(weight), bias]
        .into_iter()
        .flatten()
        .collect();
    if !cpu(&inputs) {
        return compose(LINEAR, &inputs, move |t| {
            let rows = t[0].elem_count() / input;
            let y = t[0].reshape((rows, input))?.matmul(&t[1].t()?)?;
            let y = if let Some(b) = t.get(2) {
                y.broadcast_add(b)?
            } else {
                y
            };
            y.reshape(shape.as_slice())
        });
    }
    let (xs, ws) = (dense(x.data(), LINEAR)?, dense(weight.data(), LINEAR)?);
    let rows = xs.elem_count() / input;
    let (xs, ws) = (slice(&xs)?, slice(&ws)?);
    let (a, b) = (View::new(&xs, rows, input), View::new(&ws, out, input).t());
    let y = match bias {
        None => matmul::product(1.0, a, b, Threads::All),
        Some(bias) => {
            let bias = dense(bias.data(), LINEAR)?;
            let mut y = repeated(&slice(&bias)?, rows);
            matmul(
                ViewMut::new(&mut y, rows, out),
                true,
                1.0,
                a,
                b,
                Threads::All,
            );
            y
        }
    };
    Ok(Value::made(tensor(y, shape)?, Linear, &inputs))
}

struct Linear;

impl Op for Linear {
    fn name(&self) -> &'static str {
        LINEAR
    }

    fn meaning(&self) -> Option<Meaning<'_>> {
        Some(Meaning::Linear)
    }

    fn backward(
        &self,
        inputs: &[Value],
        _: &Tensor,
        grad: &Tensor,
        into: &mut Into<'_>,
    ) -> Result<()> {
        let (x, w, g) = (
            dense(inputs[0].data(), LINEAR)?,
            dense(inputs[1].data(), LINEAR)?,
            dense(grad, LINEAR)?,
        );
        let (x, w, g) = (slice(&x)?, slice(&w)?, slice(&g)?);
        let (out, input) = (inputs[1].dims()[0], inputs[1].dims()[1]);
        let rows = x.len() / input;
        let g = View::new(&g, rows, out);
        into.product(0, g, View::new(&w, out, input))?;
        into.product(1, g.t(), View::new(&x, rows, input))?;
        if inputs.len() > 2 {
            let g = dense(grad, LINEAR)?;
            let g = slice(&g)?;
            into.write(2, |to, add| {
                if !add {
                    to.fill(0.0);
                }
                add_column_sums(to, &g);
            })?;
        }
        Ok(())
    }
}

const GROUPED: &str = "grouped linear";

/// Several linear layers side by side, each on its own part of the input: part `g` of the output `[rows, groups * out]` is
/// `x_g W_gᵀ + b_g`, of `x [rows, groups * in]`, `W [groups * out, in]` and `b [groups * out]`, where
/// there is one.
///
/// # Errors
/// Shapes that do not fit together, no rows.
pub fn grouped_linear(
    x: &Value,
    weight: &Value,
    bias: Option<&Value>,
    groups: usize,
) -> Result<Value> {
    let fits = match (x.dims(), weight.dims()) {
        (&[rows, wide], &[out, input]) => {
            groups > 0
                && rows > 0
                && input.checked_mul(groups) == Some(wide)
                && bias.is_none_or(|b| b.dims() == [out])
                && out.is_multiple_of(groups)
        }
        _ => false,
    };
    if !fits {
        return Err(Error::shape(
            GROUPED,
            format!(
                "input {:?}, weight {:?}, bias {:?} in {groups} groups",
                x.dims(),
                weight.dims(),
                bias.map(Value::dims)
            ),
        ));
    }
    let sizes = Grouped {
        groups,
        rows: x.dims()[0],
        input: weight.dims()[1],
        out: weight.dims()[0] / groups,
    };
    let inputs: Vec<&Value> = [Some(x), Some(weight), bias]
        .into_iter()
        .flatten()
        .collect();
    if !cpu(&inputs) {
        return compose(GROUPED, &inputs, move |t| sizes.composed(t));
    }
    let (xs, ws) = (dense(x.data(), GROUPED)?, dense(weight.data(), GROUPED)?);
    let (xs, ws) = (slice(&xs)?, slice(&ws)?);
    let wide = groups * sizes.out;
    let mut y = match bias {
        Some(bias) => repeated(&slice(&dense(bias.data(), GROUPED)?)?, sizes.rows),
        None => vec![0f32; sizes.rows * wide],
    };
    for g in 0..groups {
        let to = ViewMut::strided(&mut y[g * sizes.out..], sizes.rows, sizes.out, wide);
        let (a, w) = (sizes.part(&xs, g, sizes.input), sizes.weight(&ws, g));
        matmul(to, bias.is_some(), 1.0, a, w.t(), Threads::All);
    }
    Ok(Value::made(tensor(y, (sizes.rows, wide))?, sizes, &inputs))
}

#[derive(Clone, Copy)]
struct Grouped {
    groups: usize,
    rows: usize,
    input: usize,
    out: usize,
}

impl Grouped {
    /// The columns of a group.
    fn part<'a>(&self, x: &'a [f32], group: usize, width: usize) -> View<'a> {
        View::strided(&x[group * width..], self.rows, width, self.groups * width)
    }

    fn weight<'a>(&self, w: &'a [f32], group: usize) -> View<'a> {
        let size = self.out * self.input;
        View::new(&w[group * size..][..size], self.out, self.input)
    }

    /// The same by candle's operations.
    fn composed(&self, t: &[Tensor]) -> candle_core::Result<Tensor> {
        let parts = |t: &Tensor| {
            t.reshape((self.rows, self.groups, self.input))?
                .transpose(0, 1)
        };
        let w = t[1].reshape((self.groups, self.out, self.input))?;
        let y = parts(&t[0])?
            .contiguous()?
            .matmul(&w.transpose(1, 2)?.contiguous()?)?;
        let y = y
            .transpose(0, 1)?
            .reshape((self.rows, self.groups * self.out))?;
        match t.get(2) {
            Some(bias) => y.broadcast_add(bias),
            None => Ok(y),
        }
    }
}

impl Op for Grouped {
    fn name(&self) -> &'static str {
        GROUPED
    }

    fn meaning(&self) -> Option<Meaning<'_>> {
        Some(Meaning::GroupedLinear(self.groups))
    }

    fn backward(
        &self,
        inputs: &[Value],
        _: &Tensor,
        grad: &Tensor,
        into: &mut Into<'_>,
    ) -> Result<()> {
        let (x, w, g) = (
            dense(inputs[0].data(), GROUPED)?,
            dense(inputs[1].data(), GROUPED)?,
            dense(grad, GROUPED)?,
        );
        let (x, w, g) = (slice(&x)?, slice(&w)?, slice(&g)?);
        into.write(0, |to, add| {
            let stride = self.groups * self.input;
            for i in 0..self.groups {
                let to = ViewMut::strided(&mut to[i * self.input..], self.rows, self.input, stride);
                let g = self.part(&g, i, self.out);
                matmul(to, add, 1.0, g, self.weight(&w, i), Threads::All);
            }
        })?;
        into.write(1, |to, add| {
            let size = self.out * self.input;
            for (i, to) in to.chunks_exact_mut(size.max(1)).enumerate() {
                let to = ViewMut::new(to, self.out, self.input);
                let (g, x) = (self.part(&g, i, self.out), self.part(&x, i, self.input));
                matmul(to, add, 1.0, g.t(), x, Threads::All);
            }
        })?;
        if inputs.len() > 2 {
            into.write(2, |to, add| {
                if !add {
                    to.fill(0.0);
                }
                add_column_sums(to, &g);
            })?;
        }
        Ok(())
    }
}

const PRODUCT: &str = "product";

/// `a b` of two matrices `[n, k]` and `[k, m]`.
///
/// # Errors
/// Shapes that do not fit together.
pub fn product(a: &Value, b: &Value) -> Result<Value> {
    let (&[n, k], &[of, m]) = (a.dims(), b.dims()) else {
        return Err(Error::shape(
            PRODUCT,
            format!("{:?} and {:?} are no two matrices", a.dims(), b.dims()),
        ));
    };
    if k != of {
        return Err(Error::shape(
            PRODUCT,
            format!("{:?} times {:?}", a.dims(), b.dims()),
        ));
    }
    if !cpu(&[a, b]) {
        return compose(PRODUCT, &[a, b], |t| t[0].matmul(&t[1]));
    }
    let (x, y) = (dense(a.data(), PRODUCT)?, dense(b.data(), PRODUCT)?);
    let (x, y) = (slice(&x)?, slice(&y)?);
    let out = matmul::product(1.0, View::new(&x, n, k), View::new(&y, k, m), Threads::All);
    Ok(Value::made(tensor(out, (n, m))?, Product, &[a, b]))
}

struct Product;

impl Op for Product {
    fn name(&self) -> &'static str {
        PRODUCT
    }

    fn meaning(&self) -> Option<Meaning<'_>> {
        Some(Meaning::Product)
    }

    fn backward(
        &self,
        inputs: &[Value],
        _: &Tensor,
        grad: &Tensor,
        into: &mut Into<'_>,
    ) -> Result<()> {
        let (a, b, g) = (
            dense(inputs[0].data(), PRODUCT)?,
            dense(inputs[1].data(), PRODUCT)?,
            dense(grad, PRODUCT)?,
        );
        let (a, b, g) = (slice(&a)?, slice(&b)?, slice(&g)?);
        let (n, k, m) = (
            inputs[0].dims()[0],
            inputs[0].dims()[1],
            inputs[1].dims()[1],
        );
        let g = View::new(&g, n, m);
        into.product(0, g, View::new(&b, k, m).t())?;
        into.product(1, View::new(&a, n, k).t(), g)
    }
}
