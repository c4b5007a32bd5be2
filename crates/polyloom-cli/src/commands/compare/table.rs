//! Two systems as people read them.

use polyloom::evaluate::board::compare::{Bounds, Comparison, Metric, Paired, Test};
use polyloom::evaluate::board::predictions::Example;

use super::{clipped, names, probability, range, settings, small, verdict};
use crate::args_compare::CompareArgs;

/// The row of the mean over the tasks; its `n` are tasks.
const MEAN: &str = "mean of tasks";

fn task(paired: &Paired) -> &str {
    if paired.task.is_empty() {
        "all"
    } else {
        &paired.task
    }
}

/// The name of a task, or of a slice with its task.
pub fn place(paired: &Paired) -> String {
    match &paired.slice {
        Some((column, value)) => format!("{}, {column}={value}", task(paired)),
        None => task(paired).to_owned(),
    }
}

/// What stands in the first column: slices under their task.
fn row(paired: &Paired) -> String {
    match &paired.slice {
        Some((column, value)) => format!("  {column}={value}"),
        None => task(paired).to_owned(),
    }
}

/// The whole answer.
pub fn text(found: &Comparison, args: &CompareArgs) -> String {
    let of = |t: &Paired| found.slices.iter().filter(|s| s.task == t.task).collect();
    let all: Vec<&Paired> = found
        .tasks
        .iter()
        .flat_map(|t| {
            let slices: Vec<&Paired> = of(t);
            [t].into_iter().chain(slices)
        })
        .collect();
    let widths = all.iter().map(|t| row(t).chars().count());
    let least = if found.overall.is_some() {
        MEAN.len()
    } else {
        4
    };
    let width = widths.max().unwrap_or(4).clamp(least, 22);
    let shown = names(&args.files);
    let (a, b) = (clipped(&shown[0], 10), clipped(&shown[1], 10));
    let percent = 100.0 * (1.0 - args.alpha);
    let interval = format!("{percent:.0} % interval");
    let mut out = vec![format!(
        "{:<width$} {:>6} {a:>8} {b:>8} {:>8}  {interval:<18} {:>7}",
        "task", "n", "change", "p"
    )];
    for t in &all {
        let task = clipped(&row(t), width);
        out.push(format!(
            "{task:<width$} {:>6} {:>a$.4} {:>b$.4} {:>+8.4}  {:<18} {:>7}",
            t.n,
            t.first.mean,
            t.second.mean,
            t.difference,
            range(t.interval, true),
            probability(t.p_holm),
            a = a.chars().count().max(8),
            b = b.chars().count().max(8),
        ));
    }
    if let Some(all) = &found.overall {
        out.push(format!(
            "{:<width$} {:>6} {:>a$.4} {:>b$.4} {:>+8.4}  {:<18} {:>7}",
            MEAN,
            all.tasks,
            all.means[0],
            all.means[1],
            all.difference,
            range(all.interval, true),
            probability(all.p),
            a = a.chars().count().max(8),
            b = b.chars().count().max(8),
        ));
    }
    out.push(String::new());
    out.push(format!(
        "{:<width$} {:>6} {:>8}   least true change that shows 4 times in 5",
        "task", "worse", "better"
    ));
    for t in &all {
        let task = clipped(&row(t), width);
        let (worse, better) = (t.worse.len(), t.better.len());
        out.push(format!(
            "{task:<width$} {worse:>6} {better:>8}   {}",
            small(t.detectable)
        ));
    }
    out.push(String::new());
    if let [t] = &found.tasks[..] {
        let (first, second) = (
            range(t.first.interval, false),
            range(t.second.interval, false),
        );
        out.push(format!("{a} lies in {first}, {b} in {second}"));
    }
    out.push(methods(found, args));
    for t in all.iter().filter(|t| args.flips > 0 && t.slice.is_none()) {
        out.push(String::new());
        out.extend(flips(t, &b, args.flips));
    }
    out.push(String::new());
    out.push(format!("verdict: {}", verdict(found)));
    out.join("\n")
}

/// How interval and p were found.
fn methods(found: &Comparison, args: &CompareArgs) -> String {
    let head = &found.tasks[0];
    let values = match head.test {
        Test::McNemar(_) => "right and wrong answers",
        _ => "scores",
    };
    let test = match head.test {
        Test::McNemar(_) => "McNemar's test",
        Test::PairedT => "the paired t test",
        Test::Wilcoxon => "Wilcoxon's signed ranks",
        Test::Sign => "the sign test",
        Test::Permutation => "the permutation test",
        Test::Bootstrap => "the paired bootstrap",
    };
    let of = match settings(args).metric {
        Metric::Mean => values,
        metric => metric.name(),
    };
    let corrected = match (found.tasks.len() > 1, found.slices.is_empty()) {
        (_, false) => ",\n   corrected for tasks and slices (Holm)",
        (true, _) => ", corrected for the tasks (Holm)",
        _ => "",
    };
    let mean = if found.overall.is_some() {
        "\nmean of tasks: these tasks, other examples of them; p is not corrected"
    } else {
        ""
    };
    let bounds = match head.bounds {
        Bounds::Percentile => "\ninterval: percentiles of the paired bootstrap",
        Bounds::Bca => "\ninterval: BCa of the paired bootstrap",
        Bounds::Auto | Bounds::Student => "",
    };
    format!("p: {test} on {of}{corrected}{mean}{bounds}")
}

fn flips(t: &Paired, new: &str, most: usize) -> Vec<String> {
    let mut out = vec![format!("{}: worse in {new}", task(t))];
    for flip in t.worse.iter().take(most) {
        let (old, new) = (&flip.examples.0, &flip.examples.1);
        let shown = |e: &Example| match &e.texts {
            Some((prediction, _)) => prediction.trim().to_owned(),
            None => format!("{:.4}", e.value),
        };
        let label = old
            .texts
            .as_ref()
            .map_or_else(String::new, |t| format!(", right: {}", t.1.trim()));
        out.push(line(&format!(
            "  {}  {} -> {}{label}",
            flip.id,
            shown(old),
            shown(new)
        )));
    }
    if t.worse.len() > most {
        out.push(format!("  and {} more", t.worse.len() - most));
    }
    out
}

/// One line of a terminal: texts of answers may be long.
fn line(text: &str) -> String {
    let text = text.replace(['\n', '\r', '\t'], " ");
    if text.chars().count() <= 80 {
        return text;
    }
    text.chars().take(77).chain("...".chars()).collect()
}
