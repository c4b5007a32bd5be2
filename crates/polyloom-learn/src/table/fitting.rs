//! What is learned of training rows before a model is: means, quantiles, words, weights of the places of texts.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use polyloom::MergeError;
use polyloom::evaluate::board::score::examples::{Column, ColumnKind, Field};
use polyloom::evaluate::statistics::replicates::quantile_of_sorted;
use serde::{Deserialize, Serialize};

use super::groups::{self, Groups};
use super::modalities::RowSet;
use super::{Encoder, Preparation, Prepared, texts};
use crate::error::Result;

/// How numbers are scaled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Scaling {
    /// By their rank among the training rows, as a normal distribution has it: long tails and odd units do no harm.
    #[default]
    Quantile,
    /// `(x - mean) / deviation`.
    Standard,
}

/// How a preparation is fitted.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// A word that stands in fewer training rows than this has no code of its own; 1 or more.
    pub rare: usize,
    /// How numbers are scaled.
    pub scaling: Scaling,
    /// Scaled numbers are cut to plus and minus this; above 0.
    pub clip: f32,
    /// Numbers that a column of running text is hashed to, 1 to 65,536.
    pub text: usize,
    /// A model of texts whose vectors stand for running text in place of that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub embed: Option<String>,
}

impl Settings {
    /// For trees, to which any order-keeping scale is the same: nothing is cut, every word has a code.
    #[must_use]
    pub fn of_trees() -> Self {
        Self {
            rare: 1,
            scaling: Scaling::Standard,
            clip: f32::MAX,
            text: texts::SIZE,
            embed: None,
        }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            rare: 3,
            scaling: Scaling::default(),
            clip: 10.0,
            text: texts::SIZE,
            embed: None,
        }
    }
}

/// What is counted of a column.
enum Seen {
    Number {
        values: Vec<f64>,
        missing: bool,
    },
    Words(HashMap<Option<Arc<str>>, usize>),
    Text(texts::Counts),
    /// An encoder makes vectors of it: nothing is learned.
    Vector,
}

/// Sees training rows, and gives what prepares them.
#[derive(Default)]
pub struct Fitting {
    settings: Settings,
    seen: BTreeMap<usize, Seen>,
    places: HashMap<String, usize>,
    columns: Vec<Column>,
    rows: Vec<usize>,
    total: usize,
    /// Column of groups that have goals of their own, and the groups that were seen.
    groups: Option<(String, BTreeSet<String>)>,
    encoder: Option<Encoder>,
    /// Every column is of a modality, and of each the rows that have it.
    marking: Option<Vec<RowSet>>,
}

impl Fitting {
    /// With these settings.
    ///
    /// # Errors
    /// Settings outside of their ranges.
    pub fn new(settings: Settings) -> Result<Self> {
        let Settings {
            rare, clip, text, ..
        } = &settings;
        let (rare, clip, text) = (*rare, *clip, *text);
        let fine = rare > 0 && clip > 0.0 && clip.is_finite() && (1..=texts::MOST).contains(&text);
        if !fine {
            let what = "`rare` is at least 1, `clip` above 0, `text` 1 to 65536";
            return Err(MergeError::plan("bad-table", what).into());
        }
        Ok(Self {
            settings,
            ..Self::default()
        })
    }

    /// For a model with goals for each group that a column says; the column is no feature then.
    #[must_use]
    pub fn by_group(self, column: String) -> Self {
        Self {
            groups: Some((column, BTreeSet::new())),
            ..self
        }
    }

    /// Running text becomes the vectors of an encoder.
    #[must_use]
    pub fn encoding(self, encoder: Encoder) -> Self {
        Self {
            encoder: Some(encoder),
            ..self
        }
    }

    /// For a model that reads modalities: every column gets a mark of what is missing, and which columns rows lack together is
    /// counted.
    #[must_use]
    pub fn marking(self) -> Self {
        Self {
            marking: Some(Vec::new()),
            ..self
        }
    }

    /// Columns that the rows so far have or lack together, each with those of the very same rows, in the order of the file.
    #[must_use]
    pub fn together(&self) -> Vec<Vec<String>> {
        let mut found: Vec<(RowSet, Vec<String>)> = Vec::new();
        let sets = self.marking.iter().flatten();
        for (column, rows) in self.columns.iter().zip(sets) {
            match found.iter_mut().find(|(other, _)| other == rows) {
                Some((_, names)) => names.push(column.name.clone()),
                None => found.push((*rows, vec![column.name.clone()])),
            }
        }
        found.into_iter().map(|(_, names)| names).collect()
    }

    /// Sees a row. Rows of several tables may come one after the other: a column that a table does not have is missing there.
    ///
    /// # Errors
    /// A column that holds numbers in one table and words or text in another.
    pub fn see(&mut self, columns: &[Column], fields: &[Field]) -> Result<()> {
        self.total += 1;
        for (column, field) in columns.iter().zip(fields) {
            if let Some((of, seen)) = &mut self.groups
                && *of == column.name
            {
                seen.extend(groups::word(field));
                continue;
            }
            let at = match self.places.get(&column.name) {
                Some(at) => *at,
                None => {
                    let at = self.columns.len();
                    self.places.insert(column.name.clone(), at);
                    self.columns.push(column.clone());
                    self.rows.push(0);
                    let seen = match column.kind {
                        ColumnKind::Number => Seen::Number {
                            values: Vec::new(),
                            missing: false,
                        },
                        ColumnKind::Word => Seen::Words(HashMap::new()),
                        ColumnKind::Text if self.encoder.is_some() => Seen::Vector,
                        ColumnKind::Text => Seen::Text(texts::Counts::new(self.settings.text)),
                    };
                    self.seen.insert(at, seen);
                    at
                }
            };
            self.rows[at] += 1;
            if let Some(sets) = &mut self.marking {
                sets.resize(self.columns.len(), RowSet::default());
                if !matches!(field, Field::Missing) {
                    sets[at].put(self.total as u64);
                }
            }
            match (self.seen.get_mut(&at), field) {
                (Some(Seen::Number { values, .. }), Field::Number(x)) => values.push(*x),
                (Some(Seen::Number { missing, .. }), Field::Missing) => *missing = true,
                (Some(Seen::Words(counts)), Field::Word(word)) => {
                    *counts.entry(Some(word.clone())).or_default() += 1;
                }
                (Some(Seen::Words(counts)), Field::Missing) => {
                    *counts.entry(None).or_default() += 1;
                }
                (Some(Seen::Text(counts)), Field::Word(text)) => counts.see(text),
                (Some(Seen::Text(counts)), Field::Missing) => counts.see(""),
                (Some(Seen::Vector), Field::Word(_) | Field::Missing) => {}
                _ => {
                    let what = format!(
                        "column `{}` holds numbers in one table and words or text in another",
                        column.name
                    );
                    return Err(MergeError::plan("bad-table", what)
                        .hint(
                            "name it in `table.categorical` of both tasks, or give it another name",
                        )
                        .into());
                }
            }
        }
        Ok(())
    }

    /// What prepares rows like those that were seen.
    ///
    /// # Errors
    /// No columns; an encoder, and no running text.
    pub fn finish(self) -> Result<Preparation> {
        let settings = self.settings;
        if self.columns.is_empty() {
            let what = "no training row has a column of features";
            return Err(MergeError::plan("bad-table", what).into());
        }
        if let Some(encoder) = &self.encoder
            && !self.columns.iter().any(|c| c.kind == ColumnKind::Text)
        {
            let what = format!(
                "no column is running text that `{}` could embed",
                encoder.model
            );
            return Err(MergeError::plan("bad-table", what)
                .hint("`table.text` of the spec names columns of running text; or leave out prepare.embed (--embed)")
                .into());
        }
        let width = self.encoder.as_ref().map_or(0, |e| e.width);
        let groups = self.groups.map(|(column, seen)| Groups::of(column, seen));
        let (rows, marked) = (self.rows, self.marking.is_some());
        let total = self.total;
        let of = |(at, seen): (usize, Seen)| {
            let name = self.columns[at].name.clone();
            let lacked = total - rows[at];
            match seen {
                Seen::Number { values, missing } => number(
                    name,
                    values,
                    missing || lacked > 0 || marked,
                    settings.scaling,
                ),
                Seen::Words(mut counts) => {
                    if lacked > 0 {
                        *counts.entry(None).or_default() += lacked;
                    }
                    let mut kept: Vec<(Option<Arc<str>>, usize)> = counts
                        .into_iter()
                        .filter(|(_, n)| *n >= settings.rare)
                        .collect();
                    kept.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
                    let words = kept
                        .into_iter()
                        .map(|(w, _)| w.map(|w| w.to_string()))
                        .collect();
                    Prepared::Words {
                        name,
                        words,
                        missing: marked,
                    }
                }
                Seen::Text(counts) => Prepared::Text {
                    name,
                    weights: counts.weights(),
                    missing: marked,
                },
                Seen::Vector => Prepared::Vector {
                    name,
                    width,
                    missing: marked,
                },
            }
        };
        Ok(Preparation {
            version: 1,
            clip: settings.clip,
            columns: self.seen.into_iter().map(of).collect(),
            groups: groups.transpose()?,
            encoder: self.encoder,
            sessions: None,
            history: None,
        })
    }
}

/// Quantiles that are kept of a column at most.
const LANDMARKS: usize = 1000;

/// A column of numbers, of the values that training rows have in it.
fn number(name: String, mut values: Vec<f64>, missing: bool, scaling: Scaling) -> Prepared {
    let n = values.len().max(1) as f64;
    let mean = values.iter().sum::<f64>() / n;
    let deviation = (values.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n).sqrt();
    let usual = deviation > 0.0 && deviation.is_finite() && mean.is_finite();
    let landmarks = match scaling {
        Scaling::Quantile if usual && values.len() > 1 => {
            values.sort_by(f64::total_cmp);
            let steps = values.len().min(LANDMARKS) - 1;
            let at = |i: usize| quantile_of_sorted(&values, i as f64 / steps as f64);
            (0..=steps).map(at).collect()
        }
        _ => Vec::new(),
    };
    Prepared::Number {
        name,
        mean: if mean.is_finite() { mean } else { 0.0 },
        deviation: if usual { deviation } else { 1.0 },
        landmarks,
        missing,
    }
}
