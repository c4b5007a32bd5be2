//! Diagonal Fisher information: squared gradients of what heads say.

use std::collections::HashMap;

use polyloom::evaluate::board::score::examples::Wanted;
use rayon::prelude::*;

use super::Squares;
use super::input::Inputs;
use crate::engine::{Parameters, Tensor, slice, tensor};
use crate::error::{Error, Result};
use crate::models::open::Model;
use crate::models::{Plain, Source, Trained};
use crate::tasks::forward::features;
use crate::tasks::{Head, HeadKind, Reader};
use crate::train::trainee::Watched;

/// Numbers that one thread squares at a time.
const CHUNK: usize = 1 << 14;

/// A head, and which of the features it sees.
pub struct Asked<'a> {
    /// The head.
    pub head: &'a Head,
    /// Place of its feature.
    pub feature: usize,
    /// It belongs to the model: its tensors count too.
    pub own: bool,
}

/// Sums of squared gradients of all tensors that a task uses.
pub struct Fisher {
    sums: Vec<f64>,
    /// Where a tensor lies in the sums.
    at: HashMap<String, std::ops::Range<usize>>,
    /// Examples that were counted.
    pub examples: usize,
}

impl Fisher {
    /// The mean over examples of a tensor's squares; `None` where the task does not use it.
    pub fn values(&self, name: &str) -> Option<impl Iterator<Item = f32> + '_> {
        let n = self.examples.max(1) as f64;
        let sums = &self.sums[self.at.get(name)?.clone()];
        Some(sums.iter().map(move |s| (s / n) as f32))
    }

    /// Runs a model over inputs. `step` is told how many rows are done.
    ///
    /// # Errors
    /// What the model refuses, an answer that is not of the head's kind, what `step` reports.
    pub fn collect(
        (model, reader): (&Model, &Reader),
        plain: &Plain,
        asked: &[Asked<'_>],
        inputs: &Inputs,
        (squares, batch): (Squares, usize),
        step: &mut dyn FnMut(usize) -> Result<()>,
    ) -> Result<Self> {
        let parameters = Parameters::new(used((model, reader), plain, asked, inputs)?)?;
        let mut made = Self {
            sums: vec![0.0; parameters.len()],
            at: parameters
                .iter()
                .map(|p| (p.name.clone(), p.at.clone()))
                .collect(),
            examples: 0,
        };
        let source = Trained {
            parameters: &parameters,
            frozen: plain,
            seed: None,
        };
        let size = match squares {
            Squares::PerSample => 1,
            Squares::PerBatch => batch.max(1),
        };
        for rows in inputs.order.chunks(size) {
            let vectors = features(model, &source, reader, &inputs.parts(rows))?;
            let mut gradients = parameters.gradients()?;
            let mut counts = vec![false; rows.len()];
            for (place, asked) in asked.iter().enumerate() {
                let wanted: Vec<Option<&Wanted>> = rows
                    .iter()
                    .map(|&i| inputs.wanted[place][i].as_ref())
                    .collect();
                let scores = asked.head.forward(&source, &vectors[asked.feature])?;
                let values = slice(scores.data())?.to_vec();
                let slope = slope(asked.head, &values, &wanted, &mut counts)?;
                let slope = tensor(slope, scores.dims())?;
                scores.backward_from(slope, &mut gradients)?;
            }
            made.examples += counts.iter().filter(|c| **c).count();
            let gradients = parameters.gathered(&gradients)?;
            let gradients: &[f32] = &gradients;
            made.sums
                .par_chunks_mut(CHUNK)
                .zip(gradients.par_chunks(CHUNK))
                .for_each(|(sums, gradients)| {
                    for (s, g) in sums.iter_mut().zip(gradients) {
                        *s += f64::from(*g) * f64::from(*g);
                    }
                });
            step(rows.len())?;
        }
        Ok(made)
    }
}

/// The tensors that a pass of one row asks for; of heads those that belong to the model.
fn used(
    (model, reader): (&Model, &Reader),
    plain: &Plain,
    asked: &[Asked<'_>],
    inputs: &Inputs,
) -> Result<Vec<(String, Tensor)>> {
    let watched = Watched::new(plain);
    let vectors = features(model, &watched, reader, &inputs.parts(&inputs.order[..1]))?;
    for asked in asked {
        asked.head.forward(&watched, &vectors[asked.feature])?;
    }
    let own: Vec<String> = asked
        .iter()
        .filter(|a| a.own)
        .flat_map(|a| a.head.tensors().map(|(name, _)| name))
        .collect();
    let counts = |name: &String| !name.starts_with("heads/") || own.contains(name);
    let names = watched.used().tensors.into_iter().filter(counts);
    names
        .map(|name| {
            let data = plain.tensor(&name)?.data().clone();
            Ok((name, data))
        })
        .collect()
}

/// What flows back into a head's outputs, row by row: of classes the gradient of `sum_c sqrt(p_c) log p_c` with the first
/// factor held (so that its square is the expected square of the log-likelihood's, were there no mixed terms), of labels
/// the same for each as two classes, of numbers that of the squared error. Rows that count are marked.
fn slope(
    head: &Head,
    scores: &[f32],
    wanted: &[Option<&Wanted>],
    counts: &mut [bool],
) -> Result<Vec<f32>> {
    let width = head.outputs().max(1);
    let mut found = vec![0f32; scores.len()];
    for (((z, out), wanted), counts) in scores
        .chunks_exact(width)
        .zip(found.chunks_exact_mut(width))
        .zip(wanted)
        .zip(counts)
    {
        match head.kind {
            HeadKind::Classification => {
                let top = z.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                let mut p: Vec<f64> = z.iter().map(|z| f64::from(z - top).exp()).collect();
                let sum: f64 = p.iter().sum();
                p.iter_mut().for_each(|p| *p /= sum);
                let roots: f64 = p.iter().map(|p| p.sqrt()).sum();
                for (out, p) in out.iter_mut().zip(&p) {
                    *out = (p.sqrt() - p * roots) as f32;
                }
            }
            HeadKind::Multilabel => {
                for (out, z) in out.iter_mut().zip(z) {
                    let p = 1.0 / (1.0 + f64::from(-z).exp());
                    let q = 1.0 / (1.0 + f64::from(*z).exp());
                    *out = (p.sqrt() * q - q.sqrt() * p) as f32;
                }
            }
            HeadKind::Embedding | HeadKind::Items | HeadKind::Dense(_) => {
                let what = format!(
                    "`{}` is answered by {}, whose likelihood is not looked at",
                    head.task,
                    head.kind.word()
                );
                return Err(Error::shape("fisher", what));
            }
            HeadKind::Regression => {
                let Some(wanted) = wanted else { continue };
                let Wanted::Number(right) = wanted else {
                    return Err(Error::shape(
                        "fisher",
                        format!("`{}`: an answer that is no number", head.task),
                    ));
                };
                let [mean, deviation] = head.scale;
                let right = (right - mean) / deviation;
                out[0] = (2.0 * (f64::from(z[0]) - right)) as f32;
            }
        }
        *counts = true;
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tasks::Feature;

    fn of(kind: HeadKind, labels: usize, scores: &[f32], wanted: Option<&Wanted>) -> Vec<f32> {
        let labels = (0..labels).map(|i| i.to_string()).collect();
        let head = Head::zeros("t", Feature::Cls, kind, labels, 1).unwrap();
        let mut counts = [false];
        let found = slope(&head, scores, &[wanted], &mut counts).unwrap();
        assert_eq!(counts[0], kind != HeadKind::Regression || wanted.is_some());
        found
    }

    /// Difference quotient of `sum_c s_c log p_c` with `s` held at `sqrt(p)`.
    fn quotient(z: &[f64], at: usize, log_p: impl Fn(&[f64]) -> Vec<f64>) -> f64 {
        let held: Vec<f64> = log_p(z).iter().map(|l| (l / 2.0).exp()).collect();
        let value = |step: f64| -> f64 {
            let mut z = z.to_vec();
            z[at] += step;
            log_p(&z).iter().zip(&held).map(|(l, s)| l * s).sum()
        };
        (value(1e-5) - value(-1e-5)) / 2e-5
    }

    #[test]
    fn slopes_are_those_of_differences() {
        let z = [0.3f32, -1.0, 2.0];
        let wide: Vec<f64> = z.iter().map(|z| f64::from(*z)).collect();
        let softmax = |z: &[f64]| -> Vec<f64> {
            let sum: f64 = z.iter().map(|z| z.exp()).sum();
            z.iter().map(|z| z - sum.ln()).collect()
        };
        let found = of(HeadKind::Classification, 3, &z, None);
        for (i, got) in found.iter().enumerate() {
            assert!((f64::from(*got) - quotient(&wide, i, softmax)).abs() < 1e-6);
        }
        let both = |z: &[f64]| -> Vec<f64> {
            let one = |z: f64| [-(-z).exp().ln_1p(), -z.exp().ln_1p()];
            z.iter().flat_map(|z| one(*z)).collect()
        };
        let found = of(HeadKind::Multilabel, 3, &z, None);
        for (i, got) in found.iter().enumerate() {
            assert!((f64::from(*got) - quotient(&wide, i, both)).abs() < 1e-6);
        }
        // Two equal classes: sqrt(1/2) - 1/2 * 2 sqrt(1/2) = 0.
        let found = of(HeadKind::Classification, 2, &[5.0, 5.0], None);
        assert!(found.iter().all(|x| x.abs() < 1e-7));
        let right = Wanted::Number(1.0);
        assert_eq!(of(HeadKind::Regression, 0, &[3.0], Some(&right)), [4.0]);
        assert_eq!(of(HeadKind::Regression, 0, &[3.0], None), [0.0]);
    }
}
