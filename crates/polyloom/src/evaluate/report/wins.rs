//! The win matrix: on which share of the tasks a row's system is better than a column's.

use std::fmt::Write as _;

use super::table::Table;
use crate::evaluate::aggregate::ranking::Preferences;
use crate::html::{Cell, heat};

/// Systems shown at most.
const MOST: usize = 30;

/// Share of the tasks that decide between two systems which the first wins; `None` where no task does.
pub fn share(preferences: &Preferences, a: usize, b: usize) -> Option<f64> {
    let (won, lost) = (preferences.of(a, b), preferences.of(b, a));
    (won + lost > 0.0).then(|| won / (won + lost))
}

/// The table, systems in the order of the leaderboard.
pub fn matrix(table: &Table, preferences: &Preferences) -> String {
    let rows: Vec<_> = table.rows.iter().take(MOST).collect();
    let names: Vec<String> = rows
        .iter()
        .enumerate()
        .map(|(i, r)| format!("{} {}", i + 1, r.name))
        .collect();
    let mut out = String::new();
    heat(
        &mut out,
        "Wins of every pair",
        "",
        &names,
        &names,
        |r, c| {
            if r == c {
                return Cell {
                    shown: "·".into(),
                    title: String::new(),
                    tint: None,
                    ..Cell::default()
                };
            }
            let (a, b) = (rows[r].system, rows[c].system);
            let won = share(preferences, a, b);
            Cell {
                title: format!(
                    "{} beats {} on {} and loses on {} (by weight of the tasks)",
                    rows[r].name,
                    rows[c].name,
                    preferences.of(a, b),
                    preferences.of(b, a)
                ),
                shown: won.map_or_else(|| "–".into(), |w| format!("{:.0}", 100.0 * w)),
                tint: won.map(|w| (if w < 0.5 { 'h' } else { 'c' }, 2.0 * (w - 0.5).abs())),
                ..Cell::default()
            }
        },
    );
    if table.rows.len() > MOST {
        let _ = writeln!(
            out,
            "<p class=\"soft\">The first {MOST} of {} systems.</p>",
            table.rows.len()
        );
    }
    out
}
