//! Other ways to order the same table, side by side: where they agree, the order does not hang on the choice.

use std::fmt::Write as _;

use super::table::{Column, Table};
use crate::evaluate::aggregate::ScoreMatrix;
use crate::evaluate::aggregate::kemeny::Kemeny;
use crate::evaluate::aggregate::matrix::places;
use crate::evaluate::aggregate::mean::Missing;
use crate::evaluate::aggregate::ranking::Preferences;
use crate::evaluate::board::counting::Aggregate;
use crate::evaluate::board::ranking::{Ranked, consensus, rank};
use crate::html::{Cell, escape, td};

/// Systems shown at most.
const MOST: usize = 40;

/// The orders.
#[derive(Debug, Clone)]
pub struct Orders {
    /// Mean rank, Borda, win rate and, where it can be fitted, Bradley–Terry.
    ranked: Vec<Ranked>,
    /// The consensus; its place by system.
    kemeny: (Kemeny, Vec<f64>),
    /// How often each system is better than each other one.
    pub preferences: Preferences,
}

impl Orders {
    /// Computes them all.
    pub fn of(matrix: &ScoreMatrix, missing: Missing) -> Self {
        let by = [
            Aggregate::MeanRank,
            Aggregate::Borda,
            Aggregate::WinRate,
            Aggregate::BradleyTerry,
        ];
        let preferences = Preferences::of_matrix(matrix);
        Self {
            ranked: by
                .into_iter()
                .filter_map(|by| rank(by, matrix, missing, &[]).ok())
                .collect(),
            kemeny: consensus(&preferences, matrix.systems().len()),
            preferences,
        }
    }

    fn strengths(&self) -> Option<&Ranked> {
        self.ranked.iter().find(|r| r.by == Aggregate::BradleyTerry)
    }

    fn named(&self) -> Vec<(Aggregate, &[f64])> {
        let mut found: Vec<(Aggregate, &[f64])> = self
            .ranked
            .iter()
            .map(|r| (r.by, &r.standing.value[..]))
            .collect();
        found.insert(3.min(found.len()), (Aggregate::Kemeny, &self.kemeny.1));
        found
    }

    /// Columns of the leaderboard: those that say something beside what orders it.
    pub(super) fn columns(&self, by: Aggregate) -> Vec<Column> {
        let wanted = [
            Aggregate::MeanRank,
            Aggregate::Borda,
            Aggregate::BradleyTerry,
        ];
        self.named()
            .into_iter()
            .filter(|(other, _)| wanted.contains(other) && *other != by)
            .map(|(other, values)| Column {
                heading: other.heading().into(),
                about: other.words(),
                values: values.to_vec(),
                digits: Some(other.digits()),
                good: Some(other.good()),
            })
            .collect()
    }

    /// Name and places by system of every order.
    pub fn places(&self) -> Vec<(&'static str, Vec<Option<usize>>)> {
        let each = self.named().into_iter();
        each.map(|(by, values)| (by.heading(), places(values, by.good())))
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
                "{} orders have the fewest disagreements (Kemeny: not unique); places are their mean.",
                consensus.orders.len()
            ),
            Some(false) => format!(
                "More than {} orders have the fewest disagreements (Kemeny: not unique); places are the mean of those.",
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
        match self.strengths().map(|r| r.note.is_some()) {
            Some(true) => out.push_str(" Bradley–Terry strengths are held down by a penalty (0.01): some systems never lose, or never win, against others, and without it they have none."),
            Some(false) => {}
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
                    ..Cell::default()
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
                        ..Cell::default()
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
