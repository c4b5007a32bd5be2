//! What is fitted on validation rows after training, for models of tables: probabilities that mean what they say, the
//! probability from which a class is answered, and how far answers are off.
//!
//! Everything is a function of what a head says of the validation rows and of what is right there, in f64 and in the order of
//! the rows; nothing is drawn, and no test row is seen. It lies in `calibration.json` beside the weights, and whoever answers by
//! the model's own heads ([`crate::tasks::System`]) uses it. A group's goal shares what its target has.

pub mod conformal;
pub mod coverage;
pub mod fit;
pub mod isotonic;
pub mod temperature;
pub mod threshold;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use polyloom::MergeError;
use serde::{Deserialize, Serialize};

pub use conformal::{Errors, Level};
pub use fit::{Method, Settings, fit};
pub use isotonic::Isotonic;
pub use threshold::{Rule, Threshold};

use crate::error::{Error, Result};
use crate::table::TABLE;
use crate::tasks::Head;
use crate::tasks::head::HeadKind;

/// Name of the file.
pub const CALIBRATION: &str = "calibration.json";

/// Version of the file.
const VERSION: u32 = 1;

/// What changes probabilities.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(tag = "method", rename_all = "lowercase", deny_unknown_fields)]
pub enum Map {
    /// Logits are divided by a number.
    Temperature {
        /// The number.
        temperature: f64,
    },
    /// The probability of the second of two classes goes through a curve.
    Isotonic {
        /// The curve.
        curve: Isotonic,
    },
}

/// How good probabilities are on the validation rows.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Quality {
    /// Mean surprise at the right class, in nats.
    pub log_loss: f64,
    /// Expected calibration error over 15 bins.
    pub ece: f64,
}

/// What was fitted for one head.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct OfHead {
    /// Validation rows that it was fitted on.
    pub rows: usize,
    /// The classes in the order of the head's outputs; none for a number.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub classes: Vec<String>,
    /// What changes probabilities.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub map: Option<Map>,
    /// Probabilities as the head has them; none for a number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Quality>,
    /// After the map.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Quality>,
    /// From where on the second class is answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub threshold: Option<Threshold>,
    /// How far answers were off: `|y - f(x)|` of a number, of classes 1 less the probability of the right one (after the map).
    pub errors: Errors,
    /// Place of the last class of the file among the outputs, which a task may have in another order.
    #[serde(skip, default = "second")]
    positive: usize,
}

fn second() -> usize {
    1
}

impl OfHead {
    /// Place of the last class of the file among the outputs.
    pub(crate) fn positive(&self) -> usize {
        self.positive
    }

    /// Probabilities of raw outputs; `None` where the head's own are meant.
    pub(crate) fn probabilities(&self, logits: &[f32]) -> Option<Vec<f32>> {
        let mut p: Vec<f64> = logits.iter().map(|z| f64::from(*z)).collect();
        match self.map.as_ref()? {
            Map::Temperature { temperature } => temperature::softmax(&mut p, 1.0 / temperature),
            Map::Isotonic { curve } => {
                temperature::softmax(&mut p, 1.0);
                let q = curve.at(p.get(self.positive).copied()?);
                for (i, p) in p.iter_mut().enumerate() {
                    *p = if i == self.positive { q } else { 1.0 - q };
                }
            }
        }
        Some(p.into_iter().map(|p| p as f32).collect())
    }

    /// Place of the class that is answered where a cut says which; `None` without a cut.
    #[must_use]
    pub fn answer(&self, said: &[f32]) -> Option<usize> {
        let cut = self.threshold.as_ref()?;
        let p = f64::from(*said.get(self.positive)?);
        Some(match cut.is_over(p) {
            true => self.positive,
            false => 1 - self.positive.min(1),
        })
    }

    /// Follows the outputs of a head that is brought to another order: the output at `i` was at `order[i]`.
    pub(crate) fn reorder(&mut self, order: &[usize]) {
        let at = order.iter().position(|from| *from == self.positive);
        self.positive = at.unwrap_or(self.positive);
        let moved = order.iter().filter_map(|i| self.classes.get(*i).cloned());
        self.classes = moved.collect();
    }

    /// In a line, how answers are changed; `None` where they are not.
    #[must_use]
    pub fn told(&self) -> Option<String> {
        let map = self.map.as_ref().map(|m| match m {
            Map::Temperature { temperature } => {
                format!("probabilities calibrated by temperature {temperature:.3}")
            }
            Map::Isotonic { curve } => format!(
                "probabilities calibrated by an isotonic curve of {} knots",
                curve.scores.len()
            ),
        });
        let cut = self.threshold.as_ref().map(|t| {
            let class = self.classes.get(self.positive).map_or("", |c| c);
            format!("`{class}` answered from {:.4} on ({})", t.cut, t.rule)
        });
        let parts: Vec<String> = map.into_iter().chain(cut).collect();
        let rows = self.rows;
        (!parts.is_empty()).then(|| {
            format!(
                "{}, fitted on {rows} validation rows ({CALIBRATION})",
                parts.join(", ")
            )
        })
    }

    /// What is wrong with one that was read.
    fn fault(&self) -> Option<String> {
        let two = self.classes.len() == 2;
        let map = match &self.map {
            Some(Map::Temperature { temperature }) => (!(*temperature > 0.0
                && temperature.is_finite()))
            .then(|| format!("has the temperature {temperature}; above 0")),
            Some(Map::Isotonic { curve }) if two => curve.fault().map(str::to_owned),
            Some(Map::Isotonic { .. }) => Some("has a curve, which is of two classes".into()),
            None => None,
        };
        let cut = self.threshold.as_ref().and_then(|t| match two {
            true => t.fault(),
            false => Some("has a cut, which is of two classes".into()),
        });
        map.or(cut).or(self.errors.fault().map(str::to_owned))
    }
}

/// How far an answer may be off at most, for intervals of a level: of a number the distance of both ends, of classes 1 less the
/// probability that a class needs to be in the set.
///
/// # Errors
/// A head without calibration, of a kind that has no intervals, too few validation rows for the level.
pub fn within(head: &Head, level: Level) -> Result<f64> {
    let no = |what: &str| {
        MergeError::plan("no-interval", format!("`{}` {what}", head.task)).hint(
            "polyloom calibrate MODEL -t SPEC fits intervals on validation rows, of models of tables",
        )
    };
    let of = head.calibration.as_ref();
    let of = of.ok_or_else(|| no("has no intervals yet"))?;
    match head.kind {
        HeadKind::Regression | HeadKind::Classification => of.errors.quantile(level, &head.task),
        HeadKind::Multilabel | HeadKind::Embedding | HeadKind::Items | HeadKind::Dense(_) => {
            let what =
                "answers with sets of labels, vectors, items or maps, which have no interval";
            Err(no(what).into())
        }
    }
}

/// In a line with its name, how the answers of a head are changed; `None` where they are not.
#[must_use]
pub fn told(head: &Head) -> Option<String> {
    let told = head.calibration.as_ref()?.told()?;
    Some(format!("{}: {told}", head.task))
}

/// What was fitted for the heads of a model: the file.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Calibration {
    version: u32,
    /// The split that it was fitted on.
    pub split: String,
    /// By the name of the head (`people/rich`).
    pub heads: BTreeMap<String, OfHead>,
}

impl Calibration {
    /// Of heads by name.
    #[must_use]
    pub fn new(split: &str, heads: BTreeMap<String, OfHead>) -> Self {
        Self {
            version: VERSION,
            split: split.to_owned(),
            heads,
        }
    }

    /// The file of a folder; `None` where it has none, or where the folder is no model of tables.
    ///
    /// # Errors
    /// A file that is none of these, or of another version.
    pub fn beside(folder: &Path) -> Result<Option<Self>> {
        let file = folder.join(CALIBRATION);
        // Other programs call other things by this name.
        if !file.is_file() || !folder.join(TABLE).is_file() {
            return Ok(None);
        }
        let bad = |what: String| {
            Error::file(&file, what).hint(
                "remove the file (answers are the model's own then), and fit it again: polyloom calibrate MODEL",
            )
        };
        let json = polyloom_core::checkpoint::read_json(&file).map_err(|e| bad(e.to_string()))?;
        let found: Self = serde_json::from_value(json).map_err(|e| bad(e.to_string()))?;
        if found.version != VERSION {
            return Err(bad(format!(
                "is of version {}; this program knows {VERSION}",
                found.version
            )));
        }
        for (name, head) in &found.heads {
            if let Some(fault) = head.fault() {
                return Err(bad(format!("`{name}` {fault}")));
            }
        }
        Ok(Some(found))
    }

    /// What was fitted for a head.
    ///
    /// # Errors
    /// Other classes than the head has.
    pub(crate) fn of(
        &self,
        name: &str,
        labels: &[String],
        folder: &Path,
    ) -> Result<Option<Arc<OfHead>>> {
        match self.heads.get(name) {
            Some(of) if of.classes != labels => {
                let what = format!(
                    "`{name}` has the classes {}; its head has {}",
                    of.classes.join(", "),
                    labels.join(", ")
                );
                Err(Error::file(&folder.join(CALIBRATION), what)
                    .hint("fit it again: polyloom calibrate MODEL --force"))
            }
            of => Ok(of.cloned().map(Arc::new)),
        }
    }

    /// The bytes of its file.
    ///
    /// # Errors
    /// Never in practice: finite numbers and texts.
    pub fn text(&self) -> Result<String> {
        let text = serde_json::to_string(self).map_err(|e| Error::Config {
            what: format!("{CALIBRATION}: {e}"),
        })?;
        Ok(text + "\n")
    }
}

#[cfg(test)]
mod tests;
