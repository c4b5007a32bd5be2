//! Successive halving: many points on few rows, the better ones on more (Jamieson and Talwalkar 2016; Li et al. 2018,
//! Hyperband, algorithm 1, one bracket).

use super::{Round, Search, drawn};

/// Of so many points one goes on to so many times the rows.
const ETA: usize = 3;

/// Successive halving.
#[derive(Debug, Clone)]
pub struct Halving {
    points: Vec<Vec<f64>>,
    /// Rounds after this one.
    left: u32,
    done: bool,
}

impl Halving {
    /// `trials` points drawn evenly (or `points`, where they are given) enter the first round; the last round sees all
    /// rows. Rounds see at least `least` (0 to 1) of the rows.
    #[must_use]
    pub fn new(
        dimensions: usize,
        trials: usize,
        points: Option<Vec<Vec<f64>>>,
        least: f64,
        seed: u64,
    ) -> Self {
        let own = || (0..trials).map(|i| drawn(seed, i, dimensions)).collect();
        let points: Vec<Vec<f64>> = points.unwrap_or_else(own);
        let mut left = 0;
        let mut n = points.len();
        while n > ETA && share(left + 1) >= least {
            left += 1;
            n = n.div_ceil(ETA);
        }
        Self {
            points,
            left,
            done: false,
        }
    }
}

/// Share of the rows with so many rounds to come.
fn share(left: u32) -> f64 {
    (ETA as f64).powi(-(left as i32))
}

impl Search for Halving {
    fn ask(&mut self) -> Option<Round> {
        (!self.done).then(|| Round {
            points: self.points.clone(),
            share: share(self.left),
        })
    }

    fn tell(&mut self, scores: &[f64]) {
        if self.left == 0 {
            self.done = true;
            return;
        }
        let mut order: Vec<usize> = (0..self.points.len()).collect();
        // The earlier of equals stays.
        order.sort_by(|a, b| scores[*b].total_cmp(&scores[*a]));
        order.truncate(self.points.len().div_ceil(ETA));
        order.sort_unstable();
        self.points = order.iter().map(|i| self.points[*i].clone()).collect();
        self.left -= 1;
    }

    fn is_adaptive(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_better_third_goes_on_to_three_times_the_rows() {
        let points: Vec<Vec<f64>> = (0..9).map(|i| vec![f64::from(i) / 10.0]).collect();
        let mut search = Halving::new(1, 9, Some(points), 0.05, 0);
        let mut seen = Vec::new();
        while let Some(round) = search.ask() {
            seen.push((round.points.len(), round.share));
            // 0.4 is best.
            let scores: Vec<f64> = round.points.iter().map(|p| -(p[0] - 0.4).abs()).collect();
            search.tell(&scores);
        }
        assert_eq!(seen.iter().map(|s| s.0).collect::<Vec<_>>(), [9, 3]);
        assert!((seen[0].1 - 1.0 / 3.0).abs() < 1e-12 && seen[1].1 == 1.0);
        let mut search = Halving::new(2, 30, None, 0.2, 1);
        // 1/9 would be below a fifth of the rows.
        assert!((search.ask().unwrap().share - 1.0 / 3.0).abs() < 1e-12);
    }
}
