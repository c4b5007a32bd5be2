//! From a recipe to a plan.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use polyloom_core::writer::OutTensor;
use polyloom_core::{Checkpoint, DType};

use super::composition::Composition;
use super::names::{self, PrefixFix};
use super::reference::{self, Places};
use super::settings::values;
use super::weights::{Opened, Weights};
use super::{Group, Head, How, Input, Member, Note, Output, Plan};
use crate::error::{MergeError, Result};
use crate::merge::method::{Base, Method, Missing, Param, TensorJob};
use crate::recipe::{Heads, MissingPolicy, Module, Recipe, Settings, Slice};
use crate::vocab;

/// Opens every model of a recipe and plans the merge.
///
/// # Errors
/// All independent problems, at most ten, the rest as a count.
pub fn build(recipe: Recipe, places: &Places) -> Result<Plan, Vec<MergeError>> {
    let method = crate::merge::find(&recipe.method).ok_or_else(|| {
        vec![MergeError::plan(
            "unknown-method",
            format!("unknown merge method `{}`", recipe.method),
        )]
    })?;
    let models = open_models(&recipe, places)?;
    let odd: Vec<Note> = models
        .iter()
        .flat_map(|m| {
            m.warnings.iter().map(|w| Note {
                warning: true,
                text: w.clone(),
            })
        })
        .collect();
    let mut builder = Builder {
        method,
        truncated: None,
        vocabulary: None,
        outputs: Vec::new(),
        groups: Vec::new(),
        notes: recipe
            .notes
            .iter()
            .map(|(warning, text)| Note {
                warning: *warning,
                text: text.clone(),
            })
            .collect(),
        errors: Vec::new(),
        models,
        recipe,
    };
    builder.notes.extend(odd);
    builder.architectures();
    builder.vocabulary();
    let stacked = builder.tensors();
    let heads = builder.heads();
    if builder.outputs.is_empty() && builder.errors.is_empty() {
        builder.errors.push(MergeError::plan(
            "empty",
            "the inputs have no tensors in common",
        ));
    }
    if !builder.errors.is_empty() {
        return Err(capped(builder.errors));
    }
    builder.renumber();
    Ok(Plan {
        method,
        template: builder.template(),
        stacked,
        heads,
        recipe: builder.recipe,
        models: builder.models,
        outputs: builder.outputs,
        groups: builder.groups,
        vocabulary: builder.vocabulary,
        truncated: builder.truncated,
        notes: builder.notes,
    })
}

fn capped(mut errors: Vec<MergeError>) -> Vec<MergeError> {
    let all = errors.len();
    if all > 10 {
        errors.truncate(10);
        errors.push(MergeError::plan(
            "more",
            format!("and {} more problems", all - 10),
        ));
    }
    errors
}

/// Opens a model reference on its own (for `inspect`, `diff`, `convert`).
///
/// # Errors
/// Not found, unreadable, or an adapter that does not fit.
pub fn open_model(
    model: crate::recipe::Model,
    dialect: crate::recipe::Dialect,
    places: &Places,
) -> Result<Opened> {
    let reference = &model.reference;
    let path = reference::locate(
        &reference.path,
        reference.revision.as_deref(),
        dialect,
        places,
    )?;
    let checkpoint = Arc::new(Checkpoint::open(&path)?);
    match &reference.adapter {
        None if path.join("adapter_config.json").exists() => Err(MergeError::plan(
            "adapter-without-base",
            format!(
                "{}: is an adapter folder; it needs the base it was trained on",
                path.display()
            ),
        )
        .hint(format!("write it as `BASE+{}`", path.display()))),
        None => Ok(Opened::new(model, path, None, Weights::Plain(checkpoint))),
        Some((adapter, revision)) => {
            let adapter = reference::locate(adapter, revision.as_deref(), dialect, places)?;
            let (weights, warnings) = Weights::folded(checkpoint, &adapter)?;
            let mut opened = Opened::new(model, path, Some(adapter), weights);
            opened.warnings = warnings;
            Ok(opened)
        }
    }
}

fn open_models(recipe: &Recipe, places: &Places) -> Result<Vec<Opened>, Vec<MergeError>> {
    let places = Places {
        recipe_folder: recipe
            .file
            .as_ref()
            .and_then(|f| f.parent())
            .map(PathBuf::from)
            .or_else(|| places.recipe_folder.clone()),
        cache: places.cache.clone(),
    };
    let mut models = Vec::new();
    let mut errors = Vec::new();
    for model in &recipe.models {
        match open_model(model.clone(), recipe.dialect, &places) {
            Ok(opened) => models.push(opened),
            Err(error) => errors.push(error),
        }
    }
    if errors.is_empty() {
        Ok(models)
    } else {
        Err(capped(errors))
    }
}

struct Builder {
    recipe: Recipe,
    method: &'static dyn Method,
    models: Vec<Opened>,
    vocabulary: Option<vocab::VocabPlan>,
    truncated: Option<usize>,
    outputs: Vec<Output>,
    groups: Vec<Group>,
    notes: Vec<Note>,
    errors: Vec<MergeError>,
}

/// One output tensor being planned.
struct Wanted<'a> {
    /// Name in the output.
    name: String,
    /// Name in the base.
    base_name: String,
    /// Name in each source.
    source_names: Vec<String>,
    /// Layer inside the slice, and the slice's length.
    at: Option<(usize, usize)>,
    /// Layer and length in the output's block list.
    layer: Option<(usize, usize)>,
    slice: &'a Slice,
    module: &'a Module,
}

impl Builder {
    fn fail(&mut self, error: MergeError) {
        self.errors.push(error);
    }

    fn note(&mut self, warning: bool, text: impl Into<String>) {
        let note = Note {
            warning,
            text: text.into(),
        };
        if !self.notes.contains(&note) {
            self.notes.push(note);
        }
    }

    /// The base of a slice as a task-vector base, or nothing for methods that ignore bases.
    fn base_of(&self, slice: &Slice) -> Option<usize> {
        match self.method.spec().base {
            Base::Ignored => None,
            Base::Required | Base::Optional => slice.base.or(self.recipe.base),
        }
    }

    fn template(&self) -> usize {
        self.recipe.base.unwrap_or_else(|| {
            self.recipe.modules[0].slices[0]
                .sources
                .first()
                .map_or(0, |s| s.model)
        })
    }

    /// Models of different architectures are merged only if the user says so.
    fn architectures(&mut self) {
        let kind = |m: &Opened| m.config()?.get("model_type")?.as_str().map(str::to_owned);
        let kinds: Vec<(usize, String)> = self
            .models
            .iter()
            .enumerate()
            .filter_map(|(i, m)| Some((i, kind(m)?)))
            .collect();
        let Some((first, expected)) = kinds.first().cloned() else {
            return;
        };
        for (i, found) in kinds {
            if found == expected {
                continue;
            }
            let text = format!(
                "is a `{found}` model, {} is a `{expected}` model",
                self.models[first].path.display()
            );
            let place = self.models[i].path.display().to_string();
            if self.recipe.allow_mixed {
                self.note(
                    true,
                    format!("{place}: {text}; tensors are matched by name (--allow-crimes)"),
                );
            } else {
                self.fail(
                    MergeError::plan("mixed-architectures", text)
                        .at(place)
                        .hint("--allow-crimes merges tensors of equal name and shape all the same"),
                );
            }
        }
    }

    /// Rows of the vocabulary, where the recipe has tokenizer rules or truncation.
    fn vocabulary(&mut self) {
        let rows_of = |m: &Opened| {
            m.tensors
                .iter()
                .find(|(n, e)| e.shape.len() == 2 && is_vocab(n, &e.shape))
                .map(|(_, e)| e.shape[0])
        };
        if self.recipe.truncate_embeddings {
            let rows: BTreeSet<usize> = self.models.iter().filter_map(rows_of).collect();
            if rows.len() > 1
                && let Some(least) = rows.first()
            {
                self.truncated = Some(*least);
                self.note(
                    true,
                    format!("vocabulary tensors are cut to {least} rows without looking at tokens: rows may not mean the same in all models"),
                );
            }
        }
        if let Some(spec) = self.recipe.tokenizer.clone() {
            let mut inputs = Vec::new();
            for model in &self.models {
                let folder = model.folder();
                match vocab::Vocab::read(folder) {
                    Ok(vocab) => inputs.push(vocab::Input {
                        name: model.model.name.clone(),
                        folder: folder.display().to_string(),
                        vocab,
                        rows: rows_of(model).unwrap_or(0),
                    }),
                    Err(error) => return self.fail(error),
                }
            }
            match vocab::plan(&inputs, self.recipe.base, &spec) {
                Ok(plan) => {
                    for warning in &plan.warnings {
                        self.note(true, warning.clone());
                    }
                    self.vocabulary = Some(plan);
                }
                Err(error) => self.fail(error),
            }
        }
    }

    /// Plans all tensors; returns the source layer of each output layer if slices changed the depth.
    fn tensors(&mut self) -> Option<Vec<usize>> {
        let modules = std::mem::take(&mut self.recipe.modules);
        let mut stacked = None;
        for module in &modules {
            let whole = module.slices.len() == 1 && self.covers_all(&module.slices[0], module);
            if whole {
                self.whole_slice(&module.slices[0], module);
            } else {
                stacked = self.slices(module).or(stacked);
            }
        }
        self.recipe.modules = modules;
        self.report_surplus();
        stacked
    }

    /// True if every source takes all layers of its model.
    fn covers_all(&self, slice: &Slice, module: &Module) -> bool {
        slice.sources.iter().all(|s| match s.layers {
            None => true,
            Some((a, b)) => {
                a == 0
                    && self
                        .block_list(s.model, module)
                        .is_some_and(|l| l.count == b)
            }
        })
    }

    /// The block list of a model inside a module.
    fn block_list(&self, model: usize, module: &Module) -> Option<names::BlockList> {
        let blocks = &self.models[model].blocks;
        match &module.name {
            None => blocks.main().cloned(),
            Some(name) => blocks
                .lists()
                .iter()
                .find(|l| l.prefix.split('.').any(|p| p == name))
                .cloned(),
        }
    }

    fn in_module(name: &str, module: &Module) -> bool {
        module
            .name
            .as_ref()
            .is_none_or(|m| name.split('.').any(|p| p == m))
    }

    /// Names that a slice is about: the base's (or the first input's) first, then what only others have.
    fn whole_slice(&mut self, slice: &Slice, module: &Module) {
        let base = self.base_of(slice);
        let mut order: Vec<String> = Vec::new();
        let mut seen = BTreeSet::new();
        for model in base
            .into_iter()
            .chain(slice.sources.iter().map(|s| s.model))
        {
            for name in self.models[model].tensors.keys() {
                if Self::in_module(name, module) && seen.insert(name.clone()) {
                    order.push(name.clone());
                }
            }
        }
        let reference = base
            .or_else(|| slice.sources.first().map(|s| s.model))
            .unwrap_or(0);
        for name in order {
            let layer = self.models[reference]
                .blocks
                .of(&name)
                .map(|(list, i)| (i, list.count));
            self.tensor(&Wanted {
                base_name: name.clone(),
                source_names: vec![name.clone(); slice.sources.len()],
                name,
                at: layer,
                layer,
                slice,
                module,
            });
        }
    }

    /// Layer stacking and per-range recipes.
    fn slices(&mut self, module: &Module) -> Option<Vec<usize>> {
        let mut total = 0;
        let mut sources_of_layers = Vec::new();
        for slice in &module.slices {
            let mut count = None;
            for source in &slice.sources {
                let model = &self.models[source.model];
                let Some(list) = self.block_list(source.model, module) else {
                    let message = format!(
                        "model `{}` has no list of layers to take a range from",
                        model.model.name
                    );
                    self.fail(MergeError::plan("no-layers", message));
                    return None;
                };
                let (a, b) = source.layers.unwrap_or((0, list.count));
                if a >= b || b > list.count {
                    let message = format!(
                        "layer_range [{a}, {b}) is not inside the {} layers of `{}`",
                        list.count, model.model.name
                    );
                    self.fail(MergeError::plan("bad-layer-range", message));
                    return None;
                }
                if *count.get_or_insert(b - a) != b - a {
                    self.fail(MergeError::plan(
                        "bad-layer-range",
                        format!(
                            "the sources of one slice span different numbers of layers ({} and {})",
                            count.unwrap_or(0),
                            b - a
                        ),
                    ));
                    return None;
                }
                if sources_of_layers.len() == total {
                    sources_of_layers.extend(a..b);
                }
            }
            total += count.unwrap_or(0);
        }
        let first = module.slices.first()?;
        let last = module.slices.last()?;
        let reference = first.sources.first()?.model;
        let prefix = self.block_list(reference, module)?.prefix;
        let outside = |this: &Self, slice: &Slice, before: bool| -> Vec<String> {
            let mut seen = BTreeSet::new();
            slice
                .sources
                .iter()
                .map(|s| s.model)
                .chain(this.base_of(slice))
                .flat_map(|m| this.models[m].tensors.keys())
                .filter(|n| {
                    Self::in_module(n, module)
                        && !n
                            .strip_prefix(prefix.as_str())
                            .is_some_and(|r| r.starts_with('.'))
                        && names::before_layers(n) == before
                        && seen.insert((*n).clone())
                })
                .cloned()
                .collect()
        };
        for name in outside(self, first, true) {
            self.plain(name, first, module);
        }
        let mut out_layer = 0;
        for slice in &module.slices {
            let ranges: Vec<(usize, usize)> = slice
                .sources
                .iter()
                .map(|s| {
                    s.layers.unwrap_or_else(|| {
                        (0, self.block_list(s.model, module).map_or(0, |l| l.count))
                    })
                })
                .collect();
            let count = ranges.first().map_or(0, |(a, b)| b - a);
            for offset in 0..count {
                let mut suffixes: Vec<String> = Vec::new();
                for (source, (a, _)) in slice.sources.iter().zip(&ranges) {
                    let here = format!(
                        "{}.{}.",
                        self.block_list(source.model, module)
                            .map_or_else(String::new, |l| l.prefix),
                        a + offset
                    );
                    for name in self.models[source.model].tensors.keys() {
                        if let Some(rest) = name.strip_prefix(&here)
                            && !suffixes.iter().any(|s| s == rest)
                        {
                            suffixes.push(rest.to_owned());
                        }
                    }
                }
                for suffix in suffixes {
                    let name_in = |this: &Self, model: usize, layer: usize| {
                        let prefix = this
                            .block_list(model, module)
                            .map_or_else(|| prefix.clone(), |l| l.prefix);
                        format!("{prefix}.{layer}.{suffix}")
                    };
                    let source_names = slice
                        .sources
                        .iter()
                        .zip(&ranges)
                        .map(|(s, (a, _))| name_in(self, s.model, a + offset))
                        .collect();
                    // A base that is not among the sources follows the first source's layers.
                    let base_name = self.base_of(slice).map_or_else(String::new, |b| {
                        name_in(self, b, ranges.first().map_or(0, |r| r.0) + offset)
                    });
                    self.tensor(&Wanted {
                        name: format!("{prefix}.{}.{suffix}", out_layer + offset),
                        base_name,
                        source_names,
                        at: Some((offset, count)),
                        layer: Some((out_layer + offset, total)),
                        slice,
                        module,
                    });
                }
            }
            out_layer += count;
        }
        for name in outside(self, last, false) {
            self.plain(name, last, module);
        }
        Some(sources_of_layers)
    }

    fn plain(&mut self, name: String, slice: &Slice, module: &Module) {
        self.tensor(&Wanted {
            base_name: name.clone(),
            source_names: vec![name.clone(); slice.sources.len()],
            name,
            at: None,
            layer: None,
            slice,
            module,
        });
    }

    /// A model's tensor by name, or through the embedding its head is tied to.
    fn lookup(&self, model: usize, name: &str) -> Option<Input> {
        let opened = &self.models[model];
        let found = if opened.get(name).is_some() {
            Some(name.to_owned())
        } else {
            names::tied_to(name, |n| opened.get(n).is_some())
        };
        found.map(|name| Input {
            model,
            by_token: false,
            name,
        })
    }

    fn tensor(&mut self, wanted: &Wanted) {
        let spec = self.method.spec();
        if self.recipe.heads == Heads::Separate && self.is_separate_head(&wanted.name, wanted.slice)
        {
            return;
        }
        let base_model = self.base_of(wanted.slice);
        let base = base_model.and_then(|b| self.lookup(b, &wanted.base_name));
        let mut inputs: Vec<Option<Input>> = wanted
            .slice
            .sources
            .iter()
            .zip(&wanted.source_names)
            .map(|(s, name)| self.lookup(s.model, name))
            .collect();
        // A head that exists only through ties is not written.
        let own = |i: &Option<Input>, name: &str| i.as_ref().is_some_and(|i| i.name == name);
        if names::tied_to(&wanted.name, |_| true).is_some()
            && !own(&base, &wanted.base_name)
            && !inputs
                .iter()
                .zip(&wanted.source_names)
                .any(|(i, n)| own(i, n))
        {
            return;
        }
        let have = inputs.iter().flatten().count();
        let lacking = have < inputs.len() || (base_model.is_some() && base.is_none());
        let mut chosen: Vec<usize> = (0..inputs.len()).collect();
        if lacking {
            match self.recipe.missing {
                MissingPolicy::Intersection => return,
                MissingPolicy::Union => {
                    if base_model.is_some() && base.is_none() {
                        // Without a base there is no task vector: the lone weights are kept.
                        return self.lone(wanted, inputs.iter().flatten().next().cloned());
                    }
                    chosen.retain(|i| inputs[*i].is_some());
                    if chosen.is_empty() {
                        return self.lone(wanted, base);
                    }
                }
                MissingPolicy::Base if base.is_some() => {}
                _ if names::is_optional(&wanted.name) => {
                    let all: Vec<&Input> = base.iter().chain(inputs.iter().flatten()).collect();
                    match spec.missing {
                        Missing::CopyLone if all.len() == 1 => {
                            return self.lone(wanted, Some(all[0].clone()));
                        }
                        Missing::CopyBase | Missing::CopyBaseOrSkip
                            if base.is_some() && have == 0 =>
                        {
                            return self.lone(wanted, base);
                        }
                        Missing::CopyBaseOrSkip => return,
                        _ => return self.missing(wanted, base_model, base.as_ref(), &inputs),
                    }
                }
                _ => return self.missing(wanted, base_model, base.as_ref(), &inputs),
            }
        }
        inputs = chosen.iter().map(|i| inputs[*i].take()).collect();
        let base = base.filter(|_| base_model.is_some());
        self.merged(wanted, base, inputs, &chosen);
    }

    /// True for tensors that `heads = "separate"` keeps out of the trunk.
    fn is_separate_head(&self, name: &str, slice: &Slice) -> bool {
        names::is_head(name)
            || self.base_of(slice).is_some_and(|b| {
                self.lookup(b, name).is_none()
                    && name.ends_with(".weight") | name.ends_with(".bias")
                    && !name.contains("layer")
            })
    }

    fn lone(&mut self, wanted: &Wanted, input: Option<Input>) {
        if let Some(input) = input
            && let Some(entry) = self.models[input.model].get(&input.name)
        {
            let (dtype, shape) = (entry.dtype, entry.shape.clone());
            let out = self.out_dtype(dtype);
            if out == dtype && !dtype.is_block() && self.is_stored(&input) {
                let tensor = OutTensor {
                    name: wanted.name.clone(),
                    dtype,
                    shape,
                };
                self.outputs.push(Output {
                    tensor,
                    how: How::Copy(input),
                });
            } else {
                self.group_of_one(wanted, input, out, shape);
            }
        }
    }

    fn is_stored(&self, input: &Input) -> bool {
        let opened = &self.models[input.model];
        opened
            .get(&input.name)
            .is_some_and(|e| opened.weights.is_stored(&e.stored))
    }

    /// A converted copy: a one-input average.
    fn group_of_one(&mut self, wanted: &Wanted, input: Input, dtype: DType, shape: Vec<usize>) {
        let model = input.model;
        let tensor = OutTensor {
            name: wanted.name.clone(),
            dtype,
            shape: shape.clone(),
        };
        let (shared, each) = Composition::plain_values();
        let job = TensorJob {
            name: wanted.name.clone(),
            shape,
            shared,
            each: vec![each],
            layer: wanted.layer,
            before: 0,
        };
        let composition = Composition::plain_copy();
        let group = self.group(vec![model], None, composition);
        self.push(group, tensor, job, None, vec![Some(input)]);
    }

    /// Finds or makes the group for these inputs.
    fn group(
        &mut self,
        experts: Vec<usize>,
        base: Option<usize>,
        composition: Composition,
    ) -> usize {
        let found = self
            .groups
            .iter()
            .position(|g| g.experts == experts && g.base == base && g.composition == composition);
        found.unwrap_or_else(|| {
            self.groups.push(Group {
                experts,
                base,
                members: Vec::new(),
                composition,
            });
            self.groups.len() - 1
        })
    }

    fn push(
        &mut self,
        group: usize,
        tensor: OutTensor,
        job: TensorJob,
        base: Option<Input>,
        inputs: Vec<Option<Input>>,
    ) {
        let member = self.groups[group].members.len();
        let output = self.outputs.len();
        self.outputs.push(Output {
            tensor,
            how: How::Merge(group, member),
        });
        self.groups[group].members.push(Member {
            output,
            job: Arc::new(job),
            base,
            inputs,
        });
    }

    fn merged(
        &mut self,
        wanted: &Wanted,
        mut base: Option<Input>,
        mut inputs: Vec<Option<Input>>,
        chosen: &[usize],
    ) {
        let spec = self.method.spec();
        let entries: Vec<(Input, DType, Vec<usize>)> = base
            .iter()
            .chain(inputs.iter().flatten())
            .filter_map(|i| {
                self.models[i.model]
                    .get(&i.name)
                    .map(|e| (i.clone(), e.dtype, e.shape.clone()))
            })
            .collect();
        let Some((first, first_type, first_shape)) = entries.first().cloned() else {
            return;
        };
        let mut shape = first_shape.clone();
        let is_vocab = is_vocab(&wanted.name, &first_shape);
        if is_vocab && let Some(plan) = &self.vocabulary {
            shape[0] = plan.padded_size;
            for input in base.iter_mut().chain(inputs.iter_mut().flatten()) {
                input.by_token = true;
            }
        }
        for (input, dtype, found) in &entries {
            let fits = if is_vocab && (self.vocabulary.is_some() || self.truncated.is_some()) {
                found.len() == first_shape.len() && found.get(1..) == first_shape.get(1..)
            } else {
                *found == first_shape
            };
            if !fits {
                return self.wrong_shape(wanted, &first, &first_shape, input, found);
            }
            if dtype.is_float() != first_type.is_float() {
                let file = self.models[input.model].file_of(&input.name);
                self.fail(
                    MergeError::plan(
                        "type-mismatch",
                        format!(
                            "tensor `{}` is {dtype}, but {first_type} in {}",
                            wanted.name,
                            self.models[first.model].file_of(&first.name)
                        ),
                    )
                    .at(file),
                );
                return;
            }
        }
        if is_vocab
            && self.vocabulary.is_none()
            && let Some(rows) = self.truncated
        {
            shape[0] = rows;
        }
        let promoted = entries
            .iter()
            .map(|e| e.1)
            .reduce(promote)
            .unwrap_or(first_type);
        if !first_type.is_float() || first_shape.contains(&0) {
            let inputs = entries.into_iter().map(|e| e.0).collect();
            let tensor = OutTensor {
                name: wanted.name.clone(),
                dtype: first_type,
                shape,
            };
            self.outputs.push(Output {
                tensor,
                how: How::Equal(inputs),
            });
            return;
        }
        let dtype = self.out_dtype(promoted);
        let (slice, module) = (wanted.slice, wanted.module);
        let t = wanted.at.map_or(0.0, |(i, n)| {
            if n <= 1 {
                1.0
            } else {
                i as f64 / (n - 1) as f64
            }
        });
        let outer: [&Settings; 3] = [&slice.settings, &module.settings, &self.recipe.settings];
        let pick = |each: bool| -> Vec<Param> {
            spec.params
                .iter()
                .filter(|p| p.each == each)
                .copied()
                .collect()
        };
        let shared = match values(&pick(false), &outer, &wanted.name, t, &self.recipe, None) {
            Ok(values) => values,
            Err(error) => return self.fail_once(error),
        };
        let each_params = pick(true);
        let mut each = Vec::new();
        for &i in chosen {
            let source = &slice.sources[i];
            let scopes: [&Settings; 4] = [&source.settings, outer[0], outer[1], outer[2]];
            let name = self.models[source.model].model.name.clone();
            match values(
                &each_params,
                &scopes,
                &wanted.source_names[i],
                t,
                &self.recipe,
                Some(&name),
            ) {
                Ok(values) => each.push(values),
                Err(error) => return self.fail_once(error),
            }
        }
        if spec.name == "passthrough"
            && each.iter().all(|v| v.maybe("scale").is_none())
            && shared.maybe("scale").is_none()
            && dtype == promoted
            && let Some(Some(input)) = inputs.first()
            && !input.by_token
            && self.truncated.is_none()
            && self.is_stored(input)
        {
            let tensor = OutTensor {
                name: wanted.name.clone(),
                dtype,
                shape,
            };
            self.outputs.push(Output {
                tensor,
                how: How::Copy(input.clone()),
            });
            return;
        }
        let experts: Vec<usize> = chosen.iter().map(|i| slice.sources[*i].model).collect();
        let composition = match Composition::from_recipe(&self.recipe, self.method, experts.len()) {
            Ok(composition) => composition,
            Err(error) => return self.fail_once(error),
        };
        let tensor = OutTensor {
            name: wanted.name.clone(),
            dtype,
            shape: shape.clone(),
        };
        let job = TensorJob {
            name: wanted.name.clone(),
            shape,
            shared,
            each,
            layer: wanted.layer,
            before: 0,
        };
        let base_model = base.as_ref().map(|b| b.model);
        let group = self.group(experts, base_model, composition);
        self.push(group, tensor, job, base, inputs);
    }

    /// One message for a problem that every tensor repeats.
    fn fail_once(&mut self, error: MergeError) {
        let key = |e: &MergeError| {
            let text = e.to_string();
            text.split(" (model").next().unwrap_or(&text).to_owned()
        };
        if !self
            .errors
            .iter()
            .any(|e| e.code() == error.code() && key(e) == key(&error))
        {
            self.errors.push(error);
        }
    }

    fn out_dtype(&self, promoted: DType) -> DType {
        let natural = match promoted {
            DType::F8E4M3 | DType::F8E5M2 => DType::BF16,
            d if d.is_block() => DType::F16,
            d => d,
        };
        if promoted.is_float() {
            self.recipe
                .out_dtype
                .or(self.recipe.dtype)
                .unwrap_or(natural)
        } else {
            promoted
        }
    }

    fn wrong_shape(
        &mut self,
        wanted: &Wanted,
        first: &Input,
        want: &[usize],
        input: &Input,
        found: &[usize],
    ) {
        let what = self.recipe.base.map_or("the first input", |b| {
            if b == first.model {
                "base"
            } else {
                "the first input"
            }
        });
        let mut error = MergeError::plan(
            "shape-mismatch",
            format!(
                "tensor `{}` has shape {found:?}, {what} has {want:?}",
                input.name
            ),
        )
        .at(self.models[input.model].file_of(&input.name));
        if is_vocab(&wanted.name, want) {
            error = error
                .hint("the vocabularies differ: merge rows by token with a tokenizer rule (`tokenizer_source: union` or `base`)")
                .hint("or cut to the smallest vocabulary, unchecked, with --unsafe-truncate-embeddings");
        } else if names::is_head(&wanted.name) {
            error = error.hint("heads differ per task; keep them out of the merge with `[merge] heads = \"separate\"` (--heads separate)");
        } else {
            error = error
                .hint("only models of one architecture and size can be merged tensor by tensor");
        }
        self.fail(error);
    }

    fn missing(
        &mut self,
        wanted: &Wanted,
        base_model: Option<usize>,
        base: Option<&Input>,
        inputs: &[Option<Input>],
    ) {
        let lacking: Vec<usize> = base_model
            .filter(|_| base.is_none())
            .into_iter()
            .chain(
                wanted
                    .slice
                    .sources
                    .iter()
                    .zip(inputs)
                    .filter(|(_, i)| i.is_none())
                    .map(|(s, _)| s.model),
            )
            .collect();
        // Reported by model in `report_surplus`, so that a wrong prefix is one message and not two hundred.
        for model in lacking {
            self.errors.push(MergeError::Plan {
                code: "missing-tensor",
                place: Some(self.models[model].path.display().to_string()),
                message: wanted.name.clone(),
                hints: vec![model.to_string()],
            });
        }
    }

    /// Joins the missing-tensor marks of [`Self::missing`] into one error per model.
    fn report_surplus(&mut self) {
        let (marks, mut errors): (Vec<_>, Vec<_>) = std::mem::take(&mut self.errors)
            .into_iter()
            .partition(|e| e.code() == "missing-tensor");
        let mut by_model: BTreeMap<usize, Vec<String>> = BTreeMap::new();
        for mark in marks {
            if let MergeError::Plan { message, hints, .. } = mark
                && let Some(model) = hints.first().and_then(|h| h.parse().ok())
            {
                by_model.entry(model).or_default().push(message);
            }
        }
        let base = self.recipe.base;
        let reference = base.unwrap_or_else(|| self.template());
        let lacking_here: BTreeSet<String> = by_model
            .get(&reference)
            .into_iter()
            .flatten()
            .cloned()
            .collect();
        for (model, names) in &by_model {
            let opened = &self.models[*model];
            let what = if base == Some(*model) {
                "the base"
            } else {
                "this model"
            };
            if *model == reference {
                // Tensors the reference lacks are better told from the side of the model that has them.
                let mut owners: Vec<usize> =
                    (0..self.models.len()).filter(|m| m != model).collect();
                owners.retain(|m| names.iter().any(|n| self.models[*m].get(n).is_some()));
                for owner in owners {
                    let has: Vec<&str> = names
                        .iter()
                        .map(String::as_str)
                        .filter(|n| self.models[owner].get(n).is_some())
                        .collect();
                    let known: BTreeSet<&str> = self.models[*model]
                        .tensors
                        .keys()
                        .map(String::as_str)
                        .collect();
                    let kind = if base.is_some() {
                        "base"
                    } else {
                        "the first model"
                    };
                    let mut error = MergeError::plan(
                        "no-counterpart",
                        format!(
                            "{} tensor{} no counterpart in {kind} {}; first: {}",
                            has.len(),
                            if has.len() == 1 { " has" } else { "s have" },
                            self.models[*model].path.display(),
                            has[0],
                        ),
                    )
                    .at(self.models[owner].path.display().to_string());
                    error = match names::prefix_fix(&has, &known) {
                        Some(PrefixFix::Strip(p)) => error.hint(format!("names differ by the prefix `{p}`; add `strip_prefix = \"{p}\"` to this [[expert]]")),
                        Some(PrefixFix::Add(p)) => error.hint(format!("names differ by the prefix `{p}`; add `add_prefix = \"{p}\"` to this [[expert]]")),
                        None if has.iter().all(|n| names::is_head(n)) => {
                            error.hint("heads differ per task; keep them out of the merge with `[merge] heads = \"separate\"` (--heads separate)")
                        }
                        None => error.hint("--intersection leaves such tensors out, --union keeps them"),
                    };
                    errors.push(error);
                }
            } else {
                let rest: Vec<&String> = names
                    .iter()
                    .filter(|n| {
                        !lacking_here.contains(*n) && self.models[reference].get(n).is_some()
                    })
                    .collect();
                // With a wrong prefix both directions fail; the message above names the fix.
                let renamed = by_model.contains_key(&reference)
                    && rest.len() > self.models[reference].tensors.len() / 2;
                if let Some(first) = rest.first().filter(|_| !renamed) {
                    errors.push(
                        MergeError::plan(
                            "missing-tensor",
                            format!("{what} lacks {} tensor{} that {} has; first: {first}", rest.len(), if rest.len() == 1 { "" } else { "s" }, self.models[reference].path.display()),
                        )
                        .at(opened.path.display().to_string())
                        .hint("`missing = \"base\"` counts them as unchanged, --intersection leaves them out, --union merges what is there"),
                    );
                }
            }
        }
        self.errors = errors;
    }

    /// Heads kept apart, one file per task.
    fn heads(&mut self) -> Vec<Head> {
        if self.recipe.heads != Heads::Separate {
            return Vec::new();
        }
        let slice = self.recipe.modules[0].slices[0].clone();
        let mut heads = Vec::new();
        for source in &slice.sources {
            let opened = &self.models[source.model];
            let names: Vec<String> = opened
                .tensors
                .keys()
                .filter(|n| self.is_separate_head(n, &slice))
                .cloned()
                .collect();
            if names.is_empty() {
                continue;
            }
            let task = opened
                .model
                .task
                .clone()
                .unwrap_or_else(|| opened.model.name.clone());
            let modules: BTreeSet<&str> = names
                .iter()
                .filter_map(|n| n.rsplit_once('.').map(|(m, _)| m))
                .collect();
            // One layer is stored as weight and bias, more as 0.weight, 2.weight ... in file order.
            let tensors = names
                .iter()
                .map(|n| {
                    let (module, leaf) = n.rsplit_once('.').unwrap_or(("", n));
                    let file_name = if modules.len() == 1 {
                        leaf.to_owned()
                    } else {
                        let index = modules.iter().position(|m| *m == module).unwrap_or(0) * 2;
                        format!("{index}.{leaf}")
                    };
                    (file_name, n.clone())
                })
                .collect();
            heads.push(Head {
                task,
                model: source.model,
                tensors,
            });
        }
        heads
    }

    /// Sorts each group's tensors by name in byte order and numbers their elements (whole-model order).
    fn renumber(&mut self) {
        for g in 0..self.groups.len() {
            let group = &mut self.groups[g];
            group
                .members
                .sort_by(|a, b| a.job.name.as_bytes().cmp(b.job.name.as_bytes()));
            let mut before = 0u64;
            for (i, member) in group.members.iter_mut().enumerate() {
                let job = Arc::make_mut(&mut member.job);
                job.before = before;
                before += job.elements() as u64;
                self.outputs[member.output].how = How::Merge(g, i);
            }
        }
    }
}

/// True for embeddings and heads, whatever their number of rows.
fn is_vocab(name: &str, shape: &[usize]) -> bool {
    shape
        .first()
        .is_some_and(|rows| vocab::is_vocab_tensor(name, shape, *rows))
}

/// The type both can be stored in without loss of range.
fn promote(a: DType, b: DType) -> DType {
    use DType::{BF16, F16, F32, F64};
    let rank = |d: DType| match d {
        F64 => 4,
        F32 => 3,
        F16 | BF16 => 2,
        d if d.is_block() => 1,
        _ => 0,
    };
    match (a, b) {
        (a, b) if a == b => a,
        (F16, BF16) | (BF16, F16) => F32,
        _ if rank(a) >= rank(b) => a,
        _ => b,
    }
}
