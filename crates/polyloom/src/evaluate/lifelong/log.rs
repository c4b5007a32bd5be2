//! The log of a lifelong-learning run.

use crate::evaluate::error::{EvalError, Result};
use crate::evaluate::statistics::check_finite;
use crate::evaluate::sum::mean;

/// What happens in a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlockKind {
    /// The learner is measured and does not learn (EB).
    Evaluation,
    /// The learner learns (LB).
    Learning,
}

/// Experiences of one task in a row.
#[derive(Debug, Clone, PartialEq)]
pub struct Block {
    /// Whether the learner learned.
    pub kind: BlockKind,
    /// Number of the task.
    pub task: u32,
    /// Performance in each experience, higher is better.
    pub values: Vec<f64>,
}

impl Block {
    /// Terminal performance: the mean of all values of an evaluation block, and of the last tenth of a learning block
    /// (from index `floor(0.9 n)`).
    pub fn terminal(&self) -> f64 {
        let from = match self.kind {
            BlockKind::Evaluation => 0,
            BlockKind::Learning => self.values.len() * 9 / 10,
        };
        mean(self.values[from..].iter().copied())
    }

    /// Experiences until the middle of the window of [`Self::terminal`].
    pub fn experiences_to_terminal(&self) -> usize {
        match self.kind {
            BlockKind::Evaluation => self.values.len() / 2,
            BlockKind::Learning => self.values.len() * 19 / 20,
        }
    }
}

/// The runs of experts that learned one task alone: one list of values per run.
#[derive(Debug, Clone, PartialEq)]
pub struct Experts {
    /// Number of the task.
    pub task: u32,
    /// Values of each run.
    pub runs: Vec<Vec<f64>>,
}

/// The blocks of a run in order, and experts to compare with.
#[derive(Debug, Clone, PartialEq)]
pub struct Log {
    pub(super) blocks: Vec<Block>,
    pub(super) experts: Vec<Experts>,
}

impl Log {
    /// Checks and keeps the blocks; tasks without experts may be left out of `experts`.
    ///
    /// # Errors
    /// No blocks, a block or run without values, a value that is not finite, or experts of a task given twice.
    pub fn new(blocks: Vec<Block>, experts: Vec<Experts>) -> Result<Self> {
        const WHAT: &str = "log of a lifelong-learning run";
        if blocks.is_empty() {
            return Err(EvalError::Empty { what: WHAT });
        }
        let values = blocks.iter().map(|block| &block.values);
        for values in values.chain(experts.iter().flat_map(|e| &e.runs)) {
            if values.is_empty() {
                return Err(EvalError::Empty { what: WHAT });
            }
            check_finite(WHAT, values)?;
        }
        let twice = |&i: &usize| experts[..i].iter().any(|e| e.task == experts[i].task);
        if let Some(i) = (0..experts.len()).find(twice) {
            let problem = format!("two entries of experts of task {}", experts[i].task);
            return Err(EvalError::invalid(WHAT, problem));
        }
        Ok(Self { blocks, experts })
    }

    /// The blocks in order.
    pub fn blocks(&self) -> &[Block] {
        &self.blocks
    }

    /// The experts.
    pub fn experts(&self) -> &[Experts] {
        &self.experts
    }

    /// The tasks in the order in which they first occur.
    pub fn tasks(&self) -> Vec<u32> {
        let mut tasks = Vec::new();
        for block in &self.blocks {
            if !tasks.contains(&block.task) {
                tasks.push(block.task);
            }
        }
        tasks
    }

    /// Places of a task's blocks of a kind, ascending.
    pub(super) fn places(&self, task: u32, kind: BlockKind) -> Vec<usize> {
        let wanted = |(_, block): &(usize, &Block)| block.task == task && block.kind == kind;
        let blocks = self.blocks.iter().enumerate();
        blocks.filter(wanted).map(|(place, _)| place).collect()
    }

    /// All values that a task was learned with, block after block.
    pub(super) fn learned(&self, task: u32) -> Vec<f64> {
        let places = self.places(task, BlockKind::Learning);
        let values = places.iter().flat_map(|&p| &self.blocks[p].values);
        values.copied().collect()
    }

    pub(super) fn experts_of(&self, task: u32) -> Option<&Experts> {
        self.experts.iter().find(|experts| experts.task == task)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terminal_windows() {
        let block = |kind, n: u32| Block {
            kind,
            task: 0,
            values: (0..n).map(f64::from).collect(),
        };
        assert_eq!(block(BlockKind::Learning, 20).terminal(), 18.5);
        assert_eq!(block(BlockKind::Learning, 20).experiences_to_terminal(), 19);
        assert_eq!(block(BlockKind::Learning, 1).terminal(), 0.0);
        assert_eq!(block(BlockKind::Evaluation, 5).terminal(), 2.0);
        assert_eq!(block(BlockKind::Evaluation, 5).experiences_to_terminal(), 2);
    }

    #[test]
    fn nonsense_is_refused() {
        let block = |values: &[f64]| Block {
            kind: BlockKind::Learning,
            task: 3,
            values: values.to_vec(),
        };
        assert!(Log::new(vec![], vec![]).is_err());
        assert!(Log::new(vec![block(&[])], vec![]).is_err());
        assert!(Log::new(vec![block(&[f64::NAN])], vec![]).is_err());
        let experts = Experts {
            task: 3,
            runs: vec![vec![1.0]],
        };
        assert!(Log::new(vec![block(&[1.0])], vec![experts.clone(), experts]).is_err());
    }
}
