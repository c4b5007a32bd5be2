//! Files of heads.

use std::collections::BTreeMap;
use std::path::Path;

use polyloom_core::writer::{OutTensor, safetensors_bytes};
use polyloom_core::{Checkpoint, DType, dtype};

use super::maps::{channels, patch_of};
use super::{Feature, Head, HeadKind};
use crate::engine::{Tensor, slice, tensor};
use crate::error::{Error, Result};
use crate::ops::Activation;

impl Head {
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
        let of_items = checkpoint
            .metadata()
            .get("kind")
            .is_some_and(|k| *k == HeadKind::Items.word());
        let Some((_, last)) = layers.last().filter(|_| !of_items) else {
            return match of_items {
                true => Self::read_items(&checkpoint, file, task),
                false => Err(bad("holds no `weight` of a head".into())),
            };
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
                "has the feature `{feature}`; known: cls, mean, pair, last, pooled, embedding, goal, patches"
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
        let kind = match word("kind") {
            Some("classification") => HeadKind::Classification,
            Some("regression") => HeadKind::Regression,
            Some("multilabel") => HeadKind::Multilabel,
            Some(other) => match HeadKind::of_map(other) {
                Some(kind) => kind,
                None => {
                    return Err(bad(format!(
                        "is of the kind `{other}`; known: classification, regression, multilabel, segmentation, depth, normals, edges"
                    )));
                }
            },
            None if outputs == 1 => HeadKind::Regression,
            None => HeadKind::Classification,
        };
        if matches!(kind, HeadKind::Dense(_)) {
            patch_of(kind, &labels, outputs).ok_or_else(|| {
                bad(format!(
                    "has {outputs} outputs, which are no square of pixels with {} values each",
                    channels(kind, &labels)
                ))
            })?;
        } else if !labels.is_empty() && labels.len() != outputs {
            return Err(bad(format!(
                "names {} labels for {outputs} outputs",
                labels.len()
            )));
        }
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
            positive: 1.0,
            calibration: None,
        })
    }

    /// A head of items: its file says which goal it is of, and has no tensors.
    fn read_items(checkpoint: &Checkpoint, file: &Path, task: &str) -> Result<Self> {
        let metadata = checkpoint.metadata();
        let goal = metadata.get("goal").map_or("0", String::as_str);
        let bad = |what: String| Error::file(file, what);
        if !checkpoint.tensors().is_empty() {
            return Err(bad("is a head of items with tensors of its own".into()));
        }
        Ok(Self {
            goal: goal
                .parse()
                .map_err(|_| bad(format!("has the goal `{goal}`, which is no place")))?,
            task_hash: metadata.get("task_hash").cloned(),
            ..Self::items(task)
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
        if self.feature == Feature::Goal || self.goal > 0 {
            metadata.insert("goal".to_owned(), self.goal.to_string());
        }
        if !self.groups.is_empty() {
            let list = serde_json::Value::from(self.groups.clone());
            metadata.insert("groups".to_owned(), list.to_string());
        }
        if !self.labels.is_empty() && self.kind != HeadKind::Items {
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
