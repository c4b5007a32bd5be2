//! What was before a row in its session, as a model of single rows takes it.

use std::ops::Range;
use std::sync::Arc;

use polyloom::evaluate::board::score::sessions::Step;

use super::TableBatch;
use super::config::Config;
use crate::error::{Error, Result};

/// The rows of a log by what they have in the fields of [`Config::history`].
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Past {
    /// Codes of every different item, item after item, a code a field.
    pub codes: Vec<u32>,
    /// Rows, session after session: the item of each, and whether it is marked.
    pub steps: Vec<Step>,
}

/// What was before a row.
#[derive(Debug, Clone, PartialEq)]
pub struct Before {
    /// The rows of the log.
    pub past: Arc<Past>,
    /// Which of them.
    pub steps: Range<usize>,
}

impl Before {
    /// The last of its steps, `most` of them.
    fn last(&self, most: usize) -> &[Step] {
        let steps = self.past.steps.get(self.steps.clone()).unwrap_or_default();
        &steps[steps.len().saturating_sub(most)..]
    }
}

/// The steps before the rows of a batch, padded behind to the longest.
pub(super) struct Steps {
    /// Steps of every row, 1 at least.
    pub length: usize,
    /// Codes, row after row, step after step, a code a field; 0 where there is no step.
    pub codes: Vec<u32>,
    /// 0 unmarked, 1 marked, by step.
    pub marks: Vec<u32>,
    /// How many steps back each is, from 0; 0 where there is no step.
    pub back: Vec<u32>,
    /// 0, or minus infinity where there is no step: `[rows, length]`.
    pub hidden: Vec<f32>,
}

/// Steps of a batch, `most` of a row, the last ones.
///
/// # Errors
/// Rows without a history, steps of items that there are not.
pub(super) fn steps(batch: &TableBatch, config: &Config, most: usize) -> Result<Steps> {
    let wrong = |what: String| Err(Error::shape("history", what));
    if batch.before.len() != batch.rows {
        return wrong(format!(
            "{} of {} rows have one, and the model reads that of all",
            batch.before.len(),
            batch.rows
        ));
    }
    let fields = config.history.len();
    let own: Vec<&[Step]> = batch.before.iter().map(|b| b.last(most)).collect();
    // Attention over no key at all has no meaning: one that nobody sees.
    let length = own
        .iter()
        .map(|steps| steps.len())
        .max()
        .unwrap_or(0)
        .max(1);
    let all = batch.rows * length;
    let mut found = Steps {
        length,
        codes: Vec::with_capacity(all * fields),
        marks: Vec::with_capacity(all),
        back: Vec::with_capacity(all),
        hidden: Vec::with_capacity(all),
    };
    for (steps, before) in own.iter().zip(&batch.before) {
        for at in 0..length {
            let Some(step) = steps.get(at) else {
                found.codes.resize(found.codes.len() + fields, 0);
                found.marks.push(0);
                found.back.push(0);
                found.hidden.push(f32::NEG_INFINITY);
                continue;
            };
            let first = step.item as usize * fields;
            let Some(codes) = before.past.codes.get(first..first + fields) else {
                return wrong(format!("a step of item {}, which there is not", step.item));
            };
            found.codes.extend_from_slice(codes);
            found.marks.push(u32::from(step.taken));
            found.back.push((steps.len() - 1 - at) as u32);
            found.hidden.push(0.0);
        }
    }
    Ok(found)
}
