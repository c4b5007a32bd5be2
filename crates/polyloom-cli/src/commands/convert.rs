//! `polyloom convert`

use std::process::ExitCode;

use polyloom::MergeError;
use polyloom::plan;
use polyloom::plan::reference::Places;
use polyloom::recipe;
use polyloom_core::DType;

use crate::args::ConvertArgs;
use crate::hub::{self, Brought, Hub};
use crate::ui::{Failure, Ui};

/// Runs the command: a merge of one model by `passthrough`.
pub fn run(args: &ConvertArgs, hub: impl Fn(bool) -> Hub, ui: &Ui) -> Result<ExitCode, Failure> {
    let mut recipe = recipe::from_models("passthrough", None, std::slice::from_ref(&args.model))?;
    recipe.name = Some("convert".into());
    if let Some(word) = &args.dtype {
        let dtype = DType::from_word(word)
            .filter(|d| d.is_float())
            .ok_or_else(|| {
                MergeError::plan("bad-dtype", format!("`{word}` is not a type to write"))
                    .hint("one of f32, bf16, f16, f64, fp8_e4m3, fp8_e5m2")
            })?;
        recipe.out_dtype = Some(dtype);
    }
    let places = Places::default();
    let needs = recipe.models.iter().flat_map(|m| hub::needs(&m.reference));
    if hub(args.out.dry_run).bring(needs, recipe.dialect, &places, ui)? == Brought::Said {
        return Ok(ExitCode::SUCCESS);
    }
    let plan = plan::build(recipe, &places)?;
    if args.out.dry_run {
        ui.answer(&format!("plan: convert {} tensors", plan.outputs.len()));
        return Ok(ExitCode::SUCCESS);
    }
    let target = args
        .out
        .output
        .clone()
        .ok_or_else(|| MergeError::plan("arguments", "no output folder").hint("add -o DIR"))?;
    super::merge::write(&plan, target, &args.out, &args.memory, "converting", ui)
}
