//! Experts in place of a feed-forward part: a gate chooses a few of them for every token.
//!
//! M3ViT (Fan et al., NeurIPS 2022) for images, with a gate for every goal, one that reads the goal, or a window of experts for
//! every goal; top-p routing (Huang et al., ACL 2024) and renormalised top-k (JiuZhang 2.0, 2023) for texts. Probabilities are
//! a softmax over all experts that a gate sees; what is kept of them weighs the experts, not renormalised unless asked. All
//! experts of a layer lie in one tensor; an expert that no token chose is not run, and gets no gradient. Experts are what the
//! feed-forward parts of the model are: two layers with its activation, in decoders gated ones without biases (SwiGLU, as those
//! of Huang et al.).

mod added;
mod config;

use std::collections::BTreeMap;

use polyloom_core::rng::Stream;

use super::Source;
use super::gates::{self, Kept};
use crate::engine::{Value, tensor};
use crate::error::{Error, Result};
use crate::ops::{self, Activation};

pub use config::{Config, Gate};

/// A tensor of the experts of a layer: what stands behind the layer's name, shape, and of matrices inputs and outputs of each.
pub type Part = (String, Vec<usize>, Option<[usize; 2]>);

/// The experts of the layers of a model.
#[derive(Debug, Clone)]
pub struct Experts {
    /// What the configuration says.
    pub config: Config,
    width: usize,
    layers: usize,
    activation: Activation,
    /// Experts are `down (act(gated x) * up x)` without biases, in place of `down act(up x)` with them.
    gated: bool,
}

impl Experts {
    /// Of a configuration, for a model of a width and a number of layers.
    ///
    /// # Errors
    /// Numbers that make no mixture; the error names the key.
    pub fn new(
        config: Config,
        [width, layers]: [usize; 2],
        activation: Activation,
    ) -> Result<Self> {
        let made = Self {
            config,
            width,
            layers,
            activation,
            gated: false,
        };
        made.config.check(made.seen(), layers)?;
        Ok(made)
    }

    /// The same with gated experts, for a decoder. Its texts say what is asked, and its gates are those of all goals.
    ///
    /// # Errors
    /// Gates of goals.
    pub fn gated(self) -> Result<Self> {
        if self.by_goal() {
            return Err(Error::Config {
                what: "moe.gate of a decoder is \"shared\": its texts say what is asked".into(),
            });
        }
        Ok(Self {
            gated: true,
            ..self
        })
    }

    /// Whether a layer has experts in place of its feed-forward part.
    #[must_use]
    pub fn are_in(&self, layer: usize) -> bool {
        match self.config.last {
            Some(last) => layer + last >= self.layers,
            None => (layer + 1).is_multiple_of(self.config.every),
        }
    }

    /// Whether gates differ by goal, so that every input passes for one.
    #[must_use]
    pub fn by_goal(&self) -> bool {
        self.config.gate != Gate::Shared
    }

    /// Goals of the rows of inputs, as [`Self::forward`] takes them: `present` says of every row whether it is there (`inputs`
    /// times as many as each has), `goals` of every input its goal, or nothing where gates are the same for all.
    ///
    /// # Errors
    /// Another number of goals than inputs; goals where gates are the same for all.
    pub fn of_rows(
        &self,
        goals: &[u32],
        inputs: usize,
        present: &[bool],
    ) -> Result<Vec<Option<u32>>> {
        let wanted = if self.by_goal() { inputs } else { 0 };
        if goals.len() != wanted {
            let what = match wanted {
                0 => "inputs for goals, and experts that all goals share".to_owned(),
                _ => format!(
                    "{} goals for {inputs} inputs: its experts are chosen by goal, so each passes for one",
                    goals.len()
                ),
            };
            return Err(Error::shape("experts", what));
        }
        let each = (present.len() / inputs.max(1)).max(1);
        let of = |row: usize| goals.get(row / each).copied().unwrap_or(0);
        let rows = present.iter().enumerate();
        Ok(rows.map(|(row, p)| p.then(|| of(row))).collect())
    }

    /// How many experts a gate sees.
    fn seen(&self) -> usize {
        match (self.config.gate, self.config.window) {
            (Gate::Window, 0) => self.config.experts.div_ceil(2),
            (Gate::Window, window) => window,
            _ => self.config.experts,
        }
    }

    /// The experts that tokens of a goal can reach which was there from the beginning.
    #[must_use]
    pub fn of_goal(&self, goal: usize) -> std::ops::Range<usize> {
        let (experts, seen) = (self.config.experts, self.seen());
        let first = match self.config.gate {
            Gate::Window => gates::window(goal, self.first_goals(), experts, seen),
            _ => 0,
        };
        first..first + seen
    }

    /// The tensors of a layer.
    #[must_use]
    pub fn tensors(&self) -> Vec<Part> {
        let (width, experts, seen) = (self.width, self.config.experts, self.seen());
        let (inner, goals) = (self.inner(), self.first_goals());
        let part = |name: &str, shape: &[usize], sides| (name.to_owned(), shape.to_vec(), sides);
        let gate = |shape: &[usize], inputs| part("gate.weight", shape, Some([inputs, seen]));
        let mut all: Vec<Part> = match self.config.gate {
            Gate::Goal | Gate::Window => vec![gate(&[goals, seen, width], width)],
            Gate::Shared => vec![gate(&[seen, width], width)],
            Gate::Conditioned => vec![
                gate(&[seen, 2 * width], 2 * width),
                part("gate.goals", &[goals, width], Some([goals, width])),
            ],
        };
        let (up, down) = ([experts, inner, width], [experts, width, inner]);
        if self.gated {
            all.push(part("gated.weight", &up, Some([width, inner])));
        }
        all.push(part("up.weight", &up, Some([width, inner])));
        all.push(part("down.weight", &down, Some([inner, width])));
        if !self.gated {
            all.insert(all.len() - 1, part("up.bias", &[experts, inner], None));
            all.push(part("down.bias", &[experts, width], None));
        }
        all.extend(self.added_tensors(inner));
        all
    }

    /// Probabilities of the experts that a goal's gate sees, for rows `[n, width]` of that goal.
    fn gate(&self, source: &dyn Source, name: &str, goal: usize, x: &Value) -> Result<Value> {
        let added = self.added(goal);
        let of = added.map_or_else(String::new, added::prefix);
        let weight = source.tensor(&format!("{name}.{of}gate.weight"))?;
        let scores = match self.config.gate {
            _ if added.is_some() => ops::linear(x, &weight, None)?,
            Gate::Shared => ops::linear(x, &weight, None)?,
            Gate::Goal | Gate::Window => ops::linear(x, &slab(&weight, goal)?, None)?,
            Gate::Conditioned => {
                let n = x.dims()[0];
                let goals = source.tensor(&format!("{name}.gate.goals"))?;
                let of = ops::embedding(&goals, &vec![goal as u32; n], &[n])?;
                ops::linear(&ops::concat(&[x, &of], 1)?, &weight, None)?
            }
        };
        let seen = self.reached(goal).len();
        if scores.dims().last() != Some(&seen) {
            let found = weight.dims();
            let what =
                format!("`{name}.{of}gate.weight` of {found:?}, and gates see {seen} experts");
            return Err(Error::shape("experts", what));
        }
        let deviation = self.config.noise;
        let deviation = deviation.unwrap_or(1.0 / self.config.experts as f32);
        let scores = match source.dropout() {
            Some(seed) if deviation > 0.0 => {
                let stream = Stream::new(seed, name, goal as u64);
                let noise =
                    (0..scores.data().elem_count() as u64).map(|i| deviation * stream.normal(i));
                let noise = tensor(noise.collect(), scores.dims())?;
                ops::add(&scores, &Value::constant(noise))?
            }
            _ => scores,
        };
        ops::softmax(&scores)
    }

    /// What is kept of probabilities, the weights renormalised where asked.
    fn keep(&self, probabilities: &Value) -> Result<Kept> {
        let mut kept = match self.config.top_p {
            Some(p) => gates::top_p(probabilities, p)?,
            None => gates::top_k(probabilities, self.config.top_k)?,
        };
        if self.config.renormalise {
            let width = probabilities.dims()[1];
            let ones = |shape: (usize, usize)| {
                Ok::<_, Error>(Value::constant(tensor(vec![1.0; width], shape)?))
            };
            let sums = ops::product(&kept.weights, &ones((width, 1))?)?;
            let parts = ops::product(&ops::reciprocal(&sums, 0.0)?, &ones((1, width))?)?;
            kept.weights = ops::mul(&kept.weights, &parts)?;
        }
        Ok(kept)
    }

    /// Numbers of an expert, and of what the gate of a goal reads.
    #[must_use]
    pub fn sizes(&self) -> [usize; 2] {
        let (width, inner, seen) = (self.width, self.inner(), self.seen());
        let gate = match self.config.gate {
            Gate::Conditioned => 2 * seen * width + width,
            _ => seen * width,
        };
        let own = match self.gated {
            true => 3 * inner * width,
            false => 2 * inner * width + inner + width,
        };
        [own, gate]
    }

    /// Width inside of an expert.
    #[must_use]
    pub fn inner(&self) -> usize {
        match self.config.inner {
            0 => self.width,
            inner => inner,
        }
    }

    /// What the experts of the layer `name` make of rows `[n, width]`, each for a goal; rows for none are filling: they are 0
    /// and count nowhere. Tells the source what keeps experts in use ([`Source::penalty`]) and which were chosen
    /// ([`Source::routed`]).
    ///
    /// # Errors
    /// Another number of goals than rows, a goal that is none, tensors that are absent or of another shape.
    pub fn forward(
        &self,
        source: &dyn Source,
        name: &str,
        x: &Value,
        goals: &[Option<u32>],
    ) -> Result<Value> {
        let n = x.dims().first().copied().unwrap_or(0);
        let known = self.config.goals.len().max(1);
        if goals.len() != n || goals.iter().flatten().any(|g| *g as usize >= known) {
            let what = format!("{} goals of {known} for {n} rows", goals.len());
            return Err(Error::shape("experts", what));
        }
        let mut by_goal: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
        for (row, goal) in (0u32..).zip(goals) {
            if let Some(goal) = goal {
                by_goal.entry(*goal).or_default().push(row);
            }
        }
        if by_goal.is_empty() {
            return ops::scale(x, 0.0);
        }
        // Of every expert the rows that chose it, and where their weights stand.
        let mut chosen: BTreeMap<usize, (Vec<u32>, Vec<u32>)> = BTreeMap::new();
        let (mut all, mut weights, mut kept_of, mut before) =
            (Vec::new(), Vec::new(), Vec::new(), 0);
        for (goal, rows) in &by_goal {
            let goal = *goal as usize;
            let own = match rows.len() == n {
                true => x.clone(),
                false => ops::rows(x, rows)?,
            };
            let probabilities = self.gate(source, name, goal, &own)?;
            let kept = self.keep(&probabilities)?;
            source.routed(name, goal, &kept)?;
            let (reached, seen) = (self.reached(goal), probabilities.dims()[1]);
            for (i, (row, experts)) in rows.iter().zip(&kept.experts).enumerate() {
                for expert in experts {
                    let expert_of = reached.get(*expert as usize).copied();
                    let (at, of) = chosen.entry(expert_of.unwrap_or(usize::MAX)).or_default();
                    at.push(*row);
                    of.push((before + i * seen) as u32 + expert);
                }
            }
            before += rows.len() * seen;
            weights.push(ops::reshape(&kept.weights, &[rows.len() * seen, 1])?);
            all.push((goal, probabilities));
            kept_of.push(kept);
        }
        self.penalise(source, &all, &kept_of)?;
        let weights = match &weights[..] {
            [one] => one.clone(),
            several => ops::concat(&several.iter().collect::<Vec<_>>(), 0)?,
        };
        self.run(source, name, x, &weights, chosen)
    }

    /// Chosen experts on their rows, and what they say put back, weighed.
    fn run(
        &self,
        source: &dyn Source,
        name: &str,
        x: &Value,
        weights: &Value,
        chosen: BTreeMap<usize, (Vec<u32>, Vec<u32>)>,
    ) -> Result<Value> {
        let parts: &[&str] = match self.gated {
            true => &["gated.weight", "up.weight", "down.weight"],
            false => &["up.weight", "up.bias", "down.weight", "down.bias"],
        };
        let (mut said, mut at, mut place) = (Vec::new(), Vec::new(), Vec::new());
        // Experts come in order, so that the tensors of a goal are asked for once.
        let mut here: Option<(String, Vec<Value>)> = None;
        for (expert, (rows, weights)) in chosen {
            let (of, number) = self.place(expert);
            let tensors = match here.take().filter(|(before, _)| *before == of) {
                Some((_, tensors)) => tensors,
                None => parts
                    .iter()
                    .map(|part| source.tensor(&format!("{name}.{of}{part}")))
                    .collect::<Result<_>>()?,
            };
            let own: Vec<Value> = tensors
                .iter()
                .map(|t| slab(t, number))
                .collect::<Result<_>>()?;
            here = Some((of, tensors));
            let x = ops::rows(x, &rows)?;
            said.push(match &own[..] {
                [gated, up, down] => {
                    let (gated, up) = (ops::linear(&x, gated, None)?, ops::linear(&x, up, None)?);
                    ops::linear(&ops::gated(&gated, &up, self.activation)?, down, None)?
                }
                [up, up_bias, down, down_bias] => {
                    let y = ops::linear(&x, up, Some(up_bias))?;
                    let y = ops::activate(&y, self.activation)?;
                    ops::linear(&y, down, Some(down_bias))?
                }
                _ => return Err(Error::shape("experts", "tensors of an expert")),
            });
            at.extend(rows);
            place.extend(weights);
        }
        let said = ops::concat(&said.iter().collect::<Vec<_>>(), 0)?;
        ops::scatter(&said, &ops::rows(weights, &place)?, &at, x.dims()[0])
    }

    /// What keeps experts in use: variation and balance, the mean over goals, entropy, the mean over rows, and mutual
    /// information.
    fn penalise(&self, source: &dyn Source, all: &[(usize, Value)], kept: &[Kept]) -> Result<()> {
        let c = &self.config;
        source.penalty(&mut || {
            let mut sum = Value::constant(tensor(vec![0.0], ())?);
            if c.balance > 0.0 && self.seen() > 1 {
                let factor = c.balance / kept.len().max(1) as f32;
                for kept in kept {
                    sum = ops::add(&sum, &ops::scale(&kept.variation()?, factor)?)?;
                }
            }
            if c.switch > 0.0 {
                let factor = c.switch / kept.len().max(1) as f32;
                for (kept, (_, all)) in kept.iter().zip(all) {
                    sum = ops::add(&sum, &ops::scale(&kept.balance(all)?, factor)?)?;
                }
            }
            if c.entropy > 0.0 {
                let found = gates::entropy(&all.iter().map(|(_, p)| p).collect::<Vec<_>>())?;
                sum = ops::add(&sum, &ops::scale(&found, c.entropy)?)?;
            }
            // Goals that were added see other experts, and are not told from the first ones by them.
            let first = all.iter().filter(|(goal, _)| self.added(*goal).is_none());
            let first: Vec<&Value> = first.map(|(_, p)| p).collect();
            if c.mutual_information > 0.0 && first.len() > 1 {
                let found = gates::mutual_information(&first)?;
                sum = ops::add(&sum, &ops::scale(&found, c.mutual_information)?)?;
            }
            Ok(sum)
        })
    }
}

/// Part `at` of a tensor along its first axis.
fn slab(x: &Value, at: usize) -> Result<Value> {
    if x.dims().len() < 2 || at >= x.dims()[0] {
        let what = format!("part {at} of a tensor of {:?}", x.dims());
        return Err(Error::shape("experts", what));
    }
    ops::reshape(&ops::narrow(x, 0, at, 1)?, &x.dims()[1..])
}

#[cfg(test)]
mod tests;
