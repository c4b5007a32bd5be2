//! Pseudo-labels: where a row says nothing of a target, what a model that was trained for it says surely enough (the second
//! part of CPF, VTDNet).

use polyloom::MergeError;
use polyloom::evaluate::board::score::examples::Wanted;
use serde::{Deserialize, Serialize};

use super::fuse::classes::said_by;
use super::learned::Learned;
use super::recipe::Recipe;
use crate::error::Result;
use crate::tasks::{Head, HeadKind};

/// `[train.pseudo]`.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Pseudo {
    /// Models with heads for targets that rows lack: folders, `MODEL+ADAPTER`, folders of heads. A model is asked for the
    /// tasks that it has heads for.
    pub teachers: Vec<String>,
    /// Probability of the likeliest class from which it counts as a label.
    pub confidence: f64,
}

impl Default for Pseudo {
    fn default() -> Self {
        Self {
            teachers: Vec::new(),
            confidence: 0.9,
        }
    }
}

impl Pseudo {
    /// Whether the values can be.
    ///
    /// # Errors
    /// No teachers, a confidence that is no probability.
    pub(super) fn check(&self, language: bool) -> std::result::Result<(), MergeError> {
        let bad = |what: &str, hint: &str| Err(MergeError::plan("bad-recipe", what).hint(hint));
        if self.teachers.is_empty() {
            return bad(
                "`train.pseudo` names no teachers",
                "teachers = [\"experts/a\", \"experts/b\"]",
            );
        }
        if !(self.confidence > 0.0 && self.confidence <= 1.0) {
            return bad(
                "`train.pseudo.confidence` must be above 0 and at most 1",
                "0.9 is usual",
            );
        }
        if language {
            return bad(
                "`train.pseudo` labels rows of heads; `train.language` has none",
                "leave out one of them",
            );
        }
        Ok(())
    }
}

/// Gives labels to training rows that lack some; for every head how many rows got one, of how many that lacked it.
///
/// # Errors
/// Teachers that cannot be opened or have no head for any task, targets of numbers that rows lack.
pub(super) fn label(
    recipe: &Recipe,
    tasks: &mut [Learned<'_>],
    heads: &[Head],
) -> Result<Vec<(String, [usize; 2])>> {
    let Some(pseudo) = &recipe.train.pseudo else {
        return Ok(Vec::new());
    };
    let mut counts = Vec::new();
    // Which classes every row could have, by task and place: the surest teacher counts.
    for task in tasks.iter_mut() {
        for (place, head) in heads[task.heads.clone()].iter().enumerate() {
            let lacking: Vec<usize> = task.train.wanted[place]
                .iter()
                .enumerate()
                .filter(|(_, w)| w.is_none())
                .map(|(i, _)| i)
                .collect();
            if lacking.is_empty() {
                continue;
            }
            if head.kind != HeadKind::Classification {
                let what = format!(
                    "rows of `{}` lack what is right, and it is no class of several",
                    head.task
                );
                return Err(MergeError::plan("bad-task", what)
                    .hint("train.pseudo is for classifiers; leave the task out")
                    .into());
            }
            counts.push((head.task.clone(), [0, lacking.len()]));
            let mut best: Vec<Option<(f32, u32)>> = vec![None; lacking.len()];
            for teacher in &pseudo.teachers {
                let Some(said) = said_by(recipe, teacher, task, place, head)? else {
                    continue;
                };
                let width = head.outputs();
                for (best, row) in best.iter_mut().zip(&lacking) {
                    let row = &said[row * width..][..width];
                    let top = (0u32..).zip(row).fold((0.0f32, 0u32), |top, (c, p)| {
                        if *p > top.0 { (*p, c) } else { top }
                    });
                    if best.is_none_or(|b| top.0 > b.0) {
                        *best = Some(top);
                    }
                }
            }
            for (best, row) in best.into_iter().zip(&lacking) {
                if let Some((p, class)) = best
                    && f64::from(p) >= pseudo.confidence
                {
                    task.train.wanted[place][*row] = Some(Wanted::Class(class));
                    if let Some((_, [got, _])) = counts.last_mut() {
                        *got += 1;
                    }
                }
            }
        }
    }
    if counts.is_empty() {
        return Err(MergeError::plan(
            "bad-recipe",
            "`train.pseudo` labels rows that lack labels; all rows have theirs",
        )
        .hint("leave [train.pseudo] out")
        .into());
    }
    Ok(counts)
}
