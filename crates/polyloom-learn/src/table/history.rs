//! What single rows are shown of the rows of their session before them.

use std::sync::Arc;

use polyloom::MergeError;
use polyloom::evaluate::board::score::examples::{self, Column, ColumnKind, Field};
use polyloom::evaluate::board::score::sessions::{Log, Named};
use serde::{Deserialize, Serialize};

use super::rows::Codes;
use super::{Preparation, Prepared};
use crate::error::Result;
use crate::models::table::{Before, Past};

/// What a model keeps of a log whose rows see what was before them.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct History {
    /// Columns of the log.
    pub named: Named,
    /// Columns of words that a row sees of earlier ones.
    pub columns: Vec<String>,
}

impl Preparation {
    /// Shows rows what was before them, in these columns.
    ///
    /// # Errors
    /// A column that is none of words, or that all training rows left empty.
    pub fn with_history(mut self, named: Named, columns: Vec<String>) -> Result<Self> {
        let words = |name: &String| self.columns.iter().any(|c| is_words(c, name));
        if let Some(column) = columns.iter().find(|c| !words(c)) {
            let what = format!("the history `{column}` is no column of words of the training rows");
            return Err(MergeError::plan("bad-session", what)
                .hint("`table.history` (--history) names columns of `table.categorical`")
                .into());
        }
        self.history = Some(History { named, columns });
        Ok(self)
    }

    /// What rows are shown of those before them; `None` where they are read alone.
    #[must_use]
    pub fn history(&self) -> Option<&History> {
        self.history.as_ref()
    }

    /// Places of its columns among the fields of words.
    #[must_use]
    pub fn history_fields(&self) -> Vec<usize> {
        let words = self.columns.iter();
        let words = words.filter(|c| matches!(c, Prepared::Words { .. }));
        let names: Vec<&str> = words.map(Prepared::name).collect();
        let place = |name: &String| names.iter().position(|n| n == name);
        let columns = self.history.iter().flat_map(|h| &h.columns);
        columns.filter_map(place).collect()
    }

    /// The same columns as a log is read.
    #[must_use]
    pub fn history_columns(&self) -> Vec<Column> {
        let columns = self.history.iter().flat_map(|h| &h.columns);
        let one = |name: &String| Column {
            name: name.clone(),
            kind: ColumnKind::Word,
        };
        columns.map(one).collect()
    }

    /// The rows of a log in codes.
    #[must_use]
    pub fn past(&self, log: &Log) -> Past {
        let columns = self.history.iter().flat_map(|h| &h.columns);
        let found = columns.filter_map(|name| {
            let own = self.columns.iter().find(|c| is_words(c, name))?;
            let place = log.columns.iter().position(|c| c.name == *name);
            Some((Codes::of(own), place))
        });
        let found: Vec<_> = found.collect();
        let item = |fields: &Vec<Field>| -> Vec<u32> {
            let field = |place: &Option<usize>| place.and_then(|at| fields.get(at));
            let code = |(codes, place): &(Codes<'_>, Option<usize>)| match field(place) {
                Some(Field::Word(word)) => codes.code(word),
                _ => codes.missing(),
            };
            found.iter().map(code).collect()
        };
        Past {
            codes: log.fields.iter().flat_map(item).collect(),
            steps: log.steps.clone(),
        }
    }

    /// What was before every row as the model takes it; rows of one log share what is made of it.
    ///
    /// # Errors
    /// Rows of a task that does not show it.
    pub fn before<'a>(
        &self,
        rows: impl Iterator<Item = Option<&'a examples::Before>>,
    ) -> Result<Vec<Before>> {
        let mut known: Vec<(&Arc<Log>, Arc<Past>)> = Vec::new();
        rows.map(|before| {
            let Some(before) = before else {
                let what = "the model reads what was before a row in its session, and the task names no columns of sessions";
                let columns = self.history.iter().flat_map(|h| h.columns.clone());
                let columns: Vec<String> = columns.collect();
                return Err(MergeError::plan("no-model-task", what)
                    .hint(format!(
                        "`session`, `order` and `history = {columns:?}` of `[table]`"
                    ))
                    .into());
            };
            let same = known.iter().find(|(log, _)| Arc::ptr_eq(log, &before.log));
            let past = match same {
                Some((_, past)) => past.clone(),
                None => {
                    let past = Arc::new(self.past(&before.log));
                    known.push((&before.log, past.clone()));
                    past
                }
            };
            Ok(Before {
                past,
                steps: before.steps.clone(),
            })
        })
        .collect()
    }

    /// Why a file cannot be right.
    pub(super) fn history_fault(&self) -> Option<String> {
        let history = self.history.as_ref()?;
        let n = history.columns.len();
        (n == 0 || self.history_fields().len() != n || history.named.asks_items()).then(|| {
            "a history of no columns, of others than the model reads as words, or of items"
                .to_owned()
        })
    }
}

/// Whether a column is that of words of a name.
fn is_words(column: &Prepared, name: &str) -> bool {
    matches!(column, Prepared::Words { .. }) && column.name() == name
}
