//! Groups of rows that have goals of their own: a school, a field, a person.

use std::collections::{BTreeSet, HashMap};

use polyloom::MergeError;
use polyloom::evaluate::board::score::examples::{Column, Field};
use serde::{Deserialize, Serialize};

use crate::error::Result;

/// The groups of a model that has goals for each.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Groups {
    /// The column that says a row's group. It is no feature.
    pub column: String,
    /// The groups that training rows have: numbers by value, else words in order.
    pub values: Vec<String>,
}

impl Groups {
    /// Of the values that training rows have.
    ///
    /// # Errors
    /// No value at all.
    pub(super) fn of(column: String, seen: BTreeSet<String>) -> Result<Self> {
        if seen.is_empty() {
            let what = format!("no training row has a value in the group column `{column}`");
            return Err(MergeError::plan("bad-table", what)
                .hint("leave out `goals = \"groups\"`, or name another `table.group`")
                .into());
        }
        let mut values: Vec<String> = seen.into_iter().collect();
        let number = |text: &String| text.parse::<f64>().ok().filter(|x| x.is_finite());
        if values.iter().all(|v| number(v).is_some()) {
            values.sort_by(|a, b| {
                let (a, b) = (number(a).unwrap_or(0.0), number(b).unwrap_or(0.0));
                a.total_cmp(&b)
            });
        }
        Ok(Self { column, values })
    }

    /// What is wrong with groups from a file, if anything is.
    pub(super) fn fault(&self) -> Option<&'static str> {
        let different: BTreeSet<&String> = self.values.iter().collect();
        match different.len() {
            0 => Some("has groups without a value"),
            n if n < self.values.len() => Some("has a group twice"),
            _ => None,
        }
    }
}

/// What a field says as a group; `None` where it is empty.
pub(super) fn word<W: AsRef<str>>(field: &Field<W>) -> Option<String> {
    match field {
        Field::Number(x) => Some(x.to_string()),
        Field::Word(word) => Some(word.as_ref().to_owned()),
        Field::Missing => None,
    }
}

/// Finds the group of rows of one table.
pub(super) struct Finder {
    /// Where the column stands.
    pub place: usize,
    groups: HashMap<String, u32>,
}

impl Finder {
    /// Of a table with these columns.
    ///
    /// # Errors
    /// The table lacks the column.
    pub fn new(groups: &Groups, columns: &[Column]) -> Result<Self> {
        let Some(place) = columns.iter().position(|c| c.name == groups.column) else {
            let what = format!(
                "the model has a goal for each `{}`, a column that is not there",
                groups.column
            );
            return Err(MergeError::plan("bad-table", what)
                .hint("add it; rows of an unknown group, or with nothing in it, get the mean over the groups' answers")
                .into());
        };
        Ok(Self {
            place,
            groups: (0u32..)
                .zip(&groups.values)
                .map(|(i, v)| (v.clone(), i))
                .collect(),
        })
    }

    /// The group of a row by its field at the place; `None` for one that training did not have.
    pub fn group<W: AsRef<str>>(&self, field: &Field<W>) -> Option<u32> {
        let word = word(field)?;
        // 12.0 for 12, as tables with missing values have it.
        let whole = || self.groups.get(word.strip_suffix(".0")?);
        self.groups.get(&word).or_else(whole).copied()
    }
}
