//! Tables with several targets of chosen relatedness, after MultiTab-Bench (Sinodinos et al. 2026).

use serde::{Deserialize, Serialize};

use super::random::Random;

/// What the targets are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// Numbers.
    #[default]
    Regression,
    /// Whether the number is above 0.
    Binary,
    /// Numbers for even tasks, labels for odd ones.
    Mixed,
}

/// Options of the generator.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Multitab {
    /// Below 2^16.
    pub seed: u64,
    /// Rows.
    pub count: u64,
    /// Tasks.
    pub tasks: usize,
    /// Features, at least as many as tasks and outlier tasks together.
    pub features: usize,
    /// Cosine between the weights of two tasks, above -1/(tasks - 1), at most 1.
    pub correlation: f64,
    /// Degrees of the polynomials, cycled over the tasks.
    pub degrees: Vec<u32>,
    /// Standard deviation of the noise.
    pub noise: f64,
    /// What the targets are.
    pub kind: Answer,
    /// Share of the targets of training rows that are withheld, 0 to 1.
    pub missing: f64,
    /// The last so many tasks have weights orthogonal to all others.
    pub outliers: usize,
}

impl Default for Multitab {
    fn default() -> Self {
        Self {
            seed: 7,
            count: 20_000,
            tasks: 8,
            features: 32,
            correlation: 0.5,
            degrees: vec![1, 2, 3],
            noise: 0.5,
            kind: Answer::Regression,
            missing: 0.0,
            outliers: 0,
        }
    }
}

impl Multitab {
    /// Whether the target of a task is a label.
    #[must_use]
    pub fn is_label(&self, t: usize) -> bool {
        match self.kind {
            Answer::Regression => false,
            Answer::Binary => true,
            Answer::Mixed => t % 2 == 1,
        }
    }

    /// Degree of a task.
    #[must_use]
    pub fn degree(&self, t: usize) -> u32 {
        self.degrees[t % self.degrees.len()]
    }
}

/// The weights of the tasks.
#[derive(Debug, Clone, PartialEq)]
pub struct Weights {
    /// The options.
    pub options: Multitab,
    /// Tasks x features; rows of length 1.
    pub w: Vec<Vec<f64>>,
    /// Mean and standard deviation of the polynomial of each task for a standard normal argument.
    moments: Vec<(f64, f64)>,
}

/// One row.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// Features.
    pub x: Vec<f64>,
    /// Numbers behind the targets.
    pub y: Vec<f64>,
}

impl Weights {
    /// The weights of options that are in range.
    #[must_use]
    pub fn new(options: Multitab) -> Self {
        let random = Random::new(options.seed);
        let (t, d, c) = (options.tasks, options.features, options.correlation);
        let mut rows: Vec<Vec<f64>> = Vec::new();
        for (stream, count) in [(51, t), (54, options.outliers)] {
            for row in 0..count {
                let at = |k: usize| random.normal(stream, (d * row + k) as u64);
                let mut g: Vec<f64> = (0..d).map(at).collect();
                for _ in 0..2 {
                    for before in &rows {
                        let along = dot(&g, before);
                        g.iter_mut().zip(before).for_each(|(g, q)| *g -= along * q);
                    }
                }
                let length = dot(&g, &g).sqrt();
                g.iter_mut().for_each(|g| *g /= length);
                rows.push(g);
            }
        }
        let alpha = (1.0 - c).sqrt();
        let beta = ((1.0 - c + t as f64 * c).sqrt() - alpha) / t as f64;
        let sums: Vec<f64> = (0..d)
            .map(|k| rows[..t].iter().fold(0.0, |s, q| s + q[k]))
            .collect();
        let mixed = |q: &Vec<f64>| {
            let pairs = q.iter().zip(&sums);
            pairs.map(|(q, s)| alpha * q + beta * s).collect()
        };
        let near = t - options.outliers;
        let w = rows[..near].iter().map(mixed);
        let w: Vec<Vec<f64>> = w.chain(rows[t..].iter().cloned()).collect();
        let moments = (0..t).map(|t| moments(options.degree(t))).collect();
        Self {
            options,
            w,
            moments,
        }
    }

    /// Row `r`: a pure function of the options and `r`.
    #[must_use]
    pub fn row(&self, r: u64) -> Row {
        let random = Random::new(self.options.seed);
        let (d, t) = (self.options.features as u64, self.options.tasks as u64);
        let x: Vec<f64> = (0..d).map(|k| random.normal(50, d * r + k)).collect();
        let y = self.w.iter().zip(&self.moments).enumerate();
        let y = y.map(|(task, (w, (mu, sd)))| {
            let z = dot(w, &x);
            let (mut sum, mut power) = (0.0, 1.0);
            for _ in 0..self.options.degree(task) {
                power *= z;
                sum += power;
            }
            let noise = random.normal(52, t * r + task as u64);
            (sum - mu) / sd + self.options.noise * noise
        });
        let y = y.collect();
        Row { x, y }
    }

    /// Whether the target of a task of a training row is withheld.
    #[must_use]
    pub fn withheld(&self, r: u64, task: usize) -> bool {
        let Multitab {
            seed,
            missing,
            tasks,
            ..
        } = self.options;
        let at = tasks as u64 * r + task as u64;
        missing > 0.0 && Random::new(seed).uniform(53, at) < missing
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).fold(0.0, |s, (a, b)| s + a * b)
}

/// Mean and standard deviation of z + z^2 + ... + z^degree for a standard normal z.
fn moments(degree: u32) -> (f64, f64) {
    let m = |k: u32| {
        if k % 2 == 1 {
            return 0.0;
        }
        (1..k).step_by(2).fold(1.0, |p, i| p * f64::from(i))
    };
    let mu = (1..=degree).fold(0.0, |s, k| s + m(k));
    let both = (1..=degree).flat_map(|j| (1..=degree).map(move |k| j + k));
    let second = both.fold(0.0, |s, k| s + m(k));
    (mu, (second - mu * mu).sqrt())
}
