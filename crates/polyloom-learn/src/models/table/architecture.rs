//! What an architecture is: a contract for docs and checks, its tensors, and a function of features.

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
