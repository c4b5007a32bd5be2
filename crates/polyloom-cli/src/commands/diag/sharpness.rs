//! `polyloom diag sharpness`

use std::process::ExitCode;

use polyloom_learn::tasks::sharpness::{mean, sharpness};
use serde_json::json;

use crate::args_diag::SharpnessArgs;
use crate::commands::train::given;
use crate::ui::{Failure, Ui};

/// Runs the command.
pub fn run(args: &SharpnessArgs, ui: &Ui) -> Result<ExitCode, Failure> {
    polyloom_core::memory::keep_large_buffers();
    let given = given(&args.tasks, &args.places)?;
    let rows = (&*args.split, args.limit);
    let found = sharpness(&args.model, &given, rows, args.rho)?;
    let width = found.iter().map(|f| f.goal.chars().count()).max();
    let width = width.unwrap_or(0).max("target".len());
    ui.answer(&format!(
        "{:<width$}  {:>9}  {:>10}  {:>9}  {:>7}",
        "target", "loss", "sharpness", "gradient", "labels"
    ));
    for one in &found {
        ui.answer(&format!(
            "{:<width$}  {:>9.4}  {:>10.3e}  {:>9.3e}  {:>7}",
            one.goal, one.loss, one.rise, one.gradient, one.labels
        ));
        ui.event(&json!({"type": "sharpness", "found": one}));
    }
    ui.answer(&format!(
        "mean sharpness {:.3e} at rho {}",
        mean(&found),
        args.rho
    ));
    ui.event(&json!({"type": "done", "rho": args.rho, "mean": mean(&found)}));
    Ok(ExitCode::SUCCESS)
}
