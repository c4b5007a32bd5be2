//! Everything that was measured, per tensor, layer and model.

use std::collections::{BTreeMap, BTreeSet};

use super::cluster::{Clusters, cluster};
use super::indicators::{Indicator, indicators};
use super::numbers::Numbers;
use super::{Facts, IntruderRule, Options};
use crate::plan::names::{before_layers, is_head, split_index};

/// A tensor, or the sum over the tensors of a layer.
#[derive(Debug, Clone)]
pub struct Row {
    /// Tensor (of adapters: module), or layer such as `encoder.layer.3`.
    pub name: String,
    /// Shape of a tensor; empty for a layer.
    pub shape: Vec<usize>,
    /// Tensors in it.
    pub tensors: usize,
    /// What was measured.
    pub numbers: Numbers,
}

/// What a comparison found.
#[derive(Debug, Clone)]
pub struct Report {
    /// The base as it was named; `None` for adapters among themselves.
    pub base: Option<String>,
    /// Names of the experts, in the order given.
    pub experts: Vec<String>,
    /// Share of entries that the overlap compares.
    pub top: f64,
    /// The rule for intruder dimensions, if matrices were decomposed.
    pub spectral: Option<IntruderRule>,
    /// Every tensor, in file order (modules: in name order).
    pub tensors: Vec<Row>,
    /// Layers in order; what stands before and after them first and last.
    pub layers: Vec<Row>,
    /// Sum over all tensors.
    pub total: Numbers,
    /// Clusters by 1 - cosine.
    pub clusters: Clusters,
    /// What the numbers speak for.
    pub indicators: Vec<Indicator>,
    /// What was left out or renamed, in full sentences.
    pub notes: Vec<String>,
}

/// Name of the group of tensors that stand before the layers.
pub const BEFORE: &str = "before the layers";
/// Name of the group of tensors that stand after the layers.
pub const AFTER: &str = "after the layers";

pub(super) fn build(facts: Facts, tensors: Vec<Row>, spectral: bool, options: &Options) -> Report {
    let n = facts.experts.len();
    let zero = || Numbers::new(n, facts.base.is_some());
    let mut total = zero();
    for row in &tensors {
        total.add(&row.numbers);
    }
    let layers = layers(&tensors, zero);
    let clusters = cluster(n, |a, b| 1.0 - total.cosine(a, b));
    let mut report = Report {
        base: facts.base,
        experts: facts.experts,
        top: options.top,
        spectral: spectral.then_some(options.intruders),
        tensors,
        layers,
        total,
        clusters,
        indicators: Vec::new(),
        notes: facts.notes,
    };
    report.indicators = indicators(&report);
    report
}

/// Sums over blocks: names whose first number is an index under a prefix that has at least two indices. Several lists
/// of blocks (an encoder's, a decoder's) stand in the order of the tensors.
fn layers(tensors: &[Row], zero: impl Fn() -> Numbers) -> Vec<Row> {
    let mut lists: indexmap::IndexMap<&str, BTreeSet<usize>> = indexmap::IndexMap::new();
    for row in tensors {
        if let Some((prefix, index, _)) = split_index(&row.name) {
            lists.entry(prefix).or_default().insert(index);
        }
    }
    let mut groups: BTreeMap<(usize, usize), Row> = BTreeMap::new();
    for row in tensors {
        let block = split_index(&row.name)
            .filter(|(p, ..)| lists[p].len() > 1 && !is_head(&row.name))
            .and_then(|(p, index, _)| Some((lists.get_index_of(p)?, p, index)));
        let (place, name) = match block {
            Some((list, prefix, index)) => ((1 + list, index), format!("{prefix}.{index}")),
            None if before_layers(&row.name) => ((0, 0), BEFORE.to_owned()),
            None => ((usize::MAX, 0), AFTER.to_owned()),
        };
        let group = groups.entry(place).or_insert_with(|| Row {
            name,
            shape: Vec::new(),
            tensors: 0,
            numbers: zero(),
        });
        group.tensors += 1;
        group.numbers.add(&row.numbers);
    }
    groups.into_values().collect()
}
