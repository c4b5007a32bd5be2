//! A run from recipe to woven folder: what experts share is taken off, parts are made small, gates or mixers and the router
//! are fitted, everything is written at once.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use polyloom_core::DType;
use polyloom_core::writer::{FolderOptions, OutputFolder};
use serde_json::json;

use super::apart::{apart, with_vector};
use super::blend::Parts;
use super::fit::Maker;
use super::meta::{
    BaseRef, ExpertMeta, FILE, FORMAT, GATES, Gating, MIXERS, Meta, Method, ROUTER, Routing,
    SHARED, Sizes,
};
use super::mixers::{self, Step};
use super::part::Part;
use super::recipe::Recipe;
use super::smile::Gates;
use super::store;
use super::trace::{self, Trace};
use super::wemoe::Blocks;
use super::woven::parts_file;
use crate::error::{Error, Result};
use crate::image::PREPROCESSOR;
use crate::route::Fitted;
use crate::tasks::forward::features;
use crate::tasks::{Head, Opened, Reader, family};
use crate::train::{Given, write};
use crate::tune::objective::{Seen, Wanted, seen};
use crate::tune::recipe::Per;
use crate::tune::session::{experts, trunk};
use crate::tune::vectors::Vectors;

/// What happens.
#[derive(Debug, Clone, PartialEq)]
pub enum Told {
    /// Everything is read.
    Begun {
        /// Experts.
        experts: usize,
        /// Rows of every task that the router learns from.
        rows: Vec<(String, usize)>,
        /// Things to tell the user.
        warnings: Vec<String>,
    },
    /// So many of so many tensors are made small.
    Parts(usize, usize),
    /// A step of the mixers, of so many.
    Mixers(Step, u32),
    /// The router begins to read.
    Router,
}

/// A run that is done.
#[derive(Debug, Clone, PartialEq)]
pub struct Finished {
    /// Where.
    pub folder: PathBuf,
    /// What `woven.json` says.
    pub meta: Meta,
    /// How the router does on rows that it has not learned from; `None` for a single expert.
    pub router: Option<Fitted>,
}

/// Makes a woven model and writes it to `out`. `tasks` are those of the experts, in their order.
///
/// # Errors
/// Experts of another base, tasks without rows or heads, an output that is there (without `force`),
/// [`polyloom_core::Error::Interrupted`] where `watch` says false.
pub fn weave(
    recipe: &Recipe,
    tasks: &[Given],
    out: &Path,
    options: FolderOptions,
    watch: &mut dyn FnMut(&Told) -> bool,
) -> Result<Finished> {
    recipe.check()?;
    if out.exists() && !options.force {
        return Err(Error::file(out, "exists already")
            .hint("choose another name or pass --force to replace it"));
    }
    let w = &recipe.weave;
    let opened = Opened::open(&recipe.base)?;
    let fingerprint = family::fingerprint(&opened.model.folder, None)?;
    let mut warnings = opened.warnings.clone();
    let found = experts(&recipe.experts, &mut warnings)?;
    let (mut names, found): (Vec<String>, Vec<_>) = found.into_iter().unzip();
    // A task may be named by the path of its spec, which is no name of a file.
    for ((name, expert), task) in names.iter_mut().zip(&recipe.experts).zip(tasks) {
        if expert.name.is_none() {
            *name = task.spec.id.replace('/', "-");
        }
    }
    if let Some(name) = names.iter().find(|n| !super::meta::is_plain(n)) {
        let what = format!("an expert is called `{name}`, which is no name of a file");
        let error = polyloom::MergeError::plan("bad-recipe", what);
        return Err(error.hint("give it a `name`").into());
    }
    let reader = Reader::prepared(&opened.model, w.max_length, w.preprocessor.as_deref())?;
    let wanted = |split, limit, entropy| Wanted {
        base: &recipe.base,
        experts: &recipe.experts,
        heads: w.heads.as_deref(),
        split,
        limit,
        entropy,
        vectors: None,
        table: "weave",
    };
    let rows = wanted(&w.router.split, Some(w.router.limit), false);
    let learned = seen(&rows, &opened, &reader, tasks)?;
    if learned.len() != names.len() {
        let what = format!(
            "{} experts and {} tasks; each has one of its own",
            names.len(),
            learned.len()
        );
        return Err(polyloom::MergeError::plan("bad-recipe", what).into());
    }
    let counts = tasks.iter().zip(&learned);
    let told = Told::Begun {
        experts: names.len(),
        rows: counts
            .map(|(t, s)| (t.spec.id.clone(), s.rows.len()))
            .collect(),
        warnings,
    };
    let mut go = |told: &Told| match watch(told) {
        true => Ok(()),
        false => Err(Error::from(polyloom_core::Error::Interrupted)),
    };
    go(&told)?;
    let used = traced(&opened, &reader, &learned)?;
    let trunk = trunk(&opened)?;
    let base = &opened.model.weights;
    let vectors = Vectors::new(base, &trunk, found, (Per::Task, 1), recipe.seed)?;
    let dtype = match recipe.dtype()? {
        Some(dtype) => dtype,
        None => usual(&opened),
    };
    let apart = apart(recipe, &opened, &vectors, &trunk, &used, dtype, &mut go)?;
    let heads: Vec<&Head> = learned.iter().flat_map(|s| &s.heads).collect();
    let statics = with_vector(base, &apart.shared)?.with(heads.iter().flat_map(|h| h.tensors()));
    let of: Vec<&Parts> = apart.parts.iter().collect();
    let mut mixers = Vec::new();
    let blocks = match w.method {
        Method::Wemoe => used.blocks.clone(),
        _ => Vec::new(),
    };
    if w.method == Method::Wemoe {
        let inputs = seen(&wanted(&w.split, w.limit, true), &opened, &reader, tasks)?;
        let settings = mixers::Settings {
            steps: w.steps,
            rate: w.rate as f32,
            batch: w.batch,
            seed: recipe.seed,
        };
        let learning = Blocks::new(&blocks, &of)?;
        mixers = mixers::learn(
            settings,
            &opened,
            &reader,
            &statics,
            &learning,
            &inputs,
            &mut |step| go(&Told::Mixers(step, w.steps)).is_ok(),
        )?;
    }
    let routing = (names.len() > 1).then_some(Routing {
        top: w.router.top,
        levels: w.router.levels,
    });
    let mut meta = Meta {
        format: FORMAT.to_owned(),
        polyloom: env!("CARGO_PKG_VERSION").to_owned(),
        method: w.method,
        base: BaseRef {
            path: write::whole_path(&recipe.base),
            hash: fingerprint,
        },
        dtype: dtype.to_string().to_lowercase(),
        experts: Vec::new(),
        routing,
        gating: (w.method == Method::Smile).then_some(Gating {
            gate_rank: w.gate_rank,
            top: w.top,
        }),
        blocks,
        sizes: Sizes {
            copies: apart.copies,
            ..Sizes::default()
        },
    };
    let fitted = match routing {
        Some(_) => {
            go(&Told::Router)?;
            let with_mixers = statics.with(mixers.iter().cloned());
            let gates: Gates = apart.gates.clone().into_iter().collect();
            let maker = Maker {
                recipe,
                opened: &opened,
                reader: &reader,
                weights: &with_mixers,
                names: &names,
                tasks,
                parts: &of,
                gates: &gates,
                meta: &meta,
            };
            Some(maker.fit(&learned)?)
        }
        None => None,
    };
    let folder = OutputFolder::create(out, options)?;
    let put = |name: &str, bytes: &[u8]| -> Result<u64> {
        folder.write_file(name, bytes)?;
        Ok(bytes.len() as u64)
    };
    if !apart.shared.is_empty() {
        meta.sizes.shared = put(SHARED, &store::tensors(&apart.shared, dtype, out)?)?;
    }
    for ((name, parts), (task, seen)) in names
        .iter()
        .zip(&apart.parts)
        .zip(tasks.iter().zip(&learned))
    {
        let bytes = put(&parts_file(name), &store::parts(parts, dtype, out)?)?;
        meta.sizes.parts += bytes;
        for head in &seen.heads {
            let path = Head::path(Path::new("heads"), &head.task);
            let head = head.bytes()?;
            folder.write_file(path, &head)?;
            meta.sizes.heads += head.len() as u64;
        }
        meta.experts.push(ExpertMeta {
            name: name.clone(),
            task: task.spec.id.clone(),
            heads: seen.heads.iter().map(|h| h.task.clone()).collect(),
            tensors: parts.len(),
            rank: parts.values().filter_map(Part::rank).max(),
            bytes,
        });
    }
    if !apart.gates.is_empty() {
        meta.sizes.routing += put(GATES, &store::tensors(&apart.gates, dtype, out)?)?;
    }
    if !mixers.is_empty() {
        let mixers = mixers.into_iter().collect();
        meta.sizes.routing += put(MIXERS, &store::tensors(&mixers, DType::F32, out)?)?;
    }
    if let Some(fitted) = &fitted {
        meta.sizes.routing += put(ROUTER, &fitted.router.bytes())?;
    }
    if let Some(file) = &w.preprocessor {
        folder.copy_file(file, PREPROCESSOR)?;
    }
    put(FILE, meta.text()?.as_bytes())?;
    let listed: Vec<Head> = heads.into_iter().cloned().collect();
    let provenance = json!({
        "polyloom": env!("CARGO_PKG_VERSION"),
        "kind": "weave",
        "base": meta.base.path,
        "experts": recipe.experts.iter().map(|e| write::whole_path(&e.path)).collect::<Vec<_>>(),
        "recipe": recipe,
        "seed": recipe.seed,
        "router": fitted.as_ref().map(|f| &f.router.fitted),
        "test_inputs_seen": w.router.split == "test" || (w.method == Method::Wemoe && w.split == "test"),
        "tasks": write::listed(&listed),
    });
    let text =
        serde_json::to_string_pretty(&provenance).map_err(|e| Error::file(out, e.to_string()))?;
    put("polyloom.json", format!("{text}\n").as_bytes())?;
    Ok(Finished {
        folder: folder.commit()?,
        meta,
        router: fitted,
    })
}

/// The most frequent type of the base's weights.
fn usual(opened: &Opened) -> DType {
    let mut counts: BTreeMap<String, (usize, DType)> = BTreeMap::new();
    for (_, dtype, shape) in opened
        .stored
        .iter()
        .filter(|(_, d, _)| d.is_float() && !d.is_block())
    {
        counts.entry(dtype.to_string()).or_insert((0, *dtype)).0 += shape.iter().product::<usize>();
    }
    let most = counts.into_values().max_by_key(|(n, _)| *n);
    most.map_or(DType::F32, |(_, dtype)| dtype)
}

/// Linear layers and feed-forward parts that the tasks use: one input shows them.
fn traced(opened: &Opened, reader: &Reader, learned: &[Seen]) -> Result<trace::Seen> {
    let mut all = trace::Seen::default();
    for seen in learned {
        let trace = Trace::new(&opened.model.weights);
        features(
            &opened.model,
            &trace,
            reader,
            &[(seen.feature, vec![&seen.rows.shown[0]])],
        )?;
        let found = trace.seen();
        for name in found.linear {
            if !all.linear.contains(&name) {
                all.linear.push(name);
            }
        }
        if all.blocks.is_empty() {
            all.blocks = found.blocks;
        }
    }
    Ok(all)
}
