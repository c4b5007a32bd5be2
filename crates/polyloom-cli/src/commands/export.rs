//! `polyloom export`

use std::process::ExitCode;

use polyloom::MergeError;
use polyloom_core::writer::OutputFile;
use polyloom_learn::Error;
use polyloom_learn::calibrate::told;
use polyloom_learn::export::{self, ML_OPSET, OPSET, Onnx, Parts, Port};
use polyloom_learn::tasks::system::no_head;
use polyloom_learn::tasks::{Base, Head, System};
use serde_json::{Value, json};

use crate::args_export::{ExportArgs, Format};
use crate::ui::{Failure, Ui};

/// Runs the command.
pub fn run(args: &ExportArgs, ui: &Ui) -> Result<ExitCode, Failure> {
    // One format so far; the flag says which one a script relies on.
    let Format::Onnx = args.format;
    OutputFile::check(&args.output, args.force)?;
    let system = System::find(&args.model, None, None)?;
    let place = system.folder.display().to_string();
    let other = |what: &str| {
        MergeError::plan("no-export", format!("cannot be written as ONNX: it is {what}"))
            .at(place.clone())
            .hint("models of tables are exported: folders with table.json, as `polyloom train TABLE` writes them")
    };
    if system.adapter.is_some() || system.base != system.folder {
        return Err(other("an adapter, or heads, beside a base").into());
    }
    if system.woven {
        return Err(other("a woven model, whose weights depend on the input").into());
    }
    let base = Base::open(&system.base, None)?;
    let model = &base.opened.model;
    let Some(preparation) = &model.table else {
        return Err(other("no model of tables").into());
    };
    base.opened.warnings.iter().for_each(|w| ui.warning(w));
    let mut heads = Vec::new();
    for task in system.tasks()? {
        let head = system.head(&task, "")?;
        let (head, _) = head.ok_or_else(|| no_head(&system, &task, ""))?;
        heads.push(head);
    }
    let parts = Parts {
        trunk: &model.trunk,
        weights: &model.weights,
        preparation,
        heads: &heads,
        interval: args.interval,
    };
    let made = export::onnx(&parts).map_err(|e| match e {
        Error::Merge(error) => Error::Merge(error.at(place)),
        other => other,
    })?;
    made.save(&args.output, args.force, !args.no_sync)?;
    heads.iter().filter_map(told).for_each(|n| ui.note(&n));
    tell(args, &made, &heads, ui);
    Ok(ExitCode::SUCCESS)
}

/// Says what was written.
fn tell(args: &ExportArgs, made: &Onnx, heads: &[Head], ui: &Ui) {
    let output = args.output.display().to_string();
    ui.answer(&output);
    let (inputs, outputs) = (made.inputs.len(), made.outputs.len());
    ui.note(&format!(
        "{inputs} inputs, {outputs} outputs of {} heads, {} bytes, ai.onnx {OPSET}, ai.onnx.ml {ML_OPSET}",
        heads.len(),
        made.size()
    ));
    let each = |ports: &[Port]| -> Vec<Value> {
        let one = |p: &Port| json!({"name": p.name, "type": p.shape(), "meaning": p.meaning});
        ports.iter().map(one).collect()
    };
    ui.event(&json!({
        "type": "done", "output": output, "inputs": each(&made.inputs), "outputs": each(&made.outputs),
    }));
}
