//! Optimisers over the flat buffers of [`Parameters`]: one sweep a step, state of the same layout, written and read whole.

mod apart;

use polyloom_core::nn::elementwise::squares;
use polyloom_core::nn::embedding::Rows;
use polyloom_core::nn::optim::{Adam, Sgd};
use polyloom_core::nn::sophia::{self, Sophia};

use crate::engine::{Gradients, Parameters, slice};
use crate::error::{Error, Result};

pub use apart::{Apart, Turn};

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
    /// Sophia (Liu et al., ICLR 2024; `Liuhong99/Sophia`). Estimates of the curvature come from outside, by
    /// [`Optimiser::estimate`]; before the first one every parameter moves by the whole rate.
    Sophia {
        /// Where estimates come from.
        curvature: Curvature,
        /// Decay of the momentum and of the curvature.
        betas: [f32; 2],
        /// Factor of the curvature: rho times the batch of Sophia-G, gamma of Sophia-H.
        factor: f32,
        /// Weight decay, as that of AdamW.
        decay: f32,
    },
}

/// How Sophia estimates the diagonal of the curvature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Curvature {
    /// Sophia-G: squares of gradients of labels that the model's own answers were drawn for (Gauss, Newton, Bartlett).
    Labels,
    /// Sophia-H: `u * (H u)` of normal numbers u (Hutchinson), which may be negative. Steps are corrected by
    /// `1 / (1 - b1^step)`.
    Product,
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

    /// Decays of what it remembers; of SGD none.
    fn betas(self) -> [f32; 2] {
        match self {
            Self::Adam { betas, .. } | Self::Sophia { betas, .. } => betas,
            Self::Sgd { .. } => [0.0; 2],
        }
    }

    /// Moments of every parameter.
    fn moments(self) -> usize {
        match self {
            Self::Adam { .. } | Self::Sophia { .. } => 2,
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
    /// Parameters in front that stay as they are, as many numbers.
    pub still: usize,
    /// Steps done.
    pub steps: u32,
    apart: Option<Apart>,
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
            still: 0,
            steps: 0,
            apart: None,
            moments,
        }
    }

    /// With moments for every task, for steps that are of one task each; only Adam and AdamW, tables dense. Costs
    /// `2 T` moments.
    ///
    /// # Errors
    /// Another rule.
    pub fn apart(mut self, apart: Apart) -> Result<Self> {
        let (Rule::Adam { .. }, Tables::Dense) = (self.rule, self.tables) else {
            return Err(Error::shape(
                "optimiser",
                "moments of every task are for Adam and AdamW, with dense tables",
            ));
        };
        let empty = vec![0f32; self.moments[0].len()];
        self.moments = vec![empty; 2 * apart.steps.len()];
        self.apart = Some(apart);
        Ok(self)
    }

    /// The same rule before its first step.
    ///
    /// # Errors
    /// As [`Self::apart`].
    pub fn anew(&self, parameters: &Parameters, apart: Option<Apart>) -> Result<Self> {
        let new = Self {
            clip: self.clip,
            spare_vectors: self.spare_vectors,
            tables: self.tables,
            still: self.still,
            ..Self::new(self.rule, parameters)
        };
        match apart {
            Some(apart) => new.apart(apart),
            None => Ok(new),
        }
    }

    /// Steps of every task, where each has its own moments.
    pub fn turns(&self) -> &[u32] {
        self.apart.as_ref().map_or(&[], |a| &a.steps)
    }

    /// Takes an estimate of the curvature of every parameter: the gradient of drawn labels ([`Curvature::Labels`]), or
    /// `u * (H u)`. Other rules than Sophia have none.
    ///
    /// # Errors
    /// Numbers that are not finite, another number of them.
    pub fn estimate(&mut self, values: &[f32]) -> Result<()> {
        let Rule::Sophia {
            curvature, betas, ..
        } = self.rule
        else {
            return Ok(());
        };
        let h = &mut self.moments[1];
        if values.len() != h.len() || values.iter().any(|x| !x.is_finite()) {
            return Err(Error::shape(
                "step",
                "the estimate of the curvature is not finite",
            ));
        }
        sophia::average(h, values, betas[1], curvature == Curvature::Labels);
        Ok(())
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
        self.step_of(parameters, gradients, rate, Turn::default())
    }

    /// A step of one task.
    ///
    /// # Errors
    /// As [`Self::step`].
    pub fn step_of(
        &mut self,
        parameters: &Parameters,
        gradients: &Gradients,
        rate: f32,
        turn: Turn,
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
            squares(&parameters.gathered(gradients)?[self.still..]).sqrt()
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
        let seen = Seen { length, scale };
        let scale = scale * turn.factor;
        let (rule, mut steps, mut moments) = (self.rule, self.steps, &mut self.moments[..]);
        if let Some(apart) = &mut self.apart {
            apart.steps[turn.task] += 1;
            if apart.all {
                let parts = apart.parts(rule.betas());
                parameters.update(|w, g| {
                    for sweep in sweeps {
                        apart::unmixed(
                            rule,
                            rate,
                            scale,
                            (w, g),
                            &sweep,
                            moments,
                            turn.task,
                            &parts,
                        );
                    }
                })?;
                return Ok(seen);
            }
            steps = apart.steps[turn.task];
            moments = &mut moments[2 * turn.task..][..2];
        }
        parameters.update(|weights, gradients| {
            for Sweep { at, decays, rows } in sweeps {
                let (w, g) = (&mut weights[at.clone()], &gradients[at.clone()]);
                match rule {
                    Rule::Sophia {
                        curvature,
                        betas,
                        factor,
                        decay,
                    } => {
                        let sophia = Sophia {
                            rate,
                            beta: betas[0],
                            factor,
                            floor: match curvature {
                                Curvature::Labels => 1e-15,
                                Curvature::Product => 1e-12,
                            },
                            decay: if decays { decay } else { 0.0 },
                            step: (curvature == Curvature::Product).then_some(steps),
                            scale,
                        };
                        let (m, h) = moments.split_at_mut(1);
                        sophia.step(w, g, &mut m[0][at.clone()], &h[0][at]);
                    }
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
        Ok(seen)
    }

    /// Neighbours that decay alike go in one sweep; tables by rows each in their own.
    fn sweeps<'g>(&self, parameters: &Parameters, gradients: &'g Gradients) -> Vec<Sweep<'g>> {
        let mut sweeps: Vec<Sweep<'g>> = Vec::new();
        for p in parameters.iter().filter(|p| p.at.start >= self.still) {
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

    /// Goes on from a checkpoint; `turns` are the steps of every task, where each has its own moments.
    ///
    /// # Errors
    /// A state of another shape.
    pub fn restore(&mut self, steps: u32, turns: &[u32], moments: Vec<Vec<f32>>) -> Result<()> {
        let lengths = |m: &[Vec<f32>]| m.iter().map(Vec::len).collect::<Vec<_>>();
        if lengths(&moments) != lengths(&self.moments) || turns.len() != self.turns().len() {
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
        if let Some(apart) = &mut self.apart {
            apart.steps = turns.to_vec();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
