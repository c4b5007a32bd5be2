//! Classes that are texts: CLIP's answer without a trained head.

use super::head::{Feature, Head, HeadKind};
use crate::engine::{slice, tensor};
use crate::error::{Error, Result};
use crate::models::Source;
use crate::models::open::{Model, Trunk};
use crate::ops::Activation;

/// A head whose classes are described by texts (Radford et al. 2021, section 3.1): its rows are the vectors of the texts, of
/// length 1, times the learned factor `exp(logit_scale)`, its biases 0. Scores are then those of `CLIPModel`.
///
/// # Errors
/// A model that does not compare pictures with texts, no texts, texts that its tokenizer or text tower refuses.
pub fn zero_shot(model: &Model, classes: &[String]) -> Result<Head> {
    let Trunk::Clip(_) = &model.trunk else {
        return Err(
            Error::file(&model.folder, "does not compare pictures with texts")
                .hint("classes in words need a CLIP; other models have a head of classes"),
        );
    };
    let texts: Vec<(&str, Option<&str>)> = classes.iter().map(|c| (c.as_str(), None)).collect();
    let batch = model.text(None)?.batch(&texts)?;
    let vectors = model.embed(&model.weights, &batch)?;
    let factor = model.weights.tensor("logit_scale")?.number()?.exp();
    let rows = slice(vectors.data())?.iter().map(|x| x * factor).collect();
    let weight = tensor(rows, vectors.dims())?;
    Ok(Head {
        task: "classes".into(),
        feature: Feature::Cls,
        goal: 0,
        groups: Vec::new(),
        kind: HeadKind::Classification,
        labels: classes.to_vec(),
        task_hash: None,
        layers: vec![(weight, tensor(vec![0.0; classes.len()], classes.len())?)],
        activation: Activation::Tanh,
        scale: [0.0, 1.0],
        positive: 1.0,
        calibration: None,
    })
}
