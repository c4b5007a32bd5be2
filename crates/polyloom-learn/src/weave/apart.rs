//! Experts taken apart: what they share, and what each has beyond it.

use std::collections::BTreeMap;

use polyloom_core::rng::Stream;
use polyloom_core::{DType, dtype};
use rayon::prelude::*;

use super::blend::Parts;
use super::make::Told;
use super::meta::Method;
use super::part::{Compression, Part};
use super::recipe::Recipe;
use super::smile::gate;
use super::trace;
use crate::engine::{Tensor, slice, tensor};
use crate::error::{Error, Result};
use crate::models::{Plain, Source};
use crate::tasks::Opened;
use crate::tune::vectors::Vectors;

/// What the experts were taken apart into.
pub(super) struct Apart {
    /// The shared vector.
    pub shared: BTreeMap<String, Tensor>,
    /// Of each expert.
    pub parts: Vec<Parts>,
    /// SMILE's, by layer.
    pub gates: BTreeMap<String, Tensor>,
    /// Bytes of whole copies of what the experts changed.
    pub copies: u64,
}

/// What is shared, and what each expert has beyond it, tensor by tensor.
pub(super) fn apart(
    recipe: &Recipe,
    opened: &Opened,
    vectors: &Vectors,
    names: &[String],
    used: &trace::Seen,
    dtype: DType,
    go: &mut dyn FnMut(&Told) -> Result<()>,
) -> Result<Apart> {
    let w = &recipe.weave;
    let base = &opened.model.weights;
    let given = match &w.shared {
        Some(reference) => Some(Opened::open(reference)?.model.weights),
        None => None,
    };
    let layers: Vec<String> = match w.method {
        Method::Twin => Vec::new(),
        Method::Smile => used.linear.clone(),
        Method::Wemoe => used.blocks.concat(),
    };
    if w.method != Method::Twin && layers.is_empty() {
        let what = format!(
            "`{}` finds no feed-forward part in {}",
            w.method.word(),
            opened.model.folder.display()
        );
        return Err(polyloom::MergeError::plan("bad-recipe", what).into());
    }
    let of_layer = |name: &str| {
        let stem = name
            .strip_suffix(".weight")
            .or_else(|| name.strip_suffix(".bias"));
        stem.filter(|s| layers.iter().any(|l| l == s))
            .map(str::to_owned)
    };
    let mut out = Apart {
        shared: BTreeMap::new(),
        parts: vec![Parts::new(); vectors.experts()],
        gates: BTreeMap::new(),
        copies: 0,
    };
    // Some tensors at a time: all threads have work, and memory holds few differences.
    let step = rayon::current_num_threads().max(1) * 2;
    for (from, some) in (0..names.len()).step_by(step).zip(names.chunks(step)) {
        let made: Vec<Result<Made>> = some
            .par_iter()
            .enumerate()
            .map(|(i, name)| {
                let made = Making {
                    recipe,
                    dtype,
                    name,
                    base: base.tensor(name)?.data().clone(),
                    differences: vectors.differences(from + i)?,
                    shared: match &given {
                        Some(given) => Some(given.tensor(name)?.data().clone()),
                        None => None,
                    },
                    layer: of_layer(name),
                };
                made.make()
            })
            .collect();
        for (name, made) in some.iter().zip(made) {
            let made = made?;
            if let Some(shared) = made.shared {
                out.shared.insert(name.clone(), shared);
            }
            for (parts, part) in out.parts.iter_mut().zip(made.parts) {
                if let Some(part) = part {
                    parts.insert(name.clone(), part);
                }
            }
            if let Some((layer, gate)) = made.gate {
                out.gates.insert(layer, gate);
            }
            out.copies += made.copies;
        }
        go(&Told::Parts(from + some.len(), names.len()))?;
    }
    Ok(out)
}

/// A tensor on its way.
struct Making<'a> {
    recipe: &'a Recipe,
    dtype: DType,
    name: &'a str,
    base: Tensor,
    differences: Vec<Tensor>,
    /// That of a shared model that was given.
    shared: Option<Tensor>,
    /// The linear layer that has experts of its own, where the method makes some.
    layer: Option<String>,
}

struct Made {
    shared: Option<Tensor>,
    parts: Vec<Option<Part>>,
    gate: Option<(String, Tensor)>,
    copies: u64,
}

impl Making<'_> {
    fn make(self) -> Result<Made> {
        let w = &self.recipe.weave;
        let zero = |t: &Tensor| -> Result<bool> { Ok(slice(t)?.iter().all(|x| *x == 0.0)) };
        let mut copies = 0;
        let mut changed = Vec::new();
        for difference in &self.differences {
            let zero = zero(difference)?;
            changed.push(!zero);
            if !zero {
                copies += self.dtype.bytes_of(difference.elem_count()).unwrap_or(0);
            }
        }
        let mut out = Made {
            shared: None,
            parts: vec![None; self.differences.len()],
            gate: None,
            copies,
        };
        let shared = match (w.method, &self.layer) {
            // Their linear layers hold all of it in the experts.
            (Method::Smile | Method::Wemoe, Some(_)) => None,
            // What is no linear layer is averaged.
            (Method::Smile, None) => Some(self.total(1.0 / self.differences.len() as f32)?),
            (Method::Wemoe, None) => Some(self.total(w.lambda as f32)?),
            (Method::Twin, _) => Some(match &self.shared {
                Some(given) => self.beyond_base(given)?,
                None => self.total(w.lambda as f32)?,
            }),
        };
        // As it will be read again, so that parts make up for its rounding.
        let shared = shared.map(|s| self.rounded(&s)).transpose()?;
        let makes_parts = w.method == Method::Twin || self.layer.is_some();
        if makes_parts {
            for (i, difference) in self.differences.iter().enumerate() {
                let rest = match &shared {
                    Some(shared) => less(difference, shared)?,
                    None => difference.clone(),
                };
                let least = rest.dims().iter().copied().min().unwrap_or(0);
                let density = match w.compression {
                    Compression::Svd => self.recipe.density_of(least),
                    _ => self.recipe.density(),
                };
                let draws = Stream::new(self.recipe.seed, self.name, i as u64);
                let part = Part::compress(&rest, w.compression, density, draws);
                out.parts[i] = part.map_err(|e| {
                    Error::shape("weave", format!("`{}` of expert {}: {e}", self.name, i + 1))
                })?;
            }
        }
        if let (Method::Smile, Some(layer), true) =
            (w.method, &self.layer, self.name.ends_with(".weight"))
            && changed.contains(&true)
        {
            let width = *self.base.dims().last().unwrap_or(&0);
            let of: Vec<Option<Tensor>> = self
                .differences
                .iter()
                .zip(&changed)
                .map(|(d, changed)| changed.then(|| d.clone()))
                .collect();
            let found = gate(&of, width, w.gate_rank)?;
            out.gate = Some((layer.clone(), self.rounded(&found)?));
        }
        out.shared = match shared {
            Some(shared) if !zero(&shared)? => Some(shared),
            _ => None,
        };
        Ok(out)
    }

    /// The sum of all differences, times a factor.
    fn total(&self, factor: f32) -> Result<Tensor> {
        let mut sums = vec![0f32; self.base.elem_count()];
        for difference in &self.differences {
            let values = slice(difference)?;
            sums.iter_mut().zip(&*values).for_each(|(s, x)| *s += x);
        }
        sums.iter_mut().for_each(|s| *s *= factor);
        tensor(sums, self.base.dims())
    }

    fn beyond_base(&self, given: &Tensor) -> Result<Tensor> {
        if given.dims() != self.base.dims() {
            let what = format!(
                "`{}` is {:?} in the shared model and {:?} in the base",
                self.name,
                given.dims(),
                self.base.dims()
            );
            return Err(Error::shape("weave", what));
        }
        less(given, &self.base)
    }

    fn rounded(&self, t: &Tensor) -> Result<Tensor> {
        let mut values = slice(t)?.to_vec();
        dtype::round_through(&mut values, self.dtype);
        tensor(values, t.dims())
    }
}

fn less(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let (x, y) = (slice(a)?, slice(b)?);
    tensor(x.iter().zip(&*y).map(|(x, y)| x - y).collect(), a.dims())
}

/// Base weights with a vector on top.
pub(super) fn with_vector(base: &Plain, vector: &BTreeMap<String, Tensor>) -> Result<Plain> {
    let mut all = Vec::new();
    for (name, t) in vector {
        let b = base.tensor(name)?;
        let (x, y) = (slice(b.data())?, slice(t)?);
        let sums = x.iter().zip(&*y).map(|(x, y)| x + y).collect();
        all.push((name.clone(), tensor(sums, t.dims())?));
    }
    Ok(base.with(all))
}
