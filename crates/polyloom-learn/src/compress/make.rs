//! Bundles made from a recipe, by every method.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use polyloom::MergeError;
use polyloom::compress::delta::{Stored, as_matrix};
use polyloom::compress::lowrank::{self, Axis, Choice, Decomposed, Item};
use polyloom::compress::{self, Accounting, Deltas, Extra};
use polyloom::plan::execute::{HashKind, Report, RunOptions};
use polyloom::plan::reference::Places;
use polyloom::plan::{self, Plan};
use polyloom::recipe::Recipe;
use polyloom_core::DType;
use polyloom_core::linalg::Matrix;
use rayon::prelude::*;

use super::recipe::{Compress, Method, ScaleOf};
use crate::error::Result;

/// How a folder is written.
#[derive(Clone)]
pub struct Writing<'a> {
    /// Replace a folder that is there.
    pub force: bool,
    /// Skip fsync.
    pub no_sync: bool,
    /// Hashes of the inputs in the provenance.
    pub hash: HashKind,
    /// Raised to stop.
    pub stop: Option<&'a AtomicBool>,
}

impl<'a> Writing<'a> {
    fn options(&self, target: &Path) -> RunOptions<'a> {
        RunOptions {
            target: target.to_owned(),
            shard_size: u64::MAX,
            force: self.force,
            no_sync: self.no_sync,
            resume: false,
            allow_nonfinite: false,
            chunk: 0,
            hash: self.hash,
            stop: self.stop,
            progress: None,
        }
    }
}

/// Recipe and settings that bundles are made from.
pub struct Maker<'a> {
    /// Models; its method is set anew for every bundle.
    pub recipe: &'a Recipe,
    /// `[compress]`.
    pub settings: &'a Compress,
    /// Where models are looked for.
    pub places: &'a Places,
    /// How folders are written.
    pub writing: Writing<'a>,
}

/// Parts of every task and tensor of a bundle.
pub type Parts = Vec<Vec<Option<Stored>>>;

impl Maker<'_> {
    /// The plan of a method of masks; of any other that of task arithmetic, from which deltas are read.
    ///
    /// # Errors
    /// What the plan reports.
    pub fn plan(&self, method: Method, set: &[(&str, String)]) -> Result<Plan> {
        let mut recipe = self.recipe.clone();
        let word = match method.is_masks() {
            true => method.word(),
            false => "task_arithmetic",
        };
        if recipe.method != word {
            recipe.set_method(word)?;
        }
        if let (true, Some(store)) = (method.is_masks(), &self.settings.store) {
            recipe.set("merge.shared.store", store)?;
        }
        for (key, value) in set {
            recipe.set(key, value)?;
        }
        Ok(plan::build(recipe, self.places).map_err(first)?)
    }

    /// Writes a bundle of masks. `lambdas` are the thresholds of the experts, of TALL.
    ///
    /// # Errors
    /// What the plan and the files report.
    pub fn masks(
        &self,
        method: Method,
        lambdas: Option<&[f64]>,
        target: &Path,
        extras: &[Extra],
    ) -> Result<(Report, Accounting)> {
        let list = lambdas.map(|l| {
            l.iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join(",")
        });
        let set: Vec<(&str, String)> = list
            .map(|l| ("merge.each.mask_lambda", l))
            .into_iter()
            .collect();
        let plan = self.plan(method, &set)?;
        Ok(compress::write(
            &plan,
            &self.writing.options(target),
            extras,
        )?)
    }

    /// Writes a bundle of deltas.
    ///
    /// # Errors
    /// As [`Self::masks`].
    pub fn deltas(
        &self,
        method: Method,
        about: &[(&str, String)],
        parts: &Parts,
        target: &Path,
        extras: &[Extra],
    ) -> Result<(Report, Accounting)> {
        let mut plan = self.plan(method, &[])?;
        let about: BTreeMap<String, String> = about
            .iter()
            .map(|(k, v)| ((*k).to_owned(), v.clone()))
            .collect();
        let options = self.writing.options(target);
        let how = (method.word(), self.store()?);
        Ok(compress::write_deltas(
            &mut plan, &options, how, &about, parts, extras,
        )?)
    }

    /// Type of factors.
    ///
    /// # Errors
    /// A word that is none.
    pub fn store(&self) -> Result<DType> {
        Ok(self.settings.dtype()?.unwrap_or(DType::F16))
    }
}

/// The first of several problems.
pub(super) fn first(errors: Vec<MergeError>) -> MergeError {
    let none = || MergeError::Internal("a plan failed without a problem".into());
    errors.into_iter().next().unwrap_or_else(none)
}

/// Decompositions of all deltas, made once for any number of budgets.
pub struct Factors {
    items: Vec<Item>,
    found: Vec<Option<Decomposed>>,
    /// Tasks times tensors.
    width: usize,
    /// Whether Fisher information weighed any of them.
    pub weighted: bool,
}

impl Factors {
    /// Of the deltas of all experts, task by task. With Fisher information of an expert (`stats`) its matrices are
    /// weighted by it, and all its gains are in its units.
    ///
    /// Memory: the factors of all deltas in `f64`.
    ///
    /// # Errors
    /// Files that cannot be read.
    pub fn new(deltas: &Deltas<'_>, axis: Axis, floor: f64, store: DType) -> Result<Self> {
        let tensors = deltas.tensors();
        let width = tensors.len();
        let all: Vec<(usize, usize)> = (0..deltas.experts())
            .flat_map(|e| (0..width).map(move |t| (e, t)))
            .collect();
        type One = (Item, Option<Decomposed>, bool);
        let one = |&(expert, t): &(usize, usize)| -> Result<One> {
            let delta = deltas.delta(expert, t)?;
            let fisher = deltas.fisher(expert, t)?;
            let out = tensors[t];
            let size = out.dtype.block().1 as u64;
            let weigh = |i: usize| fisher.as_ref().map_or(1.0, |f| f64::from(f[i]));
            let squares = |(i, d): (usize, &f32)| weigh(i) * f64::from(*d).powi(2);
            let mut item = Item {
                gains: Vec::new(),
                cost: 0,
                all: delta.iter().enumerate().map(squares).sum(),
                whole: delta.len() as u64 * size,
            };
            let moved = delta.iter().any(|d| *d != 0.0);
            let Some((rows, cols)) = as_matrix(&out.shape).filter(|_| moved) else {
                return Ok((item, None, fisher.is_some()));
            };
            let weights = fisher
                .as_ref()
                .map(|f| lowrank::importance(f, (rows, cols), axis, floor));
            let m = Matrix::from_f32(rows, cols, &delta);
            let found = lowrank::decompose(&m, weights.as_ref().map(|w| (axis, &**w)))?;
            // The importance of a unit is a sum over the other axis; its mean is in the units of `all`.
            let other = match (&weights, axis) {
                (None, _) => 1.0,
                (Some(_), Axis::Input) => rows as f64,
                (Some(_), Axis::Output) => cols as f64,
            };
            item.gains = found.gains.iter().map(|g| g / other).collect();
            item.cost = (rows + cols) as u64 * store.block().1 as u64;
            Ok((item, Some(found), fisher.is_some()))
        };
        let made: Result<Vec<One>> = all.par_iter().map(one).collect();
        let mut made = made?;
        // Every task's error counts as a share of its own.
        for of_task in made.chunks_mut(width.max(1)) {
            let total: f64 = of_task.iter().map(|m| m.0.all).sum();
            if total > 0.0 {
                for (item, ..) in of_task {
                    item.all /= total;
                    item.gains.iter_mut().for_each(|g| *g /= total);
                }
            }
        }
        let weighted = made.iter().any(|m| m.2);
        let (items, found) = made.into_iter().map(|(i, f, _)| (i, f)).unzip();
        Ok(Self {
            items,
            found,
            width,
            weighted,
        })
    }

    /// Bytes of all deltas, stored whole.
    #[must_use]
    pub fn whole(&self) -> u64 {
        self.items.iter().map(|i| i.whole).sum()
    }

    /// What a budget buys: bytes of files, of which headers take their part.
    ///
    /// # Errors
    /// Files that cannot be read.
    pub fn parts(&self, deltas: &Deltas<'_>, budget: u64) -> Result<Parts> {
        let tasks = deltas.experts();
        let headers = (tasks * (700 + 8 * self.width)) as u64;
        let choices = lowrank::allocate(&self.items, budget.saturating_sub(headers));
        let one = |i: usize| -> Result<Option<Stored>> {
            let (expert, t) = (i / self.width, i % self.width);
            Ok(match (choices[i], &self.found[i]) {
                (Choice::Same, _) => None,
                (Choice::Rank(rank), Some(found)) => {
                    let (left, right) = lowrank::factors(found, rank);
                    Some(Stored::LowRank { rank, left, right })
                }
                _ => Some(Stored::Own(deltas.expert(expert, t)?)),
            })
        };
        let flat: Result<Vec<Option<Stored>>> =
            (0..choices.len()).into_par_iter().map(one).collect();
        Ok(flat?.chunks(self.width.max(1)).map(<[_]>::to_vec).collect())
    }
}

/// One bit per parameter of the matrices of the layers; embeddings, norms, biases and what else there is stay whole where
/// they changed.
///
/// # Errors
/// Files that cannot be read.
pub fn bits(deltas: &Deltas<'_>, scale: ScaleOf) -> Result<Parts> {
    let tensors = deltas.tensors();
    let blocks = &deltas.base_model().blocks;
    let one = |expert: usize, t: usize| -> Result<Option<Stored>> {
        let delta = deltas.delta(expert, t)?;
        let out = tensors[t];
        let matrix = as_matrix(&out.shape).filter(|_| blocks.of(&out.name).is_some());
        Ok(match matrix {
            Some((rows, _)) => {
                let rows = (scale == ScaleOf::Row).then_some(rows);
                lowrank::signs(&delta, rows).map(|(bits, scales)| Stored::Signs { bits, scales })
            }
            None if delta.iter().any(|d| *d != 0.0) => Some(Stored::Own(deltas.expert(expert, t)?)),
            None => None,
        })
    };
    (0..deltas.experts())
        .into_par_iter()
        .map(|e| (0..tensors.len()).map(|t| one(e, t)).collect())
        .collect()
}

/// Entries of every tensor that are grafted, from one mask over all of them, tensor after tensor.
///
/// # Errors
/// Files that cannot be read.
pub fn grafted(deltas: &Deltas<'_>, expert: usize, mask: &[bool]) -> Result<Vec<Option<Stored>>> {
    let mut start = 0;
    let mut parts = Vec::new();
    for (t, tensor) in deltas.tensors().iter().enumerate() {
        let n: usize = tensor.shape.iter().product();
        let own = &mask[start..start + n];
        start += n;
        let at: Vec<usize> = (0..n).filter(|i| own[*i]).collect();
        parts.push(if at.is_empty() {
            None
        } else {
            let all = deltas.expert(expert, t)?;
            let values = at.iter().map(|i| all[*i]).collect();
            Some(Stored::Graft { at, values })
        });
    }
    Ok(parts)
}

/// What an expert changed, tensor after tensor.
///
/// # Errors
/// Files that cannot be read.
pub fn flat(deltas: &Deltas<'_>, expert: usize) -> Result<Vec<f32>> {
    let mut all = Vec::new();
    for t in 0..deltas.tensors().len() {
        all.extend(deltas.delta(expert, t)?);
    }
    Ok(all)
}

/// The entries that moved most: those above the n-th largest movement, with `n = int(density d)` (strictly: n - 1 where no
/// two are equal), as `merge`'s `graft` has it.
#[must_use]
pub fn moved(delta: &[f32], density: f64) -> Vec<bool> {
    let n = (delta.len() as f64 * density) as usize;
    if n == 0 {
        return vec![false; delta.len()];
    }
    let mut sizes: Vec<f32> = delta.iter().map(|d| d.abs()).collect();
    let at = sizes.len() - n;
    let cut = *sizes.select_nth_unstable_by(at, f32::total_cmp).1;
    delta.iter().map(|d| d.abs() > cut).collect()
}

/// For every pair of tasks the share of the first one's entries that the second one grafts too.
#[must_use]
pub fn overlap(parts: &Parts) -> Vec<Vec<f64>> {
    let places: Vec<Vec<(usize, usize)>> = parts
        .iter()
        .map(|task| {
            let of = |(t, part): (usize, &Option<Stored>)| match part {
                Some(Stored::Graft { at, .. }) => at.iter().map(|p| (t, *p)).collect(),
                _ => Vec::new(),
            };
            task.iter().enumerate().flat_map(of).collect()
        })
        .collect();
    let of = |a: &Vec<(usize, usize)>, b: &Vec<(usize, usize)>| {
        let both = a.iter().filter(|p| b.binary_search(p).is_ok()).count();
        both as f64 / a.len().max(1) as f64
    };
    places
        .iter()
        .map(|a| places.iter().map(|b| of(a, b)).collect())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn movement_and_overlap_by_hand() {
        let d = [4.0f32, -3.0, 2.0, 1.0];
        assert_eq!(moved(&d, 0.5), [true, false, false, false]);
        assert_eq!(moved(&d, 0.1), [false; 4]);
        let graft = |at: &[usize]| {
            vec![Some(Stored::Graft {
                at: at.to_vec(),
                values: vec![0.0; at.len()],
            })]
        };
        let found = overlap(&vec![graft(&[0, 2, 5, 7]), graft(&[2, 7])]);
        assert_eq!(found, [[1.0, 0.5], [1.0, 1.0]]);
    }
}
