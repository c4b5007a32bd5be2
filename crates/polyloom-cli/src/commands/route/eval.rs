//! `polyloom route eval`

use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::Ordering;

use polyloom::MergeError;
use polyloom_learn::route::assess::{Assessed, Worth};
use polyloom_learn::route::records::{self, Scores};
use polyloom_learn::route::{Decision, Router};
use serde_json::json;

use super::super::train::given;
use super::{percent, sense};
use crate::args_route::EvalArgs;
use crate::hub::Hub;
use crate::ui::{Failure, Ui};

/// Runs the command.
pub fn run(args: &EvalArgs, hub: &Hub, ui: &Ui) -> Result<ExitCode, Failure> {
    let router = Router::open(&args.router)?;
    let experts = router.experts.len();
    let results = results(args, &router)?;
    if router.experts.iter().all(|e| e.task.is_none()) {
        return super::eval_saved::run(args, &router, &results, hub, ui);
    }
    if !args.tasks.is_empty() || args.sweep.is_some() || args.output.is_some() {
        let what = "--task, --sweep and --output are about routers over saved systems; this one's experts have their own tasks";
        return Err(MergeError::plan("bad-flag", what).into());
    }
    let mut tasks = Vec::new();
    for expert in &router.experts {
        let Some(task) = &expert.task else {
            let what = format!("expert `{}` has no task", expert.name);
            return Err(MergeError::plan("bad-router", what)
                .at(args.router.display().to_string())
                .hint("only routers that were fitted on tasks can be asked about their rows")
                .into());
        };
        tasks.extend(given(std::slice::from_ref(task), &args.places)?);
    }
    let sense = sense(&router, args.model.as_deref(), args.batch, hub, ui)?;
    let stop = super::super::stop_flag()?;
    let bar = ui.running();
    let (mut labels, mut decided) = (Vec::new(), Vec::<Decision>::new());
    let mut worths = Vec::new();
    for (i, task) in tasks.iter().enumerate() {
        let mut watch = |rows| {
            if let Some(bar) = &bar {
                bar.say(&format!("{}: {rows} rows", task.spec.id));
            }
            !stop.load(Ordering::SeqCst)
        };
        let found = sense.task(task, &args.split, args.limit, 0, &mut watch)?;
        let here = router.decide_all(&found.points)?;
        if !results.is_empty() {
            worths.push(worth(&results, &task.spec.id, i, &found.ids, &here, args)?);
        }
        labels.extend(vec![i as u32; here.len()]);
        decided.extend(here);
    }
    if let Some(bar) = bar {
        bar.end();
    }
    let found = Assessed::new(experts, &labels, &decided);
    told(&router, &found, &worths, ui);
    Ok(ExitCode::SUCCESS)
}

/// Scores of each expert, where they are given.
fn results(args: &EvalArgs, router: &Router) -> Result<Vec<Scores>, Failure> {
    if args.results.is_empty() {
        return Ok(Vec::new());
    }
    let mut found: Vec<Option<Scores>> = vec![None; router.experts.len()];
    for given in &args.results {
        let bad = |what: String| MergeError::plan("bad-flag", what).at("--results");
        let Some((name, file)) = given.split_once('=') else {
            return Err(bad(format!("`{given}` is no EXPERT=RESULTS")).into());
        };
        let names: Vec<&str> = router.experts.iter().map(|e| &*e.name).collect();
        let Some(i) = names.iter().position(|n| *n == name) else {
            return Err(bad(format!("the router has no expert `{name}`"))
                .hint(format!("it has {}", names.join(", ")))
                .into());
        };
        found[i] = Some(records::read(Path::new(file))?);
    }
    let lacking = router.experts.iter().zip(&found).find(|(_, f)| f.is_none());
    if let Some((expert, _)) = lacking {
        let what = format!("expert `{}` has no results", expert.name);
        return Err(MergeError::plan("bad-flag", what)
            .at("--results")
            .hint("all experts, or none: EXPERT=RESULTS,EXPERT=RESULTS")
            .into());
    }
    Ok(found.into_iter().flatten().collect())
}

/// What the choices bring on a task.
fn worth(
    results: &[Scores],
    task: &str,
    own: usize,
    ids: &[String],
    decided: &[Decision],
    args: &EvalArgs,
) -> Result<Worth, Failure> {
    let scores: Vec<Vec<Option<f64>>> = ids
        .iter()
        .map(|id| {
            let of = |s: &Scores| s.get(task)?.get(id).copied();
            results.iter().map(of).collect()
        })
        .collect();
    let absent = scores.iter().filter(|row| row[own].is_none()).count();
    if absent > 0 {
        let what = format!(
            "the results of the expert of `{task}` lack {absent} of {} rows of split `{}`",
            ids.len(),
            args.split
        );
        return Err(MergeError::plan("no-records", what)
            .at("--results")
            .hint("evaluate the expert on all rows of this split")
            .into());
    }
    Ok(Worth::new(&scores, own, decided))
}

fn told(router: &Router, found: &Assessed, worths: &[Worth], ui: &Ui) {
    let names: Vec<&str> = router.experts.iter().map(|e| &*e.name).collect();
    let n = names.len();
    let width = names
        .iter()
        .map(|s| s.chars().count())
        .max()
        .unwrap_or(0)
        .max(8);
    let mut lines = vec![format!(
        "{:<width$}  {:>6}  {:>8}  {:>6}",
        "expert", "rows", "right", "none"
    )];
    if !worths.is_empty() {
        lines[0].push_str("   chosen      own     best   regret");
    }
    let mut rows = Vec::new();
    for (i, name) in names.iter().enumerate() {
        let (all, right) = found.of(i);
        let share = (all > 0).then(|| right as f64 / all as f64);
        let mut line = format!(
            "{name:<width$}  {all:>6}  {:>8}  {:>6}",
            percent(share),
            found.confusion[i][n]
        );
        let mut row = json!({"expert": name, "rows": all, "right": right, "accuracy": share, "went_to": found.confusion[i]});
        if let Some(w) = worths.get(i) {
            line.push_str(&format!(
                "  {:>7.4}  {:>7.4}  {:>7.4}  {:>7.4}",
                w.chosen,
                w.own,
                w.best,
                w.regret()
            ));
            row["chosen"] = json!(w.chosen);
            row["own"] = json!(w.own);
            row["best"] = json!(w.best);
            row["regret"] = json!(w.regret());
        }
        lines.push(line);
        rows.push(row);
    }
    lines.push(format!(
        "{:<width$}  {:>6}  {:>8}           mean over experts {}",
        "all rows",
        found.rows(),
        percent(found.accuracy()),
        percent(found.mean())
    ));
    let over =
        |of: fn(&Worth) -> f64| worths.iter().map(of).sum::<f64>() / worths.len().max(1) as f64;
    if !worths.is_empty() {
        lines.push(format!(
            "mean over tasks: chosen {:.4}, own experts {:.4}, regret {:.4}",
            over(|w| w.chosen),
            over(|w| w.own),
            over(Worth::regret)
        ));
    }
    let mistakes: Vec<String> = found
        .confusion
        .iter()
        .enumerate()
        .map(|(i, row)| {
            let mut wrong: Vec<(u64, usize)> = row
                .iter()
                .enumerate()
                .filter(|(j, c)| *j != i && **c > 0)
                .map(|(j, c)| (*c, j))
                .collect();
            wrong.sort_by_key(|(c, j)| (std::cmp::Reverse(*c), *j));
            let name = |j: usize| names.get(j).copied().unwrap_or("(base)");
            let list: Vec<String> = wrong
                .iter()
                .map(|(c, j)| format!("{} {c}", name(*j)))
                .collect();
            (names[i], list)
        })
        .filter(|(_, list)| !list.is_empty())
        .map(|(name, list)| format!("  {name:<width$}  {}", list.join(", ")))
        .collect();
    if !mistakes.is_empty() {
        lines.push("went elsewhere:".to_owned());
        lines.extend(mistakes);
    }
    ui.answer(&lines.join("\n"));
    let mut event = json!({
        "type": "result", "method": router.method().word(), "feature": router.tap.to_string(),
        "rows": found.rows(), "accuracy": found.accuracy(), "mean": found.mean(), "experts": rows,
    });
    if !worths.is_empty() {
        event["chosen"] = json!(over(|w| w.chosen));
        event["own"] = json!(over(|w| w.own));
        event["regret"] = json!(over(Worth::regret));
    }
    ui.event(&event);
}
