//! `aligned`, `imtl`, `upgrad`: closed forms over the dot products.

use polyloom_core::linalg::{Matrix, solve_definite, svd};

use super::learned::{MOVES, RATE, moves};
use super::method::{
    Balancer, Golden, Gram, Kind, Looks, Method, Param, State, Step, Unset, Unsolved, Weights, some,
};
use super::mgda::matrix;
use super::qp::Program;
use super::scalars::Scalars;

/// The entries of this file.
pub static METHODS: &[&Method] = &[&ALIGNED, &IMTL, &UPGRAD];

static ALIGNED: Method = Method {
    name: "aligned",
    summary: "Gradients made orthogonal and of one length, as near to themselves as can be",
    source: "Senushkin et al., CVPR 2023",
    formula: "`A = V diag(l) V'`; of the `l` above `max(l) n eps`: `B = sigma V diag(1/sqrt l) V'`, `sigma` = root of the least (`scale_mode = \"min\"`), the median or the mean (\"rmse\") of them; `w = B 1`.",
    differs: "`eps` is that of f32, for so the gradients are; peers take that of the type they compute in, which keeps other ranks where lengths differ.",
    degenerate: "Directions that depend on others are left out.",
    looks: Looks::Gram,
    passes: "",
    params: &[Param::shared(
        "scale_mode",
        Kind::Word(&[("min", "min"), ("median", "median"), ("rmse", "rmse")]),
        Unset::Word("min"),
        "Common length.",
    )],
    golden: Golden::Cases(&["aligned"]),
    begin: |values, _| {
        Box::new(Procrustes(match values.word("scale_mode") {
            "median" => Scale::Median,
            "rmse" => Scale::Mean,
            _ => Scale::Least,
        }))
    },
};

#[derive(Debug, Clone, Copy)]
enum Scale {
    Least,
    Median,
    Mean,
}

struct Procrustes(Scale);

impl Balancer for Procrustes {
    fn weigh(&mut self, step: &Step<'_>) -> Result<Weights, Unsolved> {
        let n = step.gram.len();
        // Of a symmetric positive matrix these are the eigenvalues and vectors.
        let found = svd(&matrix(step.gram)).map_err(Unsolved)?;
        let most = found.s.first().copied().unwrap_or(0.0);
        let least = most * n as f64 * f64::from(f32::EPSILON);
        let kept = found.s.iter().take_while(|l| **l > least).count();
        if kept == 0 {
            return Err(Unsolved("all gradients are zero".into()));
        }
        let l = &found.s[..kept];
        let square = match self.0 {
            Scale::Least => l[kept - 1],
            // Of an even number the lower one, as in the golden vectors.
            Scale::Median => l[kept / 2],
            Scale::Mean => l.iter().sum::<f64>() / kept as f64,
        };
        let mut weights = vec![0.0; n];
        for (i, l) in l.iter().enumerate() {
            let v = &found.vt.data[i * n..][..n];
            let along = v.iter().sum::<f64>() * (square / l).sqrt();
            weights.iter_mut().zip(v).for_each(|(w, v)| *w += along * v);
        }
        Ok(Weights::of_gradients(weights, n))
    }
}

static IMTL: Method = Method {
    name: "imtl",
    summary: "A direction with the same projection on every gradient",
    source: "Liu et al., ICLR 2021",
    formula: "`sum w = 1` and `d.u_t` the same for all unit gradients `u_t`: with `C` their cosines and `C z = 1`, `w_t = z_t / |g_t|` over the sum. Weights may be negative. `form = \"hybrid\"`: losses become `exp(s_t) L_t - s_t`, gradients `exp(s_t) g_t`, and `s_t` learns by `exp(s_t) L_t - 1` (IMTL-L, as LibMTL applies both).",
    differs: "The same solution as the differences of gradients give, by a symmetric system that lengths do not upset.",
    degenerate: "No answer where gradients depend on each other: equal weights, counted.",
    looks: Looks::Gram,
    passes: "",
    params: &[
        Param::shared(
            "form",
            Kind::Word(&[("g", "g"), ("hybrid", "hybrid")]),
            Unset::Word("g"),
            "Gradients alone, or losses too.",
        ),
        Param::shared(
            "loss_scale",
            Kind::Number(-50.0, 50.0),
            Unset::Number(0.0),
            "First `s` of \"hybrid\".",
        ),
        MOVES,
        RATE,
    ],
    golden: Golden::Cases(&["imtl"]),
    begin: |values, tasks| {
        Box::new(Impartial {
            hybrid: values.word("form") == "hybrid",
            s: Scalars::new(tasks, values.number("loss_scale"), moves(values)),
            rate: values.maybe("rate"),
        })
    },
};

struct Impartial {
    hybrid: bool,
    s: Scalars,
    rate: Option<f64>,
}

impl Balancer for Impartial {
    fn weigh(&mut self, step: &Step<'_>) -> Result<Weights, Unsolved> {
        if !self.hybrid {
            return Ok(Weights::of_gradients(
                impartial(step.gram)?,
                step.tasks.len(),
            ));
        }
        let scale: Vec<f64> = some(&self.s.values, step.tasks)
            .iter()
            .map(|s| s.exp())
            .collect();
        let slopes: Vec<f64> = scale
            .iter()
            .zip(step.losses)
            .map(|(e, l)| e * l - 1.0)
            .collect();
        self.s
            .step(step.tasks, &slopes, self.rate.unwrap_or(step.at.rate));
        let inverse: Vec<f64> = scale.iter().map(|e| 1.0 / e).collect();
        let weights = impartial(&step.gram.divided(&inverse))?;
        let weights = weights.iter().zip(&scale).map(|(w, e)| w * e).collect();
        Ok(Weights {
            own: scale,
            ..Weights::of_gradients(weights, 0)
        })
    }

    fn state(&self) -> State {
        match self.hybrid {
            true => self.s.state(),
            false => State::default(),
        }
    }

    fn restore(&mut self, state: State) -> Result<(), Unsolved> {
        match self.hybrid {
            true => self.s.restore(&state),
            false => Ok(()),
        }
    }
}

/// IMTL-G's weights.
///
/// # Errors
/// Gradients that depend on each other.
pub fn impartial(gram: &Gram) -> Result<Vec<f64>, Unsolved> {
    let n = gram.len();
    let dependent =
        || Unsolved("the gradients depend on each other: no one impartial direction".into());
    let lengths: Vec<f64> = (0..n).map(|i| gram.norm(i)).collect();
    if lengths.iter().any(|l| *l <= 0.0 || !l.is_finite()) {
        return Err(Unsolved("a gradient is zero or not finite".into()));
    }
    let ones = Matrix {
        rows: 1,
        cols: n,
        data: vec![1.0; n],
    };
    let solved = solve_definite(&matrix(&gram.divided(&lengths)), ones).ok_or_else(dependent)?;
    let z = solved.data;
    // Gradients are f32: cosines are known to about 1e-7, so what is as large as its inverse square says nothing.
    if z.iter().any(|z| z.abs() > 1e12) {
        return Err(dependent());
    }
    let weights: Vec<f64> = z.iter().zip(&lengths).map(|(z, l)| z / l).collect();
    let sum: f64 = weights.iter().sum();
    let size: f64 = weights.iter().map(|w| w.abs()).sum();
    if sum.abs() <= 1e-12 * size {
        return Err(Unsolved(
            "the weights of the impartial direction sum to zero".into(),
        ));
    }
    Ok(weights.iter().map(|w| w / sum).collect())
}

static UPGRAD: Method = Method {
    name: "upgrad",
    summary: "The mean of the gradients, each projected on the cone where no loss rises",
    source: "Quinton and Rey 2024",
    formula: "`Ah = A/trace(A) + reg_eps I`; for each `i`: `u_i = argmin u'Ah u`, `u >= e_i/n`; `w = sum_i u_i`.",
    differs: "",
    degenerate: "`reg_eps` makes dependent gradients solvable.",
    looks: Looks::Gram,
    passes: "",
    params: &[
        Param::shared(
            "norm_eps",
            Kind::Number(0.0, f64::INFINITY),
            Unset::Number(1e-4),
            "A trace below it counts as zero: the direction is zero.",
        ),
        Param::shared(
            "reg_eps",
            Kind::Number(0.0, 1.0),
            Unset::Number(1e-4),
            "Added to the diagonal.",
        ),
    ],
    golden: Golden::Cases(&["upgrad"]),
    begin: |values, _| {
        Box::new(Unconflicting {
            least: values.number("norm_eps"),
            ridge: values.number("reg_eps"),
        })
    },
};

struct Unconflicting {
    least: f64,
    ridge: f64,
}

impl Balancer for Unconflicting {
    fn weigh(&mut self, step: &Step<'_>) -> Result<Weights, Unsolved> {
        let n = step.gram.len();
        let trace: f64 = (0..n).map(|i| step.gram.dot(i, i)).sum();
        if trace < self.least {
            return Ok(Weights::of_gradients(vec![0.0; n], n));
        }
        let mut quadratic = matrix(step.gram);
        quadratic.data.iter_mut().for_each(|q| *q /= trace);
        for i in 0..n {
            quadratic.data[i * n + i] += self.ridge;
        }
        let share = 1.0 / n as f64;
        let mut weights = vec![0.0; n];
        for i in 0..n {
            // u = e_i/n + x, x >= 0.
            let linear = quadratic.data[i * n..][..n]
                .iter()
                .map(|q| q * share)
                .collect();
            let program = Program {
                quadratic: quadratic.clone(),
                linear,
                simplex: false,
            };
            weights
                .iter_mut()
                .zip(program.solve()?)
                .for_each(|(w, x)| *w += x);
            weights[i] += share;
        }
        Ok(Weights::of_gradients(weights, n))
    }
}
