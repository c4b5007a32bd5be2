//! `cagrad`: the direction near the mean gradient that serves the task it serves least best.

use super::method::{
    Balancer, Golden, Gram, Kind, Looks, Method, Param, Step, Unset, Unsolved, Weights,
};
use super::mgda::matrix;
use super::qp::Program;

static SPEC: Method = Method {
    name: "cagrad",
    summary: "Largest least progress of any task, within a ball around the mean gradient",
    source: "Liu et al., NeurIPS 2021",
    formula: "`g_0` the mean; over the simplex minimise `F(w) = w'A 1/n + c' sqrt(w'A w + 1e-8)`, `c' = c sqrt(mean(A) + 1e-8) + 1e-8`; `g_w = sum w_t g_t`, `d = g_0 + c' g_w / (|g_w| + 1e-8)`, over `1 + c^2` (`rescale = 1`), `1 + c` (2) or 1 (0).",
    differs: "The dual is solved to a gap of 1e-9 of `F` at equal weights; SLSQP with its usual tolerance, which public code ships, fails where lengths differ.",
    degenerate: "Dependent gradients: any of the equal optima. Gradients whose mean is zero leave `d` near 0.",
    looks: Looks::Gram,
    passes: "",
    params: &[
        Param::shared(
            "c",
            Kind::Number(0.0, 1e6),
            Unset::Number(0.4),
            "Radius of the ball in lengths of the mean: 0.4 in the papers' scripts, 0.5 in LibMTL.",
        ),
        Param::shared(
            "rescale",
            Kind::Integer(0, 2),
            Unset::Number(1.0),
            "What the length is divided by.",
        ),
    ],
    golden: Golden::Cases(&["cagrad"]),
    begin: |values, _| {
        let c = values.number("c");
        let over = match values.number("rescale") as u8 {
            0 => 1.0,
            1 => 1.0 + c * c,
            _ => 1.0 + c,
        };
        Box::new(Averse { c, over })
    },
};

/// The entries of this file.
pub static METHODS: &[&Method] = &[&SPEC];

struct Averse {
    c: f64,
    over: f64,
}

impl Balancer for Averse {
    fn weigh(&mut self, step: &Step<'_>) -> Result<Weights, Unsolved> {
        let n = step.gram.len();
        Ok(Weights::of_gradients(
            weights(step.gram, self.c, self.over)?,
            n,
        ))
    }
}

/// Weights of the direction.
///
/// # Errors
/// As [`dual`].
pub fn weights(gram: &Gram, c: f64, over: f64) -> Result<Vec<f64>, Unsolved> {
    let dual = dual(gram, c)?;
    let pull = dual.radius / (gram.norm_of_sum(&dual.weights) + 1e-8);
    let mean = 1.0 / gram.len() as f64;
    Ok(dual
        .weights
        .iter()
        .map(|w| (mean + pull * w) / over)
        .collect())
}

/// The minimum of the dual.
#[derive(Debug, Clone, PartialEq)]
pub struct Dual {
    /// Over the simplex.
    pub weights: Vec<f64>,
    /// `F` there.
    pub objective: f64,
    /// `c'`.
    pub radius: f64,
}

/// Minimises `F`.
///
/// For `q = w'A w + 1e-8`, `sqrt q = min_r (q/r + r)/2`: at a given r this is a quadratic program, and the r at which
/// `q = r^2` is found by halving (`r^2 - q` rises through 0 once).
///
/// # Errors
/// A gap that stays above 1e-9 of `F(1/n)`, dot products that are not finite.
pub fn dual(gram: &Gram, c: f64) -> Result<Dual, Unsolved> {
    let n = gram.len();
    let even = vec![1.0 / n as f64; n];
    let mean_square = gram.norm_of_sum(&even).powi(2);
    let radius = c * (mean_square + 1e-8).sqrt() + 1e-8;
    let size = (0..n).map(|i| gram.dot(i, i)).sum::<f64>() / n as f64;
    if !size.is_finite() {
        return Err(Unsolved("a gradient is not finite".into()));
    }
    let toward: Vec<f64> = (0..n).map(|i| gram.dot_sum(i, &even)).collect();
    let root = |w: &[f64]| (gram.norm_of_sum(w).powi(2) + 1e-8).sqrt();
    let objective = |w: &[f64]| -> f64 {
        w.iter().zip(&toward).map(|(w, b)| w * b).sum::<f64>() + radius * root(w)
    };
    let at = |r: f64| -> Result<Vec<f64>, Unsolved> {
        let mut quadratic = matrix(gram);
        quadratic
            .data
            .iter_mut()
            .for_each(|q| *q *= radius / r / size.max(1e-30));
        Program {
            quadratic,
            linear: toward.iter().map(|b| b / size.max(1e-30)).collect(),
            simplex: true,
        }
        .solve()
    };
    let longest = (0..n).fold(0.0f64, |m, i| m.max(gram.dot(i, i)));
    let (mut low, mut high) = (1e-4f64.ln(), 0.5 * (longest + 1e-8).ln());
    let mut weights = even.clone();
    for _ in 0..100 {
        let r = (0.5 * (low + high)).exp();
        // Not the least F of all: near the optimum F is flat beyond rounding, the weights are not.
        weights = at(r)?;
        match root(&weights) > r {
            true => low = r.ln(),
            false => high = r.ln(),
        }
        if high - low < 1e-14 * low.abs().max(1.0) {
            break;
        }
    }
    let length = root(&weights);
    let slope: Vec<f64> = (0..n)
        .map(|i| toward[i] + radius * gram.dot_sum(i, &weights) / length)
        .collect();
    let least = slope.iter().copied().fold(f64::INFINITY, f64::min);
    let gap = slope.iter().zip(&weights).map(|(s, w)| s * w).sum::<f64>() - least;
    // What the sums of the slopes round off.
    let size_of = |i: usize| -> f64 {
        let of = (0..n).map(|j| gram.dot(i, j).abs() * (even[j] + radius * weights[j] / length));
        of.sum()
    };
    let rounding = 64.0 * f64::EPSILON * (0..n).map(size_of).fold(0.0, f64::max);
    let most = 1e-9 * objective(&even).abs() + rounding;
    if gap.is_nan() || gap > most {
        return Err(Unsolved(format!(
            "the dual's gap is {gap:.1e}, above {most:.1e}"
        )));
    }
    Ok(Dual {
        objective: objective(&weights),
        weights,
        radius,
    })
}
