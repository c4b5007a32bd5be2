//! What balanced steps say: lines of the log, a summary, what a checkpoint keeps.

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json, json};

use super::Balanced;
use crate::balance::{Combined, Counts, State};
use crate::error::{Error, Result};

/// What a checkpoint keeps of it, but for its vectors.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Kept {
    /// What the balancer remembers.
    pub state: State,
    /// What happened.
    pub counts: Counts,
    /// Numbers of each of its vectors, which are tensors of the checkpoint.
    pub rows: Vec<usize>,
}

impl Balanced<'_> {
    /// Names of the goals.
    pub(in crate::train) fn names(&self) -> Vec<String> {
        self.goals.iter().map(|g| g.name.clone()).collect()
    }

    /// The line of the log about a step, where one is due.
    pub(in crate::train) fn line(&self, step: u32, last: bool, found: &Combined) -> Option<Json> {
        if !self.is_told(step, last) {
            return None;
        }
        let names = self.names();
        let mut line = json!({"type": "balance", "step": step, "weights": self.weights(found)});
        let map = line.as_object_mut()?;
        if let Some(conflict) = &found.conflict {
            map.extend(conflict.json(&names));
        }
        if !found.absent.is_empty() {
            let absent: Vec<&String> = found.absent.iter().map(|t| &names[*t]).collect();
            map.insert("absent".into(), json!(absent));
        }
        if let Some(why) = &found.unsolved {
            map.insert("unsolved".into(), json!(why));
        }
        Some(line)
    }

    /// Whether the log has a line of diagnostics for a step (from 1).
    pub(super) fn is_told(&self, step: u32, last: bool) -> bool {
        let every = self.recipe.report_every;
        every > 0 && (step == 1 || last || step.is_multiple_of(every))
    }

    /// Weights by goal.
    pub(in crate::train) fn weights(&self, found: &Combined) -> IndexMap<String, f64> {
        self.names()
            .into_iter()
            .zip(found.weights.iter().copied())
            .collect()
    }

    /// What a checkpoint keeps, and vectors for its tensors.
    pub(in crate::train) fn kept(&self) -> (Kept, Vec<Vec<f32>>) {
        let mut state = self.balance.state();
        let rows = std::mem::take(&mut state.rows);
        let kept = Kept {
            state,
            counts: self.balance.counts.clone(),
            rows: rows.iter().map(Vec::len).collect(),
        };
        (kept, rows)
    }

    /// Goes on from a checkpoint.
    ///
    /// # Errors
    /// What another method or another number of goals left.
    pub(in crate::train) fn restore(&mut self, kept: Kept, rows: Vec<Vec<f32>>) -> Result<()> {
        let state = State { rows, ..kept.state };
        self.balance
            .restore(state, kept.counts)
            .map_err(|e| Error::shape("restore", e.to_string()))
    }

    /// What the run says of it in the end.
    pub(in crate::train) fn summary(&self) -> Map<String, Json> {
        let mut summary = self.balance.counts.json(&self.names());
        summary.insert("method".into(), json!(self.recipe.method));
        summary
    }
}
