//! Steps that are of one task each, with moments for every task.

use polyloom_core::nn::unmixed::{Part, Unmixed};

use super::{Rule, Sweep};

/// Moments of every task on their own, where a step is of one task ([`super::Optimiser::apart`]).
#[derive(Debug, Clone, PartialEq)]
pub struct Apart {
    /// Weights of the tasks' losses, of sum 1.
    pub weights: Vec<f64>,
    /// How likely each task is drawn, of sum 1.
    pub shares: Vec<f64>,
    /// A step moves by the moments of all tasks seen so far ([`Unmixed`]); by those of its own task alone otherwise.
    pub all: bool,
    /// Steps of every task.
    pub steps: Vec<u32>,
}

impl Apart {
    /// What the moments of every task count.
    pub(super) fn parts(&self, betas: [f32; 2]) -> Vec<Part> {
        let of = || self.weights.iter().zip(&self.shares).zip(&self.steps);
        let seen: f64 = of().filter(|(_, n)| **n > 0).map(|((w, _), _)| w).sum();
        of().map(|((w, p), n)| Part::of(w / seen, *p, *n, betas))
            .collect()
    }
}

/// Whose a step is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Turn {
    /// The task; any where moments are shared.
    pub task: usize,
    /// Factor of the gradients, after they were cut.
    pub factor: f32,
}

impl Default for Turn {
    fn default() -> Self {
        Self {
            task: 0,
            factor: 1.0,
        }
    }
}

/// A sweep by the moments of all tasks.
#[allow(
    clippy::too_many_arguments,
    reason = "the state of a step, taken apart"
)]
pub(super) fn unmixed(
    rule: Rule,
    rate: f32,
    scale: f32,
    (weights, gradients): (&mut [f32], &[f32]),
    sweep: &Sweep<'_>,
    moments: &mut [Vec<f32>],
    task: usize,
    parts: &[Part],
) {
    let Rule::Adam {
        betas,
        eps,
        decay,
        coupled,
    } = rule
    else {
        return;
    };
    let rule = Unmixed {
        rate,
        betas,
        eps,
        decay: if sweep.decays { decay } else { 0.0 },
        coupled,
        scale,
    };
    let at = &sweep.at;
    let mut moments: Vec<&mut [f32]> = moments.iter_mut().map(|m| &mut m[at.clone()]).collect();
    let (w, g) = (&mut weights[at.clone()], &gradients[at.clone()]);
    rule.step(w, g, &mut moments, task, parts);
}
