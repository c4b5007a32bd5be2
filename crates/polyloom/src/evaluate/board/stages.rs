//! The table as a run of continual learning: what a system that learns task after task scores on each of them after every
//! stage.

use super::results::Results;
use crate::error::{MergeError, Result};
use crate::evaluate::EvalError;
use crate::evaluate::change::continual::ContinualMatrix;

/// A number about the whole run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Measure {
    /// Its name.
    pub name: &'static str,
    /// `NaN` where it is not defined.
    pub value: f64,
    /// What it is, in words.
    pub about: &'static str,
}

/// Learning one task after the other.
#[derive(Debug, Clone)]
pub struct Stages {
    /// Names of the stages; the untrained model is none.
    pub stages: Vec<String>,
    /// Names of the tasks, in the order of learning.
    pub tasks: Vec<String>,
    /// By stage, then task; more is better (scores where less is better have their sign changed).
    pub scores: Vec<Vec<f64>>,
    /// What they say together.
    pub measures: Vec<Measure>,
}

/// Systems are the stages in order, tasks are in the order of learning: stage i is the system after learning task i. One
/// system more than tasks makes the first one the untrained model; experts of the tasks are models of one task alone.
///
/// # Errors
/// Another number of systems, a missing score, a task without a good end.
pub fn stages(results: &Results) -> Result<Stages> {
    let (rows, tasks) = (results.systems.len(), results.tasks.len());
    let fail = |what: String| {
        MergeError::plan("no-stages", what)
            .hint("systems are the stages in order, tasks are in the order of learning; a first system more is the untrained model")
    };
    if rows != tasks && rows != tasks + 1 {
        return Err(fail(format!("{rows} stages for {tasks} tasks")));
    }
    let oriented = |t: usize, score: f64| {
        let column = &results.tasks[t].column;
        let direction = column
            .direction
            .ok_or_else(|| fail(format!("`{}` has no good end", column.name)))?;
        Ok(direction.oriented(score))
    };
    let row = |s: usize| {
        let cell = |t: usize| {
            let (system, task) = (&results.systems[s].name, &results.tasks[t].column.name);
            let cell = results
                .cell(s, t)
                .ok_or_else(|| fail(format!("`{system}` has no score on `{task}`")))?;
            oriented(t, cell.value)
        };
        (0..tasks).map(cell).collect::<Result<Vec<f64>>>()
    };
    let untrained = (rows > tasks).then(|| row(0)).transpose()?;
    let first = rows - tasks;
    let scores = (first..rows).map(row).collect::<Result<Vec<_>>>()?;
    let bad = |e: EvalError| fail(e.to_string());
    let matrix = ContinualMatrix::new(scores.clone()).map_err(bad)?;
    let experts = (0..tasks).map(|t| Some((t, results.tasks[t].column.expert?)));
    let experts: Option<Vec<(usize, f64)>> = experts.collect();
    let single = experts.map(|all| {
        all.into_iter()
            .map(|(t, x)| oriented(t, x))
            .collect::<Result<Vec<f64>>>()
    });
    let single = single.transpose()?;
    let forward = untrained
        .map(|u| matrix.forward_transfer(&u))
        .transpose()
        .map_err(bad)?;
    let lacking = single
        .map(|s| matrix.intransigence(&s))
        .transpose()
        .map_err(bad)?;
    let nan = f64::NAN;
    let measures = [
        (
            "average accuracy (ACC)",
            matrix.average_accuracy(),
            "mean over all tasks after the last stage",
        ),
        (
            "average incremental accuracy",
            matrix.average_incremental_accuracy(),
            "mean over stages of the mean over the tasks seen by then",
        ),
        (
            "learning accuracy",
            matrix.learning_accuracy(),
            "mean score on a task right after learning it",
        ),
        (
            "backward transfer (BWT)",
            matrix.backward_transfer(),
            "last stage less the stage that learned the task; below 0: forgotten",
        ),
        (
            "forward transfer (FWT)",
            forward.unwrap_or(nan),
            "score before learning a task less that of the untrained model",
        ),
        (
            "forgetting",
            matrix.forgetting(),
            "best earlier score less the last one; 0: nothing forgotten",
        ),
        (
            "forgetting since learned",
            matrix.forgetting_from_learned(),
            "the same, from the stage that learned the task on",
        ),
        (
            "remembering (REM)",
            matrix.remembering(),
            "1 less what was forgotten",
        ),
        (
            "intransigence",
            lacking.unwrap_or(nan),
            "model of one task alone less the stage that learned the task",
        ),
    ];
    let measures = measures.map(|(name, value, about)| Measure { name, value, about });
    Ok(Stages {
        stages: results.systems[first..]
            .iter()
            .map(|s| s.name.clone())
            .collect(),
        tasks: results
            .tasks
            .iter()
            .map(|t| t.column.name.clone())
            .collect(),
        scores,
        measures: measures.to_vec(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluate::aggregate::{Direction, TaskColumn};
    use crate::evaluate::board::results::{Cell, System, Task};

    #[test]
    fn an_error_rate_is_turned() {
        let lower = TaskColumn::new("wer").with_direction(Some(Direction::Lower));
        let results = Results {
            systems: ["base", "one", "two"].map(System::new).to_vec(),
            tasks: vec![
                Task::new(TaskColumn::new("acc"), "accuracy"),
                Task::new(lower, "wer"),
            ],
            cells: [0.1, 0.9, 0.8, 0.5, 0.6, 0.2]
                .map(|x| Some(Cell::new(x)))
                .to_vec(),
        };
        let found = stages(&results).unwrap();
        assert_eq!(found.stages, ["one", "two"]);
        assert_eq!(found.scores, [[0.8, -0.5], [0.6, -0.2]]);
        let value = |name: &str| {
            found
                .measures
                .iter()
                .find(|m| m.name.starts_with(name))
                .unwrap()
                .value
        };
        assert!(
            (value("backward") + 0.2).abs() < 1e-12 && (value("forgetting") - 0.2).abs() < 1e-12
        );
        // Before learning its task, stage one has an error of 0.5, the untrained model one of 0.9.
        assert!((value("forward") - 0.4).abs() < 1e-12);
        assert!(value("intransigence").is_nan());
    }
}
