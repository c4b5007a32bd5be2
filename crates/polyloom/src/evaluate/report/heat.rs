//! Systems x tasks: raw scores, normalised ones, differences to the tasks' experts or to the baseline.

use std::fmt::Write as _;

use super::compact;
use super::links::Links;
use super::table::{Table, digits};
use crate::diff::cluster;
use crate::evaluate::aggregate::relative::normalised;
use crate::evaluate::aggregate::{Direction, ScoreMatrix};
use crate::evaluate::board::results::Results;
use crate::evaluate::metric::correlation::{coefficient, pearson};
use crate::html::{Cell, escape, td};

/// Above so many cells the map is drawn without numbers.
const MOST: usize = 3_000;

/// A way to look at the scores.
pub struct View {
    /// Name of the choice.
    pub name: String,
    /// What the numbers and colours are.
    pub about: String,
    /// Row-major over the matrix; `NaN` where there is none.
    pub values: Vec<f64>,
    /// How far along the colours, −1 to 1 (0 to 1 where there is no middle).
    pub tint: Vec<f64>,
    signed: bool,
}

/// Tasks in an order in which those that rate the systems alike stand together (average linkage on 1 − Pearson's
/// correlation over the systems that both hold); as given where fewer than four systems tell.
pub fn task_order(matrix: &ScoreMatrix) -> (Vec<usize>, bool) {
    let n = matrix.tasks().len();
    if matrix.systems().len() < 4 || n < 3 {
        return ((0..n).collect(), false);
    }
    let columns: Vec<Vec<f64>> = (0..n)
        .map(|t| {
            matrix
                .oriented(t)
                .unwrap_or_else(|| matrix.column(t).collect())
        })
        .collect();
    let mut far = vec![0.0; n * n];
    for a in 0..n {
        for b in a + 1..n {
            let both = columns[a].iter().zip(&columns[b]);
            let both = both.filter(|(x, y)| !x.is_nan() && !y.is_nan());
            let (x, y): (Vec<f64>, Vec<f64>) = both.unzip();
            let r = if x.len() < 3 {
                f64::NAN
            } else {
                coefficient(pearson(&x, &y))
            };
            // What is not known counts as unrelated.
            far[a * n + b] = if r.is_nan() { 1.0 } else { 1.0 - r };
            far[b * n + a] = far[a * n + b];
        }
    }
    (cluster(n, |a, b| far[a * n + b]).order, true)
}

/// The views that the table allows.
pub fn views(matrix: &ScoreMatrix, baseline: Option<usize>) -> Vec<View> {
    let tasks = matrix.tasks();
    let (rows, n) = (matrix.systems().len(), tasks.len());
    let all = |f: &dyn Fn(usize, usize) -> f64| -> Vec<f64> {
        (0..rows * n).map(|i| f(i / n, i % n)).collect()
    };
    let ends: Vec<(f64, f64)> = (0..n)
        .map(|t| {
            let present = || matrix.column(t).filter(|x| !x.is_nan());
            (
                present().fold(f64::MAX, f64::min),
                present().fold(f64::MIN, f64::max),
            )
        })
        .collect();
    // Along the colours: the worst score of a task to its best one.
    let along = |s: usize, t: usize| {
        let ((low, high), x) = (ends[t], matrix.row(s)[t]);
        if low == high {
            return if x.is_nan() { x } else { 0.5 };
        }
        let share = (x - low) / (high - low);
        match tasks[t].direction {
            Some(Direction::Lower) => 1.0 - share,
            _ => share,
        }
    };
    let mut found = vec![View {
        name: "scores".into(),
        about: "Scores as measured. Colour runs from the worst (pale) to the best system (strong) of each task".into(),
        values: all(&|s, t| matrix.row(s)[t]),
        tint: all(&along),
        signed: false,
    }];
    let known = tasks.iter().all(|t| {
        let ends = t.chance.zip(t.maximum);
        ends.is_some_and(|(low, high)| low != high)
    });
    let share = |s: usize, t: usize| {
        if known {
            let (low, high) = (
                tasks[t].chance.unwrap_or(0.0),
                tasks[t].maximum.unwrap_or(1.0),
            );
            normalised(matrix.row(s)[t], low, high, false)
        } else {
            100.0 * along(s, t)
        }
    };
    found.push(View {
        name: "normalised".into(),
        about: if known {
            "100 is the best score that can be reached, 0 is guessing".into()
        } else {
            "100 is the best system of each task, 0 the worst (chance and maximum are not stated for every task)".into()
        },
        values: all(&share),
        tint: all(&|s, t| (share(s, t) / 100.0).clamp(0.0, 1.0)),
        signed: false,
    });
    let mut difference = |name: &str, about: String, from: &dyn Fn(usize) -> Option<f64>| {
        let gain = |s: usize, t: usize| {
            let from = from(t).unwrap_or(f64::NAN);
            tasks[t]
                .direction
                .unwrap_or(Direction::Higher)
                .oriented(matrix.row(s)[t] - from)
        };
        let values = all(&gain);
        let most: Vec<f64> = (0..n)
            .map(|t| (0..rows).map(|s| gain(s, t).abs()).fold(0.0, f64::max))
            .collect();
        let tint = all(&|s, t| {
            if most[t] == 0.0 {
                0.0 * gain(s, t)
            } else {
                gain(s, t) / most[t]
            }
        });
        found.push(View {
            name: name.to_owned(),
            about,
            values,
            tint,
            signed: true,
        });
    };
    let experts = tasks.iter().filter(|t| t.expert.is_some()).count();
    if experts > 0 {
        let about = format!(
            "Score less that of the task's own expert, + is better than it (stated for {experts} of {n} tasks)"
        );
        difference("difference to expert", about, &|t| tasks[t].expert);
    }
    if let Some(b) = baseline {
        let about = format!(
            "Score less that of `{}`, + is better than it",
            matrix.systems()[b]
        );
        difference("difference to baseline", about, &|t| matrix.score(b, t));
    }
    found
}

/// The map: a choice of views, of which one is shown, without a script.
pub fn map(results: &Results, matrix: &ScoreMatrix, table: &Table, links: &Links<'_>) -> String {
    let (order, _) = task_order(matrix);
    let systems: Vec<usize> = table.rows.iter().map(|r| r.system).collect();
    let views = views(matrix, table.baseline);
    let mut out = String::from("<div class=\"views\">");
    for (i, view) in views.iter().enumerate() {
        let checked = if i == 0 { " checked" } else { "" };
        let _ = write!(
            out,
            "<input type=\"radio\" name=\"view\" id=\"view{i}\"{checked}><label for=\"view{i}\">{}</label>",
            escape(&view.name)
        );
    }
    let compact = systems.len() * order.len() > MOST;
    if compact {
        let order = serde_json::json!(order);
        let _ = write!(
            out,
            "<script type=\"application/json\" id=\"order\">{order}</script>"
        );
    }
    for (i, view) in views.iter().enumerate() {
        let _ = write!(
            out,
            "<div class=\"view v{i}\"><p class=\"soft\">{}. {}</p>",
            crate::html::rich(&view.about),
            match (compact, view.signed) {
                (false, _) => "A dash is a missing score.",
                (true, false) => "Hatched: no score.",
                (true, true) => "Orange and half as high: below; hatched: no score.",
            }
        );
        if compact {
            out.push_str(&compact::map(matrix, view, &systems, &order));
        } else {
            cells(&mut out, (results, matrix), view, (&systems, &order), links);
        }
        out.push_str("</div>");
    }
    out.push_str("</div>\n");
    out
}

fn cells(
    out: &mut String,
    (results, matrix): (&Results, &ScoreMatrix),
    view: &View,
    (systems, order): (&[usize], &[usize]),
    links: &Links<'_>,
) {
    let n = matrix.tasks().len();
    let _ = write!(
        out,
        "<div class=\"scroll heat up\" tabindex=\"0\" role=\"region\" aria-label=\"Systems by tasks: {}\"><table><thead><tr><th scope=\"col\">system</th>",
        escape(&view.name)
    );
    for &t in order {
        let name = escape(&matrix.tasks()[t].name);
        let lower = match matrix.tasks()[t].direction {
            Some(Direction::Lower) => " ↓",
            _ => "",
        };
        let short = escape(&super::svg::clip(&matrix.tasks()[t].name, 24));
        let _ = write!(
            out,
            "<th scope=\"col\" title=\"{name}\"><a href=\"#task-{t}\">{short}{lower}</a></th>"
        );
    }
    out.push_str("</tr></thead><tbody>");
    let digits: Vec<usize> = (0..n)
        .map(|t| {
            let column: Vec<f64> = (0..systems.len()).map(|s| view.values[s * n + t]).collect();
            match digits(&column) {
                4 => 3,
                2 => 1,
                other => other.min(1),
            }
        })
        .collect();
    let fewest = digits.iter().copied().max().unwrap_or(3);
    for &s in systems {
        let name = escape(&matrix.systems()[s]);
        let _ = write!(out, "<tr><th scope=\"row\" title=\"{name}\">{name}</th>");
        for &t in order {
            let (value, tint) = (view.values[s * n + t], view.tint[s * n + t]);
            let digits = if view.signed { fewest } else { digits[t] };
            let shown = match (value.is_nan(), view.signed) {
                (true, _) => "–".to_owned(),
                (_, true) => format!("{value:+.digits$}"),
                (_, false) => format!("{value:.digits$}"),
            };
            // The first view says what is known of the score; the others would only say it again.
            let (title, link) = if view.name == "scores" {
                (about(results, s, t, links), links.record(s, t))
            } else {
                (String::new(), String::new())
            };
            td(
                out,
                &Cell {
                    shown,
                    title,
                    tint: (!tint.is_nan())
                        .then(|| (if tint < 0.0 { 'h' } else { 'c' }, tint.abs())),
                    link,
                },
            );
        }
        out.push_str("</tr>");
    }
    out.push_str("</tbody></table></div>\n");
}

fn about(results: &Results, system: usize, task: usize, links: &Links<'_>) -> String {
    let Some(cell) = results.cell(system, task) else {
        return String::new();
    };
    let column = &results.tasks[task];
    let mut out = format!(
        "{} on {}: {}",
        results.systems[system].name, column.column.name, cell.value
    );
    if let Some((low, high)) = cell.interval {
        let _ = write!(out, ", interval {low:.4} – {high:.4}");
    } else if let Some(error) = cell.standard_error() {
        let _ = write!(out, ", standard error {error:.4}");
    }
    if let Some(n) = cell.n.or(column.column.size) {
        let _ = write!(out, ", {n} examples");
    }
    if cell.replicates.len() > 1 {
        let _ = write!(out, ", {} runs", cell.replicates.len());
    }
    out + &links.about(system, task)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluate::aggregate::matrix::tests::matrix;

    #[test]
    fn alike_tasks_stand_together_and_views_know_the_good_end() {
        // Tasks 0 and 2 order the systems alike, 1 the other way round; task 1 counts errors, so oriented it agrees.
        let m = matrix(
            &[
                &[1.0, 9.0, 4.0, 5.0],
                &[2.0, 9.5, 3.0, 7.0],
                &[3.0, 8.0, 2.0, 6.0],
                &[4.0, 7.0, 1.0, 8.0],
            ],
            &[],
        );
        let (order, clustered) = task_order(&m);
        assert!(clustered);
        let at = |t: usize| order.iter().position(|x| *x == t).unwrap();
        assert_eq!(at(1).abs_diff(at(2)), 1, "{order:?}");
        let lower = matrix(&[&[1.0, 0.2], &[3.0, 0.4], &[2.0, f64::NAN]], &[0]);
        assert!(!task_order(&lower).1);
        let views = views(&lower, Some(1));
        assert_eq!(views.len(), 3);
        assert_eq!(views[0].tint[0], 1.0, "the lowest error is the best");
        assert_eq!(views[1].values[..3], [100.0, 0.0, 0.0]);
        assert!(views[0].tint[5].is_nan());
        assert_eq!(views[2].values[0], 2.0, "an error less by 2 is better by 2");
        assert_eq!(views[2].tint[..2], [1.0, -1.0]);
    }
}
