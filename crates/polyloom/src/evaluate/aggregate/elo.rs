//! Elo's ratings: one pass over games in their order (methods/evaluation.md 3.4).

use crate::evaluate::{EvalError, Result};

/// Ratings that follow the games one by one. The order of the games changes the result: for a ranking of a fixed set of
/// games fit strengths instead ([`super::pairwise`]).
#[derive(Debug, Clone, PartialEq)]
pub struct Elo {
    rating: Vec<f64>,
    k: f64,
    scale: f64,
}

impl Elo {
    /// `n` items at a rating of 1000, 400 points for odds of 10 to 1. `k` is the most that a game moves (ONEBench: 4).
    ///
    /// # Errors
    /// No item, or a `k` that is not finite and above 0.
    pub fn new(n: usize, k: f64) -> Result<Self> {
        Self::with(n, k, 400.0, 10.0, 1000.0)
    }

    /// As [`Self::new`], with the points for odds of `base` to 1 and the first rating.
    ///
    /// # Errors
    /// No item; a number that is not finite; `k` or `points` not above 0, `base` not above 1.
    pub fn with(n: usize, k: f64, points: f64, base: f64, initial: f64) -> Result<Self> {
        const WHAT: &str = "Elo ratings";
        if n == 0 {
            return Err(EvalError::Empty { what: WHAT });
        }
        let fine = [k, points, base, initial].iter().all(|x| x.is_finite());
        if !(fine && k > 0.0 && points > 0.0 && base > 1.0) {
            let problem = format!("k {k}, points {points}, base {base}, start {initial}");
            return Err(EvalError::invalid(WHAT, problem));
        }
        Ok(Self {
            rating: vec![initial; n],
            k,
            scale: base.ln() / points,
        })
    }

    /// Adds a game; `score` is 1 where `a` won, ½ for a draw, 0 where `b` won.
    ///
    /// # Errors
    /// An item that does not exist or plays itself, a score outside 0 to 1.
    pub fn add(&mut self, a: usize, b: usize, score: f64) -> Result<()> {
        let n = self.rating.len();
        if a >= n || b >= n || a == b || !(0.0..=1.0).contains(&score) {
            let problem = format!("{a} against {b} of {n} with the score {score}");
            return Err(EvalError::invalid("Elo game", problem));
        }
        let lead = (self.rating[b] - self.rating[a]) * self.scale;
        let expected = 1.0 / (1.0 + lead.exp());
        let change = self.k * (score - expected);
        self.rating[a] += change;
        self.rating[b] -= change;
        Ok(())
    }

    /// The ratings.
    pub fn rating(&self) -> &[f64] {
        &self.rating
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_hand() {
        let mut elo = Elo::new(2, 4.0).unwrap();
        elo.add(0, 1, 1.0).unwrap();
        assert_eq!(elo.rating(), [1002.0, 998.0]);
        elo.add(1, 0, 0.5).unwrap();
        let moved = 4.0 * (1.0 / (1.0 + 10f64.powf(-4.0 / 400.0)) - 0.5);
        assert!((elo.rating()[0] - (1002.0 - moved)).abs() < 1e-9);
        assert!(elo.add(0, 0, 1.0).is_err());
        assert!(elo.add(0, 2, 1.0).is_err());
        assert!(elo.add(0, 1, f64::NAN).is_err());
        assert!(Elo::new(0, 4.0).is_err() && Elo::new(1, 0.0).is_err());
        assert!(Elo::with(1, 4.0, 400.0, 1.0, 1000.0).is_err());
    }
}
