//! `polyloom route query`

use std::process::ExitCode;

use polyloom::MergeError;
use polyloom_learn::route::{Decision, Router};
use serde_json::json;

use super::super::run::{self, Input};
use super::sense;
use crate::args_route::QueryArgs;
use crate::hub::Hub;
use crate::ui::{Failure, Ui};

/// Runs the command.
pub fn run(args: &QueryArgs, hub: &Hub, ui: &Ui) -> Result<ExitCode, Failure> {
    let router = Router::open(&args.router)?;
    let mut inputs: Vec<Input> = args.inputs.iter().map(|t| (t.clone(), None)).collect();
    if let Some(file) = &args.file {
        let (column, second) = (args.column.as_deref(), args.column2.as_deref());
        inputs.extend(run::read(file, column, second)?);
    }
    if inputs.is_empty() {
        return Err(MergeError::plan("empty", "there is no input").into());
    }
    let sense = sense(&router, args.model.as_deref(), args.batch, hub, ui)?;
    let alone = inputs.len() == 1;
    for part in inputs.chunks(args.batch) {
        let mut given = Vec::with_capacity(part.len());
        for input in part {
            given.push(run::given(sense.reader(), input)?);
        }
        for (input, decision) in part.iter().zip(sense.decide(&router, &given)?) {
            tell(&router, input, &decision, args.top, alone, ui);
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn tell(router: &Router, input: &Input, decision: &Decision, top: usize, alone: bool, ui: &Ui) {
    let name = |i: usize| &*router.experts[i].name;
    let mut lines: Vec<String> = decision
        .top(top)
        .into_iter()
        .map(|i| format!("{}\t{:.4}", name(i), decision.weights[i]))
        .collect();
    if lines.is_empty() {
        lines.push("(base)\t-".to_owned());
    }
    let shown: Vec<String> = match alone {
        true => lines,
        false => lines.iter().map(|l| format!("{l}\t{}", input.0)).collect(),
    };
    ui.answer(&shown.join("\n"));
    let weights: serde_json::Map<_, _> = router
        .experts
        .iter()
        .zip(&decision.weights)
        .map(|(e, w)| (e.name.clone(), json!(run::short(*w))))
        .collect();
    ui.event(&json!({
        "type": "route", "input": input.0, "expert": decision.expert.map(name),
        "confidence": run::short(decision.confidence), "weights": weights,
    }));
}
