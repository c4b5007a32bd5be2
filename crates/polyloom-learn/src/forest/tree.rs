//! A tree: tests and the values of its leaves.

use super::bins::Categories;
use super::data::{Table, Values};

/// Words of a set of bins.
pub const SET: usize = 4;

/// What a row is asked.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Test {
    /// At most the threshold goes left; `inf` sends every number left.
    AtMost(f32),
    /// The bins of this set (its number in [`Tree::sets`]) go left.
    OneOf(u32),
}

/// A node; children come after their parent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Node {
    /// A test on a column.
    Split {
        /// The column.
        column: u32,
        /// What is asked.
        test: Test,
        /// Whether rows without a value go left.
        missing_left: bool,
        /// The node of rows that pass.
        left: u32,
        /// The node of the others.
        right: u32,
        /// By how much the split lowered the loss, as its second-order sum.
        gain: f32,
    },
    /// A leaf, by number.
    Leaf(u32),
}

/// A tree with several outputs.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Tree {
    /// Nodes, the root first.
    pub nodes: Vec<Node>,
    /// Values of the leaves, leaf by leaf, one for each output.
    pub values: Vec<f32>,
    /// Sets of bins of categories.
    pub sets: Vec<[u64; SET]>,
}

impl Tree {
    /// The leaf of a row, for a tree whose children come after their parents; `categories` are the bins of every column
    /// that has categories.
    #[must_use]
    pub fn leaf(&self, table: &Table, categories: &[Option<&Categories>], row: usize) -> usize {
        let mut at = 0;
        loop {
            match self.nodes[at] {
                Node::Leaf(leaf) => return leaf as usize,
                Node::Split {
                    column,
                    test,
                    missing_left,
                    left,
                    right,
                    ..
                } => {
                    let column = column as usize;
                    let values = &table.columns[column].values;
                    let passes = self.passes(test, values, categories[column], row);
                    let next = if passes.unwrap_or(missing_left) {
                        left
                    } else {
                        right
                    };
                    at = next as usize;
                }
            }
        }
    }

    /// Whether a row passes a test; `None` where it has no value.
    #[inline]
    fn passes(
        &self,
        test: Test,
        values: &Values,
        categories: Option<&Categories>,
        row: usize,
    ) -> Option<bool> {
        match (test, values) {
            (Test::AtMost(t), Values::Number(x)) => {
                let x = x[row];
                (!x.is_nan()).then_some(x <= t)
            }
            (Test::OneOf(set), Values::Category { codes, .. }) => {
                let bin = categories?.bin(codes[row])?;
                Some(contains(&self.sets[set as usize], bin))
            }
            _ => None,
        }
    }

    /// Leaves.
    #[must_use]
    pub fn leaves(&self) -> usize {
        self.nodes
            .iter()
            .filter(|n| matches!(n, Node::Leaf(_)))
            .count()
    }

    /// Values of a leaf of a tree of `width` outputs.
    #[must_use]
    pub fn value(&self, leaf: usize, width: usize) -> &[f32] {
        &self.values[leaf * width..][..width]
    }

    /// Adds the gain of every split to the sum of its column.
    pub fn add_gains(&self, of_columns: &mut [f64]) {
        for node in &self.nodes {
            if let Node::Split { column, gain, .. } = node {
                of_columns[*column as usize] += f64::from(*gain);
            }
        }
    }
}

/// Whether a set holds a bin.
pub(super) fn contains(set: &[u64; SET], bin: usize) -> bool {
    set.get(bin / 64).is_some_and(|w| w >> (bin % 64) & 1 == 1)
}
