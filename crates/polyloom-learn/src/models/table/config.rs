//! What `config.json` of a table model says, and what sizes are taken.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json};

use crate::error::{Error, Result};

/// The word of this family in `config.json`.
pub const MODEL_TYPE: &str = "polyloom-table";

/// How numbers of a row become features.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Front {
    /// Appended to the embeddings as they are.
    #[default]
    Raw,
    /// All numbers through one linear layer to one more vector of `embed_dim` (MTReclib).
    Linear,
}

/// What stands between a layer and its activation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NormKind {
    /// Nothing.
    #[default]
    None,
    /// Batch norm, eps 1e-5, running values with momentum 0.1.
    Batch,
    /// Layer norm, eps 1e-5; every expert on its own.
    Layer,
}

/// Columns that are one source of what is known of a row. Places are those of a prepared row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Modality {
    /// Its name.
    pub name: String,
    /// Places of its numbers.
    #[serde(default)]
    pub numbers: Vec<usize>,
    /// Places of its categorical fields.
    #[serde(default)]
    pub fields: Vec<usize>,
    /// Places, among the numbers, of the marks of its columns: 1 where a cell is missing, else 0. A row with all of them lacks
    /// the modality; without a mark no row does.
    #[serde(default)]
    pub marks: Vec<usize>,
}

/// What `config.json` says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Config {
    /// [`MODEL_TYPE`].
    #[serde(default = "model_type")]
    pub model_type: String,
    /// Name of the architecture in the registry.
    pub architecture: String,
    /// Ids of the goals, in order: a task, or a task and one of its targets. Tensors that goal `g` alone uses are named
    /// `goals.<g>.`, by its place.
    pub goals: Vec<String>,
    /// Numbers of a row.
    #[serde(default)]
    pub numeric: usize,
    /// Vocabulary of every categorical field: codes `0` to below it (0 is kept for unknown and missing by the preparation).
    #[serde(default)]
    pub categories: Vec<usize>,
    /// Length of the vector of a category.
    #[serde(default = "embed_dim")]
    pub embed_dim: usize,
    /// How numbers become features.
    #[serde(default)]
    pub front: Front,
    /// Widths of the layers of a bottom or an expert.
    #[serde(default = "hidden")]
    pub hidden: Vec<usize>,
    /// Widths of the layers of a goal's tower; a head outside of the model follows.
    #[serde(default = "tower")]
    pub tower: Vec<usize>,
    /// Norm between a layer and its activation.
    #[serde(default)]
    pub norm: NormKind,
    /// Dropout behind every activation, in training.
    #[serde(default)]
    pub dropout: f32,
    /// Activation of every layer.
    #[serde(default = "activation")]
    pub activation: String,
    /// Modalities, in the order in which they are read; every number and field is of one of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub modalities: Vec<Modality>,
    /// Places of the categorical fields of which a row sees what earlier rows of its session have; empty for rows that are read
    /// alone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<usize>,
    /// Options of the architecture: `polyloom reference architectures` lists them.
    #[serde(flatten)]
    pub options: Map<String, Json>,
}

fn model_type() -> String {
    MODEL_TYPE.to_owned()
}

fn embed_dim() -> usize {
    16
}

fn hidden() -> Vec<usize> {
    vec![256, 128]
}

fn tower() -> Vec<usize> {
    vec![64]
}

fn activation() -> String {
    "relu".to_owned()
}

impl Default for Config {
    fn default() -> Self {
        Self {
            model_type: model_type(),
            architecture: "shared_bottom".to_owned(),
            goals: Vec::new(),
            numeric: 0,
            categories: Vec::new(),
            embed_dim: embed_dim(),
            front: Front::default(),
            hidden: hidden(),
            tower: tower(),
            norm: NormKind::default(),
            dropout: 0.0,
            activation: activation(),
            modalities: Vec::new(),
            history: Vec::new(),
            options: Map::new(),
        }
    }
}

/// A key that architectures share, or leave aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Common {
    /// `hidden`.
    Hidden,
    /// `tower`.
    Tower,
    /// `norm`.
    Norm,
    /// `dropout`.
    Dropout,
    /// `activation`.
    Activation,
    /// `front`.
    Front,
    /// `modalities`.
    Modalities,
    /// `history`.
    History,
}

impl Common {
    /// All of them.
    pub const ALL: &'static [Self] = &[
        Self::Front,
        Self::Hidden,
        Self::Tower,
        Self::Norm,
        Self::Dropout,
        Self::Activation,
        Self::Modalities,
        Self::History,
    ];

    /// The key.
    pub fn word(self) -> &'static str {
        match self {
            Self::Hidden => "hidden",
            Self::Tower => "tower",
            Self::Norm => "norm",
            Self::Dropout => "dropout",
            Self::Activation => "activation",
            Self::Front => "front",
            Self::Modalities => "modalities",
            Self::History => "history",
        }
    }

    /// Value, default and meaning, for the reference page.
    pub fn doc(self) -> [&'static str; 3] {
        match self {
            Self::Hidden => [
                "list of widths",
                "`[256, 128]`",
                "Layers of a bottom or an expert.",
            ],
            Self::Tower => [
                "list of widths",
                "`[64]`",
                "Layers of a goal's tower; empty for none. Its head follows.",
            ],
            Self::Norm => [
                "`none`, `batch`, `layer`",
                "`none`",
                "Norm between a layer and its activation.",
            ],
            Self::Dropout => [
                "number from 0 to below 1",
                "0",
                "Dropout behind every activation, in training.",
            ],
            Self::Activation => [
                "`relu`, `gelu`, `gelu_new`, `quick_gelu`, `silu`, `tanh`, `sigmoid`",
                "`relu`",
                "Activation of every layer.",
            ],
            Self::Front => [
                "`raw`, `linear`",
                "`raw`",
                "Numbers as they are beside the embeddings, or all through one linear layer to one more embedding.",
            ],
            Self::Modalities => [
                "list of `name`, `numbers`, `fields`, `marks`",
                "required where it is read",
                "Columns that are one source of what is known, in the order of reading: places of numbers, fields, marks of missing cells. Training makes it of `train.new.modalities` (names of columns by modality).",
            ],
            Self::History => [
                "list of places of categorical fields",
                "empty",
                "Fields of which a row sees what the rows of its session before it have. Training makes it of `table.history` of the task.",
            ],
        }
    }
}

/// Goals, layers and fields at most: above, a file is broken or hostile.
const MOST: usize = 4096;
/// Widths at most.
const WIDEST: usize = 1 << 16;

impl Config {
    /// Whether a key says something else than its default.
    pub(super) fn says(&self, key: Common) -> bool {
        let plain = Self::default();
        match key {
            Common::Hidden => self.hidden != plain.hidden,
            Common::Tower => self.tower != plain.tower,
            Common::Norm => self.norm != plain.norm,
            Common::Dropout => self.dropout != plain.dropout,
            Common::Activation => self.activation != plain.activation,
            Common::Front => self.front != plain.front,
            Common::Modalities => !self.modalities.is_empty(),
            Common::History => !self.history.is_empty(),
        }
    }

    /// Sizes that no architecture takes.
    ///
    /// # Errors
    /// Which, and what is taken.
    pub(super) fn check(&self) -> Result<()> {
        let wrong = |what: String| Err(Error::Config { what });
        if self.model_type != MODEL_TYPE {
            return wrong(format!(
                "model_type `{}`, not `{MODEL_TYPE}`",
                self.model_type
            ));
        }
        if self.goals.is_empty() || self.goals.len() > MOST {
            return wrong(format!("{} goals; 1 to {MOST}", self.goals.len()));
        }
        for (i, goal) in self.goals.iter().enumerate() {
            if goal.is_empty() || self.goals[..i].contains(goal) {
                return wrong(format!("goals: `{goal}` is empty or comes twice"));
            }
        }
        if self.numeric == 0 && self.categories.is_empty() {
            return wrong("numeric is 0 and categories is empty: a row has no feature".to_owned());
        }
        let rows = self
            .categories
            .iter()
            .try_fold(0usize, |n, c| n.checked_add(*c));
        if self.numeric > WIDEST
            || self.categories.len() > MOST
            || self.categories.contains(&0)
            || rows.is_none_or(|n| n > u32::MAX as usize)
        {
            return wrong(format!(
                "numeric {} and {} categories; at most {WIDEST} and {MOST}, none of 0 codes, below 2^32 codes in all",
                self.numeric,
                self.categories.len()
            ));
        }
        let fields = self.categories.len();
        for (i, field) in self.history.iter().enumerate() {
            if *field >= fields || self.history[..i].contains(field) {
                return wrong(format!(
                    "history: field {field} of {fields}, or one that comes twice"
                ));
            }
        }
        if !(1..=WIDEST).contains(&self.embed_dim) {
            return wrong(format!("embed_dim {}; 1 to {WIDEST}", self.embed_dim));
        }
        for (key, widths) in [("hidden", &self.hidden), ("tower", &self.tower)] {
            if widths.len() > MOST || widths.iter().any(|w| !(1..=WIDEST).contains(w)) {
                return wrong(format!(
                    "{key}: at most {MOST} layers of a width of 1 to {WIDEST}"
                ));
            }
        }
        if !(0.0..1.0).contains(&self.dropout) {
            return wrong(format!("dropout {}; 0 to below 1", self.dropout));
        }
        Ok(())
    }
}
