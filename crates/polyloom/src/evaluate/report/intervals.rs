//! The ranked interval plot, and the sentence that says what can be read from it.

use super::svg::{Axis, Svg, clip, room};
use super::table::{Row, Table};

/// Rows drawn at most; the leaderboard holds all.
const MOST: usize = 60;

/// The drawing; narrow for phones, with names above the whiskers.
pub fn chart(table: &Table, narrow: bool) -> String {
    let rows: Vec<&Row> = table
        .rows
        .iter()
        .filter(|r| r.value.is_finite())
        .take(MOST)
        .collect();
    if rows.is_empty() {
        return String::new();
    }
    let (left, width, step) = if narrow {
        (14.0, 260.0, 36.0)
    } else {
        (room(rows.iter().map(|r| r.name.as_str()), 30), 400.0, 22.0)
    };
    let top = 8.0;
    let bottom = top + step * rows.len() as f64;
    let bounds = |r: &&Row| match r.interval {
        Some(i) if i.low.is_finite() => (i.low.min(r.value), i.high.max(r.value)),
        _ => (r.value, r.value),
    };
    let low = rows.iter().map(|r| bounds(r).0).fold(f64::MAX, f64::min);
    let high = rows.iter().map(|r| bounds(r).1).fold(f64::MIN, f64::max);
    let pad = (high - low) * 0.03;
    let axis = Axis::new(low - pad, high + pad, left, left + width);
    let mut svg = Svg::new(
        left + width + 70.0,
        bottom + 42.0,
        &format!(
            "{} of {} systems, best first, with intervals; the leaderboard holds the same numbers",
            table.by.heading(),
            rows.len()
        ),
    );
    let (ticks, digits) = axis.ticks();
    for tick in ticks {
        let x = axis.at(tick);
        svg.line((x, top), (x, bottom), "grid");
        svg.text(x, bottom + 16.0, "axis m", &format!("{tick:.digits$}"));
    }
    svg.text(
        left + width / 2.0,
        bottom + 34.0,
        "axis m",
        table.by.heading(),
    );
    for (i, row) in rows.iter().enumerate() {
        let y = top + step * (i as f64 + if narrow { 0.75 } else { 0.5 });
        if narrow {
            svg.text(left, y - 12.0, "", &clip(&row.name, 34));
        } else {
            svg.text(left - 8.0, y + 4.0, "e", &clip(&row.name, 30));
        }
        let shown = table.shown(row.value);
        if let Some(interval) = row.interval.filter(|x| x.low.is_finite()) {
            let (a, b) = (axis.at(interval.low), axis.at(interval.high));
            svg.line((a, y), (b, y), "whisker");
            svg.line((a, y - 4.0), (a, y + 4.0), "whisker");
            svg.line((b, y - 4.0), (b, y + 4.0), "whisker");
        }
        // Open: not resolved from the first; filled: the first, and what is told apart from it.
        let class = if row.open_to_first {
            "dot open0"
        } else {
            "dot"
        };
        let title = format!("{}: {shown}", row.name);
        svg.mark((axis.at(row.value), y), 0, class, &title);
        svg.text(left + width + 8.0, y + 4.0, "", &shown);
    }
    svg.end()
}

/// What the plot says, in words.
pub fn sentence(table: &Table) -> String {
    let ranked: Vec<&Row> = table.rows.iter().filter(|r| r.value.is_finite()).collect();
    let Some(first) = ranked.first() else {
        return format!("No system has {}.", table.by.words());
    };
    if ranked.len() == 1 {
        return format!("`{}` is the only ranked system.", first.name);
    }
    let Some(draws) = table.draws() else {
        return format!(
            "`{}` stands first, and nothing says how sure that is: {}.",
            first.name,
            table.order.why_no_draws.as_deref().unwrap_or_default()
        );
    };
    let open: Vec<&&Row> = ranked[1..].iter().filter(|r| r.open_to_first).collect();
    let lead = match open.len() {
        0 => format!(
            "`{}` stands first and is told apart from every other system",
            first.name
        ),
        n if n == ranked.len() - 1 => format!(
            "`{}` stands first, but none of the {n} others is told apart from it",
            first.name
        ),
        n if n <= 4 => {
            let names: Vec<String> = open.iter().map(|r| format!("`{}`", r.name)).collect();
            let list = match &names[..] {
                [rest @ .., last] if !rest.is_empty() => {
                    format!("{} and {last}", rest.join(", "))
                }
                one => one.concat(),
            };
            format!(
                "`{}` stands first, not resolved from {list}; {} told apart from it",
                first.name,
                match ranked.len() - 1 - n {
                    1 => "the other one is".to_owned(),
                    rest => format!("the other {rest} are"),
                }
            )
        }
        n => format!(
            "`{}` stands first, not resolved from {n} of the {} others",
            first.name,
            ranked.len() - 1
        ),
    };
    let few = table.first_rests_on.map_or_else(String::new, |(on, of)| {
        format!(" It was measured on {on} of {of} tasks only.")
    });
    let share = table.resolved_share.map_or_else(String::new, |share| {
        format!(
            " Of all pairs of systems {:.0} % are told apart.",
            100.0 * share
        )
    });
    format!(
        "{lead} at {:.0} % ({}, {} draws).{few}{share}",
        100.0 * draws.level,
        draws.over.words(),
        draws.draws
    )
}
