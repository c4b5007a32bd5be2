//! One vector a text: the modules that sentence-transformers puts behind an encoder.

use std::path::Path;

use serde::Deserialize;

use super::Batch;
use crate::engine::{Value, tensor};
use crate::error::{Error, Result};
use crate::ops;

/// How tokens become one vector.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pooling {
    /// The first token.
    First,
    /// The last token that is there.
    Last,
    /// The mean.
    Mean,
    /// The sum over the root of the length.
    MeanRoot,
    /// The mean with weights 1, 2, 3, ...
    WeightedMean,
}

/// What stands behind the encoder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sentence {
    /// How tokens become one vector.
    pub pooling: Pooling,
    /// Whether vectors are brought to length 1.
    pub unit: bool,
    /// Tokens of a text at most, where the folder says so.
    pub most: Option<usize>,
}

#[derive(Deserialize)]
struct Module {
    path: String,
    #[serde(rename = "type")]
    kind: String,
}

impl Default for Sentence {
    /// The mean of the tokens, as it is.
    fn default() -> Self {
        Self {
            pooling: Pooling::Mean,
            unit: false,
            most: None,
        }
    }
}

impl Sentence {
    /// Of a folder with `modules.json`; `None` without one.
    ///
    /// # Errors
    /// Files that cannot be read, modules or pooling modes that are not known.
    pub fn open(folder: &Path) -> Result<Option<Self>> {
        let file = folder.join("modules.json");
        if !file.exists() {
            return Ok(None);
        }
        let modules: Vec<Module> = json(&file)?;
        let mut found = Self::default();
        for module in modules {
            match module.kind.rsplit('.').next().unwrap_or_default() {
                "Transformer" => {
                    let file = folder.join(&module.path).join("sentence_bert_config.json");
                    if file.exists() {
                        let value: serde_json::Value = json(&file)?;
                        found.most = value["max_seq_length"].as_u64().map(|n| n as usize);
                    }
                }
                "Pooling" => {
                    found.pooling = pooling(&folder.join(&module.path).join("config.json"))?;
                }
                "Normalize" => found.unit = true,
                other => {
                    return Err(Error::file(
                        &file,
                        format!("module `{other}` is none of Transformer, Pooling, Normalize"),
                    )
                    .hint("models with further modules cannot be run yet"));
                }
            }
        }
        Ok(Some(found))
    }

    /// One vector for every text, `[texts, width]`.
    ///
    /// # Errors
    /// Shapes that do not fit together.
    pub fn forward(&self, hidden: &Value, batch: &Batch) -> Result<Value> {
        let pooled = pooled(hidden, batch, &vec![self.pooling; batch.sequences])?;
        if self.unit {
            ops::unit_length(&pooled)
        } else {
            Ok(pooled)
        }
    }
}

/// One vector for every sequence of a batch, each pooled in its own way.
///
/// # Errors
/// Shapes that do not fit together.
pub fn pooled(hidden: &Value, batch: &Batch, how: &[Pooling]) -> Result<Value> {
    let mut weights = vec![0f32; batch.present.len()];
    for ((row, present), how) in weights
        .chunks_mut(batch.length)
        .zip(batch.present.chunks(batch.length))
        .zip(how)
    {
        let n = present.iter().filter(|p| **p).count().max(1);
        let mut seen = 0;
        for (w, _) in row.iter_mut().zip(present).filter(|(_, p)| **p) {
            seen += 1;
            *w = match how {
                Pooling::First => f32::from(u8::from(seen == 1)),
                Pooling::Last => f32::from(u8::from(seen == n)),
                Pooling::Mean => 1.0 / n as f32,
                Pooling::MeanRoot => 1.0 / (n as f32).sqrt(),
                Pooling::WeightedMean => 2.0 * seen as f32 / (n * (n + 1)) as f32,
            };
        }
    }
    ops::pool(hidden, &tensor(weights, (batch.sequences, batch.length))?)
}

fn pooling(file: &Path) -> Result<Pooling> {
    let value: serde_json::Value = json(file)?;
    let names = [
        ("cls_token", Pooling::First),
        ("lasttoken", Pooling::Last),
        ("mean_tokens", Pooling::Mean),
        ("mean_sqrt_len_tokens", Pooling::MeanRoot),
        ("weightedmean_tokens", Pooling::WeightedMean),
    ];
    let on = |name: &str| value[format!("pooling_mode_{name}")].as_bool() == Some(true);
    // Newer files have one word.
    let word = value["pooling_mode"].as_str();
    let newer = [
        ("cls", Pooling::First),
        ("lasttoken", Pooling::Last),
        ("mean", Pooling::Mean),
        ("mean_sqrt_len_tokens", Pooling::MeanRoot),
        ("weightedmean", Pooling::WeightedMean),
    ];
    let mut found: Vec<Pooling> = names
        .iter()
        .filter(|(n, _)| on(n))
        .map(|(_, p)| *p)
        .collect();
    found.extend(
        newer
            .iter()
            .filter(|(n, _)| word == Some(*n))
            .map(|(_, p)| *p),
    );
    match found[..] {
        [one] if !on("max_tokens") => Ok(one),
        _ => Err(Error::file(file, "names no pooling, several, or `max`").hint("one of cls_token, mean_tokens, mean_sqrt_len_tokens, weightedmean_tokens, lasttoken")),
    }
}

pub(crate) fn json<T: serde::de::DeserializeOwned>(file: &Path) -> Result<T> {
    let value = polyloom_core::checkpoint::read_json(file)?;
    serde_json::from_value(value).map_err(|e| Error::file(file, e.to_string()))
}
