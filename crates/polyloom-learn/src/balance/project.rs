//! `pcgrad` and `gradvac`: every gradient is turned against those of the other tasks, one after the other.
//!
//! Both work on the dot products: a turned gradient is a sum of the original ones, kept as its coefficients. Only where
//! GradVac's sum all but vanishes is it made from the vectors, for its direction counts.

use std::collections::BTreeMap;

use polyloom_core::rng::Stream;

use super::method::{
    Balancer, Golden, Gram, Kind, Looks, Method, Param, Shared, State, Step, Unset, Unsolved,
    Weights,
};

/// The entries of this file.
pub static METHODS: &[&Method] = &[&PCGRAD, &GRADVAC];

static PCGRAD: Method = Method {
    name: "pcgrad",
    summary: "What points against another task's gradient is taken away",
    source: "Yu et al., NeurIPS 2020",
    formula: "For each `i`: `v = g_i`; for `j` in a random order: if `v.g_j < 0`, `v -= (v.g_j)/(|g_j|^2 + 1e-8) g_j` (the original `g_j`); `d = sum_i v_i`. The order is drawn from (seed, step).",
    differs: "`i` itself is left out of its order; LibMTL has it in, where it acts only after other projections turned `v` against its own gradient (`include_self = true`).",
    degenerate: "Nothing is solved; exactly opposed gradients of two tasks leave nothing.",
    looks: Looks::Gram,
    passes: "",
    params: &[
        Param::shared(
            "include_self",
            Kind::Flag,
            Unset::Flag(false),
            "A gradient is also projected against itself, in LibMTL's way.",
        ),
        Param::shared(
            "reduction",
            Kind::Word(&[("sum", "sum"), ("mean", "mean")]),
            Unset::Word("sum"),
            "Sum of the turned gradients, or their mean.",
        ),
    ],
    golden: Golden::Cases(&["pcgrad"]),
    begin: |values, _| {
        Box::new(Surgery {
            with_self: values.flag("include_self"),
            mean: values.word("reduction") == "mean",
        })
    },
};

struct Surgery {
    with_self: bool,
    mean: bool,
}

impl Balancer for Surgery {
    fn weigh(&mut self, step: &Step<'_>) -> Result<Weights, Unsolved> {
        let n = step.gram.len();
        let mut weights = pcgrad(step.gram, &orders(step, "balance pcgrad", self.with_self));
        if self.mean {
            weights.iter_mut().for_each(|w| *w /= n as f64);
        }
        Ok(Weights::of_gradients(weights, n))
    }
}

/// For each task of a step the others in a random order (Fisher and Yates), which does not depend on who else is there.
pub(super) fn orders(step: &Step<'_>, name: &str, with_self: bool) -> Vec<Vec<usize>> {
    let n = step.tasks.len();
    let one = |i: usize| {
        let stream = Stream::new(
            step.at.seed,
            name,
            step.at.step << 16 | step.tasks[i] as u64,
        );
        let mut order: Vec<usize> = (0..n).filter(|j| with_self || *j != i).collect();
        order.sort_by_key(|j| stream.bits(step.tasks[*j] as u64));
        order
    };
    (0..n).map(one).collect()
}

/// Coefficients of the sum of projected gradients, for the orders given.
pub fn pcgrad(gram: &Gram, orders: &[Vec<usize>]) -> Vec<f64> {
    let mut sum = vec![0.0; gram.len()];
    for (i, order) in orders.iter().enumerate() {
        let mut v = vec![0.0; gram.len()];
        v[i] = 1.0;
        for &j in order {
            let along = gram.dot_sum(j, &v);
            if along < 0.0 {
                v[j] -= along / (gram.dot(j, j) + 1e-8);
            }
        }
        sum.iter_mut().zip(&v).for_each(|(s, v)| *s += v);
    }
    sum
}

static GRADVAC: Method = Method {
    name: "gradvac",
    summary: "Gradients are turned toward each other up to a similarity that is remembered",
    source: "Wang et al., ICLR 2021; LibMTL weighting/GradVac.py",
    formula: "For each `i`: `v = g_i`; for `j != i` in a random order, `rho = cos(v, g_j)`; below `rho_ij`: `v += g_j |v| (rho_ij sqrt(1 - rho^2) - rho sqrt(1 - rho_ij^2)) / (|g_j| sqrt(1 - rho_ij^2) + 1e-8)`; then `rho_ij <- (1 - beta) rho_ij + beta rho`, the `rho` from before. `d = sum_i v_i`; `rho_ij` begins at 0.",
    differs: "",
    degenerate: "Nothing is solved.",
    looks: Looks::Gram,
    passes: "",
    params: &[
        Param::shared(
            "beta",
            Kind::Number(0.0, 1.0),
            Unset::Number(0.5),
            "How fast the similarity is forgotten: 0.5 in LibMTL, 0.01 in the paper.",
        ),
        Param::shared(
            "group",
            Kind::Word(&[
                ("whole_model", "whole_model"),
                ("layer", "layer"),
                ("tensor", "tensor"),
            ]),
            Unset::Word("whole_model"),
            "What is turned as one: all shared parameters, the weight and bias of a layer, or each tensor.",
        ),
    ],
    golden: Golden::Cases(&["gradvac"]),
    begin: |values, tasks| {
        Box::new(Vaccine {
            beta: values.number("beta"),
            group: match values.word("group") {
                "layer" => Group::Layer,
                "tensor" => Group::Tensor,
                _ => Group::Model,
            },
            tasks,
            rho: BTreeMap::new(),
        })
    },
};

#[derive(Debug, Clone, Copy, PartialEq)]
enum Group {
    Model,
    Layer,
    Tensor,
}

struct Vaccine {
    beta: f64,
    group: Group,
    tasks: usize,
    /// By group: `[T, T]`.
    rho: BTreeMap<String, Vec<f64>>,
}

impl Vaccine {
    fn turn(
        &mut self,
        name: &str,
        vectors: &Vectors<'_>,
        step: &Step<'_>,
        orders: &[Vec<usize>],
    ) -> Vec<f64> {
        let (all, n) = (self.tasks, step.tasks.len());
        let held = self
            .rho
            .entry(name.to_owned())
            .or_insert_with(|| vec![0.0; all * all]);
        let place = |i: usize, j: usize| step.tasks[i] * all + step.tasks[j];
        let mut rho: Vec<f64> = (0..n * n).map(|k| held[place(k / n, k % n)]).collect();
        let weights = gradvac(vectors, &mut rho, self.beta, orders);
        (0..n * n).for_each(|k| held[place(k / n, k % n)] = rho[k]);
        weights
    }
}

impl Balancer for Vaccine {
    fn weigh(&mut self, step: &Step<'_>) -> Result<Weights, Unsolved> {
        let n = step.tasks.len();
        let orders = orders(step, "balance gradvac", false);
        if self.group == Group::Model {
            let vectors = Vectors {
                gram: step.gram.clone(),
                pieces: vec![step.gradients.to_vec()],
            };
            let weights = self.turn("", &vectors, step, &orders);
            return Ok(Weights::of_gradients(weights, n));
        }
        let name = |part: &str| match (self.group, part.rsplit_once('.')) {
            (Group::Layer, Some((layer, _))) => layer.to_owned(),
            _ => part.to_owned(),
        };
        let names: Vec<String> = step.parts.iter().map(|p| name(&p.name)).collect();
        let mut of_group: BTreeMap<&str, Vectors<'_>> = BTreeMap::new();
        for (name, part) in names.iter().zip(step.parts) {
            let piece = step.gradients.iter().map(|g| &g[part.at.clone()]).collect();
            match of_group.get_mut(name.as_str()) {
                Some(group) => {
                    group.gram.add(&part.gram);
                    group.pieces.push(piece);
                }
                None => {
                    let vectors = Vectors {
                        gram: part.gram.clone(),
                        pieces: vec![piece],
                    };
                    of_group.insert(name, vectors);
                }
            }
        }
        let mut weights: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
        for (name, vectors) in &of_group {
            weights.insert(name, self.turn(name, vectors, step, &orders));
        }
        let parts = names.iter().map(|n| weights[n.as_str()].clone()).collect();
        Ok(Weights {
            shared: Shared::Parts(parts),
            own: vec![1.0; n],
        })
    }

    fn state(&self) -> State {
        State {
            numbers: self.rho.clone(),
            rows: Vec::new(),
        }
    }

    fn restore(&mut self, state: State) -> Result<(), Unsolved> {
        let square = self.tasks * self.tasks;
        for name in state.numbers.keys() {
            state.get(name, square)?;
        }
        self.rho = state.numbers;
        Ok(())
    }
}

/// Vectors with their dot products.
#[derive(Debug, Clone)]
pub struct Vectors<'a> {
    /// Dot products.
    pub gram: Gram,
    /// The vectors, in pieces one after the other: `[pieces][vectors]`.
    pub pieces: Vec<Vec<&'a [f32]>>,
}

impl Vectors<'_> {
    /// `s.g_j` and `|s|` of a weighted sum `s`. Where it is so short beside what was summed that the dot products have lost
    /// it, it is made.
    fn against(&self, weights: &[f64], j: usize) -> (f64, f64) {
        let lengths = (0..weights.len()).map(|i| weights[i].abs() * self.gram.norm(i));
        let (size, length) = (lengths.sum::<f64>(), self.gram.norm_of_sum(weights));
        if length * length > 1e-9 * size * size {
            return (self.gram.dot_sum(j, weights), length);
        }
        let (mut dot, mut square) = (0.0, 0.0);
        for piece in &self.pieces {
            for p in 0..piece[j].len() {
                let of = weights.iter().zip(piece);
                let s: f64 = of.map(|(w, g)| w * f64::from(g[p])).sum();
                dot += s * f64::from(piece[j][p]);
                square += s * s;
            }
        }
        (dot, square.sqrt())
    }
}

/// Coefficients of the sum of turned gradients, for the orders given; `rho` `[n, n]` is remembered.
pub fn gradvac(
    vectors: &Vectors<'_>,
    rho: &mut [f64],
    beta: f64,
    orders: &[Vec<usize>],
) -> Vec<f64> {
    let n = vectors.gram.len();
    let mut sum = vec![0.0; n];
    for (i, order) in orders.iter().enumerate() {
        let mut v = vec![0.0; n];
        v[i] = 1.0;
        for &j in order {
            let (dot, length) = vectors.against(&v, j);
            let other = vectors.gram.norm(j);
            let now = (dot / (length * other + 1e-8)).clamp(-1.0, 1.0);
            let goal = &mut rho[i * n + j];
            if now < *goal {
                let across = (1.0 - now * now).sqrt();
                let wanted = (1.0 - *goal * *goal).max(0.0).sqrt();
                v[j] += length * (*goal * across - now * wanted) / (other * wanted + 1e-8);
            }
            *goal = (1.0 - beta) * *goal + beta * now;
        }
        sum.iter_mut().zip(&v).for_each(|(s, v)| *s += v);
    }
    sum
}
