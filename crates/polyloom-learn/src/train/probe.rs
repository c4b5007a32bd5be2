//! Linear probes: heads fitted to features of a model that stays as it is.
//!
//! Features are centred and divided by one common deviation, both put into weight and bias afterwards. Classes: logistic
//! regression, `½ |W|² + C Σ loss` without a penalty on the bias (scikit-learn's objective), by L-BFGS (Nocedal 1980);
//! labels of which any number may hold: the same for every label on its own. Numbers: ridge regression in closed form.
//! `C` is the one of [`GRID`] that does best on the validation rows, 1 where there are none.

use polyloom_core::linalg::{Matrix, solve_definite};
use polyloom_core::nn::matmul::{Threads, View, product};
use polyloom_core::nn::softmax;

use crate::tasks::HeadKind;

/// Inverse strengths of the penalty that are tried.
pub const GRID: [f64; 7] = [0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0];

/// Features `[n, width]` with what is right.
pub struct Seen<'a> {
    /// Row by row.
    pub features: &'a [f32],
    /// What is right: class, or classes, or the number, `[n]`.
    pub wanted: &'a [Target],
}

/// What is right of a row.
#[derive(Debug, Clone, PartialEq)]
pub enum Target {
    /// A class.
    Class(u32),
    /// Classes that hold.
    Set(Vec<u32>),
    /// A number, standardised.
    Number(f64),
}

/// A fitted head.
#[derive(Debug, Clone, PartialEq)]
pub struct Probe {
    /// `[outputs, width]`.
    pub weight: Vec<f32>,
    /// `[outputs]`.
    pub bias: Vec<f32>,
    /// The inverse strength of the penalty.
    pub c: f64,
}

/// Fits a head.
#[must_use]
pub fn fit(
    kind: HeadKind,
    outputs: usize,
    train: &Seen<'_>,
    validation: Option<&Seen<'_>>,
) -> Probe {
    let n = train.wanted.len();
    let width = train.features.len() / n.max(1);
    let mut mean = vec![0f64; width];
    for row in train.features.chunks_exact(width) {
        mean.iter_mut()
            .zip(row)
            .for_each(|(m, x)| *m += f64::from(*x));
    }
    mean.iter_mut().for_each(|m| *m /= n as f64);
    let squares: f64 = train
        .features
        .chunks_exact(width)
        .flat_map(|row| {
            row.iter()
                .zip(&mean)
                .map(|(x, m)| (f64::from(*x) - m).powi(2))
        })
        .sum();
    let deviation = (squares / (n * width) as f64).sqrt().max(1e-12);
    let centred = |features: &[f32]| -> Vec<f32> {
        let row = |row: &[f32]| -> Vec<f32> {
            let value = |(x, m): (&f32, &f64)| ((f64::from(*x) - m) / deviation) as f32;
            row.iter().zip(&mean).map(value).collect()
        };
        features.chunks_exact(width).flat_map(row).collect()
    };
    let x = centred(train.features);
    let held = validation.map(|v| (centred(v.features), v.wanted));
    let grid: &[f64] = if held.is_some() { &GRID } else { &[1.0] };
    let mut best: Option<(f64, f64, Vec<f64>)> = None;
    let mut theta = vec![0f64; outputs * (width + 1)];
    for &c in grid {
        let problem = Problem {
            x: &x,
            width,
            outputs,
            wanted: train.wanted,
            c,
            kind,
        };
        theta = match kind {
            HeadKind::Regression => problem.ridge(),
            _ => minimised(&|theta| problem.value(theta), theta),
        };
        let loss = match &held {
            None => 0.0,
            Some((x, wanted)) => judged(kind, x, wanted, width, outputs, &theta),
        };
        if best.as_ref().is_none_or(|(least, ..)| loss < *least) {
            best = Some((loss, c, theta.clone()));
        }
    }
    let (_, c, theta) = best.unwrap_or((0.0, 1.0, theta));
    // Centre and deviation are put in.
    let (w, b) = theta.split_at(outputs * width);
    let mut probe = Probe {
        weight: Vec::with_capacity(w.len()),
        bias: Vec::with_capacity(outputs),
        c,
    };
    for (row, b) in w.chunks_exact(width.max(1)).zip(b) {
        let shift: f64 = row.iter().zip(&mean).map(|(w, m)| w / deviation * m).sum();
        probe
            .weight
            .extend(row.iter().map(|w| (w / deviation) as f32));
        probe.bias.push((b - shift) as f32);
    }
    probe
}

struct Problem<'a> {
    x: &'a [f32],
    width: usize,
    outputs: usize,
    wanted: &'a [Target],
    c: f64,
    kind: HeadKind,
}

/// Scores `[n, outputs]` of parameters `[outputs * width + outputs]`.
fn scores(x: &[f32], width: usize, outputs: usize, theta: &[f64]) -> Vec<f32> {
    let w: Vec<f32> = theta[..outputs * width].iter().map(|w| *w as f32).collect();
    let n = x.len() / width.max(1);
    let mut out = product(
        1.0,
        View::new(x, n, width),
        View::new(&w, outputs, width).t(),
        Threads::All,
    );
    for row in out.chunks_exact_mut(outputs) {
        for (s, b) in row.iter_mut().zip(&theta[outputs * width..]) {
            *s += *b as f32;
        }
    }
    out
}

impl Problem<'_> {
    /// The objective and its gradient.
    fn value(&self, theta: &[f64]) -> (f64, Vec<f64>) {
        let mut p = scores(self.x, self.width, self.outputs, theta);
        let mut loss = 0f64;
        if self.kind == HeadKind::Classification {
            softmax::forward(&mut p, self.outputs);
        }
        // From probabilities to the gradient of the scores, in place.
        for (row, wanted) in p.chunks_exact_mut(self.outputs).zip(self.wanted) {
            match wanted {
                Target::Class(class) => {
                    let at = &mut row[*class as usize];
                    loss -= f64::from(at.max(1e-30)).ln();
                    *at -= 1.0;
                }
                Target::Set(set) => {
                    for (i, z) in row.iter_mut().enumerate() {
                        let holds = set.contains(&(i as u32));
                        let x = f64::from(*z);
                        // log(1 + e^-|x|) + max(x, 0) - x y
                        loss += (-x.abs()).exp().ln_1p() + x.max(0.0) - if holds { x } else { 0.0 };
                        *z = (1.0 / (1.0 + (-x).exp()) - f64::from(u8::from(holds))) as f32;
                    }
                }
                Target::Number(_) => {}
            }
        }
        let n = self.wanted.len();
        let by_weight = product(
            1.0,
            View::new(&p, n, self.outputs).t(),
            View::new(self.x, n, self.width),
            Threads::All,
        );
        let (w, _) = theta.split_at(self.outputs * self.width);
        let mut gradient: Vec<f64> = w
            .iter()
            .zip(&by_weight)
            .map(|(w, g)| w + self.c * f64::from(*g))
            .collect();
        let mut by_bias = vec![0f64; self.outputs];
        for row in p.chunks_exact(self.outputs) {
            by_bias
                .iter_mut()
                .zip(row)
                .for_each(|(b, g)| *b += f64::from(*g));
        }
        gradient.extend(by_bias.iter().map(|g| self.c * g));
        let penalty = 0.5 * w.iter().map(|w| w * w).sum::<f64>();
        (penalty + self.c * loss, gradient)
    }

    /// Ridge regression of centred features: `w (XᵀX + I / C) = yᵀX`, the bias is the mean.
    fn ridge(&self) -> Vec<f64> {
        let n = self.wanted.len();
        let y: Vec<f64> = self
            .wanted
            .iter()
            .map(|t| match t {
                Target::Number(y) => *y,
                _ => 0.0,
            })
            .collect();
        let mean = y.iter().sum::<f64>() / n.max(1) as f64;
        let x = Matrix::from_f32(n, self.width, self.x);
        let mut g = Matrix::zeros(self.width, self.width);
        g.add_gram(1.0, &x);
        for i in 0..self.width {
            g.data[i * self.width + i] += 1.0 / self.c;
        }
        let mut right = Matrix::zeros(1, self.width);
        for (row, y) in self.x.chunks_exact(self.width).zip(&y) {
            for (r, x) in right.data.iter_mut().zip(row) {
                *r += (y - mean) * f64::from(*x);
            }
        }
        let mut theta = match solve_definite(&g, right) {
            Some(w) => w.data,
            None => vec![0.0; self.width],
        };
        theta.push(mean);
        theta
    }
}

/// How bad a probe is on other rows: the share of wrong classes, the mean loss of labels, the mean square.
fn judged(
    kind: HeadKind,
    x: &[f32],
    wanted: &[Target],
    width: usize,
    outputs: usize,
    theta: &[f64],
) -> f64 {
    let found = scores(x, width, outputs, theta);
    let one = |(row, wanted): (&[f32], &Target)| match wanted {
        Target::Class(class) => f64::from(u8::from(
            crate::tasks::answers::largest(row) != *class as usize,
        )),
        Target::Set(set) => row
            .iter()
            .enumerate()
            .map(|(i, z)| {
                let (z, y) = (f64::from(*z), set.contains(&(i as u32)));
                (-z.abs()).exp().ln_1p() + z.max(0.0) - if y { z } else { 0.0 }
            })
            .sum(),
        Target::Number(y) => (f64::from(row[0]) - y).powi(2),
    };
    debug_assert!(kind != HeadKind::Regression || outputs == 1);
    found
        .chunks_exact(outputs)
        .zip(wanted)
        .map(one)
        .sum::<f64>()
        / wanted.len().max(1) as f64
}

/// A value and its gradient at a place.
type Objective<'a> = &'a dyn Fn(&[f64]) -> (f64, Vec<f64>);

/// The smallest value of a smooth convex function, by L-BFGS with ten pairs and a backtracking line search; at most 300
/// steps, or until the largest derivative is below 1e-4 of the first one's (at least 1e-4).
fn minimised(f: Objective<'_>, mut x: Vec<f64>) -> Vec<f64> {
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let largest = |g: &[f64]| g.iter().fold(0f64, |m, g| m.max(g.abs()));
    let (mut value, mut gradient) = f(&x);
    let enough = 1e-4 * largest(&gradient).max(1.0);
    let mut pairs: Vec<(Vec<f64>, Vec<f64>, f64)> = Vec::new();
    for _ in 0..300 {
        if largest(&gradient) < enough {
            break;
        }
        let mut way = gradient.clone();
        let mut factors = Vec::new();
        for (s, y, rho) in pairs.iter().rev() {
            let a = rho * dot(s, &way);
            way.iter_mut().zip(y).for_each(|(w, y)| *w -= a * y);
            factors.push(a);
        }
        if let Some((s, y, _)) = pairs.last() {
            let scale = dot(s, y) / dot(y, y);
            way.iter_mut().for_each(|w| *w *= scale);
        } else {
            let scale = 1.0 / dot(&way, &way).sqrt().max(1.0);
            way.iter_mut().for_each(|w| *w *= scale);
        }
        for ((s, y, rho), a) in pairs.iter().zip(factors.iter().rev()) {
            let b = rho * dot(y, &way);
            way.iter_mut().zip(s).for_each(|(w, s)| *w += (a - b) * s);
        }
        let slope = dot(&gradient, &way);
        if slope <= 0.0 {
            break;
        }
        let mut step = 1.0;
        let next = loop {
            let tried: Vec<f64> = x.iter().zip(&way).map(|(x, w)| x - step * w).collect();
            let (at, g) = f(&tried);
            if at <= value - 1e-4 * step * slope {
                break Some((tried, at, g));
            }
            step *= 0.5;
            if step < 1e-10 {
                break None;
            }
        };
        let Some((tried, at, g)) = next else { break };
        let s: Vec<f64> = tried.iter().zip(&x).map(|(a, b)| a - b).collect();
        let y: Vec<f64> = g.iter().zip(&gradient).map(|(a, b)| a - b).collect();
        let sy = dot(&s, &y);
        if sy > 1e-12 * dot(&y, &y).max(1e-300) {
            if pairs.len() == 10 {
                pairs.remove(0);
            }
            pairs.push((s, y, 1.0 / sy));
        }
        (x, value, gradient) = (tried, at, g);
    }
    x
}

#[cfg(test)]
mod tests {
    use super::*;
    use polyloom_core::rng::Stream;

    #[test]
    fn logistic_regression_equals_that_of_scikit_learn() {
        // scikit-learn 1.9: LogisticRegression(C=0.5, tol=1e-10, max_iter=10000) on these eight points, three classes: the
        // features are centred with deviation 1 already, so that nothing is put in.
        let x = [
            1.0f32, 2.0, -1.0, 0.5, 0.0, -1.5, 2.0, -0.5, -2.0, 1.0, 0.5, 0.5, -0.5, -1.0, 0.0,
            -1.0,
        ];
        let labels = [0u32, 1, 2, 0, 1, 0, 2, 2];
        let wanted: Vec<Target> = labels.iter().map(|c| Target::Class(*c)).collect();
        let problem = Problem {
            x: &x,
            width: 2,
            outputs: 3,
            wanted: &wanted,
            c: 0.5,
            kind: HeadKind::Classification,
        };
        let theta = minimised(&|t| problem.value(t), vec![0.0; 9]);
        for (found, expected) in theta.iter().zip(SKLEARN) {
            assert!((found - expected).abs() < 2e-4, "{theta:?}");
        }
    }

    const SKLEARN: [f64; 9] = [
        0.704_602_621_1,
        0.386_693_318_8,
        -0.600_547_590_4,
        0.330_084_271_9,
        -0.104_055_030_7,
        -0.716_777_590_7,
        0.178_305_657_9,
        -0.325_216_389_9,
        0.146_910_732_0,
    ];

    #[test]
    fn a_probe_finds_what_made_the_numbers() {
        let stream = Stream::new(3, "probe", 0);
        let x: Vec<f32> = (0..600).map(|i| stream.normal(i) * 3.0 + 5.0).collect();
        let y: Vec<Target> = x
            .chunks(3)
            .map(|r| Target::Number(f64::from(r[0] - 2.0 * r[1] + 7.0)))
            .collect();
        let seen = Seen {
            features: &x,
            wanted: &y,
        };
        let probe = fit(HeadKind::Regression, 1, &seen, Some(&seen));
        for (found, expected) in probe.weight.iter().zip([1.0, -2.0, 0.0]) {
            assert!((found - expected).abs() < 0.01, "{probe:?}");
        }
        assert!((probe.bias[0] - 7.0).abs() < 0.05);
        let sets: Vec<Target> = x
            .chunks(3)
            .map(|r| Target::Set((0..2).filter(|i| r[*i] > 5.0).map(|i| i as u32).collect()))
            .collect();
        let seen = Seen {
            features: &x,
            wanted: &sets,
        };
        let probe = fit(HeadKind::Multilabel, 2, &seen, Some(&seen));
        let right = x
            .chunks(3)
            .zip(&sets)
            .filter(|(r, t)| {
                let holds = |i: usize| {
                    r.iter()
                        .zip(&probe.weight[3 * i..])
                        .map(|(x, w)| x * w)
                        .sum::<f32>()
                        + probe.bias[i]
                        > 0.0
                };
                let found: Vec<u32> = (0..2).filter(|i| holds(*i)).map(|i| i as u32).collect();
                Target::Set(found) == **t
            })
            .count();
        assert!(right > 190, "{right}");
    }
}
