//! A retrieval task as a model meets it: queries with what is judged, documents to search.

use std::sync::Arc;

use super::answers::plain;
use super::truth::{self, Truth};
use crate::error::{MergeError, Result};
use crate::tasks::load::Loader;
use crate::tasks::spec::{TaskSpec, TaskType};

/// The split of the documents; without it the queries are the documents.
pub const DOCUMENTS: &str = "documents";

/// A query.
#[derive(Debug, Clone, PartialEq)]
pub struct Query {
    /// Its id, as records have it.
    pub id: String,
    /// Its text.
    pub text: String,
    /// Judged documents with their grades; above 0 is relevant. Queries that are judged alike share the list.
    pub judged: Arc<Vec<(String, i64)>>,
}

/// A document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// Its id, as judgements have it.
    pub id: String,
    /// Its text.
    pub text: String,
}

/// Whether a task is one of retrieval.
#[must_use]
pub fn is_search(spec: &TaskSpec) -> bool {
    spec.kind == Some(TaskType::Retrieval) && spec.targets.is_empty()
}

/// The queries of a split, in its order. A query of a task without documents of its own is no document for itself.
///
/// # Errors
/// A task that is not one of retrieval of texts, a split that is not there, and what the readers report.
pub fn queries(spec: &TaskSpec, loader: &Loader<'_>, split: &str) -> Result<Vec<Query>> {
    let column = text_column(spec, &spec.fields.query, "query")?;
    let mut texts = Vec::new();
    let questions = truth::read_with(spec, loader, split, &mut |table, row, _| {
        texts.push(plain(&table.at(row, column)));
        Ok(true)
    })?;
    let pairs = questions.examples.into_iter().zip(texts);
    let query = |(example, text): (truth::Example, String)| {
        let judged = match example.truths.into_iter().next().flatten() {
            Some(Truth::Judged(judged, own)) => match own {
                None => judged,
                Some(own) => Arc::new(judged.iter().filter(|(d, _)| *d != own).cloned().collect()),
            },
            _ => Arc::default(),
        };
        Query {
            id: example.id,
            text,
            judged,
        }
    };
    Ok(pairs.map(query).collect())
}

/// The documents that a split's queries are asked of, in the order of their file.
///
/// # Errors
/// As [`queries`].
pub fn documents(spec: &TaskSpec, loader: &Loader<'_>, split: &str) -> Result<Vec<Document>> {
    let (column, from) = match spec.splits.named.contains_key(DOCUMENTS) {
        true => {
            let own = match &*spec.fields.document {
                "" => &spec.fields.query,
                own => own,
            };
            (text_column(spec, own, "document")?, DOCUMENTS)
        }
        false => (text_column(spec, &spec.fields.query, "query")?, split),
    };
    let mut found = Vec::new();
    loader.rows(from, &mut |table| {
        for row in 0..table.rows() {
            let id = match &*spec.fields.id {
                "" => found.len().to_string(),
                column => plain(&table.at(row, column)),
            };
            found.push(Document {
                id,
                text: plain(&table.at(row, column)),
            });
        }
        Ok(())
    })?;
    Ok(found)
}

fn text_column<'a>(spec: &TaskSpec, column: &'a str, field: &str) -> Result<&'a str> {
    let bad =
        |what: String| MergeError::plan("no-model-task", format!("task `{}` {what}", spec.id));
    if !is_search(spec) {
        return Err(bad("is not one of retrieval".into()));
    }
    if spec.modality.input.iter().any(|m| m != "text") {
        let kinds = spec.modality.input.join(", ");
        return Err(bad(format!("searches {kinds}; models here search texts")));
    }
    match column {
        "" => Err(bad(format!("names no column `fields.{field}`"))),
        column => Ok(column),
    }
}
