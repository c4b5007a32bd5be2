//! `polyloom tasks pool`

use std::process::ExitCode;

use polyloom::MergeError;
use polyloom::evaluate::board::score::answers::{Answers, Columns};
use polyloom::evaluate::board::score::pool::{self, Pooling};
use polyloom::tasks::data::Limits;
use polyloom::tasks::load::Loader;
use serde_json::json;

use super::columns;
use crate::args_tasks::PoolArgs;
use crate::ui::{Failure, Ui};

/// Makes a retrieval task small.
pub fn run(args: &PoolArgs, ui: &Ui) -> Result<ExitCode, Failure> {
    let (catalogue, ids) = super::catalogue(&args.places, std::slice::from_ref(&args.task))?;
    let [id] = &ids[..] else {
        let what = format!(
            "`{}` is {} tasks; one is made small at a time",
            args.task,
            ids.len()
        );
        return Err(MergeError::plan("bad-flag", what).into());
    };
    let entry = catalogue.task(id)?;
    let spec = &entry.spec;
    let names = ["queries.jsonl", "documents.jsonl", "qrels.tsv", TASK];
    for file in names.map(|name| args.output.join(name)) {
        if file.exists() && !args.force {
            return Err(super::make::exists(&file));
        }
    }
    let folder = super::roots(&args.places).folder(entry)?;
    let loader = Loader::new(spec, folder, Limits::default());
    let mut systems = Vec::new();
    for path in &args.rankings {
        systems.push(Answers::read(path, Columns::default())?);
    }
    let how = Pooling {
        split: args.split.clone(),
        negatives: args.negatives,
        queries: args.queries,
        seed: args.seed,
    };
    let kept = pool::pool(spec, &loader, &systems, &how)?;
    let written = pool::write(spec, &loader, &kept, &args.output)?;
    let file = args.output.join(TASK);
    std::fs::write(&file, super::toml(&written.spec)?)
        .map_err(|e| polyloom_core::Error::io(&file, "write", e))?;
    let mut lines =
        vec![["rankings", "nDCG@10, all documents", "kept by the others"].map(String::from)];
    for (path, (before, after)) in args.rankings.iter().zip(&kept.scores) {
        let name = path.display().to_string();
        ui.event(&json!({"type": "system", "file": name, "all": before, "kept": (!after.is_nan()).then_some(after)}));
        lines.push([name, format!("{before:.4}"), score(*after)]);
    }
    ui.say(&columns(&lines));
    let order = match kept.agreement.is_nan() {
        true => String::new(),
        false => format!(
            "; rank correlation of the systems (Spearman) {:.3}",
            kept.agreement
        ),
    };
    ui.say(&format!(
        "{} of {} queries, {} of {} documents kept{order}",
        kept.queries.len(),
        kept.queries_before,
        written.documents,
        written.documents_before
    ));
    ui.answer(&file.display().to_string());
    let agreement = (!kept.agreement.is_nan()).then_some(kept.agreement);
    ui.event(&json!({
        "type": "done", "task": written.spec.id, "output": file, "queries": kept.queries.len(),
        "queries_before": kept.queries_before, "documents": written.documents,
        "documents_before": written.documents_before, "rank_correlation": agreement,
    }));
    Ok(ExitCode::SUCCESS)
}

fn score(x: f64) -> String {
    match x.is_nan() {
        true => "n/a".into(),
        false => format!("{x:.4}"),
    }
}

/// The spec of the small task.
const TASK: &str = "task.toml";
