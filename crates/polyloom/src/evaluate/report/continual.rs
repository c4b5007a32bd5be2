//! The continual matrix: what a system that learns task after task scores on each of them after every stage.

use std::fmt::Write as _;

use crate::evaluate::aggregate::ScoreMatrix;
use crate::evaluate::change::continual::ContinualMatrix;
use crate::html::{Cell, escape, heat};

/// Stages and tasks in the order of learning.
pub struct Continual {
    stages: Vec<String>,
    tasks: Vec<String>,
    scores: Vec<Vec<f64>>,
    found: ContinualMatrix,
}

impl Continual {
    /// Stage i is the system after learning task i; as many tasks as stages, in the order of the table.
    ///
    /// # Errors
    /// Unknown stages, another number of tasks, a missing score.
    pub fn of(matrix: &ScoreMatrix, stages: &[String]) -> Result<Self, String> {
        let names = matrix.systems();
        let rows: Vec<usize> = stages
            .iter()
            .map(|name| {
                let at = names.iter().position(|n| n == name);
                at.ok_or_else(|| format!("no system `{name}` to be a stage"))
            })
            .collect::<Result<_, _>>()?;
        let tasks: Vec<usize> = matrix.ranked().map(|(t, _)| t).collect();
        if tasks.len() != rows.len() {
            return Err(format!(
                "{} stages for {} tasks; a stage is the system after learning the task of its number",
                rows.len(),
                tasks.len()
            ));
        }
        let mut scores = Vec::new();
        for &s in &rows {
            let mut row = Vec::new();
            for &t in &tasks {
                let task = &matrix.tasks()[t];
                let score = matrix.score(s, t).ok_or_else(|| {
                    format!("stage `{}` has no score on task `{}`", names[s], task.name)
                })?;
                row.push(task.direction.map_or(score, |d| d.oriented(score)));
            }
            scores.push(row);
        }
        Ok(Self {
            found: ContinualMatrix::new(scores.clone()).map_err(|e| e.to_string())?,
            stages: stages.to_vec(),
            tasks: tasks
                .iter()
                .map(|&t| matrix.tasks()[t].name.clone())
                .collect(),
            scores,
        })
    }

    /// Names, values and meanings of the summary.
    pub fn summary(&self) -> Vec<(&'static str, f64, &'static str)> {
        vec![
            (
                "average accuracy",
                self.found.average_accuracy(),
                "mean over all tasks after the last stage",
            ),
            (
                "backward transfer",
                self.found.backward_transfer(),
                "last stage less the stage that learned the task; below 0: forgotten",
            ),
            (
                "forgetting",
                self.found.forgetting(),
                "best earlier score less the last one; 0: nothing forgotten",
            ),
            (
                "learning accuracy",
                self.found.learning_accuracy(),
                "mean score on a task right after learning it",
            ),
            (
                "average incremental accuracy",
                self.found.average_incremental_accuracy(),
                "mean over stages of the mean over the tasks seen by then",
            ),
        ]
    }

    /// The matrix and its summary.
    pub fn section(&self) -> String {
        let all = || self.scores.iter().flatten().copied();
        let (low, high) = (
            all().fold(f64::MAX, f64::min),
            all().fold(f64::MIN, f64::max),
        );
        let span = (high - low).max(1e-12);
        let digits = super::table::digits(&all().collect::<Vec<_>>()).min(3);
        let mut out = String::new();
        heat(
            &mut out,
            "Scores after each stage",
            "after",
            &self.tasks,
            &self.stages,
            |r, c| {
                let x = self.scores[r][c];
                let own = match r.cmp(&c) {
                    std::cmp::Ordering::Equal => " ●",
                    std::cmp::Ordering::Less => " ○",
                    std::cmp::Ordering::Greater => "",
                };
                Cell {
                    shown: format!("{x:.digits$}{own}"),
                    title: format!("{} after {}", self.tasks[c], self.stages[r]),
                    tint: Some(('c', (x - low) / span)),
                }
            },
        );
        out.push_str("<p class=\"soft\">● the task that the stage learned, ○ not learned yet. Scores where less is better stand with a minus.</p><table class=\"plain\"><tbody>");
        for (name, value, about) in self.summary() {
            let shown = if value.is_nan() {
                "n/a".to_owned()
            } else {
                format!("{value:.4}")
            };
            let _ = write!(
                out,
                "<tr><th scope=\"row\">{}</th><td>{shown}</td><td class=\"l soft\">{}</td></tr>",
                escape(name),
                escape(about)
            );
        }
        out.push_str("</tbody></table>\n");
        out
    }
}
