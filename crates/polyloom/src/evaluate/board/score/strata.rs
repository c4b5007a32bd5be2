//! What a draw of folds minds of the rows of a task: their classes, or their groups.

use super::examples::Asked;
use super::truth::{self, Truth};
use crate::error::Result;
use crate::tasks::load::Loader;
use crate::tasks::spec::TaskSpec;

/// A row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Its id, as records have it.
    pub id: String,
    /// Its classes, for each thing that is asked: none where the row does not say, an empty list for a number.
    pub classes: Vec<Option<Vec<u32>>>,
    /// What it has in the column of groups, as JSON; empty where none was named.
    pub group: String,
}

/// All rows of a split.
#[derive(Debug, Clone, PartialEq)]
pub struct Strata {
    /// What is asked, with the classes.
    pub asked: Vec<Asked>,
    /// Every row, also those that say nothing.
    pub rows: Vec<Row>,
}

/// Reads the labels of all rows of a split, and of `group` where a column is named.
///
/// # Errors
/// What the readers report; labels that are no classes of the task, ids that stand twice.
pub fn strata(
    spec: &TaskSpec,
    loader: &Loader<'_>,
    split: &str,
    group: Option<&str>,
) -> Result<Strata> {
    let mut groups = Vec::new();
    let read = truth::read_with(spec, loader, split, &mut |table, row, _| {
        groups.push(group.map_or_else(String::new, |g| table.at(row, g).to_string()));
        Ok(true)
    })?;
    let classes = |truth: Option<Truth>| match truth? {
        Truth::Class(class) => Some(vec![class]),
        Truth::Set(set) => Some(set),
        _ => Some(Vec::new()),
    };
    let rows = read.examples.into_iter().zip(groups);
    let rows = rows.map(|(example, group)| Row {
        id: example.id,
        classes: example.truths.into_iter().map(classes).collect(),
        group,
    });
    Ok(Strata {
        rows: rows.collect(),
        asked: read.goals.into_iter().map(Asked::from).collect(),
    })
}
