//! `polyloom diff`

use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};

use polyloom::MergeError;
use polyloom::diff::{self, Detail, IntruderRule, Options};
use polyloom::plan::reference::Places;
use polyloom::recipe::{Dialect, ModelRef};
use serde_json::json;

use crate::args_diff::{DiffArgs, Per};
use crate::hub::{self, Hub, Need, Role};
use crate::ui::{Failure, Ui};

/// Runs the command.
pub fn run(args: &DiffArgs, hub: impl Fn(bool) -> Hub, ui: &Ui) -> Result<ExitCode, Failure> {
    if let Some(file) = args.html.as_ref().filter(|f| f.exists() && !args.force) {
        return Err(MergeError::plan("output-exists", "exists already")
            .at(file.display().to_string())
            .hint("--force replaces it")
            .into());
    }
    let parent = args.html.as_ref().and_then(|f| f.parent());
    if let Some(folder) = parent.filter(|p| !p.as_os_str().is_empty() && !p.is_dir()) {
        return Err(MergeError::plan("output-folder", "is not a folder")
            .at(folder.display().to_string())
            .hint("create it first; the page is written there")
            .into());
    }
    let places = Places {
        recipe_folder: None,
        cache: args.cache.clone(),
    };
    let references = args
        .base
        .iter()
        .chain(&args.experts)
        .map(|text| ModelRef::parse(text).map_err(|e| MergeError::plan("bad-reference", e)))
        .collect::<Result<Vec<_>, _>>()?;
    // Without a base everything named is an adapter.
    let needs = references.iter().flat_map(hub::needs).map(|need| Need {
        role: if args.base.is_none() {
            Role::Adapter
        } else {
            need.role
        },
        ..need
    });
    hub(false).bring(needs, Dialect::Loom, &places, ui)?;
    let inputs = diff::open(args.base.as_deref(), &args.experts, &places)?;
    let stop = super::stop_flag()?;
    let mut options = Options {
        top: args.top_k,
        spectral: (args.spectral || args.no_spectral).then_some(args.spectral),
        intruders: IntruderRule {
            k: args.intruder_k,
            epsilon: args.epsilon,
        },
        include: args.include.clone(),
        exclude: args.exclude.clone(),
        stop: Some(&stop),
        ..Options::default()
    };
    let work = inputs.work(&options)?;
    let bar = ui.progress("comparing", work * 4);
    let done = AtomicU64::new(0);
    let heard = |elements: u64, name: &str| {
        let before = done.fetch_add(elements * 4, Ordering::Relaxed);
        bar.at(before + elements * 4, name);
    };
    options.progress = Some(&heard);
    let report = diff::measure(&inputs, &options);
    bar.end();
    let report = report?;
    if ui.json {
        for event in report.events() {
            ui.event(&event);
        }
    } else {
        for note in &report.notes {
            ui.note(note);
        }
        ui.answer(&report.text(match args.per {
            Per::Tensor => Detail::Tensor,
            Per::Layer => Detail::Layer,
            Per::Model => Detail::Model,
        }));
    }
    if let Some(file) = &args.html {
        super::replace(file, &report.html())?;
        ui.say(&format!("page: {}", file.display()));
    }
    ui.event(&json!({"type": "done", "html": args.html}));
    Ok(ExitCode::SUCCESS)
}
