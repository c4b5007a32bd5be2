//! Weights from the course of the losses: `dwa`, `stch`.

use super::losses::FLOOR;
use super::method::{
    Balancer, Golden, Kind, Looks, Method, Param, State, Step, Unset, Unsolved, Weights, softmax,
    some,
};

/// The entries of this file.
pub static METHODS: &[&Method] = &[&DWA, &STCH];

static DWA: Method = Method {
    name: "dwa",
    summary: "More weight for losses that fall slowly",
    source: "Liu, Johns, Davison, CVPR 2019; the windowed form: nash-mtl",
    formula: "`r_t` = mean loss of the last epoch over that of the one before, `w_t = T exp(r_t/temperature) / sum_k exp(r_k/temperature)`; 1 in the first two epochs. With `window = W`: means over the last `W` steps and the `W` before them, from step `W + 1` on, weights over `T`.",
    differs: "",
    degenerate: "Nothing is solved.",
    looks: Looks::Losses,
    passes: "",
    params: &[
        Param::shared(
            "temperature",
            Kind::Number(1e-6, f64::INFINITY),
            Unset::Number(2.0),
            "Higher is more even.",
        ),
        Param::shared(
            "window",
            Kind::Integer(1, 1_000_000),
            Unset::Nothing,
            "Steps of a window, in place of epochs; 25 in nash-mtl.",
        ),
    ],
    golden: Golden::Cases(&["dwa"]),
    begin: |values, tasks| {
        let temperature = values.number("temperature");
        match values.maybe("window") {
            None => Box::new(ByEpochs {
                temperature,
                means: Epochs::new(tasks),
            }),
            Some(window) => Box::new(ByWindow {
                temperature,
                losses: vec![1.0; tasks * 2 * window as usize],
                tasks,
                steps: 0.0,
            }),
        }
    },
};

/// Mean losses of epochs.
#[derive(Debug, Clone)]
struct Epochs {
    tasks: usize,
    /// Of the epoch that goes on: its number, sums and counts.
    now: u64,
    sums: Vec<f64>,
    counts: Vec<f64>,
    /// Of the epochs that are over, one after the other.
    done: Vec<f64>,
}

impl Epochs {
    fn new(tasks: usize) -> Self {
        Self {
            tasks,
            now: 0,
            sums: vec![0.0; tasks],
            counts: vec![0.0; tasks],
            done: Vec::new(),
        }
    }

    /// Counts the losses of a step; true if it is the first of an epoch.
    fn add(&mut self, step: &Step<'_>) -> bool {
        let first = step.at.epoch > self.now;
        if first {
            // A task that was not seen keeps its last mean.
            let last = self.done.len().saturating_sub(self.tasks);
            let mean = |t: usize| match self.counts[t] > 0.0 {
                true => self.sums[t] / self.counts[t],
                false => self.done.get(last + t).copied().unwrap_or(1.0),
            };
            let means: Vec<f64> = (0..self.tasks).map(mean).collect();
            self.done.extend(means);
            self.now = step.at.epoch;
            self.sums.fill(0.0);
            self.counts.fill(0.0);
        }
        for (&t, &l) in step.tasks.iter().zip(step.losses) {
            self.sums[t] += l;
            self.counts[t] += 1.0;
        }
        first
    }

    /// Means of an epoch that is over, counted from the last.
    fn back(&self, epochs: usize) -> Option<&[f64]> {
        let end = self.done.len().checked_sub(epochs * self.tasks)?;
        end.checked_sub(self.tasks).map(|at| &self.done[at..end])
    }

    fn state(&self) -> State {
        State::of([
            ("epoch", vec![self.now as f64]),
            ("sums", self.sums.clone()),
            ("counts", self.counts.clone()),
            ("done", self.done.clone()),
        ])
    }

    fn restore(&mut self, state: &State) -> Result<(), Unsolved> {
        let done = state.get("done", 0)?;
        if !done.len().is_multiple_of(self.tasks.max(1)) {
            return Err(Unsolved(
                "the state is one of another number of tasks".into(),
            ));
        }
        self.now = state.get("epoch", 1)?[0] as u64;
        self.sums = state.get("sums", self.tasks)?;
        self.counts = state.get("counts", self.tasks)?;
        self.done = done;
        Ok(())
    }
}

/// `n softmax(now / before / temperature)` over the tasks of a step.
fn by_ratio(now: &[f64], before: &[f64], temperature: f64, tasks: &[usize]) -> Vec<f64> {
    let ratios: Vec<f64> = tasks
        .iter()
        .map(|t| now[*t] / before[*t].max(FLOOR) / temperature)
        .collect();
    let n = tasks.len() as f64;
    softmax(&ratios).iter().map(|w| n * w).collect()
}

struct ByEpochs {
    temperature: f64,
    means: Epochs,
}

impl Balancer for ByEpochs {
    fn weigh(&mut self, step: &Step<'_>) -> Result<Weights, Unsolved> {
        self.means.add(step);
        let weights = match (self.means.back(0), self.means.back(1)) {
            (Some(last), Some(before)) => by_ratio(last, before, self.temperature, step.tasks),
            _ => vec![1.0; step.tasks.len()],
        };
        Ok(Weights::of_losses(weights))
    }

    fn state(&self) -> State {
        self.means.state()
    }

    fn restore(&mut self, state: State) -> Result<(), Unsolved> {
        self.means.restore(&state)
    }
}

struct ByWindow {
    temperature: f64,
    /// Of the last `2 W` steps, the oldest first.
    losses: Vec<f64>,
    tasks: usize,
    steps: f64,
}

impl Balancer for ByWindow {
    fn weigh(&mut self, step: &Step<'_>) -> Result<Weights, Unsolved> {
        let (n, k) = (self.losses.len(), self.tasks);
        self.losses.copy_within(k.., 0);
        for t in 0..k {
            // A task that is not here is as it was.
            self.losses[n - k + t] = match step.tasks.iter().position(|s| *s == t) {
                Some(i) => step.losses[i],
                None => self.losses[n - 2 * k + t],
            };
        }
        let window = n / k / 2;
        let mean = |half: &[f64]| -> Vec<f64> {
            (0..k)
                .map(|t| half.iter().skip(t).step_by(k).sum::<f64>() / window as f64)
                .collect()
        };
        let (before, last) = self.losses.split_at(n / 2);
        let weights = match self.steps > window as f64 {
            true => by_ratio(&mean(last), &mean(before), self.temperature, step.tasks),
            false => vec![1.0; step.tasks.len()],
        };
        self.steps += 1.0;
        let share = 1.0 / step.tasks.len() as f64;
        Ok(Weights::of_losses(
            weights.iter().map(|w| w * share).collect(),
        ))
    }

    fn state(&self) -> State {
        State::of([("losses", self.losses.clone()), ("steps", vec![self.steps])])
    }

    fn restore(&mut self, state: State) -> Result<(), Unsolved> {
        self.losses = state.get("losses", self.losses.len())?;
        self.steps = state.get("steps", 1)?[0];
        Ok(())
    }
}

static STCH: Method = Method {
    name: "stch",
    summary: "Smooth Chebyshev scalarisation: mostly the loss that is worst beside where it stood",
    source: "Lin et al., ICML 2024; LibMTL weighting/STCH.py",
    formula: "`L = mu n log sum_t exp((log(L_t/nadir_t) - max) / mu)`; `w_t = n softmax(log(L_t/nadir_t)/mu)_t / L_t`. In the first `warmup` epochs `sum_t log L_t`; `nadir_t` = mean loss of the next epoch, in which they stay.",
    differs: "",
    degenerate: "Losses below 1e-8 count as 1e-8.",
    looks: Looks::Losses,
    passes: "",
    params: &[
        Param::shared(
            "mu",
            Kind::Number(1e-6, f64::INFINITY),
            Unset::Number(1.0),
            "Lower is closer to the worst loss alone.",
        ),
        Param::shared(
            "warmup",
            Kind::Integer(0, 1_000_000),
            Unset::Number(4.0),
            "Epochs before the one that sets the nadir.",
        ),
    ],
    golden: Golden::Cases(&["stch"]),
    begin: |values, tasks| {
        Box::new(Chebyshev {
            mu: values.number("mu"),
            warmup: values.number("warmup") as u64,
            means: Epochs::new(tasks),
            nadir: Vec::new(),
        })
    },
};

struct Chebyshev {
    mu: f64,
    warmup: u64,
    means: Epochs,
    /// Empty before it is known.
    nadir: Vec<f64>,
}

impl Balancer for Chebyshev {
    fn weigh(&mut self, step: &Step<'_>) -> Result<Weights, Unsolved> {
        let first = self.means.add(step);
        if first && self.nadir.is_empty() && step.at.epoch > self.warmup {
            self.nadir = self.means.back(0).unwrap_or_default().to_vec();
        }
        let losses: Vec<f64> = step.losses.iter().map(|l| l.max(FLOOR)).collect();
        if self.nadir.is_empty() {
            return Ok(Weights::of_losses(losses.iter().map(|l| 1.0 / l).collect()));
        }
        let nadir = some(&self.nadir, step.tasks);
        let above: Vec<f64> = losses
            .iter()
            .zip(&nadir)
            .map(|(l, n)| (l / n.max(FLOOR)).ln() / self.mu)
            .collect();
        let n = losses.len() as f64;
        let shares = softmax(&above);
        Ok(Weights::of_losses(
            shares.iter().zip(&losses).map(|(s, l)| n * s / l).collect(),
        ))
    }

    fn state(&self) -> State {
        let mut state = self.means.state();
        state.numbers.insert("nadir".into(), self.nadir.clone());
        state
    }

    fn restore(&mut self, state: State) -> Result<(), Unsolved> {
        let nadir = state.get("nadir", 0)?;
        if !nadir.is_empty() && nadir.len() != self.means.tasks {
            return Err(Unsolved(
                "the state is one of another number of tasks".into(),
            ));
        }
        if state.numbers.contains_key("done") {
            self.means.restore(&state)?;
        }
        self.nadir = nadir;
        Ok(())
    }
}
