//! Model predictive task sampling (Wang et al. 2025; `thu-rllab/MPTS`): a small model learns how large the losses of tasks
//! are, and the tasks whose loss may be largest are chosen for the next step.
//!
//! What is known of a task is its number, as a vector of one 1. An encoder takes (task, loss) pairs of a step to a normal
//! distribution q of a vector z (`mu = W r`, `sigma = 0.1 + 0.9 sigmoid(W' r)` of the mean r over the pairs), a decoder
//! takes (task, z) to a loss. After every step both learn from its pairs: squares of what the mean over samples of z
//! misses, plus `KL(q || q of the step before)`.

use polyloom::MergeError;
use polyloom::tasks::sample::Draw;
use polyloom_core::rng::Stream;
use serde::{Deserialize, Serialize};

use super::mixing::Mixing;
use super::optimiser::{Optimiser, Rule};
use super::recipe::{Recipe, Train};
use crate::engine::{Parameters, Value, compose, slice, tensor};
use crate::error::{Error, Result};
use crate::ops::{self, Activation};

/// Width of hidden layers, of r and of z.
const WIDTH: usize = 10;

/// `[train.mpts]`.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct MptsRecipe {
    /// Tasks of a step; 1 with `mixing = "alternate"`.
    pub select: usize,
    /// Tasks that are compared, drawn by their weights where there are more.
    pub pool: usize,
    /// Samples of z.
    pub samples: usize,
    /// Factor of the predicted mean.
    pub gamma_mu: f64,
    /// Factor of the deviation of the predictions.
    pub gamma_sigma: f64,
    /// Learning rate of the risk learner (Adam).
    pub rate: f64,
    /// Share of steps whose tasks are drawn in place of chosen.
    pub random: f64,
}

impl Default for MptsRecipe {
    fn default() -> Self {
        Self {
            select: 1,
            pool: 32,
            samples: 20,
            gamma_mu: 1.0,
            gamma_sigma: 3.0,
            rate: 5e-4,
            random: 0.0,
        }
    }
}

impl MptsRecipe {
    /// Whether the values can be.
    ///
    /// # Errors
    /// The first that cannot.
    pub(super) fn check(&self, t: &Train) -> std::result::Result<(), MergeError> {
        let bad = |what: String| Err(MergeError::plan("bad-recipe", what));
        if self.select == 0 || self.pool < self.select || self.samples < 2 {
            return bad(format!(
                "`train.mpts`: `select` is {}, `pool` {} and `samples` {}; they must be at least 1, `select` and 2",
                self.select, self.pool, self.samples
            ));
        }
        if t.mixing == Mixing::Alternate && self.select != 1 {
            return bad(format!(
                "`train.mpts.select` is {}; with `mixing = \"alternate\"` a step is of one task",
                self.select
            ));
        }
        let numbers = [
            ("gamma_mu", self.gamma_mu),
            ("gamma_sigma", self.gamma_sigma),
            ("rate", self.rate),
        ];
        for (name, x) in numbers {
            if !(x.is_finite() && x >= 0.0) {
                return bad(format!("`train.mpts.{name}` is {x}; it must be at least 0"));
            }
        }
        if !(0.0..=1.0).contains(&self.random) {
            return bad(format!(
                "`train.mpts.random` is {}; it must be in 0 to 1",
                self.random
            ));
        }
        Ok(())
    }
}

/// A layer: weight `[out, in]` and bias `[out]`.
pub type Layer = [Value; 2];

/// The decoder: layers with ReLU between them. Predictions `[candidates, samples]` for candidates `[n, width]` and samples of z.
///
/// # Errors
/// Shapes that do not fit.
pub fn predicted(layers: &[Layer], candidates: &Value, z: &Value) -> Result<Value> {
    let (n, samples) = (rows_of(candidates), rows_of(z));
    let of = |f: fn(usize, usize) -> usize| -> Vec<u32> {
        (0..n * samples).map(|i| f(i, samples) as u32).collect()
    };
    let x = ops::rows(candidates, &of(|i, samples| i / samples))?;
    let z = ops::rows(z, &of(|i, samples| i % samples))?;
    let out = perceptron(layers, ops::concat(&[&x, &z], 1)?)?;
    ops::reshape(&out, &[n, samples])
}

fn rows_of(value: &Value) -> usize {
    value.dims().first().copied().unwrap_or(0)
}

/// Layers with ReLU between them.
fn perceptron(layers: &[Layer], x: Value) -> Result<Value> {
    let last = layers.len().saturating_sub(1);
    let mut h = x;
    for (i, [w, b]) in layers.iter().enumerate() {
        h = ops::linear(&h, w, Some(b))?;
        if i < last {
            h = ops::activate(&h, Activation::Relu)?;
        }
    }
    Ok(h)
}

/// Scores of candidates: `gamma_mu mean + gamma_sigma deviation` (of n - 1) over what was predicted, `samples` numbers for each.
#[must_use]
pub fn acquisition(predicted: &[f32], samples: usize, gamma_mu: f64, gamma_sigma: f64) -> Vec<f64> {
    let n = samples as f64;
    let score = |row: &[f32]| {
        let mean = row.iter().map(|x| f64::from(*x)).sum::<f64>() / n;
        let squares: f64 = row.iter().map(|x| (f64::from(*x) - mean).powi(2)).sum();
        gamma_mu * mean + gamma_sigma * (squares / (n - 1.0)).sqrt()
    };
    predicted.chunks_exact(samples.max(1)).map(score).collect()
}

/// Numbers of the largest scores, the largest first; of equals the first.
#[must_use]
pub fn largest(scores: &[f64], count: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|a, b| scores[*b].total_cmp(&scores[*a]).then(a.cmp(b)));
    order.truncate(count);
    order
}

/// Names of the layers with outputs and inputs, for a number of tasks: five of the encoder, four of the decoder.
fn shapes(tasks: usize) -> [(&'static str, usize, usize); 9] {
    let w = WIDTH;
    [
        ("e0", w, tasks + 1),
        ("e1", w, w),
        ("e2", w, w),
        ("z.mu", w, w),
        ("z.sigma", w, w),
        ("d0", w, tasks + w),
        ("d1", w, w),
        ("d2", w, w),
        ("mu", 1, w),
    ]
}

/// The risk learner of a run.
pub struct Mpts {
    recipe: MptsRecipe,
    tasks: usize,
    seed: u64,
    parameters: Parameters,
    optimiser: Optimiser,
    /// Mean and deviation of z after the step before.
    latent: [Vec<f32>; 2],
}

impl Mpts {
    /// Of a recipe and so many tasks. Weights begin as PyTorch's linear layers do: even in `+-1 / sqrt(inputs)`.
    ///
    /// # Errors
    /// More tasks in a step than there are, or than rows in a pass.
    pub(super) fn new(recipe: &Recipe, tasks: usize) -> Result<Self> {
        let mpts = recipe.train.mpts.clone().unwrap_or_default();
        if mpts.select > tasks || mpts.select > recipe.train.batch {
            let what = format!(
                "`train.mpts.select` is {}; there are {tasks} tasks, and `train.batch` is {}",
                mpts.select, recipe.train.batch
            );
            return Err(MergeError::plan("bad-recipe", what).into());
        }
        let mut tensors = Vec::new();
        for (i, (name, out, inputs)) in (0u64..).zip(shapes(tasks)) {
            let stream = Stream::new(recipe.seed, "mpts weights", i);
            let bound = 1.0 / (inputs as f32).sqrt();
            let draw = |k: usize| bound * (2.0 * stream.uniform(k as u64) - 1.0);
            let weight = (0..out * inputs).map(draw).collect();
            let bias = (out * inputs..out * inputs + out).map(draw).collect();
            tensors.push((format!("{name}.weight"), tensor(weight, (out, inputs))?));
            tensors.push((format!("{name}.bias"), tensor(bias, out)?));
        }
        let parameters = Parameters::new(tensors)?;
        Ok(Self {
            optimiser: Optimiser::new(Rule::adamw(0.0), &parameters),
            parameters,
            recipe: mpts,
            tasks,
            seed: recipe.seed,
            latent: [vec![0.0; WIDTH], vec![1.0; WIDTH]],
        })
    }

    /// Tasks of a step, by their predicted risk.
    ///
    /// # Errors
    /// Never in practice: shapes of its own.
    pub(super) fn choose(&self, step: u32, shares: &[f64]) -> Result<Vec<usize>> {
        let at = u64::from(step);
        let r = &self.recipe;
        let lot = Stream::new(self.seed, "mpts", 0).uniform(at);
        if f64::from(lot) < r.random {
            let stream = Stream::new(self.seed, "mpts random", at);
            return Ok(several(r.select, shares, stream));
        }
        let pool = match self.tasks > r.pool {
            true => several(r.pool, shares, Stream::new(self.seed, "mpts pool", at)),
            false => (0..self.tasks).collect(),
        };
        let known = pool.iter().map(|t| (*t, None));
        let z = self.sampled("mpts choice", at)?;
        let found = predicted(&self.layers()?[5..], &self.rows(known)?, &z)?;
        let found = slice(found.data())?;
        let scores = acquisition(&found, r.samples, r.gamma_mu, r.gamma_sigma);
        let chosen = largest(&scores, r.select);
        Ok(chosen.into_iter().map(|i| pool[i]).collect())
    }

    /// Learns from the losses of a step, from 0, by task; those that are not finite say nothing.
    ///
    /// # Errors
    /// Never in practice: shapes of its own.
    pub(super) fn learn(&mut self, step: u32, seen: &[(usize, f64)]) -> Result<()> {
        let seen: Vec<(usize, f64)> = seen.iter().copied().filter(|s| s.1.is_finite()).collect();
        if seen.is_empty() {
            return Ok(());
        }
        let layers = self.layers()?;
        let pairs = self.rows(seen.iter().map(|(t, l)| (*t, Some(*l as f32))))?;
        let h = perceptron(&layers[..3], pairs)?;
        let share = vec![1.0 / seen.len() as f32; seen.len()];
        // The mean over the pairs.
        let r = ops::product(&Value::constant(tensor(share, (1, seen.len()))?), &h)?;
        let mu = perceptron(&layers[3..4], r.clone())?;
        let sigma = ops::activate(&perceptron(&layers[4..5], r)?, Activation::Sigmoid)?;
        let floor = Value::constant(tensor(vec![0.1; WIDTH], (1, WIDTH))?);
        let sigma = ops::add(&ops::scale(&sigma, 0.9)?, &floor)?;
        let known = self.rows(seen.iter().map(|(t, _)| (*t, None)))?;
        let normal = self.normal("mpts", u64::from(step))?;
        let flat = |v: &Value| ops::reshape(v, &[WIDTH]);
        let z = ops::plus_row(&ops::times_row(&normal, &flat(&sigma)?)?, &flat(&mu)?)?;
        let found = predicted(&layers[5..], &known, &z)?;
        let n = self.recipe.samples;
        let share = Value::constant(tensor(vec![1.0 / n as f32; n], (1, n))?);
        let mean = ops::linear(&found, &share, None)?;
        let wanted = seen.iter().map(|(_, l)| *l as f32).collect();
        let missed = ops::sub(&mean, &Value::constant(tensor(wanted, (seen.len(), 1))?))?;
        let squares = ops::sum(&ops::mul(&missed, &missed)?)?;
        let loss = ops::add(&squares, &divergence(&mu, &sigma, &self.latent)?)?;
        let mut gradients = self.parameters.gradients()?;
        loss.backward_into(&mut gradients)?;
        self.latent = [slice(mu.data())?.to_vec(), slice(sigma.data())?.to_vec()];
        let rate = self.recipe.rate as f32;
        self.optimiser.step(&self.parameters, &gradients, rate)?;
        Ok(())
    }

    fn layers(&self) -> Result<Vec<Layer>> {
        let of = |name: String| {
            let found = self.parameters.get(&name).map(|p| p.value.clone());
            found.ok_or_else(|| Error::shape("risk of tasks", format!("no `{name}`")))
        };
        shapes(self.tasks)
            .iter()
            .map(|(name, ..)| Ok([of(format!("{name}.weight"))?, of(format!("{name}.bias"))?]))
            .collect()
    }

    /// Tasks as vectors of one 1, with their losses where they have some.
    fn rows(&self, tasks: impl Iterator<Item = (usize, Option<f32>)>) -> Result<Value> {
        let (mut values, mut n) = (Vec::new(), 0);
        for (task, loss) in tasks {
            values.extend((0..self.tasks).map(|t| if t == task { 1.0 } else { 0.0 }));
            values.extend(loss);
            n += 1;
        }
        let width = values.len() / n.max(1);
        Ok(Value::constant(tensor(values, (n, width))?))
    }

    fn normal(&self, name: &str, step: u64) -> Result<Value> {
        let stream = Stream::new(self.seed, name, step);
        let n = self.recipe.samples;
        let values = (0..(n * WIDTH) as u64).map(|i| stream.normal(i)).collect();
        Ok(Value::constant(tensor(values, (n, WIDTH))?))
    }

    /// Samples of z.
    fn sampled(&self, name: &str, step: u64) -> Result<Value> {
        let [mu, sigma] = &self.latent;
        let row = |v: &Vec<f32>| Ok::<_, Error>(Value::constant(tensor(v.clone(), WIDTH)?));
        ops::plus_row(
            &ops::times_row(&self.normal(name, step)?, &row(sigma)?)?,
            &row(mu)?,
        )
    }

    /// All that the next choice depends on, for a checkpoint: steps, and numbers side by side.
    ///
    /// # Errors
    /// Never in practice: a buffer of the processor.
    pub(super) fn kept(&self) -> Result<(u32, Vec<f32>)> {
        let mut all = self.parameters.weights()?.to_vec();
        let moments = self.optimiser.state().iter();
        all.extend(moments.chain(&self.latent).flatten());
        Ok((self.optimiser.steps, all))
    }

    /// Goes on from a checkpoint.
    ///
    /// # Errors
    /// Numbers of another learner.
    pub(super) fn restore(&mut self, steps: u32, kept: &[f32]) -> Result<()> {
        let n = self.parameters.len();
        if kept.len() != 3 * n + 2 * WIDTH {
            return Err(Error::shape(
                "restore",
                format!("{} numbers of a risk learner of {n}", kept.len()),
            ));
        }
        self.parameters
            .update(|w, _| w.copy_from_slice(&kept[..n]))?;
        let moments = vec![kept[n..2 * n].to_vec(), kept[2 * n..3 * n].to_vec()];
        self.optimiser.restore(steps, &[], moments)?;
        let (mu, sigma) = kept[3 * n..].split_at(WIDTH);
        self.latent = [mu.to_vec(), sigma.to_vec()];
        Ok(())
    }
}

/// Several tasks drawn by their shares, each once.
fn several(count: usize, shares: &[f64], stream: Stream) -> Vec<usize> {
    let draw = Draw::new(shares, stream);
    let mut found: Vec<usize> = Vec::new();
    for i in 0..1000 * shares.len() as u64 {
        if found.len() >= count {
            return found;
        }
        let task = draw.at(i);
        if !found.contains(&task) {
            found.push(task);
        }
    }
    // Shares that are hardly ever drawn: the first of those that are left.
    let left: Vec<usize> = (0..shares.len()).filter(|t| !found.contains(t)).collect();
    let missing = count.saturating_sub(found.len());
    found.extend(left.into_iter().take(missing));
    found
}

/// `KL(q || before)` of normal distributions, summed over z.
fn divergence(mu: &Value, sigma: &Value, before: &[Vec<f32>; 2]) -> Result<Value> {
    let [m, s] = before;
    let (m, s) = (
        tensor(m.clone(), (1, WIDTH))?,
        tensor(s.clone(), (1, WIDTH))?,
    );
    compose("divergence", &[mu, sigma], move |t| {
        let apart = t[0].sub(&m)?.sqr()?;
        let both = t[1].sqr()?.add(&apart)?.div(&(s.sqr()? * 2.0)?)?;
        let logs = s.log()?.sub(&t[1].log()?)?;
        (logs.add(&both)? - 0.5)?.sum_all()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recipe(more: &str) -> Recipe {
        let text = format!(
            "seed = 1\n[base]\npath = \"m\"\n[train]\ntasks = [\"a\"]\nsampling = \"mpts\"\n{more}"
        );
        Recipe::read(&text, "f", &[]).unwrap()
    }

    #[test]
    fn scores_by_hand() {
        // Means 2 and 1, deviations 1 and 2 over three samples.
        let found = acquisition(&[1.0, 2.0, 3.0, -1.0, 1.0, 3.0], 3, 1.0, 3.0);
        assert!((found[0] - 5.0).abs() < 1e-9 && (found[1] - 7.0).abs() < 1e-9);
        assert_eq!(largest(&[1.0, 3.0, 3.0, 2.0], 3), [1, 2, 3]);
        let pool = several(3, &[0.7, 0.3, 0.0, 0.0], Stream::new(0, "x", 0));
        assert_eq!(pool.len(), 3);
        assert!(pool.contains(&0) && pool.contains(&1) && pool[2] == 2);
    }

    /// N(1, 0.5) to N(0, 1): ln 2 + (0.25 + 1) / 2 - 1/2 in each of the coordinates.
    #[test]
    fn divergence_by_hand() {
        let row = |x: f32| Value::constant(tensor(vec![x; WIDTH], (1, WIDTH)).unwrap());
        let before = [vec![0.0; WIDTH], vec![1.0; WIDTH]];
        let found = divergence(&row(1.0), &row(0.5), &before).unwrap();
        let wanted = WIDTH as f32 * (2f32.ln() + 0.625 - 0.5);
        assert!((found.number().unwrap() - wanted).abs() < 1e-5);
    }

    #[test]
    fn the_task_with_the_larger_loss_is_chosen_more_and_a_state_goes_on() {
        let more = "[train.mpts]\nrate = 1e-2\ngamma_sigma = 0.5\nrandom = 0.2\n";
        let (recipe, shares) = (recipe(more), [1.0 / 3.0; 3]);
        let losses = [0.5, 2.5, 1.0];
        let mut mpts = Mpts::new(&recipe, 3).unwrap();
        let mut counts = [0; 3];
        let mut run = |mpts: &mut Mpts, steps: std::ops::Range<u32>| {
            let mut all = Vec::new();
            for step in steps {
                let chosen = mpts.choose(step, &shares).unwrap();
                assert_eq!(chosen.len(), 1);
                mpts.learn(step, &[(chosen[0], losses[chosen[0]])]).unwrap();
                counts[chosen[0]] += 1;
                all.push(chosen[0]);
            }
            all
        };
        run(&mut mpts, 0..150);
        let (steps, kept) = mpts.kept().unwrap();
        let rest = run(&mut mpts, 150..300);
        let mut again = Mpts::new(&recipe, 3).unwrap();
        again.restore(steps, &kept).unwrap();
        assert_eq!(run(&mut again, 150..300), rest);
        assert!(again.restore(1, &kept[1..]).is_err());
        assert!(
            counts[1] > 2 * counts[0] && counts[1] > 2 * counts[2],
            "{counts:?}"
        );
    }

    #[test]
    fn numbers_that_cannot_be_are_refused() {
        let told = |more: &str| {
            let text = format!(
                "[base]\npath = \"m\"\n[train]\ntasks = [\"a\"]\nsampling = \"mpts\"\n{more}"
            );
            Recipe::read(&text, "f", &[]).unwrap_err().to_string()
        };
        assert!(told("[train.mpts]\nselect = 0\n").contains("`select` is 0"));
        assert!(told("mixing = \"alternate\"\n[train.mpts]\nselect = 2\n").contains("of one task"));
        assert!(told("[train.mpts]\nrandom = 2.0\n").contains("in 0 to 1"));
        let error = Mpts::new(&recipe("[train.mpts]\nselect = 4\n"), 3)
            .err()
            .unwrap();
        assert!(error.to_string().contains("there are 3 tasks"));
    }
}
