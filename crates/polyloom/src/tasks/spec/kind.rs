//! What a task asks for.

use serde::{Deserialize, Serialize};

/// What a task asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskType {
    /// One of several classes.
    Classification,
    /// Any subset of the classes.
    Multilabel,
    /// One of several classes for a pair of inputs.
    PairClassification,
    /// One of several answers, by likelihood.
    MultipleChoice,
    /// Free text.
    Generation,
    /// One tag per token (BIO).
    TokenClassification,
    /// Labelled stretches of the input.
    Span,
    /// A number.
    Regression,
    /// Similarity of a pair.
    Sts,
    /// A ranking of all documents per query.
    Retrieval,
    /// A ranking of given documents per query.
    Reranking,
    /// Groups without labels.
    Clustering,
    /// Time to an event, with censoring.
    Survival,
    /// Likelihood of running text.
    Perplexity,
    /// A graph of tool calls.
    ToolGraph,
    /// The next values of a series.
    Forecasting,
    /// A value per pixel.
    Dense,
}

impl TaskType {
    /// All types, in the order of the specification.
    pub const ALL: [Self; 17] = [
        Self::Classification,
        Self::Multilabel,
        Self::PairClassification,
        Self::MultipleChoice,
        Self::Generation,
        Self::TokenClassification,
        Self::Span,
        Self::Regression,
        Self::Sts,
        Self::Retrieval,
        Self::Reranking,
        Self::Clustering,
        Self::Survival,
        Self::Perplexity,
        Self::ToolGraph,
        Self::Forecasting,
        Self::Dense,
    ];

    /// The name in files.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Classification => "classification",
            Self::Multilabel => "multilabel",
            Self::PairClassification => "pair_classification",
            Self::MultipleChoice => "multiple_choice",
            Self::Generation => "generation",
            Self::TokenClassification => "token_classification",
            Self::Span => "span",
            Self::Regression => "regression",
            Self::Sts => "sts",
            Self::Retrieval => "retrieval",
            Self::Reranking => "reranking",
            Self::Clustering => "clustering",
            Self::Survival => "survival",
            Self::Perplexity => "perplexity",
            Self::ToolGraph => "tool_graph",
            Self::Forecasting => "forecasting",
            Self::Dense => "dense",
        }
    }

    /// The type that a name in a file, a `kind` of `task.json` or a habit word stands for.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        let known = Self::ALL.into_iter().find(|t| t.name() == word);
        known.or(match word {
            "binary" => Some(Self::Classification),
            "nli" | "paraphrase" => Some(Self::PairClassification),
            "multi-label" | "tags" => Some(Self::Multilabel),
            "slots" | "ner spans" => Some(Self::Span),
            "tagging" | "ner" => Some(Self::TokenClassification),
            "similarity" => Some(Self::Sts),
            _ => None,
        })
    }

    /// Whether the answer is one class of a fixed list.
    #[must_use]
    pub fn has_classes(self) -> bool {
        matches!(
            self,
            Self::Classification | Self::PairClassification | Self::Multilabel
        )
    }

    /// Whether the answer is an order of documents.
    #[must_use]
    pub fn is_ranking(self) -> bool {
        matches!(self, Self::Retrieval | Self::Reranking)
    }

    /// Whether the answer is a number.
    #[must_use]
    pub fn is_number(self) -> bool {
        matches!(self, Self::Regression | Self::Sts | Self::Forecasting)
    }
}

impl std::fmt::Display for TaskType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}
