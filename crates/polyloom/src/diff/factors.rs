//! Adapters among themselves, without their base: everything from the factors.
//!
//! Inner products are traces of small products, ranks come from the triangles of two QR decompositions. Signs and
//! largest entries need the product itself, which is formed run by run and never held whole.

use std::collections::BTreeMap;

use polyloom_core::checkpoint::Scratch;
use polyloom_core::linalg::Matrix;
use polyloom_core::peft::{AdapterFolder, LayerKind};

use super::spectrum::{Spectrum, problem};
use super::{Facts, Filter, IntruderRule, Planned, Reader, Source, Task};
use crate::adapt::{Pair, product_svd, refuse};
use crate::error::{MergeError, Result};

struct Adapters<'a>(&'a [(String, AdapterFolder)]);

/// Finds the modules that at least one adapter changes; the others' difference is zero there.
pub(super) fn plan<'a>(
    adapters: &'a [(String, AdapterFolder)],
    filter: &Filter,
) -> Result<Planned<'a>, Vec<MergeError>> {
    let mut errors = Vec::new();
    let mut notes = Vec::new();
    // Module -> shape, kind, and the adapter that said so first.
    let mut found: BTreeMap<&str, (Vec<usize>, LayerKind, &AdapterFolder)> = BTreeMap::new();
    for (name, adapter) in adapters {
        if let Err(error) = refuse(adapter) {
            errors.push(error.hint("with --base the adapter is compared as folded into it"));
            continue;
        }
        notes.extend(adapter.warnings.iter().map(|w| format!("`{name}`: {w}")));
        let whole = adapter.whole.keys().filter(|n| filter.takes(n));
        if let Some(first) = whole.clone().next() {
            notes.push(format!(
                "`{name}`: {} tensors are stored whole and cannot be compared without the base (first: `{first}`)",
                whole.count()
            ));
        }
        for module in adapter.modules.keys().filter(|n| filter.takes(n)) {
            let Some((shape, kind)) = shape_of(adapter, module) else {
                continue;
            };
            match found.get(module.as_str()) {
                None => {
                    found.insert(module, (shape, kind, adapter));
                }
                Some((s, k, first)) if *s != shape || *k != kind => {
                    errors.push(
                        MergeError::plan(
                            "shape-mismatch",
                            format!(
                                "module `{module}` is {shape:?} ({}), but {s:?} ({}) in {}",
                                word(&kind),
                                word(k),
                                first.file().display()
                            ),
                        )
                        .at(adapter.file().display().to_string())
                        .hint(format!(
                            "adapters of different bases cannot be compared; to leave the module out: --exclude '^{}$'",
                            regex::escape(module)
                        )),
                    );
                }
                Some(_) => {}
            }
        }
    }
    if !errors.is_empty() {
        return Err(crate::plan::capped(errors));
    }
    let shared = found
        .keys()
        .filter(|m| adapters.iter().all(|(_, a)| a.modules.contains_key(**m)))
        .count();
    if found.is_empty() {
        let error = MergeError::plan("nothing-in-common", "no module is left to compare");
        return Err(vec![error.hint(
            "--include and --exclude match anywhere in a module's name, such as `encoder.layer.0.attention.self.query`",
        )]);
    }
    if shared == 0 {
        let (name, adapter) = &adapters[adapters.len() - 1];
        let (other, first) = &adapters[0];
        let module = |a: &AdapterFolder| a.modules.keys().next().cloned().unwrap_or_default();
        return Err(vec![
            MergeError::plan(
                "nothing-in-common",
                format!(
                    "no module is changed by all adapters: `{name}` has `{}` first, `{other}` has `{}`",
                    module(adapter),
                    module(first)
                ),
            )
            .at(adapter.file().display().to_string())
            .hint("compare adapters of one base"),
        ]);
    }
    if shared < found.len() {
        notes.push(format!(
            "{} of {} modules are not in every adapter; where one lacks a module it changes nothing",
            found.len() - shared,
            found.len()
        ));
    }
    let tasks = found
        .into_iter()
        .map(|(name, (shape, ..))| Task {
            name: name.to_owned(),
            shape,
        })
        .collect();
    let facts = Facts {
        base: None,
        experts: adapters.iter().map(|(n, _)| n.clone()).collect(),
        notes,
    };
    Ok((tasks, Box::new(Adapters(adapters)), facts))
}

/// Shape `[outputs, inputs]` and kind of a module's product, from the header.
fn shape_of(adapter: &AdapterFolder, module: &str) -> Option<(Vec<usize>, LayerKind)> {
    let parts = adapter.modules.get(module)?;
    let a = adapter.tensors.get(parts.a.as_ref()?)?;
    let b = adapter.tensors.get(parts.b.as_ref()?)?;
    let kind = match &a.shape[1..] {
        _ if parts.embedding => LayerKind::Embedding,
        [_] => LayerKind::Linear,
        dims => LayerKind::Conv(dims.to_vec()),
    };
    Some((vec![b.shape[0], a.row_len()], kind))
}

fn word(kind: &LayerKind) -> &'static str {
    match kind {
        LayerKind::Linear => "linear",
        LayerKind::Embedding => "embedding",
        LayerKind::Conv(_) => "convolution",
    }
}

impl Adapters<'_> {
    /// The factors of one module, scaling in B; `None` where an adapter lacks it.
    fn pairs(&self, module: &str) -> Result<Vec<Option<Pair>>> {
        self.0
            .iter()
            .map(|(_, adapter)| {
                if !adapter.modules.contains_key(module) {
                    return Ok(None);
                }
                let factors = adapter.factors(module)?;
                let mut pair = Pair::from_factors(&factors);
                for v in &mut pair.b.data {
                    *v *= factors.scaling;
                }
                if pair.a.data.iter().chain(&pair.b.data).any(|v| !v.is_finite()) {
                    let file = adapter.file().display().to_string();
                    return Err(problem(&file, module, "holds a value that is not finite").hint(
                        "the file is damaged or its training diverged; leave the module out with --exclude",
                    ));
                }
                Ok(Some(pair))
            })
            .collect()
    }
}

impl Source for Adapters<'_> {
    fn open<'a>(&'a self, task: &'a Task) -> Result<Box<dyn Reader + 'a>> {
        Ok(Box::new(Module {
            pairs: self.pairs(&task.name)?,
            cols: task.shape[1],
        }))
    }

    fn whole_spectra(&self) -> bool {
        false
    }

    fn spectra(&self, task: &Task, _: IntruderRule) -> Result<Vec<Spectrum>> {
        let smaller = task.shape[0].min(task.shape[1]);
        self.pairs(&task.name)?
            .iter()
            .zip(self.0)
            .map(|(pair, (_, adapter))| {
                let Some(pair) = pair else {
                    return Ok(Spectrum::new(&[], smaller, None));
                };
                let d = product_svd(&pair.b, &pair.a)
                    .map_err(|p| problem(&adapter.file().display().to_string(), &task.name, &p))?;
                Ok(Spectrum::new(&d.s, smaller, None))
            })
            .collect()
    }
}

struct Module {
    pairs: Vec<Option<Pair>>,
    cols: usize,
}

/// `<B1 A1, B2 A2> = sum((B1' B2) * (A1 A2'))`, entry by entry.
fn inner(x: &Pair, y: &Pair) -> f64 {
    let outer = x.b.transposed().times(&y.b);
    let inner = x.a.times(&y.a.transposed());
    outer.data.iter().zip(&inner.data).map(|(p, q)| p * q).sum()
}

impl Reader for Module {
    fn has_base(&self) -> bool {
        false
    }

    fn read(
        &self,
        start: usize,
        _: &mut Vec<f32>,
        deltas: &mut [Vec<f32>],
        _: &mut Scratch,
    ) -> Result<()> {
        let mut row = Vec::new();
        for (pair, delta) in self.pairs.iter().zip(deltas) {
            match pair {
                None => delta.fill(0.0),
                Some(pair) => product(&pair.b, &pair.a, self.cols, start, delta, &mut row),
            }
        }
        Ok(())
    }

    fn dots(&self) -> Option<Vec<f64>> {
        let n = self.pairs.len();
        let mut dots = vec![0.0; n * n];
        for i in 0..n {
            for j in i..n {
                if let (Some(x), Some(y)) = (&self.pairs[i], &self.pairs[j]) {
                    let dot = inner(x, y);
                    dots[i * n + j] = dot;
                    dots[j * n + i] = dot;
                }
            }
        }
        Some(dots)
    }
}

/// Entries of `b a` from flat index `start` on, in `f64`, each the same whatever the run.
fn product(b: &Matrix, a: &Matrix, cols: usize, start: usize, out: &mut [f32], row: &mut Vec<f64>) {
    let mut at = start;
    let mut out = out;
    while !out.is_empty() {
        let (r, c) = (at / cols, at % cols);
        let len = (cols - c).min(out.len());
        row.clear();
        row.resize(len, 0.0);
        for (k, factor) in b.data[r * b.cols..][..b.cols].iter().enumerate() {
            for (sum, v) in row.iter_mut().zip(&a.data[k * cols + c..][..len]) {
                *sum += factor * v;
            }
        }
        let (now, rest) = out.split_at_mut(len);
        for (o, v) in now.iter_mut().zip(&*row) {
            *o = *v as f32;
        }
        out = rest;
        at += len;
    }
}
