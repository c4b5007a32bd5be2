//! A woven model's results: what it scores with the task unknown, with the task known, and with the right expert.

use polyloom::evaluate::board::score::output::Output;
use polyloom::evaluate::board::score::{Options, Scored, score};
use polyloom::tasks::load::Loader;
use polyloom::tasks::spec::TaskSpec;
use polyloom_learn::tasks::evaluate::Readings;
use serde_json::{Value, json};

use super::Entries;
use crate::ui::Failure;

/// A task that a woven model was asked.
pub struct Asked<'a> {
    pub spec: &'a TaskSpec,
    pub loader: &'a Loader<'a>,
    pub hash: &'a str,
    pub key: &'a str,
    /// The model was told the task.
    pub known: bool,
    pub options: &'a Options,
}

/// Scores every reading; the one that was asked for makes the entries, and each says of the others.
pub fn scored(asked: &Asked<'_>, read: &Readings, output: &mut Output) -> Result<Entries, Failure> {
    let of = |answers| score(asked.spec, asked.loader, asked.hash, answers, asked.options);
    let known = of(&read.known)?;
    let right = read.right.as_ref().map(of).transpose()?;
    let unknown = read.unknown.as_ref().map(of).transpose()?;
    let (reading, main) = match (&unknown, asked.known) {
        (Some(unknown), false) => ("task unknown", unknown),
        _ => ("task known", &known),
    };
    let mut entries = output.add(&asked.spec.id, asked.key, main)?;
    for (i, (name, entry)) in entries.iter_mut().enumerate() {
        let value = |s: &[Scored]| s.get(i).and_then(|s| Some(s.metrics.first()?.value));
        let right = right.as_deref().and_then(value);
        let better = main[i].metrics.first().is_none_or(|m| m.higher_is_better);
        let regret = right.zip(value(main)).map(|(right, found)| match better {
            true => right - found,
            false => found - right,
        });
        let said = json!({
            "reading": reading,
            "task_unknown": unknown.as_deref().and_then(value),
            "task_known": value(&known),
            "right_expert": right,
            "regret": regret,
            "router_accuracy": read.router,
            "passes": read.passes,
        });
        output.say(name, "woven", said.clone());
        if let Some(entry) = entry.as_object_mut() {
            entry.insert("woven".into(), said);
        }
    }
    Ok(entries)
}

/// What the table does not show: means over tasks of the other readings.
pub fn told(entries: &Entries) -> Vec<String> {
    let said: Vec<&Value> = entries
        .iter()
        .map(|(_, e)| &e["woven"])
        .filter(|w| w.is_object())
        .collect();
    let Some(first) = said.first() else {
        return Vec::new();
    };
    let mean = |key: &str| {
        let all: Option<Vec<f64>> = said.iter().map(|w| w[key].as_f64()).collect();
        let all = all.filter(|a| !a.is_empty())?;
        Some(all.iter().sum::<f64>() / all.len() as f64)
    };
    let shown = |key: &str| mean(key).map_or_else(|| "n/a".into(), |x| format!("{x:.3}"));
    let unread = said.iter().filter(|w| w["reading"] == "task known").count();
    let reading = match unread {
        0 => "task unknown: the router chooses parts and head".to_owned(),
        n if n == said.len() => {
            "task known: the router chooses parts, the head is given".to_owned()
        }
        n => format!("task unknown; known on the {n} tasks that do not ask for one class"),
    };
    vec![
        format!(
            "{reading}; {:.2} passes of a model an input",
            first["passes"].as_f64().unwrap_or(1.0)
        ),
        format!(
            "mean with task unknown {}, task known {}, right expert {}; router {}, regret {}",
            shown("task_unknown"),
            shown("task_known"),
            shown("right_expert"),
            shown("router_accuracy"),
            shown("regret"),
        ),
    ]
}
