//! `polyloom compress slim`

use std::process::ExitCode;

use polyloom_core::writer::FolderOptions;
use polyloom_learn::compress::slim::{Asked, Settings, take};
use serde_json::json;

use super::given;
use crate::args_compress::SlimArgs;
use crate::ui::{Failure, Ui};

/// Runs the command.
pub fn run(args: SlimArgs, ui: &Ui) -> Result<ExitCode, Failure> {
    polyloom_core::memory::keep_large_buffers();
    let (asked, tasks) = match args.budget {
        Some(budget) => (
            Asked::Budget(budget, args.prefer),
            given(&args.tasks, &args.places)?,
        ),
        None => (
            Asked::Widths(args.width.unwrap_or(1.0), args.head_width),
            Vec::new(),
        ),
    };
    let settings = Settings {
        model: args.model,
        asked,
        split: args.split,
        limit: args.limit,
    };
    let options = FolderOptions {
        force: args.force,
        no_sync: args.no_sync,
        ..FolderOptions::default()
    };
    let made = take(&settings, &tasks, &args.output, options)?;
    for (place, form) in made.tried.iter().enumerate() {
        let mark = if place == made.taken { ">" } else { " " };
        let cost = 100.0 * form.cost;
        let loss = match form.mean.is_finite() {
            true => format!(", losses {:.3} of the whole model's", form.mean),
            false => String::new(),
        };
        ui.say(&format!(
            "{mark} width {}: {cost:.1} % of the work{loss}",
            form.width
        ));
    }
    let form = &made.tried[made.taken];
    for (place, goal) in made.goals.iter().enumerate() {
        let loss = form.losses.get(place);
        let loss = loss.map_or_else(String::new, |l| {
            format!(", loss {l:.3} of the whole model's")
        });
        ui.say(&format!("  {goal}: head width {}{loss}", form.heads[place]));
    }
    let (before, after) = made.parameters;
    ui.say(&format!("  {before} -> {after} parameters"));
    ui.event(&json!({"type": "done", "output": made.folder, "goals": made.goals, "tried": made.tried, "taken": made.taken, "parameters": [before, after]}));
    ui.answer(&made.folder.display().to_string());
    Ok(ExitCode::SUCCESS)
}
