//! From files and flags to recipes.

use std::path::{Path, PathBuf};

use polyloom_core::Error;
use serde_json::Value;

use super::{
    Dialect, Model, ModelRef, Module, Origin, Part, Recipe, Setting, Settings, Slice, Source,
    mergekit, setting, toml,
};
use crate::error::{MergeError, Result};
use crate::merge::method::Base;
use crate::plan::reference::short_name;

/// Largest recipe that is read, in bytes.
const LIMIT: u64 = 8 << 20;

/// Reads a recipe file: `.toml` is a `loom.toml`, anything else a mergekit file. A mergekit file may hold several
/// recipes; they come in the order in which they must run.
///
/// # Errors
/// All problems found, naming file and line.
pub fn read(file: &Path) -> Result<Vec<Recipe>, Vec<MergeError>> {
    let meta = std::fs::metadata(file).map_err(|e| vec![Error::io(file, "open", e).into()])?;
    if meta.len() > LIMIT {
        return Err(vec![
            Error::format(
                file,
                format!("is {} bytes; a recipe has at most {LIMIT}", meta.len()),
            )
            .into(),
        ]);
    }
    let bytes = std::fs::read(file).map_err(|e| vec![Error::io(file, "read", e).into()])?;
    let text = String::from_utf8(bytes).map_err(|e| {
        vec![
            Error::format(
                file,
                format!("is not UTF-8 text (byte {})", e.utf8_error().valid_up_to()),
            )
            .into(),
        ]
    })?;
    if file
        .extension()
        .is_some_and(|e| e.eq_ignore_ascii_case("toml"))
    {
        toml::parse(&text, Some(file)).map(|r| vec![r])
    } else {
        mergekit::parse(&text, Some(file))
    }
}

/// A recipe from the command line: experts in order, an optional base.
///
/// # Errors
/// References that cannot be parsed, a base that the method needs and that is not given.
pub fn from_models(method: &str, base: Option<&str>, experts: &[String]) -> Result<Recipe> {
    let mut recipe = Recipe {
        method: method.to_owned(),
        dialect: Dialect::Loom,
        ..Recipe::default()
    };
    let parse =
        |text: &str| ModelRef::parse(text).map_err(|e| MergeError::plan("bad-reference", e));
    let mut sources = Vec::new();
    for expert in experts {
        let model = add_model(&mut recipe, parse(expert)?, None);
        sources.push(Source {
            model,
            layers: None,
            settings: Settings::default(),
        });
    }
    if let Some(base) = base {
        let model = add_model(&mut recipe, parse(base)?, None);
        recipe.base = Some(model);
    }
    recipe.modules = vec![Module {
        name: None,
        slices: vec![Slice {
            sources,
            base: None,
            base_layers: None,
            settings: Settings::default(),
        }],
        settings: Settings::default(),
    }];
    check_inputs(&mut recipe)?;
    Ok(recipe)
}

/// Adds a model unless an equal reference is there; names stay unique.
pub(super) fn add_model(recipe: &mut Recipe, reference: ModelRef, name: Option<String>) -> usize {
    if name.is_none()
        && let Some(at) = recipe.models.iter().position(|m| m.reference == reference)
    {
        return at;
    }
    let wanted = name.unwrap_or_else(|| short_name(&reference));
    let mut unique = wanted.clone();
    let mut n = 2;
    while recipe.models.iter().any(|m| m.name == unique) {
        unique = format!("{wanted}-{n}");
        n += 1;
    }
    recipe.models.push(Model {
        name: unique,
        reference,
        task: None,
        strip_prefix: None,
        add_prefix: None,
        stats: None,
    });
    recipe.models.len() - 1
}

/// The input rules of the method, before anything is read: base, counts, duplicates. A base listed among the inputs of
/// a method that works on task vectors is taken out; a base of a method that ignores bases becomes the last input.
///
/// # Errors
/// A missing base, too few or too many inputs, the same input twice.
pub(super) fn check_inputs(recipe: &mut Recipe) -> Result<()> {
    let Some(method) = crate::merge::find(&recipe.method) else {
        return Ok(());
    };
    let spec = method.spec();
    let place = recipe.file.as_ref().map(|f| f.display().to_string());
    let at = |e: MergeError| match &place {
        Some(place) => e.at(place.clone()),
        None => e,
    };
    for module in &mut recipe.modules {
        let several = module.slices.len() > 1;
        for (number, slice) in module.slices.iter_mut().enumerate() {
            let base = slice.base.or(recipe.base);
            let ranged = several || slice.sources.iter().any(|s| s.layers.is_some());
            match spec.base {
                Base::Ignored => {
                    // Slices list all their inputs; a list of whole models is completed by the base.
                    if let Some(base) = base
                        && spec.experts.1 > 1
                        && !ranged
                        && !slice.sources.iter().any(|s| s.model == base)
                    {
                        slice.sources.push(Source {
                            model: base,
                            layers: None,
                            settings: Settings::default(),
                        });
                    }
                }
                Base::Required if base.is_none() => {
                    return Err(at(MergeError::plan(
                        "no-base",
                        if spec.deltas {
                            format!("merge method `{}` works on task vectors and needs a base", spec.name)
                        } else {
                            format!("merge method `{}` needs a base", spec.name)
                        },
                    ))
                    .hint("add `[base] path = \"…\"` (`base_model:` in a mergekit file) or pass --base"));
                }
                Base::Required | Base::Optional => {
                    if let Some(listed) = slice.sources.iter().find(|s| Some(s.model) == base) {
                        slice.base_layers = listed.layers;
                        slice.sources.retain(|s| Some(s.model) != base);
                    } else if let Some(base) = base
                        && ranged
                        && slice.base_layers.is_none()
                    {
                        let name = &recipe.models[base].reference;
                        slice.base_layers = layers_of_base(recipe.dialect, &slice.sources)
                            .ok_or_else(|| {
                                at(MergeError::plan(
                                    "base-not-listed",
                                    format!(
                                        "slice {}: the base `{name}` is not among its sources, so its layers are not known",
                                        number + 1
                                    ),
                                ))
                                .hint("list the base in the slice too, with its own `layer_range`")
                            })?;
                    }
                }
            }
            let (least, most) = spec.experts;
            let n = slice.sources.len();
            if n < least || n > most {
                let want = match (least, most) {
                    (a, b) if a == b => format!("exactly {a}"),
                    (a, usize::MAX) => format!("at least {a}"),
                    (a, b) => format!("{a} to {b}"),
                };
                let besides = if spec.base == Base::Ignored {
                    ""
                } else {
                    " besides the base"
                };
                return Err(at(MergeError::plan(
                    "input-count",
                    format!(
                        "merge method `{}` takes {want} input{}{besides}; {n} given",
                        spec.name,
                        if want == "exactly 1" { "" } else { "s" }
                    ),
                )));
            }
            let stacked = slice.sources.iter().any(|s| s.layers.is_some());
            if let Some(twice) = slice.sources.iter().enumerate().find(|(i, s)| {
                slice.sources[..*i]
                    .iter()
                    .any(|e| e.model == s.model && e.layers == s.layers)
            }) && !stacked
            {
                let name = recipe.models[twice.1.model].reference.to_string();
                return Err(at(MergeError::plan(
                    "duplicate-input",
                    format!("model `{name}` is listed twice"),
                ))
                .hint("an input counts once; give it a larger weight instead"));
            }
        }
    }
    Ok(())
}

/// Layers of a base that a slice does not list. A mergekit file must list it, as the peer demands; a `loom.toml` names
/// the base once, which is clear where all inputs take the same layers.
fn layers_of_base(dialect: Dialect, sources: &[Source]) -> Option<Option<(usize, usize)>> {
    let first = sources.first()?.layers;
    (dialect == Dialect::Loom && sources.iter().all(|s| s.layers == first)).then_some(first)
}

/// Points references to earlier stages of a multi-document file at their outputs inside `folder`.
pub fn stage_references(recipe: &mut Recipe, folder: &Path) {
    for model in &mut recipe.models {
        let stage: PathBuf = folder.join(&model.reference.path);
        if super::read::is_stage(&model.reference.path) && stage.exists() {
            model.reference.path = stage.display().to_string();
        }
    }
}

fn is_stage(path: &str) -> bool {
    !path.contains('/') && !path.starts_with('.') && !Path::new(path).exists()
}

/// Reads a value typed on the command line: JSON if it is, else text; `a,b,c` is a list of them.
fn typed(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.to_owned()))
}

/// `[[a, b], [c, d]]`: a gradient over the layers for each expert.
fn gradients(text: &str) -> Option<Vec<Setting>> {
    let lists: Vec<Vec<Value>> = serde_json::from_str(text).ok()?;
    let one = |list| setting::parse(&Value::Array(list)).ok().flatten();
    lists.into_iter().map(one).collect()
}

impl Recipe {
    /// Sets a value from the command line: any key of a `loom.toml`, such as `merge.shared.NAME`, `merge.dtype`,
    /// `tokenizer.source` or `expert.NAME.task`.
    ///
    /// `merge.each.NAME=a,b,c` gives one value per expert, `[[a, b], [c, d]]` one gradient over the layers per expert. A value that is none in TOML is text.
    ///
    /// # Errors
    /// An unknown key or a parameter that the method does not declare.
    pub fn set(&mut self, key: &str, value: &str) -> Result<()> {
        let origin = Origin {
            text: "flag".into(),
        };
        let shared = key.strip_prefix("merge.shared.");
        let each = key.strip_prefix("merge.each.");
        if let Some(name) = shared.or(each) {
            let method = crate::merge::find(&self.method);
            if let Some(spec) = method.map(super::super::merge::method::Method::spec) {
                let params: Vec<_> = spec
                    .params
                    .iter()
                    .filter(|p| p.each == each.is_some())
                    .copied()
                    .collect();
                if !params.iter().any(|p| p.name == name) {
                    let error = crate::merge::params::unknown_name(name, &params);
                    let other = spec.params.iter().any(|p| p.name == name);
                    let (here, there) = if each.is_some() {
                        ("--each", "--shared")
                    } else {
                        ("--shared", "--each")
                    };
                    return Err(if other {
                        MergeError::plan(
                            "unknown-key",
                            format!(
                                "`{name}` of merge method `{}` is not given with {here}",
                                spec.name
                            ),
                        )
                        .hint(format!("use {there} {name}=…"))
                    } else {
                        match error {
                            MergeError::Plan {
                                code,
                                place,
                                message,
                                hints,
                            } => MergeError::Plan {
                                code,
                                place,
                                message: format!("merge method `{}`: {message}", spec.name),
                                hints,
                            },
                            other => other,
                        }
                    });
                }
            }
            if each.is_some() {
                if let Some(lists) = gradients(value) {
                    return self.set_each(name, &lists, &origin);
                }
                let parts: Vec<&str> = value.split(',').collect();
                if parts.len() > 1 && !value.trim_start().starts_with('[') {
                    let parts = parts.into_iter().map(|p| Setting::Value(typed(p)));
                    return self.set_each(name, &parts.collect::<Vec<_>>(), &origin);
                }
            }
            let parsed = setting::parse(&typed(value))
                .map_err(|e| MergeError::plan("bad-value", format!("`{key}` {e}")))?;
            if let Some(parsed) = parsed {
                // A flag wins over every scope of the file.
                for module in &mut self.modules {
                    module.settings.shift_remove(name);
                    for slice in &mut module.slices {
                        slice.settings.shift_remove(name);
                        for source in &mut slice.sources {
                            source.settings.shift_remove(name);
                        }
                    }
                }
                self.settings.insert(name.to_owned(), (parsed, origin));
            }
            return Ok(());
        }
        toml::set(self, key, value)
    }

    /// Takes another method for a recipe that was read (`--method`). Parameters that it does not have are left out
    /// with a warning.
    ///
    /// # Errors
    /// The inputs do not suit the method.
    pub fn set_method(&mut self, method: &str) -> Result<()> {
        method.clone_into(&mut self.method);
        let Some(found) = crate::merge::find(method) else {
            return Ok(());
        };
        let known = |name: &str| found.spec().params.iter().any(|p| p.name == name);
        let mut dropped: Vec<String> = Vec::new();
        let mut keep = |settings: &mut Settings| {
            settings.retain(|name, _| {
                if !known(name) && !dropped.contains(name) {
                    dropped.push(name.clone());
                }
                known(name)
            });
        };
        keep(&mut self.settings);
        for module in &mut self.modules {
            keep(&mut module.settings);
            for slice in &mut module.slices {
                keep(&mut slice.settings);
                for source in &mut slice.sources {
                    keep(&mut source.settings);
                }
            }
        }
        for name in dropped {
            let text = format!(
                "the recipe sets `{name}`, which is no parameter of merge method `{method}`: left out"
            );
            self.notes.push((true, text));
        }
        check_inputs(self)
    }

    fn set_each(&mut self, name: &str, parts: &[Setting], origin: &Origin) -> Result<()> {
        for module in &mut self.modules {
            for slice in &mut module.slices {
                if slice.sources.len() != parts.len() {
                    return Err(MergeError::plan(
                        "list-length",
                        format!(
                            "--each {name}= lists {} values for {} experts",
                            parts.len(),
                            slice.sources.len()
                        ),
                    ));
                }
                for (source, part) in slice.sources.iter_mut().zip(parts) {
                    source
                        .settings
                        .insert(name.to_owned(), (part.clone(), origin.clone()));
                }
            }
        }
        Ok(())
    }

    /// Adds a post-step typed as `NAME` or `NAME:KEY=VALUE,KEY=VALUE`.
    ///
    /// # Errors
    /// Text of another form.
    pub fn add_post(&mut self, text: &str) -> Result<()> {
        let (name, rest) = text.split_once(':').unwrap_or((text, ""));
        let mut settings = Settings::default();
        for pair in rest.split(',').filter(|p| !p.is_empty()) {
            let (key, value) = pair.split_once('=').ok_or_else(|| {
                MergeError::plan(
                    "arguments",
                    format!("--post {text}: expected NAME:KEY=VALUE,KEY=VALUE"),
                )
            })?;
            settings.insert(
                key.to_owned(),
                (
                    Setting::Value(typed(value)),
                    Origin {
                        text: "flag".into(),
                    },
                ),
            );
        }
        self.post.push(Part {
            name: name.to_owned(),
            settings,
            pre: Vec::new(),
        });
        Ok(())
    }
}
