//! How the tasks' gradients stand to each other, and whom a step hurts.

use polyloom_core::linalg::svd;
use serde_json::{Map, Value, json};

use super::method::Gram;
use super::mgda::matrix;

/// Conflict diagnostics of a step (after Samsung Labs MTL, `optim/mtl_metrics.py`), over the tasks that had a gradient.
#[derive(Debug, Clone, PartialEq)]
pub struct Conflict {
    /// The tasks.
    pub tasks: Vec<usize>,
    /// Lengths of their gradients.
    pub lengths: Vec<f64>,
    /// Cosines of pairs, `[n, n]`.
    pub cosines: Vec<f64>,
    /// `d.g_t`: a plain gradient step of rate `eta` along `-d` changes the loss of task `t` by `-eta d.g_t`, to first order.
    /// (An optimiser with moments takes another step.)
    pub progress: Vec<f64>,
    /// `d.g_t / (|d| |g_t|)`.
    pub alignment: Vec<f64>,
    /// Largest over smallest singular value of the matrix of gradients; infinite for dependent ones.
    pub condition: f64,
}

impl Conflict {
    /// Of dot products, `d.g_t` and `|d|`.
    pub fn new(tasks: &[usize], gram: &Gram, along: &[f64], length: f64) -> Self {
        let n = tasks.len();
        let lengths: Vec<f64> = (0..n).map(|i| gram.norm(i)).collect();
        let over = |x: f64, by: f64| {
            if by > 0.0 {
                (x / by).clamp(-1.0, 1.0)
            } else {
                0.0
            }
        };
        let cosine = |k: usize| over(gram.dot(k / n, k % n), lengths[k / n] * lengths[k % n]);
        let s = svd(&matrix(gram)).map(|d| d.s).unwrap_or_default();
        Self {
            tasks: tasks.to_vec(),
            cosines: (0..n * n).map(cosine).collect(),
            progress: along.to_vec(),
            alignment: along
                .iter()
                .zip(&lengths)
                .map(|(a, l)| over(*a, length * l))
                .collect(),
            condition: match (s.first(), s.last()) {
                (Some(most), Some(least)) => (most / least.max(0.0)).sqrt(),
                _ => 1.0,
            },
            lengths,
        }
    }

    /// Tasks whose loss the step raises.
    pub fn hurt(&self) -> impl Iterator<Item = usize> {
        let of = self.tasks.iter().zip(&self.alignment);
        of.filter(|(_, a)| **a < -1e-6).map(|(t, _)| *t)
    }

    /// Pairs of tasks with the cosine of their gradients.
    pub fn pairs(&self) -> impl Iterator<Item = (usize, usize, f64)> {
        let n = self.tasks.len();
        let pairs = (0..n).flat_map(move |i| (i + 1..n).map(move |j| (i, j)));
        pairs.map(move |(i, j)| (self.tasks[i], self.tasks[j], self.cosines[i * n + j]))
    }

    /// Magnitude similarity `2 |a| |b| / (|a|^2 + |b|^2)` of the pairs, in the order of [`Self::pairs`].
    pub fn similarities(&self) -> impl Iterator<Item = f64> {
        let n = self.tasks.len();
        let pairs = (0..n).flat_map(move |i| (i + 1..n).map(move |j| (i, j)));
        pairs.map(|(i, j)| {
            let (a, b) = (self.lengths[i], self.lengths[j]);
            2.0 * a * b / (a * a + b * b)
        })
    }

    /// As a line of the log speaks of it.
    pub fn json(&self, names: &[String]) -> Map<String, Value> {
        let by_task = |values: &[f64]| -> Value {
            let of = self.tasks.iter().zip(values);
            Value::Object(of.map(|(t, v)| (names[*t].clone(), json!(v))).collect())
        };
        let by_pair = |values: &mut dyn Iterator<Item = f64>| -> Value {
            let of = self.pairs().zip(values);
            let name = |i: usize, j: usize| format!("{} | {}", names[i], names[j]);
            Value::Object(of.map(|((i, j, _), v)| (name(i, j), json!(v))).collect())
        };
        let mut line = Map::new();
        line.insert("lengths".into(), by_task(&self.lengths));
        line.insert("progress".into(), by_task(&self.progress));
        line.insert("alignment".into(), by_task(&self.alignment));
        line.insert("cosines".into(), by_pair(&mut self.pairs().map(|p| p.2)));
        line.insert("similarities".into(), by_pair(&mut self.similarities()));
        // Infinite has no number in JSON: null.
        line.insert("condition".into(), json!(self.condition));
        let hurt: Vec<&String> = self.hurt().map(|t| &names[t]).collect();
        line.insert("hurt".into(), json!(hurt));
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_opposed_by_hand() {
        // (1, 0) and (-1, 1); the step follows the first.
        let gram = Gram::of(&[&[1.0, 0.0], &[-1.0, 1.0]]);
        let c = Conflict::new(&[0, 2], &gram, &[1.0, -1.0], 1.0);
        assert!((c.cosines[1] + 0.5f64.sqrt()).abs() < 1e-12);
        assert_eq!(c.hurt().collect::<Vec<_>>(), [2]);
        let similarity: Vec<f64> = c.similarities().collect();
        assert!((similarity[0] - 2.0 * 2f64.sqrt() / 3.0).abs() < 1e-12);
        // Eigenvalues of [[1, -1], [-1, 2]]: (3 ± √5)/2.
        let ratio = (3.0 + 5f64.sqrt()) / (3.0 - 5f64.sqrt());
        assert!((c.condition - ratio.sqrt()).abs() < 1e-9);
        let line = c.json(&["a".into(), "b".into(), "c".into()]);
        assert_eq!(line["hurt"], json!(["c"]));
        assert!(line["cosines"]["a | c"].as_f64().unwrap() < -0.7);
    }
}
