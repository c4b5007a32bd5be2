//! `polyloom tasks skill-mix`

use std::path::Path;
use std::process::ExitCode;

use polyloom::MergeError;
use polyloom::tasks::skill_mix::SkillMix;
use serde_json::json;

use crate::args_tasks::SkillMixArgs;
use crate::ui::{Failure, Ui};

/// Writes a task of combined skills.
pub fn run(args: &SkillMixArgs, ui: &Ui) -> Result<ExitCode, Failure> {
    let mix = SkillMix {
        skills: names(&args.skills)?,
        topics: names(&args.topics)?,
        k: args.k,
        count: args.count,
        sentences: args.sentences,
        seed: args.seed,
    };
    let spec = mix.task(&args.id)?;
    let text = super::toml(&spec)?;
    if let Some(file) = &args.output {
        if file.exists() && !args.force {
            return Err(super::make::exists(file));
        }
        std::fs::write(file, &text).map_err(|e| polyloom_core::Error::io(file, "write", e))?;
        ui.answer(&file.display().to_string());
    } else {
        ui.answer(&text);
    }
    ui.event(&json!({
        "type": "done", "task": spec.id, "rows": spec.source.rows.len(), "output": args.output,
    }));
    Ok(ExitCode::SUCCESS)
}

/// The lines of a file that are not empty.
fn names(file: &Path) -> Result<Vec<String>, Failure> {
    let text =
        std::fs::read_to_string(file).map_err(|e| polyloom_core::Error::io(file, "read", e))?;
    let lines = text.lines().map(str::trim).filter(|l| !l.is_empty());
    let names: Vec<String> = lines.map(str::to_owned).collect();
    if names.is_empty() {
        return Err(MergeError::plan("empty", "holds no names")
            .at(file.display().to_string())
            .hint("one name a line")
            .into());
    }
    Ok(names)
}
