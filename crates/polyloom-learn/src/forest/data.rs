//! Tables and targets as trees read them.

use crate::error::{Error, Result};

/// A code of a category that is not known.
pub const UNKNOWN: u32 = u32::MAX;

/// Most categories of a column.
pub const MAX_CATEGORIES: u32 = 1 << 24;

/// Most classes of a target.
pub const MAX_CLASSES: usize = 4096;

/// Largest label, by magnitude.
pub const MAX_LABEL: f64 = 1e100;

/// Largest weight of a row.
pub const MAX_WEIGHT: f32 = 1e12;

/// Values of a column, one for each row.
#[derive(Debug, Clone, PartialEq)]
pub enum Values {
    /// Numbers; `NaN` is missing, infinities are the smallest and the largest value.
    Number(Vec<f32>),
    /// Categories.
    Category {
        /// Codes below `cardinality`; [`UNKNOWN`] and whatever else is not below it is missing.
        codes: Vec<u32>,
        /// How many categories there are, at most [`MAX_CATEGORIES`].
        cardinality: u32,
    },
}

impl Values {
    /// Rows.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Number(x) => x.len(),
            Self::Category { codes, .. } => codes.len(),
        }
    }

    /// Whether there are no rows.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A column with its name.
#[derive(Debug, Clone, PartialEq)]
pub struct Column {
    /// Its name, for messages and for the file.
    pub name: String,
    /// Its values.
    pub values: Values,
}

/// Features of rows, column by column.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Table {
    /// Rows.
    pub rows: usize,
    /// Columns, each of as many values as there are rows.
    pub columns: Vec<Column>,
    /// A weight for each row, from 0 to [`MAX_WEIGHT`]; without them all weigh 1.
    pub weights: Option<Vec<f32>>,
}

impl Table {
    /// Whether all lengths fit together.
    ///
    /// # Errors
    /// Columns or weights of another length, too many categories, weights out of range, more rows than 32 bits count.
    pub fn check(&self) -> Result<()> {
        if self.rows >= u32::MAX as usize {
            return Err(wrong(format!("{} rows; at most 2^32 - 2", self.rows)));
        }
        for column in &self.columns {
            let (name, n) = (&column.name, column.values.len());
            if let Values::Category { cardinality, .. } = &column.values
                && *cardinality > MAX_CATEGORIES
            {
                return Err(wrong(format!(
                    "column `{name}` has {cardinality} categories; at most {MAX_CATEGORIES}"
                )));
            }
            if n != self.rows {
                return Err(wrong(format!(
                    "column `{name}` has {n} values for {} rows",
                    self.rows
                )));
            }
        }
        let Some(weights) = &self.weights else {
            return Ok(());
        };
        if weights.len() != self.rows {
            return Err(wrong(format!(
                "{} weights for {} rows",
                weights.len(),
                self.rows
            )));
        }
        in_range(weights)
    }

    pub(super) fn weight(&self, row: usize) -> f32 {
        self.weights.as_ref().map_or(1.0, |w| w[row])
    }
}

fn in_range(weights: &[f32]) -> Result<()> {
    match weights.iter().position(|w| !(0.0..=MAX_WEIGHT).contains(w)) {
        Some(row) => Err(wrong(format!(
            "row {row} has the weight {}; weights are from 0 to {MAX_WEIGHT:e}",
            weights[row]
        ))),
        None => Ok(()),
    }
}

/// What is right for each row.
#[derive(Debug, Clone, PartialEq)]
pub enum Labels {
    /// Numbers of at most [`MAX_LABEL`]; `NaN` is missing.
    Regression(Vec<f64>),
    /// Classes.
    Classification {
        /// How many classes there are, from 1 to [`MAX_CLASSES`].
        classes: usize,
        /// Classes below `classes`; [`UNKNOWN`] is missing.
        labels: Vec<u32>,
    },
}

/// Something to predict.
#[derive(Debug, Clone, PartialEq)]
pub struct Target {
    /// Its name, for messages and for the file.
    pub name: String,
    /// What is right.
    pub labels: Labels,
    /// A weight for each label, from 0 to [`MAX_WEIGHT`], times that of its row; without them 1.
    pub weights: Option<Vec<f32>>,
}

impl Target {
    /// Rows, with a label or without.
    #[must_use]
    pub fn len(&self) -> usize {
        match &self.labels {
            Labels::Regression(y) => y.len(),
            Labels::Classification { labels, .. } => labels.len(),
        }
    }

    /// Whether there are no rows.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The label of a row as a number; `None` where it is missing.
    pub(super) fn label(&self, row: usize) -> Option<f64> {
        match &self.labels {
            Labels::Regression(y) => Some(y[row]).filter(|y| !y.is_nan()),
            Labels::Classification { labels, .. } => {
                Some(labels[row]).filter(|y| *y != UNKNOWN).map(f64::from)
            }
        }
    }

    /// Classes; 0 of a number.
    #[must_use]
    pub fn classes(&self) -> usize {
        match &self.labels {
            Labels::Regression(_) => 0,
            Labels::Classification { classes, .. } => *classes,
        }
    }

    fn check(&self, rows: usize) -> Result<()> {
        let (name, n) = (&self.name, self.len());
        if n != rows {
            return Err(wrong(format!(
                "target `{name}` has {n} labels for {rows} rows"
            )));
        }
        if let Some(weights) = &self.weights {
            if weights.len() != rows {
                return Err(wrong(format!(
                    "target `{name}` has {} weights for {rows} rows",
                    weights.len()
                )));
            }
            in_range(weights)?;
        }
        match &self.labels {
            Labels::Regression(y) => match y.iter().position(|y| y.abs() > MAX_LABEL) {
                Some(row) => Err(wrong(format!(
                    "target `{name}`: the label of row {row} is {:e}; labels are at most {MAX_LABEL:e}",
                    y[row]
                ))),
                None => Ok(()),
            },
            Labels::Classification { classes, labels } => {
                if !(1..=MAX_CLASSES).contains(classes) {
                    return Err(wrong(format!(
                        "target `{name}` has {classes} classes; 1 to {MAX_CLASSES} are possible"
                    )));
                }
                let out = |y: &u32| *y != UNKNOWN && *y as usize >= *classes;
                match labels.iter().position(out) {
                    Some(row) => Err(wrong(format!(
                        "target `{name}`: row {row} is of class {}; there are {classes}",
                        labels[row]
                    ))),
                    None => Ok(()),
                }
            }
        }
    }
}

/// Rows with what is right for them.
#[derive(Debug, Clone, Copy)]
pub struct Sample<'a> {
    /// Features.
    pub table: &'a Table,
    /// Targets, each of as many labels as there are rows.
    pub targets: &'a [Target],
}

impl Sample<'_> {
    /// Whether rows or labels have weights.
    pub(super) fn is_weighed(&self) -> bool {
        self.table.weights.is_some() || self.targets.iter().any(|t| t.weights.is_some())
    }

    /// What the label of a row counts: the weight of the row times that of the label.
    pub(super) fn weight(&self, target: &Target, row: usize) -> f64 {
        let own = target.weights.as_ref().map_or(1.0, |w| f64::from(w[row]));
        f64::from(self.table.weight(row)) * own
    }

    /// Whether all lengths fit together and every label is one.
    ///
    /// # Errors
    /// What [`Table::check`] refuses, targets of another length, labels that are out of range.
    pub fn check(&self) -> Result<()> {
        self.table.check()?;
        self.targets
            .iter()
            .try_for_each(|t| t.check(self.table.rows))
    }
}

/// An error of this family.
pub(super) fn wrong(problem: impl Into<String>) -> Error {
    Error::shape("forest", problem)
}
