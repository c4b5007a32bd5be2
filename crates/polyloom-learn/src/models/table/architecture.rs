//! What an architecture is: a contract for docs and checks, its tensors, and a function of features.

use polyloom::evaluate::board::score::sessions::Step;
pub use polyloom::merge::method::{Golden, Kind, Param, Unset, Values};

use super::config::Common;
use super::turns::{InTurn, Turns};
use super::{Pass, TableModel, Tensors};
use crate::engine::Value;
use crate::error::{Error, Result};

/// The contract of an architecture.
#[derive(Debug)]
pub struct Spec {
    /// Registry name.
    pub name: &'static str,
    /// One line.
    pub summary: &'static str,
    /// Paper or program.
    pub source: &'static str,
    /// The function, in Markdown: `x` the features of a row, `T` goals.
    pub formula: &'static str,
    /// Where a peer's same name does something else; empty if nowhere.
    pub differs: &'static str,
    /// Keys of the configuration that it reads beside its own.
    pub uses: &'static [Common],
    /// Options of its own.
    pub params: &'static [Param],
    /// Its test vectors.
    pub golden: Golden,
}

/// Everything that a perceptron with towers reads.
pub(super) const LAYERS: &[Common] = &[
    Common::Front,
    Common::Hidden,
    Common::Tower,
    Common::Norm,
    Common::Dropout,
    Common::Activation,
];

/// What an architecture of sessions makes of rows.
#[derive(Debug)]
pub struct Visited {
    /// Scores of the items `[rows, items]`.
    pub scores: Value,
    /// What heads of classes read: `[rows, width]` of an architecture, the same for every goal; of
    /// [`TableModel::visited`] that of every goal side by side, `[rows, goals * width]`.
    pub states: Value,
}

/// An architecture.
pub trait Architecture: Sync {
    /// The contract.
    fn spec(&self) -> &'static Spec;

    /// Whether sizes and options go together.
    ///
    /// # Errors
    /// Those that do not.
    fn check(&self, model: &TableModel) -> Result<()> {
        let _ = model;
        Ok(())
    }

    /// Declares every tensor with its shape and initial values; returns the width of what every goal gets.
    ///
    /// # Errors
    /// More elements than any memory holds.
    fn declare(&self, model: &TableModel, to: &mut Tensors) -> Result<usize>;

    /// The features of some goals (in rising order, each once), in their order: `[rows, width]` of the goal's own rows
    /// ([`Pass::own`]), which are all where rows are of every goal. What only other goals need is not computed.
    ///
    /// # Errors
    /// Tensors that are absent or of another shape.
    fn forward(&self, pass: &Pass<'_>, goals: &[usize]) -> Result<Vec<Value>>;

    /// Whether it reads rows of sessions ([`Self::visited`]) in place of single ones.
    fn reads_sessions(&self) -> bool {
        false
    }

    /// Items scored for rows of sessions: the rows of the pass are the items, `sessions` the steps before each row.
    ///
    /// # Errors
    /// As [`Self::forward`]; an architecture of single rows, more scores than any memory holds.
    fn visited(&self, pass: &Pass<'_>, sessions: &[&[Step]]) -> Result<Visited> {
        let _ = (pass, sessions);
        Err(Error::shape("table", "an architecture of single rows"))
    }

    /// How goals learn from more than their last features; `None` where they do not.
    fn in_turn(&self, model: &TableModel) -> Option<InTurn> {
        let _ = model;
        None
    }

    /// What training learns from where [`Self::in_turn`] says something: the goals on every state.
    ///
    /// # Errors
    /// As [`Self::forward`]; an architecture without states.
    fn turns(&self, pass: &Pass<'_>, goals: &[usize]) -> Result<Turns> {
        let _ = (pass, goals);
        Err(Error::shape("table", "an architecture without states"))
    }
}
