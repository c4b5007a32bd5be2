//! What a balancing method is: a contract for docs and checks, and a balancer that weighs the tasks of a step.

use std::collections::BTreeMap;
use std::ops::Range;

pub use polyloom::merge::gram::Gram;
pub use polyloom::merge::method::{Golden, Kind, Param, Unset, Values};
use serde::{Deserialize, Serialize};

/// What a method looks at, and so what it costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Looks {
    /// At the losses alone.
    Losses,
    /// At the dot products of the tasks' gradients: one pass over them, `T (T + 1) / 2` products.
    Gram,
    /// At every element of the gradients; it keeps as many numbers of its own.
    Elements,
}

/// A method: its contract and the maker of its balancers.
#[derive(Debug)]
pub struct Method {
    /// Registry name: the word of `[train.balance] method`.
    pub name: &'static str,
    /// One line.
    pub summary: &'static str,
    /// Paper or program.
    pub source: &'static str,
    /// The rule, in Markdown.
    pub formula: &'static str,
    /// Where a peer's same name does something else; empty if nowhere.
    pub differs: &'static str,
    /// What it does with gradients that depend on each other, and where it has no answer.
    pub degenerate: &'static str,
    /// What it looks at.
    pub looks: Looks,
    /// Passes beside one forward and one backward pass of every task; empty for none.
    pub passes: &'static str,
    /// Parameters.
    pub params: &'static [Param],
    /// Its test vectors.
    pub golden: Golden,
    /// Makes a balancer before the first step, for a number of tasks; the values are checked and complete.
    pub begin: fn(&Values, usize) -> Box<dyn Balancer>,
}

/// A group of shared parameters: one tensor.
#[derive(Debug, Clone)]
pub struct Part {
    /// Name of the tensor.
    pub name: String,
    /// Where it lies among the shared parameters.
    pub at: Range<usize>,
    /// Dot products of the tasks' gradients of it.
    pub gram: Gram,
}

/// When a step is.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct At {
    /// Steps done before.
    pub step: u64,
    /// Epoch, from 0: times that the rows of all tasks together were drawn.
    pub epoch: u64,
    /// Steps of the run.
    pub steps: u64,
    /// Learning rate of the step.
    pub rate: f64,
    /// Seed of the run.
    pub seed: u64,
}

/// Gradients at a second point.
#[derive(Debug, Clone, Copy)]
pub struct Second<'a> {
    /// `gradient there - gradient here`, by task.
    pub differences: &'a [&'a [f32]],
    /// Their dot products.
    pub gram: &'a Gram,
}

/// What is known of the tasks of a step: `n` of all `T`.
#[derive(Debug, Clone, Copy)]
pub struct Step<'a> {
    /// Their numbers, rising; all vectors below are in this order.
    pub tasks: &'a [usize],
    /// Mean losses, `[n]`.
    pub losses: &'a [f64],
    /// Gradients of the shared parameters, `[n][P]`.
    pub gradients: &'a [&'a [f32]],
    /// Their dot products.
    pub gram: &'a Gram,
    /// The same by tensor.
    pub parts: &'a [Part],
    /// Gradients at the perturbed point, for balancers that ask for them ([`Wants::Perturbed`]).
    pub second: Option<Second<'a>>,
    /// When.
    pub at: At,
}

/// Coefficients of the rows of a step.
#[derive(Debug, Clone, PartialEq)]
pub enum Shared {
    /// The same for all shared parameters.
    Whole(Vec<f64>),
    /// Of every part of [`Step::parts`].
    Parts(Vec<Vec<f64>>),
}

/// What a balancer says of a step.
#[derive(Debug, Clone, PartialEq)]
pub struct Weights {
    /// Coefficients of [`Balancer::rows`]: the combined direction is their sum.
    pub shared: Shared,
    /// Factors of the gradients of each task's own parameters.
    pub own: Vec<f64>,
}

impl Weights {
    /// Weights of losses: they count for a task's own parameters too.
    pub fn of_losses(weights: Vec<f64>) -> Self {
        Self {
            own: weights.clone(),
            shared: Shared::Whole(weights),
        }
    }

    /// Weights of gradients of `n` tasks: a task's own parameters receive their own gradient.
    pub fn of_gradients(weights: Vec<f64>, n: usize) -> Self {
        Self {
            own: vec![1.0; n],
            shared: Shared::Whole(weights),
        }
    }

    /// The coefficients of the first `n` rows, where they are the same for all parameters.
    pub fn whole(&self) -> Option<&[f64]> {
        match &self.shared {
            Shared::Whole(w) => Some(w),
            Shared::Parts(parts) => match &parts[..] {
                [one] => Some(one),
                _ => None,
            },
        }
    }
}

/// Why a step has no answer of its method; it falls back to equal weights and is counted.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{0}")]
pub struct Unsolved(pub String);

/// What a balancer needs beside losses and gradients.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Wants {
    /// Nothing.
    Nothing,
    /// The losses of the same rows after the step: one more forward pass.
    LossesAfter,
    /// Every task's gradients at the point that its own gradient, made this long, leads to: a second forward and backward
    /// pass of every task.
    Perturbed(f64),
    /// Losses of validation rows before the step: one more forward pass every so many steps.
    Validation(u64),
}

/// What a balancer remembers: everything that its next answer depends on.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// Vectors by name.
    pub numbers: BTreeMap<String, Vec<f64>>,
    /// Vectors as long as the shared parameters; kept as tensors.
    #[serde(skip)]
    pub rows: Vec<Vec<f32>>,
}

impl State {
    /// Of vectors.
    pub fn of<const N: usize>(numbers: [(&str, Vec<f64>); N]) -> Self {
        Self {
            numbers: numbers
                .into_iter()
                .map(|(n, v)| (n.to_owned(), v))
                .collect(),
            rows: Vec::new(),
        }
    }

    /// A vector of a name and a length (0: any).
    ///
    /// # Errors
    /// It is not there, or of another length.
    pub fn get(&self, name: &str, length: usize) -> Result<Vec<f64>, Unsolved> {
        self.numbers
            .get(name)
            .filter(|v| length == 0 || v.len() == length)
            .cloned()
            .ok_or_else(|| Unsolved(format!("the state lacks `{name}` of {length} numbers")))
    }
}

/// Weighs the tasks of one step after the other.
pub trait Balancer: Send {
    /// What it needs beside losses and gradients.
    fn wants(&self) -> Wants {
        Wants::Nothing
    }

    /// The weights of a step. Tasks without a gradient were left out ([`super::combine`]).
    ///
    /// # Errors
    /// Gradients for which the method has no answer, or a solver that did not reach its tolerance.
    fn weigh(&mut self, step: &Step<'_>) -> Result<Weights, Unsolved>;

    /// The vectors that the weights of this step are of: the gradients, where it says nothing else.
    fn rows<'a>(&'a self, step: &Step<'a>) -> Vec<&'a [f32]> {
        step.gradients.to_vec()
    }

    /// Losses of the same rows after the step, for [`Wants::LossesAfter`]; `tasks` as in the step.
    fn after(&mut self, tasks: &[usize], losses: &[f64]) {
        let _ = (tasks, losses);
    }

    /// Losses of validation rows before the step, for [`Wants::Validation`]; all tasks.
    fn validated(&mut self, losses: &[f64]) {
        let _ = losses;
    }

    /// What it remembers.
    fn state(&self) -> State {
        State::default()
    }

    /// Goes on from what another of its kind remembered.
    ///
    /// # Errors
    /// A state of another kind or for other tasks.
    fn restore(&mut self, state: State) -> Result<(), Unsolved> {
        let _ = state;
        Ok(())
    }
}

/// `softmax(x)`.
pub(super) fn softmax(x: &[f64]) -> Vec<f64> {
    let most = x.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let powers: Vec<f64> = x.iter().map(|x| (x - most).exp()).collect();
    let sum: f64 = powers.iter().sum();
    powers.into_iter().map(|p| p / sum).collect()
}

/// Some entries of a vector over all tasks.
pub(super) fn some(all: &[f64], tasks: &[usize]) -> Vec<f64> {
    tasks.iter().map(|t| all[*t]).collect()
}
