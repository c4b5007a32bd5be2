//! What `--show` adds below the leaderboard.

use polyloom::MergeError;
use polyloom::evaluate::aggregate::mean::Missing;
use polyloom::evaluate::aggregate::relative::relative;
use polyloom::evaluate::board::stability::{LeftOut, stability};
use polyloom::evaluate::board::stages::{self, Measure};
use polyloom::evaluate::board::views::{
    Support, by_tags, coverages, cross_capabilities, instructions, noise,
};
use serde_json::json;

use super::tables::{WIDTH, clip, wrapped};
use super::{Board, counted, number};
use crate::args_board::{BoardArgs, Show};
use crate::ui::{Failure, Ui};

/// Shows what is asked for, in the order asked.
pub fn all(board: &Board, args: &BoardArgs, ui: &Ui) -> Result<(), Failure> {
    for show in &args.show {
        let lines = match show {
            Show::Cells => cells(board, args, ui),
            Show::Weakest => weakest(board, args, ui)?,
            Show::Stability => steadiness(board, args, ui)?,
            Show::Noise => noises(board, ui)?,
            Show::Matrix => matrix(board, args, ui)?,
            Show::Cross => crossed(board, args, ui)?,
            Show::Instructions => instructed(board, args, ui)?,
            Show::Stages => staged(board, ui)?,
            Show::Coverage => covered(board, args, ui)?,
            Show::Costs => costs(board, args, ui)?,
        };
        ui.answer("");
        ui.answer(&lines.join("\n"));
    }
    Ok(())
}

/// The first systems of the board.
fn top<'a>(board: &'a Board, args: &BoardArgs, usual: usize) -> &'a [usize] {
    let n = match args.top {
        Some(0) => board.order.systems.len(),
        Some(n) => n.min(board.order.systems.len()),
        None => usual.min(board.order.systems.len()),
    };
    &board.order.systems[..n]
}

fn score(x: f64) -> String {
    match x {
        x if x.is_nan() => "n/a".into(),
        x if x.abs() >= 10.0 => format!("{x:.2}"),
        x => format!("{x:.4}"),
    }
}

fn widest<'a>(names: impl Iterator<Item = &'a str>, least: usize, most: usize) -> usize {
    names
        .map(|n| n.chars().count())
        .max()
        .unwrap_or(0)
        .clamp(least, most)
}

/// Tasks in rows, as many of the best systems as fit in columns; every cell as an event.
fn cells(board: &Board, args: &BoardArgs, ui: &Ui) -> Vec<String> {
    let results = &board.imported.results;
    for (t, task) in results.tasks.iter().enumerate().filter(|_| ui.json) {
        for (s, system) in results.systems.iter().enumerate() {
            let Some(cell) = results.cell(s, t) else {
                continue;
            };
            ui.event(&json!({
                "type": "cell", "system": system.name, "task": task.column.name, "value": number(cell.value),
                "stderr": cell.stderr, "interval": cell.interval, "n": cell.n, "replicates": cell.replicates,
            }));
        }
    }
    let names: Vec<&str> = results
        .tasks
        .iter()
        .map(|t| t.column.name.as_str())
        .collect();
    let name = widest(names.iter().copied(), 4, 26);
    let metric = widest(results.tasks.iter().map(|t| t.metric.as_str()), 6, 16);
    let room = (WIDTH - name - metric - 1) / 11;
    let systems = top(board, args, room);
    let systems = &systems[..systems.len().min(room)];
    let mut head = format!("{:<name$} {:<metric$}", "task", "metric");
    // Without the folder that all share.
    let bare = |s: usize| {
        let name = board.matrix.systems()[s].as_str();
        name.rsplit('/').next().unwrap_or(name)
    };
    for &s in systems {
        head += &format!(" {:>10}", clip(bare(s), 10));
    }
    let mut out = vec![head.trim_end().to_owned()];
    for (t, task) in results.tasks.iter().enumerate() {
        let mut line = format!(
            "{:<name$} {:<metric$}",
            clip(names[t], name),
            clip(&task.metric, metric)
        );
        for &s in systems {
            line += &format!(
                " {:>10}",
                results.cell(s, t).map_or("-".into(), |c| score(c.value))
            );
        }
        out.push(line.trim_end().to_owned());
    }
    if systems.len() < board.order.systems.len() {
        out.push(format!(
            "the first {} of {} systems; all: --format csv or --json",
            systems.len(),
            board.order.systems.len()
        ));
    }
    out
}

fn weakest(board: &Board, args: &BoardArgs, ui: &Ui) -> Result<Vec<String>, Failure> {
    let tasks = board.matrix.tasks();
    if tasks.iter().all(|t| t.expert.is_none()) {
        return Err(MergeError::plan(
            "no-expert",
            "--show weakest: no task has the score of an expert",
        )
        .hint("--expert SYSTEM takes a row of the table, --expert FILE a file with task and value")
        .into());
    }
    let systems = top(board, args, 25);
    let name = widest(
        systems.iter().map(|&s| board.matrix.systems()[s].as_str()),
        6,
        30,
    );
    let mut out = vec![format!(
        "{:<name$}  {:>8}  {:>7}  {:>7}  weakest task",
        "system", "delta_m", "wins", "least"
    )];
    for &s in systems {
        let found = relative(&board.matrix, s);
        let (task, least) = found
            .worst
            .map_or(("n/a", f64::NAN), |(t, x)| (tasks[t].name.as_str(), x));
        let percent = |x: f64| {
            if x.is_nan() {
                "n/a".into()
            } else {
                format!("{:+.1} %", 100.0 * x)
            }
        };
        let wins = format!("{:.0} %", 100.0 * found.win_fraction);
        ui.event(&json!({
            "type": "weakest", "system": board.matrix.systems()[s], "delta_m": number(found.delta_m),
            "win_fraction": number(found.win_fraction), "task": task, "gain": number(least),
        }));
        let room = WIDTH.saturating_sub(name + 30).max(8);
        out.push(format!(
            "{:<name$}  {:>8}  {wins:>7}  {:>7}  {}",
            clip(&board.matrix.systems()[s], name),
            percent(found.delta_m),
            percent(least),
            clip(task, room)
        ));
    }
    out.push(
        "gains over the task's own expert: their mean, how many are above 0, the least".into(),
    );
    Ok(out)
}

fn steadiness(board: &Board, args: &BoardArgs, ui: &Ui) -> Result<Vec<String>, Failure> {
    let missing: Missing = args.order.missing.into();
    let by = board.order.ranked.by;
    if by.from_answers() {
        let what = format!("--show stability: {by} reads single answers, not the scores of tasks");
        return Err(MergeError::plan("bad-flag", what)
            .hint("name another way of counting first: --aggregate bt")
            .into());
    }
    let (tasks, systems) = stability(by, &board.matrix, missing)?;
    let mut out = Vec::new();
    for (what, mut list) in [("task", tasks), ("system", systems)] {
        for left in &list {
            ui.event(&json!({
                "type": "left_out", "what": what, "name": left.name, "tau": number(left.tau),
                "moved": left.moved.0, "system": board.matrix.systems()[left.moved.1], "first_changes": left.first,
            }));
        }
        let firsts = list.iter().filter(|l| l.first).count();
        let same = list.iter().filter(|l| l.moved.0 == 0).count();
        if list.is_empty() {
            continue;
        }
        let effect = if same == list.len() {
            ""
        } else {
            " Most effect:"
        };
        out.push(wrapped(&format!(
            "One {what} left out, {}: the same order {}, another first place {}.{effect}",
            counted(list.len(), "time"),
            counted(same, "time"),
            counted(firsts, "time"),
        )));
        list.sort_by(|a, b| b.moved.0.cmp(&a.moved.0).then(a.tau.total_cmp(&b.tau)));
        let name = widest(list.iter().take(5).map(|l| l.name.as_str()), 6, 30);
        for left in list.iter().take(5).filter(|l| l.moved.0 > 0) {
            out.push(moved(board, left, name));
        }
    }
    Ok(out)
}

fn moved(board: &Board, left: &LeftOut, name: usize) -> String {
    let places = if left.moved.0 == 1 {
        "1 place".to_owned()
    } else {
        format!("{} places", left.moved.0)
    };
    let room = WIDTH - name - 32;
    format!(
        "  without {:<name$}  tau {:.3}  {:>9}  {}",
        clip(&left.name, name),
        left.tau,
        places,
        clip(&board.matrix.systems()[left.moved.1], room)
    )
    .trim_end()
    .to_owned()
}

fn noises(board: &Board, ui: &Ui) -> Result<Vec<String>, Failure> {
    let results = &board.imported.results;
    let found = noise(results)?;
    if found.is_empty() {
        return Err(
            MergeError::plan("no-replicates", "--show noise: no score was repeated")
                .hint("a long table with a column seed, run, checkpoint or step")
                .into(),
        );
    }
    let kind = board.imported.replicate.as_deref().unwrap_or("run");
    let ordered = matches!(kind, "checkpoint" | "step");
    let names = found
        .iter()
        .map(|n| results.tasks[n.task].column.name.as_str());
    let name = widest(names, 4, 34);
    let last = if ordered { "  monotone" } else { "" };
    let mut out = vec![format!(
        "{:<name$}  systems  deviation  mean/dev  systems/{kind}{last}",
        "task"
    )];
    let wide = kind.len() + 8;
    for n in &found {
        let task = &results.tasks[n.task].column.name;
        ui.event(&json!({
            "type": "noise", "task": task, "over": kind, "systems": n.systems, "deviation": number(n.deviation),
            "signal_to_noise": number(n.signal_to_noise), "spread": number(n.spread), "monotonicity": number(n.monotonicity),
        }));
        let last = if ordered {
            format!("  {:>8.2}", n.monotonicity)
        } else {
            String::new()
        };
        out.push(format!(
            "{:<name$}  {:>7}  {:>9.4}  {:>8.1}  {:>wide$.1}{last}",
            clip(task, name),
            n.systems,
            n.deviation,
            n.signal_to_noise,
            n.spread
        ));
    }
    out.push(wrapped(&format!(
        "deviation: of one system over its {kind}s. systems/{kind}: how far systems lie apart, in that unit; near 1 the task cannot tell them."
    )));
    Ok(out)
}

fn matrix(board: &Board, args: &BoardArgs, ui: &Ui) -> Result<Vec<String>, Failure> {
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

fn crossed(board: &Board, args: &BoardArgs, ui: &Ui) -> Result<Vec<String>, Failure> {
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

fn instructed(board: &Board, args: &BoardArgs, ui: &Ui) -> Result<Vec<String>, Failure> {
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

fn staged(board: &Board, ui: &Ui) -> Result<Vec<String>, Failure> {
    let found = stages::stages(&board.imported.results)?;
    let mut out = vec!["stages of learning, in the order of the rows".to_owned()];
    for Measure { name, value, .. } in found.measures {
        ui.event(&json!({"type": "stages", "measure": name, "value": number(value)}));
        out.push(format!("{name:<30}  {:>8}", score(value)));
    }
    Ok(out)
}

fn covered(board: &Board, args: &BoardArgs, ui: &Ui) -> Result<Vec<String>, Failure> {
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

fn costs(board: &Board, args: &BoardArgs, ui: &Ui) -> Result<Vec<String>, Failure> {
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
