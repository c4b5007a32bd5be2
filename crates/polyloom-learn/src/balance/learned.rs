//! Weights of losses with learned numbers: `uncertainty`, `famo`.

use super::method::{
    Balancer, Golden, Kind, Looks, Method, Param, State, Step, Unset, Unsolved, Values, Wants,
    Weights, softmax, some,
};
use super::scalars::{Moves, Scalars};

/// The entries of this file.
pub static METHODS: &[&Method] = &[&UNCERTAINTY, &FAMO];

/// Adam or plain descent for learned weights.
pub(super) const MOVES: Param = Param::shared(
    "optimiser",
    Kind::Word(&[("adam", "adam"), ("sgd", "sgd")]),
    Unset::Word("adam"),
    "What moves the learned numbers; they never decay.",
);

/// Learning rate of learned weights.
pub(super) const RATE: Param = Param::shared(
    "rate",
    Kind::Number(0.0, f64::INFINITY),
    Unset::Nothing,
    "Learning rate of the learned numbers; that of the model's step where nothing is said.",
);

pub(super) fn moves(values: &Values) -> Moves {
    match values.word("optimiser") {
        "sgd" => Moves::Sgd,
        _ => Moves::Adam { decay: 0.0 },
    }
}

static UNCERTAINTY: Method = Method {
    name: "uncertainty",
    summary: "A learned log-variance for every task",
    source: "Kendall, Gal, Cipolla, CVPR 2018",
    formula: "`L = sum_t (L_t exp(-s_t) + s_t)/2`, `w_t = exp(-s_t)/2`, `dL/ds_t = (1 - L_t exp(-s_t))/2`; at rest `exp(s_t) = L_t`.",
    differs: "Both public forms are one function; `form = \"libmtl\"` begins at `s = -0.5`, `\"nash\"` at 0. The form of torch-rechub is another one.",
    degenerate: "Nothing is solved.",
    looks: Looks::Losses,
    passes: "",
    params: &[
        Param::shared(
            "form",
            Kind::Word(&[("libmtl", "libmtl"), ("nash", "nash")]),
            Unset::Word("libmtl"),
            "Whose beginning.",
        ),
        Param::shared(
            "init",
            Kind::Number(-50.0, 50.0),
            Unset::Nothing,
            "First log-variance, in place of the form's.",
        ),
        MOVES,
        RATE,
    ],
    golden: Golden::Cases(&["uncertainty"]),
    begin: |values, tasks| {
        let begin = match values.word("form") {
            "nash" => 0.0,
            _ => -0.5,
        };
        let begin = values.maybe("init").unwrap_or(begin);
        Box::new(LogVariances {
            s: Scalars::new(tasks, begin, moves(values)),
            rate: values.maybe("rate"),
        })
    },
};

struct LogVariances {
    s: Scalars,
    rate: Option<f64>,
}

impl Balancer for LogVariances {
    fn weigh(&mut self, step: &Step<'_>) -> Result<Weights, Unsolved> {
        let inverse: Vec<f64> = step
            .tasks
            .iter()
            .map(|t| (-self.s.values[*t]).exp())
            .collect();
        let of = inverse.iter().zip(step.losses);
        let slopes: Vec<f64> = of.map(|(i, l)| 0.5 * (1.0 - l * i)).collect();
        self.s
            .step(step.tasks, &slopes, self.rate.unwrap_or(step.at.rate));
        Ok(Weights::of_losses(
            inverse.iter().map(|i| 0.5 * i).collect(),
        ))
    }

    fn state(&self) -> State {
        self.s.state()
    }

    fn restore(&mut self, state: State) -> Result<(), Unsolved> {
        self.s.restore(&state)
    }
}

static FAMO: Method = Method {
    name: "famo",
    summary: "Equal relative progress of all losses",
    source: "Liu, Feng, Stone, Liu, NeurIPS 2023; Cranial-XIX/FAMO famo.py",
    formula: "`z = softmax(w)`, `D_t = L_t - b_t + 1e-8`; weights `z_t / (c D_t)` with `c = sum z_t/D_t`. After the step the losses of the same rows are taken again: `delta_t = log D_t - log D'_t`, and Adam moves `w` by `z (delta - z.delta)`.",
    differs: "The second look uses the same dropout as the first.",
    degenerate: "Nothing is solved. A loss at or below its floor counts as 1e-8 above it.",
    looks: Looks::Losses,
    passes: "one forward pass",
    params: &[
        Param::shared(
            "w_lr",
            Kind::Number(0.0, f64::INFINITY),
            Unset::Number(0.025),
            "Learning rate of the logits.",
        ),
        Param::shared(
            "gamma",
            Kind::Number(0.0, f64::INFINITY),
            Unset::Number(0.001),
            "Decay of the logits, added to their gradient (0.01 in famo.py, 0.001 in its scripts and LibMTL).",
        ),
        Param::shared(
            "min_losses",
            Kind::Number(0.0, f64::INFINITY),
            Unset::Number(0.0),
            "What no loss falls below.",
        ),
        Param::shared(
            "next_batch",
            Kind::Flag,
            Unset::Flag(false),
            "Takes the losses of the next step's rows for the second look: no further pass.",
        ),
    ],
    golden: Golden::Cases(&["famo"]),
    begin: |values, tasks| {
        let decay = values.number("gamma");
        Box::new(Logits {
            w: Scalars::new(tasks, 0.0, Moves::Adam { decay }),
            rate: values.number("w_lr"),
            floor: values.number("min_losses"),
            next: values.flag("next_batch"),
            before: vec![f64::NAN; tasks],
        })
    },
};

struct Logits {
    w: Scalars,
    rate: f64,
    floor: f64,
    next: bool,
    /// `log D` of the last step, NaN for none.
    before: Vec<f64>,
}

impl Logits {
    fn log(&self, loss: f64) -> f64 {
        ((loss - self.floor).max(0.0) + 1e-8).ln()
    }
}

impl Balancer for Logits {
    fn wants(&self) -> Wants {
        match self.next {
            true => Wants::Nothing,
            false => Wants::LossesAfter,
        }
    }

    fn weigh(&mut self, step: &Step<'_>) -> Result<Weights, Unsolved> {
        if self.next {
            self.after(step.tasks, step.losses);
        }
        let z = softmax(&some(&self.w.values, step.tasks));
        self.before.fill(f64::NAN);
        for (&t, &l) in step.tasks.iter().zip(step.losses) {
            self.before[t] = self.log(l);
        }
        let shares: Vec<f64> = z
            .iter()
            .zip(step.tasks)
            .map(|(z, t)| z / self.before[*t].exp())
            .collect();
        let sum: f64 = shares.iter().sum();
        Ok(Weights::of_losses(shares.iter().map(|s| s / sum).collect()))
    }

    fn after(&mut self, tasks: &[usize], losses: &[f64]) {
        let seen: Vec<(usize, f64)> = tasks
            .iter()
            .zip(losses)
            .filter(|(t, l)| self.before[**t].is_finite() && l.is_finite())
            .map(|(&t, &l)| (t, self.before[t] - self.log(l)))
            .collect();
        let tasks: Vec<usize> = seen.iter().map(|s| s.0).collect();
        let z = softmax(&some(&self.w.values, &tasks));
        let mean: f64 = z.iter().zip(&seen).map(|(z, s)| z * s.1).sum();
        let slopes: Vec<f64> = z.iter().zip(&seen).map(|(z, s)| z * (s.1 - mean)).collect();
        self.w.step(&tasks, &slopes, self.rate);
    }

    fn state(&self) -> State {
        let mut state = self.w.state();
        // JSON has no NaN.
        let before = self
            .before
            .iter()
            .map(|b| if b.is_finite() { *b } else { f64::MAX });
        state.numbers.insert("before".into(), before.collect());
        state
    }

    fn restore(&mut self, state: State) -> Result<(), Unsolved> {
        self.w.restore(&state)?;
        let before = state.get("before", self.before.len())?;
        self.before = before
            .into_iter()
            .map(|b| if b == f64::MAX { f64::NAN } else { b })
            .collect();
        Ok(())
    }
}
