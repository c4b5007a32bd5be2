//! What `--show` adds below the leaderboard.

mod views;

use polyloom::MergeError;
use polyloom::evaluate::aggregate::mean::Missing;
use polyloom::evaluate::aggregate::relative::relative;
use polyloom::evaluate::board::stability::{LeftOut, stability};
use polyloom::evaluate::board::views::noise;
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
            Show::Matrix => views::matrix(board, args, ui)?,
            Show::Cross => views::crossed(board, args, ui)?,
            Show::Instructions => views::instructed(board, args, ui)?,
            Show::Stages => views::staged(board, ui)?,
            Show::Coverage => views::covered(board, args, ui)?,
            Show::Costs => views::costs(board, args, ui)?,
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
