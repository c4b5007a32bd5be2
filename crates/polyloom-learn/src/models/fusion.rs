//! Dynamic logits fusion: what small experts learned, put into a large model's output at every step.
//!
//! Fused logits are `large + Σ a_t (expert_t - small base)`. The weights are those that move the large model's distribution
//! as far from its own as the experts' are from the small base's: they minimise the sum over experts of
//! `(KL(fused‖large) - KL(expert‖base))² + (KL(large‖fused) - KL(base‖expert))²`, over a grid. "On Giant's Shoulders"
//! (Fan et al. 2024); all in `f64`. Nothing is trained and nothing stored.

use polyloom::MergeError;

use crate::error::Result;

/// Which weights are tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Search {
    /// One expert acts at a time: each is tried alone, the best counts. The paper's way with several experts.
    OneActive,
    /// Every combination of the grid; its size grows with a power of the experts.
    FullGrid,
}

/// A rule of fusion.
#[derive(Debug, Clone, PartialEq)]
pub struct Fusion {
    /// Weights that are tried, rising.
    pub grid: Vec<f64>,
    /// Which combinations.
    pub search: Search,
}

/// The fused output of one step.
#[derive(Debug, Clone, PartialEq)]
pub struct Fused {
    /// Weight of every expert.
    pub weights: Vec<f64>,
    /// What was minimised.
    pub objective: f64,
    /// The fused logits.
    pub logits: Vec<f64>,
}

impl Default for Fusion {
    /// 0 to 2 in steps of 0.1, one expert at a time.
    fn default() -> Self {
        Self {
            grid: (0..=20).map(|i| f64::from(i) / 10.0).collect(),
            search: Search::OneActive,
        }
    }
}

/// Combinations that a full grid may have.
const MOST: usize = 1 << 20;

/// Logarithms of a softmax.
fn log_softmax(logits: &[f64]) -> Vec<f64> {
    let top = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let sum: f64 = logits.iter().map(|x| (x - top).exp()).sum();
    let all = top + sum.ln();
    logits.iter().map(|x| x - all).collect()
}

/// `Σ p log(p / q)` of logarithms; what has no probability adds nothing.
fn divergence(p: &[f64], q: &[f64]) -> f64 {
    let one = |(p, q): (&f64, &f64)| {
        if *p == f64::NEG_INFINITY {
            0.0
        } else {
            p.exp() * (p - q)
        }
    };
    p.iter().zip(q).map(one).sum()
}

/// What a step knows before weights are tried.
struct Step<'a> {
    large: &'a [f64],
    p: Vec<f64>,
    /// `expert - base`, for each expert.
    differences: Vec<Vec<f64>>,
    /// `KL(expert‖base)` and `KL(base‖expert)`, for each expert.
    wanted: Vec<[f64; 2]>,
}

impl Step<'_> {
    fn fused(&self, weights: &[f64]) -> Vec<f64> {
        let mut logits = self.large.to_vec();
        for (difference, a) in self.differences.iter().zip(weights) {
            if *a != 0.0 {
                logits
                    .iter_mut()
                    .zip(difference)
                    .for_each(|(l, d)| *l += a * d);
            }
        }
        logits
    }

    fn objective(&self, weights: &[f64]) -> f64 {
        let fused = log_softmax(&self.fused(weights));
        let (there, back) = (divergence(&fused, &self.p), divergence(&self.p, &fused));
        let one = |[t, b]: &[f64; 2]| (there - t).powi(2) + (back - b).powi(2);
        self.wanted.iter().map(one).sum()
    }
}

impl Fusion {
    /// Says whether weights can be tried.
    ///
    /// # Errors
    /// An empty grid, numbers that do not rise or are not finite, a full grid of more than a million combinations.
    pub fn check(&self, experts: usize) -> Result<()> {
        let wrong = |what: String| Err(MergeError::plan("bad-fusion", what).into());
        let rises = self.grid.windows(2).all(|w| w[0] < w[1]);
        if self.grid.is_empty() || !rises || self.grid.iter().any(|a| !a.is_finite()) {
            return wrong("the grid of weights must be numbers that rise".into());
        }
        if self.search == Search::FullGrid {
            let size = self.grid.len().checked_pow(experts as u32);
            if size.is_none_or(|n| n > MOST) {
                return wrong(format!(
                    "a full grid of {} weights over {experts} experts is too large; one expert at a time has {}",
                    self.grid.len(),
                    self.grid.len() * experts
                ));
            }
        }
        Ok(())
    }

    /// Fuses the logits of one step, all over the same classes or tokens. Of equal objectives the lower expert counts, then
    /// the smaller weight. Cost: two divergences over the vocabulary for every weight that is tried.
    ///
    /// # Errors
    /// As [`Self::check`]; no experts, lengths that differ, logits that are not finite.
    pub fn step(&self, large: &[f64], base: &[f64], experts: &[&[f64]]) -> Result<Fused> {
        self.check(experts.len())?;
        let wrong = |what: String| Err(MergeError::plan("bad-fusion", what).into());
        if experts.is_empty() || large.is_empty() {
            return wrong(
                "fusion needs logits of a large model, a small base and an expert".into(),
            );
        }
        for other in experts.iter().chain([&base]) {
            if other.len() != large.len() {
                return wrong(format!(
                    "logits over {} and {} classes: all models need the same",
                    large.len(),
                    other.len()
                ));
            }
        }
        if experts
            .iter()
            .chain([&base, &large])
            .any(|l| l.iter().any(|x| !x.is_finite()))
        {
            return wrong("logits hold a value that is not finite".into());
        }
        let q = log_softmax(base);
        let wanted = experts.iter().map(|expert| {
            let q_t = log_softmax(expert);
            [divergence(&q_t, &q), divergence(&q, &q_t)]
        });
        let differences = experts
            .iter()
            .map(|expert| expert.iter().zip(base).map(|(e, b)| e - b).collect());
        let step = Step {
            large,
            p: log_softmax(large),
            wanted: wanted.collect(),
            differences: differences.collect(),
        };
        let n = experts.len();
        let mut best: Option<(f64, Vec<f64>)> = None;
        let mut take = |weights: &[f64]| {
            let objective = step.objective(weights);
            if best.as_ref().is_none_or(|(least, _)| objective < *least) {
                best = Some((objective, weights.to_vec()));
            }
        };
        let mut weights = vec![0.0; n];
        match self.search {
            Search::OneActive => {
                for t in 0..n {
                    for &a in &self.grid {
                        weights[t] = a;
                        take(&weights);
                    }
                    weights[t] = 0.0;
                }
            }
            Search::FullGrid => {
                // The last expert's weight turns fastest.
                let mut at = vec![0usize; n];
                loop {
                    weights
                        .iter_mut()
                        .zip(&at)
                        .for_each(|(w, i)| *w = self.grid[*i]);
                    take(&weights);
                    let Some(t) = (0..n).rev().find(|t| at[*t] + 1 < self.grid.len()) else {
                        break;
                    };
                    at[t] += 1;
                    at[t + 1..].fill(0);
                }
            }
        }
        let (objective, weights) = best.unwrap_or((f64::NAN, weights));
        Ok(Fused {
            logits: step.fused(&weights),
            weights,
            objective,
        })
    }

    /// The objective at every weight of the grid, with a single expert: what [`Self::step`] looks through.
    ///
    /// # Errors
    /// As [`Self::step`].
    pub fn objectives(&self, large: &[f64], base: &[f64], expert: &[f64]) -> Result<Vec<f64>> {
        let one = |a: &f64| {
            let alone = Self {
                grid: vec![*a],
                search: Search::OneActive,
            };
            Ok(alone.step(large, base, &[expert])?.objective)
        };
        self.grid.iter().map(one).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expert_that_learned_nothing_changes_nothing() {
        let (large, base) = ([1.0, 2.0, 0.0], [0.5, 0.1, 0.3]);
        let found = Fusion::default().step(&large, &base, &[&base]).unwrap();
        assert_eq!((found.weights, found.logits), (vec![0.0], large.to_vec()));
        assert_eq!(found.objective, 0.0);
    }

    #[test]
    fn a_large_model_that_is_the_small_one_becomes_the_expert() {
        let (base, expert) = ([1.0, 2.0, 0.0], [3.0, 0.0, 0.5]);
        let found = Fusion::default().step(&base, &base, &[&expert]).unwrap();
        assert_eq!(found.weights, [1.0]);
        assert!(found.objective < 1e-20);
        for search in [Search::OneActive, Search::FullGrid] {
            let fusion = Fusion {
                search,
                ..Fusion::default()
            };
            // Twice the same: of equal ones the first expert acts, or the last of a full grid, which turns fastest.
            let found = fusion.step(&base, &base, &[&expert, &expert]).unwrap();
            assert!((found.weights.iter().sum::<f64>() - 1.0).abs() < 1e-12);
            found
                .logits
                .iter()
                .zip(&expert)
                .for_each(|(a, b)| assert!((a - b).abs() < 1e-12));
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let fusion = Fusion::default();
        let x = [1.0, 2.0];
        assert!(fusion.step(&x, &x, &[]).is_err());
        assert!(fusion.step(&x, &x, &[&[1.0]]).is_err());
        assert!(fusion.step(&x, &[f64::NAN, 1.0], &[&x]).is_err());
        let full = Fusion {
            search: Search::FullGrid,
            ..Fusion::default()
        };
        assert!(full.check(5).is_err());
        assert!(full.check(4).is_ok());
    }
}
