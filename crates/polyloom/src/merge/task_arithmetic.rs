//! Generalised task arithmetic: eight mergekit methods as settings of one routine (methods/merging.md 2.6).

use polyloom_core::rng::Stream;
use polyloom_core::wide;

use super::election::{Ballot, Divisor, elect};
use super::method::{
    Base, Chunk, Golden, Job, Kernel, Kind, Method, Missing, Next, Param, Partial, Scope, Spec,
    Unit, Unset, Values, typed,
};
use super::sparsify::{Found, Rescale, Rule, STEP, Sparsifier};
use crate::error::Result;

const ANY: Kind = Kind::Number(f64::NEG_INFINITY, f64::INFINITY);

const WEIGHT: Param = Param::each(
    "weight",
    ANY,
    Unset::RequiredInYaml(1.0),
    "Factor of this expert's task vector; negative forgets.",
);
const DENSITY: Param = Param::each(
    "density",
    ANY,
    Unset::Number(1.0),
    "Share of the task vector's entries that survives; 1 or more keeps all.",
);
const UNUSED_DENSITY: Param = Param::each(
    "density",
    ANY,
    Unset::Number(1.0),
    "Without effect, as in the peer: this method removes nothing.",
);
const GAMMA: Param = Param::each(
    "gamma",
    Kind::Number(0.0, 1.0),
    Unset::Number(0.01),
    "Share of the largest entries to remove.",
);
const EPSILON: Param = Param::each(
    "epsilon",
    Kind::Number(0.0, 1.0),
    Unset::Number(0.15),
    "Half the spread of the keep probability; density - epsilon and density + epsilon must lie between 0 and 1.",
);
const LAMBDA: Param = Param::shared(
    "lambda",
    ANY,
    Unset::Number(1.0),
    "Factor of the merged vector.",
);
const INT8_MASK: Param = Param::shared(
    "int8_mask",
    Kind::Flag,
    Unset::Flag(false),
    "Storage of the peer's sign mask; results are the same with and without.",
);

const fn normalize(default: bool) -> Param {
    Param::shared(
        "normalize",
        Kind::Flag,
        Unset::Flag(default),
        "Divide by the sum of the weights that took part (per element where signs are elected).",
    )
}

const fn rescale(default: Unset) -> Param {
    Param::shared(
        "rescale",
        Kind::Rescale,
        default,
        "Survivors keep the L1 norm (`\"l1\"`), are divided by the density (`\"inverse\"`), or stay (`false`).",
    )
}

const L1: Unset = Unset::Word("l1");
const OFF: Unset = Unset::Flag(false);

/// The sparsifier of a variant.
#[derive(Clone, Copy)]
enum Cutter {
    Nothing,
    Magnitude,
    Outliers,
    Bernoulli,
    Magprune,
}

impl Cutter {
    fn rule(self, values: &Values) -> Rule {
        let density = values.maybe("density").unwrap_or(1.0);
        match self {
            Self::Nothing => Rule::Keep,
            Self::Magnitude => Rule::Magnitude { density },
            Self::Outliers => Rule::Outliers {
                density,
                gamma: values.number("gamma"),
            },
            Self::Bernoulli => Rule::Bernoulli { density },
            Self::Magprune => Rule::Magprune {
                density,
                epsilon: values.number("epsilon"),
            },
        }
    }
}

struct Variant {
    spec: &'static Spec,
    cutter: Cutter,
    elect: bool,
}

macro_rules! variant {
    ($name:ident, $word:literal, $cutter:ident, elect: $elect:literal, $summary:literal, $source:literal,
     $formula:literal, differs: $differs:literal, $cost:literal, [$($param:expr),*], $golden:expr) => {
        static $name: Variant = Variant {
            spec: &Spec {
                name: $word,
                summary: $summary,
                source: $source,
                formula: $formula,
                differs: $differs,
                cost: $cost,
                base: Base::Required,
                experts: (0, usize::MAX),
                deltas: true,
                scope: Scope::Tensor,
                params: &[WEIGHT, $($param),*, INT8_MASK, LAMBDA],
                on: None,
                golden: $golden,
                missing: Missing::Refuse,
            },
            cutter: Cutter::$cutter,
            elect: $elect,
        };
    };
}

variant!(TASK_ARITHMETIC, "task_arithmetic", Nothing, elect: false,
    "Base plus the weighted sum of task vectors",
    "Ilharco et al. 2023, section 2; mergekit 0.1.5 merge_methods/generalized_task_arithmetic.py",
    "`V = lambda sum_i w_i D_i`, divided by `sum_i w_i` (1 if below 1e-8) if `normalize`.",
    differs: "",
    "one pass, O(elements x experts)",
    [UNUSED_DENSITY, normalize(false), rescale(OFF)],
    Golden::Cases(&["task_arithmetic"]));

variant!(TIES, "ties", Magnitude, elect: true,
    "Trims each task vector by magnitude, elects a sign per element, averages what agrees",
    "TIES-Merging (Yadav et al. 2023), section 4; mergekit 0.1.5 merge_methods/generalized_task_arithmetic.py",
    "Keep the `max(1, int(density n))` largest entries of each `D_i`; `S = sign(sum_i w_i D_i)`, zero counting as +; \
     `V = lambda sum_i w_i D_i [sign(w_i D_i) = S]`, divided by the sum of the weights that agree if `normalize`.",
    differs: "Cuts per tensor, as mergekit does; the paper's own code cuts over the whole model: `ties_reference`.",
    "up to three passes, O(elements x experts)",
    [DENSITY, normalize(true), rescale(OFF)],
    Golden::Cases(&["ties"]));

variant!(DARE_LINEAR, "dare_linear", Bernoulli, elect: false,
    "Drops entries of each task vector at random, rescales the rest, adds up",
    "DARE (Yu et al. 2024), section 3; mergekit 0.1.5 merge_methods/generalized_task_arithmetic.py",
    "Each entry of `D_i` survives with probability `density`; survivors are rescaled; `V = lambda sum_i w_i D_i`.",
    differs: "The paper and PEFT divide survivors by the density (`rescale = \"inverse\"`); mergekit and the default \
              here keep each tensor's L1 norm. Draws are Polyloom's own.",
    "two passes (one without `rescale = \"l1\"`), O(elements x experts)",
    [DENSITY, normalize(false), rescale(L1)],
    Golden::Cases(&["dare_linear"]));

variant!(DARE_TIES, "dare_ties", Bernoulli, elect: true,
    "DARE's random dropping followed by TIES' sign election",
    "DARE (Yu et al. 2024), section 3, with TIES-Merging; mergekit 0.1.5 merge_methods/generalized_task_arithmetic.py",
    "Each entry of `D_i` survives with probability `density`; survivors are rescaled; then as `ties`.",
    differs: "See `dare_linear`.",
    "two passes (one without `rescale = \"l1\"`), O(elements x experts)",
    [DENSITY, normalize(false), rescale(L1)],
    Golden::Cases(&["dare_ties"]));

variant!(BREADCRUMBS, "breadcrumbs", Outliers, elect: false,
    "Removes each task vector's largest and smallest entries, adds up",
    "Model Breadcrumbs (Davari and Belilovsky 2023), section 3; \
     mergekit 0.1.5 merge_methods/generalized_task_arithmetic.py",
    "Of each `D_i` the `int(gamma n)` largest go, then the smallest until `int(density n)` are left; \
     `V = lambda sum_i w_i D_i`.",
    differs: "The paper's own code counts and orders the cuts differently: `breadcrumbs_reference`.",
    "up to three passes, O(elements x experts)",
    [DENSITY, GAMMA, normalize(false), rescale(OFF)],
    Golden::Cases(&["breadcrumbs"]));

variant!(BREADCRUMBS_TIES, "breadcrumbs_ties", Outliers, elect: true,
    "Breadcrumbs' cuts followed by TIES' sign election",
    "Model Breadcrumbs (Davari and Belilovsky 2023) with TIES-Merging; \
     mergekit 0.1.5 merge_methods/generalized_task_arithmetic.py",
    "Cuts as `breadcrumbs`, then as `ties`.",
    differs: "",
    "up to three passes, O(elements x experts)",
    [DENSITY, GAMMA, normalize(false), rescale(OFF)],
    Golden::Cases(&["breadcrumbs_ties"]));

variant!(DELLA, "della", Magprune, elect: true,
    "Drops entries at random, small ones more often, then elects signs",
    "DELLA-Merging (Deep et al. 2024), section 3; mergekit 0.1.5 merge_methods/generalized_task_arithmetic.py",
    "An entry of rank r of m in its row (ascending magnitude) survives with probability \
     `density - epsilon + 2 epsilon (r - 1)/(m - 1)`; survivors are rescaled; then as `ties`.",
    differs: "Draws are Polyloom's own; rows of one element survive with probability `density` (0/0 in the peer); \
              equal magnitudes share the mean of their ranks.",
    "two passes with a sort of every row, O(elements x experts)",
    [DENSITY, EPSILON, normalize(true), rescale(L1)],
    Golden::Cases(&["della"]));

variant!(DELLA_LINEAR, "della_linear", Magprune, elect: false,
    "Drops entries at random, small ones more often, and adds up",
    "DELLA-Merging (Deep et al. 2024), section 3; mergekit 0.1.5 merge_methods/generalized_task_arithmetic.py",
    "Drops as `della`; `V = lambda sum_i w_i D_i`.",
    differs: "See `della`.",
    "two passes with a sort of every row, O(elements x experts)",
    [DENSITY, EPSILON, normalize(false), rescale(L1)],
    Golden::Cases(&["della_linear"]));

/// The entries of this file.
pub static METHODS: &[&dyn Method] = &[
    &TASK_ARITHMETIC,
    &TIES,
    &DARE_LINEAR,
    &DARE_TIES,
    &BREADCRUMBS,
    &BREADCRUMBS_TIES,
    &DELLA,
    &DELLA_LINEAR,
];

impl Method for Variant {
    fn spec(&self) -> &'static Spec {
        self.spec
    }

    fn kernel(&self, job: &Job) -> Result<Box<dyn Kernel>> {
        let tensor = &job.tensors[0];
        let rescale = Rescale::of(&tensor.shared, "rescale");
        let mut cutters = Vec::new();
        for (i, values) in tensor.each.iter().enumerate() {
            let stream = Stream::new(job.seed, &tensor.name, i as u64);
            let rule = self.cutter.rule(values);
            cutters.push(Sparsifier::new(rule, rescale, &tensor.shape, stream)?);
        }
        // One row-wise cut makes all chunks start at rows.
        if cutters.iter().any(|c| c.unit() == Unit::Row) {
            let row = tensor.last_axis();
            cutters = cutters.into_iter().map(|c| c.in_rows(row)).collect();
        }
        Ok(Box::new(Merge {
            cutters,
            weights: tensor
                .each
                .iter()
                .map(|v| v.number("weight") as f32)
                .collect(),
            elect: self.elect,
            normalize: tensor.shared.flag("normalize"),
            lambda: tensor.shared.number("lambda") as f32,
        }))
    }
}

struct Merge {
    cutters: Vec<Sparsifier>,
    weights: Vec<f32>,
    elect: bool,
    normalize: bool,
    lambda: f32,
}

impl Kernel for Merge {
    fn surveys(&self) -> bool {
        self.cutters.iter().any(Sparsifier::surveys)
    }

    fn unit(&self) -> Unit {
        self.cutters
            .iter()
            .map(Sparsifier::unit)
            .max()
            .unwrap_or(Unit::Chunk)
    }

    fn tabulates(&self) -> bool {
        self.cutters.iter().any(Sparsifier::tabulates)
    }

    fn samples(&self) -> bool {
        self.cutters.iter().all(Sparsifier::samples)
    }

    fn survey(&self, _: usize, chunk: &Chunk) -> Result<Partial> {
        let place = (chunk.index, chunk.start);
        let found: Vec<Found> = self
            .cutters
            .iter()
            .zip(chunk.inputs)
            .map(|(cutter, values)| cutter.survey(place, values))
            .collect();
        Ok(Box::new(found))
    }

    fn absorb(&mut self, _: usize, partial: Partial) -> Result<()> {
        for (cutter, found) in self.cutters.iter_mut().zip(typed::<Vec<Found>>(partial)?) {
            cutter.absorb(found);
        }
        Ok(())
    }

    fn finish(&mut self, _: usize) -> Result<Next> {
        let mut next = Next::Done;
        for cutter in &mut self.cutters {
            if cutter.finish() == Next::Again {
                next = Next::Again;
            }
        }
        Ok(next)
    }

    fn apply(&self, chunk: &Chunk, out: &mut [f32]) -> Result<()> {
        let place = (chunk.index, chunk.start);
        let step = self.cutters.iter().map(Sparsifier::step).max();
        let step = step.unwrap_or(STEP).min(chunk.len().max(1));
        let mut walks: Vec<_> = self.cutters.iter().map(|c| c.walk(place)).collect();
        let mut kept = vec![vec![0.0f32; step]; self.cutters.len()];
        for (n, out) in out.chunks_mut(step).enumerate() {
            let (from, len) = (n * step, out.len());
            for (((walk, cutter), kept), values) in walks
                .iter_mut()
                .zip(&self.cutters)
                .zip(&mut kept)
                .zip(chunk.inputs)
            {
                if !cutter.keeps_all() {
                    walk.next(&values[from..from + len], &mut kept[..len]);
                }
            }
            let ballots: Vec<Ballot> = self
                .cutters
                .iter()
                .zip(&kept)
                .zip(chunk.inputs)
                .zip(&self.weights)
                .map(|(((cutter, kept), values), weight)| {
                    let factor = weight * cutter.scale();
                    Ballot {
                        values: if cutter.keeps_all() {
                            &values[from..from + len]
                        } else {
                            &kept[..len]
                        },
                        vote: factor,
                        share: factor,
                        weight: *weight,
                    }
                })
                .collect();
            self.combine(&ballots, out);
        }
        Ok(())
    }
}

impl Merge {
    fn combine(&self, ballots: &[Ballot], out: &mut [f32]) {
        if self.elect {
            let divisor = if self.normalize {
                Divisor::Weights
            } else {
                Divisor::One
            };
            elect(ballots, divisor, out);
        }
        let sum: f32 = self.weights.iter().sum();
        let divisor = match (self.elect, self.normalize) {
            (false, true) if sum.abs() >= 1e-8 => sum,
            _ => 1.0,
        };
        wide(
            #[inline(always)]
            || {
                if !self.elect {
                    out.fill(0.0);
                    for b in ballots {
                        for (o, v) in out.iter_mut().zip(b.values) {
                            *o += b.share * v;
                        }
                    }
                    if divisor != 1.0 {
                        out.iter_mut().for_each(|o| *o /= divisor);
                    }
                }
                if self.lambda != 1.0 {
                    out.iter_mut().for_each(|o| *o *= self.lambda);
                }
            },
        );
    }
}
