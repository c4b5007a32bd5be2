//! Tables as a model takes them: numbers scaled, words as codes, fitted on training rows alone and kept with the model.

mod fitting;
mod groups;
mod history;
mod modalities;
mod places;
mod rows;
mod sessions;
mod texts;
mod vectors;

use std::path::Path;

use polyloom::MergeError;
use polyloom::evaluate::board::score::examples::{Column, ColumnKind};
use serde::{Deserialize, Serialize};

pub use fitting::{Fitting, Scaling, Settings};
use groups::Finder;
pub use groups::Groups;
pub use history::History;
pub use places::Place;
use rows::Codes;
pub(crate) use rows::EDGE;
pub use rows::RowReader;
pub use sessions::{Items, Sessions, Visit};
pub use vectors::{Encoder, Encodes};

use crate::error::{Error, Result};
use crate::models::table::Before;

/// Name of the file that says how rows are prepared.
pub const TABLE: &str = "table.json";

/// A column as it is prepared.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub enum Prepared {
    /// Numbers: `(x - mean) / deviation`; what is missing is 0.
    Number {
        /// Name in the file.
        name: String,
        /// Mean of the training rows that have one.
        mean: f64,
        /// Their deviation; 1 for a constant.
        deviation: f64,
        /// Quantiles of the training rows at even steps, ascending: their rank is taken in place of the above. Empty for none.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        landmarks: Vec<f64>,
        /// Training rows lacked it, or it is of a modality: one more number, 0 or 1, says where it is missing.
        missing: bool,
    },
    /// Words: the place in the list plus 1; everything else has code 0. `null` stands for rows without a word.
    Words {
        /// Name in the file.
        name: String,
        /// Words, the most frequent first.
        words: Vec<Option<String>>,
        /// It is of a modality: a number, 0 or 1, says where it is missing.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        missing: bool,
    },
    /// Running text: its words are hashed to places, a number each (Weinberger et al. 2009); what is missing is zeros.
    Text {
        /// Name in the file.
        name: String,
        /// Weights of the places.
        weights: Vec<f32>,
        /// It is of a modality: one more number, 0 or 1, says where it is missing.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        missing: bool,
    },
    /// Running text: the vector that the preparation's [`Encoder`] gives it; what is missing is zeros.
    Vector {
        /// Name in the file.
        name: String,
        /// Numbers of the vector.
        width: usize,
        /// It is of a modality: one more number, 0 or 1, says where it is missing.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        missing: bool,
    },
}

impl Prepared {
    /// Name in the file.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Number { name, .. }
            | Self::Words { name, .. }
            | Self::Text { name, .. }
            | Self::Vector { name, .. } => name,
        }
    }

    /// What a file has in it.
    #[must_use]
    pub fn kind(&self) -> ColumnKind {
        match self {
            Self::Number { .. } => ColumnKind::Number,
            Self::Words { .. } => ColumnKind::Word,
            Self::Text { .. } | Self::Vector { .. } => ColumnKind::Text,
        }
    }

    /// Whether a file may be without it: training rows lacked it, or it is of a modality.
    fn may_lack(&self) -> bool {
        match self {
            Self::Words { words, missing, .. } => *missing || words.contains(&None),
            Self::Number { .. } | Self::Text { .. } | Self::Vector { .. } => self.is_marked(),
        }
    }

    /// Whether a number says where it is missing.
    pub(crate) fn is_marked(&self) -> bool {
        match self {
            Self::Number { missing, .. }
            | Self::Words { missing, .. }
            | Self::Text { missing, .. }
            | Self::Vector { missing, .. } => *missing,
        }
    }

    /// Numbers of a row that come from it, without the mark.
    fn numbers(&self) -> usize {
        match self {
            Self::Number { .. } => 1,
            Self::Words { .. } => 0,
            Self::Text { weights, .. } => weights.len(),
            Self::Vector { width, .. } => *width,
        }
    }
}

/// How rows are prepared.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Preparation {
    /// Version of the file.
    version: u32,
    /// Scaled numbers are cut to plus and minus this.
    clip: f32,
    /// Columns, in the order of the file.
    columns: Vec<Prepared>,
    /// Groups that have goals of their own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    groups: Option<Groups>,
    /// What makes vectors of running text, where columns are such.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    encoder: Option<Encoder>,
    /// Where rows are of sessions: their columns, and the items of training rows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sessions: Option<Sessions>,
    /// Where rows are shown what was before them: the columns of the log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    history: Option<History>,
}

/// A row as a model takes it.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Row {
    /// Scaled numbers, then those of texts, then a 0 or 1 for every column that has a mark of what is missing.
    pub numbers: Vec<f32>,
    /// Codes of words, a field after the other.
    pub codes: Vec<u32>,
    /// Where groups have goals of their own the place of its group; `None` for one that training did not have.
    pub group: Option<u32>,
    /// What was before it in its session, where the model reads that.
    pub before: Option<Before>,
}

impl Preparation {
    /// The columns.
    #[must_use]
    pub fn columns(&self) -> &[Prepared] {
        &self.columns
    }

    /// What scaled numbers are cut to, above and below 0.
    #[must_use]
    pub(crate) fn clip(&self) -> f32 {
        self.clip
    }

    /// What makes vectors of running text, where columns are such.
    #[must_use]
    pub fn encoder(&self) -> Option<&Encoder> {
        self.encoder.as_ref()
    }

    /// The groups that have goals of their own, where groups have.
    #[must_use]
    pub fn groups(&self) -> Option<&Groups> {
        self.groups.as_ref()
    }

    /// The columns as a file of rows is read, that of the groups at the end.
    #[must_use]
    pub fn asked(&self) -> Vec<Column> {
        let one = |c: &Prepared| Column {
            name: c.name().to_owned(),
            kind: c.kind(),
        };
        let group = self.groups.iter().map(|g| Column {
            name: g.column.clone(),
            kind: ColumnKind::Word,
        });
        self.columns.iter().map(one).chain(group).collect()
    }

    /// Numbers of a row.
    #[must_use]
    pub fn numeric(&self) -> usize {
        let of = |c: &Prepared| c.numbers() + usize::from(c.is_marked());
        self.columns.iter().map(of).sum()
    }

    /// Names of the numbers of a row, and of its fields of words.
    #[must_use]
    pub fn names(&self) -> (Vec<String>, Vec<String>) {
        let (mut numbers, mut absent, mut words) = (Vec::new(), Vec::new(), Vec::new());
        let mut texts = Vec::new();
        for column in &self.columns {
            if column.is_marked() {
                absent.push(format!("{} is missing", column.name()));
            }
            match column {
                Prepared::Number { name, .. } => numbers.push(name.clone()),
                Prepared::Words { name, .. } => words.push(name.clone()),
                Prepared::Text { name, weights, .. } => {
                    texts.extend((0..weights.len()).map(|at| format!("{name}, place {at}")));
                }
                Prepared::Vector { name, width, .. } => {
                    texts.extend((0..*width).map(|at| format!("{name}, direction {at}")));
                }
            }
        }
        numbers.append(&mut texts);
        numbers.append(&mut absent);
        (numbers, words)
    }

    /// Codes of every field of words, that for everything else among them.
    #[must_use]
    pub fn categories(&self) -> Vec<usize> {
        let of = |c: &Prepared| match c {
            Prepared::Words { words, .. } => Some(words.len() + 1),
            _ => None,
        };
        self.columns.iter().filter_map(of).collect()
    }

    /// What makes rows of a table with these columns.
    ///
    /// # Errors
    /// A column that is not there though every training row had it, or that holds words in place of numbers or the other
    /// way round.
    pub fn reader(&self, columns: &[Column]) -> Result<RowReader<'_>> {
        let mut places = Vec::with_capacity(self.columns.len());
        for own in &self.columns {
            let at = columns.iter().position(|c| c.name == own.name());
            match at {
                None if !own.may_lack() => {
                    let names: Vec<&str> = columns.iter().map(|c| &*c.name).collect();
                    let what = format!(
                        "the model reads a column `{}`, which is not there",
                        own.name()
                    );
                    return Err(MergeError::plan("bad-table", what)
                        .hint(format!("columns: {}", names.join(", ")))
                        .into());
                }
                Some(at) if columns[at].kind != own.kind() => {
                    let what = format!(
                        "column `{}` holds {}; the model learned it as {}",
                        own.name(),
                        columns[at].kind.plural(),
                        own.kind().plural()
                    );
                    return Err(MergeError::plan("bad-table", what).into());
                }
                at => places.push(at),
            }
        }
        Ok(RowReader {
            preparation: self,
            numbers: self.numeric(),
            places,
            codes: self.columns.iter().map(Codes::of).collect(),
            finder: self
                .groups
                .as_ref()
                .map(|g| Finder::new(g, columns))
                .transpose()?,
        })
    }

    /// Reads the file of a model.
    ///
    /// # Errors
    /// A file that is not there or is none of these.
    pub fn read(folder: &Path) -> Result<Self> {
        let file = folder.join(TABLE);
        if !file.exists() {
            return Err(Error::file(folder, format!("holds no {TABLE}"))
                .hint("`polyloom train` writes it beside the weights of a model of tables"));
        }
        let json = polyloom_core::checkpoint::read_json(&file)?;
        let found: Self =
            serde_json::from_value(json).map_err(|e| Error::file(&file, e.to_string()))?;
        let bad = |what: String| Err(Error::file(&file, what));
        if found.version != 1 {
            return bad(format!(
                "is of version {}; this program knows 1",
                found.version
            ));
        }
        if !(found.clip > 0.0 && found.clip.is_finite()) {
            return bad(format!("has the clip {}; above 0", found.clip));
        }
        let mut names: Vec<&str> = found.columns.iter().map(Prepared::name).collect();
        names.extend(found.groups.iter().map(|g| &*g.column));
        names.sort_unstable();
        if let Some(fault) = found.groups.as_ref().and_then(Groups::fault) {
            return bad(fault.to_owned());
        }
        let width = found.encoder.as_ref().map(|e| e.width);
        for column in &found.columns {
            if let Prepared::Vector {
                name, width: own, ..
            } = column
                && !((1..=vectors::MOST).contains(own) && width == Some(*own))
            {
                return bad(format!(
                    "column `{name}` has vectors of {own} numbers, which no encoder of the file makes"
                ));
            }
        }
        let (numeric, categories) = (found.numeric(), found.categories());
        let sessions = found.sessions.as_ref();
        let fault = sessions.and_then(|s| s.fault(numeric, &categories));
        if let Some(fault) = fault.or_else(|| found.history_fault()) {
            return bad(format!("has {fault}"));
        }
        if let Some(twice) = names.windows(2).find(|w| w[0] == w[1]) {
            return bad(format!("has the column `{}` twice", twice[0]));
        }
        for column in &found.columns {
            if let Prepared::Text { name, weights, .. } = column
                && !((1..=texts::MOST).contains(&weights.len())
                    && weights.iter().all(|w| (1.0..50.0).contains(w)))
            {
                return bad(format!("column `{name}` has weights outside of 1 to 50"));
            }
            if let Prepared::Number {
                name,
                mean,
                deviation,
                landmarks,
                ..
            } = column
                && !(mean.is_finite()
                    && deviation.is_finite()
                    && *deviation > 0.0
                    && landmarks.is_sorted()
                    && landmarks.iter().all(|l| l.abs() <= f64::from(f32::MAX)))
            {
                return bad(format!(
                    "column `{name}` has mean {mean}, deviation {deviation}, or landmarks that do not ascend or are beyond 32 bits"
                ));
            }
        }
        Ok(found)
    }

    /// The bytes of its file.
    ///
    /// # Errors
    /// Never in practice: finite numbers and texts.
    pub fn text(&self) -> Result<String> {
        let text = serde_json::to_string_pretty(self).map_err(|e| Error::Config {
            what: format!("{TABLE}: {e}"),
        })?;
        Ok(text + "\n")
    }
}

#[cfg(test)]
mod tests;
