//! `polyloom inspect` and `polyloom doctor`

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use polyloom::MergeError;
use polyloom::doctor::{self, Status, Subjects};
use polyloom::inspect;
use polyloom::plan::{self, Opened, reference::Places};
use polyloom::recipe::{self, Dialect, ModelRef, show};
use polyloom_learn::calibrate::Calibration;
use polyloom_learn::models::t3;
use polyloom_learn::weave;
use serde_json::json;

use crate::args::{DoctorArgs, InspectArgs, RecipeForm};
use crate::hub::{self, Hub};
use crate::ui::{Failure, Ui};

/// Opens a model on its own.
fn open(text: &str, places: &Places) -> Result<Opened, MergeError> {
    let reference = ModelRef::parse(text).map_err(|e| MergeError::plan("bad-reference", e))?;
    let model = recipe::Model {
        name: text.to_owned(),
        reference,
        task: None,
        strip_prefix: None,
        add_prefix: None,
        stats: None,
    };
    // A bare `org/name` means the cache, as in mergekit files, where no such folder exists.
    plan::open_model(model, Dialect::Mergekit, places)
}

/// `polyloom inspect`
pub fn inspect(args: &InspectArgs, hub: Hub, ui: &Ui) -> Result<ExitCode, Failure> {
    let places = Places {
        recipe_folder: None,
        cache: args.cache.clone(),
    };
    let is_recipe = |item: &str| {
        let ending = Path::new(item).extension().and_then(|e| e.to_str());
        matches!(ending, Some("toml" | "yml" | "yaml"))
    };
    // A recipe is shown as it stands; what it names need not be here.
    let named = args
        .items
        .iter()
        .filter(|i| !is_recipe(i))
        .chain(&args.base);
    let references: Vec<ModelRef> = named.filter_map(|i| ModelRef::parse(i).ok()).collect();
    let needs = references.iter().flat_map(hub::needs);
    hub.bring(needs, Dialect::Mergekit, &places, ui)?;
    let base = args.base.as_ref().map(|b| open(b, &places)).transpose()?;
    for (i, item) in args.items.iter().enumerate() {
        if i > 0 {
            ui.answer("");
        }
        if is_recipe(item) {
            a_recipe(item, args, &places, ui)?;
            continue;
        }
        if args.resolved || args.form.is_some() {
            return Err(MergeError::plan(
                "arguments",
                format!("{item}: --resolved and --as are for recipes"),
            )
            .hint("give a loom.toml or a mergekit .yml")
            .into());
        }
        let path = Path::new(item);
        if path.join("adapter_config.json").exists() {
            let info = inspect::describe_adapter(path)?;
            ui.event(&json!({"type": "result", "kind": "adapter", "adapter": info}));
            ui.answer(info.text().trim_end());
        } else if weave::Meta::is_there(path) {
            let (info, text) = weave::describe(path)?;
            ui.event(&json!({"type": "result", "kind": "woven", "woven": info}));
            ui.answer(&text);
        } else if let Some(bundle) = inspect::bundle(path) {
            ui.event(&json!({"type": "result", "kind": "mask-bundle", "bundle": bundle}));
            ui.answer(inspect::bundle_text(path, &bundle).trim_end());
        } else {
            a_model(item, base.as_ref(), args, &places, ui)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn a_model(
    item: &str,
    base: Option<&Opened>,
    args: &InspectArgs,
    places: &Places,
    ui: &Ui,
) -> Result<(), Failure> {
    let model = open(item, places)?;
    let info = inspect::describe_model(&model);
    let against = base.map(|b| inspect::against(&model, b)).transpose()?;
    let tensors = args.tensors.then(|| inspect::tensors(&model));
    let calibration = Calibration::beside(Path::new(item))?;
    let mut event = json!({
        "type": "result",
        "kind": "checkpoint",
        "checkpoint": info,
        "against_base": against,
        "tensors": tensors,
    });
    if let (Some(calibration), Some(event)) = (&calibration, event.as_object_mut()) {
        event.insert("calibration".into(), json!(calibration));
    }
    let stems = model.config().map(t3::told).unwrap_or_default();
    if let (false, Some(event), Some(config)) =
        (stems.is_empty(), event.as_object_mut(), model.config())
    {
        event.insert("stems".into(), config["stems"].clone());
    }
    ui.event(&event);
    let mut text = info.text();
    for (name, head) in calibration.iter().flat_map(|c| &c.heads) {
        let told = head.told();
        let told = told.unwrap_or_else(|| format!("intervals by {} validation rows", head.rows));
        text += &format!("  {name}: {told}\n");
    }
    for line in &stems {
        text += &format!("  {line}\n");
    }
    if let Some(against) = &against {
        text += &against.text();
    }
    for tensor in tensors.iter().flatten() {
        text += &format!(
            "  {:8} {:<20} {}\n",
            tensor.dtype,
            format!("{:?}", tensor.shape),
            tensor.name
        );
    }
    ui.answer(text.trim_end());
    Ok(())
}

fn a_recipe(item: &str, args: &InspectArgs, places: &Places, ui: &Ui) -> Result<(), Failure> {
    let recipes = recipe::read(&PathBuf::from(item))?;
    if let Some(form) = args.form {
        let texts = recipes
            .iter()
            .map(|r| match form {
                RecipeForm::Toml => show::to_toml(r),
                RecipeForm::Yaml => show::to_yaml(r),
            })
            .collect::<Result<Vec<_>, _>>()?;
        if form == RecipeForm::Toml && texts.len() > 1 {
            return Err(MergeError::plan(
                "not-expressible",
                "loom.toml cannot hold several stages",
            )
            .at(item)
            .hint("write it with --as yaml")
            .into());
        }
        let text = texts.join("---\n");
        ui.event(&json!({"type": "result", "kind": "recipe", "text": text}));
        ui.answer(text.trim_end());
        return Ok(());
    }
    for recipe in &recipes {
        let info = inspect::describe_recipe(recipe, places);
        ui.event(&json!({"type": "result", "kind": "recipe", "recipe": info}));
        ui.answer(info.text(args.resolved).trim_end());
    }
    Ok(())
}

/// `polyloom doctor`
pub fn doctor(args: DoctorArgs, ui: &Ui) -> ExitCode {
    let subjects = Subjects {
        files: args.files,
        output: args.output.unwrap_or_default(),
        full: args.full,
    };
    let checks = doctor::run(&subjects, &Places::default());
    for check in &checks {
        ui.event(&json!({"type": "result", "check": check}));
        let word = match check.status {
            Status::Ok => "ok",
            Status::Warn => "warn",
            Status::Fail => "fail",
        };
        ui.answer(&format!("{word:<5} {:<7} {}", check.what, check.text));
        for hint in &check.hints {
            ui.answer(&format!("      {:<7} hint: {hint}", ""));
        }
    }
    ui.event(&json!({"type": "done", "version": env!("CARGO_PKG_VERSION")}));
    if checks.iter().any(|c| c.status == Status::Fail) {
        ExitCode::from(1)
    } else {
        ExitCode::SUCCESS
    }
}
