//! Rows that go through a tree several at a time: while one waits for its next node, the others go on.

use super::dense::Dense;
use super::tree::{Node, Test, Tree};

/// Rows that go together.
const ROWS: usize = 8;

/// Rows for which nodes are copied.
const WORTH: usize = 64;

/// In a column: rows without a value go left.
const MISSING_LEFT: u32 = 1 << 31;

/// A node without branches: a leaf leads to itself.
#[derive(Clone, Copy)]
struct Step {
    /// The column, and whether rows without a value go left.
    column: u32,
    threshold: f32,
    /// The node on the right, the node on the left.
    next: [u32; 2],
}

/// A tree as rows walk over it.
pub(super) struct Walk<'a> {
    tree: &'a Tree,
    /// None where rows are few or a test is over categories: rows go one by one.
    steps: Vec<Step>,
}

impl<'a> Walk<'a> {
    /// For a table of so many rows: few of them are not worth the copy of the nodes.
    pub fn for_rows(tree: &'a Tree, rows: usize) -> Self {
        if rows >= WORTH {
            return Self::new(tree);
        }
        Self {
            tree,
            steps: Vec::new(),
        }
    }

    pub fn new(tree: &'a Tree) -> Self {
        let step = |(i, node): (usize, &Node)| match *node {
            Node::Leaf(_) => Some(Step {
                column: 0,
                threshold: 0.0,
                next: [i as u32; 2],
            }),
            Node::Split {
                column,
                test: Test::AtMost(threshold),
                missing_left,
                left,
                right,
                ..
            } if column < MISSING_LEFT => Some(Step {
                column: column | if missing_left { MISSING_LEFT } else { 0 },
                threshold,
                next: [right, left],
            }),
            Node::Split { .. } => None,
        };
        let steps: Option<Vec<Step>> = tree.nodes.iter().enumerate().map(step).collect();
        Self {
            tree,
            steps: steps.unwrap_or_default(),
        }
    }

    /// Hands on the leaf of each of `n` rows from `first` on, in their order.
    pub fn leaves(&self, rows: &Dense, first: usize, n: usize, mut to: impl FnMut(usize)) {
        let together = match self.steps.is_empty() {
            true => 0,
            false => n - n % ROWS,
        };
        for at in (0..together).step_by(ROWS) {
            for node in self.together(rows, first + at) {
                if let Node::Leaf(leaf) = self.tree.nodes[node as usize] {
                    to(leaf as usize);
                }
            }
        }
        for row in first + together..first + n {
            to(self.tree.leaf(rows.row(row)));
        }
    }

    /// The nodes where rows end.
    #[inline]
    fn together(&self, rows: &Dense, first: usize) -> [u32; ROWS] {
        let rows: [&[f32]; ROWS] = std::array::from_fn(|r| rows.row(first + r));
        let mut at = [0u32; ROWS];
        // A tree of a leaf alone asks for no column.
        while let Some(next) = self.next(&rows, &at) {
            at = next;
        }
        at
    }

    /// One step of all rows; none where all have ended.
    #[inline(always)]
    fn next(&self, rows: &[&[f32]; ROWS], at: &[u32; ROWS]) -> Option<[u32; ROWS]> {
        let mut next = *at;
        for (next, row) in next.iter_mut().zip(rows) {
            let step = self.steps[*next as usize];
            let column = (step.column & !MISSING_LEFT) as usize;
            let x = row.get(column).copied().unwrap_or(f32::NAN);
            let missing = x.is_nan() & (step.column & MISSING_LEFT != 0);
            *next = step.next[usize::from((x <= step.threshold) | missing)];
        }
        (next != *at).then_some(next)
    }
}

#[cfg(test)]
mod tests {
    use super::super::data::{Column, Table, Values};
    use super::*;

    #[test]
    fn rows_end_where_they_end_alone() {
        let split = |column, threshold, missing_left, left| Node::Split {
            column,
            test: Test::AtMost(threshold),
            missing_left,
            left,
            right: left + 1,
            gain: 1.0,
        };
        let mut tree = Tree {
            nodes: vec![
                split(0, 0.3, false, 1),
                split(1, -0.5, true, 3),
                Node::Leaf(0),
                Node::Leaf(1),
                split(0, -0.9, true, 5),
                Node::Leaf(2),
                Node::Leaf(3),
            ],
            values: vec![0.0; 4],
            sets: vec![[0b10, 0, 0, 0]],
        };
        let value = |i: usize| match i % 7 {
            0 => f32::NAN,
            _ => (i as f32 * 1.7).sin(),
        };
        let column = |c: usize| Column {
            name: c.to_string(),
            values: Values::Number((0..21).map(|i| value(i * 3 + c)).collect()),
        };
        let table = Table {
            rows: 21,
            columns: vec![column(0), column(1)],
            weights: None,
        };
        let rows = Dense::new(&table, &[None, None], 0..21);
        let same = |tree: &Tree| {
            for (first, n) in [(0, 21), (2, 16), (20, 1), (5, 0)] {
                let mut ends = Vec::new();
                Walk::new(tree).leaves(&rows, first, n, |leaf| ends.push(leaf));
                let alone = (first..first + n).map(|r| tree.leaf(rows.row(r)));
                assert_eq!(ends, alone.collect::<Vec<_>>());
            }
        };
        same(&tree);
        if let Node::Split { test, .. } = &mut tree.nodes[4] {
            *test = Test::OneOf(0);
        }
        same(&tree);
        same(&Tree {
            nodes: vec![Node::Leaf(0)],
            ..Tree::default()
        });
    }
}
