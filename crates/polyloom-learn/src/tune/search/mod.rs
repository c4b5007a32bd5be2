//! Searching the free numbers of a recipe by trials: what is tried next, given how good the earlier points were.
//!
//! A point lies in the unit cube, one number per dimension of the [`Axis`]es; a search asks for rounds of points and is
//! told their scores, more being better. Same axes, seed and scores: same points.

pub mod axis;
mod cmaes;
mod halving;

use polyloom_core::rng::Stream;

pub use axis::{Axis, Space, dimensions, values};
pub use cmaes::CmaEs;
pub use halving::Halving;

/// Points to be tried, all on the same rows.
#[derive(Debug, Clone, PartialEq)]
pub struct Round {
    /// The points, each with a number in 0 to 1 per dimension.
    pub points: Vec<Vec<f64>>,
    /// Share of the rows that they are scored on.
    pub share: f64,
}

/// A way of searching.
pub trait Search {
    /// The next points; `None` when there are none left.
    fn ask(&mut self) -> Option<Round>;

    /// Scores of the points that were asked for last, in their order, more being better; minus infinity for a point that
    /// cannot be tried.
    fn tell(&mut self, scores: &[f64]);

    /// Rounds follow from what was told, so that ending early can make sense: the points of a grid were all wanted.
    fn is_adaptive(&self) -> bool;
}

/// Every combination of the axes' own points, in one round.
#[derive(Debug, Clone)]
pub struct Grid {
    points: Option<Vec<Vec<f64>>>,
}

impl Grid {
    /// The grid of some axes; the last axis changes fastest.
    #[must_use]
    pub fn new(axes: &[Axis]) -> Self {
        let mut points: Vec<Vec<f64>> = vec![Vec::new()];
        for axis in axes {
            for _ in 0..axis.entries() {
                let own = axis.space.grid();
                let longer = |p: &Vec<f64>| {
                    let with = |x: &f64| [&p[..], &[*x]].concat();
                    own.iter().map(with).collect::<Vec<_>>()
                };
                points = points.iter().flat_map(longer).collect();
            }
        }
        Self {
            points: Some(points),
        }
    }

    /// Points of the grid of some axes, without making it; `None` above 2^40.
    #[must_use]
    pub fn size(axes: &[Axis]) -> Option<u64> {
        let own = axes
            .iter()
            .flat_map(|a| std::iter::repeat_n(a.space.grid().len() as u64, a.entries()));
        own.into_iter()
            .try_fold(1u64, |all, n| all.checked_mul(n).filter(|n| *n <= 1 << 40))
    }
}

impl Search for Grid {
    fn ask(&mut self) -> Option<Round> {
        let points = self.points.take()?;
        Some(Round { points, share: 1.0 })
    }

    fn tell(&mut self, _: &[f64]) {}

    fn is_adaptive(&self) -> bool {
        false
    }
}

/// Points drawn evenly, in rounds.
#[derive(Debug, Clone)]
pub struct Random {
    dimensions: usize,
    trials: usize,
    round: usize,
    seed: u64,
    asked: usize,
}

impl Random {
    /// `trials` points in all, `round` at a time.
    #[must_use]
    pub fn new(dimensions: usize, trials: usize, round: usize, seed: u64) -> Self {
        Self {
            dimensions,
            trials,
            round: round.max(1),
            seed,
            asked: 0,
        }
    }
}

/// Point `number` of the points drawn evenly.
fn drawn(seed: u64, number: usize, dimensions: usize) -> Vec<f64> {
    let stream = Stream::new(seed, "tune: points", number as u64);
    (0..dimensions as u64)
        .map(|d| f64::from(stream.uniform(d)))
        .collect()
}

impl Search for Random {
    fn ask(&mut self) -> Option<Round> {
        let n = self.round.min(self.trials - self.asked);
        let from = self.asked;
        self.asked += n;
        let points = (from..from + n).map(|i| drawn(self.seed, i, self.dimensions));
        (n > 0).then(|| Round {
            points: points.collect(),
            share: 1.0,
        })
    }

    fn tell(&mut self, _: &[f64]) {}

    fn is_adaptive(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn axes(texts: &[&str]) -> Vec<Axis> {
        texts.iter().map(|t| t.parse().unwrap()).collect()
    }

    #[test]
    fn a_grid_has_every_combination() {
        let axes = axes(&["a=0..1/3", "b=x,y"]);
        let round = Grid::new(&axes).ask().unwrap();
        let tried: Vec<String> = round
            .points
            .iter()
            .map(|p| {
                let all = values(&axes, p);
                all.iter()
                    .map(|(_, v)| v.clone())
                    .collect::<Vec<_>>()
                    .join(" ")
            })
            .collect();
        assert_eq!(tried, ["0 x", "0 y", "0.5 x", "0.5 y", "1 x", "1 y"]);
        assert_eq!(Grid::size(&axes), Some(6));
    }

    #[test]
    fn random_points_do_not_depend_on_the_round() {
        let all = |round| {
            let mut search = Random::new(3, 10, round, 7);
            let mut points = Vec::new();
            while let Some(r) = search.ask() {
                points.extend(r.points);
            }
            points
        };
        assert_eq!(all(4), all(10));
        assert_eq!(all(4).len(), 10);
        assert!(all(4).iter().flatten().all(|x| (0.0..1.0).contains(x)));
    }
}
