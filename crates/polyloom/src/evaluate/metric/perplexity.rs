//! Perplexity of texts, and means over the parts of a group.

use crate::evaluate::error::same_length;
use crate::evaluate::sum::{Sum, mean, sum};
use crate::evaluate::{EvalError, Result};

/// Log-likelihoods of texts with their sizes; parts can be merged. The perplexity of a corpus is that of all texts
/// together, not a mean of perplexities.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Perplexity {
    loglik: Sum,
    words: u64,
    bytes: u64,
}

impl Perplexity {
    /// Adds a text: natural logarithm of its likelihood, its words, its bytes of UTF-8.
    ///
    /// # Errors
    /// A log-likelihood that is NaN or +∞.
    pub fn add(&mut self, loglik: f64, words: u64, bytes: u64) -> Result<()> {
        if loglik.is_nan() || loglik == f64::INFINITY {
            let problem = format!("a log-likelihood of {loglik}");
            return Err(EvalError::invalid("perplexity", problem));
        }
        self.loglik.add(loglik);
        self.words += words;
        self.bytes += bytes;
        Ok(())
    }

    /// Adds the texts of another part.
    pub fn merge(&mut self, other: &Self) {
        self.loglik.merge(&other.loglik);
        self.words += other.words;
        self.bytes += other.bytes;
    }

    /// exp(−Σ log-likelihood / Σ words); `NaN` of no words.
    pub fn per_word(&self) -> f64 {
        Self::of(self.loglik.total(), self.words).exp()
    }

    /// exp(−Σ log-likelihood / Σ bytes); `NaN` of no bytes.
    pub fn per_byte(&self) -> f64 {
        Self::of(self.loglik.total(), self.bytes).exp()
    }

    /// −Σ log-likelihood / (Σ bytes · ln 2); `NaN` of no bytes.
    pub fn bits_per_byte(&self) -> f64 {
        Self::of(self.loglik.total(), self.bytes) / std::f64::consts::LN_2
    }

    fn of(loglik: f64, size: u64) -> f64 {
        match size {
            0 => f64::NAN,
            size => -loglik / size as f64,
        }
    }
}

/// exp(−mean): the perplexity of log-likelihoods that are per token already, each counting once.
///
/// # Errors
/// None of them, or one that is NaN.
pub fn perplexity_of_mean(loglik: &[f64]) -> Result<f64> {
    same_length("perplexity", loglik.len(), loglik.len())?;
    if let Some(i) = loglik.iter().position(|x| x.is_nan()) {
        return Err(EvalError::invalid(
            "perplexity",
            format!("NaN at place {i}"),
        ));
    }
    Ok((-mean(loglik.iter().copied())).exp())
}

/// A score of the parts of a group together.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Group {
    /// Mean over examples: parts weigh as their sizes.
    pub weighted: f64,
    /// Mean over parts.
    pub unweighted: f64,
    /// Standard error of the weighted mean from those of the parts, pooled as in lm-evaluation-harness:
    /// √(Σ nᵢ(nᵢ − 1)sᵢ² / (Σ nᵢ − parts) / Σ nᵢ). `NaN` where no part has two examples.
    pub standard_error: f64,
}

/// Puts the parts of a group together: their scores, numbers of examples, and standard errors.
///
/// # Errors
/// Lists that are empty or of different lengths, a NaN, a part without examples.
pub fn group(scores: &[f64], sizes: &[u64], errors: &[f64]) -> Result<Group> {
    const WHAT: &str = "group";
    same_length(WHAT, scores.len(), sizes.len())?;
    same_length(WHAT, scores.len(), errors.len())?;
    for i in 0..scores.len() {
        if scores[i].is_nan() || errors[i].is_nan() || sizes[i] == 0 {
            let problem = format!(
                "part {i}: score {}, standard error {}, {} examples",
                scores[i], errors[i], sizes[i]
            );
            return Err(EvalError::invalid(WHAT, problem));
        }
    }
    let n = sum(sizes.iter().map(|&n| n as f64));
    let pairs = scores.iter().zip(sizes);
    let squares = errors.iter().zip(sizes).map(|(s, &n)| {
        let n = n as f64;
        n * (n - 1.0) * s * s
    });
    let pooled = sum(squares) / (n - scores.len() as f64);
    Ok(Group {
        weighted: sum(pairs.map(|(x, &n)| x * n as f64)) / n,
        unweighted: mean(scores.iter().copied()),
        standard_error: (pooled / n).sqrt(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_add_up() {
        let mut left = Perplexity::default();
        assert!(left.per_word().is_nan());
        left.add(-2.0, 1, 4).unwrap();
        let mut right = Perplexity::default();
        right.add(-4.0, 2, 2).unwrap();
        assert!(right.add(f64::NAN, 1, 1).is_err());
        left.merge(&right);
        assert_eq!(left.per_word(), 2f64.exp());
        assert_eq!(left.per_byte(), 1f64.exp());
        assert_eq!(left.bits_per_byte(), 1.0 / std::f64::consts::LN_2);
        assert_eq!(perplexity_of_mean(&[-1.0, -3.0]), Ok(2f64.exp()));
        assert!(perplexity_of_mean(&[]).is_err());
    }

    #[test]
    fn groups() {
        let found = group(&[1.0, 0.0], &[3, 1], &[0.5, 0.0]).unwrap();
        assert_eq!((found.weighted, found.unweighted), (0.75, 0.5));
        assert!((found.standard_error - (1.5f64 / 2.0 / 4.0).sqrt()).abs() < 1e-15);
        assert!(group(&[1.0], &[1], &[0.0]).unwrap().standard_error.is_nan());
        assert!(group(&[1.0], &[0], &[0.0]).is_err());
        assert!(group(&[1.0], &[1, 2], &[0.0]).is_err());
    }
}
