//! The report as one HTML page.

use std::fmt::Write as _;
use std::path::Path;

use super::links::Links;
use super::table::{Row, shown_places, stars};
use super::{Report, calibration, continual, coverage, flips, heat, intervals, wins};
use crate::evaluate::aggregate::Direction;
use crate::html::{Page, escape, rich, script_json};

const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");
/// Above so many cells the embedded table keeps six digits of each score.
const MANY: usize = 5_000;

/// A section under way: heading, anchor, content.
struct Sections {
    nav: String,
    out: String,
}

impl Sections {
    fn add(&mut self, id: &str, heading: &str, content: &str) {
        let heading = escape(heading);
        let _ = write!(self.nav, "<a href=\"#{id}\">{heading}</a> ");
        let _ = writeln!(
            self.out,
            "<section id=\"{id}\" aria-labelledby=\"{id}-h\"><h2 id=\"{id}-h\">{heading}</h2>{content}</section>"
        );
    }
}

fn soft(text: &str) -> String {
    format!("<p class=\"soft\">{}</p>", rich(text))
}

fn drawing(svg: &str, label: &str) -> String {
    if svg.is_empty() {
        return String::new();
    }
    format!(
        "<div class=\"scroll draw\" tabindex=\"0\" role=\"region\" aria-label=\"{}\">{svg}</div>",
        escape(label)
    )
}

/// A drawing for desks and one for phones, of which one is shown.
fn two_widths(chart: impl Fn(bool) -> String, label: &str) -> String {
    format!(
        "<div class=\"wide\">{}</div><div class=\"narrow\">{}</div>",
        drawing(&chart(false), label),
        drawing(&chart(true), label)
    )
}

impl Report {
    /// One HTML page: readable without a network, without script, on a phone, in print, without colour. Records are
    /// named; [`Self::html_in`] links them.
    pub fn html(&self) -> String {
        self.html_in(None)
    }

    /// The same for a page that will stand in a folder, with links from there to the records that results name.
    pub fn html_in(&self, folder: Option<&Path>) -> String {
        let links = Links::from(&self.results, folder);
        let mut s = Sections {
            nav: String::new(),
            out: String::new(),
        };
        s.add("leaderboard", "Leaderboard", &self.leaderboard());
        s.add(
            "intervals",
            "How sure is the order?",
            &self.interval_section(),
        );
        s.add("scores", "Scores by task", &self.heat_section(&links));
        if self.matrix.systems().len() > 2 {
            s.add(
                "difference",
                "Critical difference",
                &self.difference_section(),
            );
        }
        if self.matrix.systems().len() > 1 {
            let content = soft(
                "Per cent of the tasks on which the row's system beats the column's, ties left out. Blue wins more; orange and underlined loses more than half.",
            ) + &wins::matrix(&self.table, &self.orders.preferences);
            s.add("wins", "Who beats whom", &content);
            let content = soft(&self.orders.sentence(&self.matrix, &self.table))
                + &self.orders.table(&self.table)
                + &soft("▲ further up, ▼ further down than on the leaderboard.");
            s.add("orders", "Other ways to order", &content);
        }
        if let Some(skills) = &self.skills {
            let content = soft(&format!(
                "Mean over the tasks of each {} ({}).",
                skills.tag, skills.scale
            )) + &skills.section(&self.table);
            s.add("skills", &format!("By {}", skills.tag), &content);
        }
        if !self.reliability.is_empty() {
            let content = soft(
                "Bars: share of right answers among those of such confidence; on the dashed line confidence is what comes true. The strip below says how many answers there are.",
            ) + &calibration::diagrams(&self.reliability);
            s.add("calibration", "Is confidence earned?", &content);
            let content = soft(
                "If only the answers that a system is surest of are kept, how many of them are right.",
            ) + &drawing(
                &calibration::selective(&self.reliability),
                "Accuracy by share kept",
            )
            .replacen("draw", "draw fit", 1);
            s.add("selective", "Accuracy of the surest answers", &content);
        }
        if !self.coverage.is_empty() {
            let content = soft(
                "Share of problems on which at least one of k attempts passes (estimated without bias).",
            ) + "<div class=\"scroll draw fit\" tabindex=\"0\" role=\"region\" aria-label=\"Coverage\">"
                + &coverage::section(&self.coverage)
                + "</div>";
            s.add("coverage", "Coverage", &content);
        }
        if !self.pairs.is_empty() {
            let reference = &self.pairs[0].first;
            let content = soft(&format!(
                "Every system against `{reference}`, on the same examples. Lost: `{reference}` does better on them; gained: the other way round."
            )) + &flips::table(&self.pairs, self.options.alpha());
            s.add("flips", "What changes", &content);
            s.add(
                "examples",
                "Examples",
                &flips::browser(&self.pairs, self.options.examples),
            );
        }
        if let Some(found) = &self.continual {
            s.add(
                "continual",
                "After each stage of learning",
                &continual::section(found),
            );
        }
        s.add("tasks", "Tasks and sources", &self.source_section(&links));
        let title = escape(&self.title);
        let cells = self.matrix.systems().len() * self.matrix.tasks().len();
        let data = self.json_rounded((cells > MANY).then_some(6));
        let filled = self.results.filled();
        // The usual title says the size already.
        let mut size = match self.options.title {
            Some(_) => format!("{}. ", super::size(&self.matrix)),
            None => String::new(),
        };
        if filled < cells {
            let _ = write!(size, "{filled} of {cells} scores known. ");
        }
        let mut body = format!(
            "<header><h1>{title}</h1><p class=\"soft\">{size}Made by <code>polyloom report</code> {}.</p><p class=\"lead\">{}</p><nav aria-label=\"Sections\">{}</nav></header>\n<main>\n{}</main>\n",
            env!("CARGO_PKG_VERSION"),
            rich(&intervals::sentence(&self.table)),
            s.nav,
            s.out
        );
        let _ = writeln!(
            body,
            "<script type=\"application/json\" id=\"data\">{}</script>",
            script_json(&data)
        );
        for (id, text) in [
            ("markdown", self.markdown()),
            ("latex", self.latex()),
            ("csv", self.csv()),
        ] {
            // Text of a JSON string: nothing in it can end the element.
            let _ = writeln!(
                body,
                "<script type=\"application/json\" id=\"as-{id}\">{}</script>",
                script_json(&text.into())
            );
        }
        Page {
            title: &self.title,
            style: STYLE,
            body: &body,
            script: Some(SCRIPT),
        }
        .whole()
    }

    fn leaderboard(&self) -> String {
        let table = &self.table;
        let percent = 100.0 * self.options.settings.level;
        let mut out = String::from(
            "<p class=\"only-script buttons\">Copy as <button type=\"button\" data-copy=\"markdown\">Markdown</button> <button type=\"button\" data-copy=\"latex\">LaTeX</button> <button type=\"button\" data-copy=\"csv\">CSV</button> <button type=\"button\" data-copy=\"json\">JSON</button> <span id=\"copied\" role=\"status\"></span></p><div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"Leaderboard\"><table class=\"sortable board\"><thead><tr>",
        );
        let th = |out: &mut String, heading: &str, title: &str, class: &str| {
            let title = if title.is_empty() {
                String::new()
            } else {
                format!(" title=\"{}\"", escape(title))
            };
            let _ = write!(
                out,
                "<th scope=\"col\"{title}{class}>{}</th>",
                escape(heading)
            );
        };
        th(&mut out, "system", "", "");
        th(&mut out, "rank", "", " aria-sort=\"ascending\"");
        th(&mut out, table.by.heading(), &table.by.words(), "");
        if let Some(draws) = table.draws() {
            th(
                &mut out,
                &format!("{percent:.0} % interval"),
                draws.over.words(),
                "",
            );
            th(
                &mut out,
                "ranks",
                &format!("places over the draws: {}", draws.over.words()),
                "",
            );
            th(
                &mut out,
                "first",
                "share of the draws in which the system is first",
                "",
            );
        }
        if let Some(second) = table.order.second() {
            th(
                &mut out,
                "ranks, examples",
                &format!("places over the draws: {}", second.over.words()),
                "",
            );
        }
        if table.baseline.is_some() {
            th(
                &mut out,
                "against baseline",
                "difference; stars: Wilcoxon over tasks, Holm",
                "",
            );
        }
        for column in &table.columns {
            let lower = match column.good {
                Some(Direction::Lower) => "\u{a0}↓",
                _ => "",
            };
            th(
                &mut out,
                &format!("{}{lower}", column.heading),
                &column.about,
                "",
            );
        }
        let gaps = table.rows.iter().any(|r| r.missing > 0);
        if gaps {
            th(&mut out, "missing", "counted tasks without a score", "");
        }
        out.push_str("</tr></thead><tbody>");
        let number = |x: f64| {
            if x.is_finite() {
                x.to_string()
            } else {
                String::new()
            }
        };
        for row in &table.rows {
            let name = escape(&row.name);
            let td = |out: &mut String, value: f64, shown: &str| {
                let _ = write!(
                    out,
                    "<td data-v=\"{}\">{}</td>",
                    number(value),
                    escape(shown)
                );
            };
            let mark = match row.mark() {
                "" => "",
                _ => {
                    " <span class=\"open\" title=\"not resolved from the row above\">≈<span class=\"aside\"> not resolved from the row above</span></span>"
                }
            };
            let _ = write!(
                out,
                "<tr><th scope=\"row\" title=\"{name}\"><a href=\"#from-{}\">{name}</a></th><td data-v=\"{}\">{}{mark}</td>",
                row.system,
                row.place.map_or_else(String::new, |p| p.to_string()),
                row.place.map_or_else(|| "–".into(), |p| p.to_string())
            );
            let counted = self.matrix.tasks().len();
            let _ = write!(
                out,
                "<td data-v=\"{}\" title=\"{} of {counted} tasks measured; hashes and records: Scores by task, Tasks and sources\">{}</td>",
                number(row.value),
                self.matrix
                    .row(row.system)
                    .iter()
                    .filter(|x| !x.is_nan())
                    .count(),
                escape(&table.shown(row.value))
            );
            if table.draws().is_some() {
                let low = row.interval.map_or(f64::NAN, |i| i.low);
                td(&mut out, low, &table.shown_interval(row.interval));
                let low = row.places.map_or(f64::NAN, |p| p.0 as f64);
                td(&mut out, low, &shown_places(row.places));
                let shown = match row.best {
                    x if x.is_nan() || row.places.is_none() => "n/a".into(),
                    x => format!("{:.0} %", 100.0 * x),
                };
                td(&mut out, row.best, &shown);
            }
            if table.order.second().is_some() {
                let low = row.second.map_or(f64::NAN, |p| p.0 as f64);
                td(&mut out, low, &shown_places(row.second));
            }
            if table.baseline.is_some() {
                let difference = row.versus.map_or(f64::NAN, |v| v.difference);
                let shown = self.versus(row);
                match row.versus {
                    Some(v) => {
                        let over = v.interval.map_or_else(String::new, |i| {
                            format!(
                                "; {percent:.0} % of the draws: {}",
                                table.shown_interval(Some(i))
                            )
                        });
                        let _ = write!(
                            out,
                            "<td data-v=\"{}\" title=\"p = {:.4} (Holm){}{}\">{}</td>",
                            number(difference),
                            v.p,
                            if stars(v.p).is_empty() {
                                ", not resolved"
                            } else {
                                ""
                            },
                            escape(&over),
                            escape(&shown)
                        );
                    }
                    None => td(&mut out, difference, &shown),
                }
            }
            for column in &table.columns {
                td(
                    &mut out,
                    column.values[row.system],
                    &column.shown(row.system),
                );
            }
            if gaps {
                td(&mut out, row.missing as f64, &row.missing.to_string());
            }
            out.push_str("</tr>");
        }
        out.push_str("</tbody></table></div>\n");
        let mut about = format!("Ordered by {}.", table.by.words());
        if let Some(draws) = table.draws() {
            let _ = write!(
                about,
                " Intervals, ranks and ≈ (not resolved from the row above) from {} draws: {}.",
                draws.draws,
                draws.over.words()
            );
        }
        if let Some(second) = table.order.second() {
            let _ = write!(about, " “Ranks, examples”: {}.", second.over.words());
        }
        if let Some(baseline) = &self.options.baseline {
            let _ = write!(
                about,
                " Against `{baseline}`: Wilcoxon's signed-rank test over tasks, Holm-corrected; * p < 0.05, ** p < 0.01, *** p < 0.001."
            );
            // All differences of one sign: the least p of the exact test, times the comparisons.
            let others = table.rows.iter().filter(|r| r.versus.is_some()).count() as f64;
            let tasks = table.rows.iter().filter_map(|r| r.versus).map(|v| v.tasks);
            let least = 2.0 * 0.5f64.powi(tasks.max().unwrap_or(0) as i32) * others;
            if least >= 0.05 {
                let _ = write!(
                    about,
                    " With so few tasks and {others} comparisons no p below {:.2} can come out, so there is no star.",
                    least.min(1.0)
                );
            }
        }
        out.push_str(&soft(&about));
        out
    }

    fn interval_section(&self) -> String {
        let mut out = two_widths(
            |narrow| intervals::chart(&self.table, narrow),
            "Ranked interval plot",
        );
        let mut about = intervals::sentence(&self.table);
        if self.table.rows.iter().any(|r| r.open_to_first) {
            about.push_str(" Hollow: not resolved from the first.");
        }
        let low = self.table.rows.first().and_then(|r| r.interval);
        let overlaps = |r: &Row| {
            let both = r.interval.zip(low);
            !r.open_to_first && both.is_some_and(|(a, b)| a.high >= b.low && b.high >= a.low)
        };
        if self.table.rows.iter().skip(1).any(overlaps) {
            about.push_str(" Systems whose intervals overlap can be told apart all the same: draws move them together, and differences less than either.");
        }
        out.push_str(&soft(&about));
        out
    }

    fn heat_section(&self, links: &Links<'_>) -> String {
        let clustered = heat::task_order(&self.matrix).1;
        let order = if clustered {
            "Systems in the order of the leaderboard; tasks that rate the systems alike stand together (average linkage on 1 − correlation)."
        } else {
            "Systems in the order of the leaderboard."
        };
        soft(order) + &heat::map(&self.results, &self.matrix, &self.table, links)
    }

    fn difference_section(&self) -> String {
        match &self.difference {
            Ok(found) => {
                two_widths(
                    |narrow| match narrow {
                        true => found.narrow(&self.matrix),
                        false => found.chart(&self.matrix),
                    },
                    "Critical difference diagram",
                ) + &soft(&found.sentence(&self.matrix))
            }
            Err(why) => soft(&format!("Not drawn: {why}.")),
        }
    }
}
