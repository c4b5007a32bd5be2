//! Optimisers over the flat buffers of [`Parameters`]: one sweep a step, state of the same layout, written and read whole.

use polyloom_core::nn::elementwise::squares;
use polyloom_core::nn::optim::{Adam, Sgd};

use crate::engine::{Gradients, Parameters};
use crate::error::{Error, Result};

/// Which optimiser.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Rule {
    /// AdamW (Loshchilov and Hutter 2019), as PyTorch computes it; `coupled`: Adam, with the decay in the gradient.
    Adam {
        /// Decay of the moments.
        betas: [f32; 2],
        /// Added to the root of the second moment.
        eps: f32,
        /// Weight decay.
        decay: f32,
        /// Adam in place of AdamW.
        coupled: bool,
    },
    /// Stochastic gradient descent.
    Sgd {
        /// Share of the velocity that stays.
        momentum: f32,
        /// Weight decay.
        decay: f32,
        /// Looks ahead by the momentum.
        nesterov: bool,
    },
}

impl Rule {
    /// AdamW with PyTorch's defaults.
    pub fn adamw(decay: f32) -> Self {
        Self::Adam {
            betas: [0.9, 0.999],
            eps: 1e-8,
            decay,
            coupled: false,
        }
    }

    /// Moments of every parameter.
    fn moments(self) -> usize {
        match self {
            Self::Adam { .. } => 2,
            Self::Sgd { .. } => 1,
        }
    }
}

/// An optimiser with its state.
#[derive(Debug, Clone)]
pub struct Optimiser {
    /// What it does.
    pub rule: Rule,
    /// Largest length of all gradients together; 0 for none. Longer ones are shortened.
    pub clip: f32,
    /// Parameters of one axis (biases, norms) do not decay.
    pub spare_vectors: bool,
    /// Steps done.
    pub steps: u32,
    moments: Vec<Vec<f32>>,
}

/// What a step saw.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Seen {
    /// Length of all gradients together, before it was shortened.
    pub length: f64,
    /// Factor that clipping left.
    pub scale: f32,
}

impl Optimiser {
    /// Of parameters, before the first step.
    pub fn new(rule: Rule, parameters: &Parameters) -> Self {
        let moments = vec![vec![0f32; parameters.len()]; rule.moments()];
        Self {
            rule,
            clip: 0.0,
            spare_vectors: false,
            steps: 0,
            moments,
        }
    }

    /// Moves the parameters by the gradients of a backward pass, at a learning rate. Parameters that no pass reached have a
    /// gradient of 0.
    ///
    /// # Errors
    /// Gradients that are not finite: nothing was moved.
    pub fn step(
        &mut self,
        parameters: &Parameters,
        gradients: &Gradients,
        rate: f32,
    ) -> Result<Seen> {
        let length = squares(&parameters.gathered(gradients)?).sqrt();
        if !length.is_finite() {
            let bad = parameters.iter().find(|p| {
                gradients.get(&p.value).is_some_and(|g| {
                    crate::engine::slice(g).is_ok_and(|g| g.iter().any(|x| !x.is_finite()))
                })
            });
            let name = bad.map_or_else(String::new, |p| {
                format!("; the first is that of `{}`", p.name)
            });
            return Err(Error::shape(
                "step",
                format!("gradients are not finite{name}"),
            ));
        }
        let clip = f64::from(self.clip);
        // PyTorch adds 1e-6 to the length.
        let scale = if self.clip > 0.0 && length > clip {
            (clip / (length + 1e-6)) as f32
        } else {
            1.0
        };
        self.steps += 1;
        let (rule, steps, spare) = (self.rule, self.steps, self.spare_vectors);
        let moments = &mut self.moments;
        // Neighbours that decay alike go in one sweep.
        let mut sweeps: Vec<(std::ops::Range<usize>, bool)> = Vec::new();
        for p in parameters.iter() {
            let decays = !(spare && p.value.dims().len() < 2);
            match sweeps.last_mut() {
                Some((at, same)) if *same == decays => at.end = p.at.end,
                _ => sweeps.push((p.at.clone(), decays)),
            }
        }
        parameters.update(|weights, gradients| {
            for (at, decays) in sweeps {
                let (w, g) = (&mut weights[at.clone()], &gradients[at.clone()]);
                match rule {
                    Rule::Adam {
                        betas,
                        eps,
                        decay,
                        coupled,
                    } => {
                        let decay = if decays { decay } else { 0.0 };
                        let (first, second) = moments.split_at_mut(1);
                        Adam {
                            rate,
                            betas,
                            eps,
                            decay,
                            coupled,
                            step: steps,
                            scale,
                        }
                        .step(
                            w,
                            g,
                            &mut first[0][at.clone()],
                            &mut second[0][at],
                        );
                    }
                    Rule::Sgd {
                        momentum,
                        decay,
                        nesterov,
                    } => {
                        let decay = if decays { decay } else { 0.0 };
                        Sgd {
                            rate,
                            momentum,
                            decay,
                            nesterov,
                            scale,
                        }
                        .step(w, g, &mut moments[0][at]);
                    }
                }
            }
        })?;
        Ok(Seen { length, scale })
    }

    /// The moments, one after the other, for a checkpoint.
    pub fn state(&self) -> &[Vec<f32>] {
        &self.moments
    }

    /// Goes on from a checkpoint.
    ///
    /// # Errors
    /// A state of another shape.
    pub fn restore(&mut self, steps: u32, moments: Vec<Vec<f32>>) -> Result<()> {
        let lengths = |m: &[Vec<f32>]| m.iter().map(Vec::len).collect::<Vec<_>>();
        if lengths(&moments) != lengths(&self.moments) {
            return Err(Error::shape(
                "restore",
                format!(
                    "a state of {:?} for parameters of {:?}",
                    lengths(&moments),
                    lengths(&self.moments)
                ),
            ));
        }
        (self.steps, self.moments) = (steps, moments);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{Value, tensor};
    use crate::ops;

    fn parameters() -> Parameters {
        let matrix = tensor(vec![1.0, -2.0, 0.5, 3.0], (2, 2)).unwrap();
        Parameters::new([
            ("m".to_owned(), matrix),
            ("b".to_owned(), tensor(vec![1.0, 1.0], 2).unwrap()),
        ])
        .unwrap()
    }

    fn loss(p: &Parameters) -> Value {
        let x = Value::constant(tensor(vec![1.0, 2.0], (1, 2)).unwrap());
        let y = ops::linear(
            &x,
            &p.get("m").unwrap().value,
            Some(&p.get("b").unwrap().value),
        )
        .unwrap();
        ops::mean(&ops::mul(&y, &y).unwrap()).unwrap()
    }

    fn run(optimiser: &mut Optimiser, p: &Parameters, steps: usize) -> Vec<f32> {
        for _ in 0..steps {
            let mut gradients = p.gradients().unwrap();
            loss(p).backward_into(&mut gradients).unwrap();
            optimiser.step(p, &gradients, 0.05).unwrap();
        }
        p.weights().unwrap().to_vec()
    }

    #[test]
    fn a_loss_falls_and_a_state_goes_on_to_the_bit() {
        let p = parameters();
        let mut optimiser = Optimiser {
            clip: 1.0,
            spare_vectors: true,
            ..Optimiser::new(Rule::adamw(0.1), &p)
        };
        let before = loss(&p).number().unwrap();
        run(&mut optimiser, &p, 10);
        let (weights, saved) = (p.weights().unwrap().to_vec(), optimiser.clone());
        let end = run(&mut optimiser, &p, 10);
        assert!(loss(&p).number().unwrap() < 0.3 * before);
        let again = parameters();
        again.update(|w, _| w.copy_from_slice(&weights)).unwrap();
        let mut other = Optimiser {
            clip: 1.0,
            spare_vectors: true,
            ..Optimiser::new(Rule::adamw(0.1), &again)
        };
        other.restore(saved.steps, saved.state().to_vec()).unwrap();
        assert_eq!(run(&mut other, &again, 10), end);
        assert!(other.restore(1, vec![vec![0.0; 6]]).is_err());
    }

    #[test]
    fn clipping_by_hand_and_bad_gradients() {
        let p = parameters();
        let mut gradients = p.gradients().unwrap();
        // y = (-2, 7.5), d/dy of the mean of squares = y: the gradients' length is √(4 + 56.25) √(1 + 4 + 1).
        loss(&p).backward_into(&mut gradients).unwrap();
        let mut sgd = Optimiser {
            clip: 1.0,
            ..Optimiser::new(
                Rule::Sgd {
                    momentum: 0.0,
                    decay: 0.0,
                    nesterov: false,
                },
                &p,
            )
        };
        let seen = sgd.step(&p, &gradients, 1.0).unwrap();
        let length = (60.25f64 * 6.0).sqrt();
        assert!((seen.length - length).abs() < 1e-4);
        assert!((f64::from(p.weights().unwrap()[0]) - (1.0 + 2.0 / length)).abs() < 1e-5);
        p.update(|w, _| w[0] = f32::NAN).unwrap();
        let mut gradients = p.gradients().unwrap();
        loss(&p).backward_into(&mut gradients).unwrap();
        let before: Vec<u32> = p.weights().unwrap().iter().map(|x| x.to_bits()).collect();
        let error = sgd.step(&p, &gradients, 1.0).unwrap_err().to_string();
        assert!(
            error.contains("not finite; the first is that of `m`"),
            "{error}"
        );
        assert_eq!(
            p.weights()
                .unwrap()
                .iter()
                .map(|x| x.to_bits())
                .collect::<Vec<_>>(),
            before
        );
    }
}
