//! The continual matrix of the report.

use std::fmt::Write as _;

use crate::evaluate::board::results::Results;
use crate::evaluate::board::stages::{Stages, stages};
use crate::html::{Cell, escape, heat};

/// Of the systems that are the stages, in order, on the tasks that count.
///
/// # Errors
/// Unknown stages, and as [`stages`].
pub(super) fn of(results: &Results, names: &[String]) -> Result<Stages, String> {
    let row = |name: &String| {
        let at = results.systems.iter().position(|s| s.name == *name);
        at.ok_or_else(|| format!("no system `{name}` to be a stage"))
    };
    let rows = names.iter().map(row).collect::<Result<Vec<_>, _>>()?;
    let counts = |&t: &usize| {
        let column = &results.tasks[t].column;
        column.direction.is_some() && column.weight > 0.0
    };
    let tasks: Vec<usize> = (0..results.tasks.len()).filter(counts).collect();
    stages(&results.select(&rows, &tasks)).map_err(|e| e.to_string())
}

/// The matrix and its summary.
pub(super) fn section(found: &Stages) -> String {
    let all = || found.scores.iter().flatten().copied();
    let (low, high) = (
        all().fold(f64::MAX, f64::min),
        all().fold(f64::MIN, f64::max),
    );
    let span = (high - low).max(1e-12);
    let digits = super::table::digits(&all().collect::<Vec<_>>()).min(3);
    let mut out = String::new();
    let shown = |r: usize, c: usize| {
        let x = found.scores[r][c];
        let own = match r.cmp(&c) {
            std::cmp::Ordering::Equal => " ●",
            std::cmp::Ordering::Less => " ○",
            std::cmp::Ordering::Greater => "",
        };
        Cell {
            shown: format!("{x:.digits$}{own}"),
            title: format!("{} after {}", found.tasks[c], found.stages[r]),
            tint: Some(('c', (x - low) / span)),
            ..Cell::default()
        }
    };
    heat(
        &mut out,
        "Scores after each stage",
        "after",
        &found.tasks,
        &found.stages,
        shown,
    );
    out.push_str("<p class=\"soft\">● the task that the stage learned, ○ not learned yet. Scores where less is better stand with a minus.</p><table class=\"plain\"><tbody>");
    for measure in found.measures.iter().filter(|m| !m.value.is_nan()) {
        let _ = write!(
            out,
            "<tr><th scope=\"row\">{}</th><td>{:.4}</td><td class=\"l soft\">{}</td></tr>",
            escape(measure.name),
            measure.value,
            escape(measure.about)
        );
    }
    out.push_str("</tbody></table>\n");
    out
}
