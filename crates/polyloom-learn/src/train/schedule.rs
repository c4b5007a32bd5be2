//! Learning rates over the steps of a run, as `transformers` defines them.

use serde::{Deserialize, Serialize};

/// What the rate does after the warm-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Shape {
    /// Stays.
    Constant,
    /// Falls evenly to 0 at the end.
    #[default]
    Linear,
    /// Falls to 0 along half a cosine.
    Cosine,
}

/// A learning rate by step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Schedule {
    /// The highest rate.
    pub rate: f32,
    /// Steps of the warm-up, over which the rate rises evenly from 0.
    pub warm: u32,
    /// Steps of the run.
    pub steps: u32,
    /// What comes after the warm-up.
    pub shape: Shape,
}

impl Schedule {
    /// The rate of a step, from 0; 0 after the last one but for a constant rate.
    pub fn at(&self, step: u32) -> f32 {
        let rate = f64::from(self.rate);
        if step < self.warm {
            return (rate * f64::from(step) / f64::from(self.warm)) as f32;
        }
        let left = f64::from(self.steps.saturating_sub(step))
            / f64::from(self.steps.saturating_sub(self.warm).max(1));
        let share = match self.shape {
            Shape::Constant => 1.0,
            Shape::Linear => left.min(1.0),
            Shape::Cosine => 0.5 * (1.0 + (std::f64::consts::PI * (1.0 - left.min(1.0))).cos()),
        };
        (rate * share) as f32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_hand() {
        let s = Schedule {
            rate: 1.0,
            warm: 2,
            steps: 6,
            shape: Shape::Linear,
        };
        assert_eq!(
            [0, 1, 2, 4, 6, 7].map(|i| s.at(i)),
            [0.0, 0.5, 1.0, 0.5, 0.0, 0.0]
        );
        let cosine = Schedule {
            shape: Shape::Cosine,
            ..s
        };
        assert!(
            (cosine.at(4) - 0.5).abs() < 1e-7
                && (cosine.at(3) - 0.853_553_4).abs() < 1e-6
                && cosine.at(6) == 0.0
        );
        assert_eq!(
            Schedule {
                shape: Shape::Constant,
                ..s
            }
            .at(9),
            1.0
        );
        assert_eq!(Schedule { warm: 6, ..s }.at(6), 0.0);
    }
}
