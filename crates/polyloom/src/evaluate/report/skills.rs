//! Scores by skill (or another tag): bars, and beside them a radar of a few systems.

use std::fmt::Write as _;

use indexmap::IndexMap;

use super::svg::{Svg, clip};
use super::table::Table;
use crate::evaluate::aggregate::{Direction, ScoreMatrix};
use crate::evaluate::board::results::Results;
use crate::evaluate::sum::mean;
use crate::html::escape;

/// Systems in the bars at most, and in the radar.
const MOST: usize = 8;
const RADAR: usize = 6;
/// Axes of a radar at most: more cannot be read.
const AXES: usize = 12;

/// Means by tag value, of scores brought to 0 to 1.
pub struct Skills {
    /// The tag.
    pub tag: String,
    /// Its values in a fixed order, that of the tasks, with how many tasks carry each.
    pub values: Vec<(String, usize)>,
    /// By value, then by system of the results; `NaN` where nothing was measured.
    pub scores: Vec<Vec<f64>>,
    /// How scores were brought to 0 to 1.
    pub scale: &'static str,
}

impl Skills {
    /// By the tag asked for, else by the first usual one that has two values or more.
    ///
    /// # Errors
    /// The tag asked for stands at no task.
    pub fn of(
        results: &Results,
        matrix: &ScoreMatrix,
        tag: Option<&str>,
    ) -> Result<Option<Self>, String> {
        let usual = ["skill", "capability", "group", "type", "domain", "modality"];
        let found = match tag {
            Some(tag) => {
                let found = groups(results, tag);
                if found.is_empty() {
                    return Err(format!("no task has the tag `{tag}`"));
                }
                Some((tag, found))
            }
            None => usual
                .iter()
                .map(|tag| (*tag, groups(results, tag)))
                .find(|(_, found)| found.len() > 1),
        };
        let Some((tag, groups)) = found else {
            return Ok(None);
        };
        let Some((unit, scale)) = unit(matrix) else {
            return Ok(None);
        };
        let systems = matrix.systems().len();
        let scores = groups.values().map(|tasks| {
            let one = |s: usize| {
                let present = tasks.iter().map(|&t| unit(s, t)).filter(|x| !x.is_nan());
                mean(present)
            };
            (0..systems).map(one).collect()
        });
        Ok(Some(Self {
            tag: tag.to_owned(),
            scores: scores.collect(),
            values: groups.iter().map(|(v, t)| (v.clone(), t.len())).collect(),
            scale,
        }))
    }

    /// Bars, and where it can be read a radar beside them.
    pub fn section(&self, table: &Table) -> String {
        let rows: Vec<_> = table.rows.iter().take(MOST).collect();
        let mut out = String::from("<div class=\"pairs\"><div class=\"skills\">");
        for (at, (value, tasks)) in self.values.iter().enumerate() {
            let plural = if *tasks == 1 { "" } else { "s" };
            let _ = write!(
                out,
                "<table class=\"bars\"><caption>{} <span class=\"soft\">{tasks} task{plural}</span></caption><tbody>",
                escape(value)
            );
            for row in &rows {
                let x = self.scores[at][row.system];
                let name = escape(&row.name);
                let _ = if x.is_nan() {
                    write!(
                        out,
                        "<tr><th scope=\"row\" title=\"{name}\">{name}</th><td class=\"track\"></td><td>–</td></tr>"
                    )
                } else {
                    write!(
                        out,
                        "<tr><th scope=\"row\" title=\"{name}\">{name}</th><td class=\"track\"><i style=\"width:{:.1}%\"></i></td><td>{x:.3}</td></tr>",
                        100.0 * x.clamp(0.0, 1.0)
                    )
                };
            }
            out.push_str("</tbody></table>");
        }
        out.push_str("</div>");
        if (3..=AXES).contains(&self.values.len()) {
            let _ = write!(out, "<div>{}</div>", self.radar(table));
        }
        out.push_str("</div>\n");
        if table.rows.len() > MOST {
            let _ = writeln!(
                out,
                "<p class=\"soft\">The {MOST} best of {} systems; the radar holds at most {RADAR}.</p>",
                table.rows.len()
            );
        }
        out
    }

    fn radar(&self, table: &Table) -> String {
        let rows: Vec<_> = table.rows.iter().take(RADAR).collect();
        let (cx, cy, r) = (215.0, 165.0, 115.0);
        let n = self.values.len();
        let at = |axis: f64, share: f64| {
            let turn = std::f64::consts::TAU * axis / n as f64;
            (cx + r * share * turn.sin(), cy - r * share * turn.cos())
        };
        let ring = |share: f64| {
            let mut data = String::new();
            for axis in 0..n {
                let (x, y) = at(axis as f64, share);
                let _ = write!(data, "{}{x:.1} {y:.1}", if axis == 0 { "M" } else { "L" });
            }
            data + "z"
        };
        let height = 330.0 + 20.0 * rows.len() as f64;
        let label = format!(
            "Radar of {} systems over {n} values of {}, the same numbers as the bars",
            rows.len(),
            self.tag
        );
        let mut svg = Svg::new(430.0, height, &label);
        for share in [0.25, 0.5, 0.75, 1.0] {
            svg.path(&ring(share), "grid", "");
        }
        for axis in 0..n {
            svg.line((cx, cy), at(axis as f64, 1.0), "grid");
            let (x, y) = at(axis as f64, 1.1);
            let class = match x - cx {
                d if d.abs() < 12.0 => "axis m",
                d if d < 0.0 => "axis e",
                _ => "axis",
            };
            svg.text(x, y + 4.0, class, &clip(&self.values[axis].0, 16));
        }
        for (i, row) in rows.iter().enumerate() {
            // A value that was not measured is a gap in the line, not a zero.
            let share = |axis: usize| {
                let x = self.scores[axis % n][row.system];
                (!x.is_nan()).then(|| x.clamp(0.0, 1.0))
            };
            let mut data = String::new();
            for axis in 0..n {
                if let (Some(from), Some(to)) = (share(axis), share(axis + 1)) {
                    let ((a, b), (x, y)) = (at(axis as f64, from), at(axis as f64 + 1.0, to));
                    let _ = write!(data, "M{a:.1} {b:.1}L{x:.1} {y:.1}");
                }
            }
            svg.path(&data, &format!("series s{i}"), &row.name);
            for axis in 0..n {
                if let Some(share) = share(axis) {
                    svg.mark(at(axis as f64, share), i, &format!("dot s{i}"), "");
                }
            }
            let y = 330.0 + 20.0 * i as f64;
            svg.line((100.0, y), (136.0, y), &format!("series s{i}"));
            svg.mark((118.0, y), i, &format!("dot s{i}"), "");
            svg.text(146.0, y + 4.0, "", &clip(&row.name, 34));
        }
        // Between two axes, above the lines.
        let middle = (std::f64::consts::PI / n as f64).cos();
        for share in [0.25, 0.5, 0.75, 1.0] {
            let (x, y) = at(0.5, share * middle);
            svg.text(x, y + 4.0, "axis m halo", &share.to_string());
        }
        svg.end()
    }
}

fn groups(results: &Results, tag: &str) -> IndexMap<String, Vec<usize>> {
    let mut found: IndexMap<String, Vec<usize>> = IndexMap::new();
    for (t, task) in results.tasks.iter().enumerate() {
        let group = (tag == "group")
            .then(|| task.column.group.clone())
            .flatten();
        let values = task.tags.get(tag).cloned().unwrap_or_default();
        for value in values.into_iter().chain(group) {
            let tasks = found.entry(value).or_default();
            if tasks.last() != Some(&t) {
                tasks.push(t);
            }
        }
    }
    found
}

type Unit<'a> = Box<dyn Fn(usize, usize) -> f64 + 'a>;

/// How scores come to 0 to 1, and in words; `None` where their scale is not known.
fn unit(matrix: &ScoreMatrix) -> Option<(Unit<'_>, &'static str)> {
    let tasks = matrix.tasks();
    let ends = |t: usize| tasks[t].chance.zip(tasks[t].maximum);
    if (0..tasks.len()).all(|t| ends(t).is_some_and(|(a, b)| a != b)) {
        let share = move |s: usize, t: usize| {
            let (low, high) = ends(t).unwrap_or((0.0, 1.0));
            (matrix.row(s)[t] - low) / (high - low)
        };
        return Some((
            Box::new(share),
            "0 is guessing, 1 the best score that can be reached",
        ));
    }
    if tasks.iter().any(|t| t.direction != Some(Direction::Higher)) {
        return None;
    }
    let all = || {
        (0..tasks.len())
            .flat_map(|t| matrix.column(t))
            .filter(|x| !x.is_nan())
    };
    let (low, high) = (
        all().fold(f64::MAX, f64::min),
        all().fold(f64::MIN, f64::max),
    );
    if low < 0.0 || high > 100.0 {
        return None;
    }
    if high <= 1.0 {
        Some((
            Box::new(|s, t| matrix.row(s)[t]),
            "scores as measured, 0 to 1",
        ))
    } else {
        Some((
            Box::new(|s, t| matrix.row(s)[t] / 100.0),
            "per cent over 100",
        ))
    }
}
