//! Trees as one ensemble of `ai.onnx.ml`, in `f64`: every leaf adds to the scores of goals what it is worth there.

use std::collections::BTreeMap;

use super::graph::Graph;
use super::prepare::Rows;
use super::proto::{Attribute, Element};
use super::refused;
use crate::error::Result;
use crate::forest::bins::Categories;
use crate::forest::tree::{Node, SET, Test, Tree, contains};
use crate::forest::{Ensemble, Forest};
use crate::models::forest::ForestModel;

/// Writes a forest over prepared rows; returns the scores of the goals, each `[N, width]`.
///
/// # Errors
/// A model without trees.
pub(super) fn forest(graph: &mut Graph, model: &ForestModel, rows: &Rows) -> Result<Vec<String>> {
    let Some(forest) = &model.forest else {
        return Err(refused("it has no trees yet").into());
    };
    let numbers = model.config.numbers.len();
    let mut features = Vec::new();
    if let Some(name) = &rows.numbers {
        features.push(graph.cast(name, Element::Double));
    }
    let mut wide = numbers;
    let mut tests = Vec::new();
    let words = forest.features.iter().enumerate().skip(numbers);
    for ((column, feature), (codes, count)) in
        words.zip(rows.codes.iter().zip(&model.config.categories))
    {
        let asked = Asked::of(forest, column, wide);
        let categories = feature.categories.as_ref();
        features.extend(categories.and_then(|c| asked.write(graph, codes, *count, c)));
        wide += asked.sets.len();
        tests.push(asked);
    }
    let slot = model.config.width;
    let goals = forest.outputs.len();
    let mut written = Written::new(forest, slot);
    for ensemble in &forest.ensembles {
        for tree in &ensemble.trees {
            written.tree(tree, ensemble, numbers, &tests)?;
        }
    }
    let scores = match written.modes.is_empty() {
        true => {
            let base: Vec<f32> = written.base.iter().map(|x| *x as f32).collect();
            let base = graph.floats(&[1, base.len()], &base);
            let rows = graph.rows();
            let columns = graph.ints(&[1], &[(goals * slot) as i64]);
            let shape = graph.concat(&[&rows, &columns], 0);
            graph.call("Expand", &[&base, &shape])
        }
        false => {
            let features = graph.concat(&features, 1);
            written.write(graph, &features)
        }
    };
    Ok(graph.split(&scores, goals, slot))
}

/// What trees ask of a column of words: sets of bins, each of which becomes a column that is 0 in the set and 1 outside of it.
struct Asked {
    /// Its columns begin here among all that trees see.
    first: usize,
    /// Places of sets.
    sets: BTreeMap<[u64; SET], usize>,
}

impl Asked {
    fn of(forest: &Forest, column: usize, first: usize) -> Self {
        let mut sets = BTreeMap::new();
        for tree in forest.ensembles.iter().flat_map(|e| &e.trees) {
            for node in &tree.nodes {
                if let Node::Split {
                    column: asked,
                    test: Test::OneOf(set),
                    ..
                } = node
                    && *asked as usize == column
                {
                    sets.insert(tree.sets[*set as usize], 0);
                }
            }
        }
        sets.values_mut().enumerate().for_each(|(i, at)| *at = i);
        Self { first, sets }
    }

    /// Its columns of the codes `[N, 1]`; none where trees do not ask. What training never met is `NaN`.
    fn write(
        &self,
        graph: &mut Graph,
        codes: &str,
        count: usize,
        categories: &Categories,
    ) -> Option<String> {
        let (width, bins) = (self.sets.len(), categories.bins);
        if width == 0 {
            return None;
        }
        let bin = |code: usize| {
            categories
                .bin(u32::try_from(code).ok()?)
                .filter(|b| *b < bins)
        };
        let of: Vec<i64> = (0..count)
            .map(|code| bin(code).unwrap_or(bins) as i64)
            .collect();
        let of = graph.ints(&[count], &of);
        let mut table = vec![f64::NAN; (bins + 1) * width];
        for (bin, row) in table.chunks_exact_mut(width).take(bins).enumerate() {
            for (set, at) in &self.sets {
                row[*at] = f64::from(u8::from(!contains(set, bin)));
            }
        }
        let table = graph.doubles(&[bins + 1, width], &table);
        let bins = graph.gather(&of, codes, 0);
        let found = graph.gather(&table, &bins, 0);
        Some(graph.reshape(&found, &[-1, width as i64]))
    }
}

/// An ensemble as lists of nodes and leaves.
struct Written {
    trees: usize,
    of_tree: Vec<i64>,
    node: Vec<i64>,
    feature: Vec<i64>,
    modes: Vec<String>,
    thresholds: Vec<f64>,
    yes: Vec<i64>,
    no: Vec<i64>,
    missing_yes: Vec<i64>,
    leaf_tree: Vec<i64>,
    leaf_node: Vec<i64>,
    leaf_score: Vec<i64>,
    leaf_value: Vec<f64>,
    /// Scores before any tree.
    base: Vec<f64>,
    /// Of every column of scores of the forest its place among the slots, and what sums of trees are multiplied by.
    columns: Vec<(usize, f64)>,
}

impl Written {
    fn new(forest: &Forest, slot: usize) -> Self {
        let mut base = vec![0.0; forest.outputs.len() * slot];
        let mut columns = Vec::new();
        for (goal, output) in forest.outputs.iter().enumerate() {
            for (i, start) in output.start.iter().enumerate() {
                base[goal * slot + i] = *start;
                columns.push((goal * slot + i, output.scale));
            }
        }
        Self {
            trees: 0,
            of_tree: Vec::new(),
            node: Vec::new(),
            feature: Vec::new(),
            modes: Vec::new(),
            thresholds: Vec::new(),
            yes: Vec::new(),
            no: Vec::new(),
            missing_yes: Vec::new(),
            leaf_tree: Vec::new(),
            leaf_node: Vec::new(),
            leaf_score: Vec::new(),
            leaf_value: Vec::new(),
            base,
            columns,
        }
    }

    /// What a leaf adds to which scores.
    fn worth(&self, values: &[f32], ensemble: &Ensemble) -> Vec<(usize, f64)> {
        let mut found = Vec::new();
        for to in &ensemble.uses {
            for (i, (place, scale)) in self.columns[to.column..][..to.width].iter().enumerate() {
                let value = f64::from(values[to.output + i]);
                found.push((*place, scale * to.factor * value));
            }
        }
        found
    }

    /// Adds a tree. Its columns of words come behind those of numbers, and have tests.
    fn tree(
        &mut self,
        tree: &Tree,
        ensemble: &Ensemble,
        numbers: usize,
        tests: &[Asked],
    ) -> Result<()> {
        if ensemble.uses.is_empty() {
            return Ok(());
        }
        // A leaf alone asks for nothing.
        if let [Node::Leaf(leaf)] = tree.nodes[..] {
            let worth = self.worth(tree.value(leaf as usize, ensemble.width), ensemble);
            worth.iter().for_each(|(at, value)| self.base[*at] += value);
            return Ok(());
        }
        let number = self.trees as i64;
        self.trees += 1;
        for (at, node) in tree.nodes.iter().enumerate() {
            self.of_tree.push(number);
            self.node.push(at as i64);
            let (feature, threshold, yes, no, missing) = match *node {
                Node::Leaf(leaf) => {
                    for (to, value) in
                        self.worth(tree.value(leaf as usize, ensemble.width), ensemble)
                    {
                        self.leaf_tree.push(number);
                        self.leaf_node.push(at as i64);
                        self.leaf_score.push(to as i64);
                        self.leaf_value.push(value);
                    }
                    self.modes.push("LEAF".to_owned());
                    (0, 0.0, 0, 0, false)
                }
                Node::Split {
                    column,
                    test,
                    missing_left,
                    left,
                    right,
                    ..
                } => {
                    self.modes.push("BRANCH_LEQ".to_owned());
                    let column = column as usize;
                    let (place, threshold) = match test {
                        Test::AtMost(threshold) => (column, f64::from(threshold)),
                        Test::OneOf(set) => {
                            let asked = column.checked_sub(numbers).and_then(|i| tests.get(i));
                            let at = asked.and_then(|a| {
                                Some(a.first + a.sets.get(&tree.sets[set as usize])?)
                            });
                            // In the set is 0, outside of it 1.
                            (
                                at.ok_or_else(|| {
                                    refused("a tree asks for words that rows do not have")
                                })?,
                                0.5,
                            )
                        }
                    };
                    (place as i64, threshold, left, right, missing_left)
                }
            };
            self.feature.push(feature);
            self.thresholds.push(threshold);
            self.yes.push(i64::from(yes));
            self.no.push(i64::from(no));
            self.missing_yes.push(i64::from(missing));
        }
        Ok(())
    }

    fn write(&self, graph: &mut Graph, features: &str) -> String {
        graph.node(
            "TreeEnsembleRegressor",
            &[features],
            &[
                ("n_targets", Attribute::Int(self.base.len() as i64)),
                ("aggregate_function", Attribute::Text("SUM")),
                ("post_transform", Attribute::Text("NONE")),
                ("base_values_as_tensor", Attribute::Doubles(&self.base)),
                ("nodes_treeids", Attribute::Ints(&self.of_tree)),
                ("nodes_nodeids", Attribute::Ints(&self.node)),
                ("nodes_featureids", Attribute::Ints(&self.feature)),
                ("nodes_modes", Attribute::Texts(&self.modes)),
                (
                    "nodes_values_as_tensor",
                    Attribute::Doubles(&self.thresholds),
                ),
                ("nodes_truenodeids", Attribute::Ints(&self.yes)),
                ("nodes_falsenodeids", Attribute::Ints(&self.no)),
                (
                    "nodes_missing_value_tracks_true",
                    Attribute::Ints(&self.missing_yes),
                ),
                ("target_treeids", Attribute::Ints(&self.leaf_tree)),
                ("target_nodeids", Attribute::Ints(&self.leaf_node)),
                ("target_ids", Attribute::Ints(&self.leaf_score)),
                (
                    "target_weights_as_tensor",
                    Attribute::Doubles(&self.leaf_value),
                ),
            ],
        )
    }
}
