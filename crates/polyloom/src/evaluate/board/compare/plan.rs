//! Power before the run: how many examples show a difference, and what a given number would show.

use super::internal;
use crate::error::{MergeError, Result};
use crate::evaluate::statistics::power::{examples_needed, minimum_detectable, power};

/// A question about an evaluation that has not been run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Question {
    /// The difference to be shown, not 0.
    pub difference: f64,
    /// Level of the test, two-sided.
    pub alpha: f64,
    /// Chance of showing it.
    pub power: f64,
    /// Comparisons that share the level (Bonferroni; Holm needs no more).
    pub comparisons: u64,
    /// Examples at hand, if their number is known.
    pub examples: Option<u64>,
}

/// The answer for one spread of the differences.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Answer {
    /// Share of examples that exactly one system gets right; `None` for scores.
    pub disagree: Option<f64>,
    /// Standard deviation of the differences, example by example.
    pub deviation: f64,
    /// Examples needed.
    pub needed: u64,
    /// With the examples at hand: the chance of showing the difference, and the least difference that shows.
    pub at_hand: Option<(f64, f64)>,
}

impl Question {
    fn check(&self) -> Result<()> {
        let inside = |x: f64| x > 0.0 && x < 1.0;
        let bad = |what: &str| Err(MergeError::plan("bad-plan", what));
        if !(self.difference.is_finite() && self.difference != 0.0) {
            return bad("the difference must be a number other than 0");
        }
        if !inside(self.alpha) || !inside(self.power) {
            return bad("level and power must lie between 0 and 1");
        }
        if self.comparisons == 0 || self.examples == Some(0) {
            return bad("comparisons and examples must be at least 1");
        }
        Ok(())
    }

    /// The answer for scores whose differences have this standard deviation.
    ///
    /// # Errors
    /// A question out of range, or a deviation that is not above 0.
    pub fn for_scores(&self, deviation: f64) -> Result<Answer> {
        self.check()?;
        if !(deviation.is_finite() && deviation > 0.0) {
            let what = "the standard deviation of the differences must be above 0";
            return Err(MergeError::plan("bad-plan", what));
        }
        let alpha = self.alpha / self.comparisons as f64;
        let needed = examples_needed(deviation, self.difference, alpha, self.power);
        let at_hand = self.examples.map(|n| {
            let chance = power(deviation, self.difference, n, alpha)?;
            Ok((chance, minimum_detectable(deviation, n, alpha, self.power)?))
        });
        Ok(Answer {
            disagree: None,
            deviation,
            needed: needed.map_err(internal)?,
            at_hand: at_hand.transpose().map_err(internal)?,
        })
    }

    /// The answer for right and wrong answers where exactly one of the systems is right on this share of the examples:
    /// the differences are -1, 0 and 1, so their variance is `disagree - difference^2`.
    ///
    /// # Errors
    /// A question out of range, or a share below the difference or above 1.
    pub fn for_answers(&self, disagree: f64) -> Result<Answer> {
        self.check()?;
        let least = self.difference.abs();
        if !(disagree > least && disagree <= 1.0) {
            let what = format!(
                "systems that differ by {least} disagree on more than that share of the examples, and on at most all; {disagree} is impossible"
            );
            return Err(MergeError::plan("bad-plan", what));
        }
        let deviation = (disagree - least * least).sqrt();
        Ok(Answer {
            disagree: Some(disagree),
            ..self.for_scores(deviation)?
        })
    }
}

/// Share of examples that exactly one of two systems gets right, if their mistakes were independent: the most pessimistic
/// guess that is still sane, as related systems share most of their mistakes.
#[must_use]
pub fn independent(baseline: f64, difference: f64) -> f64 {
    let other = baseline + difference;
    baseline * (1.0 - other) + other * (1.0 - baseline)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question() -> Question {
        Question {
            difference: 0.03,
            alpha: 0.05,
            power: 0.8,
            comparisons: 1,
            examples: Some(1000),
        }
    }

    #[test]
    fn the_example_of_the_page_on_differences() {
        // Disagreement of one in four: a thousand examples show 4.4 points.
        let answer = question().for_answers(0.25).unwrap();
        assert!((answer.deviation - (0.25f64 - 0.0009).sqrt()).abs() < 1e-15);
        assert_eq!(answer.needed, 2173);
        let (chance, least) = answer.at_hand.unwrap();
        assert!((least - 2.801_585 * answer.deviation / 1000f64.sqrt()).abs() < 1e-6);
        assert!((chance - 0.475).abs() < 0.01, "{chance}");
        assert!((independent(0.8, 0.02) - (0.8 * 0.18 + 0.82 * 0.2)).abs() < 1e-15);
    }

    #[test]
    fn more_comparisons_need_more_examples() {
        let many = Question {
            comparisons: 10,
            ..question()
        };
        let (one, ten) = (question().for_scores(0.5), many.for_scores(0.5));
        assert!(ten.unwrap().needed > one.unwrap().needed);
    }

    #[test]
    fn impossible_questions_are_refused() {
        assert!(question().for_answers(0.02).is_err() && question().for_answers(1.1).is_err());
        assert!(question().for_scores(0.0).is_err());
        for bad in [
            Question {
                difference: 0.0,
                ..question()
            },
            Question {
                alpha: 1.0,
                ..question()
            },
            Question {
                power: 0.0,
                ..question()
            },
            Question {
                comparisons: 0,
                ..question()
            },
            Question {
                examples: Some(0),
                ..question()
            },
        ] {
            assert!(bad.for_scores(0.5).is_err());
        }
    }
}
