//! What changes between two systems example by example: the table of flips, and a browser of the examples.

use std::fmt::Write as _;

use indexmap::IndexMap;

use crate::error::Result;
use crate::evaluate::board::compare::{self, Flip, Paired, Test};
use crate::evaluate::board::predictions::{Example, Predictions};
use crate::evaluate::statistics::multiplicity::{Correction, adjust};
use crate::html::{escape, escape_lines};

/// The flips of a task in one direction.
type Flips = fn(&Paired) -> &Vec<Flip>;

/// Systems compared at most.
const MOST: usize = 8;
/// Characters of a text that are shown.
const LONGEST: usize = 700;

/// The reference against another system, task by task.
pub struct Pair {
    /// Name of the reference ("A").
    pub first: String,
    /// Name of the other ("B").
    pub second: String,
    /// By task.
    pub tasks: Vec<Paired>,
}

/// Compares the reference with the others that share examples with it; p-values are corrected (Holm) over all tasks of
/// all these comparisons. Notes say what could not be compared.
pub fn pairs(
    predictions: &IndexMap<String, Predictions>,
    reference: &str,
    order: &[String],
    alpha: f64,
    notes: &mut Vec<String>,
) -> Result<Vec<Pair>> {
    let Some(first) = predictions.get(reference) else {
        return Ok(Vec::new());
    };
    let others = order
        .iter()
        .filter(|name| *name != reference)
        .filter_map(|name| Some((name, predictions.get(name)?)));
    let options = compare::Options {
        alpha,
        allow_partial: true,
    };
    let mut found = Vec::new();
    let (mut left, mut alone, mut unequal) = (0, 0, 0);
    for (name, second) in others {
        if found.len() == MOST {
            left += 1;
            continue;
        }
        let shares = second.tasks.iter().any(|(task, examples)| {
            let there = first.tasks.get(task);
            there.is_some_and(|t| examples.keys().any(|id| t.contains_key(id)))
        });
        if !shares {
            notes.push(format!("`{reference}` and `{name}` share no example"));
            continue;
        }
        let comparison = compare::compare(first, second, options)?;
        if !comparison.left_out.is_empty() {
            alone += comparison.left_out.len();
            unequal += 1;
        }
        found.push(Pair {
            first: reference.to_owned(),
            second: name.clone(),
            tasks: comparison.tasks,
        });
    }
    if unequal > 0 {
        notes.push(format!(
            "flips: {alone} examples that only one system of a pair has are left out, in {unequal} of {} pairs",
            found.len()
        ));
    }
    if left > 0 {
        notes.push(format!(
            "the flip table holds the {MOST} best systems beside `{reference}`; {left} more have predictions"
        ));
    }
    let raw: Vec<f64> = found
        .iter()
        .flat_map(|p| p.tasks.iter().map(|t| t.p))
        .collect();
    if let Ok(adjusted) = adjust(&raw, Correction::Holm) {
        let tasks = found.iter_mut().flat_map(|p| p.tasks.iter_mut());
        for (task, p) in tasks.zip(adjusted) {
            task.p_holm = p;
        }
    }
    Ok(found)
}

/// The table.
pub fn table(pairs: &[Pair], alpha: f64) -> String {
    let mut out = String::from(
        "<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"Flips\"><table class=\"sortable\"><thead><tr><th scope=\"col\">system</th><th scope=\"col\" class=\"l\">task</th><th scope=\"col\">n</th><th scope=\"col\">score</th><th scope=\"col\">change</th><th scope=\"col\">interval</th><th scope=\"col\" title=\"right in the reference, wrong here\">lost</th><th scope=\"col\" title=\"wrong in the reference, right here\">gained</th><th scope=\"col\">p (Holm)</th><th scope=\"col\" class=\"l\">verdict</th></tr></thead><tbody>",
    );
    for pair in pairs {
        let name = escape(&pair.second);
        for task in &pair.tasks {
            let n = task.n as f64;
            let rate = |count: usize| format!("{count} ({:.1} %)", 100.0 * count as f64 / n);
            let (verdict, class) = match task.difference {
                d if task.p_holm < alpha && d > 0.0 => ("better", "for"),
                d if task.p_holm < alpha && d < 0.0 => ("worse", "mind"),
                _ => ("not resolved", "open"),
            };
            let interval = if task.interval.low.is_nan() {
                "n/a".to_owned()
            } else {
                format!("{:+.3} – {:+.3}", task.interval.low, task.interval.high)
            };
            let _ = write!(
                out,
                "<tr><th scope=\"row\" title=\"{name}\">{name}</th><td class=\"l\">{}</td><td>{}</td><td>{:.4}</td><td>{:+.4}</td><td>{interval}</td><td data-v=\"{}\">{}</td><td data-v=\"{}\">{}</td><td>{}</td><td class=\"l\"><span class=\"tag {class}\">{verdict}</span></td></tr>",
                escape(shown(&task.task)),
                task.n,
                task.second.mean,
                task.difference,
                task.worse.len(),
                rate(task.worse.len()),
                task.better.len(),
                rate(task.better.len()),
                probability(task.p_holm)
            );
        }
    }
    out.push_str("</tbody></table></div>\n");
    let tests: Vec<&str> = [
        (false, "McNemar's test on right and wrong answers"),
        (true, "the paired t test on scores"),
    ]
    .into_iter()
    .filter(|(scores, _)| {
        let mut tasks = pairs.iter().flat_map(|p| &p.tasks);
        tasks.any(|t| matches!(t.test, Test::PairedT) == *scores)
    })
    .map(|(_, words)| words)
    .collect();
    let _ = writeln!(
        out,
        "<p class=\"soft\">p: {}, corrected for all tasks and systems of this table (Holm). Intervals are of the change, example by example.</p>",
        tests.join(" and ")
    );
    out
}

/// The browser: per pair what A has right and B wrong, and the other way round, at most `most` of each.
pub fn browser(pairs: &[Pair], most: usize) -> String {
    let mut out = String::from(
        "<p class=\"only-script\"><label>Show examples that contain <input type=\"search\" id=\"find\" autocomplete=\"off\"></label> <span class=\"soft\" id=\"found\" aria-live=\"polite\"></span></p>\n",
    );
    for pair in pairs {
        let sides: [(&str, &str, Flips); 2] = [
            (&pair.first, &pair.second, |t| &t.worse),
            (&pair.second, &pair.first, |t| &t.better),
        ];
        for (right, wrong, flips) in sides {
            let all: usize = pair.tasks.iter().map(|t| flips(t).len()).sum();
            if all == 0 {
                continue;
            }
            let _ = write!(
                out,
                "<details class=\"browse\"><summary><b>{}</b> better than <b>{}</b>: {all} examples</summary>",
                escape(right),
                escape(wrong)
            );
            // Every task gets its share of the room.
            let tasks = pair.tasks.iter().filter(|t| !flips(t).is_empty()).count();
            let each = (most / tasks.max(1)).max(1);
            let mut given = 0;
            for task in &pair.tasks {
                for flip in flips(task).iter().take(each) {
                    given += 1;
                    card(&mut out, pair, task, flip);
                }
            }
            if given < all {
                let _ = write!(
                    out,
                    "<p class=\"soft\">{given} of {all}; <code>polyloom compare --flips N</code> lists more.</p>"
                );
            }
            out.push_str("</details>\n");
        }
    }
    out
}

fn card(out: &mut String, pair: &Pair, task: &Paired, flip: &Flip) {
    let (a, b) = &flip.examples;
    let _ = write!(
        out,
        "<article class=\"example\"><h3>{} <span class=\"soft\">{}</span></h3><dl>",
        escape(&flip.id),
        escape(shown(&task.task))
    );
    let mut line = |what: &str, text: &str| {
        let _ = write!(
            out,
            "<div><dt>{}</dt><dd>{}</dd></div>",
            escape(what),
            escape_lines(&cut(text))
        );
    };
    if let Some(input) = a.input.as_ref().or(b.input.as_ref()) {
        line("input", input);
    }
    if let Some((_, target)) = a.texts.as_ref().or(b.texts.as_ref()) {
        line("right answer", target);
    }
    for (name, example) in [(&pair.first, a), (&pair.second, b)] {
        line(name, &said(example));
    }
    out.push_str("</dl></article>");
}

fn said(example: &Example) -> String {
    let mark = match example.value {
        1.0 => "✓ ".to_owned(),
        0.0 => "✗ ".to_owned(),
        value => format!("({value:.4}) "),
    };
    let sure = example
        .confidence
        .map_or_else(String::new, |c| format!(" (confidence {c:.2})"));
    match &example.texts {
        Some((prediction, _)) => format!("{mark}{}{sure}", cut(prediction)),
        None => format!("{}{sure}", mark.trim_end()),
    }
}

fn cut(text: &str) -> String {
    let text = text.trim();
    if text.chars().count() <= LONGEST + 20 {
        return text.to_owned();
    }
    let kept: String = text.chars().take(LONGEST).collect();
    let rest = text.chars().count() - LONGEST;
    format!("{kept} … ({rest} more characters)")
}

fn shown(task: &str) -> &str {
    if task.is_empty() { "all" } else { task }
}

/// A p-value as tables print it.
pub fn probability(p: f64) -> String {
    match p {
        p if p.is_nan() => "n/a".into(),
        p if p < 0.0001 => "&lt; 0.0001".into(),
        p => format!("{p:.4}"),
    }
}
