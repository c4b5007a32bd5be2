//! Other readings of the table: tags, instructions, stages, attempts, costs.

use polyloom::MergeError;
use polyloom::evaluate::board::stages::{self, Measure};
use polyloom::evaluate::board::views::{
    Support, by_tags, coverages, cross_capabilities, instructions,
};
use serde_json::json;

use super::{score, top, widest};
use crate::args_board::BoardArgs;
use crate::commands::board::tables::{WIDTH, clip, wrapped};
use crate::commands::board::{Board, number};
use crate::ui::{Failure, Ui};

pub(super) fn matrix(board: &Board, args: &BoardArgs, ui: &Ui) -> Result<Vec<String>, Failure> {
    let [first, second] = &args.by[..] else {
        return Err(
            MergeError::plan("bad-argument", "--show matrix needs two tags")
                .hint("--by capability,domain")
                .into(),
        );
    };
    let found = by_tags(&board.imported.results, first, second)?;
    let mut out = Vec::new();
    let name = widest(
        found.rows.iter().map(String::as_str),
        first.chars().count(),
        20,
    );
    let column = widest(found.columns.iter().map(String::as_str), 7, 12);
    let per = ((WIDTH - name) / (column + 1)).max(1);
    let width = found.columns.len();
    for &s in top(board, args, 3) {
        let system = &board.matrix.systems()[s];
        if !out.is_empty() {
            out.push(String::new());
        }
        out.push(clip(system, WIDTH));
        for from in (0..width).step_by(per) {
            let some = from..(from + per).min(width);
            let heads = some
                .clone()
                .map(|c| format!(" {:>column$}", clip(&found.columns[c], column)));
            out.push(format!(
                "{:<name$}{}",
                clip(first, name),
                heads.collect::<String>()
            ));
            for (r, row) in found.rows.iter().enumerate() {
                let mut line = format!("{:<name$}", clip(row, name));
                for c in some.clone() {
                    let cell = found.cells[s][r * width + c];
                    let text = match cell {
                        Support::NoTask => "".into(),
                        Support::Unsupported => "none".into(),
                        Support::Score(x, k, n) if k < n => format!("{}*", score(x)),
                        Support::Score(x, ..) => score(x),
                    };
                    line += &format!(" {text:>column$}");
                }
                out.push(line.trim_end().to_owned());
            }
        }
        for (at, cell) in found.cells[s].iter().enumerate().filter(|_| ui.json) {
            let (value, support) = match cell {
                Support::NoTask => continue,
                Support::Unsupported => (None, "unsupported"),
                Support::Score(x, k, n) => (Some(*x), if k < n { "partial" } else { "full" }),
            };
            ui.event(&json!({
                "type": "part", "system": system, first: found.rows[at / width], second: found.columns[at % width],
                "value": value, "support": support,
            }));
        }
    }
    out.push(String::new());
    out.push(wrapped("none: tasks that the system has no score on (unsupported); *: some of them; blank: no such task"));
    Ok(out)
}

pub(super) fn crossed(board: &Board, args: &BoardArgs, ui: &Ui) -> Result<Vec<String>, Failure> {
    let tag = args.by.first().map_or("capability", String::as_str);
    let found = cross_capabilities(&board.imported.results, tag)?;
    let systems = top(board, args, 25);
    let name = widest(
        systems.iter().map(|&s| board.matrix.systems()[s].as_str()),
        6,
        36,
    );
    let mut out = vec![format!(
        "{:<name$}  below both  near weaker  near stronger  above both",
        "system"
    )];
    for &s in systems {
        let c = found[s];
        ui.event(&json!({
            "type": "cross", "system": board.matrix.systems()[s], "below_both": c.below_both, "near_weaker": c.near_weaker,
            "near_stronger": c.near_stronger, "above_both": c.above_both,
        }));
        out.push(format!(
            "{:<name$}  {:>10}  {:>11}  {:>13}  {:>10}",
            clip(&board.matrix.systems()[s], name),
            c.below_both,
            c.near_weaker,
            c.near_stronger,
            c.above_both
        ));
    }
    out.push(wrapped("scores on tasks of two capabilities against the same system's scores on tasks of each alone"));
    Ok(out)
}

pub(super) fn instructed(board: &Board, args: &BoardArgs, ui: &Ui) -> Result<Vec<String>, Failure> {
    let k = args
        .k
        .first()
        .map_or(3, |k| usize::try_from(*k).unwrap_or(usize::MAX));
    let found = instructions(&board.imported, k)?;
    let systems = top(board, args, 25);
    let name = widest(
        systems.iter().map(|&s| board.matrix.systems()[s].as_str()),
        6,
        40,
    );
    let mut out = vec![format!(
        "{:<name$}  {:>9}  {:>9}",
        "system", "gain %", "spread"
    )];
    for &s in systems {
        let system = &board.matrix.systems()[s];
        ui.event(&json!({
            "type": "instructions", "system": system, "gain": number(found.gain_model[s]), "spread": number(found.spread_model[s]),
            "hits": found.hits[s],
        }));
        out.push(format!(
            "{:<name$}  {:>+9.2}  {:>9.4}",
            clip(system, name),
            found.gain_model[s],
            found.spread_model[s]
        ));
    }
    out.push(String::new());
    out.push(format!(
        "{:<11}  {:>9}  {:>9}  {:>9}",
        "instruction", "gain %", "spread", "hits"
    ));
    for (i, gain) in found.gain_instruction.iter().enumerate() {
        ui.event(&json!({
            "type": "instruction", "number": i + 1, "gain": number(*gain), "spread": number(found.spread_instruction[i]),
            "hits": number(found.hits_all[i]),
        }));
        out.push(format!(
            "{:<11}  {gain:>+9.2}  {:>9.4}  {:>9.2}",
            i + 1,
            found.spread_instruction[i],
            found.hits_all[i]
        ));
    }
    out.push(wrapped(&format!("gain: over the mean of all systems (instructions). spread: over the instructions (systems), less is steadier. hits: share of systems and tasks where the instruction is among the best {k}")));
    Ok(out)
}

pub(super) fn staged(board: &Board, ui: &Ui) -> Result<Vec<String>, Failure> {
    let found = stages::stages(&board.imported.results)?;
    let mut out = vec!["stages of learning, in the order of the rows".to_owned()];
    for Measure { name, value, .. } in found.measures {
        ui.event(&json!({"type": "stages", "measure": name, "value": number(value)}));
        out.push(format!("{name:<30}  {:>8}", score(value)));
    }
    Ok(out)
}

pub(super) fn covered(board: &Board, args: &BoardArgs, ui: &Ui) -> Result<Vec<String>, Failure> {
    let found = coverages(&board.imported, &args.k)?;
    let results = &board.imported.results;
    let mut out = Vec::new();
    for c in &found {
        let (system, task) = (
            &results.systems[c.system].name,
            &results.tasks[c.task].column.name,
        );
        ui.event(&json!({
            "type": "coverage", "system": system, "task": task, "attempts": c.attempts, "pass_at_k": c.points,
            "law": c.law.as_ref().map(|l| json!({"a": number(l.a), "b": number(l.b)})), "held_out_error": number(c.held_out),
            "spread": c.spread.as_ref().map(|s| json!({"a": number(s.a), "b": number(s.b)})),
        }));
        let points: Vec<String> = c
            .points
            .iter()
            .map(|(k, p)| format!("pass@{k} {p:.3}"))
            .collect();
        out.push(wrapped(&format!(
            "{system} on {task}: {}",
            points.join("  ")
        )));
        if let Some(law) = &c.law {
            let most = 10 * c.attempts;
            out.push(wrapped(&format!(
                "  exp({:.3} k^{:.3}) from the smaller ks: off by at most {:.3} at the larger ones; pass@{most} would be {:.3}",
                law.a, law.b, c.held_out, law.at(most as f64)
            )));
        }
        if let Some(spread) = &c.spread {
            let most = 10 * c.attempts;
            out.push(wrapped(&format!(
                "  chances spread as beta({}, {}) over the examples: pass@{most} would be {:.3}",
                shape(spread.a),
                shape(spread.b),
                spread.at(most)
            )));
        }
    }
    Ok(out)
}

/// A shape of a beta distribution; above a million the examples are all alike.
fn shape(x: f64) -> String {
    match x {
        x if x > 1e6 => "inf".into(),
        x => format!("{x:.3}"),
    }
}

pub(super) fn costs(board: &Board, args: &BoardArgs, ui: &Ui) -> Result<Vec<String>, Failure> {
    let results = &board.imported.results;
    let mut names: Vec<&str> = Vec::new();
    for name in results.systems.iter().flat_map(|s| s.costs.keys()) {
        if !names.contains(&name.as_str()) {
            names.push(name);
        }
    }
    if names.is_empty() {
        return Err(
            MergeError::plan("no-costs", "--show costs: the files name no costs")
                .hint("columns params, bytes, seconds or tokens; lm-eval and MTEB state some")
                .into(),
        );
    }
    names.truncate(5);
    let systems = top(board, args, 25);
    let name = widest(
        systems.iter().map(|&s| results.systems[s].name.as_str()),
        6,
        24,
    );
    let first = &board.order.ranked;
    let mut head = format!("{:<name$}  {:>9}", "system", clip(first.by.name(), 9));
    names
        .iter()
        .for_each(|n| head += &format!(" {:>8}", clip(n, 8)));
    let mut out = vec![head];
    for &s in systems {
        let system = &results.systems[s];
        let mut line = format!(
            "{:<name$}  {:>9}",
            clip(&system.name, name),
            score(first.standing.value[s])
        );
        for n in &names {
            line += &format!(
                " {:>8}",
                system.costs.get(*n).map_or("-".into(), |x| short(*x))
            );
        }
        out.push(line);
        ui.event(&json!({"type": "costs", "system": system.name, "costs": system.costs}));
    }
    Ok(out)
}

/// 1.5 G, 220 M, 36.2.
fn short(x: f64) -> String {
    for (size, unit) in [(1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")] {
        if x.abs() >= size {
            return format!("{:.1} {unit}", x / size);
        }
    }
    format!("{x:.1}")
}
