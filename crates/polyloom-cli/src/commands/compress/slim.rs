//! `polyloom compress slim`

use std::process::ExitCode;

use polyloom_core::writer::FolderOptions;
use polyloom_learn::compress::slim::{Asked, By, Settings, take};
use serde_json::json;

use super::given;
use crate::args_compress::{ByArg, SlimArgs};
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
        by: match args.by {
            ByArg::Scores => By::Scores,
            ByArg::Losses => By::Losses,
        },
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
        let beside = beside(&settings, Some(&form.mean));
        ui.say(&format!(
            "{mark} width {}: {cost:.1} % of the work{beside}",
            form.width
        ));
    }
    let form = &made.tried[made.taken];
    for (place, goal) in made.goals.iter().enumerate() {
        let beside = beside(&settings, form.gains.get(place));
        ui.say(&format!(
            "  {goal}: head width {}{beside}",
            form.heads[place]
        ));
    }
    let (before, after) = made.parameters;
    ui.say(&format!("  {before} -> {after} parameters"));
    ui.event(&json!({"type": "done", "output": made.folder, "goals": made.goals, "tried": made.tried, "taken": made.taken, "parameters": [before, after]}));
    ui.answer(&made.folder.display().to_string());
    Ok(ExitCode::SUCCESS)
}

/// How much better than the whole model, in words.
fn beside(settings: &Settings, gain: Option<&f64>) -> String {
    match gain.filter(|g| g.is_finite()) {
        Some(gain) => format!(
            ", {} {:+.1} % beside the whole model's",
            settings.by.word(),
            100.0 * gain
        ),
        None => String::new(),
    }
}
