//! `polyloom tasks corrupt`

use std::process::ExitCode;

use polyloom::MergeError;
use polyloom::tasks::corrupt::{Corruption, Kind, Severity, write};
use polyloom::tasks::data::Limits;
use polyloom::tasks::load::Loader;
use serde_json::json;

use crate::args_tasks::{CorruptArgs, CorruptionArg};
use crate::ui::{Failure, Ui};

/// Writes tasks whose images are worse.
pub fn run(args: &CorruptArgs, ui: &Ui) -> Result<ExitCode, Failure> {
    let kind = match args.kind {
        CorruptionArg::Noise => Kind::Noise,
        CorruptionArg::Blur => Kind::Blur,
        CorruptionArg::Contrast => Kind::Contrast,
        CorruptionArg::Occlusion => Kind::Occlusion,
    };
    let severity = Severity::new(args.severity)
        .ok_or_else(|| MergeError::plan("bad-flag", "--severity is 1 to 5"))?;
    let corruption = Corruption {
        kind,
        severity,
        seed: args.seed,
    };
    let (catalogue, named) = super::catalogue(&args.places, &args.tasks)?;
    let mut ids = Vec::new();
    for name in &named {
        match catalogue.task(name) {
            Ok(_) => ids.push(name.clone()),
            Err(unknown) => ids.extend(catalogue.members(name).map_err(|_| unknown)?),
        }
    }
    let roots = super::roots(&args.places);
    for id in &ids {
        let entry = catalogue.task(id)?;
        let loader = Loader::new(&entry.spec, roots.folder(entry)?, Limits::default());
        let written = write::write(
            &entry.spec,
            &loader,
            corruption,
            &args.split,
            &args.output,
            args.force,
        )?;
        for (split, rows, worse) in &written.splits {
            let how = if *worse { kind.word() } else { "as it was" };
            ui.say(&format!("{id}   {split}   {rows} rows   {how}"));
        }
        let splits: Vec<_> = written
            .splits
            .iter()
            .map(|(split, rows, worse)| json!({"split": split, "rows": rows, "worse": worse}))
            .collect();
        ui.event(&json!({
            "type": "task", "task": id, "folder": written.folder, "splits": splits,
            "kind": kind.word(), "severity": args.severity, "seed": args.seed,
        }));
    }
    ui.answer(&args.output.display().to_string());
    ui.event(&json!({"type": "done", "output": args.output, "tasks": ids.len()}));
    Ok(ExitCode::SUCCESS)
}
