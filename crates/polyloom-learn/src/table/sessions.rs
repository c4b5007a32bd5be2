//! What a model of sessions keeps of its log: which columns say what, and the items of its training rows.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;

use polyloom::MergeError;
use polyloom::evaluate::board::score::examples::Field;
use polyloom::evaluate::board::score::sessions::{Log, Named, Step};
use serde::{Deserialize, Serialize};

use super::{Preparation, Row};
use crate::error::Result;

/// Items at most: the numbers of items are kept as 32-bit numbers with a point.
const MOST: usize = 1 << 24;

/// A log as a model of sessions keeps it.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Sessions {
    /// Columns.
    pub named: Named,
    /// Names of the items of the training rows.
    items: Vec<String>,
    /// Numbers of each, item after item.
    numbers: Vec<f32>,
    /// Codes of each.
    codes: Vec<u32>,
}

/// Items as a model takes them.
#[derive(Debug, Clone, PartialEq)]
pub struct Items {
    /// Names, none twice.
    pub names: Vec<String>,
    /// What each is described by.
    pub rows: Vec<Row>,
    /// How many are of the rows that were read; behind them stand others that the model knows.
    pub own: usize,
}

/// A row of a session as a model takes it.
#[derive(Debug, Clone, PartialEq)]
pub struct Visit {
    /// The items that it is asked for.
    pub items: Arc<Items>,
    /// The rows of all sessions.
    pub log: Arc<Log>,
    /// Those before it.
    pub before: Range<usize>,
}

impl Visit {
    /// The steps before it.
    #[must_use]
    pub fn steps(&self) -> &[Step] {
        self.log.steps.get(self.before.clone()).unwrap_or_default()
    }
}

impl Sessions {
    /// Why a file cannot be right, of rows of so many numbers and fields of codes.
    pub(super) fn fault(&self, numeric: usize, categories: &[usize]) -> Option<String> {
        let n = self.items.len();
        let distinct: HashSet<&String> = self.items.iter().collect();
        if n == 0 || n > MOST || distinct.len() != n {
            return Some(format!("{n} items, or one twice; 1 to {MOST}"));
        }
        if self.numbers.len() != n * numeric
            || self.codes.len() != n * categories.len()
            || !self.numbers.iter().all(|x| x.is_finite())
        {
            return Some(format!("numbers or codes that are not those of {n} items"));
        }
        let wide = categories.len().max(1);
        let high = self.codes.chunks(wide).any(|item| {
            let mut codes = item.iter().zip(categories);
            codes.any(|(code, size)| *code as usize >= *size)
        });
        high.then(|| "codes that no word has".to_owned())
    }
}

impl Preparation {
    /// What it keeps of a log; `None` of rows that are no sessions.
    #[must_use]
    pub fn sessions(&self) -> Option<&Sessions> {
        self.sessions.as_ref()
    }

    /// Keeps the items of training rows.
    ///
    /// # Errors
    /// As [`Self::items`].
    pub fn with_items(mut self, named: Named, log: &Log) -> Result<Self> {
        let found = self.items(log)?;
        let (mut numbers, mut codes) = (Vec::new(), Vec::new());
        for row in &found.rows {
            numbers.extend_from_slice(&row.numbers);
            codes.extend_from_slice(&row.codes);
        }
        self.sessions = Some(Sessions {
            named,
            items: found.names,
            numbers,
            codes,
        });
        Ok(self)
    }

    /// The items of a log, and behind them those that the model knows beside.
    ///
    /// # Errors
    /// Columns that the model does not know, more items than it can tell apart.
    pub fn items(&self, log: &Log) -> Result<Items> {
        let reader = self.reader(&log.columns)?;
        let field = |place: usize, item: usize| {
            let field = log.fields[item].get(place);
            Ok::<_, crate::error::Error>(field.map_or(Field::Missing, Field::lent))
        };
        let mut found = Items {
            rows: reader.rows(log.items.len(), field, |e| e)?,
            names: log.items.clone(),
            own: log.items.len(),
        };
        if let Some(known) = &self.sessions {
            let own: HashSet<&str> = log.items.iter().map(String::as_str).collect();
            let (wide, fields) = (self.numeric(), self.categories().len());
            for (i, name) in known.items.iter().enumerate() {
                if !own.contains(&**name) {
                    found.names.push(name.clone());
                    found.rows.push(Row {
                        numbers: known.numbers[i * wide..][..wide].to_vec(),
                        codes: known.codes[i * fields..][..fields].to_vec(),
                        group: None,
                        before: None,
                    });
                }
            }
        }
        if found.names.len() > MOST {
            let what = format!(
                "{} items; a model of sessions scores up to {MOST}",
                found.names.len()
            );
            return Err(MergeError::plan("bad-session", what)
                .hint("leave out items that nobody takes any more")
                .into());
        }
        Ok(found)
    }
}
