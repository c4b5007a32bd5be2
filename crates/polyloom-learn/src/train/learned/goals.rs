//! Goals of models of tables, and of models whose experts are chosen by goal: which one a head is for.

use polyloom::MergeError;

use crate::error::Result;
use crate::models::open::{Model, Trunk};
use crate::tasks::fit::{full, of_group};
use crate::tasks::{Head, Rows};

/// Whether every training row has a group, where groups have goals of their own.
///
/// # Errors
/// The first that has none.
pub(super) fn grouped(id: &str, train: &Rows, model: &Model) -> Result<()> {
    let groups = model.table.as_ref().and_then(|t| t.groups());
    let row = train.shown.iter().position(|s| !s.has_goal());
    let (Some(groups), Some(row)) = (groups, row) else {
        return Ok(());
    };
    let what = format!(
        "training row `{}` of task `{id}` has nothing in `{}`, whose values have goals of their own",
        train.ids[row], groups.column
    );
    Err(MergeError::plan("bad-task", what)
        .hint("fill the column, or remove such rows from the training file")
        .into())
}

/// Gives a head its place among the goals of a model, and its groups where groups have goals of their own.
///
/// # Errors
/// The model has no such goal.
pub(super) fn place(head: &mut Head, id: &str, target: &str, model: &Model) -> Result<()> {
    match model.table.as_ref().and_then(|t| t.groups()) {
        None => head.goal = goal(&full(id, target), model)?,
        Some(groups) => {
            // The goals of a target lie side by side, one a group.
            let first = groups.values.first().map_or("", String::as_str);
            let first = of_group(id, first, target);
            head.goal = goal(&first, model)? / groups.values.len().max(1);
            head.for_groups(groups.values.clone())?;
        }
    }
    Ok(())
}

/// The place of a goal among those of a model of tables.
fn goal(name: &str, model: &Model) -> Result<usize> {
    let goals = match &model.trunk {
        Trunk::Table(table) => &table.config.goals[..],
        Trunk::Forest(forest) => &forest.config.goals[..],
        _ => model.goals().unwrap_or_default(),
    };
    goals.iter().position(|g| g == name).ok_or_else(|| {
        MergeError::plan("no-goal", format!("has no goal `{name}`"))
            .at(model.folder.display().to_string())
            .hint(format!(
                "its goals: {}; [train.add] adds others to a vision transformer with experts or memories",
                goals.join(", ")
            ))
            .into()
    })
}
