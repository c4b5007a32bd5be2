//! How far trees grow.

use serde::{Deserialize, Serialize};

use super::data::wrong;
use crate::error::Result;

/// How far trees grow.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Growth {
    /// Most tests between the root and a leaf; 0: no bound.
    pub max_depth: usize,
    /// Most leaves; 0: no bound.
    pub max_leaves: usize,
    /// Least rows of a leaf.
    pub min_rows: usize,
    /// Least sum of second derivatives of a leaf (over the outputs), at least 0.
    pub min_hessian: f64,
    /// Added to the sum of second derivatives in leaves and gains, at least 0.
    pub l2: f64,
    /// A split has to gain more than this, at least 0.
    pub min_gain: f64,
    /// Added to the second derivatives of a category where categories are ordered by their mean gradient, at least 0.
    pub category_smoothing: f64,
}

impl Default for Growth {
    /// The defaults of scikit-learn's histogram trees, but for `l2`, which is XGBoost's.
    fn default() -> Self {
        Self {
            max_depth: 0,
            max_leaves: 31,
            min_rows: 20,
            min_hessian: 1e-3,
            l2: 1.0,
            min_gain: 0.0,
            category_smoothing: 10.0,
        }
    }
}

impl Growth {
    /// One test and two leaves, each the mean of its rows.
    #[must_use]
    pub fn stump() -> Self {
        Self {
            max_leaves: 2,
            ..Self::means(1)
        }
    }

    /// Trees of a depth whose leaves are means of their rows.
    #[must_use]
    pub fn means(max_depth: usize) -> Self {
        Self {
            max_depth,
            max_leaves: 0,
            min_rows: 1,
            min_hessian: 0.0,
            l2: 0.0,
            min_gain: 0.0,
            category_smoothing: 0.0,
        }
    }

    /// Whether all numbers are in range.
    ///
    /// # Errors
    /// The first that is not.
    pub fn check(&self) -> Result<()> {
        for (name, value) in [
            ("min_hessian", self.min_hessian),
            ("l2", self.l2),
            ("min_gain", self.min_gain),
            ("category_smoothing", self.category_smoothing),
        ] {
            if !(value >= 0.0 && value.is_finite()) {
                return Err(wrong(format!(
                    "`{name}` is {value}; it has to be at least 0"
                )));
            }
        }
        match self.max_leaves {
            1 => Err(wrong(
                "`max_leaves` is 1; it has to be 0 (no bound) or at least 2",
            )),
            _ => Ok(()),
        }
    }
}
