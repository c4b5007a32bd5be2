//! Methods that remember a vector for every task: `moco`, `db_mtl`, `excess`.

use rayon::prelude::*;

use super::dots;
use super::losses::FLOOR;
use super::method::{
    Balancer, Golden, Kind, Looks, Method, Param, State, Step, Unset, Unsolved, Weights, softmax,
    some,
};

/// The entries of this file.
pub static METHODS: &[&Method] = &[&MOCO, &DB_MTL, &EXCESS];

/// Elements that one thread works on.
const BLOCK: usize = 4096;

/// A vector for every task; empty before its first step.
struct Rows(Vec<Vec<f32>>);

impl Rows {
    fn new(tasks: usize) -> Self {
        Self(vec![Vec::new(); tasks])
    }

    /// `y <- keep y + add g` for a task.
    fn move_to(&mut self, task: usize, keep: f64, add: f64, g: &[f32]) {
        self.each(task, g, move |y, g| {
            *y = (keep * f64::from(*y) + add * f64::from(g)) as f32;
        });
    }

    fn each(&mut self, task: usize, g: &[f32], f: impl Fn(&mut f32, f32) + Sync) {
        let y = &mut self.0[task];
        if y.is_empty() {
            y.resize(g.len(), 0.0);
        }
        y.par_chunks_mut(BLOCK)
            .zip(g.par_chunks(BLOCK))
            .for_each(|(y, g)| y.iter_mut().zip(g).for_each(|(y, g)| f(y, *g)));
    }

    fn of(&self, tasks: &[usize]) -> Vec<&[f32]> {
        tasks.iter().map(|t| &self.0[*t][..]).collect()
    }

    fn restore(&mut self, rows: Vec<Vec<f32>>) -> Result<(), Unsolved> {
        let length = rows.iter().map(Vec::len).max().unwrap_or(0);
        if rows.len() != self.0.len() || rows.iter().any(|r| !r.is_empty() && r.len() != length) {
            return Err(Unsolved("the state is one of other tasks".into()));
        }
        self.0 = rows;
        Ok(())
    }
}

static MOCO: Method = Method {
    name: "moco",
    summary: "MGDA on gradients that are followed over the steps",
    source: "Fernando et al., ICLR 2023; LibMTL weighting/MoCo.py",
    formula: "`h_t = L_t g_t/(|g_t| + 1e-8)`, step `k` from 1: `y_t -= (beta/k^beta_sigma)(y_t - h_t)`, `lambda <- softmax(lambda - (gamma/k^gamma_sigma)(Y Y' + rho I) lambda)`, `d = sum lambda_t y_t`.",
    differs: "The length of `h_t` is LibMTL's addition, kept.",
    degenerate: "Nothing is solved.",
    looks: Looks::Elements,
    passes: "",
    params: &[
        Param::shared(
            "beta",
            Kind::Number(0.0, 1.0),
            Unset::Number(0.5),
            "How fast `y` follows.",
        ),
        Param::shared(
            "beta_sigma",
            Kind::Number(0.0, 10.0),
            Unset::Number(0.5),
            "How fast that fades.",
        ),
        Param::shared(
            "gamma",
            Kind::Number(0.0, f64::INFINITY),
            Unset::Number(0.1),
            "How fast the weights move.",
        ),
        Param::shared(
            "gamma_sigma",
            Kind::Number(0.0, 10.0),
            Unset::Number(0.5),
            "How fast that fades.",
        ),
        Param::shared(
            "rho",
            Kind::Number(0.0, f64::INFINITY),
            Unset::Number(0.0),
            "Pull towards equal weights.",
        ),
    ],
    golden: Golden::Cases(&["moco"]),
    begin: |values, tasks| {
        let fading = |a: &str, b: &str| (values.number(a), values.number(b));
        Box::new(Followed {
            beta: fading("beta", "beta_sigma"),
            gamma: fading("gamma", "gamma_sigma"),
            rho: values.number("rho"),
            y: Rows::new(tasks),
            lambda: vec![1.0 / tasks as f64; tasks],
            steps: 0.0,
        })
    },
};

struct Followed {
    beta: (f64, f64),
    gamma: (f64, f64),
    rho: f64,
    y: Rows,
    lambda: Vec<f64>,
    steps: f64,
}

impl Balancer for Followed {
    fn weigh(&mut self, step: &Step<'_>) -> Result<Weights, Unsolved> {
        self.steps += 1.0;
        let now = |(size, fade): (f64, f64)| size / self.steps.powf(fade);
        let (beta, gamma) = (now(self.beta), now(self.gamma));
        for (i, &t) in step.tasks.iter().enumerate() {
            let unit = step.losses[i] / (step.gram.norm(i) + 1e-8);
            self.y
                .move_to(t, 1.0 - beta, beta * unit, step.gradients[i]);
        }
        let gram = dots::of(&self.y.of(step.tasks));
        // Tasks that are not here keep their share.
        let held = some(&self.lambda, step.tasks);
        let share: f64 = held.iter().sum();
        let lambda: Vec<f64> = held.iter().map(|l| l / share).collect();
        let moved: Vec<f64> = lambda
            .iter()
            .enumerate()
            .map(|(i, l)| l - gamma * (gram.dot_sum(i, &lambda) + self.rho * l))
            .collect();
        let lambda = softmax(&moved);
        step.tasks
            .iter()
            .zip(&lambda)
            .for_each(|(t, l)| self.lambda[*t] = l * share);
        Ok(Weights::of_gradients(lambda, step.tasks.len()))
    }

    fn rows<'a>(&'a self, step: &Step<'a>) -> Vec<&'a [f32]> {
        self.y.of(step.tasks)
    }

    fn state(&self) -> State {
        State {
            rows: self.y.0.clone(),
            ..State::of([("lambda", self.lambda.clone()), ("steps", vec![self.steps])])
        }
    }

    fn restore(&mut self, state: State) -> Result<(), Unsolved> {
        self.lambda = state.get("lambda", self.lambda.len())?;
        self.steps = state.get("steps", 1)?[0];
        self.y.restore(state.rows)
    }
}

static DB_MTL: Method = Method {
    name: "db_mtl",
    summary: "Logarithms of the losses, and gradients of one length",
    source: "Lin et al., arXiv 2308.12029",
    formula: "`h_t = g_t/(L_t + 1e-8)`, step `k` from 1: `y_t <- h_t + (beta/k^beta_sigma)(y_t - h_t)`; `d = sum_t (max_k |y_k| / (|y_t| + 1e-8)) y_t`. A task's own parameters receive the gradient of `log L_t`.",
    differs: "",
    degenerate: "Nothing is solved.",
    looks: Looks::Elements,
    passes: "",
    params: &[
        Param::shared(
            "beta",
            Kind::Number(0.0, 1.0),
            Unset::Number(0.9),
            "Share of `y` that stays.",
        ),
        Param::shared(
            "beta_sigma",
            Kind::Number(0.0, 10.0),
            Unset::Number(0.0),
            "How fast that fades.",
        ),
    ],
    golden: Golden::Cases(&["db_mtl"]),
    begin: |values, tasks| {
        Box::new(DualBalance {
            beta: values.number("beta"),
            fade: values.number("beta_sigma"),
            y: Rows::new(tasks),
            steps: 0.0,
        })
    },
};

struct DualBalance {
    beta: f64,
    fade: f64,
    y: Rows,
    steps: f64,
}

impl Balancer for DualBalance {
    fn weigh(&mut self, step: &Step<'_>) -> Result<Weights, Unsolved> {
        self.steps += 1.0;
        let keep = self.beta / self.steps.powf(self.fade);
        let inverse: Vec<f64> = step
            .losses
            .iter()
            .map(|l| 1.0 / (l.max(0.0) + FLOOR))
            .collect();
        for ((&t, g), by_loss) in step.tasks.iter().zip(step.gradients).zip(&inverse) {
            self.y.move_to(t, keep, (1.0 - keep) * by_loss, g);
        }
        let square = |y: &&[f32]| polyloom_core::nn::elementwise::squares(y).sqrt();
        let lengths: Vec<f64> = self.y.of(step.tasks).iter().map(square).collect();
        let most = lengths.iter().copied().fold(0.0, f64::max);
        let weights = lengths.iter().map(|l| most / (l + 1e-8)).collect();
        Ok(Weights {
            own: inverse,
            ..Weights::of_gradients(weights, 0)
        })
    }

    fn rows<'a>(&'a self, step: &Step<'a>) -> Vec<&'a [f32]> {
        self.y.of(step.tasks)
    }

    fn state(&self) -> State {
        State {
            rows: self.y.0.clone(),
            ..State::of([("steps", vec![self.steps])])
        }
    }

    fn restore(&mut self, state: State) -> Result<(), Unsolved> {
        self.steps = state.get("steps", 1)?[0];
        self.y.restore(state.rows)
    }
}

static EXCESS: Method = Method {
    name: "excess",
    summary: "More weight for tasks that are far above what they can reach",
    source: "He et al., ICML 2024; LibMTL weighting/ExcessMTL.py",
    formula: "`h_t += g_t^2`, `e_t = g_t.(g_t/sqrt(h_t + 1e-7))`; the first step keeps `e_t(0)`; then `w_t <- w_t exp(step e_t/e_t(0))`, scaled to sum to `n`.",
    differs: "",
    degenerate: "Nothing is solved.",
    looks: Looks::Elements,
    passes: "",
    params: &[Param::shared(
        "step",
        Kind::Number(0.0, 100.0),
        Unset::Number(0.01),
        "How fast the weights move.",
    )],
    golden: Golden::Cases(&["excess"]),
    begin: |values, tasks| {
        Box::new(Excesses {
            step: values.number("step"),
            squares: Rows::new(tasks),
            first: vec![0.0; tasks],
            weights: vec![1.0; tasks],
        })
    },
};

struct Excesses {
    step: f64,
    squares: Rows,
    /// 0 before a task's first step.
    first: Vec<f64>,
    weights: Vec<f64>,
}

impl Balancer for Excesses {
    fn weigh(&mut self, step: &Step<'_>) -> Result<Weights, Unsolved> {
        let n = step.tasks.len();
        let mut moved = false;
        for (&t, g) in step.tasks.iter().zip(step.gradients) {
            self.squares.each(t, g, |h, g| {
                *h = (f64::from(*h) + f64::from(g).powi(2)) as f32;
            });
            let block = |(h, g): (&[f32], &[f32])| -> f64 {
                let of =
                    |(h, g): (&f32, &f32)| f64::from(*g).powi(2) / (f64::from(*h) + 1e-7).sqrt();
                h.iter().zip(g).map(of).sum()
            };
            // In order, whoever computed them.
            let blocks: Vec<f64> = self.squares.0[t]
                .par_chunks(BLOCK)
                .zip(g.par_chunks(BLOCK))
                .map(block)
                .collect();
            let excess: f64 = blocks.iter().sum();
            if self.first[t] > 0.0 {
                self.weights[t] *= (self.step * excess / self.first[t]).exp();
                moved = true;
            } else {
                self.first[t] = excess;
            }
        }
        let sum: f64 = step.tasks.iter().map(|t| self.weights[*t]).sum();
        if moved && sum > 0.0 && sum.is_finite() {
            step.tasks
                .iter()
                .for_each(|t| self.weights[*t] *= n as f64 / sum);
        }
        Ok(Weights::of_losses(some(&self.weights, step.tasks)))
    }

    fn state(&self) -> State {
        State {
            rows: self.squares.0.clone(),
            ..State::of([
                ("first", self.first.clone()),
                ("weights", self.weights.clone()),
            ])
        }
    }

    fn restore(&mut self, state: State) -> Result<(), Unsolved> {
        self.first = state.get("first", self.first.len())?;
        self.weights = state.get("weights", self.weights.len())?;
        self.squares.restore(state.rows)
    }
}
