//! Scores against references: a task's own expert, guessing, the best that can be (methods/evaluation.md 3.2).

use super::matrix::{Direction, ScoreMatrix, Standing, TaskColumn};
use super::mean::Missing;
use crate::evaluate::sum::Sum;
use crate::evaluate::{EvalError, Result};

/// One system against the experts of the tasks.
#[derive(Debug, Clone, PartialEq)]
pub struct Relative {
    /// Relative gain per task, (x − b) / b with the sign turned where less is better: a fraction, more is better. `NaN`
    /// where the score is missing or the task is left out.
    pub per_task: Vec<f64>,
    /// Weighted mean of the gains.
    pub delta_m: f64,
    /// Weighted mean of x / b, whatever the direction ("normalised accuracy" of the merging papers).
    pub ratio: f64,
    /// Geometric mean of x / b (b / x where less is better); `NaN` where a ratio is negative.
    pub geometric_ratio: f64,
    /// Share of tasks on which the system is better than the expert; an equal score is no win.
    pub win_fraction: f64,
    /// The task of the smallest gain, the weakest link; the first of equals.
    pub worst: Option<(usize, f64)>,
    /// Tasks left out: no expert, an expert of 0, no direction, weight 0. Worth a warning where a weight is not 0.
    pub excluded: Vec<usize>,
    /// How many of the other tasks the system has no score on.
    pub missing: usize,
}

/// A system against the experts of the tasks. Missing scores are left out of all of it and counted.
///
/// Peers: the multi-task papers' delta_m in percent with the sign as it is; their percent, lower-is-better form is another
/// function and never on a board.
///
/// # Panics
/// Where the matrix has no such system.
pub fn relative(matrix: &ScoreMatrix, system: usize) -> Relative {
    let tasks = matrix.tasks().len();
    let (mut gains, mut ratios, mut logs) = (Sum::default(), Sum::default(), Sum::default());
    let (mut weights, mut wins) = (Sum::default(), Sum::default());
    let mut found = Relative {
        per_task: vec![f64::NAN; tasks],
        delta_m: f64::NAN,
        ratio: f64::NAN,
        geometric_ratio: f64::NAN,
        win_fraction: f64::NAN,
        worst: None,
        excluded: Vec::new(),
        missing: 0,
    };
    for (t, (&x, task)) in matrix.row(system).iter().zip(matrix.tasks()).enumerate() {
        let Some((direction, expert)) = reference(task) else {
            found.excluded.push(t);
            continue;
        };
        if x.is_nan() {
            found.missing += 1;
            continue;
        }
        let (gain, w) = (direction.oriented(x - expert) / expert, task.weight);
        found.per_task[t] = gain;
        gains.add(w * gain);
        ratios.add(w * x / expert);
        let ratio = match direction {
            Direction::Higher => x / expert,
            Direction::Lower => expert / x,
        };
        logs.add(w * ratio.ln());
        let won = direction.oriented(x) > direction.oriented(expert);
        wins.add(if won { w } else { 0.0 });
        weights.add(w);
        if found.worst.is_none_or(|(_, least)| gain < least) {
            found.worst = Some((t, gain));
        }
    }
    let total = weights.total();
    found.delta_m = gains.total() / total;
    found.ratio = ratios.total() / total;
    found.geometric_ratio = (logs.total() / total).exp();
    found.win_fraction = wins.total() / total;
    found
}

/// The mean relative gain of every system over the tasks' experts ([`Relative::delta_m`]), a fraction, more is better.
/// Under [`Missing::Strict`] a system that lacks a score on a task with an expert has none.
pub fn delta_m(matrix: &ScoreMatrix, missing: Missing) -> Standing {
    let rows: Vec<Relative> = (0..matrix.systems().len())
        .map(|s| relative(matrix, s))
        .collect();
    let value = rows.iter().map(|r| match missing {
        Missing::Strict if r.missing > 0 => f64::NAN,
        _ => r.delta_m,
    });
    let value = value.collect();
    let lacking = rows.iter().map(|r| r.missing).collect();
    Standing::new(value, lacking, Some(Direction::Higher))
}

/// A score on a scale where 0 is guessing and 100 the best that can be, 100 (x − chance) / (maximum − chance); with
/// `clip` nothing is below 0, as on the Open LLM leaderboard. For an error rate give the chance error and the maximum 0.
/// `NaN` where chance and maximum are the same.
pub fn normalised(score: f64, chance: f64, maximum: f64, clip: bool) -> f64 {
    if chance == maximum {
        return f64::NAN;
    }
    let share = 100.0 * (score - chance) / (maximum - chance);
    if clip && share < 0.0 { 0.0 } else { share }
}

/// Weighted mean of the normalised scores of every system, 0 to 100, more is better.
///
/// # Errors
/// A task of weight above 0 whose chance or maximum is not known, or where both are the same.
pub fn normalised_mean(matrix: &ScoreMatrix, missing: Missing, clip: bool) -> Result<Standing> {
    let mut bounds = Vec::with_capacity(matrix.tasks().len());
    for task in matrix.tasks() {
        bounds.push(match (task.chance, task.maximum) {
            _ if task.weight == 0.0 => (0.0, 1.0),
            (Some(low), Some(high)) if low != high => (low, high),
            _ => {
                let problem = format!("task {:?} lacks chance and maximum", task.name);
                return Err(EvalError::invalid("normalised mean", problem));
            }
        });
    }
    let cells = (0..matrix.systems().len()).flat_map(|s| {
        let row = matrix.row(s).iter().zip(&bounds);
        row.map(|(&x, &(low, high))| normalised(x, low, high, clip))
    });
    let tasks = matrix.tasks().iter().cloned();
    let tasks = tasks.map(|t| t.with_direction(Some(Direction::Higher)));
    let scaled = ScoreMatrix::new(matrix.systems().to_vec(), tasks.collect(), cells.collect())?;
    Ok(super::mean::task_mean(&scaled, missing))
}

/// The good end of a task and the score of its expert, where scores can be held against it.
pub(crate) fn reference(task: &TaskColumn) -> Option<(Direction, f64)> {
    let expert = task.expert.filter(|&b| b != 0.0 && task.weight > 0.0)?;
    Some((task.direction?, expert))
}

#[cfg(test)]
mod tests {
    use super::super::matrix::tests::matrix;
    use super::*;

    fn with_experts(rows: &[&[f64]], lower: &[usize], experts: &[f64]) -> ScoreMatrix {
        let m = matrix(rows, lower);
        let mut tasks = m.tasks().to_vec();
        for (task, &expert) in tasks.iter_mut().zip(experts) {
            task.expert = Some(expert);
            (task.chance, task.maximum) = (Some(20.0), Some(100.0));
        }
        ScoreMatrix::new(m.systems().to_vec(), tasks, rows.concat()).unwrap()
    }

    #[test]
    fn by_hand() {
        // Gains: +10 %, an error of 4 against 5 is +20 %, the expert of 0 does not count.
        let m = with_experts(
            &[&[55.0, 4.0, 1.0], &[50.0, f64::NAN, 1.0]],
            &[1],
            &[50.0, 5.0, 0.0],
        );
        let r = relative(&m, 0);
        assert!((r.delta_m - 0.15).abs() < 1e-15);
        assert_eq!((&r.excluded[..], r.win_fraction), (&[2][..], 1.0));
        assert_eq!(r.worst.map(|(t, _)| t), Some(0));
        assert!((r.geometric_ratio - (1.1f64 * 1.25).sqrt()).abs() < 1e-15);
        assert!((r.ratio - 0.95).abs() < 1e-15);
        let strict = delta_m(&m, Missing::Strict);
        assert!(strict.value[1].is_nan());
        let skip = delta_m(&m, Missing::Skip);
        assert_eq!((skip.value[1], &skip.missing[..]), (0.0, &[0, 1][..]));
        assert_eq!(skip.rank, [Some(1), Some(2)]);
    }

    #[test]
    fn guessing_is_nothing() {
        assert_eq!(normalised(60.0, 20.0, 100.0, false), 50.0);
        assert_eq!(normalised(10.0, 20.0, 100.0, true), 0.0);
        assert_eq!(normalised(10.0, 20.0, 100.0, false), -12.5);
        assert_eq!(normalised(0.25, 0.5, 0.0, true), 50.0);
        assert!(normalised(1.0, 1.0, 1.0, true).is_nan());
        assert!(normalised(f64::NAN, 0.0, 1.0, true).is_nan());
        let m = with_experts(&[&[60.0, 100.0]], &[], &[1.0, 1.0]);
        let mean = normalised_mean(&m, Missing::Strict, true).unwrap();
        assert_eq!(mean.value, [75.0]);
        assert!(normalised_mean(&matrix(&[&[1.0]], &[]), Missing::Strict, true).is_err());
    }
}
