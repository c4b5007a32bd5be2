//! The leaderboard as Markdown, CSV and LaTeX, and everything as JSON (`polyloom.report/1`).

use std::fmt::Write as _;

use serde_json::{Map, Value, json};

use super::Report;
use super::table::{Row, shown_places, stars};
use crate::evaluate::aggregate::Direction;
use crate::evaluate::statistics::Interval;

/// Headings and cells as they are shown.
struct Shown {
    heads: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Report {
    fn shown(&self) -> Shown {
        let table = &self.table;
        let percent = 100.0 * self.options.settings.level;
        let mut heads: Vec<String> =
            vec!["rank".into(), "system".into(), table.by.heading().into()];
        if table.draws().is_some() {
            heads.extend([
                format!("{percent:.0} % interval"),
                "ranks".into(),
                "resolved".into(),
            ]);
        }
        if table.baseline.is_some() {
            heads.push("against baseline".into());
        }
        heads.extend(table.columns.iter().map(|c| c.heading.clone()));
        if table.rows.iter().any(|r| r.missing > 0) {
            heads.push("missing".into());
        }
        let rows = table.rows.iter().map(|row| {
            let mut cells = vec![
                row.place.map_or_else(|| "–".into(), |p| p.to_string()),
                row.name.clone(),
                table.shown(row.value),
            ];
            if table.draws().is_some() {
                cells.push(table.shown_interval(row.interval));
                cells.push(shown_places(row.places));
                cells.push(if row.open_to_above {
                    "≈ row above".into()
                } else {
                    String::new()
                });
            }
            if table.baseline.is_some() {
                cells.push(self.versus(row));
            }
            cells.extend(table.columns.iter().map(|c| c.shown(row.system)));
            if table.rows.iter().any(|r| r.missing > 0) {
                cells.push(row.missing.to_string());
            }
            cells
        });
        Shown {
            rows: rows.collect(),
            heads,
        }
    }

    /// A difference to the baseline with its stars.
    pub(super) fn versus(&self, row: &Row) -> String {
        match row.versus {
            _ if self.table.baseline == Some(row.system) => "baseline".into(),
            Some(v) if v.difference.is_finite() => {
                let shown = self.table.shown(v.difference);
                let sign = if v.difference > 0.0 && !shown.starts_with('+') {
                    "+"
                } else {
                    ""
                };
                format!("{sign}{shown}{}", stars(v.p))
            }
            _ => "n/a".into(),
        }
    }

    /// The leaderboard as a Markdown table, with the sentence that belongs to it.
    pub fn markdown(&self) -> String {
        let shown = self.shown();
        let safe = |text: &String| {
            let mut out = String::new();
            for c in text.chars() {
                match c {
                    '|' | '\\' | '`' | '*' | '_' | '[' | ']' | '#' => {
                        out.push('\\');
                        out.push(c);
                    }
                    '<' => out.push_str("&lt;"),
                    '&' => out.push_str("&amp;"),
                    c if c.is_control() => out.push(' '),
                    c => out.push(c),
                }
            }
            out
        };
        let line = |cells: &[String]| {
            let cells: Vec<String> = cells.iter().map(safe).collect();
            format!("| {} |\n", cells.join(" | "))
        };
        let mut out = format!("# {}\n\n", safe(&self.title));
        out.push_str(&line(&shown.heads));
        let rule: Vec<&str> = shown
            .heads
            .iter()
            .map(|h| if h == "system" { "---" } else { "--:" })
            .collect();
        let _ = writeln!(out, "| {} |", rule.join(" | "));
        for row in &shown.rows {
            out.push_str(&line(row));
        }
        let _ = writeln!(out, "\n{}", self.sentence());
        if self.table.baseline.is_some() {
            out.push_str("\n\\* p < 0.05, \\*\\* p < 0.01, \\*\\*\\* p < 0.001 against the baseline (Wilcoxon over tasks, Holm).\n");
        }
        for note in &self.notes {
            let _ = write!(out, "\n- {}\n", note.replace(['\n', '\r'], " "));
        }
        out
    }

    /// The leaderboard as CSV, numbers unrounded, one column per task behind the others.
    pub fn csv(&self) -> String {
        let mut writer = csv::Writer::from_writer(Vec::new());
        let number = |x: f64| {
            if x.is_finite() {
                x.to_string()
            } else {
                String::new()
            }
        };
        let bounds = |i: Option<Interval>| {
            let (low, high) = i.map_or((f64::NAN, f64::NAN), |i| (i.low, i.high));
            [number(low), number(high)]
        };
        let table = &self.table;
        let mut heads: Vec<String> = [
            "rank",
            "system",
            table.by.name(),
            "low",
            "high",
            "rank_low",
            "rank_high",
            "first",
            "not_resolved_from_above",
        ]
        .map(String::from)
        .to_vec();
        if table.baseline.is_some() {
            heads.extend(["difference_to_baseline", "p_holm"].map(String::from));
        }
        heads.extend(table.columns.iter().map(|c| c.heading.clone()));
        heads.push("missing".into());
        heads.extend(
            self.matrix
                .tasks()
                .iter()
                .map(|t| format!("task:{}", t.name)),
        );
        // Writing to memory does not fail, and rows are of one length.
        let mut put = |cells: &[String]| {
            let _ = writer.write_record(cells.iter().map(|c| inert(c)));
        };
        put(&heads);
        for row in &table.rows {
            let mut cells = vec![
                row.place.map_or_else(String::new, |p| p.to_string()),
                row.name.clone(),
                number(row.value),
            ];
            cells.extend(bounds(row.interval));
            cells.extend(match row.places {
                Some((first, last)) => [first.to_string(), last.to_string()],
                None => [String::new(), String::new()],
            });
            cells.push(number(row.best));
            cells.push(if row.open_to_above {
                "1".into()
            } else {
                "0".into()
            });
            if table.baseline.is_some() {
                cells.push(number(row.versus.map_or(f64::NAN, |v| v.difference)));
                cells.push(number(row.versus.map_or(f64::NAN, |v| v.p)));
            }
            cells.extend(table.columns.iter().map(|c| number(c.values[row.system])));
            cells.push(row.missing.to_string());
            cells.extend(self.matrix.row(row.system).iter().map(|x| number(*x)));
            put(&cells);
        }
        let bytes = writer.into_inner().unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// The leaderboard as a LaTeX table (package `booktabs`).
    pub fn latex(&self) -> String {
        let shown = self.shown();
        let line = |cells: &[String]| {
            let cells: Vec<String> = cells.iter().map(|c| latex(c)).collect();
            format!("{} \\\\\n", cells.join(" & "))
        };
        let columns: String = shown
            .heads
            .iter()
            .map(|h| if h == "system" { 'l' } else { 'r' })
            .collect();
        let mut out = format!(
            "% needs \\usepackage{{booktabs}}\n\\begin{{tabular}}{{{columns}}}\n\\toprule\n"
        );
        out.push_str(&line(&shown.heads));
        out.push_str("\\midrule\n");
        for row in &shown.rows {
            out.push_str(&line(row));
        }
        let _ = writeln!(
            out,
            "\\bottomrule\n\\end{{tabular}}\n% {}",
            latex(&self.sentence())
        );
        out
    }

    /// Everything, schema `polyloom.report/1`; `digits` rounds scores to so many significant digits.
    pub fn json(&self) -> Value {
        self.json_rounded(None)
    }

    pub(super) fn json_rounded(&self, digits: Option<u32>) -> Value {
        let number = |x: f64| match digits {
            _ if !x.is_finite() => Value::Null,
            Some(digits) => json!(rounded(x, digits)),
            None => json!(x),
        };
        let pair = |i: Interval| match (number(i.low), number(i.high)) {
            (Value::Null, _) | (_, Value::Null) => Value::Null,
            (low, high) => json!([low, high]),
        };
        let table = &self.table;
        let systems = table.rows.iter().map(|row| {
            let system = &self.results.systems[row.system];
            let further: Map<String, Value> = table
                .columns
                .iter()
                .filter(|c| !c.about.starts_with("cost: "))
                .map(|c| (c.heading.clone(), number(c.values[row.system])))
                .collect();
            let costs: Map<String, Value> = system
                .costs
                .iter()
                .map(|(k, v)| (k.clone(), number(*v)))
                .collect();
            let record = |t: usize| {
                let record = self.results.cell(row.system, t)?.record.as_ref();
                record.map(|p| p.display().to_string())
            };
            let records: Vec<Option<String>> = (0..self.matrix.tasks().len()).map(record).collect();
            json!({
                "name": row.name,
                "records": records.iter().any(Option::is_some).then_some(records),
                "source": system.source.as_ref().map(|p| p.display().to_string()),
                "rank": row.place,
                "value": number(row.value),
                "interval": row.interval.map(pair),
                "rank_interval": row.places,
                "first": number(row.best),
                "second_rank_interval": row.second,
                "resolved_from_above": !row.open_to_above,
                "resolved_from_first": !row.open_to_first,
                "against_baseline": row.versus.map(|v| json!({
                    "difference": number(v.difference), "interval": v.interval.map(pair), "p_holm": number(v.p),
                })),
                "missing": row.missing,
                "further": further,
                "costs": costs,
                "scores": self.matrix.row(row.system).iter().map(|x| number(*x)).collect::<Vec<_>>(),
            })
        });
        let tasks = self.results.tasks.iter().map(|task| {
            json!({
                "name": task.column.name,
                "metric": task.metric,
                "direction": match task.column.direction {
                    Some(Direction::Higher) => "higher",
                    Some(Direction::Lower) => "lower",
                    None => "none",
                },
                "weight": number(task.column.weight),
                "chance": task.column.chance,
                "maximum": task.column.maximum,
                "expert": task.column.expert,
                "n": task.column.size,
                "group": task.column.group,
                "tags": task.tags,
                "hash": task.hash,
            })
        });
        let places: Map<String, Value> = self
            .orders
            .places()
            .into_iter()
            .map(|(name, places)| {
                let in_order: Vec<Option<usize>> =
                    table.rows.iter().map(|r| places[r.system]).collect();
                (name.to_owned(), json!(in_order))
            })
            .collect();
        let difference = self.difference.as_ref().ok().map(|d| {
            json!({
                "friedman_chi2": number(d.friedman.chi2),
                "iman_davenport_p": number(d.friedman.f_p),
                "critical_difference": number(d.difference),
                "systems": d.systems.iter().map(|s| &self.matrix.systems()[*s]).collect::<Vec<_>>(),
                "tasks": d.tasks.len(),
                "mean_ranks": d.friedman.mean_ranks.iter().map(|r| number(*r)).collect::<Vec<_>>(),
            })
        });
        let flips: Vec<Value> = self
            .pairs
            .iter()
            .flat_map(|p| p.tasks.iter().map(move |t| (p, t)))
            .map(|(p, t)| {
                json!({
                    "first": p.first, "second": p.second, "task": t.task, "n": t.n,
                    "difference": number(t.difference), "interval": pair(t.interval),
                    "p_holm": number(t.p_holm), "lost": t.worse.len(), "gained": t.better.len(),
                })
            })
            .collect();
        let continual = self.continual.as_ref().map(|c| {
            let each = c.measures.iter();
            each.map(|m| (m.name.to_owned(), number(m.value)))
                .collect::<Map<String, Value>>()
        });
        let calibration: Map<String, Value> = self
            .reliability
            .iter()
            .map(|r| {
                (
                    r.name.clone(),
                    json!({"l1": number(r.error.l1), "max": number(r.error.max)}),
                )
            })
            .collect();
        json!({
            "schema": "polyloom.report/1",
            "polyloom": env!("CARGO_PKG_VERSION"),
            "title": self.title,
            "rank_by": table.by.name(),
            "level": number(self.options.settings.level),
            "basis": table.draws().map(|d| d.over.name()),
            "second_basis": table.order.second().map(|d| d.over.name()),
            "draws": table.draws().map(|d| d.draws),
            "seed": self.options.settings.seed,
            "baseline": self.options.baseline,
            "sentence": self.sentence(),
            "resolved_pairs": table.resolved_share,
            "tasks": tasks.collect::<Vec<_>>(),
            "systems": systems.collect::<Vec<_>>(),
            "places": places,
            "critical_difference": difference,
            "flips": flips,
            "calibration": calibration,
            "continual": continual,
            "notes": self.notes,
        })
    }
}

fn rounded(x: f64, digits: u32) -> f64 {
    format!("{x:.*e}", digits.saturating_sub(1) as usize)
        .parse()
        .unwrap_or(x)
}

/// A cell that no spreadsheet takes for a formula.
fn inert(cell: &str) -> String {
    let first = cell.chars().next();
    if first.is_some_and(|c| "=+-@\t\r".contains(c)) && cell.parse::<f64>().is_err() {
        format!("'{cell}")
    } else {
        cell.to_owned()
    }
}

fn latex(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\textbackslash{}"),
            '~' => out.push_str("\\textasciitilde{}"),
            '^' => out.push_str("\\textasciicircum{}"),
            '&' | '%' | '$' | '#' | '_' | '{' | '}' => {
                out.push('\\');
                out.push(c);
            }
            '–' => out.push_str("--"),
            '≈' => out.push_str("$\\approx$"),
            'Δ' => out.push_str("$\\Delta$"),
            '<' => out.push_str("$<$"),
            '>' => out.push_str("$>$"),
            c if c.is_control() => out.push(' '),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_signs_stay_signs() {
        assert_eq!(latex("a_b & 5 % \\x"), "a\\_b \\& 5 \\% \\textbackslash{}x");
        assert_eq!(inert("=cmd()"), "'=cmd()");
        assert_eq!(inert("-0.5"), "-0.5");
        assert_eq!(
            (rounded(0.812_300_03, 6), rounded(-1_234.567_89, 6)),
            (0.8123, -1234.57)
        );
    }
}
