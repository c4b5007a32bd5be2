//! Heads of tasks: `heads/<task>.safetensors` beside a trunk.

mod groups;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use polyloom::tasks::spec::TaskType;
use polyloom_core::writer::{OutTensor, safetensors_bytes};
use polyloom_core::{Checkpoint, DType, dtype};

use crate::calibrate::OfHead;
use crate::engine::{Tensor, Value, slice, tensor};
use crate::error::{Error, Result};
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
}

impl Feature {
    const ALL: [Self; 8] = [
        Self::Cls,
        Self::Mean,
        Self::Pair,
        Self::Last,
        Self::Pooled,
        Self::Embedding,
        Self::Embeddings,
        Self::Goal,
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
        }
    }

    /// Whether it answers with one number.
    #[must_use]
    pub fn is_number(self) -> bool {
        matches!(self, Self::Regression | Self::Embedding)
    }

    /// That of a task.
    #[must_use]
    pub fn of(kind: TaskType) -> Self {
        match kind {
            TaskType::Multilabel => Self::Multilabel,
            TaskType::Regression | TaskType::Sts => Self::Regression,
            TaskType::Retrieval => Self::Embedding,
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
    /// With [`Feature::Goal`] the place of its goal among those of the model; of its target where it has groups.
    pub goal: usize,
    /// Groups that have a goal each; empty for none. The last layer has outputs for each, those of a group side by side.
    pub groups: Vec<String>,
    /// What it answers.
    pub kind: HeadKind,
    /// Names of its outputs, by index; empty for regression and where the file has none.
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
            calibration: None,
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

    /// Whether it has numbers of its own, and so a file.
    #[must_use]
    pub fn has_layers(&self) -> bool {
        !self.layers.is_empty()
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

    /// Outputs `[n, out]` of features `[n, in]`, with [`Feature::Goal`] `[n, goals * in]`; the tensors come from `source`.
    ///
    /// # Errors
    /// Shapes that do not fit together.
    pub fn forward(&self, source: &dyn Source, features: &Value) -> Result<Value> {
        let mut x = match self.feature {
            Feature::Goal => {
                let width = self.inputs();
                ops::narrow(features, 1, self.goal * width, width)?
            }
            _ => features.clone(),
        };
        for i in 0..self.layers.len() {
            if i > 0 {
                x = ops::activate(&x, self.activation)?;
            }
            x = source.linear(&self.layer(i), &x)?;
        }
        match self.groups.len() {
            0 => Ok(x),
            n => groups::of_rows(&x, features, n),
        }
    }

    /// Number of outputs; where it has groups those of one.
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

    /// Reads `<folder>/<task>.safetensors`.
    ///
    /// # Errors
    /// No such file, tensors of shapes that make no head, metadata that is not understood.
    pub fn read(file: &Path, task: &str) -> Result<Self> {
        let checkpoint = Checkpoint::open(file)?;
        let bad = |what: String| Error::file(file, what);
        let load = |name: &str| -> Result<Option<Tensor>> {
            let Some(stored) = checkpoint.get(name) else {
                return Ok(None);
            };
            if !stored.dtype.is_float() {
                return Err(bad(format!("`{name}` is of {}", stored.dtype)));
            }
            Ok(Some(tensor(
                checkpoint.read_all(stored)?,
                stored.shape.clone(),
            )?))
        };
        let layer = |prefix: &str| -> Result<Option<(Tensor, Tensor)>> {
            let Some(weight) = load(&format!("{prefix}weight"))? else {
                return Ok(None);
            };
            let &[out, _] = weight.dims() else {
                return Err(bad(format!("`{prefix}weight` is {:?}", weight.dims())));
            };
            let bias = match load(&format!("{prefix}bias"))? {
                Some(bias) => bias,
                None => tensor(vec![0.0; out], out)?,
            };
            if bias.dims() != [out] || out == 0 {
                return Err(bad(format!(
                    "`{prefix}bias` is {:?} beside a weight of {:?}",
                    bias.dims(),
                    weight.dims()
                )));
            }
            Ok(Some((weight, bias)))
        };
        let mut layers = Vec::new();
        if let Some(one) = layer("")? {
            layers.push(one);
        } else {
            while let Some(next) = layer(&format!("{}.", 2 * layers.len()))? {
                layers.push(next);
            }
        }
        let Some((_, last)) = layers.last() else {
            return Err(bad("holds no `weight` of a head".into()));
        };
        for pair in layers.windows(2) {
            if pair[1].0.dims()[1] != pair[0].0.dims()[0] {
                return Err(bad("has layers that do not fit behind one another".into()));
            }
        }
        let metadata = checkpoint.metadata();
        let word = |key: &str| metadata.get(key).map(String::as_str);
        let feature = word("feature").unwrap_or("cls");
        let feature = Feature::of_word(feature).ok_or_else(|| {
            bad(format!(
                "has the feature `{feature}`; known: cls, mean, pair, last, pooled, embedding, goal"
            ))
        })?;
        let goal = word("goal").unwrap_or("0");
        let goal = goal
            .parse()
            .map_err(|_| bad(format!("has the goal `{goal}`, which is no place")))?;
        let labels: Vec<String> = match word("labels") {
            None => Vec::new(),
            Some(text) => serde_json::from_str(text)
                .map_err(|e| bad(format!("has `labels` that are no JSON list: {e}")))?,
        };
        let groups: Vec<String> = match word("groups") {
            None => Vec::new(),
            Some(text) => serde_json::from_str(text)
                .map_err(|e| bad(format!("has `groups` that are no JSON list: {e}")))?,
        };
        let all = last.elem_count();
        let outputs = all / groups.len().max(1);
        if !all.is_multiple_of(groups.len().max(1)) {
            return Err(bad(format!(
                "has {all} outputs for {} groups, as many for each",
                groups.len()
            )));
        }
        if !labels.is_empty() && labels.len() != outputs {
            return Err(bad(format!(
                "names {} labels for {outputs} outputs",
                labels.len()
            )));
        }
        let kind = match word("kind") {
            Some("classification") => HeadKind::Classification,
            Some("regression") => HeadKind::Regression,
            Some("multilabel") => HeadKind::Multilabel,
            Some(other) => {
                return Err(bad(format!(
                    "is of the kind `{other}`; known: classification, regression, multilabel"
                )));
            }
            None if outputs == 1 => HeadKind::Regression,
            None => HeadKind::Classification,
        };
        let activation = word("activation").unwrap_or("relu");
        let activation = Activation::named(activation).ok_or_else(|| {
            bad(format!(
                "has the activation `{activation}`, which is unknown"
            ))
        })?;
        Ok(Self {
            task: task.to_owned(),
            feature,
            goal,
            groups,
            kind,
            labels,
            task_hash: word("task_hash").map(str::to_owned),
            layers,
            activation,
            scale: [0.0, 1.0],
            calibration: None,
        })
    }

    /// The bytes of its file, as `f32`.
    ///
    /// # Errors
    /// Never in practice: tensors of the processor.
    pub fn bytes(&self) -> Result<Vec<u8>> {
        let mut stored = Vec::new();
        let last = self.layers.len().saturating_sub(1);
        for (i, (w, b)) in self.layers.iter().enumerate() {
            let prefix = match self.layers.len() {
                1 => String::new(),
                _ => format!("{}.", 2 * i),
            };
            let [mean, deviation] = if i == last { self.scale } else { [0.0, 1.0] };
            for (name, t, shift) in [("weight", w, 0.0), ("bias", b, mean)] {
                let values: Vec<f32> = slice(t)?
                    .iter()
                    .map(|x| (f64::from(*x) * deviation + shift) as f32)
                    .collect();
                let out = OutTensor {
                    name: format!("{prefix}{name}"),
                    dtype: DType::F32,
                    shape: t.dims().to_vec(),
                };
                let mut bytes = vec![0; out.bytes() as usize];
                dtype::narrow(&values, DType::F32, &mut bytes);
                stored.push((out, bytes));
            }
        }
        let mut metadata = BTreeMap::from([
            ("task".to_owned(), self.task.clone()),
            ("kind".to_owned(), self.kind.word().to_owned()),
            ("feature".to_owned(), self.feature.word().to_owned()),
        ]);
        if self.feature == Feature::Goal {
            metadata.insert("goal".to_owned(), self.goal.to_string());
        }
        if !self.groups.is_empty() {
            let list = serde_json::Value::from(self.groups.clone());
            metadata.insert("groups".to_owned(), list.to_string());
        }
        if !self.labels.is_empty() {
            let list = serde_json::Value::from(self.labels.clone());
            metadata.insert("labels".to_owned(), list.to_string());
        }
        if let Some(hash) = &self.task_hash {
            metadata.insert("task_hash".to_owned(), hash.clone());
        }
        if self.layers.len() > 1 {
            let word = self.activation.word();
            metadata.insert("activation".to_owned(), word.to_owned());
        }
        Ok(safetensors_bytes(&stored, &metadata))
    }
}

#[cfg(test)]
mod tests;
