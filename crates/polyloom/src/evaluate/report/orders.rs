//! Other ways to order the same table, side by side: where they agree, the order does not hang on the choice.

use std::fmt::Write as _;

use super::headline::RankBy;
use super::table::{Column, Table};
use crate::evaluate::EvalError;
use crate::evaluate::aggregate::comparisons::Comparisons;
use crate::evaluate::aggregate::kemeny::{Kemeny, kemeny};
use crate::evaluate::aggregate::matrix::places;
use crate::evaluate::aggregate::pairwise::{Estimator, elo_scale, fit};
use crate::evaluate::aggregate::ranking::{self, Borda, Middle, Preferences};
use crate::evaluate::aggregate::{Direction, ScoreMatrix};
use crate::html::{Cell, escape, td};

/// Systems shown at most.
const MOST: usize = 40;

/// The orders.
#[derive(Debug, Clone)]
pub struct Orders {
    mean_rank: Vec<f64>,
    borda: Vec<f64>,
    win_rate: Vec<f64>,
    /// Strength of each system, and whether it had to be held down by a penalty.
    strengths: Option<(Vec<f64>, bool)>,
    /// The consensus; its place by system.
    kemeny: (Kemeny, Vec<f64>),
    /// How often each system is better than each other one.
    pub preferences: Preferences,
}

impl Orders {
    /// Computes them all.
    pub fn of(matrix: &ScoreMatrix) -> Self {
        let comparisons = Comparisons::of_matrix(matrix);
        let strengths = match fit(&comparisons, Estimator::Ridge, 0.0) {
            Ok(found) => Some((found.theta, false)),
            // Some system never loses or never wins: without a penalty its strength is infinite.
            Err(EvalError::NotIdentifiable { .. }) => fit(&comparisons, Estimator::Ridge, 0.01)
                .ok()
                .map(|found| (found.theta, true)),
            Err(_) => None,
        };
        let preferences = Preferences::of_matrix(matrix);
        let consensus = kemeny(&preferences, 10);
        let mut place = vec![f64::NAN; matrix.systems().len()];
        for (at, &s) in consensus.orders[0].iter().enumerate() {
            place[s] = at as f64 + 1.0;
        }
        Self {
            mean_rank: ranking::mean_rank(matrix).value,
            borda: ranking::borda(matrix, Borda::Beaten).value,
            win_rate: ranking::win_rate(matrix, Middle::Mean).value,
            strengths,
            kemeny: (consensus, place),
            preferences,
        }
    }

    fn named(&self) -> Vec<(&'static str, &'static str, &[f64], usize, Direction)> {
        let mut found: Vec<(_, _, &[f64], _, _)> = vec![
            (
                "mean rank",
                "mean place over tasks, ties averaged",
                &self.mean_rank,
                2,
                Direction::Lower,
            ),
            (
                "Borda",
                "sum over tasks of the number of systems beaten",
                &self.borda,
                1,
                Direction::Higher,
            ),
            (
                "win rate",
                "mean share of the other systems that are beaten",
                &self.win_rate,
                3,
                Direction::Higher,
            ),
            (
                "Kemeny",
                "place in the order with the fewest disagreements",
                &self.kemeny.1,
                0,
                Direction::Lower,
            ),
        ];
        if let Some((theta, _)) = &self.strengths {
            found.push((
                "Bradley–Terry",
                "strength from who beats whom on each task, on the scale of Elo numbers",
                theta,
                0,
                Direction::Higher,
            ));
        }
        found
    }

    /// Columns of the leaderboard: those that say something beside what orders it.
    pub(super) fn columns(&self, by: RankBy) -> Vec<Column> {
        let wanted = ["mean rank", "Borda", "Bradley–Terry"];
        self.named()
            .into_iter()
            .filter(|(name, ..)| wanted.contains(name) && *name != by.heading())
            .map(|(name, about, values, digits, good)| Column {
                heading: name.into(),
                about: about.into(),
                values: match name {
                    "Bradley–Terry" => values.iter().map(|t| elo_scale(*t)).collect(),
                    _ => values.to_vec(),
                },
                digits: Some(digits),
                good: Some(good),
            })
            .collect()
    }

    /// Name and places by system of every order.
    pub fn places(&self) -> Vec<(&'static str, Vec<Option<usize>>)> {
        let each = self.named().into_iter();
        each.map(|(name, _, values, _, good)| (name, places(values, good)))
            .collect()
    }

    /// What there is to say of the consensus and the strengths.
    pub fn sentence(&self, matrix: &ScoreMatrix, table: &Table) -> String {
        let (consensus, _) = &self.kemeny;
        let mut out = match consensus.unique() {
            Some(true) => {
                "The Kemeny order is the only one with the fewest disagreements.".to_owned()
            }
            Some(false) if consensus.complete => format!(
                "{} orders have the fewest disagreements (Kemeny: not unique); the first is shown.",
                consensus.orders.len()
            ),
            Some(false) => format!(
                "More than {} orders have the fewest disagreements (Kemeny: not unique); one is shown.",
                consensus.orders.len()
            ),
            None => format!(
                "The Kemeny order was searched, not proven: its disagreements are at most {:.0} above the least possible ({:.0}).",
                consensus.gap(),
                consensus.lower_bound
            ),
        };
        if self.preferences.condorcet_winner().is_none() {
            out.push_str(" No system beats every other one on most tasks.");
        }
        match &self.strengths {
            Some((_, true)) => out.push_str(" Bradley–Terry strengths are held down by a penalty (0.01): some systems never lose, or never win, against others, and without it they have none."),
            Some((_, false)) => {}
            None => out.push_str(" Bradley–Terry strengths could not be fitted."),
        }
        let first = |p: &[Option<usize>]| p.iter().position(|x| *x == Some(1));
        let leader = table
            .rows
            .iter()
            .find(|r| r.place.is_some())
            .map(|r| r.system);
        let mut others: Vec<(usize, Vec<&str>)> = Vec::new();
        for (name, places) in self.places() {
            let Some(system) = first(&places).filter(|s| Some(*s) != leader) else {
                continue;
            };
            match others.iter_mut().find(|(s, _)| *s == system) {
                Some((_, names)) => names.push(name),
                None => others.push((system, vec![name])),
            }
        }
        let differ: Vec<String> = others
            .iter()
            .map(|(s, names)| format!("`{}` by {}", matrix.systems()[*s], names.join(", ")))
            .collect();
        if !differ.is_empty() {
            let _ = write!(out, " Another system is first: {}.", differ.join(", "));
        }
        out
    }

    /// Places beside each other.
    pub fn table(&self, table: &Table) -> String {
        let mut out = String::from(
            "<div class=\"scroll heat\" tabindex=\"0\" role=\"region\" aria-label=\"Places by every order\"><table><thead><tr><th scope=\"col\">system</th>",
        );
        let orders = self.places();
        let _ = write!(out, "<th scope=\"col\">{}</th>", table.by.heading());
        let shown: Vec<&(&str, Vec<Option<usize>>)> = orders
            .iter()
            .filter(|(name, _)| *name != table.by.heading())
            .collect();
        for (name, _) in &shown {
            let _ = write!(out, "<th scope=\"col\">{name}</th>");
        }
        out.push_str("</tr></thead><tbody>");
        let far = table.rows.len().clamp(2, 10) as f64;
        for row in table.rows.iter().take(MOST) {
            let name = escape(&row.name);
            let _ = write!(out, "<tr><th scope=\"row\" title=\"{name}\">{name}</th>");
            let own = row.place;
            let plain = |p: Option<usize>| p.map_or_else(|| "–".into(), |p| p.to_string());
            td(
                &mut out,
                &Cell {
                    shown: plain(own),
                    title: String::new(),
                    tint: None,
                },
            );
            for (_, places) in &shown {
                let place = places[row.system];
                let moved = match (own, place) {
                    (Some(a), Some(b)) => a as i64 - b as i64,
                    _ => 0,
                };
                let shown = match moved {
                    0 => plain(place),
                    up if up > 0 => format!("{} ▲{up}", plain(place)),
                    down => format!("{} ▼{}", plain(place), -down),
                };
                let tint = (moved != 0)
                    .then(|| (if moved > 0 { 'g' } else { 'h' }, moved.abs() as f64 / far));
                td(
                    &mut out,
                    &Cell {
                        shown,
                        title: String::new(),
                        tint,
                    },
                );
            }
            out.push_str("</tr>");
        }
        out.push_str("</tbody></table></div>\n");
        if table.rows.len() > MOST {
            let _ = writeln!(
                out,
                "<p class=\"soft\">The first {MOST} of {}.</p>",
                table.rows.len()
            );
        }
        out
    }
}
