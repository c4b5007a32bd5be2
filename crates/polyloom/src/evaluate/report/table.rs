//! The leaderboard: rows in order, with what is known of each place.

use super::draws::{Draws, Spread};
use super::headline::{Headline, RankBy};
use super::orders::Orders;
use crate::evaluate::aggregate::matrix::places;
use crate::evaluate::aggregate::{Direction, ScoreMatrix};
use crate::evaluate::board::results::Results;
use crate::evaluate::statistics::Interval;
use crate::evaluate::statistics::multiplicity::{Correction, adjust};
use crate::evaluate::statistics::wilcoxon::{Zeros, wilcoxon};

/// Pairs of systems looked at for the share that is told apart.
const MOST_PAIRS: usize = 20_000;

/// A system against the baseline.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Versus {
    /// Headline less that of the baseline, in the shown direction.
    pub difference: f64,
    /// Wilcoxon's signed-rank test over the tasks, corrected for the number of systems (Holm).
    pub p: f64,
}

/// A row.
#[derive(Debug, Clone)]
pub struct Row {
    /// Number of the system in the results.
    pub system: usize,
    /// Its name.
    pub name: String,
    /// Place, 1 the best, ties sharing the smallest; none without a value.
    pub place: Option<usize>,
    /// Headline as shown; `NaN` where not defined.
    pub value: f64,
    /// Its interval, as shown.
    pub interval: Option<Interval>,
    /// Places over the draws, and the share of draws in which it is first.
    pub spread: Option<Spread>,
    /// The same over the second basis, where there is one.
    pub second: Option<Spread>,
    /// Counted tasks without a score.
    pub missing: usize,
    /// Not told apart from the first.
    pub open_to_first: bool,
    /// Not told apart from the row above.
    pub open_to_above: bool,
    /// Against the baseline.
    pub versus: Option<Versus>,
}

/// A column of further numbers, by system.
#[derive(Debug, Clone)]
pub struct Column {
    /// Over the column.
    pub heading: String,
    /// What it is.
    pub about: String,
    /// By system; `NaN` where not known.
    pub values: Vec<f64>,
    /// Digits after the point; none: as counts and sizes are shown.
    pub digits: Option<usize>,
    /// The good end.
    pub good: Option<Direction>,
}

/// The leaderboard.
#[derive(Debug, Clone)]
pub struct Table {
    /// What orders it.
    pub by: RankBy,
    /// Best first; those without a value last.
    pub rows: Vec<Row>,
    /// Draws behind intervals and marks.
    pub draws: Option<Draws>,
    /// Further draws, shown beside.
    pub second: Option<Draws>,
    /// Why there are no draws.
    pub why_no_draws: String,
    /// Share of pairs of systems that are told apart.
    pub resolved_share: Option<f64>,
    /// Further numbers.
    pub columns: Vec<Column>,
    /// Number of the baseline.
    pub baseline: Option<usize>,
    digits: usize,
}

/// What the leaderboard is made from.
pub struct Parts<'a> {
    /// Names and costs.
    pub results: &'a Results,
    /// Scores.
    pub matrix: &'a ScoreMatrix,
    /// What orders them.
    pub headline: &'a Headline,
    /// Draws, the first for the marks.
    pub draws: (Option<Draws>, Option<Draws>),
    /// Why there are none.
    pub why_no_draws: String,
    /// Other ways to order.
    pub orders: &'a Orders,
    /// Number of the baseline.
    pub baseline: Option<usize>,
}

impl Table {
    /// Computes all rows.
    pub fn of(parts: Parts<'_>) -> Self {
        let Parts {
            results,
            matrix,
            headline,
            draws: (draws, second),
            orders,
            baseline,
            why_no_draws,
        } = parts;
        let n = matrix.systems().len();
        let values: Vec<f64> = (0..n).map(|s| headline.value(s, &|_| 1.0)).collect();
        let place = places(&values, Direction::Higher);
        let mut order: Vec<usize> = (0..n).collect();
        order.sort_by_key(|&s| (place[s].unwrap_or(usize::MAX), s));
        let spreads = draws.as_ref().map(|d| d.spreads(n));
        let seconds = second.as_ref().map(|d| d.spreads(n));
        let counted: Vec<usize> = headline.tasks.iter().map(|t| t.0).collect();
        let missing = matrix.missing(&counted);
        let versus = baseline.map(|b| against(headline, &values, b));
        let turn = |i: Interval| {
            if headline.sign < 0.0 {
                Interval::new(-i.high, -i.low)
            } else {
                i
            }
        };
        let ranked = order.iter().filter(|s| place[**s].is_some()).count();
        let open = |a: usize, b: usize| {
            let both = place[a].is_some() && place[b].is_some();
            both && draws.as_ref().is_some_and(|d| !d.resolved(a, b))
        };
        let rows = order.iter().enumerate().map(|(at, &s)| Row {
            system: s,
            name: matrix.systems()[s].clone(),
            place: place[s],
            value: headline.sign * values[s],
            interval: spreads.as_ref().map(|x| turn(x[s].value)),
            spread: spreads.as_ref().map(|x| x[s]),
            second: seconds.as_ref().map(|x| x[s]),
            missing: missing[s],
            open_to_first: at > 0 && open(order[0], s),
            open_to_above: at > 0 && open(order[at - 1], s),
            versus: versus.as_ref().and_then(|v| v[s]).map(|v| Versus {
                difference: headline.sign * v.difference,
                ..v
            }),
        });
        let rows: Vec<Row> = rows.collect();
        let pairs = ranked * ranked.saturating_sub(1) / 2;
        let resolved_share = draws
            .as_ref()
            .filter(|_| (1..=MOST_PAIRS).contains(&pairs))
            .map(|d| {
                use rayon::prelude::*;
                let told: usize = (0..ranked)
                    .into_par_iter()
                    .map(|a| {
                        (a + 1..ranked)
                            .filter(|&b| d.resolved(order[a], order[b]))
                            .count()
                    })
                    .sum();
                told as f64 / pairs as f64
            });
        let shown: Vec<f64> = rows.iter().map(|r| r.value).collect();
        let digits = match headline.by {
            RankBy::WinRate | RankBy::DeltaM => 3,
            RankBy::MeanRank => 2,
            _ => digits(&shown),
        };
        Self {
            by: headline.by,
            rows,
            draws,
            second,
            why_no_draws,
            resolved_share,
            columns: columns(results, matrix, headline.by, orders),
            baseline,
            digits,
        }
    }

    /// A headline value as it is shown.
    pub fn shown(&self, value: f64) -> String {
        let digits = self.digits;
        match self.by {
            _ if value.is_nan() => "n/a".into(),
            RankBy::DeltaM => format!("{:+.1} %", 100.0 * value),
            _ => format!("{value:.digits$}"),
        }
    }

    /// An interval of it.
    pub fn shown_interval(&self, interval: Option<Interval>) -> String {
        match interval {
            Some(i) if i.low.is_finite() => {
                format!("{} – {}", self.shown(i.low), self.shown(i.high))
            }
            _ => "n/a".into(),
        }
    }
}

/// Places as they are shown.
pub fn shown_ranks(spread: Option<Spread>) -> String {
    let whole = |x: f64| format!("{x:.1}").trim_end_matches(".0").to_owned();
    match spread {
        Some(s) if s.rank.low == s.rank.high => whole(s.rank.low),
        Some(s) if s.rank.low.is_finite() => {
            format!("{} – {}", whole(s.rank.low), whole(s.rank.high))
        }
        _ => "n/a".into(),
    }
}

impl Row {
    /// `≈` where the place is not told apart from the one above.
    pub fn mark(&self) -> &'static str {
        if self.open_to_above { "≈" } else { "" }
    }
}

/// Stars of a p-value, as tables of papers print them.
pub fn stars(p: f64) -> &'static str {
    match p {
        p if p < 0.001 => "***",
        p if p < 0.01 => "**",
        p if p < 0.05 => "*",
        _ => "",
    }
}

impl Column {
    /// A value as it is shown.
    pub fn shown(&self, system: usize) -> String {
        let value = self.values[system];
        match self.digits {
            _ if value.is_nan() => "–".into(),
            Some(digits) => format!("{value:.digits$}"),
            None => large(value),
        }
    }
}

/// A size in units of thousands.
pub fn large(value: f64) -> String {
    let units = [(1e12, " T"), (1e9, " G"), (1e6, " M"), (1e3, " k")];
    match units.iter().find(|(unit, _)| value.abs() >= *unit) {
        Some((unit, name)) => format!("{:.2}{name}", value / unit),
        None if value.fract() == 0.0 => format!("{value:.0}"),
        None => format!("{value:.3}"),
    }
}

/// Digits that scores of such a size want after the point.
pub fn digits(values: &[f64]) -> usize {
    let most = values
        .iter()
        .filter(|x| x.is_finite())
        .fold(0.0, |m: f64, x| m.max(x.abs()));
    match most {
        m if m <= 1.5 => 4,
        m if m <= 1000.0 => 2,
        _ => 1,
    }
}

/// Every system against one: signed-rank tests over the tasks that both were measured on.
fn against(headline: &Headline, values: &[f64], baseline: usize) -> Vec<Option<Versus>> {
    let mut found: Vec<Option<Versus>> = vec![None; values.len()];
    let mut tested = Vec::new();
    let mut raw = Vec::new();
    for system in (0..values.len()).filter(|&s| s != baseline) {
        let both = headline
            .brought
            .iter()
            .map(|row| (row[system], row[baseline]))
            .filter(|(a, b)| a.is_finite() && b.is_finite());
        let (a, b): (Vec<f64>, Vec<f64>) = both.unzip();
        if a.is_empty() {
            continue;
        }
        let p = if a == b {
            1.0
        } else {
            wilcoxon(&a, &b, Zeros::Wilcox).map_or(f64::NAN, |w| w.p_value())
        };
        if p.is_nan() {
            continue;
        }
        tested.push(system);
        raw.push(p);
    }
    let adjusted = adjust(&raw, Correction::Holm).unwrap_or(raw);
    for (&s, p) in tested.iter().zip(adjusted) {
        let difference = values[s] - values[baseline];
        found[s] = Some(Versus { difference, p });
    }
    found
}

fn columns(results: &Results, matrix: &ScoreMatrix, by: RankBy, orders: &Orders) -> Vec<Column> {
    let mut found = Vec::new();
    for other in [RankBy::Mean, RankBy::Normalised, RankBy::DeltaM] {
        if other == by || (other == RankBy::Mean && RankBy::of(matrix) != RankBy::Mean) {
            continue;
        }
        let Ok(headline) = Headline::of(matrix, other) else {
            continue;
        };
        let values = 0..matrix.systems().len();
        // A fraction is read in per cent.
        let (scale, heading) = match other {
            RankBy::DeltaM => (100.0, "Δ to experts, %"),
            _ => (headline.sign, other.heading()),
        };
        let values: Vec<f64> = values
            .map(|s| scale * headline.value(s, &|_| 1.0))
            .collect();
        found.push(Column {
            heading: heading.into(),
            about: other.words().into(),
            digits: Some(digits(&values)),
            good: Some(Direction::Higher.turned(headline.sign < 0.0)),
            values,
        });
    }
    found.extend(orders.columns(by));
    let mut costs: Vec<&String> = Vec::new();
    for system in &results.systems {
        for cost in system.costs.keys() {
            if !costs.contains(&cost) {
                costs.push(cost);
            }
        }
    }
    for cost in costs {
        let value = |s: usize| results.systems[s].costs.get(cost).copied();
        found.push(Column {
            heading: cost.clone(),
            about: format!("cost: {cost}"),
            values: (0..results.systems.len())
                .map(|s| value(s).unwrap_or(f64::NAN))
                .collect(),
            digits: None,
            good: None,
        });
    }
    found
}

trait Turn {
    fn turned(self, yes: bool) -> Self;
}

impl Turn for Direction {
    fn turned(self, yes: bool) -> Self {
        match (self, yes) {
            (Self::Higher, true) => Self::Lower,
            (Self::Lower, true) => Self::Higher,
            (same, false) => same,
        }
    }
}
