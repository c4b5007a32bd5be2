//! Results as tables for people.

use serde_json::{Value, json};

use super::Entries;
use crate::args_eval::EvalArgs;

/// Rows of the table; more are in the results file.
const SHOWN: usize = 24;

/// One line of the table.
struct Line {
    task: String,
    metric: String,
    value: String,
    interval: String,
    n: String,
    against: String,
}

fn number(value: &Value) -> String {
    match value.as_f64() {
        None => "n/a".into(),
        Some(x) if x.abs() >= 100.0 => format!("{x:.1}"),
        Some(x) if x.abs() >= 10.0 => format!("{x:.2}"),
        Some(x) => format!("{x:.3}"),
    }
}

fn line(task: &str, name: &str, entry: &Value, expert: &Value) -> Line {
    let interval = match (&entry["interval"][0], &entry["interval"][1]) {
        (Value::Null, _) | (_, Value::Null) => "n/a".into(),
        (low, high) => format!("{} .. {}", number(low), number(high)),
    };
    let against = match (entry["value"].as_f64(), expert.as_f64()) {
        (Some(x), Some(b)) => format!("{:+.1}", points(x, b)),
        _ => String::new(),
    };
    Line {
        task: task.into(),
        metric: name.into(),
        value: number(&entry["value"]),
        interval,
        n: entry["n"].to_string(),
        against,
    }
}

/// How far a score is from that of the reference, in hundredths.
fn points(x: f64, reference: f64) -> f64 {
    100.0 * (x - reference)
}

/// The results of one system.
pub fn table(entries: &[(String, Value)], args: &EvalArgs) -> String {
    let mut lines = Vec::new();
    for (task, entry) in entries.iter().take(SHOWN) {
        lines.push(line(
            task,
            entry["metric"].as_str().unwrap_or(""),
            entry,
            &entry["expert"],
        ));
        if entries.len() <= 12 {
            for (name, other) in entry["metrics"].as_object().into_iter().flatten() {
                lines.push(line("", name, other, &Value::Null));
            }
        }
    }
    lines.extend(mean(entries));
    let against = lines.iter().any(|l| !l.against.is_empty());
    let width = |of: fn(&Line) -> &str, least: usize| {
        lines
            .iter()
            .map(|l| of(l).chars().count())
            .max()
            .unwrap_or(0)
            .max(least)
    };
    let interval = format!("{:.0} % interval", 100.0 * (1.0 - args.alpha));
    let (metric, value) = (width(|l| &l.metric, 6), width(|l| &l.value, 6));
    let (range, n) = (width(|l| &l.interval, interval.len()), width(|l| &l.n, 4));
    let left =
        80usize.saturating_sub(metric + value + range + n + 8 + if against { 16 } else { 0 });
    let task = width(|l| &l.task, 4).min(left.max(8));
    let row = |l: [&str; 6]| {
        let head: String = shortened(l[0], task);
        let text = format!(
            "{head:<task$}  {:<metric$}  {:>value$}  {:<range$}  {:>n$}  {:>14}",
            l[1], l[2], l[3], l[4], l[5]
        );
        text.trim_end().to_owned()
    };
    let last = if against { "vs single-task" } else { "" };
    let mut out = vec![row(["task", "metric", "value", &interval, "n", last])];
    out.extend(
        lines
            .iter()
            .map(|l| row([&l.task, &l.metric, &l.value, &l.interval, &l.n, &l.against])),
    );
    if entries.len() > SHOWN {
        out.insert(
            out.len() - usize::from(mean(entries).is_some()),
            format!("... and {} more in the results file", entries.len() - SHOWN),
        );
    }
    out.join("\n")
}

/// The end of a long name: what tells tasks of one kind apart.
fn shortened(name: &str, width: usize) -> String {
    let n = name.chars().count();
    if n <= width {
        return name.to_owned();
    }
    let rest: String = name.chars().skip(n + 3 - width.max(4)).collect();
    format!("...{rest}")
}

/// Mean over tasks of one metric, those without a value left out and counted.
fn mean(entries: &[(String, Value)]) -> Option<Line> {
    let (_, first) = entries.first()?;
    if entries.len() < 2 || entries.iter().any(|(_, e)| e["metric"] != first["metric"]) {
        return None;
    }
    let values: Vec<f64> = entries
        .iter()
        .filter_map(|(_, e)| e["value"].as_f64())
        .collect();
    let missing = entries.len() - values.len();
    let mean = |list: &[f64]| list.iter().sum::<f64>() / list.len() as f64;
    let gaps: Vec<f64> = entries
        .iter()
        .filter_map(|(_, e)| Some(points(e["value"].as_f64()?, e["expert"].as_f64()?)))
        .collect();
    Some(Line {
        task: "mean".into(),
        metric: if missing > 0 {
            format!("({missing} n/a left out)")
        } else {
            String::new()
        },
        value: if values.is_empty() {
            "n/a".into()
        } else {
            number(&json!(mean(&values)))
        },
        interval: String::new(),
        n: String::new(),
        against: if gaps.len() == entries.len() {
            format!("{:+.1}", mean(&gaps))
        } else {
            String::new()
        },
    })
}

/// Values of several systems, one a row; tasks are columns, in blocks of 80 characters.
pub fn matrix(systems: &[(String, Entries)]) -> String {
    let mut tasks: Vec<&str> = Vec::new();
    for (task, _) in systems.iter().flat_map(|(_, e)| e) {
        if !tasks.contains(&&**task) {
            tasks.push(task);
        }
    }
    let one_metric = |task: &str| -> Option<&Value> {
        let found = systems.iter().flat_map(|(_, e)| e).find(|(t, _)| t == task);
        found.map(|(_, e)| &e["metric"])
    };
    let first = tasks.first().and_then(|t| one_metric(t));
    let with_mean = tasks.len() > 1 && tasks.iter().all(|t| one_metric(t) == first);
    let widest = systems
        .iter()
        .map(|(n, _)| n.chars().count())
        .max()
        .unwrap_or(0);
    let name = widest.clamp(6, 28);
    let columns: Vec<(String, usize)> = tasks
        .iter()
        .map(|task| {
            let last = shortened(task.rsplit('/').next().unwrap_or(task), 10);
            let width = last.chars().count().max(6);
            (last, width)
        })
        .chain(with_mean.then(|| ("mean".to_owned(), 6)))
        .collect();
    let mut blocks: Vec<Vec<usize>> = vec![Vec::new()];
    let mut used = name;
    for (i, (_, width)) in columns.iter().enumerate() {
        if used + width + 2 > 80 && used > name {
            blocks.push(Vec::new());
            used = name;
        }
        used += width + 2;
        if let Some(block) = blocks.last_mut() {
            block.push(i);
        }
    }
    let cell = |entries: &Entries, i: usize| match tasks.get(i) {
        Some(task) => {
            let found = entries.iter().find(|(t, _)| t == task);
            found.map_or("-".into(), |(_, e)| number(&e["value"]))
        }
        None => match mean(entries) {
            Some(line) if entries.len() == tasks.len() => line.value,
            _ => "-".into(),
        },
    };
    let mut lines = Vec::new();
    for block in blocks {
        let head: String = block
            .iter()
            .map(|&i| format!("  {:>w$}", columns[i].0, w = columns[i].1))
            .collect();
        lines.push(format!("{:<name$}{head}", "system"));
        for (system, entries) in systems {
            let cells: String = block
                .iter()
                .map(|&i| format!("  {:>w$}", cell(entries, i), w = columns[i].1))
                .collect();
            lines.push(format!("{:<name$}{cells}", shortened(system, name)));
        }
    }
    lines.join("\n")
}
