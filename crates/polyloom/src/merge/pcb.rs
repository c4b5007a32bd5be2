//! `pcb`, `pcb_vision`: parameter competition balancing, over the whole model.

use super::method::{
    Base, Chunk, Golden, Job, Kernel, Kind, Method, Missing, Next, Param, Partial, Scope, Spec,
    Unset, typed,
};
use super::survey::{High, Low, Selector, magnitude_bits};
use crate::error::Result;

const COST: &str = "seven passes, O(elements x experts)";
const LAMBDA: Param = Param::shared(
    "lambda",
    Kind::Number(f64::NEG_INFINITY, f64::INFINITY),
    Unset::Number(1.0),
    "Factor of the merged vector.",
);

static PCB: Spec = Spec {
    name: "pcb",
    summary: "Weighs entries by their own size and by agreement with the other tasks, keeps the top share",
    source: "PCB-Merging (Du et al. 2024); duguodong7/pcb-merging pcb-merging.py",
    formula: "Per task vector: `A = clamp(|D|)` at its `quantile` ends, `C = sign(D) A`, `E = exp(n norm(A)^2)`, `X = tanh(D sum_j D_j)`, `B = E X`; `s = norm(B)` with everything below the top `ratio` at 0; `V = lambda sum_i w_i C_i s_i / max(sum_i s_i, 1e-12)`.",
    differs: "The released code, not the pairwise sum of the paper.",
    cost: COST,
    base: Base::Required,
    experts: (2, usize::MAX),
    deltas: true,
    scope: Scope::Model,
    params: &[
        Param::shared(
            "ratio",
            Kind::Number(0.0, 1.0),
            Unset::Number(0.1),
            "Share of entries with a score above 0.",
        )
        .whole(),
        LAMBDA,
        Param::shared(
            "quantile",
            Kind::Number(0.0, 0.5),
            Unset::Number(1e-4),
            "Share clamped at each end of the magnitudes.",
        )
        .whole(),
        Param::each(
            "weight",
            Kind::Number(f64::NEG_INFINITY, f64::INFINITY),
            Unset::Number(1.0),
            "Factor of this expert's entries.",
        ),
    ],
    on: None,
    golden: Golden::Cases(&["pcb"]),
    missing: Missing::Refuse,
};

static VISION: Spec = Spec {
    name: "pcb_vision",
    summary: "As `pcb`, with agreement measured on normalised magnitudes",
    source: "PCB-Merging (Du et al. 2024); duguodong7/pcb-merging vision_source_code/pcb.py",
    formula: "As `pcb`, but `X = tanh(D sum_j sign(D_j) norm(A_j))`.",
    differs: "",
    cost: COST,
    base: Base::Required,
    experts: (2, usize::MAX),
    deltas: true,
    scope: Scope::Model,
    params: &[
        Param::shared(
            "ratio",
            Kind::Number(0.0, 1.0),
            Unset::Number(0.05),
            "Share of entries with a score above 0.",
        )
        .whole(),
        LAMBDA,
        Param::shared(
            "quantile",
            Kind::Number(0.0, 0.5),
            Unset::Number(0.01),
            "Share clamped at each end of the magnitudes.",
        )
        .whole(),
        Param::each(
            "weight",
            Kind::Number(f64::NEG_INFINITY, f64::INFINITY),
            Unset::Number(1.2),
            "Factor of this expert's entries.",
        ),
    ],
    on: None,
    golden: Golden::Cases(&["pcb_vision"]),
    missing: Missing::Refuse,
};

/// The entries of this file.
pub static METHODS: &[&dyn Method] = &[&Entry(&PCB, false), &Entry(&VISION, true)];

struct Entry(&'static Spec, bool);

impl Method for Entry {
    fn spec(&self) -> &'static Spec {
        self.0
    }

    fn kernel(&self, job: &Job) -> Result<Box<dyn Kernel>> {
        let shared = &job.tensors[0].shared;
        let n = job.experts.len();
        Ok(Box::new(Balanced {
            vision: self.1,
            ratio: shared.number("ratio"),
            quantile: shared.number("quantile"),
            lambdas: job
                .tensors
                .iter()
                .map(|t| t.shared.number("lambda"))
                .collect(),
            weights: job
                .tensors
                .iter()
                .map(|t| t.each.iter().map(|v| v.number("weight")).collect())
                .collect(),
            magnitudes: vec![Selector::default(); n],
            scores: vec![Selector::default(); n],
            clamp: vec![(0.0, 0.0); n],
            range: vec![(0.0, 0.0); n],
            stage: Stage::Magnitudes,
        }))
    }
}

/// What the current survey rounds look for.
#[derive(Clone, Copy, PartialEq)]
enum Stage {
    Magnitudes,
    Scores,
    Ready,
}

struct Balanced {
    vision: bool,
    ratio: f64,
    quantile: f64,
    lambdas: Vec<f64>,
    weights: Vec<Vec<f64>>,
    magnitudes: Vec<Selector>,
    scores: Vec<Selector>,
    /// Smallest and largest clamped magnitude.
    clamp: Vec<(f32, f32)>,
    /// Score at the cut and largest score.
    range: Vec<(f32, f32)>,
    stage: Stage,
}

/// Order-preserving key of a number, negative ones included.
fn key(x: f32) -> u32 {
    let bits = x.to_bits();
    if bits >> 31 == 1 {
        !bits
    } else {
        bits | 0x8000_0000
    }
}

fn from_key(key: u32) -> f32 {
    f32::from_bits(if key >> 31 == 1 {
        key & 0x7FFF_FFFF
    } else {
        !key
    })
}

enum Seen {
    High(Vec<High>),
    Low(Vec<Low>),
}

impl Balanced {
    /// Clamped magnitude and its normalised form.
    fn clamped(&self, i: usize, d: f32) -> (f32, f32) {
        let (low, high) = self.clamp[i];
        let a = d.abs().clamp(low, high);
        (
            a,
            if high > low {
                (a - low) / (high - low)
            } else {
                0.0
            },
        )
    }

    /// `B` of every expert at element `k`.
    fn score(&self, chunk: &Chunk, k: usize, out: &mut [f32]) {
        let n = chunk.inputs.len() as f32;
        let sum: f32 = if self.vision {
            chunk
                .inputs
                .iter()
                .enumerate()
                .map(|(j, x)| {
                    if x[k] == 0.0 {
                        0.0
                    } else {
                        x[k].signum() * self.clamped(j, x[k]).1
                    }
                })
                .sum()
        } else {
            chunk.inputs.iter().map(|x| x[k]).sum()
        };
        for (i, (o, x)) in out.iter_mut().zip(chunk.inputs).enumerate() {
            let norm = self.clamped(i, x[k]).1;
            *o = (n * norm * norm).exp() * (x[k] * sum).tanh();
        }
    }

    fn keys(&self, chunk: &Chunk) -> Vec<Vec<u32>> {
        match self.stage {
            Stage::Magnitudes => chunk
                .inputs
                .iter()
                .map(|x| x.iter().map(|v| magnitude_bits(*v)).collect())
                .collect(),
            _ => {
                let mut out = vec![Vec::with_capacity(chunk.len()); chunk.inputs.len()];
                let mut b = vec![0.0; chunk.inputs.len()];
                for k in 0..chunk.len() {
                    self.score(chunk, k, &mut b);
                    out.iter_mut().zip(&b).for_each(|(o, b)| o.push(key(*b)));
                }
                out
            }
        }
    }

    fn selectors(&mut self) -> &mut Vec<Selector> {
        if self.stage == Stage::Magnitudes {
            &mut self.magnitudes
        } else {
            &mut self.scores
        }
    }
}

impl Kernel for Balanced {
    fn surveys(&self) -> bool {
        true
    }

    fn survey(&self, _: usize, chunk: &Chunk) -> Result<Partial> {
        let selectors = if self.stage == Stage::Magnitudes {
            &self.magnitudes
        } else {
            &self.scores
        };
        let keys = self.keys(chunk);
        let place = (chunk.index, chunk.start);
        Ok(Box::new(if selectors[0].ready() {
            Seen::Low(
                selectors
                    .iter()
                    .zip(keys)
                    .map(|(s, k)| s.low(place, k.into_iter()))
                    .collect(),
            )
        } else {
            Seen::High(
                keys.into_iter()
                    .map(|k| Selector::high(k.into_iter()))
                    .collect(),
            )
        }))
    }

    fn absorb(&mut self, _: usize, partial: Partial) -> Result<()> {
        let selectors = self.selectors();
        match typed::<Seen>(partial)? {
            Seen::High(parts) => selectors
                .iter_mut()
                .zip(&parts)
                .for_each(|(s, p)| s.absorb_high(p)),
            Seen::Low(parts) => selectors
                .iter_mut()
                .zip(parts)
                .for_each(|(s, p)| s.absorb_low(p)),
        }
        Ok(())
    }

    fn finish(&mut self, _: usize) -> Result<Next> {
        let d = self.selectors()[0].count();
        if d == 0 {
            self.stage = Stage::Ready;
            return Ok(Next::Done);
        }
        // clampq(x, lo, hi) clips to [sorted[int(d lo)], sorted[int(d (1 - hi) - 1)]].
        let at = |share: f64| ((d as f64 * share) as u64).min(d - 1);
        let last = |share: f64| ((d as f64 * share - 1.0).max(0.0) as u64).min(d - 1);
        let ranks = if self.stage == Stage::Magnitudes {
            [at(self.quantile), last(1.0 - self.quantile)]
        } else {
            [at(1.0 - self.ratio), last(1.0)]
        };
        if !self.selectors()[0].ready() {
            self.selectors().iter_mut().for_each(|s| s.want(&ranks));
            return Ok(Next::Again);
        }
        if self.stage == Stage::Magnitudes {
            self.clamp = self
                .magnitudes
                .iter()
                .map(|s| (f32::from_bits(s.cut(0).key), f32::from_bits(s.cut(1).key)))
                .collect();
            // Quantiles that cross (a tiny model) clamp everything to the lower one.
            self.clamp.iter_mut().for_each(|c| c.1 = c.1.max(c.0));
            self.stage = Stage::Scores;
            return Ok(Next::Again);
        }
        self.range = self
            .scores
            .iter()
            .map(|s| (from_key(s.cut(0).key), from_key(s.cut(1).key)))
            .collect();
        self.stage = Stage::Ready;
        Ok(Next::Done)
    }

    fn apply(&self, chunk: &Chunk, out: &mut [f32]) -> Result<()> {
        let lambda = self.lambdas[chunk.index];
        let weights = &self.weights[chunk.index];
        let mut b = vec![0.0; chunk.inputs.len()];
        for (k, o) in out.iter_mut().enumerate() {
            self.score(chunk, k, &mut b);
            let (mut sum, mut total) = (0.0f64, 0.0f64);
            for (i, b) in b.iter().enumerate() {
                let (low, high) = self.range[i];
                let s = if high > low {
                    f64::from((b.clamp(low, high.max(low)) - low) / (high - low))
                } else {
                    0.0
                };
                let d = chunk.inputs[i][k];
                let c = if d == 0.0 {
                    0.0
                } else {
                    d.signum() * self.clamped(i, d).0
                };
                sum += weights[i] * f64::from(c) * s;
                total += s;
            }
            *o = (lambda * sum / total.max(1e-12)) as f32;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::merged;
    use super::*;

    #[test]
    fn keys_keep_the_order_of_numbers() {
        let xs = [-3.0f32, -0.5, -0.0, 0.0, 1e-9, 2.0];
        assert!(xs.windows(2).all(|w| key(w[0]) <= key(w[1])));
        assert!(xs.iter().all(|x| from_key(key(*x)) == *x));
    }

    #[test]
    fn an_entry_only_one_task_wants_keeps_its_value() {
        // With ratio 1 the lowest score is 0; the zero entry of b has X = 0, the agreeing entries share.
        let got = merged(
            "pcb",
            &[("ratio", 0.5.into()), ("quantile", 0.0.into())],
            &[&[2.0, 1.0, 0.1, -0.1], &[2.0, 0.0, 0.1, -0.1]],
        );
        assert!((got[0] - 2.0).abs() < 1e-6, "both want the same: {got:?}");
    }
}
