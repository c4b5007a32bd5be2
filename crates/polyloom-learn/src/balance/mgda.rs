//! `mgda`: the shortest vector in the convex hull of the gradients.

use polyloom_core::linalg::Matrix;

use super::losses::FLOOR;
use super::method::{
    Balancer, Golden, Gram, Kind, Looks, Method, Param, Step, Unset, Unsolved, Weights,
};
use super::qp::Program;

static SPEC: Method = Method {
    name: "mgda",
    summary: "The shortest mean of the gradients: no loss rises along it",
    source: "Desideri 2012; Sener and Koltun, NeurIPS 2018",
    formula: "`w = argmin w'A w` over the simplex, `d = sum w_t g_t`. `normalise` first divides `g_t` by `|g_t|` (\"l2\"), `L_t` (\"loss\") or `L_t |g_t|` (\"loss+\"); `d` is of the divided gradients.",
    differs: "Solved exactly (active sets); the usual 250 steps of Frank and Wolfe end up to 25 % above the optimum, and far off where lengths differ.",
    degenerate: "Dependent gradients have several answers of one direction; any of them is taken. Opposed gradients give `d = 0`: no common descent is left.",
    looks: Looks::Gram,
    passes: "",
    params: &[Param::shared(
        "normalise",
        Kind::Word(&[
            ("none", "none"),
            ("l2", "l2"),
            ("loss", "loss"),
            ("loss+", "loss+"),
        ]),
        Unset::Word("none"),
        "What gradients are divided by before.",
    )],
    golden: Golden::Cases(&["mgda"]),
    begin: |values, _| {
        Box::new(Shortest(match values.word("normalise") {
            "l2" => Normalise::Length,
            "loss" => Normalise::Loss,
            "loss+" => Normalise::Both,
            _ => Normalise::Nothing,
        }))
    },
};

/// The entries of this file.
pub static METHODS: &[&Method] = &[&SPEC];

#[derive(Debug, Clone, Copy)]
enum Normalise {
    Nothing,
    Length,
    Loss,
    Both,
}

struct Shortest(Normalise);

impl Balancer for Shortest {
    fn weigh(&mut self, step: &Step<'_>) -> Result<Weights, Unsolved> {
        let n = step.losses.len();
        let divisors: Vec<f64> = (0..n)
            .map(|t| {
                let length = match step.gram.norm(t) {
                    l if l > 0.0 => l,
                    _ => 1.0,
                };
                let loss = step.losses[t].max(FLOOR);
                match self.0 {
                    Normalise::Nothing => 1.0,
                    Normalise::Length => length,
                    Normalise::Loss => loss,
                    Normalise::Both => loss * length,
                }
            })
            .collect();
        let w = shortest(&step.gram.divided(&divisors))?;
        let weights = w.iter().zip(&divisors).map(|(w, d)| w / d).collect();
        Ok(Weights::of_gradients(weights, n))
    }
}

/// Weights of the shortest mean.
///
/// # Errors
/// Dot products that are not finite.
pub fn shortest(gram: &Gram) -> Result<Vec<f64>, Unsolved> {
    Program {
        quadratic: matrix(gram),
        linear: vec![0.0; gram.len()],
        simplex: true,
    }
    .solve()
}

/// The dot products as a matrix.
pub(super) fn matrix(gram: &Gram) -> Matrix {
    let n = gram.len();
    Matrix {
        rows: n,
        cols: n,
        data: (0..n * n).map(|k| gram.dot(k / n, k % n)).collect(),
    }
}
