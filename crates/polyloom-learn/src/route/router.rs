//! A router as programs hold it: a rule, the experts it chooses from, and what it reads.

use std::fmt;
use std::str::FromStr;

use polyloom::MergeError;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use super::predicted::Predicted;
use super::{Centroid, Knn, Linear, Mlp, Pilots, Points};
use crate::error::Result;
use crate::tasks::Feature;

/// What a router says of one input.
#[derive(Debug, Clone, PartialEq)]
pub struct Decision {
    /// A weight for each expert: their sum is 1, or all are 0 where no expert is near enough.
    pub weights: Vec<f32>,
    /// The expert with the largest weight (of equal ones the first); `None` means the base.
    pub expert: Option<usize>,
    /// Its weight; 0 without an expert.
    pub confidence: f32,
}

impl Decision {
    /// No expert of so many: the base.
    #[must_use]
    pub fn none(experts: usize) -> Self {
        Self {
            weights: vec![0.0; experts],
            expert: None,
            confidence: 0.0,
        }
    }

    /// Of weights with the sum 1.
    #[must_use]
    pub fn of_weights(weights: Vec<f32>) -> Self {
        let mut best: Option<usize> = None;
        for (i, w) in weights.iter().enumerate() {
            if best.is_none_or(|b| *w > weights[b]) {
                best = Some(i);
            }
        }
        Self {
            confidence: best.map_or(0.0, |i| weights[i]),
            expert: best,
            weights,
        }
    }

    /// The softmax of similarities over a temperature; no expert where none of them reaches `least`.
    #[must_use]
    pub fn of_similarities(row: &[f32], temperature: f32, least: Option<f32>) -> Self {
        let top = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        if top == f32::NEG_INFINITY || least.is_some_and(|least| top < least) {
            return Self::none(row.len());
        }
        let apart = |x: &f32| (f64::from(x - top) / f64::from(temperature)).exp();
        let all: f64 = row.iter().map(apart).sum();
        let weights = row.iter().map(|x| (apart(x) / all) as f32).collect();
        // Two similarities may be so near that their weights are equal: the larger one stays the choice.
        let mut found = Self::of_weights(weights);
        let first = row.iter().position(|x| *x == top);
        found.confidence = first.map_or(0.0, |i| found.weights[i]);
        found.expert = first;
        found
    }

    /// The experts with the largest weights, at most `k`; of equal ones the first.
    #[must_use]
    pub fn top(&self, k: usize) -> Vec<usize> {
        if self.expert.is_none() {
            return Vec::new();
        }
        let mut order: Vec<usize> = (0..self.weights.len()).collect();
        order.sort_by(|&a, &b| {
            let by = self.weights[b].total_cmp(&self.weights[a]);
            // The choice goes before experts whose weight rounds to its own.
            let chosen = |i: usize| self.expert != Some(i);
            by.then(chosen(a).cmp(&chosen(b))).then(a.cmp(&b))
        });
        order.truncate(k);
        order
    }
}

/// An expert that is chosen from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Expert {
    /// Its name: that of an expert of a recipe, else the id of its task.
    pub name: String,
    /// Where its weights lie, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// The task that it was fitted on, where there is one: its head answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<String>,
}

/// What of a model's pass a router reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tap {
    /// What heads see: the last hidden states, pooled.
    Last(Feature),
    /// The mean over tokens of the stream after so many layers; 0: of the embedded input.
    Layer(usize),
}

impl fmt::Display for Tap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Last(feature) => f.write_str(feature.word()),
            Self::Layer(layer) => write!(f, "layer:{layer}"),
        }
    }
}

impl FromStr for Tap {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        if let Some(layer) = word.strip_prefix("layer:") {
            let layer = layer.parse();
            return layer.map(Self::Layer).map_err(|_| {
                format!("`{word}`: after `layer:` stands the number of layers, such as layer:1")
            });
        }
        match Feature::of_word(word) {
            // Pairs are read together: a router sees one vector per input.
            Some(feature) if !feature.is_of_two() => Ok(Self::Last(feature)),
            _ => Err(format!(
                "feature `{word}` is not known: mean, cls, last, pooled, embedding, layer:K"
            )),
        }
    }
}

/// The model that features come from, and how it reads inputs.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Reads {
    /// As it was named.
    pub model: Option<String>,
    /// The fingerprint of its weights ([`crate::tasks::System::fingerprint`]).
    pub fingerprint: Option<String>,
    /// Tokens that texts are cut to.
    pub max_length: Option<usize>,
    /// What prepares pictures, in place of the model's own `preprocessor_config.json`.
    pub preprocessor: Option<Json>,
}

/// How an expert is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// The nearest mean.
    Centroid,
    /// The nearest examples.
    Knn,
    /// Logistic regression.
    Linear,
    /// Twin-Merging's two hidden layers.
    Mlp,
    /// RouterRetriever's pilots.
    Pilots,
    /// The least predicted loss, under constraints (Tryage).
    PredictedLoss,
}

impl Method {
    /// Its word in files and on the command line.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Centroid => "centroid",
            Self::Knn => "knn",
            Self::Linear => "linear",
            Self::Mlp => "mlp",
            Self::Pilots => "pilots",
            Self::PredictedLoss => "predicted_loss",
        }
    }

    /// The one of a word.
    #[must_use]
    pub fn of_word(word: &str) -> Option<Self> {
        [
            Self::Centroid,
            Self::Knn,
            Self::Linear,
            Self::Mlp,
            Self::Pilots,
            Self::PredictedLoss,
        ]
        .into_iter()
        .find(|m| m.word() == word)
    }
}

/// The numbers of a method.
#[derive(Debug, Clone, PartialEq)]
pub enum Rule {
    /// The nearest mean.
    Centroid(Centroid),
    /// The nearest examples.
    Knn(Knn),
    /// Logistic regression.
    Linear(Linear),
    /// Twin-Merging's two hidden layers.
    Mlp(Box<Mlp>),
    /// RouterRetriever's pilots.
    Pilots(Pilots),
    /// The least predicted loss, under constraints.
    Predicted(Box<Predicted>),
}

/// Chooses an expert for an input. [`Router::open`] and [`Router::save`] know one file.
#[derive(Debug, Clone, PartialEq)]
pub struct Router {
    /// The experts, in the order of all weights.
    pub experts: Vec<Expert>,
    /// What of a pass it reads.
    pub tap: Tap,
    /// Whose pass.
    pub reads: Reads,
    /// How it decides.
    pub rule: Rule,
    /// How it was fitted, for people: split, rows, seed, accuracy on held-out rows.
    pub fitted: serde_json::Map<String, Json>,
}

impl Router {
    /// Its method.
    #[must_use]
    pub fn method(&self) -> Method {
        match &self.rule {
            Rule::Centroid(_) => Method::Centroid,
            Rule::Knn(_) => Method::Knn,
            Rule::Linear(_) => Method::Linear,
            Rule::Mlp(_) => Method::Mlp,
            Rule::Pilots(_) => Method::Pilots,
            Rule::Predicted(_) => Method::PredictedLoss,
        }
    }

    /// Names of the experts.
    #[must_use]
    pub fn names(&self) -> Vec<&str> {
        self.experts.iter().map(|e| &*e.name).collect()
    }

    /// Numbers of a feature vector.
    #[must_use]
    pub fn width(&self) -> usize {
        match &self.rule {
            Rule::Centroid(c) => c.vectors.width,
            Rule::Knn(k) => k.points.width,
            Rule::Linear(l) => l.weight.width,
            Rule::Mlp(m) => m.hidden[0].weight.width,
            Rule::Pilots(p) => p.vectors.width,
            Rule::Predicted(p) => p.weight.width,
        }
    }

    /// Decides for one vector of features.
    ///
    /// # Errors
    /// A vector of another width, numbers that are not finite.
    pub fn decide(&self, features: &[f32]) -> Result<Decision> {
        let points = Points {
            values: features.to_vec(),
            width: features.len(),
        };
        let found = self.decide_all(&points)?.pop();
        Ok(found.unwrap_or_else(|| Decision::none(self.experts.len())))
    }

    /// Decides for many vectors at once.
    ///
    /// # Errors
    /// As [`Self::decide`].
    pub fn decide_all(&self, points: &Points) -> Result<Vec<Decision>> {
        if points.width != self.width() {
            let (got, takes) = (points.width, self.width());
            let what = format!("features of {got} numbers; the router takes {takes}");
            return Err(MergeError::plan("bad-features", what)
                .hint("it was fitted on another model, or on another feature of it")
                .into());
        }
        if points.values.iter().any(|x| !x.is_finite()) {
            let what = "features hold a value that is not finite: the model overflows";
            return Err(MergeError::plan("bad-features", what).into());
        }
        Ok(match &self.rule {
            Rule::Centroid(c) => c.decide(points),
            Rule::Knn(k) => k.decide(points),
            Rule::Linear(l) => l.decide(points),
            Rule::Mlp(m) => m.decide(points),
            Rule::Pilots(p) => p.decide(points, self.experts.len()),
            Rule::Predicted(p) => p.decide(points, &self.names())?,
        })
    }

    /// Takes one more expert with the features of its examples, without training; of pilots their `k` centres.
    ///
    /// # Errors
    /// A trained rule, a name that is there already, features of another width or none.
    pub fn add(&mut self, expert: Expert, examples: &Points, k: usize) -> Result<()> {
        let wrong = |what: String| Err(MergeError::plan("bad-router", what).into());
        if self.experts.iter().any(|e| e.name == expert.name) {
            return wrong(format!("has an expert `{}` already", expert.name));
        }
        // The same checks as for inputs; the answers do not matter.
        self.decide_all(examples)?;
        if examples.is_empty() {
            return wrong(format!("no examples for `{}`", expert.name));
        }
        let (number, method) = (self.experts.len(), self.method());
        match &mut self.rule {
            Rule::Centroid(c) => c.add(examples),
            Rule::Knn(n) => n.add(examples),
            Rule::Pilots(p) => p.add(examples, number, &expert.name, k)?,
            Rule::Linear(_) | Rule::Mlp(_) | Rule::Predicted(_) => return Err(trained(method)),
        }
        self.experts.push(expert);
        Ok(())
    }

    /// Forgets an expert, without training.
    ///
    /// # Errors
    /// A trained rule, no such expert, the last one.
    pub fn remove(&mut self, name: &str) -> Result<()> {
        let Some(i) = self.experts.iter().position(|e| e.name == name) else {
            let what = format!("has no expert `{name}`");
            return Err(MergeError::plan("bad-router", what)
                .hint(format!("it has {}", self.names().join(", ")))
                .into());
        };
        if self.experts.len() == 1 {
            let what = format!("`{name}` is its only expert");
            return Err(MergeError::plan("bad-router", what).into());
        }
        if let Rule::Pilots(p) = &self.rule
            && p.pilots.iter().all(|p| p.owner == i)
        {
            let what = format!("`{name}` owns all its pilots");
            return Err(MergeError::plan("bad-router", what).into());
        }
        let method = self.method();
        match &mut self.rule {
            Rule::Centroid(c) => c.remove(i),
            Rule::Knn(n) => n.remove(i),
            Rule::Pilots(p) => p.remove(i),
            Rule::Linear(_) | Rule::Mlp(_) | Rule::Predicted(_) => return Err(trained(method)),
        }
        self.experts.remove(i);
        Ok(())
    }
}

fn trained(method: Method) -> crate::Error {
    let what = format!("a `{}` router is trained on its experts", method.word());
    MergeError::plan("bad-router", what)
        .hint(
            "fit it again with `route fit`; centroid, knn and pilots take experts without training",
        )
        .into()
}
