//! Gates that choose among experts, and the losses that keep experts in use: what sparse mixtures are made of.
//!
//! A gate's input are probabilities `[rows, experts]` (a softmax), its output the same with those not chosen set to 0: weights
//! for [`ops::blend`]. They are not renormalised, and gradients flow to what was chosen.

use crate::engine::{Tensor, Value, compose, slice, tensor};
use crate::error::{Error, In, Result};
use crate::ops;

/// What a gate chose.
#[derive(Debug, Clone)]
pub struct Kept {
    /// Probabilities `[rows, experts]`, 0 where an expert was not chosen.
    pub weights: Value,
    /// Numbers of the chosen experts of every row, the likeliest first; of equals the lower number.
    pub experts: Vec<Vec<u32>>,
}

/// The first expert of a task whose gate sees `each` of `experts` side by side: `round(task (experts - each) / (tasks - 1))`.
/// M3ViT's program adds offsets up, which runs past the last expert for three tasks and more.
pub fn window(task: usize, tasks: usize, experts: usize, each: usize) -> usize {
    let room = experts.saturating_sub(each) as f64;
    (task as f64 * room / tasks.saturating_sub(1).max(1) as f64).round_ties_even() as usize
}

/// The `k` likeliest experts of every row (Fan et al., NeurIPS 2022: M3ViT).
///
/// # Errors
/// Anything but a matrix, a `k` of 0 or above the number of experts.
pub fn top_k(probabilities: &Value, k: usize) -> Result<Kept> {
    let (_, experts) = shape(probabilities)?;
    if !(1..=experts).contains(&k) {
        return Err(Error::shape("gate", format!("{k} of {experts} experts")));
    }
    keep(probabilities, |_, order| order.truncate(k))
}

/// The fewest experts of every row whose probabilities together exceed `p`, the likeliest first; the one that crosses it stays
/// (Huang et al., ACL 2024: Harder Tasks Need More Experts).
///
/// # Errors
/// Anything but a matrix, a `p` that is not in 0 to 1.
pub fn top_p(probabilities: &Value, p: f32) -> Result<Kept> {
    if !(0.0..=1.0).contains(&p) {
        return Err(Error::shape("gate", format!("a share of {p}; 0 to 1")));
    }
    keep(probabilities, |row, order| {
        let mut sum = 0.0;
        let crossing = order.iter().position(|e| {
            sum += f64::from(row[*e as usize]);
            sum > f64::from(p)
        });
        if let Some(last) = crossing {
            order.truncate(last + 1);
        }
    })
}

fn shape(probabilities: &Value) -> Result<(usize, usize)> {
    match probabilities.dims() {
        &[rows, experts] if rows > 0 && experts > 0 => Ok((rows, experts)),
        other => Err(Error::shape(
            "gate",
            format!("probabilities {other:?}, not [rows, experts]"),
        )),
    }
}

fn keep(probabilities: &Value, cut: impl Fn(&[f32], &mut Vec<u32>)) -> Result<Kept> {
    let (rows, experts) = shape(probabilities)?;
    let data = probabilities.data().contiguous().during("gate")?;
    let data = slice(&data)?;
    let mut mask = vec![0f32; rows * experts];
    let mut kept = Vec::with_capacity(rows);
    for (row, mask) in data
        .chunks_exact(experts)
        .zip(mask.chunks_exact_mut(experts))
    {
        let mut order: Vec<u32> = (0..experts as u32).collect();
        // Stable: of equals the lower number stays first.
        order.sort_by(|a, b| row[*b as usize].total_cmp(&row[*a as usize]));
        cut(row, &mut order);
        order.iter().for_each(|e| mask[*e as usize] = 1.0);
        kept.push(order);
    }
    let mask = Value::constant(tensor(mask, (rows, experts))?);
    Ok(Kept {
        weights: ops::mul(probabilities, &mask)?,
        experts: kept,
    })
}

impl Kept {
    /// How many rows chose every expert.
    fn counts(&self) -> Vec<f32> {
        let mut counts = vec![0f32; self.weights.dims()[1]];
        for expert in self.experts.iter().flatten() {
            counts[*expert as usize] += 1.0;
        }
        counts
    }

    /// Sums over the rows, `[1, experts]`.
    fn sums(of: &Value) -> Result<Value> {
        let rows = of.dims()[0];
        let ones = Value::constant(tensor(vec![1.0; rows], (1, rows))?);
        ops::product(&ones, of)
    }

    /// The squared coefficients of variation of importance (sums of the weights) and load (rows that chose an expert), with the
    /// unbiased variance over `mean^2 + 1e-10`; no gradient flows through the load (Shazeer et al. 2017, without noise).
    ///
    /// # Errors
    /// A single expert.
    pub fn variation(&self) -> Result<Value> {
        let counts = self.counts();
        let n = counts.len();
        if n < 2 {
            return Err(Error::shape("gate", "one expert has no variation"));
        }
        let load = tensor(counts, (1, n))?;
        compose("variation", &[&Self::sums(&self.weights)?], move |t| {
            let squared = |x: &Tensor| -> candle_core::Result<Tensor> {
                let mean = x.mean_all()?;
                let variance = (x.broadcast_sub(&mean)?.sqr()?.sum_all()? / (n - 1) as f64)?;
                variance.div(&(mean.sqr()? + 1e-10)?)
            };
            squared(&t[0])? + squared(&load)?
        })
    }

    /// `E sum_e f_e Q_e`: the share of rows that chose an expert times its mean probability, of all probabilities (Fedus et al.
    /// 2022); no gradient flows through the shares.
    ///
    /// # Errors
    /// Probabilities of another shape than the gate's.
    pub fn balance(&self, probabilities: &Value) -> Result<Value> {
        let (rows, experts) = shape(probabilities)?;
        if probabilities.dims() != self.weights.dims() {
            return Err(Error::shape(
                "gate",
                format!(
                    "probabilities {:?} for weights {:?}",
                    probabilities.dims(),
                    self.weights.dims()
                ),
            ));
        }
        let factor = experts as f32 / (rows * rows) as f32;
        let shares = Value::constant(tensor(self.counts(), (experts, 1))?);
        let found = ops::product(&Self::sums(probabilities)?, &shares)?;
        ops::scale(&ops::sum(&found)?, factor)
    }
}

/// Minus the mutual information of tasks and experts (Chen et al., CVPR 2023: Mod-Squad): `-sum J log(J / (P_t P_e) + 1e-4)`,
/// with `J[t, e]` the sum of task `t`'s probabilities of expert `e` over all rows of all tasks, and `P` its sums plus 1e-4. Less
/// of it: each task keeps to its own experts, all experts are in use. One matrix `[rows, experts]` of every task.
///
/// # Errors
/// No task, matrices of different widths.
pub fn mutual_information(probabilities: &[&Value]) -> Result<Value> {
    let mut rows = 0;
    let mut sums = Vec::new();
    for task in probabilities {
        rows += shape(task)?.0;
        sums.push(Kept::sums(task)?);
    }
    if sums.is_empty() {
        return Err(Error::shape("mutual information", "no task"));
    }
    let joint = ops::concat(&sums.iter().collect::<Vec<_>>(), 0)?;
    compose("mutual information", &[&joint], move |t| {
        let joint = (&t[0] / (rows as f64 + 1e-4))?;
        let tasks = (joint.sum_keepdim(1)? + 1e-4)?;
        let experts = (joint.sum_keepdim(0)? + 1e-4)?;
        let ratio = joint.div(&tasks.broadcast_mul(&experts)?)?;
        joint.mul(&(ratio + 1e-4)?.log()?)?.sum_all()?.neg()
    })
}

/// The mean over all rows of `-sum P log P` (Huang et al., ACL 2024): less of it, surer gates. One matrix `[rows, experts]` of
/// every task.
///
/// # Errors
/// No task, matrices of different widths.
pub fn entropy(probabilities: &[&Value]) -> Result<Value> {
    let (mut sum, mut rows) = (None, 0);
    for own in probabilities {
        rows += shape(own)?.0;
        // A probability that is 0 in 32 bits has no entropy, and a slope.
        let found = ops::sum(&ops::entropies(own, 1e-30)?)?;
        sum = Some(match sum {
            Some(before) => ops::add(&before, &found)?,
            None => found,
        });
    }
    let sum = sum.ok_or_else(|| Error::shape("entropy", "no task"))?;
    ops::scale(&sum, 1.0 / rows as f32)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matrix(values: &[f32], rows: usize) -> Value {
        let width = values.len() / rows;
        Value::leaf(tensor(values.to_vec(), (rows, width)).unwrap())
    }

    #[test]
    fn chosen_by_hand() {
        let p = matrix(&[0.1, 0.4, 0.4, 0.1, 0.7, 0.1, 0.1, 0.1], 2);
        let two = top_k(&p, 2).unwrap();
        assert_eq!(two.experts, [[1, 2], [0, 1]]);
        let weights = slice(two.weights.data()).unwrap().to_vec();
        assert_eq!(weights, [0.0, 0.4, 0.4, 0.0, 0.7, 0.1, 0.0, 0.0]);
        // 0.4 does not exceed a half, 0.8 does; 0.7 does at once.
        assert_eq!(top_p(&p, 0.5).unwrap().experts, [vec![1, 2], vec![0]]);
        assert_eq!(top_p(&p, 1.0).unwrap().experts[0].len(), 4);
        // f = (1/2, 1, 1/2, 0), Q = (0.4, 0.25, 0.25, 0.1).
        let balance = two.balance(&p).unwrap().number().unwrap();
        assert!((balance - 4.0 * (0.2 + 0.25 + 0.125)).abs() < 1e-6);
        // Of (0.5, 0.25, 0.25, 0): 1.5 bits; of a sure row none.
        let (a, b) = (matrix(&[0.5, 0.25, 0.25, 0.0], 1), matrix(&[0.0, 1.0], 1));
        let bits = |p: &[&Value]| entropy(p).unwrap().number().unwrap() / 2f32.ln();
        assert!((bits(&[&a]) - 1.5).abs() < 1e-6 && bits(&[&b]).abs() < 1e-6);
        let sure = matrix(&[0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0], 2);
        assert!((bits(&[&a, &sure]) - 0.5).abs() < 1e-6 && entropy(&[]).is_err());
        assert_eq!(
            (0..3).map(|t| window(t, 3, 12, 6)).collect::<Vec<_>>(),
            [0, 3, 6]
        );
        assert_eq!(window(0, 1, 4, 2), 0);
        assert!(top_k(&p, 5).is_err() && top_k(&p, 0).is_err() && top_p(&p, f32::NAN).is_err());
        assert!(mutual_information(&[]).is_err());
    }

    #[test]
    fn losses_have_their_gradients() {
        let values = [0.1, 0.4, 0.3, 0.2, 0.7, 0.1, 0.15, 0.05, 0.3, 0.2, 0.4, 0.1];
        type Loss = fn(&Value) -> Value;
        let all: [(&str, Loss); 4] = [
            ("entropy", |p| entropy(&[p, p]).unwrap()),
            ("variation", |p| top_k(p, 2).unwrap().variation().unwrap()),
            ("balance", |p| top_k(p, 2).unwrap().balance(p).unwrap()),
            ("mutual information", |p| {
                let (a, b) = (ops::narrow(p, 0, 0, 2), ops::narrow(p, 0, 2, 1));
                mutual_information(&[&a.unwrap(), &b.unwrap()]).unwrap()
            }),
        ];
        for (name, loss) in all {
            let p = matrix(&values, 3);
            let gradients = loss(&p).backward().unwrap();
            let found = slice(gradients.get(&p).unwrap()).unwrap().to_vec();
            for i in 0..values.len() {
                let moved = |d: f32| {
                    let mut at = values;
                    at[i] += d;
                    f64::from(loss(&matrix(&at, 3)).number().unwrap())
                };
                let numeric = (moved(2e-3) - moved(-2e-3)) / 4e-3;
                let a = f64::from(found[i]);
                assert!(
                    (a - numeric).abs() < 2e-3 * (1.0 + numeric.abs()),
                    "{name} {i}: {a} and {numeric}"
                );
            }
        }
    }
}
