//! `gradnorm`: learned weights that make the lengths of the weighted gradients follow the tasks' pace.

use super::learned::{MOVES, RATE, moves};
use super::losses::FLOOR;
use super::method::{
    Balancer, Golden, Kind, Looks, Method, Param, State, Step, Unset, Unsolved, Weights, softmax,
    some,
};
use super::scalars::Scalars;

static SPEC: Method = Method {
    name: "gradnorm",
    summary: "Longer gradients for tasks that learn slowly",
    source: "Chen et al., ICML 2018; LibMTL weighting/GradNorm.py",
    formula: "`w = n softmax(s)`, `n_t = |w_t g_t|`, `r_t = (L_t/L_t(0)) / mean_k(L_k/L_k(0))`; `s` moves down the gradient of `sum_t |n_t - mean(n) r_t^alpha|`, the goals held constant. `L_t(0)` is the mean loss of the first epoch, in which all weights are 1.",
    differs: "",
    degenerate: "Nothing is solved.",
    looks: Looks::Gram,
    passes: "",
    params: &[
        Param::shared(
            "alpha",
            Kind::Number(0.0, 100.0),
            Unset::Number(1.5),
            "How strongly slow tasks are pulled.",
        ),
        MOVES,
        RATE,
    ],
    golden: Golden::Cases(&["gradnorm"]),
    begin: |values, tasks| {
        Box::new(Paced {
            alpha: values.number("alpha"),
            s: Scalars::new(tasks, 1.0, moves(values)),
            rate: values.maybe("rate"),
            sums: vec![0.0; tasks],
            counts: vec![0.0; tasks],
        })
    },
};

/// The entries of this file.
pub static METHODS: &[&Method] = &[&SPEC];

struct Paced {
    alpha: f64,
    s: Scalars,
    rate: Option<f64>,
    /// Losses of the first epoch.
    sums: Vec<f64>,
    counts: Vec<f64>,
}

impl Balancer for Paced {
    fn weigh(&mut self, step: &Step<'_>) -> Result<Weights, Unsolved> {
        let n = step.tasks.len();
        if step.at.epoch == 0 {
            for (&t, &l) in step.tasks.iter().zip(step.losses) {
                self.sums[t] += l;
                self.counts[t] += 1.0;
            }
            return Ok(Weights::of_losses(vec![1.0; n]));
        }
        let pace: Vec<f64> = (0..n)
            .map(|i| {
                let t = step.tasks[i];
                // A task that the first epoch did not show begins now.
                let first = match self.counts[t] > 0.0 {
                    true => self.sums[t] / self.counts[t],
                    false => step.losses[i],
                };
                step.losses[i] / first.max(FLOOR)
            })
            .collect();
        let lengths: Vec<f64> = (0..n).map(|i| step.gram.norm(i)).collect();
        let (weights, slopes) = paced(
            &some(&self.s.values, step.tasks),
            &lengths,
            &pace,
            self.alpha,
        );
        self.s
            .step(step.tasks, &slopes, self.rate.unwrap_or(step.at.rate));
        Ok(Weights::of_losses(weights))
    }

    fn state(&self) -> State {
        let mut state = self.s.state();
        state.numbers.insert("sums".into(), self.sums.clone());
        state.numbers.insert("counts".into(), self.counts.clone());
        state
    }

    fn restore(&mut self, state: State) -> Result<(), Unsolved> {
        self.s.restore(&state)?;
        self.sums = state.get("sums", self.sums.len())?;
        self.counts = state.get("counts", self.counts.len())?;
        Ok(())
    }
}

/// Weights, and the gradient of the auxiliary loss by `s`.
pub fn paced(s: &[f64], lengths: &[f64], pace: &[f64], alpha: f64) -> (Vec<f64>, Vec<f64>) {
    let n = s.len() as f64;
    let z = softmax(s);
    let weights: Vec<f64> = z.iter().map(|z| n * z).collect();
    let weighted: Vec<f64> = weights.iter().zip(lengths).map(|(w, l)| w * l).collect();
    let mean = weighted.iter().sum::<f64>() / n;
    let mean_pace = pace.iter().sum::<f64>() / n;
    let pull: Vec<f64> = weighted
        .iter()
        .zip(pace)
        .zip(lengths)
        .map(|((w, p), l)| match w - mean * (p / mean_pace).powf(alpha) {
            0.0 => 0.0,
            off => off.signum() * l,
        })
        .collect();
    let level: f64 = z.iter().zip(&pull).map(|(z, p)| z * p).sum();
    let slopes = z
        .iter()
        .zip(&pull)
        .map(|(z, p)| n * z * (p - level))
        .collect();
    (weights, slopes)
}
