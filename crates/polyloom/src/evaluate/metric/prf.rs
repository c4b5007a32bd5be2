//! Precision, recall and F-score from the counts of classes, and their averages.

use crate::evaluate::sum::{Sum, mean};
use crate::evaluate::{EvalError, Result};

/// What is known of a class: weights (counts where nothing is weighted) of its examples.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct ClassCounts {
    /// Examples of the class that were predicted as the class: true positives.
    pub hits: f64,
    /// Examples of the class: true positives and false negatives.
    pub support: f64,
    /// Examples that were predicted as the class: true and false positives.
    pub predicted: f64,
}

/// The value of a ratio whose denominator is 0.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ZeroDivision {
    /// 0, the default.
    #[default]
    Zero,
    /// 1.
    One,
    /// `NaN`; averages leave it out, and are `NaN` where nothing is left.
    Nan,
}

impl ZeroDivision {
    pub(crate) fn divide(self, above: f64, below: f64) -> f64 {
        if below != 0.0 {
            return above / below;
        }
        match self {
            Self::Zero => 0.0,
            Self::One => 1.0,
            Self::Nan => f64::NAN,
        }
    }
}

/// How classes become one number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Average {
    /// Counts are summed over the classes first; every example weighs the same.
    Micro,
    /// The plain mean over the classes.
    Macro,
    /// The mean weighted by support.
    Weighted,
}

/// Precision, recall and F-score, each in [0, 1] or `NaN`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Prf {
    /// hits / predicted.
    pub precision: f64,
    /// hits / support.
    pub recall: f64,
    /// (1 + β²) hits / (β² support + predicted).
    pub f: f64,
}

/// How F-scores are computed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PrfOptions {
    /// How much more recall weighs than precision; at least 0. 0 gives precision and infinity recall.
    pub beta: f64,
    /// The value of 0/0.
    pub zero_division: ZeroDivision,
}

impl Default for PrfOptions {
    fn default() -> Self {
        Self {
            beta: 1.0,
            zero_division: ZeroDivision::Zero,
        }
    }
}

impl PrfOptions {
    pub(crate) fn check(&self) -> Result<()> {
        if self.beta >= 0.0 {
            return Ok(());
        }
        let problem = format!("beta is {}, it must not be below 0", self.beta);
        Err(EvalError::invalid("F-score", problem))
    }

    pub(crate) fn of(&self, class: &ClassCounts) -> Prf {
        let ratio = |above, below| self.zero_division.divide(above, below);
        let precision = ratio(class.hits, class.predicted);
        let recall = ratio(class.hits, class.support);
        let b2 = self.beta * self.beta;
        let f = if b2.is_infinite() {
            recall
        } else {
            ratio(
                (1.0 + b2) * class.hits,
                b2 * class.support + class.predicted,
            )
        };
        Prf {
            precision,
            recall,
            f,
        }
    }
}

/// Precision, recall and F-score of every class, in the given order.
///
/// # Errors
/// No classes, or a `beta` below 0.
pub fn per_class(classes: &[ClassCounts], options: &PrfOptions) -> Result<Vec<Prf>> {
    options.check()?;
    if classes.is_empty() {
        return Err(EvalError::Empty {
            what: "precision, recall and F-score",
        });
    }
    Ok(classes.iter().map(|class| options.of(class)).collect())
}

/// Precision, recall and F-score over classes. The F-score is computed per class and then averaged; it is not the
/// F-score of the averaged precision and recall.
///
/// The support-weighted mean of classes that all have no support is their plain mean.
/// Cost: O(classes). Source: scikit-learn `precision_recall_fscore_support`.
///
/// # Errors
/// No classes, or a `beta` below 0.
pub fn averaged(classes: &[ClassCounts], average: Average, options: &PrfOptions) -> Result<Prf> {
    let each = per_class(classes, options)?;
    if average == Average::Micro {
        let sum = |f: fn(&ClassCounts) -> f64| classes.iter().map(f).collect::<Sum>().total();
        return Ok(options.of(&ClassCounts {
            hits: sum(|c| c.hits),
            support: sum(|c| c.support),
            predicted: sum(|c| c.predicted),
        }));
    }
    let over = |value: fn(&Prf) -> f64| {
        let known = || {
            let pairs = each.iter().map(value).zip(classes);
            pairs.filter(|(x, _)| !x.is_nan())
        };
        let weight: Sum = known().map(|(_, c)| c.support).collect();
        if average == Average::Macro || weight.total() == 0.0 {
            return mean(known().map(|(x, _)| x));
        }
        let sum: Sum = known().map(|(x, c)| x * c.support).collect();
        sum.total() / weight.total()
    };
    Ok(Prf {
        precision: over(|p| p.precision),
        recall: over(|p| p.recall),
        f: over(|p| p.f),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLASSES: [ClassCounts; 3] = [
        ClassCounts {
            hits: 1.0,
            support: 2.0,
            predicted: 4.0,
        },
        ClassCounts {
            hits: 3.0,
            support: 6.0,
            predicted: 4.0,
        },
        ClassCounts {
            hits: 0.0,
            support: 0.0,
            predicted: 0.0,
        },
    ];

    #[test]
    fn averages_by_hand() {
        let options = PrfOptions::default();
        let each = per_class(&CLASSES, &options).unwrap();
        assert_eq!((each[0].precision, each[0].recall), (0.25, 0.5));
        assert_eq!((each[0].f, each[1].f, each[2].f), (1.0 / 3.0, 0.6, 0.0));
        let micro = averaged(&CLASSES, Average::Micro, &options).unwrap();
        assert_eq!((micro.precision, micro.recall, micro.f), (0.5, 0.5, 0.5));
        let weighted = averaged(&CLASSES, Average::Weighted, &options).unwrap();
        assert_eq!(weighted.precision, (0.25 * 2.0 + 0.75 * 6.0) / 8.0);
    }

    #[test]
    fn zero_over_zero() {
        let f = |zero_division| {
            let options = PrfOptions {
                zero_division,
                ..Default::default()
            };
            averaged(&CLASSES[1..], Average::Macro, &options).unwrap().f
        };
        assert_eq!(f(ZeroDivision::Zero), 0.3);
        assert_eq!(f(ZeroDivision::One), 0.8);
        assert_eq!(f(ZeroDivision::Nan), 0.6);
    }

    #[test]
    fn beta_runs_from_precision_to_recall() {
        let f = |beta| {
            let options = PrfOptions {
                beta,
                ..Default::default()
            };
            per_class(&CLASSES, &options).map(|each| each[0].f)
        };
        assert_eq!((f(0.0).unwrap(), f(f64::INFINITY).unwrap()), (0.25, 0.5));
        assert!(f(-1.0).is_err() && f(f64::NAN).is_err());
        assert!(per_class(&[], &PrfOptions::default()).is_err());
    }
}
