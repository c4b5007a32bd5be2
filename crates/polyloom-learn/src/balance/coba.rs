//! `coba`: weights from how fast the validation losses converge.

use super::losses::FLOOR;
use super::method::{
    Balancer, Golden, Kind, Looks, Method, Param, State, Step, Unset, Unsolved, Wants, Weights,
    softmax, some,
};

static SPEC: Method = Method {
    name: "coba",
    summary: "Less weight for tasks whose validation loss diverges or is done converging",
    source: "Gong et al., EMNLP 2024; codefuse-ai/MFTCoder loss_utils.py",
    formula: "`v_t(i)` = validation loss over its first value; slopes `a_t` of a line through the last `history` of them, `a` of `max_t v_t`. `RCS = softmax(T a_t / sum |a_k|)`; `ACS = softmax(-n a_t / sum_history |a_t|)`; `DF = n softmax(-tau n a(j) / sum |a(j)|)` at the last `j`; `w = softmax(T (DF RCS + (1 - DF) ACS))`, lifted above `1/(10 T)`. Equal weights `1/T` for `warmup` looks.",
    differs: "",
    degenerate: "Nothing is solved. Slopes that are all zero leave the weights as they were.",
    looks: Looks::Losses,
    passes: "one forward pass over validation rows every `interval` steps",
    params: &[
        Param::shared(
            "warmup",
            Kind::Integer(2, 1_000_000),
            Unset::Number(100.0),
            "Looks before the weights move.",
        ),
        Param::shared(
            "history",
            Kind::Integer(2, 1_000_000),
            Unset::Number(200.0),
            "Looks that a line is drawn through; two to five times the warm-up.",
        ),
        Param::shared(
            "tau",
            Kind::Number(0.0, f64::INFINITY),
            Unset::Number(5.0),
            "How sharply divergence is answered.",
        ),
        Param::shared(
            "interval",
            Kind::Integer(1, 1_000_000),
            Unset::Number(1.0),
            "Steps between looks.",
        ),
    ],
    golden: Golden::Cases(&["coba"]),
    begin: |values, tasks| {
        Box::new(Converging {
            course: Course {
                warmup: values.number("warmup") as usize,
                history: values.number("history") as usize,
                tau: values.number("tau"),
                tasks,
                losses: Vec::new(),
                slopes: Vec::new(),
                worst: Vec::new(),
                weights: vec![1.0 / tasks as f64; tasks],
            },
            interval: values.number("interval") as u64,
            first: Vec::new(),
        })
    },
};

/// The entries of this file.
pub static METHODS: &[&Method] = &[&SPEC];

/// The course of the validation losses so far.
#[derive(Debug, Clone)]
struct Course {
    warmup: usize,
    history: usize,
    tau: f64,
    tasks: usize,
    /// `[looks, T]`.
    losses: Vec<f64>,
    /// `[looks after the warm-up, T]`.
    slopes: Vec<f64>,
    /// Slopes of the largest loss.
    worst: Vec<f64>,
    weights: Vec<f64>,
}

impl Course {
    /// Takes the losses of a look, over their first values.
    fn look(&mut self, ratios: &[f64]) {
        self.losses.extend_from_slice(ratios);
        let looks = self.losses.len() / self.tasks;
        if looks >= self.warmup {
            self.weigh(looks);
        }
    }

    fn weigh(&mut self, looks: usize) {
        let n = self.tasks;
        let from = looks.saturating_sub(self.history);
        let at = |i: usize, t: usize| self.losses[i * n + t];
        let now: Vec<f64> = (0..n)
            .map(|t| slope((from..looks).map(|i| (i as f64, at(i, t)))))
            .collect();
        let most = |i: usize| (0..n).map(|t| at(i, t)).fold(f64::NEG_INFINITY, f64::max);
        let worst = slope((from..looks).map(|i| (i as f64, most(i))));
        self.slopes.extend_from_slice(&now);
        self.worst.push(worst);
        let sum: f64 = now.iter().map(|a| a.abs()).sum();
        if sum == 0.0 {
            return;
        }
        let relative = softmax(&now.iter().map(|a| n as f64 * a / sum).collect::<Vec<_>>());
        let kept = (self.slopes.len() / n).saturating_sub(from);
        let first = self.slopes.len() / n - kept;
        let absolute: Vec<f64> = (0..n)
            .map(|t| {
                let size: f64 = self.slopes[first * n..]
                    .iter()
                    .skip(t)
                    .step_by(n)
                    .map(|a| a.abs())
                    .sum();
                -(kept as f64) * now[t] / size.max(f64::MIN_POSITIVE)
            })
            .collect();
        let absolute = softmax(&absolute);
        let all = self.worst.len() as f64;
        let size: f64 = self
            .worst
            .iter()
            .map(|a| a.abs())
            .sum::<f64>()
            .max(f64::MIN_POSITIVE);
        let sharp: Vec<f64> = self
            .worst
            .iter()
            .map(|a| -self.tau * all * a / size)
            .collect();
        let divergence = all * softmax(&sharp).last().copied().unwrap_or(0.0);
        let mixed: Vec<f64> = relative
            .iter()
            .zip(&absolute)
            .map(|(r, a)| n as f64 * (divergence * r + (1.0 - divergence) * a))
            .collect();
        self.weights = softmax(&mixed);
        let least = 1.0 / (10.0 * n as f64);
        if self.weights.iter().any(|w| *w < least) {
            self.weights.iter_mut().for_each(|w| *w = *w * 0.9 + least);
        }
    }
}

/// Slope of the line of least squares; points of height 0 are left out.
fn slope(points: impl Iterator<Item = (f64, f64)>) -> f64 {
    let points: Vec<(f64, f64)> = points.filter(|(_, y)| *y != 0.0).collect();
    let n = points.len().max(1) as f64;
    let mean = points
        .iter()
        .fold((0.0, 0.0), |m, p| (m.0 + p.0 / n, m.1 + p.1 / n));
    let (mut up, mut across) = (0.0, 0.0);
    for (x, y) in points {
        up += (x - mean.0) * (y - mean.1);
        across += (x - mean.0) * (x - mean.0);
    }
    if across > 0.0 { up / across } else { 0.0 }
}

struct Converging {
    course: Course,
    interval: u64,
    /// Losses of the first look.
    first: Vec<f64>,
}

impl Balancer for Converging {
    fn wants(&self) -> Wants {
        Wants::Validation(self.interval)
    }

    fn validated(&mut self, losses: &[f64]) {
        if self.first.is_empty() {
            self.first = losses.iter().map(|l| l.max(FLOOR)).collect();
        }
        let ratios: Vec<f64> = losses.iter().zip(&self.first).map(|(l, f)| l / f).collect();
        self.course.look(&ratios);
    }

    fn weigh(&mut self, step: &Step<'_>) -> Result<Weights, Unsolved> {
        let held = some(&self.course.weights, step.tasks);
        let sum: f64 = held.iter().sum();
        Ok(Weights::of_losses(held.iter().map(|w| w / sum).collect()))
    }

    fn state(&self) -> State {
        State::of([
            ("first", self.first.clone()),
            ("losses", self.course.losses.clone()),
            ("slopes", self.course.slopes.clone()),
            ("worst", self.course.worst.clone()),
            ("weights", self.course.weights.clone()),
        ])
    }

    fn restore(&mut self, state: State) -> Result<(), Unsolved> {
        let n = self.course.tasks;
        self.course.weights = state.get("weights", n)?;
        self.course.losses = state.get("losses", 0)?;
        self.course.slopes = state.get("slopes", 0)?;
        self.course.worst = state.get("worst", 0)?;
        self.first = state.get("first", 0)?;
        let rows = [&self.course.losses, &self.course.slopes, &self.first];
        match rows.iter().all(|r| r.len().is_multiple_of(n.max(1))) {
            true => Ok(()),
            false => Err(Unsolved(
                "the state is one of another number of tasks".into(),
            )),
        }
    }
}
