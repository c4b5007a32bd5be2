//! `nash` and `fairgrad`: weights at which every task's gain is in proportion to its need.

use super::method::{
    Balancer, Golden, Kind, Looks, Method, Param, State, Step, Unset, Unsolved, Weights,
};
use super::newton;

/// The entries of this file.
pub static METHODS: &[&Method] = &[&NASH, &FAIRGRAD];

static NASH: Method = Method {
    name: "nash",
    summary: "The bargain of Nash between the tasks",
    source: "Navon et al., ICML 2022",
    formula: "`A w = 1/w`, `w > 0`; `d = sum w_t g_t`, shortened to `max_norm`.",
    differs: "Newton's method on `w'A w/2 - sum log w`, to a residual of 1e-8, in place of 20 linearised programs for a solver that, where it is not installed, leaves equal weights without a word.",
    degenerate: "No answer where a gradient is zero or a sum of gradients with positive weights is: the step falls back to equal weights and is counted.",
    looks: Looks::Gram,
    passes: "",
    params: &[
        Param::shared(
            "update_weights_every",
            Kind::Integer(1, 1_000_000),
            Unset::Number(1.0),
            "Steps between solutions; the weights stay in between.",
        ),
        Param::shared(
            "max_norm",
            Kind::Number(0.0, f64::INFINITY),
            Unset::Number(1.0),
            "Longest direction; 0 for any.",
        ),
        Param::shared(
            "optim_niter",
            Kind::Integer(1, 100_000),
            Unset::Number(200.0),
            "Newton steps at most; about ten are needed.",
        ),
        Param::shared(
            "scale_heads",
            Kind::Flag,
            Unset::Flag(true),
            "The weights count for a task's own parameters too, as where losses are multiplied.",
        ),
    ],
    golden: Golden::Cases(&["nash"]),
    begin: |values, tasks| {
        Box::new(Bargain {
            every: values.number("update_weights_every") as u64,
            longest: values.number("max_norm"),
            most: values.number("optim_niter") as usize,
            heads: values.flag("scale_heads"),
            held: vec![0.0; tasks],
        })
    },
};

struct Bargain {
    every: u64,
    longest: f64,
    most: usize,
    heads: bool,
    /// Weights of the last solution; 0 where a task was not in it.
    held: Vec<f64>,
}

impl Balancer for Bargain {
    fn weigh(&mut self, step: &Step<'_>) -> Result<Weights, Unsolved> {
        let known = step.tasks.iter().all(|t| self.held[*t] > 0.0);
        let mut weights = match known && !step.at.step.is_multiple_of(self.every) {
            true => step.tasks.iter().map(|t| self.held[*t]).collect(),
            false => {
                let found = newton::solve(step.gram, 1.0, self.most)?;
                self.held.fill(0.0);
                step.tasks
                    .iter()
                    .zip(&found)
                    .for_each(|(t, w)| self.held[*t] = *w);
                found
            }
        };
        let own = match self.heads {
            true => weights.clone(),
            false => vec![1.0; weights.len()],
        };
        let length = step.gram.norm_of_sum(&weights);
        if self.longest > 0.0 && length > self.longest {
            weights.iter_mut().for_each(|w| *w *= self.longest / length);
        }
        Ok(Weights {
            own,
            ..Weights::of_gradients(weights, 0)
        })
    }

    fn state(&self) -> State {
        State::of([("weights", self.held.clone())])
    }

    fn restore(&mut self, state: State) -> Result<(), Unsolved> {
        self.held = state.get("weights", self.held.len())?;
        Ok(())
    }
}

static FAIRGRAD: Method = Method {
    name: "fairgrad",
    summary: "Alpha-fair progress of the tasks",
    source: "Ban and Ji, ICML 2024",
    formula: "`A w = w^(-1/alpha)`, `w > 0`; `d = sum w_t g_t`. `alpha = 1` is `nash` without its shortening.",
    differs: "Newton's method, to a residual of 1e-8; bounded least squares, which public code uses, stops far from the root where lengths differ.",
    degenerate: "As `nash`.",
    looks: Looks::Gram,
    passes: "",
    params: &[
        Param::shared(
            "alpha",
            Kind::Number(0.1, 100.0),
            Unset::Number(1.0),
            "Fairness: 1 proportional, higher closer to the worst task; 2 in the paper's runs.",
        ),
        Param::shared(
            "optim_niter",
            Kind::Integer(1, 100_000),
            Unset::Number(200.0),
            "Newton steps at most.",
        ),
    ],
    golden: Golden::Cases(&["fairgrad"]),
    begin: |values, _| {
        Box::new(AlphaFair {
            alpha: values.number("alpha"),
            most: values.number("optim_niter") as usize,
        })
    },
};

struct AlphaFair {
    alpha: f64,
    most: usize,
}

impl Balancer for AlphaFair {
    fn weigh(&mut self, step: &Step<'_>) -> Result<Weights, Unsolved> {
        let weights = newton::solve(step.gram, self.alpha, self.most)?;
        Ok(Weights::of_gradients(weights, step.gram.len()))
    }
}
