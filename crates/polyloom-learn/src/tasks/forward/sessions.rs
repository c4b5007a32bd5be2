//! What heads see of rows of sessions.

use std::sync::Arc;

use polyloom::evaluate::board::score::sessions::Step;

use super::batch;
use crate::engine::Value;
use crate::error::{Error, Result};
use crate::models::Source;
use crate::models::table::TableModel;
use crate::table::{Sessions, Visit};
use crate::tasks::head::{Head, HeadKind};
use crate::tasks::rows::{Reader, Shown};

/// What a reader keeps of the log of a model of sessions.
pub(super) fn of(reader: &Reader) -> Option<&Sessions> {
    match reader {
        Reader::Tables(preparation) => preparation.sessions(),
        _ => None,
    }
}

/// What heads see of rows of sessions: scores of the items, or what the model makes for the goals of heads of classes. In training
/// the items are those of the rows that were read: what training rows never showed is no wrong answer of theirs.
pub(super) fn visited(
    table: &TableModel,
    source: &dyn Source,
    heads: &[&Head],
    shown: &[&Shown],
) -> Result<Vec<Value>> {
    let visit = |shown: &&Shown| match shown {
        Shown::Visit(visit) => Ok((**visit).clone()),
        _ => Err(Error::shape(
            "features",
            "no rows of sessions for a model of them",
        )),
    };
    let visits: Vec<Visit> = shown.iter().map(visit).collect::<Result<_>>()?;
    let Some(first) = visits.first().map(|v| &v.items) else {
        return Err(Error::shape("features", "no rows of sessions"));
    };
    if !visits.iter().all(|v| Arc::ptr_eq(&v.items, first)) {
        return Err(Error::shape("features", "rows of sessions of several logs"));
    }
    let count = match source.dropout() {
        Some(_) => first.own,
        None => first.rows.len(),
    };
    let items = batch(first.rows.iter().take(count), count)?;
    let steps: Vec<&[Step]> = visits.iter().map(Visit::steps).collect();
    let seen = table.visited(source, &items, &steps)?;
    let of = |head: &&Head| match head.kind {
        HeadKind::Items => seen.scores.clone(),
        _ => seen.states.clone(),
    };
    Ok(heads.iter().map(of).collect())
}
