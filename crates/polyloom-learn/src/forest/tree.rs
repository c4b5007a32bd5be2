//! A tree: tests and the values of its leaves.

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
    /// The leaf of a row of [`Dense`](super::dense::Dense), for a tree whose children come after their parents.
    #[must_use]
    pub fn leaf(&self, row: &[f32]) -> usize {
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
                    let x = row[column as usize];
                    let passes = match test {
                        _ if x.is_nan() => missing_left,
                        Test::AtMost(t) => x <= t,
                        Test::OneOf(set) => contains(&self.sets[set as usize], x as usize),
                    };
                    at = if passes { left } else { right } as usize;
                }
            }
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
pub(crate) fn contains(set: &[u64; SET], bin: usize) -> bool {
    set.get(bin / 64).is_some_and(|w| w >> (bin % 64) & 1 == 1)
}
