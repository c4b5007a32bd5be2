//! A few numbers that are learned beside the model: log-variances, logits of weights.

use super::method::{State, Unsolved};

/// How they move.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Moves {
    /// By the gradient.
    Sgd,
    /// Adam (0.9, 0.999, 1e-8) as PyTorch computes it, with this decay added to the gradient.
    Adam {
        /// Decay.
        decay: f64,
    },
}

/// Numbers of all tasks, with the moments of Adam. Those of tasks that are not in a step stay as they are.
#[derive(Debug, Clone, PartialEq)]
pub struct Scalars {
    /// The numbers.
    pub values: Vec<f64>,
    moves: Moves,
    first: Vec<f64>,
    second: Vec<f64>,
    steps: Vec<f64>,
}

impl Scalars {
    /// All alike before the first step.
    pub fn new(n: usize, value: f64, moves: Moves) -> Self {
        Self {
            values: vec![value; n],
            moves,
            first: vec![0.0; n],
            second: vec![0.0; n],
            steps: vec![0.0; n],
        }
    }

    /// Moves those of some tasks by their gradients.
    pub fn step(&mut self, tasks: &[usize], gradients: &[f64], rate: f64) {
        for (&t, &g) in tasks.iter().zip(gradients) {
            match self.moves {
                Moves::Sgd => self.values[t] -= rate * g,
                Moves::Adam { decay } => {
                    let g = g + decay * self.values[t];
                    self.steps[t] += 1.0;
                    self.first[t] += 0.1 * (g - self.first[t]);
                    self.second[t] += 0.001 * (g * g - self.second[t]);
                    let first = self.first[t] / (1.0 - 0.9f64.powf(self.steps[t]));
                    let second = self.second[t] / (1.0 - 0.999f64.powf(self.steps[t]));
                    self.values[t] -= rate * first / (second.sqrt() + 1e-8);
                }
            }
        }
    }

    /// Everything, for a checkpoint.
    pub fn state(&self) -> State {
        State::of([
            ("values", self.values.clone()),
            ("first", self.first.clone()),
            ("second", self.second.clone()),
            ("steps", self.steps.clone()),
        ])
    }

    /// Goes on from a checkpoint; values alone begin Adam anew.
    ///
    /// # Errors
    /// Numbers of another number of tasks.
    pub fn restore(&mut self, state: &State) -> Result<(), Unsolved> {
        let n = self.values.len();
        self.values = state.get("values", n)?;
        for (name, into) in [
            ("first", &mut self.first),
            ("second", &mut self.second),
            ("steps", &mut self.steps),
        ] {
            *into = match state.numbers.contains_key(name) {
                true => state.get(name, n)?,
                false => vec![0.0; n],
            };
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adam_by_hand_and_back_again() {
        let mut s = Scalars::new(2, 1.0, Moves::Adam { decay: 0.0 });
        s.step(&[1], &[5.0], 0.1);
        // The first step is the rate, whatever the gradient.
        assert_eq!(s.values[0], 1.0);
        assert!((s.values[1] - 0.9).abs() < 1e-8);
        let mut again = Scalars::new(2, 0.0, Moves::Adam { decay: 0.0 });
        again.restore(&s.state()).unwrap();
        assert_eq!(again, s);
        assert!(
            Scalars::new(3, 0.0, Moves::Sgd)
                .restore(&s.state())
                .is_err()
        );
    }
}
