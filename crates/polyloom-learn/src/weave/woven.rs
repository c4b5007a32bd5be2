//! A woven model in memory: opened with every part checked, run on inputs of one or of unknown tasks.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use polyloom::MergeError;

use super::blend::{Blend, Parts};
use super::meta::{GATES, MIXERS, Meta, Method, ROUTER, SHARED};
use super::mixes::{self, Mix};
use super::reading;
use super::smile::{Gates, Smile};
use super::store::Held;
use super::wemoe::{self, Blocks, Mixing, Wemoe, mixer};
use crate::engine::{Tensor, Value, slice, tensor};
use crate::error::{Error, Result};
use crate::models::open::Model;
use crate::models::{Plain, Source};
use crate::route::{Decision, Points, Router, Tap};
use crate::tasks::forward::{Output, features, said};
use crate::tasks::{Head, Opened, Reader, Shown};

/// An expert of a woven model.
pub struct Expert {
    /// Its name.
    pub name: String,
    /// Its task.
    pub task: String,
    /// What it has beyond the shared weights.
    pub parts: Parts,
    /// Its heads.
    pub heads: Vec<Head>,
}

/// A woven model.
pub struct Woven {
    /// What `woven.json` says.
    pub meta: Meta,
    /// Its folder.
    pub folder: PathBuf,
    /// Base and shared vector in one.
    pub shared: Plain,
    /// The experts.
    pub experts: Vec<Expert>,
    /// SMILE's gates by layer.
    pub gates: Gates,
    /// What chooses an expert; none for a single one.
    pub router: Option<Router>,
}

/// Which expert answers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Choice<'a> {
    /// The router says, for every input.
    Router,
    /// The router has said: its weights of every input.
    Decided(&'a [Vec<f32>]),
    /// This one.
    Expert(usize),
}

/// What came out.
#[derive(Debug, Clone, Default)]
pub struct Said {
    /// What every head said of every input.
    pub outputs: Vec<Vec<Output>>,
    /// The router's weights of every input; empty where it was not asked.
    pub weights: Vec<Vec<f32>>,
}

impl Said {
    /// The expert with the largest weight for each input, of equals the first; `None` where all weights are 0.
    #[must_use]
    pub fn experts(&self) -> Vec<Option<usize>> {
        let of = |row: &Vec<f32>| {
            let best = crate::tasks::answers::largest(row);
            row.get(best).filter(|w| **w > 0.0).map(|_| best)
        };
        self.weights.iter().map(of).collect()
    }
}

impl Woven {
    /// Opens a folder over its base, which is in memory already; `fingerprint` is that of its weights.
    ///
    /// # Errors
    /// Another base than the one it was made of, files that are absent or broken, parts and heads that do not fit.
    pub fn open(folder: &Path, base: &Opened, fingerprint: &str) -> Result<Self> {
        let meta = Meta::read(folder)?;
        if meta.base.hash != fingerprint {
            let place = folder.join(super::meta::FILE).display().to_string();
            let what = format!(
                "was made on another base: {} has other weights than those that it names",
                base.model.folder.display()
            );
            let error = MergeError::plan("other-base", what).at(place);
            return Err(error
                .hint(format!(
                    "it was made on {}; --base MODEL names another place",
                    meta.base.path
                ))
                .into());
        }
        let weights = &base.model.weights;
        let mut more = Vec::new();
        let shared_file = folder.join(SHARED);
        if meta.sizes.shared > 0 || shared_file.exists() {
            for (name, vector) in Held::open(&shared_file)?.like(weights)? {
                more.push((name.clone(), sum(weights.tensor(&name)?.data(), &vector)?));
            }
        }
        let mut experts = Vec::new();
        for expert in &meta.experts {
            let file = folder.join(parts_file(&expert.name));
            let parts = Held::open(&file)?.parts(weights)?;
            if parts.len() != expert.tensors {
                let what = format!(
                    "holds parts of {} tensors, and woven.json counts {}",
                    parts.len(),
                    expert.tensors
                );
                return Err(Error::file(&file, what));
            }
            let mut heads = Vec::new();
            for name in &expert.heads {
                let head = Head::path(&folder.join("heads"), name);
                heads.push(Head::read(&head, name)?);
            }
            experts.push(Expert {
                name: expert.name.clone(),
                task: expert.task.clone(),
                parts,
                heads,
            });
        }
        let mut gates = Gates::new();
        if let (Method::Smile, Some(gating)) = (meta.method, meta.gating) {
            let held = Held::open(&folder.join(GATES))?;
            for name in held.names() {
                let weight = weights.tensor(&format!("{name}.weight"))?;
                let &[_, width] = weight.dims() else {
                    return Err(Error::file(
                        &folder.join(GATES),
                        format!("`{name}` is no linear layer of the base"),
                    ));
                };
                let shape = [experts.len(), gating.gate_rank.min(width), width];
                gates.insert(name.clone(), held.shaped(name, &shape)?);
            }
        }
        if meta.method == Method::Wemoe {
            let held = Held::open(&folder.join(MIXERS))?;
            for (block, names) in meta.blocks.iter().enumerate() {
                let missing = || {
                    Error::file(
                        &folder.join(super::meta::FILE),
                        format!("block {block} names no linear layer"),
                    )
                };
                let first = names.first().ok_or_else(missing)?;
                let weight = weights.tensor(&format!("{first}.weight"))?;
                let width = *weight.dims().last().unwrap_or(&0);
                let n = experts.len();
                let shapes = [vec![width, width], vec![width], vec![n, width], vec![n]];
                for (name, shape) in mixer(block).into_iter().zip(shapes) {
                    let t = held.shaped(&name, &shape)?;
                    more.push((name, t));
                }
            }
        }
        let router = match &meta.routing {
            Some(_) => {
                let router = Router::open(&folder.join(ROUTER))?;
                check(&router, &meta, &experts, base.model.width())
                    .map_err(|what| Error::file(&folder.join(ROUTER), what))?;
                Some(router)
            }
            None => None,
        };
        Ok(Self {
            shared: weights.with(more),
            folder: folder.to_owned(),
            meta,
            experts,
            gates,
            router,
        })
    }

    /// Passes of one model that an input costs with the task unknown, as far as layers count.
    #[must_use]
    pub fn passes(&self, layers: usize) -> f64 {
        match (&self.router, self.meta.method) {
            (Some(router), Method::Twin) => match router.tap {
                Tap::Last(_) => 2.0,
                Tap::Layer(k) => 1.0 + k as f64 / layers.max(1) as f64,
            },
            _ => 1.0,
        }
    }

    /// Whether the router's weights of an input mean one expert alone and nothing else. SMILE and WEMoE choose inside of the
    /// pass, so theirs never do.
    #[must_use]
    pub fn is_alone(&self, weights: &[f32], expert: usize) -> bool {
        let (top, levels) = self.mixing();
        self.meta.method == Method::Twin && mixes::mix(weights, top, levels) == Mix::one(expert)
    }

    fn mixing(&self) -> (Option<usize>, u32) {
        let routing = self.meta.routing.as_ref();
        routing.map_or((None, 0), |r| (r.top, r.levels))
    }

    /// The router's weights of inputs; all for the one expert where there is only one. Reads what comes before the parts
    /// act: of Twin alone.
    fn decide(
        &self,
        model: &Model,
        reader: &Reader,
        shown: &[Shown],
        batch: usize,
    ) -> Result<Vec<Vec<f32>>> {
        let Some(router) = &self.router else {
            return Ok(vec![vec![1.0]; shown.len()]);
        };
        let mut found = vec![Vec::new(); shown.len()];
        for part in by_length(shown, &(0..shown.len()).collect::<Vec<_>>(), batch) {
            let of: Vec<&Shown> = part.iter().map(|&i| &shown[i]).collect();
            let points = reading::read(model, &self.shared, reader, &of, router.tap)?;
            for (i, decided) in part.into_iter().zip(router.decide_all(&points)?) {
                found[i] = decided.weights;
            }
        }
        Ok(found)
    }

    /// Runs inputs through the parts that `choice` says, and the heads on what comes out. Heads must see one feature.
    ///
    /// Inputs with the same mix run together, each as it does alone but for the rounding of `f32`.
    ///
    /// # Errors
    /// Inputs that the model does not take, heads that do not fit.
    pub fn run(
        &self,
        model: &Model,
        reader: &Reader,
        heads: &[&Head],
        shown: &[Shown],
        batch: usize,
        choice: Choice<'_>,
    ) -> Result<Said> {
        // SMILE and WEMoE choose inside of the pass; their router reads what comes out, for the head.
        let early = self.meta.method == Method::Twin;
        let mut out = Said {
            outputs: vec![vec![Output::new(); shown.len()]; heads.len()],
            weights: Vec::new(),
        };
        match choice {
            Choice::Router if early => out.weights = self.decide(model, reader, shown, batch)?,
            Choice::Decided(weights) => out.weights = weights.to_vec(),
            Choice::Router | Choice::Expert(_) => {}
        }
        let Some(feature) = heads.first().map(|h| h.feature) else {
            return Ok(out);
        };
        let with_heads = self.shared.with(heads.iter().flat_map(|h| h.tensors()));
        let (top, levels) = self.mixing();
        let mut groups: BTreeMap<Mix, Vec<usize>> = BTreeMap::new();
        for i in 0..shown.len() {
            let mix = match (choice, self.meta.method) {
                (Choice::Expert(expert), _) => Mix::one(expert),
                (_, Method::Twin) => mixes::mix(&out.weights[i], top, levels),
                _ => Mix::default(),
            };
            groups.entry(mix).or_default().push(i);
        }
        if choice == Choice::Router && !early {
            out.weights = vec![Vec::new(); shown.len()];
        }
        let forced = match choice {
            Choice::Expert(expert) => Some(expert),
            Choice::Router | Choice::Decided(_) => None,
        };
        let parts: Vec<&Parts> = self.experts.iter().map(|e| &e.parts).collect();
        let blocks = match self.meta.method {
            Method::Wemoe => Some(Blocks::new(&self.meta.blocks, &parts)?),
            _ => None,
        };
        for (mix, rows) in groups {
            let weighted = mix.weights().map(|(w, e)| (w, parts[e])).collect();
            let blend = Blend::new(&with_heads, weighted);
            let smile = Smile {
                shared: &with_heads,
                experts: parts.clone(),
                gates: &self.gates,
                top: self.meta.gating.map_or(1, |g| g.top),
                forced,
            };
            for part in by_length(shown, &rows, batch) {
                let of: Vec<&Shown> = part.iter().map(|&i| &shown[i]).collect();
                let asked = [(feature, of)];
                let mixed;
                let source: &dyn Source = match (&blocks, self.meta.method) {
                    (Some(blocks), _) => {
                        let mixing = match forced {
                            Some(expert) => Mixing::one(expert, parts.len()),
                            None => Mixing::Each,
                        };
                        let tokens = wemoe::present(reader, &asked)?;
                        mixed = Wemoe::new(&with_heads, blocks, mixing, tokens);
                        &mixed
                    }
                    (None, Method::Smile) => &smile,
                    (None, _) => &blend,
                };
                let vectors = &features(model, source, reader, &asked)?[0];
                if choice == Choice::Router && !early {
                    self.after(vectors, &part, &mut out.weights)?;
                }
                for (head, found) in heads.iter().zip(&mut out.outputs) {
                    let scores = head.forward(source, vectors)?;
                    let values = slice(scores.data())?;
                    let width = head.outputs().max(1);
                    for (&i, row) in part.iter().zip(values.chunks_exact(width)) {
                        found[i] = said(head, row.to_vec());
                    }
                }
            }
        }
        Ok(out)
    }

    /// Answers inputs of which nothing is known: for each the expert that the router chooses (`None` where it chooses none)
    /// and what each of its heads says.
    ///
    /// # Errors
    /// As [`Self::run`]; inputs that were shown for another feature than the heads see.
    pub fn answer(
        &self,
        model: &Model,
        reader: &Reader,
        shown: &[Shown],
        batch: usize,
    ) -> Result<Vec<(Option<usize>, Vec<Output>)>> {
        // SMILE and WEMoE choose the head after a pass; any head will do for it.
        let first: Vec<&Head> = match self.meta.method {
            Method::Twin => Vec::new(),
            _ => self
                .experts
                .iter()
                .flat_map(|e| e.heads.first())
                .take(1)
                .collect(),
        };
        let decided = self.run(model, reader, &first, shown, batch, Choice::Router)?;
        let chosen = decided.experts();
        let mut out: Vec<_> = chosen.iter().map(|c| (*c, Vec::new())).collect();
        for (number, expert) in self.experts.iter().enumerate() {
            let rows: Vec<usize> = (0..shown.len())
                .filter(|&i| chosen[i] == Some(number))
                .collect();
            if rows.is_empty() {
                continue;
            }
            let some: Vec<Shown> = rows.iter().map(|&i| shown[i].clone()).collect();
            let weights: Vec<_> = rows.iter().map(|&i| decided.weights[i].clone()).collect();
            let heads: Vec<&Head> = expert.heads.iter().collect();
            let choice = Choice::Decided(&weights);
            let said = self.run(model, reader, &heads, &some, batch, choice)?;
            for of_head in said.outputs {
                for (i, output) in rows.iter().zip(of_head) {
                    out[*i].1.push(output);
                }
            }
        }
        Ok(out)
    }

    /// Weights of the router that reads what the head sees.
    fn after(&self, vectors: &Value, part: &[usize], weights: &mut [Vec<f32>]) -> Result<()> {
        let width = *vectors.dims().last().unwrap_or(&1);
        let found: Vec<Decision> = match &self.router {
            Some(router) => {
                router.decide_all(&Points::new(slice(vectors.data())?.to_vec(), width)?)?
            }
            None => vec![Decision::of_weights(vec![1.0]); part.len()],
        };
        for (i, found) in part.iter().zip(found) {
            weights[*i] = found.weights;
        }
        Ok(())
    }
}

/// Rows of like length side by side, in batches.
fn by_length(shown: &[Shown], rows: &[usize], batch: usize) -> Vec<Vec<usize>> {
    let mut order = rows.to_vec();
    order.sort_by_key(|&i| (shown[i].length(), i));
    order.chunks(batch.max(1)).map(<[usize]>::to_vec).collect()
}

/// Whether a router is one for these experts and this base.
fn check(
    router: &Router,
    meta: &Meta,
    experts: &[Expert],
    width: usize,
) -> std::result::Result<(), String> {
    let names: Vec<&str> = router.experts.iter().map(|e| &*e.name).collect();
    if names != experts.iter().map(|e| &*e.name).collect::<Vec<_>>() {
        return Err(format!(
            "chooses from {}; the folder has other experts, or another order",
            names.join(", ")
        ));
    }
    if router.width() != width {
        let reads = router.width();
        return Err(format!(
            "reads vectors of {reads} numbers; those of the base have {width}"
        ));
    }
    let feature = |h: &Head| Tap::Last(h.feature) == router.tap;
    if meta.method != Method::Twin && !experts.iter().flat_map(|e| &e.heads).all(feature) {
        let (tap, method) = (router.tap, meta.method.word());
        return Err(format!(
            "reads `{tap}`; with `{method}` it reads what the heads see"
        ));
    }
    Ok(())
}

/// Where the parts of an expert lie in a folder.
#[must_use]
pub fn parts_file(expert: &str) -> String {
    format!("parts/{expert}.safetensors")
}

fn sum(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let (a, b, dims) = (slice(a)?, slice(b)?, b.dims());
    let sums = a.iter().zip(&*b).map(|(a, b)| a + b).collect();
    tensor(sums, dims)
}
