//! The leaderboard: rows in order, with what is known of each place.

use super::orders::Orders;
use crate::evaluate::aggregate::mean::Missing;
use crate::evaluate::aggregate::{Direction, ScoreMatrix};
use crate::evaluate::board::counting::{Aggregate, one_scale};
use crate::evaluate::board::linear::per_task;
use crate::evaluate::board::order::Order;
use crate::evaluate::board::ranking::rank;
use crate::evaluate::board::results::Results;
use crate::evaluate::board::uncertainty::Uncertainty;
use crate::evaluate::statistics::Interval;
use crate::evaluate::statistics::multiplicity::{Correction, adjust};
use crate::evaluate::statistics::wilcoxon::{Zeros, wilcoxon};

/// A system against the baseline.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Versus {
    /// Headline less that of the baseline, in the shown direction.
    pub difference: f64,
    /// Its interval over the draws.
    pub interval: Option<Interval>,
    /// Tasks on which both were measured.
    pub tasks: usize,
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
    /// First and last place over the draws.
    pub places: Option<(usize, usize)>,
    /// Share of the draws in which it is first; `NaN` without draws.
    pub best: f64,
    /// Places over the second draws, where there are such.
    pub second: Option<(usize, usize)>,
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
    pub by: Aggregate,
    /// Numbers, places and the draws behind intervals and marks.
    pub order: Order,
    /// Best first; those without a value last.
    pub rows: Vec<Row>,
    /// Tasks behind the first place and all tasks, where those are few of these.
    pub first_rests_on: Option<(usize, usize)>,
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
    /// The order.
    pub order: Order,
    /// What gaps do.
    pub missing: Missing,
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
            order,
            missing,
            orders,
            baseline,
        } = parts;
        let by = order.ranked.by;
        let standing = &order.ranked.standing;
        let (draws, second) = (order.draws(), order.second());
        let versus = baseline.map(|b| against(&order, matrix, missing, b));
        let open = |above: usize, below: usize| {
            draws.is_some_and(|d| order.told_apart(d, above, below) == Some(false))
        };
        let rows = order.systems.iter().enumerate().map(|(at, &s)| Row {
            system: s,
            name: matrix.systems()[s].clone(),
            place: standing.rank[s],
            value: standing.value[s],
            interval: draws.and_then(|d| d.interval[s]),
            places: draws.and_then(|d| d.places[s]),
            best: draws.map_or(f64::NAN, |d| d.best[s]),
            second: second.and_then(|d| d.places[s]),
            missing: standing.missing[s],
            open_to_first: at > 0 && open(0, at),
            open_to_above: at > 0 && open(at - 1, at),
            versus: versus.as_ref().and_then(|v| v[s]),
        });
        let rows: Vec<Row> = rows.collect();
        let shown: Vec<f64> = rows.iter().map(|r| r.value).collect();
        let digits = match by {
            by if by.reads_scale() => digits(&shown),
            by => by.digits().min(3),
        };
        Self {
            by,
            rows,
            first_rests_on: order.first_rests_on(matrix),
            resolved_share: order.resolved_share(),
            columns: columns(results, matrix, by, missing, orders),
            baseline,
            digits,
            order,
        }
    }

    /// The draws behind intervals and marks.
    pub fn draws(&self) -> Option<&Uncertainty> {
        self.order.draws()
    }

    /// A headline value as it is shown.
    pub fn shown(&self, value: f64) -> String {
        let digits = self.digits;
        match self.by {
            _ if value.is_nan() => "n/a".into(),
            Aggregate::DeltaM => format!("{:+.1} %", 100.0 * value),
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
pub fn shown_places(places: Option<(usize, usize)>) -> String {
    match places {
        Some((a, b)) if a == b => a.to_string(),
        Some((a, b)) => format!("{a} – {b}"),
        None => "n/a".into(),
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
        Some((unit, name)) => three(value / unit) + name,
        None if value.fract() == 0.0 => format!("{value:.0}"),
        None => three(value),
    }
}

/// Three digits that count, as many after the point as that leaves, without zeros at the end.
fn three(value: f64) -> String {
    let before = value.abs().log10().floor().max(-9.0) as i32;
    let after = usize::try_from(2 - before).unwrap_or(0);
    let shown = format!("{value:.after$}");
    match shown.contains('.') {
        true => shown.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => shown,
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
fn against(
    order: &Order,
    matrix: &ScoreMatrix,
    missing: Missing,
    baseline: usize,
) -> Vec<Option<Versus>> {
    let values = &order.ranked.standing.value;
    let mut found: Vec<Option<Versus>> = vec![None; values.len()];
    let Some(gets) = per_task(order.ranked.by, matrix, missing) else {
        return found;
    };
    let mut tested = Vec::new();
    let mut raw = Vec::new();
    for system in (0..values.len()).filter(|&s| s != baseline) {
        let both = (0..matrix.tasks().len())
            .map(|t| (gets.cell(system, t), gets.cell(baseline, t)))
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
        tested.push((system, a.len()));
        raw.push(p);
    }
    let adjusted = adjust(&raw, Correction::Holm).unwrap_or(raw);
    for (&(s, tasks), p) in tested.iter().zip(adjusted) {
        found[s] = Some(Versus {
            difference: values[s] - values[baseline],
            interval: order.draws().and_then(|d| d.difference(s, baseline)),
            tasks,
            p,
        });
    }
    found
}

fn columns(
    results: &Results,
    matrix: &ScoreMatrix,
    by: Aggregate,
    missing: Missing,
    orders: &Orders,
) -> Vec<Column> {
    let mut found = Vec::new();
    for other in [Aggregate::Mean, Aggregate::AboveChance, Aggregate::DeltaM] {
        if other == by || (other == Aggregate::Mean && !one_scale(results)) {
            continue;
        }
        let Ok(ranked) = rank(other, matrix, missing, &[]) else {
            continue;
        };
        if ranked.standing.value.iter().all(|x| x.is_nan()) {
            continue;
        }
        // A fraction is read in per cent.
        let (scale, heading) = match other {
            Aggregate::DeltaM => (100.0, "Δ to experts, %"),
            _ => (1.0, other.heading()),
        };
        let values: Vec<f64> = ranked.standing.value.iter().map(|x| scale * x).collect();
        let about = match &ranked.note {
            Some(note) => format!("{} ({note})", other.words()),
            None => other.words(),
        };
        found.push(Column {
            heading: heading.into(),
            about,
            digits: Some(digits(&values)),
            good: ranked.good,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_three_digits() {
        for (value, shown) in [
            (70.6e9, "70.6 G"),
            (1.5e9, "1.5 G"),
            (2353.0, "2.35 k"),
            (243.3, "243"),
            (36.72, "36.7"),
            (0.012_345, "0.0123"),
            (240.0, "240"),
            (0.0, "0"),
        ] {
            assert_eq!(large(value), shown);
        }
    }
}
