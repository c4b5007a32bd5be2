//! Two systems on the same examples: which is better, and can it be believed.

use crate::error::{MergeError, Result};
use crate::evaluate::statistics::Interval;
use crate::evaluate::statistics::mcnemar::{McNemar, McNemarForm};
use crate::evaluate::statistics::multiplicity::{Correction, adjust};
use crate::evaluate::statistics::power::minimum_detectable;
use crate::evaluate::statistics::proportion::{ProportionMethod, proportion};
use crate::evaluate::statistics::special::{t_quantile, t_two_sided};
use crate::evaluate::sum::{mean, sum};

use super::predictions::{Example, Predictions};

/// Settings of a comparison.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Level of the intervals' complement and of the tests, in (0, 1); 0.05 is usual.
    pub alpha: f64,
    /// Compare what both files hold; else an example that one of them lacks is an error.
    pub allow_partial: bool,
}

/// What the comparison says of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The second system is better.
    Better,
    /// The second system is worse.
    Worse,
    /// The examples do not tell.
    Open,
}

/// How the p-value was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Test {
    /// McNemar's test on right and wrong answers.
    McNemar(McNemarForm),
    /// Student's paired t test on scores.
    PairedT,
}

/// One system on one task.
#[derive(Debug, Clone, Copy)]
pub struct Side {
    /// Mean over the examples.
    pub mean: f64,
    /// Interval of the mean: Wilson's for shares of right answers, else Student's.
    pub interval: Interval,
}

/// An example on which the systems differ.
#[derive(Debug, Clone)]
pub struct Flip {
    /// The example.
    pub id: String,
    /// The first system's example, then the second's.
    pub examples: (Example, Example),
}

/// Two systems on one task.
#[derive(Debug, Clone)]
pub struct Paired {
    /// The task; empty where the files name none.
    pub task: String,
    /// Examples compared.
    pub n: u64,
    /// The first system.
    pub first: Side,
    /// The second system.
    pub second: Side,
    /// Second less first.
    pub difference: f64,
    /// Interval of the difference, from the differences example by example (Student's t). `NaN` for one example.
    pub interval: Interval,
    /// Two-sided p-value.
    pub p: f64,
    /// The same after Holm's correction for the tasks of this comparison.
    pub p_holm: f64,
    /// Where `p` comes from.
    pub test: Test,
    /// The smallest true difference that such examples would show 4 times in 5.
    pub detectable: f64,
    /// Examples on which the second is worse, worst first.
    pub worse: Vec<Flip>,
    /// Examples on which the second is better, best first.
    pub better: Vec<Flip>,
    /// What that means at the level asked for, after Holm's correction.
    pub verdict: Verdict,
}

/// A comparison of two systems.
#[derive(Debug, Clone)]
pub struct Comparison {
    /// Task by task, in the first file's order.
    pub tasks: Vec<Paired>,
    /// Examples that only one file holds (task, id, true: the first file), where that was allowed.
    pub left_out: Vec<(String, String, bool)>,
}

/// Compares two files of predictions on the examples that they share.
///
/// Source: methods/evaluation.md 3.11 and 4.1. Intervals and tests are paired; an unpaired one would throw away that
/// both systems met the same examples.
///
/// # Errors
/// Examples that one file lacks (unless allowed), a task without shared examples, labels that contradict each other, one
/// file of right and wrong answers against one of scores.
pub fn compare(first: &Predictions, second: &Predictions, options: Options) -> Result<Comparison> {
    let mut left_out = Vec::new();
    for (one, other, is_first) in [(first, second, true), (second, first, false)] {
        for (task, examples) in &one.tasks {
            let there = other.tasks.get(task);
            let absent = examples
                .keys()
                .filter(|id| there.is_none_or(|t| !t.contains_key(*id)));
            left_out.extend(absent.map(|id| (task.clone(), id.clone(), is_first)));
        }
    }
    if !options.allow_partial && !left_out.is_empty() {
        let (task, id, in_first) = &left_out[0];
        let (has, lacks) = if *in_first {
            (first, second)
        } else {
            (second, first)
        };
        let task = if task.is_empty() {
            String::new()
        } else {
            format!(" of task `{task}`")
        };
        return Err(MergeError::plan(
            "examples-differ",
            format!(
                "lacks {} examples that the other file holds, or the other way round; the first is `{id}`{task} of {}",
                left_out.len(),
                has.path.display()
            ),
        )
        .at(lacks.path.display().to_string())
        .hint("--allow-partial compares the examples that both hold"));
    }
    let binary = first.binary && second.binary;
    let mut tasks = Vec::new();
    for (task, examples) in &first.tasks {
        let Some(others) = second.tasks.get(task) else {
            continue;
        };
        let shared: Vec<Flip> = examples
            .iter()
            .filter_map(|(id, e)| {
                let examples = (e.clone(), others.get(id)?.clone());
                Some(Flip {
                    id: id.clone(),
                    examples,
                })
            })
            .collect();
        if shared.is_empty() {
            continue;
        }
        if let Some(flip) = shared.iter().find(|f| contradict(f)) {
            return Err(MergeError::plan(
                "labels-differ",
                format!("the files disagree on what is right for example `{}`", flip.id),
            )
            .at(second.path.display().to_string())
            .hint("are these predictions for the same data? --id names the column that tells examples apart"));
        }
        tasks.push(paired(task, &shared, binary, options)?);
    }
    if tasks.is_empty() {
        return Err(
            MergeError::plan("examples-differ", "shares no example with the other file")
                .at(second.path.display().to_string())
                .hint("--id COLUMN names the column that tells examples apart"),
        );
    }
    let raw: Vec<f64> = tasks.iter().map(|t| t.p).collect();
    let adjusted = adjust(&raw, Correction::Holm).map_err(internal)?;
    for (task, p) in tasks.iter_mut().zip(adjusted) {
        task.p_holm = p;
        task.verdict = match task.difference {
            d if p < options.alpha && d > 0.0 => Verdict::Better,
            d if p < options.alpha && d < 0.0 => Verdict::Worse,
            _ => Verdict::Open,
        };
    }
    Ok(Comparison { tasks, left_out })
}

fn contradict(flip: &Flip) -> bool {
    match (&flip.examples.0.texts, &flip.examples.1.texts) {
        (Some((_, a)), Some((_, b))) => a.trim() != b.trim(),
        _ => false,
    }
}

#[allow(
    clippy::needless_pass_by_value,
    reason = "the shape that map_err wants"
)]
fn internal(error: crate::evaluate::EvalError) -> MergeError {
    MergeError::plan("statistics", error.to_string())
}

fn paired(task: &str, shared: &[Flip], binary: bool, options: Options) -> Result<Paired> {
    let n = shared.len() as u64;
    let firsts: Vec<f64> = shared.iter().map(|f| f.examples.0.value).collect();
    let seconds: Vec<f64> = shared.iter().map(|f| f.examples.1.value).collect();
    let differences: Vec<f64> = firsts.iter().zip(&seconds).map(|(a, b)| b - a).collect();
    let (difference, sd) = (mean(differences.iter().copied()), deviation(&differences));
    let error = sd / (n as f64).sqrt();
    let (p, test) = if binary {
        let right = |v: &[f64]| v.iter().map(|x| *x == 1.0).collect::<Vec<_>>();
        let table = McNemar::of(&right(&firsts), &right(&seconds)).map_err(internal)?;
        let (p, form) = table.p_value();
        (p, Test::McNemar(form))
    } else {
        // Without any spread the difference is certain, or there is none; one example tells nothing.
        let p = match (n, error > 0.0, difference == 0.0) {
            (1, ..) | (_, false, true) => 1.0,
            (_, false, false) => 0.0,
            (_, true, _) => t_two_sided(difference / error, (n - 1) as f64),
        };
        (p, Test::PairedT)
    };
    let detectable = if n > 1 {
        minimum_detectable(sd, n, options.alpha, 0.8).map_err(internal)?
    } else {
        f64::NAN
    };
    let pick = |sign: f64| {
        let mut flips: Vec<Flip> = shared
            .iter()
            .filter(|f| sign * (f.examples.1.value - f.examples.0.value) > 0.0)
            .cloned()
            .collect();
        let size = |f: &Flip| (f.examples.1.value - f.examples.0.value).abs();
        flips.sort_by(|a, b| size(b).total_cmp(&size(a)));
        flips
    };
    Ok(Paired {
        task: task.to_owned(),
        n,
        first: side(&firsts, binary, options.alpha)?,
        second: side(&seconds, binary, options.alpha)?,
        difference,
        interval: student(difference, error, n, options.alpha),
        p,
        p_holm: p,
        test,
        detectable,
        worse: pick(-1.0),
        better: pick(1.0),
        verdict: Verdict::Open,
    })
}

fn side(values: &[f64], binary: bool, alpha: f64) -> Result<Side> {
    let n = values.len() as u64;
    let mean = mean(values.iter().copied());
    let interval = if binary {
        let right = values.iter().filter(|x| **x == 1.0).count() as u64;
        proportion(right, n, 1.0 - alpha, ProportionMethod::Wilson).map_err(internal)?
    } else {
        student(mean, deviation(values) / (n as f64).sqrt(), n, alpha)
    };
    Ok(Side { mean, interval })
}

/// Sample standard deviation; `NaN` of one value.
fn deviation(values: &[f64]) -> f64 {
    let centre = mean(values.iter().copied());
    let squares = sum(values.iter().map(|x| (x - centre).powi(2)));
    (squares / (values.len() as f64 - 1.0)).sqrt()
}

fn student(centre: f64, error: f64, n: u64, alpha: f64) -> Interval {
    if n < 2 {
        return Interval::new(f64::NAN, f64::NAN);
    }
    let half = t_quantile(1.0 - alpha / 2.0, (n - 1) as f64) * error;
    Interval::new(centre - half, centre + half)
}

#[cfg(test)]
mod tests {
    use super::*;
    use indexmap::IndexMap;

    fn predictions(values: &[(&str, f64)]) -> Predictions {
        let examples: IndexMap<String, Example> = values
            .iter()
            .map(|(id, value)| {
                (
                    (*id).to_owned(),
                    Example {
                        value: *value,
                        texts: None,
                        confidence: None,
                        input: None,
                    },
                )
            })
            .collect();
        Predictions {
            path: "p.csv".into(),
            binary: values.iter().all(|v| v.1 == 0.0 || v.1 == 1.0),
            tasks: [(String::new(), examples)].into(),
        }
    }

    fn options() -> Options {
        Options {
            alpha: 0.05,
            allow_partial: false,
        }
    }

    #[test]
    fn eleven_against_two() {
        // 20 examples; the second mends 11 and breaks 2: exact McNemar p = 2 (C(13,0)+C(13,1)+C(13,2)) / 2^13.
        let ids: Vec<String> = (0..20).map(|i| i.to_string()).collect();
        let value = |f: &dyn Fn(usize) -> bool| {
            let values: Vec<(&str, f64)> = ids
                .iter()
                .enumerate()
                .map(|(i, id)| (id.as_str(), f64::from(u8::from(f(i)))))
                .collect();
            predictions(&values)
        };
        let first = value(&|i| i >= 11);
        let second = value(&|i| !(11..13).contains(&i));
        let c = compare(&first, &second, options()).unwrap();
        let task = &c.tasks[0];
        assert_eq!((task.better.len(), task.worse.len(), task.n), (11, 2, 20));
        assert!((task.p - 2.0 * 92.0 / 8192.0).abs() < 1e-12, "{}", task.p);
        assert!((task.difference - 0.45).abs() < 1e-12);
        assert_eq!(task.verdict, Verdict::Better);
        // The other way round everything changes its sign.
        let back = &compare(&second, &first, options()).unwrap().tasks[0];
        assert_eq!(
            (back.difference, back.p, back.verdict),
            (-task.difference, task.p, Verdict::Worse)
        );
        assert_eq!(back.interval.low, -task.interval.high);
    }

    #[test]
    fn scores_by_students_t() {
        // Differences 1, 2, 3: mean 2, sd 1, t = 2 sqrt(3) with 2 degrees of freedom, p = 0.0741799.
        let first = predictions(&[("a", 0.5), ("b", 1.5), ("c", 2.5)]);
        let second = predictions(&[("c", 5.5), ("b", 3.5), ("a", 1.5)]);
        let task = &compare(&first, &second, options()).unwrap().tasks[0];
        assert!((task.p - 0.074_179_900_2).abs() < 1e-8, "{}", task.p);
        assert!((task.interval.low - (2.0 - 4.302_652_73 / 3f64.sqrt())).abs() < 1e-6);
        assert_eq!(task.verdict, Verdict::Open);
        assert_eq!(task.better[0].id, "c", "the largest gain first");
    }

    #[test]
    fn examples_that_one_file_lacks() {
        let first = predictions(&[("a", 1.0), ("b", 0.0)]);
        let second = predictions(&[("b", 1.0), ("c", 0.0)]);
        assert_eq!(
            compare(&first, &second, options()).unwrap_err().code(),
            "examples-differ"
        );
        let partial = Options {
            allow_partial: true,
            ..options()
        };
        let c = compare(&first, &second, partial).unwrap();
        assert_eq!((c.tasks[0].n, c.left_out.len()), (1, 2));
        assert!(c.tasks[0].interval.low.is_nan());
        let none = predictions(&[("x", 1.0)]);
        assert_eq!(
            compare(&first, &none, partial).unwrap_err().code(),
            "examples-differ"
        );
    }
}
