//! The file of a router: one safetensors file, described in docs/reference/router-file.md.

use std::collections::BTreeMap;
use std::path::Path;

use polyloom::MergeError;
use polyloom_core::writer::{OutTensor, OutputFile, safetensors_bytes};
use polyloom_core::{Checkpoint, DType};
use serde::{Deserialize, Serialize};

use super::pilots::{Pilot, Pilots, Reduce, Similarity};
use super::predicted::{Costs, Limits, Predicted};
use super::router::{Expert, Method, Reads, Router, Rule};
use super::{Centroid, Hidden, Knn, Linear, Mlp, Points};
use crate::error::{Error, Result};

/// What stands in the header as `format`.
pub const FORMAT: &str = "polyloom.router/1";

/// Numbers of a rule that are no tensors.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Parameters {
    #[serde(skip_serializing_if = "Option::is_none")]
    temperature: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    min_similarity: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    k: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    counts: Option<Vec<usize>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reduce: Option<Reduce>,
    #[serde(skip_serializing_if = "Option::is_none")]
    similarity: Option<Similarity>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pilots: Option<Vec<Pilot>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    slope: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    eps: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    costs: Option<Costs>,
    #[serde(skip_serializing_if = "Option::is_none")]
    limits: Option<Limits>,
}

/// Names of a hidden layer's tensors, those of Twin-Merging's release.
const LAYERS: [(&str, &str); 2] = [("fc1", "bn1"), ("fc3", "bn3")];

impl Router {
    /// Writes the file, all at once.
    ///
    /// # Errors
    /// A file that is there already (without `force`), a full disk.
    pub fn save(&self, file: &Path, force: bool, sync: bool) -> Result<()> {
        let bytes = self.bytes();
        let mut out = OutputFile::create(file, bytes.len() as u64, force, sync)?;
        out.write(&bytes)?;
        Ok(out.commit()?)
    }

    /// The bytes of its file.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        let mut stored: Vec<(OutTensor, Vec<u8>)> = Vec::new();
        let mut put = |name: &str, shape: &[usize], values: &[f32]| {
            let tensor = OutTensor {
                name: name.to_owned(),
                dtype: DType::F32,
                shape: shape.to_vec(),
            };
            let bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
            stored.push((tensor, bytes));
        };
        let parameters = match &self.rule {
            Rule::Centroid(c) => {
                let rows = [c.vectors.len(), c.vectors.width];
                put("vectors", &rows, &c.vectors.values);
                Parameters {
                    temperature: Some(c.temperature),
                    min_similarity: c.min_similarity,
                    ..Parameters::default()
                }
            }
            Rule::Knn(n) => {
                let rows = [n.points.len(), n.points.width];
                put("points", &rows, &n.points.values);
                Parameters {
                    temperature: Some(n.temperature),
                    min_similarity: n.min_similarity,
                    k: Some(n.k),
                    counts: Some(n.counts.clone()),
                    ..Parameters::default()
                }
            }
            Rule::Linear(l) => {
                let rows = [l.weight.len(), l.weight.width];
                put("weight", &rows, &l.weight.values);
                put("bias", &[l.bias.len()], &l.bias);
                Parameters::default()
            }
            Rule::Mlp(m) => {
                for (layer, (linear, norm)) in m.hidden.iter().zip(LAYERS) {
                    let n = [layer.bias.len()];
                    let rows = [layer.weight.len(), layer.weight.width];
                    put(&format!("{linear}.weight"), &rows, &layer.weight.values);
                    put(&format!("{linear}.bias"), &n, &layer.bias);
                    put(&format!("{norm}.weight"), &n, &layer.gain);
                    put(&format!("{norm}.bias"), &n, &layer.shift);
                    put(&format!("{norm}.running_mean"), &n, &layer.mean);
                    put(&format!("{norm}.running_var"), &n, &layer.variance);
                }
                let rows = [m.weight.len(), m.weight.width];
                put("fc4.weight", &rows, &m.weight.values);
                put("fc4.bias", &[m.bias.len()], &m.bias);
                Parameters {
                    slope: Some(m.slope),
                    eps: Some(m.eps),
                    ..Parameters::default()
                }
            }
            Rule::Pilots(p) => {
                let rows = [p.vectors.len(), p.vectors.width];
                put("pilots", &rows, &p.vectors.values);
                Parameters {
                    temperature: Some(p.temperature),
                    min_similarity: p.min_similarity,
                    reduce: Some(p.reduce),
                    similarity: Some(p.similarity),
                    pilots: Some(p.pilots.clone()),
                    ..Parameters::default()
                }
            }
            Rule::Predicted(p) => {
                let rows = [p.weight.len(), p.weight.width];
                put("weight", &rows, &p.weight.values);
                put("bias", &[p.bias.len()], &p.bias);
                Parameters {
                    costs: Some(p.costs.clone()),
                    limits: Some(p.limits.clone()),
                    ..Parameters::default()
                }
            }
        };
        let text = |value: serde_json::Result<String>| value.unwrap_or_default();
        let mut said = BTreeMap::from([
            ("format", FORMAT.to_owned()),
            ("polyloom", env!("CARGO_PKG_VERSION").to_owned()),
            ("method", self.method().word().to_owned()),
            ("feature", self.tap.to_string()),
            ("experts", text(serde_json::to_string(&self.experts))),
            ("parameters", text(serde_json::to_string(&parameters))),
            ("fitted", text(serde_json::to_string(&self.fitted))),
        ]);
        let reads = &self.reads;
        said.extend(reads.model.clone().map(|m| ("model", m)));
        said.extend(reads.fingerprint.clone().map(|f| ("model_hash", f)));
        said.extend(reads.max_length.map(|n| ("max_length", n.to_string())));
        let prepared = reads.preprocessor.as_ref();
        said.extend(prepared.map(|p| ("preprocessor", p.to_string())));
        let said = said.into_iter().map(|(k, v)| (k.to_owned(), v)).collect();
        safetensors_bytes(&stored, &said)
    }

    /// Reads a file.
    ///
    /// # Errors
    /// A file that is no router or of a later format, tensors or parameters that make none.
    pub fn open(file: &Path) -> Result<Self> {
        let read = Stored {
            checkpoint: Checkpoint::open(file)?,
            file,
        };
        let word = |key: &str| read.checkpoint.metadata().get(key).map(String::as_str);
        match word("format") {
            Some(FORMAT) => {}
            Some(other) if other.starts_with("polyloom.router/") => {
                let what = format!("is of the format `{other}`; this program reads `{FORMAT}`");
                return Err(read.wrong(&what, "a newer program wrote it"));
            }
            _ => return Err(read.wrong("is no router", "`polyloom route fit` writes one")),
        }
        let parsed = |key: &str, error: &dyn std::fmt::Display| {
            read.wrong(
                &format!("has `{key}` that is not understood: {error}"),
                AGAIN,
            )
        };
        let text = |key: &str| {
            let lacks = || read.wrong(&format!("lacks `{key}` in its header"), AGAIN);
            word(key).ok_or_else(lacks)
        };
        let experts: Vec<Expert> =
            serde_json::from_str(text("experts")?).map_err(|e| parsed("experts", &e))?;
        if experts.is_empty() {
            return Err(read.wrong("names no experts", AGAIN));
        }
        for (i, expert) in experts.iter().enumerate() {
            if experts[..i].iter().any(|e| e.name == expert.name) {
                let what = format!("names two experts `{}`", expert.name);
                return Err(read.wrong(&what, AGAIN));
            }
        }
        let parameters: Parameters =
            serde_json::from_str(text("parameters")?).map_err(|e| parsed("parameters", &e))?;
        let tap = text("feature")?
            .parse()
            .map_err(|e: String| parsed("feature", &e))?;
        let method = text("method")?;
        let known = "known methods: centroid, knn, linear, mlp, pilots, predicted_loss";
        let unknown = || read.wrong(&format!("has the method `{method}`"), known);
        let method = Method::of_word(method).ok_or_else(unknown)?;
        let rule = read.rule(method, parameters, experts.len())?;
        let length = word("max_length").map(str::parse).transpose();
        let prepared = word("preprocessor").map(serde_json::from_str).transpose();
        let fitted = word("fitted").map(serde_json::from_str).transpose();
        Ok(Self {
            experts,
            tap,
            reads: Reads {
                model: word("model").map(str::to_owned),
                fingerprint: word("model_hash").map(str::to_owned),
                max_length: length.map_err(|e| parsed("max_length", &e))?,
                preprocessor: prepared.map_err(|e| parsed("preprocessor", &e))?,
            },
            rule,
            fitted: fitted
                .map_err(|e| parsed("fitted", &e))?
                .unwrap_or_default(),
        })
    }
}

const AGAIN: &str = "the file is damaged or was changed; fit the router again";

/// A file that is being read.
struct Stored<'a> {
    checkpoint: Checkpoint,
    file: &'a Path,
}

impl Stored<'_> {
    fn wrong(&self, what: &str, hint: &str) -> Error {
        let place = self.file.display().to_string();
        MergeError::plan("bad-router", what)
            .at(place)
            .hint(hint)
            .into()
    }

    fn tensor(&self, name: &str) -> Result<(Vec<usize>, Vec<f32>)> {
        let Some(stored) = self.checkpoint.get(name) else {
            return Err(self.wrong(&format!("lacks the tensor `{name}`"), AGAIN));
        };
        let values = self.checkpoint.read_all(stored)?;
        if values.iter().any(|x| !x.is_finite()) {
            let what = format!("tensor `{name}` holds a value that is not finite");
            return Err(self.wrong(&what, AGAIN));
        }
        Ok((stored.shape.clone(), values))
    }

    fn matrix(&self, name: &str) -> Result<Points> {
        let (shape, values) = self.tensor(name)?;
        match shape[..] {
            [rows, width] if rows > 0 && width > 0 => Ok(Points { values, width }),
            _ => Err(self.wrong(&format!("tensor `{name}` is of shape {shape:?}"), AGAIN)),
        }
    }

    fn vector(&self, name: &str, n: usize) -> Result<Vec<f32>> {
        let (shape, values) = self.tensor(name)?;
        match shape[..] {
            [length] if length == n => Ok(values),
            _ => {
                let what = format!("tensor `{name}` is of shape {shape:?}, not [{n}]");
                Err(self.wrong(&what, AGAIN))
            }
        }
    }

    fn rule(&self, method: Method, given: Parameters, experts: usize) -> Result<Rule> {
        let lacks = |key: &str| self.wrong(&format!("lacks the parameter `{key}`"), AGAIN);
        let temperature = || match given.temperature {
            Some(t) if t > 0.0 && t.is_finite() => Ok(t),
            _ => Err(self.wrong("has a temperature that is not above 0", AGAIN)),
        };
        let each = |rows: usize, name: &str| match rows == experts {
            true => Ok(()),
            false => {
                let what = format!("tensor `{name}` has {rows} rows for {experts} experts");
                Err(self.wrong(&what, AGAIN))
            }
        };
        Ok(match method {
            Method::Centroid => {
                let vectors = self.matrix("vectors")?;
                each(vectors.len(), "vectors")?;
                Rule::Centroid(Centroid {
                    vectors,
                    temperature: temperature()?,
                    min_similarity: given.min_similarity,
                })
            }
            Method::Knn => {
                let points = self.matrix("points")?;
                let temperature = temperature()?;
                let k = given.k.filter(|k| *k > 0).ok_or_else(|| lacks("k"))?;
                let counts = given.counts.ok_or_else(|| lacks("counts"))?;
                each(counts.len(), "counts")?;
                let sum = counts.iter().try_fold(0usize, |s, n| s.checked_add(*n));
                if sum != Some(points.len()) {
                    let what = format!("has `counts` that are not {} in all", points.len());
                    return Err(self.wrong(&what, AGAIN));
                }
                Rule::Knn(Knn {
                    points,
                    counts,
                    k,
                    temperature,
                    min_similarity: given.min_similarity,
                })
            }
            Method::Linear => {
                let weight = self.matrix("weight")?;
                each(weight.len(), "weight")?;
                let bias = self.vector("bias", experts)?;
                Rule::Linear(Linear { weight, bias })
            }
            Method::Mlp => {
                let hidden = [self.hidden(0)?, self.hidden(1)?];
                let weight = self.matrix("fc4.weight")?;
                each(weight.len(), "fc4.weight")?;
                if hidden[1].weight.width != hidden[0].bias.len()
                    || weight.width != hidden[1].bias.len()
                {
                    return Err(self.wrong("has layers that do not fit together", AGAIN));
                }
                Rule::Mlp(Box::new(Mlp {
                    hidden,
                    weight,
                    bias: self.vector("fc4.bias", experts)?,
                    slope: given.slope.ok_or_else(|| lacks("slope"))?,
                    eps: given.eps.ok_or_else(|| lacks("eps"))?,
                }))
            }
            Method::PredictedLoss => {
                let weight = self.matrix("weight")?;
                each(weight.len(), "weight")?;
                let costs = given.costs.ok_or_else(|| lacks("costs"))?;
                let fits = |values: &Vec<f64>| {
                    values.len() == experts && values.iter().all(|v| *v >= 0.0 && v.is_finite())
                };
                if !costs.values().all(fits) {
                    let what = format!(
                        "has `costs` that are not one number for each of {experts} experts"
                    );
                    return Err(self.wrong(&what, AGAIN));
                }
                Rule::Predicted(Box::new(Predicted {
                    weight,
                    bias: self.vector("bias", experts)?,
                    costs,
                    limits: given.limits.ok_or_else(|| lacks("limits"))?,
                }))
            }
            Method::Pilots => {
                let vectors = self.matrix("pilots")?;
                let temperature = temperature()?;
                let pilots = given.pilots.ok_or_else(|| lacks("pilots"))?;
                if pilots.len() != vectors.len() || pilots.iter().any(|p| p.owner >= experts) {
                    let what = format!("has `pilots` that do not fit {} vectors", vectors.len());
                    return Err(self.wrong(&what, AGAIN));
                }
                Rule::Pilots(Pilots {
                    vectors,
                    pilots,
                    reduce: given.reduce.ok_or_else(|| lacks("reduce"))?,
                    similarity: given.similarity.ok_or_else(|| lacks("similarity"))?,
                    temperature,
                    min_similarity: given.min_similarity,
                })
            }
        })
    }

    fn hidden(&self, i: usize) -> Result<Hidden> {
        let (linear, norm) = LAYERS[i];
        let weight = self.matrix(&format!("{linear}.weight"))?;
        let n = weight.len();
        let variance = self.vector(&format!("{norm}.running_var"), n)?;
        if variance.iter().any(|v| *v < 0.0) {
            let what = format!("tensor `{norm}.running_var` holds a value below 0");
            return Err(self.wrong(&what, AGAIN));
        }
        Ok(Hidden {
            bias: self.vector(&format!("{linear}.bias"), n)?,
            gain: self.vector(&format!("{norm}.weight"), n)?,
            shift: self.vector(&format!("{norm}.bias"), n)?,
            mean: self.vector(&format!("{norm}.running_mean"), n)?,
            variance,
            weight,
        })
    }
}

#[cfg(test)]
#[path = "file_tests.rs"]
mod tests;
