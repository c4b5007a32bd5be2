//! `ram` and `ramplus_tl`: what one task alone changed is kept whole, what several changed is averaged.

use super::method::{
    Base, Chunk, Golden, Job, Kernel, Kind, Method, Missing, Next, Param, Partial, Scope, Spec,
    Unset, typed,
};
use super::sparsify::STEP;
use crate::error::Result;

const EPSILON: Param = Param::shared(
    "epsilon",
    Kind::Number(0.0, f64::INFINITY),
    Unset::Number(1e-5),
    "Changes up to this size count as none.",
);

static RAM: Variant = Variant {
    boosted: false,
    spec: &Spec {
        name: "ram",
        summary: "Keeps changes of one expert whole, averages changes of several",
        source: "Reinforced Agent Merging (2026); mergekit 0.1.5 merge_methods/ram.py",
        formula: "`N_i = [|D_i| > epsilon]`, `count = sum_i N_i`; `V = sum_i N_i D_i / count` (0 where none).",
        differs: "",
        cost: "one pass, O(elements x experts)",
        base: Base::Required,
        experts: (1, usize::MAX),
        deltas: true,
        scope: Scope::Tensor,
        params: &[EPSILON],
        on: None,
        golden: Golden::Cases(&["ram"]),
        missing: Missing::Refuse,
    },
};

static RAMPLUS_TL: Variant = Variant {
    boosted: true,
    spec: &Spec {
        name: "ramplus_tl",
        summary: "`ram` with a boost for what one expert alone changed",
        source: "Reinforced Agent Merging (2026); mergekit 0.1.5 merge_methods/ram.py",
        formula: "As `ram`; changes that only expert i made are multiplied by \
                  `1 + r clamp(shared_i / max(unique_i, epsilon), 0, alpha)`, where `shared_i` and `unique_i` count \
                  the elements of the tensor that i changed together with others and alone.",
        differs: "",
        cost: "two passes, O(elements x experts)",
        base: Base::Required,
        experts: (1, usize::MAX),
        deltas: true,
        scope: Scope::Tensor,
        params: &[
            EPSILON,
            Param::shared(
                "r",
                Kind::Number(f64::NEG_INFINITY, f64::INFINITY),
                Unset::Number(0.1),
                "Strength of the boost.",
            ),
            Param::shared(
                "alpha",
                Kind::Number(0.0, f64::INFINITY),
                Unset::Number(0.2),
                "Upper bound of the ratio that boosts.",
            ),
        ],
        on: None,
        golden: Golden::Cases(&["ramplus_tl"]),
        missing: Missing::Refuse,
    },
};

/// The entries of this file.
pub static METHODS: &[&dyn Method] = &[&RAM, &RAMPLUS_TL];

struct Variant {
    spec: &'static Spec,
    boosted: bool,
}

impl Method for Variant {
    fn spec(&self) -> &'static Spec {
        self.spec
    }

    fn kernel(&self, job: &Job) -> Result<Box<dyn Kernel>> {
        let shared = &job.tensors[0].shared;
        let n = job.experts.len();
        let epsilon = shared.number("epsilon");
        Ok(Box::new(Overlap {
            epsilon,
            boost: self
                .boosted
                .then(|| (shared.number("r"), shared.number("alpha"))),
            counts: vec![(0, 0); n],
            factors: vec![1.0; n],
        }))
    }
}

struct Overlap {
    epsilon: f64,
    boost: Option<(f64, f64)>,
    /// Per expert: elements changed with others, and alone.
    counts: Vec<(u64, u64)>,
    factors: Vec<f32>,
}

impl Overlap {
    /// How many experts changed each element of a step.
    fn count(&self, chunk: &Chunk, from: usize, counts: &mut [f32]) {
        let epsilon = self.epsilon as f32;
        counts.fill(0.0);
        for values in chunk.inputs {
            for (c, v) in counts.iter_mut().zip(&values[from..]) {
                *c += f32::from(u8::from(v.abs() > epsilon));
            }
        }
    }
}

impl Kernel for Overlap {
    fn surveys(&self) -> bool {
        self.boost.is_some()
    }

    fn survey(&self, _: usize, chunk: &Chunk) -> Result<Partial> {
        let epsilon = self.epsilon as f32;
        let mut found = vec![(0u64, 0u64); chunk.inputs.len()];
        let mut counts = [0.0f32; STEP];
        for from in (0..chunk.len()).step_by(STEP) {
            let counts = &mut counts[..STEP.min(chunk.len() - from)];
            self.count(chunk, from, counts);
            for ((shared, unique), values) in found.iter_mut().zip(chunk.inputs) {
                let (mut s, mut u) = (0u32, 0u32);
                for (c, v) in counts.iter().zip(&values[from..]) {
                    let changed = v.abs() > epsilon;
                    s += u32::from(changed & (*c > 1.0));
                    u += u32::from(changed & (*c == 1.0));
                }
                *shared += u64::from(s);
                *unique += u64::from(u);
            }
        }
        Ok(Box::new(found))
    }

    fn absorb(&mut self, _: usize, partial: Partial) -> Result<()> {
        for (total, found) in self
            .counts
            .iter_mut()
            .zip(typed::<Vec<(u64, u64)>>(partial)?)
        {
            total.0 += found.0;
            total.1 += found.1;
        }
        Ok(())
    }

    fn finish(&mut self, _: usize) -> Result<Next> {
        if let Some((r, alpha)) = self.boost {
            for (factor, (shared, unique)) in self.factors.iter_mut().zip(&self.counts) {
                let unique = (*unique as f64).max(self.epsilon);
                // No change at all and epsilon 0: no boost.
                let ratio = if *shared == 0 {
                    0.0
                } else {
                    *shared as f64 / unique
                };
                *factor = (1.0 + r * ratio.clamp(0.0, alpha)) as f32;
            }
        }
        Ok(Next::Done)
    }

    fn apply(&self, chunk: &Chunk, out: &mut [f32]) -> Result<()> {
        let epsilon = self.epsilon as f32;
        let mut counts = [0.0f32; STEP];
        for (k, out) in out.chunks_mut(STEP).enumerate() {
            let from = k * STEP;
            let counts = &mut counts[..out.len()];
            self.count(chunk, from, counts);
            out.fill(0.0);
            for (values, factor) in chunk.inputs.iter().zip(&self.factors) {
                for ((o, c), v) in out.iter_mut().zip(counts.iter()).zip(&values[from..]) {
                    let factor = if *c > 1.0 { 1.0 } else { *factor };
                    *o += if v.abs() > epsilon { factor * v } else { 0.0 };
                }
            }
            for (o, c) in out.iter_mut().zip(counts.iter()) {
                *o /= c.max(1.0);
            }
        }
        Ok(())
    }
}
