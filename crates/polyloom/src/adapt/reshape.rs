//! One LoRA adapter into another form: a new rank, plain scaling, no changed base, fewer intruder dimensions.

use polyloom_core::linalg::{Matrix, Svd, svd};
use polyloom_core::peft::init::start_factors;
use polyloom_core::peft::{AdapterFolder, BaseChange, LayerKind, Names};
use polyloom_core::{Checkpoint, DType};
use rayon::prelude::*;

use super::combine::refuse;
use super::extract::Split;
use super::set::{AdapterSet, ModuleReport, Pair};
use super::truncate::product_svd;
use crate::error::{MergeError, Result};

/// Runs `change` on every module of a LoRA adapter; scaling is inside the factors it returns.
fn each(
    adapter: &AdapterFolder,
    change: impl Fn(&str, Pair, f64) -> Result<(Pair, Option<f64>)> + Sync,
) -> Result<AdapterSet> {
    let done: Vec<(String, Pair, DType, Option<f64>)> = adapter
        .modules
        .par_iter()
        .map(|(name, parts)| {
            let factors = adapter.factors(name)?;
            let stored = parts.a.as_ref().and_then(|a| adapter.tensors.get(a));
            let dtype = stored.map_or(DType::F32, |t| t.dtype);
            let (pair, error) = change(name, Pair::from_factors(&factors), factors.scaling)?;
            Ok((name.clone(), pair, dtype, error))
        })
        .collect::<Result<_>>()?;
    let r = done.iter().map(|d| d.1.rank()).max().unwrap_or(1);
    let targets = adapter
        .config
        .targets
        .target
        .clone()
        .unwrap_or_else(|| Names::List(adapter.modules.keys().cloned().collect()));
    let report = done
        .iter()
        .map(|(name, pair, _, error)| ModuleReport {
            module: name.clone(),
            rank: pair.rank(),
            relative_error: *error,
        })
        .collect();
    let modules = done.into_iter().map(|(n, p, d, _)| (n, p, d)).collect();
    let mut set = AdapterSet::unscaled(&adapter.config.raw, &targets, r, modules);
    for full in adapter.whole.values() {
        let stored = &adapter.tensors.tensors()[full];
        set.whole.push(polyloom_core::peft::AdapterTensor {
            name: full.clone(),
            dtype: stored.dtype,
            shape: stored.shape.clone(),
            values: adapter.read(full)?,
        });
    }
    set.report = report;
    set.warnings = adapter.warnings.clone();
    Ok(set)
}

fn in_module(name: &str, problem: &str) -> MergeError {
    MergeError::plan("adapter-mismatch", format!("module `{name}`: {problem}"))
}

/// The best adapter of another rank, alpha = r: SVD of every delta from its factors, balanced, where the rank falls; rows
/// and columns of zeros where it rises, which changes nothing else. A module whose dimensions are smaller than `rank` gets
/// the smaller rank.
pub fn resize(adapter: &AdapterFolder, rank: usize) -> Result<AdapterSet> {
    refuse(adapter)?;
    if rank == 0 {
        return Err(MergeError::plan(
            "bad-parameter",
            "rank 0 leaves nothing of the adapter",
        ));
    }
    each(adapter, |name, mut pair, scaling| {
        for v in &mut pair.a.data {
            *v *= scaling;
        }
        let rank = rank.min(pair.b.rows).min(pair.a.cols);
        // Nothing is lost, and the factors stay what they are: adapters of several ranks can be averaged after it.
        if rank >= pair.rank() {
            return Ok((pair.padded(rank), Some(0.0)));
        }
        let d = product_svd(&pair.b, &pair.a).map_err(|p| in_module(name, &p))?;
        let k = rank.min(d.s.len());
        let total: f64 = d.s.iter().map(|s| s * s).sum();
        let lost: f64 = d.s[k..].iter().map(|s| s * s).sum();
        let error = if total > 0.0 {
            (lost / total).sqrt()
        } else {
            0.0
        };
        let resized = Split::Balanced.factors(&d, k, pair.kind);
        Ok((resized, Some(error)))
    })
}

/// A plain LoRA (alpha = r, no rsLoRA, unchanged base) with the same delta: scaling goes into A; a PiSSA or OLoRA
/// adapter becomes `[B, -B0] [A; A0]` of twice the rank, which needs its base.
pub fn to_plain_lora(adapter: &AdapterFolder, base: Option<&Checkpoint>) -> Result<AdapterSet> {
    let change = adapter.config.base_change;
    if change == BaseChange::None {
        refuse(adapter)?;
    }
    let place = adapter.config.path.display().to_string();
    if change != BaseChange::None && base.is_none() {
        return Err(MergeError::plan(
            "adapter-unsupported",
            "`init_lora_weights` changes the base, so the base is needed",
        )
        .at(place)
        .hint("pass --base"));
    }
    let flipped = adapter.config.fan_in_fan_out;
    each(adapter, |name, mut pair, scaling| {
        for v in &mut pair.a.data {
            *v *= scaling;
        }
        let (Some(base), true) = (base, change != BaseChange::None) else {
            return Ok((pair, None));
        };
        let weight = base_weight(base, name, &pair, flipped)?;
        let (rank, inputs) = (pair.rank(), pair.a.cols);
        let (b0, a0) =
            start_factors(change, &weight, rank, scaling).map_err(|p| in_module(name, &p))?;
        let mut wide = pair.padded(rank + a0.rows);
        for (to, from) in wide.a.data[rank * inputs..].iter_mut().zip(&a0.data) {
            *to = scaling * from;
        }
        for o in 0..b0.rows {
            for k in 0..b0.cols {
                wide.b.data[o * wide.a.rows + rank + k] = -b0.data[o * b0.cols + k];
            }
        }
        Ok((wide, None))
    })
}

/// The base weight of a module as `[out, in]`.
fn base_weight(base: &Checkpoint, module: &str, pair: &Pair, flipped: bool) -> Result<Matrix> {
    let name = format!("{module}.weight");
    let Some(stored) = base.get(&name) else {
        return Err(polyloom_core::Error::tensor(
            base.origin(),
            &name,
            format!("is missing, but the adapter changes module `{module}`"),
        )
        .into());
    };
    let transposed =
        pair.kind == LayerKind::Embedding || (flipped && pair.kind == LayerKind::Linear);
    let (outputs, inputs) = (pair.b.rows, pair.a.cols);
    let (rows, cols) = if transposed {
        (inputs, outputs)
    } else {
        (outputs, inputs)
    };
    if stored.shape.first() != Some(&rows) || stored.row_len() != cols {
        return Err(polyloom_core::Error::tensor(
            base.origin(),
            &name,
            format!(
                "has shape {:?}, but the adapter's module `{module}` is [{outputs}, {inputs}]",
                stored.shape
            ),
        )
        .into());
    }
    let weight = Matrix::from_f32(rows, cols, &base.read_all(stored)?);
    Ok(if transposed {
        weight.transposed()
    } else {
        weight
    })
}

/// Intruder dimensions of one tuned matrix (arXiv 2410.21228): leading left singular vectors that resemble none of
/// the base's.
#[derive(Debug, Clone)]
pub struct Intruders {
    /// `max_j |u'_i . u_j|` for every left vector of the tuned matrix.
    pub max_cosine: Vec<f64>,
    /// Singular values of the tuned matrix.
    pub singular_values: Vec<f64>,
    /// Which of the first k are intruders.
    pub indices: Vec<usize>,
}

/// `max_j |u'_i . u_j|` for the first `k` left vectors of the tuned matrix against all of the base's.
pub fn max_cosines(before: &Svd, after: &Svd, k: usize) -> Vec<f64> {
    let cosines = after.u.first_columns(k).transposed().times(&before.u);
    cosines
        .data
        .chunks_exact(cosines.cols.max(1))
        .map(|row| row.iter().fold(0.0, |m: f64, v| m.max(v.abs())))
        .collect()
}

/// Finds the intruders among the first `k` left vectors (PEFT: 10) with a cosine below `epsilon` (PEFT: 0.5).
/// Also returns `sum over intruders of S'_i u'_i v'_i^T`, the part that [`scale_intruders`] shrinks.
pub fn intruders(
    base: &Matrix,
    tuned: &Matrix,
    k: usize,
    epsilon: f64,
) -> Result<(Intruders, Matrix), String> {
    let (before, after) = (svd(base)?, svd(tuned)?);
    let max_cosine = max_cosines(&before, &after, after.u.cols);
    let indices: Vec<usize> = (0..max_cosine.len().min(k))
        .filter(|&i| max_cosine[i] < epsilon)
        .collect();
    let chosen: Vec<f64> = (0..after.s.len())
        .map(|i| {
            if indices.contains(&i) {
                after.s[i]
            } else {
                0.0
            }
        })
        .collect();
    let part = after.u.scale_columns(&chosen).times(&after.vt);
    let found = Intruders {
        max_cosine,
        singular_values: after.s,
        indices,
    };
    Ok((found, part))
}

/// Shrinks the intruder dimensions of an adapter to `lambda` (0.75; 1 leaves, 0 removes) and factors the new delta to
/// the old rank. The report's error is what that rank cannot hold; counts per module come beside it, in name order.
pub fn scale_intruders(
    adapter: &AdapterFolder,
    base: &Checkpoint,
    k: usize,
    epsilon: f64,
    lambda: f64,
) -> Result<(AdapterSet, Vec<(String, usize)>)> {
    refuse(adapter)?;
    if !lambda.is_finite() || !epsilon.is_finite() {
        return Err(MergeError::plan(
            "bad-parameter",
            "lambda and epsilon must be finite numbers",
        ));
    }
    let flipped = adapter.config.fan_in_fan_out;
    let counts = std::sync::Mutex::new(std::collections::BTreeMap::new());
    let set = each(adapter, |name, pair, scaling| {
        let weight = base_weight(base, name, &pair, flipped)?;
        let mut delta = pair.b.times(&pair.a);
        for v in &mut delta.data {
            *v *= scaling;
        }
        let mut tuned = weight.clone();
        tuned.add(1.0, &delta);
        let (found, part) =
            intruders(&weight, &tuned, k, epsilon).map_err(|p| in_module(name, &p))?;
        delta.add(lambda - 1.0, &part);
        let d = svd(&delta).map_err(|p| in_module(name, &p))?;
        let norm = delta.norm();
        let rank = pair.rank().min(d.s.len());
        let lost: f64 = d.s[rank..].iter().map(|s| s * s).sum();
        let error = if norm > 0.0 { lost.sqrt() / norm } else { 0.0 };
        if let Ok(mut counts) = counts.lock() {
            counts.insert(name.to_owned(), found.indices.len());
        }
        Ok((Split::Balanced.factors(&d, rank, pair.kind), Some(error)))
    })?;
    let counts = counts.into_inner().unwrap_or_default();
    Ok((set, counts.into_iter().collect()))
}
