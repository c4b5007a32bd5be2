//! Optimisers over the flat buffers of [`Parameters`]: one sweep a step, state of the same layout, written and read whole.

use polyloom_core::nn::elementwise::squares;
use polyloom_core::nn::embedding::Rows;
use polyloom_core::nn::optim::{Adam, Sgd};

use crate::engine::{Gradients, Parameters, slice};
use crate::error::{Error, Result};

/// Which optimiser.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Rule {
    /// AdamW (Loshchilov and Hutter 2019), as PyTorch computes it; `coupled`: Adam, with the decay in the gradient.
    Adam {
        /// Decay of the moments.
        betas: [f32; 2],
        /// Added to the root of the second moment.
        eps: f32,
        /// Weight decay.
        decay: f32,
        /// Adam in place of AdamW.
        coupled: bool,
    },
    /// Stochastic gradient descent.
    Sgd {
        /// Share of the velocity that stays.
        momentum: f32,
        /// Weight decay.
        decay: f32,
        /// Looks ahead by the momentum.
        nesterov: bool,
    },
}

impl Rule {
    /// AdamW with PyTorch's defaults.
    pub fn adamw(decay: f32) -> Self {
        Self::Adam {
            betas: [0.9, 0.999],
            eps: 1e-8,
            decay,
            coupled: false,
        }
    }

    /// Moments of every parameter.
    fn moments(self) -> usize {
        match self {
            Self::Adam { .. } => 2,
            Self::Sgd { .. } => 1,
        }
    }
}

/// How tables of embeddings move: the recipe's `embedding_update`. The two give different results.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Tables {
    /// As any parameter, and as PyTorch's Adam with dense gradients: a row that no token of the batch names has a gradient of
    /// 0, so its moments fade, the momentum that is left still moves it, and it decays.
    #[default]
    Dense,
    /// Rows that the batch does not name stay as they are, with their moments and without decay, as PyTorch's SparseAdam has
    /// it; the correction of the moments counts the steps of the run, not those of the row. Costs what the batch costs,
    /// not what the table costs. (SparseAdam has no decay, and adds `eps` before the correction of the second moment; here
    /// both are those of the dense step.) A table that something else reaches than lookups, an output layer that is the
    /// embedding, moves densely; a parameter of two axes that no pass reached at all stays.
    Lazy,
}

/// A part of the buffers that moves in one go.
struct Sweep<'g> {
    at: std::ops::Range<usize>,
    decays: bool,
    /// Width of a table, and the rows that move.
    rows: Option<(usize, &'g Rows)>,
}

/// The error about the first gradient that is not finite.
fn unfinished(parameters: &Parameters, gradients: &Gradients) -> Error {
    let broken = |g: &[f32]| g.iter().any(|x| !x.is_finite());
    let bad = parameters.iter().find(|p| {
        let whole = gradients.get(&p.value);
        whole.is_some_and(|g| slice(g).is_ok_and(|g| broken(&g)))
            || gradients.rows(&p.value).is_some_and(|r| broken(&r.values))
    });
    let name = bad.map_or_else(String::new, |p| {
        format!("; the first is that of `{}`", p.name)
    });
    Error::shape("step", format!("gradients are not finite{name}"))
}

/// An optimiser with its state.
#[derive(Debug, Clone)]
pub struct Optimiser {
    /// What it does.
    pub rule: Rule,
    /// Largest length of all gradients together; 0 for none. Longer ones are shortened.
    pub clip: f32,
    /// Parameters of one axis (biases, norms) do not decay.
    pub spare_vectors: bool,
    /// How tables of embeddings move.
    pub tables: Tables,
    /// Steps done.
    pub steps: u32,
    moments: Vec<Vec<f32>>,
}

/// What a step saw.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Seen {
    /// Length of all gradients together, before it was shortened.
    pub length: f64,
    /// Factor that clipping left.
    pub scale: f32,
}

impl Optimiser {
    /// Of parameters, before the first step.
    pub fn new(rule: Rule, parameters: &Parameters) -> Self {
        let moments = vec![vec![0f32; parameters.len()]; rule.moments()];
        Self {
            rule,
            clip: 0.0,
            spare_vectors: false,
            tables: Tables::Dense,
            steps: 0,
            moments,
        }
    }

    /// Empty gradients for the backward passes of a step.
    ///
    /// # Errors
    /// Never in practice: views of a buffer.
    pub fn gradients(&self, parameters: &Parameters) -> Result<Gradients> {
        match self.tables {
            Tables::Dense => parameters.gradients(),
            Tables::Lazy => parameters.gradients_by_rows(),
        }
    }

    /// Moves the parameters by the gradients of a backward pass, at a learning rate. Parameters that no pass reached have a
    /// gradient of 0.
    ///
    /// # Errors
    /// Gradients that are not finite, or not by rows for lazy tables: nothing was moved.
    pub fn step(
        &mut self,
        parameters: &Parameters,
        gradients: &Gradients,
        rate: f32,
    ) -> Result<Seen> {
        let lazy = self.tables == Tables::Lazy;
        if lazy && !gradients.by_rows() {
            return Err(Error::shape(
                "step",
                "lazy tables need gradients by rows: those of Optimiser::gradients",
            ));
        }
        let sweeps = self.sweeps(parameters, gradients);
        let length = if lazy {
            let all = parameters.gathered_but_rows(gradients)?;
            let part = |s: &Sweep<'_>| match s.rows {
                Some((_, rows)) => squares(&rows.values),
                None => squares(&all[s.at.clone()]),
            };
            sweeps.iter().map(part).sum::<f64>().sqrt()
        } else {
            squares(&parameters.gathered(gradients)?).sqrt()
        };
        if !length.is_finite() {
            return Err(unfinished(parameters, gradients));
        }
        let clip = f64::from(self.clip);
        // PyTorch adds 1e-6 to the length.
        let scale = if self.clip > 0.0 && length > clip {
            (clip / (length + 1e-6)) as f32
        } else {
            1.0
        };
        self.steps += 1;
        let (rule, steps, moments) = (self.rule, self.steps, &mut self.moments);
        parameters.update(|weights, gradients| {
            for Sweep { at, decays, rows } in sweeps {
                let (w, g) = (&mut weights[at.clone()], &gradients[at.clone()]);
                match rule {
                    Rule::Adam {
                        betas,
                        eps,
                        decay,
                        coupled,
                    } => {
                        let adam = Adam {
                            rate,
                            betas,
                            eps,
                            decay: if decays { decay } else { 0.0 },
                            coupled,
                            step: steps,
                            scale,
                        };
                        let (first, second) = moments.split_at_mut(1);
                        let (m, v) = (&mut first[0][at.clone()], &mut second[0][at]);
                        match rows {
                            None => adam.step(w, g, m, v),
                            Some((n, r)) => adam.step_rows(n, &r.rows, &r.values, w, m, v),
                        }
                    }
                    Rule::Sgd {
                        momentum,
                        decay,
                        nesterov,
                    } => {
                        let sgd = Sgd {
                            rate,
                            momentum,
                            decay: if decays { decay } else { 0.0 },
                            nesterov,
                            scale,
                        };
                        let v = &mut moments[0][at];
                        match rows {
                            None => sgd.step(w, g, v),
                            Some((n, r)) => sgd.step_rows(n, &r.rows, &r.values, w, v),
                        }
                    }
                }
            }
        })?;
        Ok(Seen { length, scale })
    }

    /// Neighbours that decay alike go in one sweep; tables by rows each in their own.
    fn sweeps<'g>(&self, parameters: &Parameters, gradients: &'g Gradients) -> Vec<Sweep<'g>> {
        let mut sweeps: Vec<Sweep<'g>> = Vec::new();
        for p in parameters.iter() {
            let decays = !(self.spare_vectors && p.value.dims().len() < 2);
            let rows = match self.tables {
                Tables::Dense => None,
                Tables::Lazy => gradients.rows(&p.value).map(|r| (p.value.dims()[1], r)),
            };
            match sweeps.last_mut() {
                Some(last) if last.decays == decays && last.rows.is_none() && rows.is_none() => {
                    last.at.end = p.at.end;
                }
                _ => sweeps.push(Sweep {
                    at: p.at.clone(),
                    decays,
                    rows,
                }),
            }
        }
        sweeps
    }

    /// The moments, one after the other, for a checkpoint.
    pub fn state(&self) -> &[Vec<f32>] {
        &self.moments
    }

    /// Goes on from a checkpoint.
    ///
    /// # Errors
    /// A state of another shape.
    pub fn restore(&mut self, steps: u32, moments: Vec<Vec<f32>>) -> Result<()> {
        let lengths = |m: &[Vec<f32>]| m.iter().map(Vec::len).collect::<Vec<_>>();
        if lengths(&moments) != lengths(&self.moments) {
            return Err(Error::shape(
                "restore",
                format!(
                    "a state of {:?} for parameters of {:?}",
                    lengths(&moments),
                    lengths(&self.moments)
                ),
            ));
        }
        (self.steps, self.moments) = (steps, moments);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
