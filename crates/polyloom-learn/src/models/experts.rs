//! Experts in place of a feed-forward part: a gate chooses a few of them for every token.
//!
//! M3ViT (Fan et al., NeurIPS 2022) for images, with a gate for every goal, one that reads the goal, or a window of experts for
//! every goal; top-p routing (Huang et al., ACL 2024) and renormalised top-k (JiuZhang 2.0, 2023) for texts. Probabilities are
//! a softmax over all experts that a gate sees; what is kept of them weighs the experts, not renormalised unless asked. All
//! experts of a layer lie in one tensor; an expert that no token chose is not run, and gets no gradient.

use std::collections::BTreeMap;

use polyloom_core::rng::Stream;
use serde::{Deserialize, Serialize};

use super::Source;
use super::gates::{self, Kept};
use crate::engine::{Tensor, Value, tensor};
use crate::error::{Error, In, Result};
use crate::ops::{self, Activation};

/// Which gate a token meets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Gate {
    /// One for every goal.
    #[default]
    Goal,
    /// One for all, which reads the token and a vector of the goal.
    Conditioned,
    /// One for every goal, over a window of the experts: goals share those where windows overlap.
    Window,
    /// One for all.
    Shared,
}

/// What a configuration says of experts (`moe` in `config.json`).
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Experts of a layer.
    pub experts: usize,
    /// Experts of a token.
    pub top_k: usize,
    /// In place of `top_k`: the fewest experts whose probabilities together exceed this.
    pub top_p: Option<f32>,
    /// Whether the weights of a token's experts are divided by their sum.
    pub renormalise: bool,
    /// Which gate a token meets.
    pub gate: Gate,
    /// Experts of a goal's window; 0 for half of them.
    pub window: usize,
    /// Every so many layers the last one has experts.
    pub every: usize,
    /// Width inside of an expert; 0 for that of the stream.
    pub inner: usize,
    /// Deviation of the noise on a gate's scores in training; 1/experts where nothing is said.
    pub noise: Option<f32>,
    /// Factor of the squared variation of importance and load ([`Kept::variation`]) in the loss.
    pub balance: f32,
    /// Factor of minus the mutual information of goals and experts ([`gates::mutual_information`]) in the loss.
    pub mutual_information: f32,
    /// Names of the goals, in the order of the gates.
    pub goals: Vec<String>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            experts: 16,
            top_k: 4,
            top_p: None,
            renormalise: false,
            gate: Gate::default(),
            window: 0,
            every: 2,
            inner: 0,
            noise: None,
            balance: 0.01,
            mutual_information: 0.0,
            goals: Vec::new(),
        }
    }
}

/// A tensor of the experts of a layer: what stands behind the layer's name, shape, and of matrices inputs and outputs of each.
pub type Part = (&'static str, Vec<usize>, Option<[usize; 2]>);

/// The experts of the layers of a model.
#[derive(Debug, Clone)]
pub struct Experts {
    /// What the configuration says.
    pub config: Config,
    width: usize,
    activation: Activation,
}

impl Experts {
    /// Of a configuration, for a stream of a width.
    ///
    /// # Errors
    /// Numbers that make no mixture; the error names the key.
    pub fn new(config: Config, width: usize, activation: Activation) -> Result<Self> {
        let made = Self {
            config,
            width,
            activation,
        };
        let wrong = |what: String| Err(Error::Config { what });
        let c = &made.config;
        // Above, names and numbers of experts alone fill the memory.
        if !(1..=4096).contains(&c.experts) || c.goals.len() > 4096 {
            return wrong(format!(
                "moe.experts {} and {} goals",
                c.experts,
                c.goals.len()
            ));
        }
        if c.every == 0 || c.inner > 1 << 20 {
            return wrong(format!("moe.every {} and moe.inner {}", c.every, c.inner));
        }
        let seen = made.seen();
        if !(1..=c.experts).contains(&seen) || !(1..=seen).contains(&c.top_k) {
            let (k, e) = (c.top_k, c.experts);
            return wrong(format!("moe.top_k {k} of {seen} of {e} experts"));
        }
        if c.top_p.is_some_and(|p| !(0.0..=1.0).contains(&p)) {
            return wrong("moe.top_p is a share, 0 to 1".into());
        }
        let factors = [Some(c.balance), Some(c.mutual_information), c.noise];
        if factors.iter().flatten().any(|x| !x.is_finite() || *x < 0.0) {
            return wrong("moe.balance, moe.mutual_information and moe.noise are 0 or more".into());
        }
        if c.mutual_information > 0.0 && matches!(c.gate, Gate::Window | Gate::Shared) {
            return wrong("moe.mutual_information needs gates of goals over all experts".into());
        }
        Ok(made)
    }

    /// Whether a layer has experts in place of its feed-forward part.
    #[must_use]
    pub fn are_in(&self, layer: usize) -> bool {
        (layer + 1).is_multiple_of(self.config.every)
    }

    /// How many experts a gate sees.
    fn seen(&self) -> usize {
        match (self.config.gate, self.config.window) {
            (Gate::Window, 0) => self.config.experts.div_ceil(2),
            (Gate::Window, window) => window,
            _ => self.config.experts,
        }
    }

    /// The experts that tokens of a goal can reach.
    #[must_use]
    pub fn of_goal(&self, goal: usize) -> std::ops::Range<usize> {
        let (experts, seen) = (self.config.experts, self.seen());
        let first = match self.config.gate {
            Gate::Window => gates::window(goal, self.config.goals.len(), experts, seen),
            _ => 0,
        };
        first..first + seen
    }

    /// The tensors of a layer.
    #[must_use]
    pub fn tensors(&self) -> Vec<Part> {
        let (width, experts, seen) = (self.width, self.config.experts, self.seen());
        let inner = match self.config.inner {
            0 => width,
            inner => inner,
        };
        let goals = self.config.goals.len();
        let mut all = match self.config.gate {
            Gate::Goal | Gate::Window => {
                let shape = vec![goals, seen, width];
                vec![("gate.weight", shape, Some([width, seen]))]
            }
            Gate::Shared => vec![("gate.weight", vec![seen, width], Some([width, seen]))],
            Gate::Conditioned => vec![
                (
                    "gate.weight",
                    vec![seen, 2 * width],
                    Some([2 * width, seen]),
                ),
                ("gate.goals", vec![goals, width], Some([goals, width])),
            ],
        };
        all.push((
            "up.weight",
            vec![experts, inner, width],
            Some([width, inner]),
        ));
        all.push(("up.bias", vec![experts, inner], None));
        all.push((
            "down.weight",
            vec![experts, width, inner],
            Some([inner, width]),
        ));
        all.push(("down.bias", vec![experts, width], None));
        all
    }

    /// What is left to say where one goal alone stays: its gate over the experts that it can reach.
    ///
    /// # Errors
    /// A goal that is none.
    pub fn alone(&self, goal: usize) -> Result<Config> {
        let c = &self.config;
        let none = || Error::shape("experts", format!("goal {goal} of {}", c.goals.len()));
        let name = c.goals.get(goal).ok_or_else(none)?;
        Ok(Config {
            experts: self.of_goal(goal).len(),
            gate: match c.gate {
                Gate::Window => Gate::Goal,
                other => other,
            },
            window: 0,
            noise: Some(c.noise.unwrap_or(1.0 / c.experts as f32)),
            mutual_information: 0.0,
            goals: vec![name.clone()],
            ..c.clone()
        })
    }

    /// What stays of a tensor ([`Self::tensors`]) then.
    ///
    /// # Errors
    /// A tensor of another shape.
    pub fn part(&self, goal: usize, part: &str, whole: &Tensor) -> Result<Tensor> {
        let own = self.of_goal(goal);
        let (start, length) = match (part, self.config.gate) {
            ("gate.weight", Gate::Goal | Gate::Window) | ("gate.goals", _) => (goal, 1),
            ("gate.weight", _) => return Ok(whole.clone()),
            _ => (own.start, own.len()),
        };
        let kept = whole.narrow(0, start, length);
        kept.and_then(|t| t.contiguous()).during("experts")
    }

    /// Probabilities of the experts that a goal's gate sees, for rows `[n, width]` of that goal.
    fn gate(&self, source: &dyn Source, name: &str, goal: usize, x: &Value) -> Result<Value> {
        let weight = source.tensor(&format!("{name}.gate.weight"))?;
        let scores = match self.config.gate {
            Gate::Shared => ops::linear(x, &weight, None)?,
            Gate::Goal | Gate::Window => ops::linear(x, &slab(&weight, goal)?, None)?,
            Gate::Conditioned => {
                let n = x.dims()[0];
                let goals = source.tensor(&format!("{name}.gate.goals"))?;
                let of = ops::embedding(&goals, &vec![goal as u32; n], &[n])?;
                ops::linear(&ops::concat(&[x, &of], 1)?, &weight, None)?
            }
        };
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

    /// What the experts of the layer `name` make of rows `[n, width]`, each for a goal. Tells the source what keeps experts in
    /// use ([`Source::penalty`]).
    ///
    /// # Errors
    /// Another number of goals than rows, a goal that is none, tensors that are absent or of another shape.
    pub fn forward(
        &self,
        source: &dyn Source,
        name: &str,
        x: &Value,
        goals: &[u32],
    ) -> Result<Value> {
        let n = x.dims().first().copied().unwrap_or(0);
        let known = self.config.goals.len().max(1);
        if goals.len() != n || goals.iter().any(|g| *g as usize >= known) {
            let what = format!("{} goals of {known} for {n} rows", goals.len());
            return Err(Error::shape("experts", what));
        }
        let mut by_goal: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
        for (row, goal) in (0u32..).zip(goals) {
            by_goal.entry(*goal).or_default().push(row);
        }
        // Of every expert the rows that chose it, and where their weights stand.
        let mut chosen: BTreeMap<usize, (Vec<u32>, Vec<u32>)> = BTreeMap::new();
        let (mut all, mut weights, mut kept_of, mut before) =
            (Vec::new(), Vec::new(), Vec::new(), 0);
        for (goal, rows) in &by_goal {
            let goal = *goal as usize;
            let own = match by_goal.len() {
                1 => x.clone(),
                _ => ops::rows(x, rows)?,
            };
            let probabilities = self.gate(source, name, goal, &own)?;
            let kept = self.keep(&probabilities)?;
            let (first, seen) = (self.of_goal(goal).start, probabilities.dims()[1]);
            for (i, (row, experts)) in rows.iter().zip(&kept.experts).enumerate() {
                for expert in experts {
                    let (at, of) = chosen.entry(first + *expert as usize).or_default();
                    at.push(*row);
                    of.push((before + i * seen) as u32 + expert);
                }
            }
            before += rows.len() * seen;
            weights.push(ops::reshape(&kept.weights, &[rows.len() * seen, 1])?);
            all.push(probabilities);
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
        let of = |part: &str| source.tensor(&format!("{name}.{part}"));
        let (up, up_bias) = (of("up.weight")?, of("up.bias")?);
        let (down, down_bias) = (of("down.weight")?, of("down.bias")?);
        let (mut said, mut at, mut place) = (Vec::new(), Vec::new(), Vec::new());
        for (expert, (rows, weights)) in chosen {
            let y = ops::rows(x, &rows)?;
            let y = ops::linear(&y, &slab(&up, expert)?, Some(&slab(&up_bias, expert)?))?;
            let y = ops::activate(&y, self.activation)?;
            let (weight, bias) = (slab(&down, expert)?, slab(&down_bias, expert)?);
            said.push(ops::linear(&y, &weight, Some(&bias))?);
            at.extend(rows);
            place.extend(weights);
        }
        let said = ops::concat(&said.iter().collect::<Vec<_>>(), 0)?;
        ops::scatter(&said, &ops::rows(weights, &place)?, &at, x.dims()[0])
    }

    /// What keeps experts in use: variation, the mean over goals, and mutual information.
    fn penalise(&self, source: &dyn Source, all: &[Value], kept: &[Kept]) -> Result<()> {
        let c = &self.config;
        source.penalty(&mut || {
            let mut sum = Value::constant(tensor(vec![0.0], ())?);
            if c.balance > 0.0 && self.seen() > 1 {
                let factor = c.balance / kept.len().max(1) as f32;
                for kept in kept {
                    sum = ops::add(&sum, &ops::scale(&kept.variation()?, factor)?)?;
                }
            }
            if c.mutual_information > 0.0 && all.len() > 1 {
                let found = gates::mutual_information(&all.iter().collect::<Vec<_>>())?;
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
