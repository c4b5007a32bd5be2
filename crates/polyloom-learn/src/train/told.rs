//! What a run tells while it goes on.

use indexmap::IndexMap;

/// A step that was done.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// Its number, from 1.
    pub step: u32,
    /// Steps of the run.
    pub steps: u32,
    /// Mean loss.
    pub loss: f64,
    /// Mean loss of every task that it saw.
    pub losses: IndexMap<String, f64>,
    /// Learning rate.
    pub rate: f32,
    /// Length of the gradient before it was cut.
    pub length: f64,
    /// Seconds that are left, by the pace so far.
    pub left: f64,
    /// Weight of every goal, where goals are balanced.
    pub weights: IndexMap<String, f64>,
}

/// What an evaluation found.
#[derive(Debug, Clone, PartialEq)]
pub struct Evaluation {
    /// After how many steps.
    pub step: u32,
    /// Mean over tasks of the metric that counts first, with its sign turned where less is better.
    pub mean: f64,
    /// By head: name of the metric, value, rows.
    pub tasks: IndexMap<String, (String, f64, u64)>,
    /// Whether it is the best so far.
    pub best: bool,
}

/// What a run tells while it goes on.
#[derive(Debug, Clone, PartialEq)]
pub enum Told {
    /// Tasks are read, heads made.
    Begun {
        /// Numbers that are trained, and all numbers of the model with its heads.
        trained: usize,
        /// All numbers.
        all: usize,
        /// Training rows of every task.
        rows: Vec<(String, usize)>,
        /// How often the rows of each task will be seen, on average; nothing of a single task, and where tasks are chosen
        /// by what is learned of them.
        epochs: Vec<(String, f64)>,
        /// Steps of the run.
        steps: u32,
        /// Step of the checkpoint that it goes on from, 0 for none.
        from: u32,
    },
    /// A stage begins, of a run that has several.
    Stage {
        /// Its number, from 1, and how many there are.
        number: (usize, usize),
        /// Its tasks.
        tasks: Vec<String>,
        /// Its steps.
        steps: u32,
        /// The heads alone learn.
        heads: bool,
    },
    /// Rows that lacked a label of a head: how many got one, of how many.
    Labelled(Vec<(String, [usize; 2])>),
    /// A step.
    Step(Step),
    /// An evaluation.
    Evaluated(Evaluation),
    /// A checkpoint of this step was written.
    Saved(u32),
}

/// Told what happens; false stops the run after the step, with a checkpoint.
pub type Watch<'a> = &'a mut dyn FnMut(&Told) -> bool;
