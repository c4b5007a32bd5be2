//! A linear classifier over experts.

use super::points::{Labelled, Points};
use super::router::Decision;
use crate::tasks::HeadKind;
use crate::train::probe::{self, Seen, Target};

/// Multinomial logistic regression; weights are its probabilities.
#[derive(Debug, Clone, PartialEq)]
pub struct Linear {
    /// A vector for each expert.
    pub weight: Points,
    /// A number for each expert.
    pub bias: Vec<f32>,
}

impl Linear {
    /// Fits it as heads are probed ([`probe`]); the penalty is the one that does best on `held`. Gives the inverse strength
    /// of the penalty too.
    #[must_use]
    pub fn fit(examples: &Labelled, held: Option<&Labelled>, experts: usize) -> (Self, f64) {
        let targets = |of: &Labelled| -> Vec<Target> {
            let labels = of.labels.iter();
            labels.map(|l| Target::Class(*l)).collect()
        };
        let wanted = targets(examples);
        let held = held.filter(|h| !h.labels.is_empty());
        let held = held.map(|h| (h, targets(h)));
        let held = held.as_ref().map(|(h, wanted)| Seen {
            features: &h.points.values,
            wanted,
        });
        let train = Seen {
            features: &examples.points.values,
            wanted: &wanted,
        };
        let found = probe::fit(HeadKind::Classification, experts, &train, held.as_ref());
        let fitted = Self {
            weight: Points {
                values: found.weight,
                width: examples.points.width,
            },
            bias: found.bias,
        };
        (fitted, found.c)
    }

    pub(super) fn decide(&self, points: &Points) -> Vec<Decision> {
        let mut scores = points.products(&self.weight);
        let of = |row: &mut [f32]| {
            row.iter_mut().zip(&self.bias).for_each(|(s, b)| *s += b);
            Decision::of_similarities(row, 1.0, None)
        };
        scores
            .chunks_exact_mut(self.bias.len().max(1))
            .map(of)
            .collect()
    }
}
