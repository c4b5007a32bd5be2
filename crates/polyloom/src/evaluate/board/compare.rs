//! Two systems (or several, [`many`](mod@many)) on the same examples: which is better, and can it be believed.

pub mod gate;
mod judge;
pub mod many;
mod overall;
pub mod plan;
mod slices;
pub mod stored;
pub mod unpaired;

use crate::error::{MergeError, Result};
use crate::evaluate::statistics::Interval;
use crate::evaluate::statistics::mcnemar::McNemarForm;
use crate::evaluate::statistics::mean::standard_deviation;
use crate::evaluate::statistics::multiplicity::{Correction, adjust};
use crate::evaluate::statistics::power::minimum_detectable;
use crate::evaluate::statistics::proportion::{ProportionMethod, proportion};
use crate::evaluate::statistics::special::t_quantile;
use crate::evaluate::sum::mean;

use super::predictions::{Example, Predictions};

pub use judge::corpus_value;
pub use overall::Overall;
pub use slices::Slices;

/// Settings of a comparison.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Level of the intervals' complement and of the tests, in (0, 1); 0.05 is usual.
    pub alpha: f64,
    /// Compare what both files hold; else an example that one of them lacks is an error.
    pub allow_partial: bool,
}

/// What is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Metric {
    /// Mean over the examples: the share of right answers, or the mean score.
    #[default]
    Mean,
    /// Median of the scores.
    Median,
    /// F1, averaged over classes.
    MacroF1,
    /// F1, averaged over classes by their size.
    WeightedF1,
    /// Recall, averaged over classes.
    BalancedAccuracy,
    /// Matthews' correlation.
    Mcc,
    /// Cohen's kappa.
    CohenKappa,
    /// Pearson's correlation of predicted and right numbers.
    Pearson,
    /// Spearman's correlation of predicted and right numbers.
    Spearman,
    /// Root of the mean squared error of predicted numbers; less is better.
    Rmse,
    /// Mean absolute error of predicted numbers; less is better.
    Mae,
    /// Share of the right numbers' variance that predictions explain, errors of their mean included.
    R2,
    /// The same without the error of the mean.
    ExplainedVariance,
    /// Area under the ROC curve of two classes, by the probability of the second.
    RocAuc,
}

impl Metric {
    /// The name in events.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Mean => "mean",
            Self::Median => "median",
            Self::MacroF1 => "macro_f1",
            Self::WeightedF1 => "weighted_f1",
            Self::BalancedAccuracy => "balanced_accuracy",
            Self::Mcc => "mcc",
            Self::CohenKappa => "cohen_kappa",
            Self::Pearson => "pearson",
            Self::Spearman => "spearman",
            Self::Rmse => "rmse",
            Self::Mae => "mae",
            Self::R2 => "r2",
            Self::ExplainedVariance => "explained_variance",
            Self::RocAuc => "roc_auc",
        }
    }

    /// The metric over a whole set that a task's metric (`polyloom metrics`) is; `None` for means over examples and for
    /// what predictions and right answers are not enough for. `rmse_ratio` is an RMSE in another unit.
    #[must_use]
    pub fn over_the_set(metric: &str) -> Option<Self> {
        Some(match metric {
            "f1_macro" | "macro_f1" => Self::MacroF1,
            "f1_weighted" | "weighted_f1" => Self::WeightedF1,
            "balanced_accuracy" => Self::BalancedAccuracy,
            "mcc" => Self::Mcc,
            "cohen_kappa" => Self::CohenKappa,
            "pearson" => Self::Pearson,
            "spearman" => Self::Spearman,
            "rmse" | "rmse_ratio" => Self::Rmse,
            "mae" => Self::Mae,
            "r2" => Self::R2,
            "explained_variance" => Self::ExplainedVariance,
            "roc_auc" => Self::RocAuc,
            _ => return None,
        })
    }

    /// Whether it compares predicted and right numbers.
    pub(crate) fn is_of_numbers(self) -> bool {
        use Metric::{ExplainedVariance, Mae, Pearson, R2, Rmse, Spearman};
        matches!(
            self,
            Pearson | Spearman | Rmse | Mae | R2 | ExplainedVariance
        )
    }
}

/// Which test finds the p-value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Choice {
    /// McNemar's for right and wrong answers, Student's for scores, the bootstrap for what is no mean.
    #[default]
    Auto,
    /// McNemar's test, for right and wrong answers only.
    McNemar,
    /// Student's paired t test.
    PairedT,
    /// Wilcoxon's signed ranks.
    Wilcoxon,
    /// The sign test.
    Sign,
    /// Random flips of the differences' signs, all of them up to 20 differing pairs.
    Permutation,
    /// The paired bootstrap.
    Bootstrap,
}

/// How the difference is bounded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Bounds {
    /// Student's t for means, percentiles of the paired bootstrap for what is no mean.
    #[default]
    Auto,
    /// Student's t over the differences.
    Student,
    /// Percentiles of the paired bootstrap.
    Percentile,
    /// The same, corrected for bias and skewness (BCa).
    Bca,
}

/// All settings of a comparison.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Settings {
    /// As [`Options::alpha`].
    pub alpha: f64,
    /// As [`Options::allow_partial`].
    pub allow_partial: bool,
    /// What is compared.
    pub metric: Metric,
    /// Which test finds the p-value.
    pub test: Choice,
    /// How the difference is bounded.
    pub bounds: Bounds,
    /// Draws of the bootstrap.
    pub draws: usize,
    /// Scores where less is better.
    pub lower_is_better: bool,
}

impl From<Options> for Settings {
    fn from(options: Options) -> Self {
        Self {
            alpha: options.alpha,
            allow_partial: options.allow_partial,
            metric: Metric::Mean,
            test: Choice::Auto,
            bounds: Bounds::Auto,
            draws: 1000,
            lower_is_better: false,
        }
    }
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
    /// Wilcoxon's signed ranks.
    Wilcoxon,
    /// The sign test.
    Sign,
    /// The permutation test.
    Permutation,
    /// The paired bootstrap.
    Bootstrap,
}

/// One system on one task.
#[derive(Debug, Clone, Copy)]
pub struct Side {
    /// Mean over the examples, or the metric that was asked for.
    pub mean: f64,
    /// Its interval: Wilson's for shares of right answers, Student's for means of scores, else percentiles of the bootstrap.
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
    /// The column and value that its examples were taken by; `None` for all of the task.
    pub slice: Option<(String, String)>,
    /// Examples compared.
    pub n: u64,
    /// The first system.
    pub first: Side,
    /// The second system.
    pub second: Side,
    /// Second less first.
    pub difference: f64,
    /// Interval of the difference, from the differences example by example. `NaN` for one example.
    pub interval: Interval,
    /// How that was found; never `Auto`.
    pub bounds: Bounds,
    /// Standard error of the difference; `NaN` for one example.
    pub error: f64,
    /// Two-sided p-value.
    pub p: f64,
    /// The same after Holm's correction for the tasks and slices of this comparison.
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
    /// Slices of the tasks, where any were asked for.
    pub slices: Vec<Paired>,
    /// The mean over the tasks, where there are several.
    pub overall: Option<Overall>,
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
    compare_with(first, second, &Slices::default(), &options.into())
}

/// [`compare`] with every setting, and with slices of the tasks. Holm's correction is over tasks and slices together.
///
/// # Errors
/// As [`compare`], and tests or intervals that the metric or the values do not allow.
pub fn compare_with(
    first: &Predictions,
    second: &Predictions,
    slices: &Slices,
    settings: &Settings,
) -> Result<Comparison> {
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
    if !settings.allow_partial && !left_out.is_empty() {
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
    let (mut tasks, mut parts) = (Vec::new(), Vec::new());
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
        tasks.push(paired(task, &shared, binary, settings)?);
        for (slice, places) in slices.cut(task, shared.iter().map(|f| &*f.id)) {
            let part: Vec<Flip> = places.into_iter().map(|p| shared[p].clone()).collect();
            let found = paired(task, &part, binary, settings)?;
            parts.push(Paired {
                slice: Some(slice),
                ..found
            });
        }
    }
    if tasks.is_empty() {
        return Err(
            MergeError::plan("examples-differ", "shares no example with the other file")
                .at(second.path.display().to_string())
                .hint("--id COLUMN names the column that tells examples apart"),
        );
    }
    let all = tasks.iter_mut().chain(&mut parts);
    let all = all.map(|t| (t, settings.lower_is_better)).collect();
    correct(all, &[], settings.alpha)?;
    Ok(Comparison {
        overall: Overall::of(&tasks, settings.alpha),
        tasks,
        slices: parts,
        left_out,
    })
}

/// Holm's correction over tasks (each with whether less is better) and other p-values, whose corrected ones are given
/// back; verdicts follow.
fn correct(tasks: Vec<(&mut Paired, bool)>, others: &[f64], alpha: f64) -> Result<Vec<f64>> {
    let raw = tasks.iter().map(|(t, _)| t.p);
    let raw: Vec<f64> = raw.chain(others.iter().copied()).collect();
    if raw.is_empty() {
        return Ok(raw);
    }
    let mut adjusted = adjust(&raw, Correction::Holm).map_err(internal)?;
    let rest = adjusted.split_off(tasks.len());
    for ((task, lower), p) in tasks.into_iter().zip(adjusted) {
        task.p_holm = p;
        let sign = if lower { -1.0 } else { 1.0 };
        task.verdict = match sign * task.difference {
            d if p < alpha && d > 0.0 => Verdict::Better,
            d if p < alpha && d < 0.0 => Verdict::Worse,
            _ => Verdict::Open,
        };
    }
    Ok(rest)
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

fn paired(task: &str, shared: &[Flip], binary: bool, settings: &Settings) -> Result<Paired> {
    let n = shared.len() as u64;
    let judged = judge::judge(task, shared, binary, settings)?;
    let detectable = if n > 1 && judged.deviation.is_finite() {
        minimum_detectable(judged.deviation, n, settings.alpha, 0.8).map_err(internal)?
    } else {
        f64::NAN
    };
    let up = if settings.lower_is_better { -1.0 } else { 1.0 };
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
        slice: None,
        n,
        first: judged.first,
        second: judged.second,
        difference: judged.difference,
        interval: judged.interval,
        bounds: judged.bounds,
        error: if n > 1 {
            judged.deviation / (n as f64).sqrt()
        } else {
            f64::NAN
        },
        p: judged.p,
        p_holm: judged.p,
        test: judged.test,
        detectable,
        worse: pick(-up),
        better: pick(up),
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
        student(
            mean,
            standard_deviation(values) / (n as f64).sqrt(),
            n,
            alpha,
        )
    };
    Ok(Side { mean, interval })
}

/// Student's interval; `NaN` of one value.
fn student(centre: f64, error: f64, n: u64, alpha: f64) -> Interval {
    if n < 2 {
        return Interval::new(f64::NAN, f64::NAN);
    }
    let half = t_quantile(1.0 - alpha / 2.0, (n - 1) as f64) * error;
    Interval::new(centre - half, centre + half)
}

#[cfg(test)]
mod tests;
