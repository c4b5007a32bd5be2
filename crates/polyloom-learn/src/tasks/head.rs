//! Heads of tasks: `heads/<task>.safetensors` beside a trunk.

mod file;
mod groups;
pub mod maps;

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use polyloom::evaluate::board::score::examples::{Asked, Pixels};
use polyloom::tasks::spec::TaskType;

use self::maps::channels;
use super::rows::Shown;
use crate::calibrate::OfHead;
use crate::engine::{Tensor, Value, tensor};
use crate::error::Result;
use crate::models::Source;
use crate::ops::{self, Activation};

/// What of the trunk's output a head sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Feature {
    /// The first token; of pictures the class token.
    Cls,
    /// The mean of the tokens.
    Mean,
    /// `[u, v, |u - v|, u * v]` of the mean vectors `u` and `v` of two texts, each read on its own.
    Pair,
    /// The last token.
    Last,
    /// The model's own pooler: a layer and tanh on the first token.
    Pooled,
    /// The vector that the model gives a text (pooled as its `modules.json` says, else the mean), at length 1.
    Embedding,
    /// `[u, v]` of such vectors of two texts, each read on its own.
    Embeddings,
    /// Of rows of a table: what the model makes for the head's own goal. Features are `[rows, goals * width]`; where every
    /// group has goals of its own `[rows, targets * width + 1]`, and the last column is the place of the row's group.
    Goal,
    /// Of pictures all tokens of a vision transformer, `[pictures, 1 + patches, width]`: heads of maps read those of the
    /// patches, a head of [`Self::Cls`] beside them the class token.
    Patches,
}

impl Feature {
    const ALL: [Self; 9] = [
        Self::Cls,
        Self::Mean,
        Self::Pair,
        Self::Last,
        Self::Pooled,
        Self::Embedding,
        Self::Embeddings,
        Self::Goal,
        Self::Patches,
    ];

    /// Its word in files.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Cls => "cls",
            Self::Mean => "mean",
            Self::Pair => "pair",
            Self::Last => "last",
            Self::Pooled => "pooled",
            Self::Embedding => "embedding",
            Self::Embeddings => "embeddings",
            Self::Goal => "goal",
            Self::Patches => "patches",
        }
    }

    pub(crate) fn of_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|f| f.word() == word)
    }

    /// Whether it reads two texts, each on its own.
    #[must_use]
    pub fn is_of_two(self) -> bool {
        matches!(self, Self::Pair | Self::Embeddings)
    }

    /// What the trunk gives where several heads look at one pass: their common feature; all tokens where some read maps off
    /// patches and others the class token beside them. `None` where they see different things, or there is none.
    #[must_use]
    pub fn common(all: impl IntoIterator<Item = Self>) -> Option<Self> {
        let mut all = all.into_iter();
        let first = all.next()?;
        all.try_fold(first, |common, one| match (common, one) {
            (a, b) if a == b => Some(a),
            (Self::Patches, Self::Cls) | (Self::Cls, Self::Patches) => Some(Self::Patches),
            _ => None,
        })
    }

    /// Width of the feature over a stream of a width.
    #[must_use]
    pub fn width(self, hidden: usize) -> usize {
        match self {
            Self::Pair => 4 * hidden,
            Self::Embeddings => 2 * hidden,
            _ => hidden,
        }
    }
}

/// What a head answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeadKind {
    /// One class.
    Classification,
    /// A number.
    Regression,
    /// Any number of classes.
    Multilabel,
    /// The vectors of two texts, whose cosine answers: no layers, nothing on disk.
    Embedding,
    /// The items of a session, scored by the model itself: no layers.
    Items,
    /// A value per pixel ([`maps`]).
    Dense(Pixels),
}

impl HeadKind {
    /// Its word in files.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Classification => "classification",
            Self::Regression => "regression",
            Self::Multilabel => "multilabel",
            Self::Embedding => "embedding",
            Self::Items => "items",
            Self::Dense(Pixels::Classes) => "segmentation",
            Self::Dense(Pixels::Depth) => "depth",
            Self::Dense(Pixels::Normals) => "normals",
            Self::Dense(Pixels::Edges) => "edges",
        }
    }

    /// Whether it says a probability of every class.
    #[must_use]
    pub fn has_probabilities(self) -> bool {
        matches!(self, Self::Classification | Self::Multilabel)
    }

    /// That of what is asked.
    #[must_use]
    pub fn of(asked: &Asked) -> Self {
        if let Some(pixels) = asked.pixels {
            return Self::Dense(pixels);
        }
        match asked.kind {
            TaskType::Multilabel => Self::Multilabel,
            TaskType::Regression | TaskType::Sts => Self::Regression,
            TaskType::Retrieval if asked.target.is_empty() => Self::Embedding,
            TaskType::Retrieval => Self::Items,
            _ => Self::Classification,
        }
    }
}

/// The head of a task.
#[derive(Debug, Clone)]
pub struct Head {
    /// Id of the task, with its target where it has several.
    pub task: String,
    /// What it sees.
    pub feature: Feature,
    /// With [`Feature::Goal`] and with experts that are chosen by goal the place of its goal among those of the model; of its
    /// target where it has groups.
    pub goal: usize,
    /// Groups that have a goal each; empty for none. The last layer has outputs for each, those of a group side by side.
    pub groups: Vec<String>,
    /// What it answers.
    pub kind: HeadKind,
    /// Names of its outputs, by index; empty for regression and where the file has none. Of items those of the rows that are
    /// answered ([`Self::naming`]).
    pub labels: Vec<String>,
    /// Hash of the task it was made for.
    pub task_hash: Option<String>,
    /// Weight `[out, in]` and bias `[out]` of its layers.
    pub layers: Vec<(Tensor, Tensor)>,
    /// Between the layers.
    pub activation: Activation,
    /// Mean and deviation of the numbers it answers: its output times the deviation, and the mean. Files hold heads
    /// with both put into the last layer.
    pub scale: [f64; 2],
    /// What an edge pixel counts in the loss of a head of edges, where any other counts 1. Not in files.
    pub positive: f64,
    /// What was fitted for it after training. It lies beside the model, not in the head's file.
    pub calibration: Option<Arc<OfHead>>,
}

impl Head {
    /// A head of zeros with one layer.
    ///
    /// # Errors
    /// Never in practice: lengths that fit.
    pub fn zeros(
        task: &str,
        feature: Feature,
        kind: HeadKind,
        labels: Vec<String>,
        hidden: usize,
    ) -> Result<Self> {
        let out = match kind {
            HeadKind::Regression => 1,
            _ => labels.len(),
        };
        let input = feature.width(hidden);
        Ok(Self {
            task: task.to_owned(),
            feature,
            goal: 0,
            groups: Vec::new(),
            kind,
            labels,
            task_hash: None,
            layers: vec![(
                tensor(vec![0.0; out * input], (out, input))?,
                tensor(vec![0.0; out], out)?,
            )],
            activation: Activation::Relu,
            scale: [0.0, 1.0],
            positive: 1.0,
            calibration: None,
        })
    }

    /// What answers a task by the vectors of its texts.
    #[must_use]
    pub fn embedding(task: &str) -> Self {
        Self {
            task: task.to_owned(),
            feature: Feature::Embeddings,
            goal: 0,
            groups: Vec::new(),
            kind: HeadKind::Embedding,
            labels: Vec::new(),
            task_hash: None,
            layers: Vec::new(),
            activation: Activation::Relu,
            scale: [0.0, 1.0],
            positive: 1.0,
            calibration: None,
        }
    }

    /// What answers with the items of sessions, in the order of the model's scores.
    #[must_use]
    pub fn items(task: &str) -> Self {
        Self {
            feature: Feature::Goal,
            kind: HeadKind::Items,
            ..Self::embedding(task)
        }
    }

    /// The head with the names of the items that rows are asked for, where it is one of items.
    #[must_use]
    pub fn naming(&self, shown: &[Shown]) -> Cow<'_, Self> {
        match (self.kind, shown.first()) {
            (HeadKind::Items, Some(Shown::Visit(visit))) => Cow::Owned(Self {
                labels: visit.items.names.clone(),
                ..self.clone()
            }),
            _ => Cow::Borrowed(self),
        }
    }

    /// Its name among the answers of a model: the part of its task behind the last `/` where the model has `several`, else none.
    #[must_use]
    pub fn target(&self, several: bool) -> &str {
        match several {
            true => self.task.rsplit('/').next().unwrap_or(&self.task),
            false => "",
        }
    }

    /// Whether it has numbers of its own.
    #[must_use]
    pub fn has_layers(&self) -> bool {
        !self.layers.is_empty()
    }

    /// Whether it has a file: vectors of texts need none.
    #[must_use]
    pub fn has_file(&self) -> bool {
        self.has_layers() || self.kind == HeadKind::Items
    }

    /// Where a head lies in a folder of heads; `/` in the task makes a sub-folder.
    #[must_use]
    pub fn path(heads: &Path, task: &str) -> PathBuf {
        heads.join(format!("{task}.safetensors"))
    }

    /// Name of a layer's tensors among parameters: `heads/<task>` of a head of one layer, else `heads/<task>.<place>`.
    #[must_use]
    pub fn layer(&self, i: usize) -> String {
        match self.layers.len() {
            1 => format!("heads/{}", self.task),
            _ => format!("heads/{}.{}", self.task, 2 * i),
        }
    }

    /// Its tensors by name.
    pub fn tensors(&self) -> impl Iterator<Item = (String, Tensor)> + '_ {
        self.layers.iter().enumerate().flat_map(|(i, (w, b))| {
            let name = self.layer(i);
            [
                (format!("{name}.weight"), w.clone()),
                (format!("{name}.bias"), b.clone()),
            ]
        })
    }

    /// Whether a parameter is learned by this head's goal alone: its own tensors, and what of a model of tables is its goal's.
    #[must_use]
    pub fn is_own(&self, name: &str) -> bool {
        self.tensors().any(|(own, _)| own == name) || self.is_own_part(name)
    }

    /// The same head with the tensors of a source.
    ///
    /// # Errors
    /// A tensor that is absent or of another shape.
    pub fn with(&self, source: &dyn Source) -> Result<Self> {
        let mut head = self.clone();
        for (i, (w, b)) in head.layers.iter_mut().enumerate() {
            let name = self.layer(i);
            *w = source.tensor(&format!("{name}.weight"))?.data().clone();
            *b = source.tensor(&format!("{name}.bias"))?.data().clone();
        }
        Ok(head)
    }

    /// Outputs `[n, out]` of features `[n, in]`, with [`Feature::Goal`] `[n, goals * in]`, beside maps `[n, 1 + patches, in]`; the
    /// tensors come from `source`. Of maps `out` are the pixels row by row, the values of a pixel side by side.
    ///
    /// # Errors
    /// Shapes that do not fit together.
    pub fn forward(&self, source: &dyn Source, features: &Value) -> Result<Value> {
        let mut x = match self.feature {
            // The model gives scores in place of a feature.
            Feature::Goal if self.kind == HeadKind::Items => features.clone(),
            Feature::Goal => {
                let width = self.inputs();
                ops::narrow(features, 1, self.goal * width, width)?
            }
            _ => maps::tokens(self, features)?,
        };
        for i in 0..self.layers.len() {
            if i > 0 {
                x = ops::activate(&x, self.activation)?;
            }
            x = source.linear(&self.layer(i), &x)?;
        }
        if matches!(self.kind, HeadKind::Dense(_)) {
            return maps::unfold(&x, channels(self.kind, &self.labels));
        }
        match self.groups.len() {
            0 => Ok(x),
            n => groups::of_rows(&x, features, n),
        }
    }

    /// Number of outputs; where it has groups those of one, of maps those of a patch.
    #[must_use]
    pub fn outputs(&self) -> usize {
        let all = self.layers.last().map_or(0, |(_, b)| b.elem_count());
        all / self.groups.len().max(1)
    }

    /// Number of inputs.
    #[must_use]
    pub fn inputs(&self) -> usize {
        let first = self.layers.first().and_then(|(w, _)| w.dims().get(1));
        first.copied().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests;
