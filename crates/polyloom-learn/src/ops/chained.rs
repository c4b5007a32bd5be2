//! The cross-entropy of one thing after another: all must happen.

use super::{cpu, dense};
use crate::engine::{Into, Op, Tensor, Value, compose, slice, tensor};
use crate::error::{Error, Result};

const CHAINED: &str = "chained cross-entropy";

/// Mean cross-entropy of `p = sigmoid(a_1) ... sigmoid(a_k)` against labels 0 to 1, of scores of one shape, in the logarithm
/// throughout: no score makes it infinite. `log p = sum log sigmoid(a_i)`, and
/// `log(1 - p) = log p + log((1 + exp(-a_1)) ... (1 + exp(-a_k)) - 1)`.
///
/// # Errors
/// No scores, two shapes, another number of labels.
pub fn chained_cross_entropy(scores: &[&Value], labels: &[f32]) -> Result<Value> {
    let n = labels.len();
    let fits = |v: &&Value| v.dims() == scores[0].dims() && v.data().elem_count() == n;
    if n == 0 || scores.is_empty() || !scores.iter().all(fits) {
        let dims: Vec<&[usize]> = scores.iter().map(|v| v.dims()).collect();
        return Err(Error::shape(
            CHAINED,
            format!("scores {dims:?} with {n} labels"),
        ));
    }
    if !cpu(scores) {
        let labels = labels.to_vec();
        return compose(CHAINED, scores, move |t| composed(t, &labels));
    }
    let rows = by_row(scores.iter().copied(), n)?;
    let total: f64 = rows
        .iter()
        .zip(labels)
        .map(|(a, label)| {
            let all: f64 = a.iter().map(|a| softplus(-a)).sum();
            all - (1.0 - f64::from(*label)) * otherwise(a)
        })
        .sum();
    let loss = tensor(vec![(total / n as f64) as f32], ())?;
    Ok(Value::made(loss, Chained(labels.to_vec()), scores))
}

/// Scores of every row.
fn by_row<'v>(scores: impl Iterator<Item = &'v Value>, n: usize) -> Result<Vec<Vec<f64>>> {
    let mut rows = vec![Vec::new(); n];
    for value in scores {
        let data = dense(value.data(), CHAINED)?;
        let one = slice(&data)?;
        let cells = rows.iter_mut().zip(one.iter());
        cells.for_each(|(row, x)| row.push(f64::from(*x)));
    }
    Ok(rows)
}

/// `log(1 + exp(x))`; `-log sigmoid(a)` is that of `-a`.
fn softplus(x: f64) -> f64 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}

/// `log((1 + exp(-a_1)) ... (1 + exp(-a_k)) - 1)`, factor by factor, so that nothing is lost where it is small.
fn otherwise(a: &[f64]) -> f64 {
    let plus = |x: f64, y: f64| {
        let top = x.max(y);
        match top == f64::NEG_INFINITY {
            true => top,
            false => top + (-(x - y).abs()).exp().ln_1p(),
        }
    };
    a.iter().fold(f64::NEG_INFINITY, |so_far, a| {
        plus(so_far + softplus(-a), -a)
    })
}

/// The same by candle's operations.
fn composed(t: &[Tensor], labels: &[f32]) -> candle_core::Result<Tensor> {
    let (mut log, mut other): (Option<Tensor>, Option<Tensor>) = (None, None);
    for x in t {
        let x = x.flatten_all()?.neg()?.exp()?;
        let own = (&x + 1.0)?.log()?.neg()?;
        log = Some(match log {
            None => own,
            Some(sum) => (sum + own)?,
        });
        other = Some(match other {
            None => x,
            Some(sum) => ((&sum + &x)? + sum.mul(&x)?)?,
        });
    }
    let (Some(log), Some(other)) = (log, other) else {
        candle_core::bail!("no scores");
    };
    let rest: Vec<f32> = labels.iter().map(|y| 1.0 - y).collect();
    let rest = Tensor::from_slice(&rest, labels.len(), log.device())?;
    (log + other.log()?.mul(&rest)?)?.mean_all()?.neg()
}

struct Chained(Vec<f32>);

impl Op for Chained {
    fn name(&self) -> &'static str {
        CHAINED
    }

    fn backward(
        &self,
        inputs: &[Value],
        _: &Tensor,
        grad: &Tensor,
        into: &mut Into<'_>,
    ) -> Result<()> {
        let rows = by_row(inputs.iter(), self.0.len())?;
        let g = dense(grad, CHAINED)?;
        let share = f64::from(slice(&g)?.first().copied().unwrap_or_default());
        let share = share / self.0.len() as f64;
        let others: Vec<f64> = rows.iter().map(|a| otherwise(a)).collect();
        for i in 0..inputs.len() {
            let cells = rows.iter().zip(&others).zip(&self.0);
            let found = cells.map(|((a, other), label)| {
                let rest: f64 = a.iter().map(|a| softplus(-a)).sum();
                let slope = (-a[i] + rest - softplus(-a[i]) - other).exp();
                let own = (-softplus(a[i])).exp();
                (share * ((1.0 - f64::from(*label)) * slope - own)) as f32
            });
            into.give_values(i, found.collect())?;
        }
        Ok(())
    }
}
