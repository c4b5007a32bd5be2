//! Tasks, the files that scores come from, and notes: what every number goes back to.

use std::fmt::Write as _;

use super::Report;
use super::links::{Links, short};
use crate::evaluate::aggregate::Direction;
use crate::html::{escape, rich};

/// Per-cell records listed at most.
const RECORDS: usize = 500;

impl Report {
    pub(super) fn source_section(&self, links: &Links<'_>) -> String {
        let mut out = String::from(
            "<details open><summary>Tasks</summary><div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"Tasks\"><table class=\"sortable\"><thead><tr><th scope=\"col\">task</th><th scope=\"col\" class=\"l\">metric</th><th scope=\"col\" class=\"l\">better</th><th scope=\"col\">systems</th><th scope=\"col\">n</th><th scope=\"col\">chance</th><th scope=\"col\">expert</th><th scope=\"col\" class=\"l\">tags</th><th scope=\"col\" class=\"l\">hash</th></tr></thead><tbody>",
        );
        if self.results.tasks.len() > 60 {
            out = out.replacen("<details open>", "<details>", 1);
        }
        let or = |x: Option<f64>| x.map_or_else(|| "–".to_owned(), |x| x.to_string());
        for (t, task) in self.results.tasks.iter().enumerate() {
            let name = escape(&task.column.name);
            let measured = self.matrix.column(t).filter(|x| !x.is_nan()).count();
            let n = task.column.size.or_else(|| {
                let cells = (0..self.results.systems.len()).filter_map(|s| self.results.cell(s, t));
                cells.filter_map(|c| c.n).max()
            });
            let tags: Vec<String> = task
                .tags
                .iter()
                .map(|(tag, values)| format!("{tag}: {}", values.join(", ")))
                .collect();
            let hash = task.hash.as_deref().unwrap_or("–");
            let _ = write!(
                out,
                "<tr id=\"task-{t}\"><th scope=\"row\" title=\"{name}\">{name}</th><td class=\"l\">{}</td><td class=\"l\">{}</td><td>{measured}</td><td>{}</td><td>{}</td><td>{}</td><td class=\"l\">{}</td><td class=\"l\"><code title=\"{}\">{}</code></td></tr>",
                escape(&task.metric),
                match task.column.direction {
                    Some(Direction::Higher) => "higher",
                    Some(Direction::Lower) => "lower",
                    None => "–",
                },
                n.map_or_else(|| "–".into(), |n| n.to_string()),
                or(task.column.chance),
                or(task.column.expert),
                escape(&tags.join("; ")),
                escape(hash),
                escape(&short(hash))
            );
        }
        out.push_str("</tbody></table></div></details>\n");
        out.push_str("<details><summary>Where the scores come from</summary><ul class=\"files\">");
        let file = |path: &std::path::Path| {
            let name = format!("<code>{}</code>", escape(&path.display().to_string()));
            match links.to(Some(path)) {
                Some(link) => format!("<a href=\"{}\">{name}</a>", escape(&link)),
                None => name,
            }
        };
        for (s, system) in self.results.systems.iter().enumerate() {
            let from = system.source.as_deref();
            let from = from.map_or_else(|| "not stated".to_owned(), file);
            let _ = write!(
                out,
                "<li id=\"from-{s}\"><b>{}</b>: {from}</li>",
                escape(&system.name)
            );
        }
        out.push_str("</ul>");
        let records: Vec<String> = (0..self.results.systems.len())
            .flat_map(|s| (0..self.results.tasks.len()).map(move |t| (s, t)))
            .filter_map(|(s, t)| {
                let record = self.results.cell(s, t)?.record.as_deref()?;
                Some(format!(
                    "<li>{} on {}: {}</li>",
                    escape(&self.results.systems[s].name),
                    escape(&self.results.tasks[t].column.name),
                    file(record)
                ))
            })
            .collect();
        if !records.is_empty() {
            let more = records.len().saturating_sub(RECORDS);
            let _ = write!(
                out,
                "<p>Records, example by example:</p><ul class=\"files\">{}</ul>",
                records[..records.len().min(RECORDS)].concat()
            );
            if more > 0 {
                let _ = write!(out, "<p class=\"soft\">and {more} more.</p>");
            }
        }
        out.push_str("</details>\n");
        if !self.notes.is_empty() {
            out.push_str("<h3>Notes</h3><ul>");
            for note in &self.notes {
                let _ = write!(out, "<li>{}</li>", rich(note));
            }
            out.push_str("</ul>\n");
        }
        out
    }
}
