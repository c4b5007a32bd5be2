//! Answer choices scored by the likelihood of their text, as lm-evaluation-harness and BIG-bench do.
//!
//! Scores of choices as texts ("cloze") and of their letters ("symbol") come from different prompts; never pool them.

use crate::evaluate::error::same_length;
use crate::evaluate::sum::sum;
use crate::evaluate::{EvalError, Result};

const WHAT: &str = "multiple choice";

/// The choices of one question.
#[derive(Debug, Clone, Copy, Default)]
pub struct Choices<'a> {
    /// Texts of the choices, without the delimiter between the question and them.
    pub texts: &'a [&'a str],
    /// Natural logarithm of the likelihood of each text after the question; −∞ is allowed.
    pub loglik: &'a [f64],
    /// The same after a premise that does not hold the question: nothing in lm-evaluation-harness, a phrase of the domain
    /// in "Surface Form Competition" (Holtzman et al. 2021).
    pub unconditional: Option<&'a [f64]>,
    /// Tokens of each text.
    pub tokens: Option<&'a [usize]>,
}

/// Which choice each way of scoring prefers, the first of equals.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Preferred {
    /// The largest likelihood (`acc`).
    pub raw: usize,
    /// The largest logarithm per character, that is, Unicode scalar value (`acc_norm`).
    pub per_char: usize,
    /// Per byte of UTF-8 (`acc_bytes`).
    pub per_byte: usize,
    /// Per token (`acc_token`), where tokens are known; depends on the tokenizer, so not comparable between models.
    pub per_token: Option<usize>,
    /// The largest gain over the premise, PMI_DC (`acc_mutual_info`), where that is known.
    pub mutual: Option<usize>,
}

fn first_largest(values: impl Iterator<Item = f64>) -> usize {
    let mut best = (0, f64::NEG_INFINITY);
    for (i, x) in values.enumerate() {
        if i == 0 || x > best.1 {
            best = (i, x);
        }
    }
    best.0
}

fn refuse_nan(values: &[f64]) -> Result<()> {
    match values
        .iter()
        .position(|x| x.is_nan() || *x == f64::INFINITY)
    {
        Some(i) => Err(EvalError::invalid(
            WHAT,
            format!("a log-likelihood of {} for choice {i}", values[i]),
        )),
        None => Ok(()),
    }
}

/// Which choices are preferred. A choice of length 0 is never preferred per length, nor one whose gain is −∞ less −∞.
///
/// # Errors
/// No choices, lists of different lengths, a log-likelihood that is NaN or +∞.
pub fn preferred(choices: &Choices<'_>) -> Result<Preferred> {
    let loglik = choices.loglik;
    same_length(WHAT, loglik.len(), choices.texts.len())?;
    refuse_nan(loglik)?;
    let per = |length: &dyn Fn(usize) -> usize| {
        first_largest(loglik.iter().enumerate().map(|(i, l)| match length(i) {
            0 => f64::NEG_INFINITY,
            n => l / n as f64,
        }))
    };
    let per_token = match choices.tokens {
        Some(tokens) => {
            same_length(WHAT, loglik.len(), tokens.len())?;
            Some(per(&|i| tokens[i]))
        }
        None => None,
    };
    let mutual = match choices.unconditional {
        Some(premise) => {
            same_length(WHAT, loglik.len(), premise.len())?;
            refuse_nan(premise)?;
            let gains = loglik.iter().zip(premise).map(|(l, p)| l - p);
            Some(first_largest(
                gains.map(|g| if g.is_nan() { f64::NEG_INFINITY } else { g }),
            ))
        }
        None => None,
    };
    Ok(Preferred {
        raw: first_largest(loglik.iter().copied()),
        per_char: per(&|i| choices.texts[i].chars().count()),
        per_byte: per(&|i| choices.texts[i].len()),
        per_token,
        mutual,
    })
}

/// Is the preferred choice a right one? 1 or 0.
///
/// # Errors
/// No right choice, or one that does not exist: that row is wrong, not the answer (lm-evaluation-harness scores it 0).
pub fn is_right(preferred: usize, gold: &[usize], choices: usize) -> Result<f64> {
    check_gold(gold, choices)?;
    Ok(f64::from(u8::from(gold.contains(&preferred))))
}

/// 1 where a right choice is what greedy decoding would have said (`exact_match` of choices), else 0.
///
/// # Errors
/// As [`is_right`].
pub fn greedy_match(is_greedy: &[bool], gold: &[usize]) -> Result<f64> {
    check_gold(gold, is_greedy.len())?;
    Ok(f64::from(u8::from(gold.iter().any(|&i| is_greedy[i]))))
}

fn check_gold(gold: &[usize], choices: usize) -> Result<()> {
    if gold.is_empty() {
        return Err(EvalError::invalid(WHAT, "no right choice"));
    }
    match gold.iter().find(|&&i| i >= choices) {
        Some(i) => Err(EvalError::invalid(
            WHAT,
            format!("choice {i} is given as right, of {choices} choices"),
        )),
        None => Ok(()),
    }
}

/// Probabilities of the choices, if one of them is said: likelihoods divided by their sum. `NaN` where all are 0.
///
/// # Errors
/// No choices, a log-likelihood that is NaN or +∞.
pub fn softmax(loglik: &[f64]) -> Result<Vec<f64>> {
    same_length(WHAT, loglik.len(), loglik.len())?;
    refuse_nan(loglik)?;
    let most = loglik.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let shares: Vec<f64> = loglik.iter().map(|l| (l - most).exp()).collect();
    let total = sum(shares.iter().copied());
    Ok(shares.into_iter().map(|s| s / total).collect())
}

/// Brier score of one question with one right choice: squared distance of [`softmax`] from certainty, 0 to 2, summed over
/// the choices as in lm-evaluation-harness.
///
/// # Errors
/// As [`softmax`] and [`is_right`].
pub fn brier(loglik: &[f64], gold: usize) -> Result<f64> {
    check_gold(&[gold], loglik.len())?;
    let p = softmax(loglik)?;
    let certain = |i| f64::from(u8::from(i == gold));
    Ok(sum(p
        .iter()
        .enumerate()
        .map(|(i, p)| (p - certain(i)).powi(2))))
}

/// One question whose choices have scores of their own (`target_scores` of BIG-bench).
#[derive(Debug, Clone, PartialEq)]
pub struct Graded {
    /// [`softmax`] of the choices.
    pub probabilities: Vec<f64>,
    /// Score of the most likely choice, the mean over equals (`multiple_choice_grade`).
    pub grade: f64,
    /// Mean squared distance of the probabilities from 1 for the choices with the highest score and 0 for the others.
    pub calibration_brier: f64,
    /// Expected score of a choice drawn by its probability.
    pub expected: f64,
}

/// Grades a question.
///
/// # Errors
/// As [`softmax`]; scores of a different number or not finite.
pub fn graded(loglik: &[f64], scores: &[f64]) -> Result<Graded> {
    same_length(WHAT, loglik.len(), scores.len())?;
    if let Some(i) = scores.iter().position(|s| !s.is_finite()) {
        let problem = format!("a score of {} for choice {i}", scores[i]);
        return Err(EvalError::invalid(WHAT, problem));
    }
    let probabilities = softmax(loglik)?;
    let most = loglik.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let best = loglik.iter().zip(scores).filter(|(l, _)| **l == most);
    let highest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let pairs = || probabilities.iter().zip(scores);
    let off = |p: f64, score: f64| p - f64::from(u8::from(score == highest));
    Ok(Graded {
        grade: crate::evaluate::sum::mean(best.map(|(_, s)| *s)),
        calibration_brier: sum(pairs().map(|(p, s)| off(*p, *s).powi(2))) / scores.len() as f64,
        expected: sum(pairs().map(|(p, s)| p * s)),
        probabilities,
    })
}

/// Normalised preferred score of BIG-bench: 0 for the task's own low (chance), 100 for its own high.
///
/// # Errors
/// Low and high are equal or not finite, or the score is NaN.
pub fn normalised_preferred(raw: f64, low: f64, high: f64) -> Result<f64> {
    if raw.is_nan() || !low.is_finite() || !high.is_finite() || low == high {
        let problem = format!("{raw} between {low} and {high}");
        return Err(EvalError::invalid("normalised preferred score", problem));
    }
    Ok(100.0 * (raw - low) / (high - low))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_length_has_its_own_winner() {
        let choices = Choices {
            texts: &["ab", "東京", "abcdef"],
            loglik: &[-2.0, -2.4, -9.0],
            unconditional: Some(&[-1.0, -2.0, -9.5]),
            tokens: Some(&[1, 1, 9]),
        };
        let found = preferred(&choices).unwrap();
        assert_eq!((found.raw, found.per_char, found.per_byte), (0, 0, 1));
        assert_eq!((found.per_token, found.mutual), (Some(2), Some(2)));
    }

    #[test]
    fn edges() {
        let all_lost = Choices {
            texts: &["", "a"],
            loglik: &[f64::NEG_INFINITY; 2],
            ..Choices::default()
        };
        assert_eq!(preferred(&all_lost).unwrap().per_char, 0);
        assert!(softmax(&[f64::NEG_INFINITY; 2]).unwrap()[0].is_nan());
        assert!(softmax(&[]).is_err());
        assert!(softmax(&[f64::NAN]).is_err());
        assert!(is_right(0, &[2], 2).is_err());
        assert!(is_right(0, &[], 2).is_err());
        assert_eq!(is_right(1, &[0, 1], 2), Ok(1.0));
        assert_eq!(greedy_match(&[true, false], &[1]), Ok(0.0));
        assert_eq!(brier(&[0.0, 0.0], 1), Ok(0.5));
        assert_eq!(normalised_preferred(0.625, 0.25, 1.0), Ok(50.0));
        assert!(normalised_preferred(0.5, 1.0, 1.0).is_err());
    }

    #[test]
    fn equal_choices_share_the_grade() {
        let found = graded(&[-1.0, -1.0, -5.0], &[1.0, 0.0, 0.5]).unwrap();
        assert_eq!(found.grade, 0.5);
        assert!(graded(&[-1.0], &[f64::NAN]).is_err());
    }
}
