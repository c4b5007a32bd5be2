//! A step of a balancer under the rules that hold for every method: tasks without a gradient are left out, a step
//! without an answer falls back to equal weights and is counted.

use std::ops::Range;

use polyloom::MergeError;
use polyloom_core::nn::elementwise::{inner, squares};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::conflict::Conflict;
use super::dots;
use super::method::{
    At, Balancer, Gram, Looks, Method, Second, Shared, State, Step, Unsolved, Wants, Weights,
};

/// Elements of the direction that one thread computes at a time.
const BLOCK: usize = 4096;

/// A balancer at work.
pub struct Balance {
    /// Its method.
    pub method: &'static Method,
    balancer: Box<dyn Balancer>,
    /// What happened so far.
    pub counts: Counts,
}

/// What happened in the steps of a run.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Counts {
    /// Steps.
    pub steps: u64,
    /// Steps whose gradients were looked at task by task: all but those that [`Balance::weigh`] weighed.
    #[serde(default)]
    pub looked: u64,
    /// Steps that fell back to equal weights.
    pub unsolved: u64,
    /// By task: steps in which it had no gradient and was left out.
    pub absent: Vec<u64>,
    /// By task: steps, of those that were looked at, whose direction raises its loss, to first order.
    pub hurt: Vec<u64>,
    /// By task: sum of its weights over the steps that it was in.
    pub weights: Vec<f64>,
    /// By pair of tasks, row by row: sum of the cosines of their gradients, and steps that both were in.
    pub cosines: Vec<(f64, u64)>,
}

/// What a step knows of all tasks.
#[derive(Debug, Clone, Copy)]
pub struct Given<'a> {
    /// Mean losses; `None` for a task without a labelled row.
    pub losses: &'a [Option<f64>],
    /// Gradients of the shared parameters; what is there for a task without a loss does not count.
    pub gradients: &'a [&'a [f32]],
    /// The same at the second point, minus those here, where the balancer asks for it.
    pub differences: Option<&'a [&'a [f32]]>,
    /// Names and places of the shared tensors.
    pub places: &'a [(String, Range<usize>)],
    /// When.
    pub at: At,
}

/// What a step found.
#[derive(Debug, Clone, PartialEq)]
pub struct Combined {
    /// By task: its weight, where that is one number for all parameters; 0 for those left out.
    pub weights: Vec<f64>,
    /// By task: factor of the gradient of its own parameters; 1 for those left out.
    pub own: Vec<f64>,
    /// Tasks that were left out.
    pub absent: Vec<usize>,
    /// Why the step fell back to equal weights.
    pub unsolved: Option<String>,
    /// How the gradients stand to each other and to the direction; `None` where they were not looked at.
    pub conflict: Option<Conflict>,
}

impl Balance {
    /// A method by its registry name, for a number of tasks; `given` are its parameters.
    ///
    /// # Errors
    /// Names that are not known, with the nearest one; values out of range.
    pub fn new(name: &str, given: &Map<String, Value>, tasks: usize) -> Result<Self, MergeError> {
        let method = super::find(name).ok_or_else(|| super::unknown(name))?;
        let values = polyloom::merge::params::complete(method.params, given, false)?;
        Ok(Self {
            method,
            balancer: (method.begin)(&values, tasks),
            counts: Counts {
                absent: vec![0; tasks],
                hurt: vec![0; tasks],
                weights: vec![0.0; tasks],
                cosines: vec![(0.0, 0); tasks * tasks],
                ..Counts::default()
            },
        })
    }

    /// What it needs beside losses and gradients.
    pub fn wants(&self) -> Wants {
        self.balancer.wants()
    }

    /// Writes the direction of a step over `out`, as long as the shared parameters.
    ///
    /// # Panics
    /// If the numbers of tasks differ.
    pub fn combine(&mut self, given: &Given<'_>, out: &mut [f32]) -> Combined {
        let all = given.losses.len();
        assert_eq!(given.gradients.len(), all, "gradients of every task");
        let there: Vec<usize> = (0..all)
            .filter(|t| given.losses[*t].is_some() && given.gradients[*t].iter().any(|g| *g != 0.0))
            .collect();
        let losses: Vec<f64> = there.iter().filter_map(|t| given.losses[*t]).collect();
        let gradients: Vec<&[f32]> = there.iter().map(|t| given.gradients[*t]).collect();
        let parts = dots::by_part(&gradients, given.places);
        let gram = dots::whole(there.len(), &parts);
        let differences: Option<Vec<&[f32]>> = given
            .differences
            .map(|d| there.iter().map(|t| d[*t]).collect());
        let second_gram = differences.as_ref().map(|d| dots::of(d));
        let second = differences.as_ref().zip(second_gram.as_ref());
        let step = Step {
            tasks: &there,
            losses: &losses,
            gradients: &gradients,
            gram: &gram,
            parts: &parts,
            second: second.map(|(differences, gram)| Second { differences, gram }),
            at: given.at,
        };
        let (found, unsolved) = self.weights(&step);
        let rows = match unsolved {
            Some(_) => gradients.clone(),
            None => self.balancer.rows(&step),
        };
        match &found.shared {
            Shared::Whole(weights) => weighted_sum(weights, &rows, out),
            Shared::Parts(weights) => {
                for (part, weights) in parts.iter().zip(weights) {
                    let rows: Vec<&[f32]> = rows.iter().map(|r| &r[part.at.clone()]).collect();
                    weighted_sum(weights, &rows, &mut out[part.at.clone()]);
                }
            }
        }
        let length = squares(out).sqrt();
        let along: Vec<f64> = gradients.iter().map(|g| inner(out, g)).collect();
        let conflict = Conflict::new(&there, &gram, &along, length);
        self.combined(all, &there, &found, unsolved, Some(conflict))
    }

    /// What a method says of a step, or equal weights with the reason.
    fn weights(&mut self, step: &Step<'_>) -> (Weights, Option<String>) {
        let n = step.tasks.len();
        if n == 0 {
            return (Weights::of_gradients(Vec::new(), 0), None);
        }
        match self.balancer.weigh(step).and_then(finite) {
            Ok(found) => (found, None),
            Err(why) => (
                Weights::of_gradients(vec![1.0 / n as f64; n], n),
                Some(why.0),
            ),
        }
    }

    /// Weights of the losses of a step, by a method that looks at nothing else ([`Looks::Losses`]): the gradient of their
    /// weighted sum is the direction, so one way back does for all tasks. A task whose gradient is 0 is not left out: that
    /// cannot be seen. `None` for all other methods.
    pub fn weigh(&mut self, losses: &[Option<f64>], at: At) -> Option<Combined> {
        if self.method.looks != Looks::Losses {
            return None;
        }
        let there: Vec<usize> = (0..losses.len()).filter(|t| losses[*t].is_some()).collect();
        let seen: Vec<f64> = losses.iter().flatten().copied().collect();
        let step = Step {
            tasks: &there,
            losses: &seen,
            gradients: &[],
            gram: &Gram::of(&[]),
            parts: &[],
            second: None,
            at,
        };
        let (mut found, unsolved) = self.weights(&step);
        if let Shared::Whole(weights) = &found.shared {
            // One sum of losses has one weight for all parameters.
            found.own.clone_from(weights);
        }
        Some(self.combined(losses.len(), &there, &found, unsolved, None))
    }

    /// Weights of the tasks that are there as those of all; counted.
    fn combined(
        &mut self,
        all: usize,
        there: &[usize],
        found: &Weights,
        unsolved: Option<String>,
        conflict: Option<Conflict>,
    ) -> Combined {
        let mut combined = Combined {
            weights: vec![0.0; all],
            own: vec![1.0; all],
            absent: (0..all).filter(|t| !there.contains(t)).collect(),
            unsolved,
            conflict,
        };
        for (i, &t) in there.iter().enumerate() {
            combined.own[t] = found.own[i];
            combined.weights[t] = found.whole().map_or(1.0, |w| w[i]);
        }
        self.count(&combined);
        combined
    }

    fn count(&mut self, step: &Combined) {
        let c = &mut self.counts;
        let all = c.absent.len();
        c.steps += 1;
        c.unsolved += u64::from(step.unsolved.is_some());
        step.absent.iter().for_each(|t| c.absent[*t] += 1);
        c.weights
            .iter_mut()
            .zip(&step.weights)
            .for_each(|(s, w)| *s += w);
        let Some(conflict) = &step.conflict else {
            return;
        };
        c.looked += 1;
        conflict.hurt().for_each(|t| c.hurt[t] += 1);
        for (i, j, cosine) in conflict.pairs() {
            let place = &mut c.cosines[i * all + j];
            *place = (place.0 + cosine, place.1 + 1);
        }
    }

    /// Losses of the same rows after the step, for [`Wants::LossesAfter`].
    pub fn after(&mut self, losses: &[Option<f64>]) {
        let there: Vec<usize> = (0..losses.len()).filter(|t| losses[*t].is_some()).collect();
        let seen: Vec<f64> = losses.iter().flatten().copied().collect();
        self.balancer.after(&there, &seen);
    }

    /// Losses of validation rows of all tasks, for [`Wants::Validation`].
    pub fn validated(&mut self, losses: &[f64]) {
        self.balancer.validated(losses);
    }

    /// What the balancer remembers.
    pub fn state(&self) -> State {
        self.balancer.state()
    }

    /// Goes on from a checkpoint.
    ///
    /// # Errors
    /// A state of another method or of other tasks.
    pub fn restore(&mut self, state: State, counts: Counts) -> Result<(), Unsolved> {
        if counts.absent.len() != self.counts.absent.len()
            || counts.hurt.len() != self.counts.hurt.len()
            || counts.weights.len() != self.counts.weights.len()
            || counts.cosines.len() != self.counts.cosines.len()
        {
            return Err(Unsolved("the counts are of another number of tasks".into()));
        }
        self.counts = counts;
        self.balancer.restore(state)
    }
}

/// Weights that are not finite are no answer.
fn finite(weights: Weights) -> Result<Weights, Unsolved> {
    let whole = match &weights.shared {
        Shared::Whole(w) => w.iter().all(|w| w.is_finite()),
        Shared::Parts(p) => p.iter().flatten().all(|w| w.is_finite()),
    };
    match whole && weights.own.iter().all(|w| w.is_finite()) {
        true => Ok(weights),
        false => Err(Unsolved("a weight is not finite".into())),
    }
}

/// `out = sum_i weights_i rows_i`, every element in f64, rounded once.
fn weighted_sum(weights: &[f64], rows: &[&[f32]], out: &mut [f32]) {
    out.par_chunks_mut(BLOCK).enumerate().for_each(|(b, out)| {
        let mut sum = [0.0f64; BLOCK];
        for (w, row) in weights.iter().zip(rows) {
            let row = &row[b * BLOCK..][..out.len()];
            sum.iter_mut()
                .zip(row)
                .for_each(|(s, x)| *s += w * f64::from(*x));
        }
        out.iter_mut().zip(&sum).for_each(|(o, s)| *o = *s as f32);
    });
}

impl Counts {
    /// As a report of the run speaks of it.
    pub fn json(&self, names: &[String]) -> Map<String, Value> {
        let all = names.len();
        let of = |t: usize| {
            let here = self.steps - self.absent[t];
            let mean = self.weights[t] / here.max(1) as f64;
            json!({"mean_weight": mean, "hurt": self.hurt[t], "absent": self.absent[t]})
        };
        let tasks: Map<String, Value> = (0..all).map(|t| (names[t].clone(), of(t))).collect();
        let mut cosines = Map::new();
        for (k, (sum, steps)) in self.cosines.iter().enumerate().filter(|(_, c)| c.1 > 0) {
            let name = format!("{} | {}", names[k / all], names[k % all]);
            cosines.insert(name, json!(sum / *steps as f64));
        }
        let mut map = Map::new();
        map.insert("steps".into(), json!(self.steps));
        map.insert("looked".into(), json!(self.looked));
        map.insert("unsolved".into(), json!(self.unsolved));
        map.insert("goals".into(), Value::Object(tasks));
        map.insert("mean_cosines".into(), Value::Object(cosines));
        map
    }
}
