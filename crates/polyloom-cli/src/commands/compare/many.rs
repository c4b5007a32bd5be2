//! More than two systems.

use std::process::ExitCode;

use polyloom::MergeError;
use polyloom::evaluate::board::compare::many::{Blocks, Many, many};
use polyloom::evaluate::board::predictions::Predictions;
use polyloom::evaluate::statistics::friedman::Cliques;
use serde_json::json;

use super::event::{number, pair};
use super::{clipped, columns, names, probability, range, settings, small};
use crate::args_compare::{CompareArgs, OverArg};
use crate::ui::{Failure, Ui};

/// Runs the comparison of all files.
pub fn run(args: &CompareArgs, ui: &Ui) -> Result<ExitCode, Failure> {
    let two_only = [
        ("--slice", !args.slice.is_empty()),
        ("--flips", args.flips > 0),
        ("--fail-if-worse", args.fail_if_worse.is_some()),
        ("--max-flips", args.max_flips.is_some()),
        ("--test", args.test != crate::args_compare::TestArg::Auto),
        (
            "--interval",
            args.interval != crate::args_compare::IntervalArg::Auto,
        ),
    ];
    if let Some((flag, _)) = two_only.iter().find(|(_, given)| *given) {
        let error = MergeError::plan("bad-flag", format!("{flag} is for two files"));
        return Err(error.hint("compare the files two by two").into());
    }
    let columns = columns(args);
    let read = |path| Predictions::read(path, &columns);
    let systems: Vec<Predictions> = args
        .files
        .iter()
        .map(|p| read(p))
        .collect::<Result<_, _>>()?;
    let blocks = args.over.map(|over| match over {
        OverArg::Tasks => Blocks::Tasks,
        OverArg::Examples => Blocks::Examples,
    });
    let found = many(&systems, blocks, &settings(args))?;
    if found.left_out > 0 {
        ui.note(&format!(
            "{} examples that not all files hold were left out",
            found.left_out
        ));
    }
    let names = names(&args.files);
    if ui.json {
        events(&found, &names, args, ui);
    } else {
        ui.answer(&text(&found, &names, args));
    }
    Ok(ExitCode::SUCCESS)
}

fn word(blocks: Blocks) -> &'static str {
    match blocks {
        Blocks::Tasks => "tasks",
        Blocks::Examples => "examples",
    }
}

fn events(found: &Many, names: &[String], args: &CompareArgs, ui: &Ui) {
    for (s, name) in names.iter().enumerate() {
        let rank = &found.ranks[s];
        let scores = found.tasks.iter().zip(&found.scores);
        let scores: serde_json::Map<_, _> =
            scores.map(|(t, row)| (t.clone(), number(row[s]))).collect();
        ui.event(&json!({
            "type": "system", "name": name, "file": args.files[s], "mean": number(found.means[s]),
            "place": number(rank.rank), "place_interval": pair(rank.interval), "best": number(rank.best),
            "mean_rank": number(found.friedman.mean_ranks[s]), "tasks": scores,
        }));
    }
    for p in &found.pairs {
        ui.event(&json!({
            "type": "pair", "first": names[p.first], "second": names[p.second],
            "difference": number(p.difference), "interval": pair(p.interval), "test": "wilcoxon",
            "p": number(p.p), "p_holm": number(p.p_holm), "minimum_detectable": number(p.detectable),
        }));
    }
    let listed = |groups: &Cliques| -> Vec<Vec<&str>> { runs(groups, names) };
    ui.event(&json!({
        "type": "groups", "wilcoxon_holm": listed(&found.groups), "nemenyi": listed(&found.nemenyi),
        "critical_difference": number(found.critical_difference),
    }));
    ui.event(&json!({
        "type": "done", "over": word(found.blocks), "n": found.n, "metric": settings(args).metric.name(),
        "friedman": {"f": number(found.friedman.f), "p": number(found.friedman.f_p), "chi2": number(found.friedman.chi2)},
    }));
}

/// The systems by rank: groups that are not told apart, and singles between them.
fn runs<'n>(groups: &Cliques, names: &'n [String]) -> Vec<Vec<&'n str>> {
    let mut all = Vec::new();
    for place in 0..groups.order.len() {
        let from = groups.groups.iter().filter(|g| g.0 == place);
        let of = |(a, b): &(usize, usize)| (*a..=*b).map(|p| &*names[groups.order[p]]).collect();
        all.extend(from.map(of));
        let covered = |g: &(usize, usize)| (g.0..=g.1).contains(&place);
        if !groups.groups.iter().any(covered) {
            all.push(vec![&*names[groups.order[place]]]);
        }
    }
    all
}

fn text(found: &Many, names: &[String], args: &CompareArgs) -> String {
    let short: Vec<String> = names.iter().map(|n| clipped(n, 18)).collect();
    let width = short
        .iter()
        .map(|n| n.chars().count())
        .max()
        .unwrap_or(6)
        .max(6);
    let percent = format!("{:.0} %", 100.0 * (1.0 - args.alpha));
    let mut out = vec![format!(
        "{:<width$} {:>8} {:>6}  {:<11} {:>6} {:>10}",
        "system",
        settings(args)
            .metric
            .name()
            .chars()
            .take(8)
            .collect::<String>(),
        "place",
        percent,
        "best",
        "mean rank"
    )];
    for &s in &found.groups.order {
        let rank = &found.ranks[s];
        let interval = format!("{:.1} .. {:.1}", rank.interval.low, rank.interval.high);
        out.push(format!(
            "{:<width$} {:>8.4} {:>6} {:<12} {:>6.3} {:>10.3}",
            short[s],
            found.means[s],
            format!("{:.1}", rank.rank).trim_end_matches(".0"),
            format!(" {interval}"),
            rank.best,
            found.friedman.mean_ranks[s]
        ));
    }
    if found.tasks.len() > 1 && names.len() <= 6 {
        out.push(String::new());
        let wide = found
            .tasks
            .iter()
            .map(|t| t.chars().count())
            .max()
            .unwrap_or(4);
        let wide = wide.clamp(4, 22);
        let head: Vec<String> = short
            .iter()
            .map(|n| format!("{:>8}", clipped(n, 8)))
            .collect();
        out.push(format!("{:<wide$} {}", "task", head.join(" ")));
        for (task, row) in found.tasks.iter().zip(&found.scores) {
            let row: Vec<String> = row.iter().map(|x| format!("{x:>8.4}")).collect();
            out.push(format!("{:<wide$} {}", clipped(task, wide), row.join(" ")));
        }
    }
    out.push(String::new());
    let pair =
        |f: usize, s: usize| format!("{} -> {}", clipped(&short[f], 12), clipped(&short[s], 12));
    let wide = found
        .pairs
        .iter()
        .map(|p| pair(p.first, p.second).chars().count());
    let wide = wide.max().unwrap_or(4).max(4);
    out.push(format!(
        "{:<wide$} {:>8}  {:<18} {:>7}  {}",
        "pair",
        "change",
        format!("{percent} interval"),
        "p",
        "least shown"
    ));
    for p in &found.pairs {
        out.push(format!(
            "{:<wide$} {:>+8.4}  {:<18} {:>7}  {}",
            pair(p.first, p.second),
            p.difference,
            range(p.interval, true),
            probability(p.p_holm),
            small(p.detectable)
        ));
    }
    out.push(String::new());
    let said = |groups: &Cliques| {
        let runs: Vec<String> = runs(groups, &short).iter().map(|r| r.join(" = ")).collect();
        runs.join("  |  ")
    };
    out.push(format!("groups not told apart: {}", said(&found.groups)));
    out.push(format!(
        "by the critical difference of mean ranks, {:.3} (Nemenyi): {}",
        found.critical_difference,
        said(&found.nemenyi)
    ));
    out.push(String::new());
    let n = found.n;
    out.push(format!(
        "any difference: p {} (Friedman, Iman and Davenport) over {n} {}",
        probability(found.friedman.f_p),
        word(found.blocks)
    ));
    out.push("p of pairs: Wilcoxon's signed ranks, corrected for the pairs (Holm)".into());
    out.push(format!(
        "place, best: where the {} are drawn again, {} times",
        word(found.blocks),
        args.draws
    ));
    out.join("\n")
}
