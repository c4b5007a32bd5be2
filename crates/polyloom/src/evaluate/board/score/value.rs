//! A value and its interval from what a metric is over the examples.

use super::measure::Form;
use super::{Measured, Options};
use crate::error::{MergeError, Result};
use crate::evaluate::EvalError;
use crate::evaluate::metric::registry::{Metric, Needs};
use crate::evaluate::statistics::bootstrap::Bootstrap;
use crate::evaluate::statistics::draw::Seed;
use crate::evaluate::statistics::mean::{
    Clusters, clustered_standard_error, standard_error, t_interval,
};
use crate::evaluate::statistics::proportion::{ProportionMethod, proportion};
use crate::evaluate::statistics::special::t_quantile;
use crate::evaluate::sum::{mean, sum};

#[allow(
    clippy::needless_pass_by_value,
    reason = "the shape that map_err wants"
)]
fn internal(error: EvalError) -> MergeError {
    MergeError::plan("statistics", error.to_string())
}

/// How values per example are put together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Aggregate {
    Mean,
    Median,
    Sum,
}

/// What a value is computed with.
pub(super) struct About<'a> {
    pub metric: &'a Metric,
    pub aggregate: Aggregate,
    /// Hash that the bootstrap's random numbers begin with.
    pub hash: &'a str,
    pub clusters: Option<&'a [u32]>,
    pub options: &'a Options,
    pub chance: Option<f64>,
}

/// The value with its interval, and the values per example.
pub(super) fn finish(
    form: Form<'_>,
    n: usize,
    about: &About<'_>,
) -> Result<(Measured, Option<Vec<f64>>)> {
    let mut out = Measured {
        name: about.metric.name.to_owned(),
        higher_is_better: about.metric.higher_is_better(),
        value: f64::NAN,
        stderr: f64::NAN,
        interval: None,
        method: "none",
        n: n as u64,
        reason: None,
        chance: about.chance,
    };
    match (form, about.aggregate) {
        (Form::Each(values), Aggregate::Mean) => {
            means(&values, about, &mut out)?;
            Ok((out, Some(values)))
        }
        (Form::Each(values), aggregate) => {
            let statistic = |places: &[u32]| {
                let mut taken: Vec<f64> = places
                    .iter()
                    .map(|&i| values[i as usize])
                    .filter(|v| !v.is_nan())
                    .collect();
                match aggregate {
                    Aggregate::Sum => sum(taken),
                    _ => {
                        taken.sort_unstable_by(f64::total_cmp);
                        crate::evaluate::statistics::replicates::quantile_of_sorted(&taken, 0.5)
                    }
                }
            };
            drawn(&statistic, n, about, &mut out)?;
            Ok((out, Some(values)))
        }
        (Form::Whole(_), aggregate) if aggregate != Aggregate::Mean => Err(MergeError::plan(
            "not-scored",
            format!(
                "metric `{}` is of all examples together: it has no median and no sum",
                about.metric.name
            ),
        )),
        (Form::Whole(statistic), _) => {
            drawn(&*statistic, n, about, &mut out)?;
            Ok((out, None))
        }
    }
}

/// Mean of values per example; `NaN` leaves one out.
fn means(all: &[f64], about: &About<'_>, out: &mut Measured) -> Result<()> {
    let kept: Vec<usize> = (0..all.len()).filter(|i| !all[*i].is_nan()).collect();
    let values: Vec<f64> = kept.iter().map(|i| all[*i]).collect();
    let level = about.options.level;
    out.n = values.len() as u64;
    if values.is_empty() {
        out.reason = Some("no example has a value".into());
        return Ok(());
    }
    out.value = mean(values.iter().copied());
    if values.iter().any(|v| v.is_infinite()) {
        out.reason = Some("an example's value is infinite".into());
        return Ok(());
    }
    if let Some(clusters) = about.clusters {
        let clusters: Vec<u32> = kept.iter().map(|i| clusters[*i]).collect();
        let count = Clusters::new(&clusters).map_err(internal)?.len();
        out.method = "clustered";
        out.stderr = clustered_standard_error(&values, &clusters, true).map_err(internal)?;
        if count > 1 {
            let half = t_quantile(0.5 + 0.5 * level, (count - 1) as f64) * out.stderr;
            out.interval = Some(inside(out.value - half, out.value + half, about.metric));
        }
        return Ok(());
    }
    out.stderr = standard_error(&values).map_err(internal)?;
    // An error of exactly 1 is no right answer.
    let answers = about.metric.needs != Needs::Values;
    if answers && values.iter().all(|v| *v == 0.0 || *v == 1.0) {
        let right = values.iter().filter(|v| **v == 1.0).count() as u64;
        let interval =
            proportion(right, out.n, level, ProportionMethod::Wilson).map_err(internal)?;
        out.interval = Some((interval.low, interval.high));
        out.method = "wilson";
    } else {
        let interval = t_interval(&values, level).map_err(internal)?;
        let bounds = inside(interval.low, interval.high, about.metric);
        out.interval = interval.low.is_finite().then_some(bounds);
        out.method = "student";
    }
    Ok(())
}

/// Bounds within the range of the metric: no mean of fractions lies beyond 0 and 1.
fn inside(low: f64, high: f64, metric: &Metric) -> (f64, f64) {
    let (least, most) = metric.range;
    (low.max(least), high.min(most))
}

/// A statistic of all examples, with a bootstrap.
fn drawn(
    statistic: &(dyn Fn(&[u32]) -> f64 + Sync),
    n: usize,
    about: &About<'_>,
    out: &mut Measured,
) -> Result<()> {
    let bootstrap =
        Bootstrap::new(Seed::of(about.hash, about.metric.name)).with_draws(about.options.draws);
    let run = |(): &mut (), places: &[u32]| statistic(places);
    let found = match about.clusters {
        None => bootstrap.indices(n, || (), run),
        Some(of) => {
            let clusters = Clusters::new(of).map_err(internal)?;
            bootstrap.clusters(&clusters, || (), run)
        }
    };
    let found = found.map_err(internal)?;
    out.method = if about.clusters.is_some() {
        "clustered bootstrap"
    } else {
        "bootstrap"
    };
    out.value = found.point;
    if found.point.is_nan() {
        out.reason =
            Some("it is not defined for these examples, such as an area of one class".into());
        return Ok(());
    }
    if n > 1 && found.undefined() < found.values.len() {
        let interval = found.percentile(about.options.level).map_err(internal)?;
        out.interval = Some((interval.low, interval.high));
        out.stderr = found.standard_error();
    }
    Ok(())
}
