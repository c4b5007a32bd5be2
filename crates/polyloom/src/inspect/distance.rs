//! How far a checkpoint lies from a base.

use std::collections::BTreeMap;

use polyloom_core::checkpoint::Scratch;
use rayon::prelude::*;
use serde::Serialize;

use super::some;
use crate::error::{MergeError, Result};
use crate::merge::survey::{BlockSums, Total};
use crate::plan::Opened;
use crate::plan::names::split_index;

/// A checkpoint beside its base.
#[derive(Debug, Clone, Serialize)]
pub struct AgainstBase {
    /// The base, as given.
    pub base: String,
    /// Float tensors that both have in the same shape.
    pub shared: usize,
    /// Tensors that only the checkpoint has.
    pub only_here: Vec<String>,
    /// Tensors that only the base has.
    pub only_base: Vec<String>,
    /// Tensors of different shapes.
    pub reshaped: Vec<String>,
    /// Norm of the difference over the norm of the base, over all shared tensors.
    pub distance: f64,
    /// The same by block (`encoder.layer.11`, or the tensor itself outside blocks).
    pub blocks: Vec<(String, f64)>,
}

/// Streams both checkpoints once. The sums do not depend on the number of threads.
///
/// # Errors
/// Unreadable files, or no tensor in common.
pub fn against(model: &Opened, base: &Opened) -> Result<AgainstBase> {
    let mut shared = Vec::new();
    let (mut only_here, mut reshaped) = (Vec::new(), Vec::new());
    for (name, entry) in &model.tensors {
        match base.get(name) {
            None => only_here.push(name.clone()),
            Some(b) if b.shape != entry.shape => reshaped.push(name.clone()),
            Some(b) if b.dtype.is_float() && entry.dtype.is_float() => {
                shared.push((name.as_str(), entry.shape.iter().product::<usize>()));
            }
            Some(_) => {}
        }
    }
    if shared.is_empty() {
        return Err(MergeError::plan(
            "nothing-shared",
            format!("shares no tensor with {}", base.path.display()),
        )
        .at(model.path.display().to_string())
        .hint("is it the same architecture? `inspect --tensors` lists the names of each"));
    }
    let norms = shared
        .par_iter()
        .map(|(name, elements)| norms(model, base, name, *elements))
        .collect::<Result<Vec<_>>>()?;
    let mut blocks: BTreeMap<(usize, String), (f64, f64)> = BTreeMap::new();
    let mut order: BTreeMap<String, usize> = BTreeMap::new();
    let (mut moved, mut length) = (0.0, 0.0);
    for ((name, _), (d, b)) in shared.iter().zip(&norms) {
        let block = match split_index(name) {
            Some((prefix, i, _)) => format!("{prefix}.{i}"),
            None => (*name).to_owned(),
        };
        let next = order.len();
        let at = *order.entry(block.clone()).or_insert(next);
        let sum = blocks.entry((at, block)).or_default();
        sum.0 += d;
        sum.1 += b;
        moved += d;
        length += b;
    }
    let ratio = |d: f64, b: f64| if d == 0.0 { 0.0 } else { (d / b).sqrt() };
    Ok(AgainstBase {
        base: base.model.reference.to_string(),
        shared: shared.len(),
        only_here,
        only_base: base
            .tensors
            .keys()
            .filter(|n| model.get(n).is_none())
            .cloned()
            .collect(),
        reshaped,
        distance: ratio(moved, length),
        blocks: blocks
            .into_iter()
            .map(|((_, name), (d, b))| (name, ratio(d, b)))
            .collect(),
    })
}

/// Squared norms of the difference and of the base.
fn norms(model: &Opened, base: &Opened, name: &str, elements: usize) -> Result<(f64, f64)> {
    const CHUNK: usize = 1 << 16;
    let mut total = Total::new(2);
    let (mut w, mut b) = (
        vec![0.0; CHUNK.min(elements)],
        vec![0.0; CHUNK.min(elements)],
    );
    let mut scratch = Scratch::default();
    for start in (0..elements).step_by(CHUNK) {
        let n = CHUNK.min(elements - start);
        model.read(name, start, &mut w[..n], &mut scratch)?;
        base.read(name, start, &mut b[..n], &mut scratch)?;
        for (w, b) in w.iter_mut().zip(&b) {
            *w -= b;
        }
        let mut sums = BlockSums::new(2);
        sums.dot(0, &w[..n], &w[..n]);
        sums.dot(1, &b[..n], &b[..n]);
        total.absorb(&sums);
    }
    Ok((total.get(0), total.get(1)))
}

impl AgainstBase {
    /// Two lines for people.
    pub fn text(&self) -> String {
        let all = self.shared + self.only_here.len() + self.reshaped.len();
        let mut line = vec![format!("{} of {all} tensors shared", self.shared)];
        for (names, what) in [
            (&self.only_here, "only here"),
            (&self.only_base, "only in the base"),
            (&self.reshaped, "of another shape"),
        ] {
            if !names.is_empty() {
                line.push(format!("{} {what} ({})", names.len(), some(names, 2)));
            }
        }
        let mut out = format!("  against base {}: {}\n", self.base, line.join(", "));
        out += &format!(
            "  distance to base: {} of the base norm",
            percent(self.distance)
        );
        if let Some((name, d)) = self
            .blocks
            .iter()
            .filter(|b| b.1.is_finite())
            .max_by(|a, b| a.1.total_cmp(&b.1))
            .filter(|b| b.1 > 0.0)
        {
            out += &format!("; largest in {name} ({})", percent(*d));
        }
        out + "\n"
    }
}

fn percent(x: f64) -> String {
    if x == 0.0 {
        "0 %".into()
    } else if x < 0.001 {
        format!("{:.4} %", 100.0 * x)
    } else {
        format!("{:.1} %", 100.0 * x)
    }
}
