//! One task: the difference, its interval and its p-value, by the statistic and the test that were chosen.

use std::collections::BTreeMap;

use super::{Bounds, Choice, Flip, Metric, Settings, Side, Test, internal, side, student};
use crate::error::{MergeError, Result};
use crate::evaluate::board::predictions::Example;
use crate::evaluate::metric::classification::{KappaWeights, table};
use crate::evaluate::metric::confusion::{Confusion, Table, codes};
use crate::evaluate::metric::correlation::{pearson, spearman};
use crate::evaluate::metric::prf::{Average, PrfOptions};
use crate::evaluate::metric::regression;
use crate::evaluate::statistics::Interval;
use crate::evaluate::statistics::bootstrap::{Bootstrap, jackknife_counts, jackknife_mean};
use crate::evaluate::statistics::draw::Seed;
use crate::evaluate::statistics::mcnemar::McNemar;
use crate::evaluate::statistics::mean::standard_deviation;
use crate::evaluate::statistics::paired::{PairedBootstrap, permutation, sign_test};
use crate::evaluate::statistics::replicates::Replicates;
use crate::evaluate::statistics::special::t_two_sided;
use crate::evaluate::statistics::wilcoxon::{Zeros, wilcoxon};
use crate::evaluate::sum::mean;

/// Random sign flips of the permutation test.
const FLIPS: usize = 10_000;

/// What is said of one task.
pub(super) struct Judged {
    pub first: Side,
    pub second: Side,
    /// Second less first.
    pub difference: f64,
    pub interval: Interval,
    pub bounds: Bounds,
    pub p: f64,
    pub test: Test,
    /// Standard deviation per example, the difference's standard error times the root of n.
    pub deviation: f64,
}

pub(super) fn judge(
    task: &str,
    shared: &[Flip],
    binary: bool,
    settings: &Settings,
) -> Result<Judged> {
    let firsts: Vec<f64> = shared.iter().map(|f| f.examples.0.value).collect();
    let seconds: Vec<f64> = shared.iter().map(|f| f.examples.1.value).collect();
    if settings.metric == Metric::Mean {
        return of_means(task, &firsts, &seconds, binary, settings);
    }
    if !matches!(settings.test, Choice::Auto | Choice::Bootstrap) {
        let what = format!("{} is no mean over examples", settings.metric.name());
        return Err(MergeError::plan("bad-test", what).hint("only --test bootstrap can judge it"));
    }
    let bootstrap = bootstrap(task, settings);
    let (difference, jackknife, sides) = match settings.metric {
        Metric::Median => of_medians(&firsts, &seconds, &bootstrap)?,
        metric if metric.is_of_numbers() => of_numbers(shared, settings, &bootstrap)?,
        Metric::RocAuc => of_scores(shared, settings, &bootstrap)?,
        metric => of_classes(shared, metric, &bootstrap)?,
    };
    let level = 1.0 - settings.alpha;
    let (interval, bounds) = match settings.bounds {
        Bounds::Auto | Bounds::Percentile => (
            difference.percentile(level).map_err(internal)?,
            Bounds::Percentile,
        ),
        Bounds::Bca => {
            let bca = difference.bca(level, &jackknife).map_err(internal)?;
            (bca.interval, Bounds::Bca)
        }
        Bounds::Student => {
            let what = format!("{} is no mean over examples", settings.metric.name());
            return Err(MergeError::plan("bad-interval", what)
                .hint("--interval percentile or bca can bound it"));
        }
    };
    let [first, second]: [Result<Side>; 2] = sides.map(|s| {
        Ok(Side {
            mean: s.point,
            interval: s.percentile(level).map_err(internal)?,
        })
    });
    let n = shared.len() as f64;
    let deviation = difference.standard_error() * n.sqrt();
    let tested = PairedBootstrap::of(difference);
    Ok(Judged {
        first: first?,
        second: second?,
        difference: tested.difference.point,
        interval,
        bounds,
        p: tested.p,
        test: Test::Bootstrap,
        deviation,
    })
}

/// The draws of a task: the same for every system, metric by metric.
fn bootstrap(task: &str, settings: &Settings) -> Bootstrap {
    let seed = Seed::of(task, settings.metric.name());
    Bootstrap::new(seed).with_draws(settings.draws)
}

fn of_means(
    task: &str,
    firsts: &[f64],
    seconds: &[f64],
    binary: bool,
    settings: &Settings,
) -> Result<Judged> {
    let n = firsts.len() as u64;
    let differences: Vec<f64> = firsts.iter().zip(seconds).map(|(a, b)| b - a).collect();
    let difference = mean(differences.iter().copied());
    let deviation = standard_deviation(&differences);
    let error = deviation / (n as f64).sqrt();
    let choice = match settings.test {
        Choice::Auto if binary => Choice::McNemar,
        Choice::Auto => Choice::PairedT,
        chosen => chosen,
    };
    let (p, test) = match choice {
        Choice::McNemar if !binary => {
            let what = "McNemar's test needs right and wrong answers, these are scores";
            return Err(MergeError::plan("bad-test", what)
                .hint("--test t, wilcoxon, sign, permutation or bootstrap"));
        }
        Choice::Auto | Choice::McNemar => {
            let right = |v: &[f64]| v.iter().map(|x| *x == 1.0).collect::<Vec<_>>();
            let table = McNemar::of(&right(firsts), &right(seconds)).map_err(internal)?;
            let (p, form) = table.p_value();
            (p, Test::McNemar(form))
        }
        Choice::PairedT => {
            // Without any spread the difference is certain, or there is none; one example tells nothing.
            let p = match (n, error > 0.0, difference == 0.0) {
                (1, ..) | (_, false, true) => 1.0,
                (_, false, false) => 0.0,
                (_, true, _) => t_two_sided(difference / error, (n - 1) as f64),
            };
            (p, Test::PairedT)
        }
        Choice::Wilcoxon => {
            let p = wilcoxon(seconds, firsts, Zeros::default())
                .map_err(internal)?
                .p_value();
            (if p.is_nan() { 1.0 } else { p }, Test::Wilcoxon)
        }
        Choice::Sign => (sign_test(seconds, firsts).map_err(internal)?, Test::Sign),
        Choice::Permutation => {
            let seed = Seed::of(task, "permutation");
            let test = permutation(seconds, firsts, FLIPS, &seed).map_err(internal)?;
            (test.p, Test::Permutation)
        }
        Choice::Bootstrap => {
            let draws = bootstrap(task, settings)
                .mean(&differences)
                .map_err(internal)?;
            (PairedBootstrap::of(draws).p, Test::Bootstrap)
        }
    };
    let level = 1.0 - settings.alpha;
    let draws = || {
        bootstrap(task, settings)
            .mean(&differences)
            .map_err(internal)
    };
    let (interval, bounds) = match settings.bounds {
        Bounds::Auto | Bounds::Student => (
            student(difference, error, n, settings.alpha),
            Bounds::Student,
        ),
        Bounds::Percentile => (
            draws()?.percentile(level).map_err(internal)?,
            Bounds::Percentile,
        ),
        Bounds::Bca => {
            let bca = draws()?.bca(level, &jackknife_mean(&differences));
            (bca.map_err(internal)?.interval, Bounds::Bca)
        }
    };
    Ok(Judged {
        first: side(firsts, binary, settings.alpha)?,
        second: side(seconds, binary, settings.alpha)?,
        difference,
        interval,
        bounds,
        p,
        test,
        deviation,
    })
}

/// A bootstrapped difference, its jackknife, and each side bootstrapped.
type Drawn = (Replicates, Vec<(f64, u64)>, [Replicates; 2]);

fn of_medians(firsts: &[f64], seconds: &[f64], bootstrap: &Bootstrap) -> Result<Drawn> {
    let drawn = |statistic: &(dyn Fn(&mut Vec<f64>, &[u32]) -> f64 + Sync)| {
        let replicates = bootstrap.indices(firsts.len(), Vec::new, statistic);
        replicates.map_err(internal)
    };
    let of = |values: &[f64], scratch: &mut Vec<f64>, indices: &[u32]| {
        scratch.clear();
        scratch.extend(indices.iter().map(|i| values[*i as usize]));
        median(scratch)
    };
    let first = drawn(&|scratch, indices| of(firsts, scratch, indices))?;
    let second = drawn(&|scratch, indices| of(seconds, scratch, indices))?;
    // The draws are the same on both sides, so the differences of the statistics are those of the draws.
    let values = first.values.iter().zip(&second.values);
    let difference = Replicates {
        point: second.point - first.point,
        values: values.map(|(a, b)| b - a).collect(),
    };
    let (a, b) = (medians_without_one(firsts), medians_without_one(seconds));
    let jackknife = a.iter().zip(&b).map(|(a, b)| (b - a, 1)).collect();
    Ok((difference, jackknife, [first, second]))
}

/// The middle value, or the mean of the two in the middle.
fn median(values: &mut [f64]) -> f64 {
    let n = values.len();
    if n == 0 {
        return f64::NAN;
    }
    let (below, high, _) = values.select_nth_unstable_by(n / 2, f64::total_cmp);
    let high = *high;
    if n % 2 == 1 {
        return high;
    }
    let low = below.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    0.5 * (low + high)
}

/// The median without each value in turn, in O(n log n).
fn medians_without_one(values: &[f64]) -> Vec<f64> {
    let n = values.len();
    let mut order: Vec<usize> = (0..n).collect();
    order.sort_by(|a, b| values[*a].total_cmp(&values[*b]));
    let mut found = vec![f64::NAN; n];
    for (place, &i) in order.iter().enumerate() {
        let at = |k: usize| values[order[if k < place { k } else { k + 1 }]];
        let rest = n - 1;
        found[i] = match (rest, rest % 2) {
            (0, _) => f64::NAN,
            (_, 1) => at(rest / 2),
            _ => 0.5 * (at(rest / 2 - 1) + at(rest / 2)),
        };
    }
    found
}

fn of_classes(shared: &[Flip], metric: Metric, bootstrap: &Bootstrap) -> Result<Drawn> {
    let mut names = BTreeMap::new();
    let mut rows = Vec::with_capacity(shared.len());
    for flip in shared {
        let (Some((a, label)), Some((b, _))) = (&flip.examples.0.texts, &flip.examples.1.texts)
        else {
            return Err(no_texts(metric));
        };
        let row = [label.trim(), a.trim(), b.trim()];
        row.iter().for_each(|name| {
            names.insert(*name, 0u32);
        });
        rows.push(row);
    }
    names
        .values_mut()
        .zip(0..)
        .for_each(|(place, n)| *place = n);
    let mut cells: BTreeMap<[u32; 3], u32> = BTreeMap::new();
    let rows: Vec<[u32; 3]> = rows.iter().map(|r| r.map(|name| names[name])).collect();
    rows.iter().for_each(|r| {
        cells.insert(*r, 0);
    });
    cells
        .values_mut()
        .zip(0..)
        .for_each(|(place, n)| *place = n);
    let kinds: Vec<[u32; 3]> = cells.keys().copied().collect();
    let cell: Vec<u32> = rows.iter().map(|r| cells[r]).collect();
    let of = |system: usize, counts: &[u64]| {
        let mut all = Confusion::default();
        for (kind, count) in kinds.iter().zip(counts).filter(|(_, n)| **n > 0) {
            // A count is a weight that is finite and above 0.
            let _ = all.add_weighted(kind[0], kind[system], *count as f64);
        }
        all.finish().map_or(f64::NAN, |table| value(metric, &table))
    };
    let drawn = |statistic: &(dyn Fn(&[u64]) -> f64 + Sync)| {
        let replicates = bootstrap.counts(&cell, kinds.len(), statistic);
        replicates.map_err(internal)
    };
    let sides = [drawn(&|c| of(1, c))?, drawn(&|c| of(2, c))?];
    let values = sides[0].values.iter().zip(&sides[1].values);
    let difference = Replicates {
        point: sides[1].point - sides[0].point,
        values: values.map(|(a, b)| b - a).collect(),
    };
    let jackknife = jackknife_counts(&cell, kinds.len(), |c| of(2, c) - of(1, c));
    Ok((difference, jackknife.map_err(internal)?, sides))
}

fn of_numbers(shared: &[Flip], settings: &Settings, bootstrap: &Bootstrap) -> Result<Drawn> {
    let metric = settings.metric;
    let side = |second: bool| {
        let example =
            |f: &Flip| numbers(if second { &f.examples.1 } else { &f.examples.0 }, metric);
        let found: Result<Vec<(f64, f64)>> = shared.iter().map(example).collect();
        found
    };
    let sides = [side(false)?, side(true)?];
    let of = |side: &[(f64, f64)],
              scratch: &mut [Vec<f64>; 2],
              rows: &mut dyn Iterator<Item = usize>| {
        scratch.iter_mut().for_each(Vec::clear);
        for row in rows {
            scratch[0].push(side[row].0);
            scratch[1].push(side[row].1);
        }
        over_numbers(metric, &scratch[0], &scratch[1])
    };
    let drawn = |side: &[(f64, f64)]| {
        let scratch = || [Vec::new(), Vec::new()];
        let replicates = bootstrap.indices(shared.len(), scratch, |scratch, indices| {
            of(side, scratch, &mut indices.iter().map(|i| *i as usize))
        });
        replicates.map_err(internal)
    };
    let all = [drawn(&sides[0])?, drawn(&sides[1])?];
    let values = all[0].values.iter().zip(&all[1].values);
    let difference = Replicates {
        point: all[1].point - all[0].point,
        values: values.map(|(a, b)| b - a).collect(),
    };
    let mut scratch = [Vec::new(), Vec::new()];
    let mut without = |side: &[(f64, f64)], row: usize| {
        of(
            side,
            &mut scratch,
            &mut (0..shared.len()).filter(|r| *r != row),
        )
    };
    // O(n^2): only where it is asked for.
    let left_out = if settings.bounds == Bounds::Bca {
        shared.len()
    } else {
        0
    };
    let jackknife = (0..left_out)
        .map(|row| (without(&sides[1], row) - without(&sides[0], row), 1))
        .collect();
    Ok((difference, jackknife, all))
}

/// What was predicted and what is right, as numbers.
fn numbers(example: &Example, metric: Metric) -> Result<(f64, f64)> {
    let (predicted, label) = example.texts.as_ref().ok_or_else(|| no_texts(metric))?;
    let number = |text: &str| {
        text.trim().parse::<f64>().map_err(|_| {
            let what = format!("{} needs numbers, `{text}` is none", metric.name());
            MergeError::plan("bad-metric", what)
        })
    };
    Ok((number(predicted)?, number(label)?))
}

/// A metric of predicted and right numbers.
fn over_numbers(metric: Metric, said: &[f64], truth: &[f64]) -> f64 {
    let errors = || regression::errors(truth, said).and_then(|e| e.finish());
    let found = match metric {
        Metric::Rmse => errors().map(|e| e.rmse),
        Metric::Mae => errors().map(|e| e.mae),
        Metric::R2 => regression::r2(truth, said),
        Metric::ExplainedVariance => regression::explained_variance(truth, said),
        Metric::Spearman => spearman(said, truth).map(|c| c.r),
        _ => pearson(said, truth).map(|c| c.r),
    };
    found.unwrap_or(f64::NAN)
}

/// Examples of one system in the order of its scores, for areas of many draws.
struct Ranked {
    /// Places of the examples by ascending score.
    order: Vec<u32>,
    /// Whether the example at a place of the order is the last of its score.
    last: Vec<bool>,
    /// Whether an example is of the positive class.
    positive: Vec<bool>,
}

impl Ranked {
    fn new(examples: &[&Example], positive: &str) -> Result<Self> {
        let no = || {
            let what = "roc_auc needs the probabilities of two classes, and right answers";
            MergeError::plan("bad-metric", what)
                .hint("records of eval have them (column `probabilities`)")
        };
        let (mut scores, mut truth) = (Vec::new(), Vec::new());
        for example in examples {
            let (_, label) = example.texts.as_ref().ok_or_else(no)?;
            scores.push(example.second.ok_or_else(no)?);
            truth.push(label.trim() == positive);
        }
        let mut order: Vec<u32> = (0..scores.len() as u32).collect();
        order.sort_by(|a, b| scores[*a as usize].total_cmp(&scores[*b as usize]));
        let score = |place: usize| order.get(place).map(|i| scores[*i as usize]);
        let last = (0..order.len()).map(|i| score(i) != score(i + 1)).collect();
        Ok(Self {
            order,
            last,
            positive: truth,
        })
    }

    /// The area where example `i` counts `counts[i]` times; `NaN` of one class alone. Ties count half.
    fn area(&self, counts: &[u32]) -> f64 {
        let (mut positives, mut negatives, mut twice) = (0u128, 0u128, 0u128);
        let (mut here, mut others) = (0u128, 0u128);
        for (&i, last) in self.order.iter().zip(&self.last) {
            let n = u128::from(counts[i as usize]);
            match self.positive[i as usize] {
                true => here += n,
                false => others += n,
            }
            if *last {
                twice += here * (2 * negatives + others);
                positives += here;
                negatives += others;
                (here, others) = (0, 0);
            }
        }
        twice as f64 / (2.0 * positives as f64 * negatives as f64)
    }
}

/// The class whose probability comes second: what is predicted where it is likeliest. The likeliest and not any above one
/// half, because a program may decide at another threshold.
fn second_class<'e>(examples: impl Iterator<Item = &'e Example>) -> Option<String> {
    let (mut likeliest, mut first): (Option<(f64, &str)>, _) = (None, None);
    for example in examples {
        let (predicted, label) = example.texts.as_ref()?;
        let (predicted, label, p) = (predicted.trim(), label.trim(), example.second?);
        if p > 0.5 && likeliest.is_none_or(|(most, _)| p > most) {
            likeliest = Some((p, predicted));
        }
        if p < 0.5 && label != predicted {
            first = Some(label);
        }
    }
    // Nobody ever said the second class: it is what was right where the first was said wrongly.
    let found = likeliest.map(|(_, name)| name).or(first);
    found.map(str::to_owned)
}

fn of_scores(shared: &[Flip], settings: &Settings, bootstrap: &Bootstrap) -> Result<Drawn> {
    let both = shared.iter().flat_map(|f| [&f.examples.0, &f.examples.1]);
    let positive = second_class(both).ok_or_else(|| {
        let what = "roc_auc needs examples of two classes with their probabilities";
        MergeError::plan("bad-metric", what)
    })?;
    let side = |second: bool| {
        let examples: Vec<&Example> = shared
            .iter()
            .map(|f| if second { &f.examples.1 } else { &f.examples.0 })
            .collect();
        Ranked::new(&examples, &positive)
    };
    let sides = [side(false)?, side(true)?];
    let n = shared.len();
    let drawn = |side: &Ranked| {
        let replicates = bootstrap.indices(
            n,
            || vec![0u32; n],
            |counts, indices| {
                counts.fill(0);
                indices.iter().for_each(|i| counts[*i as usize] += 1);
                side.area(counts)
            },
        );
        replicates.map_err(internal)
    };
    let all = [drawn(&sides[0])?, drawn(&sides[1])?];
    let values = all[0].values.iter().zip(&all[1].values);
    let difference = Replicates {
        point: all[1].point - all[0].point,
        values: values.map(|(a, b)| b - a).collect(),
    };
    let mut counts = vec![1u32; n];
    let without = |row: usize| {
        counts[row] = 0;
        let apart = sides[1].area(&counts) - sides[0].area(&counts);
        counts[row] = 1;
        (apart, 1)
    };
    // O(n^2): only where it is asked for.
    let left_out = if settings.bounds == Bounds::Bca { n } else { 0 };
    let jackknife = (0..left_out).map(without).collect();
    Ok((difference, jackknife, all))
}

/// A metric of one system's examples.
///
/// # Errors
/// No examples, a metric of classes on examples without texts, a correlation of texts that are no numbers.
pub fn corpus_value(metric: Metric, examples: &[&Example]) -> Result<f64> {
    let mut values: Vec<f64> = examples.iter().map(|e| e.value).collect();
    match metric {
        Metric::Mean => return Ok(mean(values)),
        Metric::Median => return Ok(median(&mut values)),
        metric if metric.is_of_numbers() => {
            let pairs: Result<Vec<_>> = examples.iter().map(|e| numbers(e, metric)).collect();
            let (x, y): (Vec<f64>, Vec<f64>) = pairs?.into_iter().unzip();
            return Ok(over_numbers(metric, &x, &y));
        }
        Metric::RocAuc => {
            let positive = second_class(examples.iter().copied()).unwrap_or_default();
            let counts = vec![1; examples.len()];
            return Ok(Ranked::new(examples, &positive)?.area(&counts));
        }
        _ => {}
    }
    let texts = examples.iter().map(|e| e.texts.as_ref());
    let texts: Vec<_> = texts
        .collect::<Option<_>>()
        .ok_or_else(|| no_texts(metric))?;
    let predicted: Vec<&str> = texts.iter().map(|t| t.0.trim()).collect();
    let labels: Vec<&str> = texts.iter().map(|t| t.1.trim()).collect();
    let (_, labels, predicted) = codes(&labels, &predicted);
    Ok(value(
        metric,
        &table(&labels, &predicted).map_err(internal)?,
    ))
}

fn no_texts(metric: Metric) -> MergeError {
    let what = format!("{} needs predictions and right answers", metric.name());
    MergeError::plan("bad-metric", what).hint("scores per example have --metric mean or median")
}

fn value(metric: Metric, table: &Table) -> f64 {
    let f = |average| {
        let prf = table.prf(None, average, &PrfOptions::default());
        prf.map_or(f64::NAN, |p| p.f)
    };
    match metric {
        Metric::MacroF1 => f(Average::Macro),
        Metric::WeightedF1 => f(Average::Weighted),
        Metric::BalancedAccuracy => table.balanced_accuracy(),
        Metric::Mcc => table.mcc(),
        Metric::CohenKappa => table.cohen_kappa(KappaWeights::None),
        _ => table.accuracy(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn areas_by_hand() {
        let example = |label: &str, second: f64| Example {
            value: 0.0,
            texts: Some((if second > 0.5 { "b" } else { "a" }.into(), label.into())),
            confidence: None,
            second: Some(second),
            input: None,
        };
        let all = [
            example("a", 0.1),
            example("b", 0.4),
            example("a", 0.4),
            example("b", 0.9),
        ];
        let all: Vec<&Example> = all.iter().collect();
        assert_eq!(second_class(all.iter().copied()).unwrap(), "b");
        // Of four pairs three are in order and one is a tie.
        assert_eq!(corpus_value(Metric::RocAuc, &all).unwrap(), 0.875);
        let ranked = Ranked::new(&all, "b").unwrap();
        // The tie twice on each side: 2 of 3 right, 2 of 3 wrong, weights by hand.
        assert_eq!(ranked.area(&[1, 2, 2, 1]), 7.0 / 9.0);
        assert!(ranked.area(&[1, 0, 1, 0]).is_nan());
        // Nobody said `b`: it is what the wrong ones should have been.
        let shy = [example("a", 0.1), example("b", 0.2)];
        assert_eq!(second_class(shy.iter()).unwrap(), "b");
        // Decided at 0.7: what stands at 0.6 is still the first class.
        let late = Example {
            texts: Some(("a".into(), "b".into())),
            ..example("b", 0.6)
        };
        let strict = [late, example("b", 0.9)];
        assert_eq!(second_class(strict.iter()).unwrap(), "b");
        let bare = Example {
            second: None,
            ..example("a", 0.1)
        };
        assert_eq!(
            Ranked::new(&[&bare], "b").err().unwrap().code(),
            "bad-metric"
        );
    }

    #[test]
    fn medians_by_hand() {
        assert_eq!(median(&mut [3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&mut [4.0, 1.0, 2.0, 8.0]), 3.0);
        assert_eq!(medians_without_one(&[3.0, 1.0, 2.0]), [1.5, 2.5, 2.0]);
        let many = [5.0, 3.0, 9.0, 1.0, 7.0, 7.0];
        for (i, found) in medians_without_one(&many).into_iter().enumerate() {
            let mut rest: Vec<f64> = many.to_vec();
            rest.remove(i);
            assert_eq!(found, median(&mut rest), "{i}");
        }
    }
}
