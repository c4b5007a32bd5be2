//! Steps on task vectors before a method (`[[merge.pre]]`): kernels that hand the inner kernel changed task vectors.

use polyloom_core::linalg::{Matrix, svd};
use polyloom_core::rng::Stream;

use super::method::{
    Chunk, Job, Kernel, Kind, Next, Param, Part, Partial, Scope, Unit, Unset, Values, typed,
};
use super::per_tensor::common_unit;
use super::sparsify::{Found, Rescale, Rule, Sparsifier};
use crate::error::{MergeError, Result};

use super::compose::StepSpec;

/// The contract of `sparsify`.
pub(super) const SPARSIFY: StepSpec = StepSpec {
    name: "sparsify",
    summary: "Keep a share of every task vector: the largest entries, a middle band, a random choice, or the leading singular directions",
    source: "rules of TIES, DARE, Model Breadcrumbs and DELLA as mergekit 0.1.5 sparsify.py counts them (methods section 2.6); svd: Twin-Merging (Lu et al. 2024)",
    pre: true,
    params: &[
        Param::shared(
            "rule",
            Kind::Word(&[
                ("magnitude", "magnitude"),
                ("bernoulli", "bernoulli"),
                ("outliers", "outliers"),
                ("magprune", "magprune"),
                ("svd", "svd"),
            ]),
            Unset::Word("magnitude"),
            "What survives: the `max(1, int(density n))` largest; each with probability `density`; the largest `int(gamma n)` gone, then the smallest; by rank in the row from `density - epsilon` to `density + epsilon`; the first `int(density min(rows, columns))` singular directions of a matrix (other tensors whole).",
        )
        .whole(),
        Param::shared("density", Kind::Number(0.0, 1.0), Unset::Required, "Share that survives; 1 keeps all.").whole(),
        Param::shared("gamma", Kind::Number(0.0, 1.0), Unset::Nothing, "For `outliers`: share of the largest to remove; 0.01 if unset.").whole(),
        Param::shared("epsilon", Kind::Number(0.0, 1.0), Unset::Nothing, "For `magprune`: half the spread of the probability; 0.15 if unset.").whole(),
        Param::shared(
            "scope",
            Kind::Word(&[("tensor", "tensor"), ("model", "model")]),
            Unset::Word("tensor"),
            "What n counts: each tensor, or the whole model (`magnitude` and `outliers` only).",
        )
        .whole(),
        Param::shared(
            "rescale",
            Kind::Rescale,
            Unset::Flag(false),
            "Survivors keep the L1 norm of the scope (`\"l1\"`), are divided by the density (`\"inverse\"`, not for `svd`), or stay (`false`).",
        )
        .whole(),
    ],
};

/// The contract of `elect_sign`.
pub(super) const ELECT_SIGN: StepSpec = StepSpec {
    name: "elect_sign",
    summary: "Keep only entries that agree with the sign of their sum over the task vectors; where that is 0, with the majority of the model",
    source: "TIES-Merging (Yadav et al. 2023), section 4.2; prateeky2806/ties-merging src/utils/merge_utils.py (methods section 3.2, steps 2 and 3)",
    pre: true,
    params: &[],
};

/// A step: like a kernel, but what it yields are task vectors.
trait PreStep: Send + Sync {
    fn surveys(&self) -> bool;
    fn unit(&self) -> Unit {
        Unit::Chunk
    }
    fn samples(&self) -> bool {
        false
    }
    fn survey(&self, chunk: &Chunk) -> Result<Partial>;
    fn absorb(&mut self, partial: Partial) -> Result<()>;
    fn finish(&mut self) -> Result<Next>;
    /// Writes the changed task vectors of a chunk.
    fn change(&self, chunk: &Chunk, out: &mut [Vec<f32>]) -> Result<()>;
}

/// What a kernel with pre-steps must cover: the whole model if a step counts over it.
pub fn pre_scope(steps: &[(&str, &Values)]) -> Scope {
    let model = |(name, values): &(&str, &Values)| {
        *name == ELECT_SIGN.name || values.word("scope") == "model"
    };
    if steps.iter().any(model) {
        Scope::Model
    } else {
        Scope::Tensor
    }
}

/// True for steps whose result is a draw of the seed.
pub fn draws(name: &str, values: &Values) -> bool {
    name == SPARSIFY.name && matches!(values.word("rule"), "bernoulli" | "magprune")
}

/// True for steps that hold whole matrices.
pub fn whole_tensors(name: &str, values: &Values) -> bool {
    name == SPARSIFY.name && matches!(values.word("rule"), "svd" | "magprune")
}

/// Checks what the values of a step mean together.
///
/// # Errors
/// A parameter that the chosen rule does not have, probabilities outside (0, 1).
pub fn check(name: &str, values: &Values) -> Result<()> {
    if name != SPARSIFY.name {
        return Ok(());
    }
    let rule = values.word("rule");
    let foreign = |param: &str, owner: &str| {
        MergeError::plan(
            "bad-value",
            format!("step `sparsify`: `{param}` belongs to rule `{owner}`, not to `{rule}`"),
        )
        .hint(format!("leave `{param}` out"))
    };
    if rule != "outliers" && values.maybe("gamma").is_some() {
        return Err(foreign("gamma", "outliers"));
    }
    if rule != "magprune" && values.maybe("epsilon").is_some() {
        return Err(foreign("epsilon", "magprune"));
    }
    if values.word("scope") == "model" && !matches!(rule, "magnitude" | "outliers") {
        return Err(MergeError::plan(
            "bad-value",
            format!("step `sparsify`: rule `{rule}` does not count over the model"),
        )
        .hint("`scope = \"model\"` goes with the rules magnitude and outliers"));
    }
    if rule == "svd" && values.word("rescale") == "inverse" {
        return Err(MergeError::plan(
            "bad-value",
            "step `sparsify`: rule `svd` keeps directions, not entries; dividing by the density has no meaning",
        )
        .hint("use `rescale = \"l1\"` or `false`"));
    }
    if rule == "magprune" {
        Sparsifier::new(rule_of(values), Rescale::Off, &[2], Stream::new(0, "", 0))?;
    }
    Ok(())
}

fn rule_of(values: &Values) -> Rule {
    let density = values.number("density");
    match values.word("rule") {
        "bernoulli" => Rule::Bernoulli { density },
        "outliers" => Rule::Outliers {
            density,
            gamma: values.maybe("gamma").unwrap_or(0.01),
        },
        "magprune" => Rule::Magprune {
            density,
            epsilon: values.maybe("epsilon").unwrap_or(0.15),
        },
        _ => Rule::Magnitude { density },
    }
}

/// Puts pre-steps in front of a kernel; the first one sees the task vectors as they are. `draws_inside` says whether
/// the kernel draws from the seed itself: every random piece of a chain then draws numbers of its own, the innermost
/// one those that it would draw alone.
///
/// # Errors
/// An unknown step (a planning bug), or a step that refuses the job.
pub fn wrap(
    mut inner: Box<dyn Kernel>,
    steps: &[(&str, &Values)],
    job: &Job,
    draws_inside: bool,
) -> Result<Box<dyn Kernel>> {
    let mut drawing = usize::from(draws_inside);
    for (name, values) in steps.iter().rev() {
        let by_row = inner.unit() == Unit::Row;
        let step: Box<dyn PreStep> = match *name {
            "elect_sign" => Box::new(ElectSign { majority: 0 }),
            "sparsify" if values.word("rule") == "svd" => Box::new(Directions {
                density: values.number("density"),
                l1: Rescale::of(values, "rescale") == Rescale::L1,
                matrices: job.tensors.iter().any(|t| t.shape.len() == 2),
            }),
            "sparsify" => Box::new(Sparsify::new(values, job, drawing, by_row)?),
            other => return Err(MergeError::Internal(format!("no pre-step `{other}`"))),
        };
        drawing += usize::from(draws(name, values));
        inner = Box::new(PreKernel {
            unit: common_unit(
                (step.unit(), step.surveys() && !by_row),
                (inner.unit(), inner.surveys()),
            ),
            stage: if step.surveys() {
                Stage::Step
            } else {
                Stage::Inner(0)
            },
            step,
            inner,
        });
    }
    Ok(inner)
}

/// Who surveys: the step, or since round n the inner kernel.
enum Stage {
    Step,
    Inner(usize),
}

/// A step in front of a kernel.
struct PreKernel {
    step: Box<dyn PreStep>,
    inner: Box<dyn Kernel>,
    unit: Unit,
    stage: Stage,
}

impl PreKernel {
    /// Calls `f` with the chunk as the inner kernel sees it.
    fn changed<T>(&self, chunk: &Chunk, f: impl FnOnce(&Chunk) -> Result<T>) -> Result<T> {
        let mut vectors = vec![vec![0.0; chunk.len()]; chunk.inputs.len()];
        self.step.change(chunk, &mut vectors)?;
        let inputs: Vec<&[f32]> = vectors.iter().map(Vec::as_slice).collect();
        f(&Chunk {
            inputs: &inputs,
            ..*chunk
        })
    }
}

impl Kernel for PreKernel {
    fn surveys(&self) -> bool {
        matches!(self.stage, Stage::Step) || self.inner.surveys()
    }

    fn unit(&self) -> Unit {
        self.unit
    }

    fn samples(&self) -> bool {
        match self.stage {
            Stage::Step => self.step.samples(),
            Stage::Inner(_) => self.inner.samples(),
        }
    }

    fn survey(&self, round: usize, chunk: &Chunk) -> Result<Partial> {
        match self.stage {
            Stage::Step => self.step.survey(chunk),
            Stage::Inner(from) => self.changed(chunk, |c| self.inner.survey(round - from, c)),
        }
    }

    fn absorb(&mut self, round: usize, partial: Partial) -> Result<()> {
        match self.stage {
            Stage::Step => self.step.absorb(partial),
            Stage::Inner(from) => self.inner.absorb(round - from, partial),
        }
    }

    fn finish(&mut self, round: usize) -> Result<Next> {
        match self.stage {
            Stage::Step => {
                if self.step.finish()? == Next::Again {
                    return Ok(Next::Again);
                }
                self.stage = Stage::Inner(round + 1);
                Ok(if self.inner.surveys() {
                    Next::Again
                } else {
                    Next::Done
                })
            }
            Stage::Inner(from) => self.inner.finish(round - from),
        }
    }

    fn apply(&self, chunk: &Chunk, out: &mut [f32]) -> Result<()> {
        self.changed(chunk, |c| self.inner.apply(c, out))
    }

    fn part(&self, part: Part, chunk: &Chunk, out: &mut [f32]) -> Result<bool> {
        self.changed(chunk, |c| self.inner.part(part, c, out))
    }

    fn task_scale(&self, task: usize) -> Option<f64> {
        self.inner.task_scale(task)
    }
}

/// `sparsify` by a rule on entries.
struct Sparsify {
    /// One per task vector and scope: `[tensor][expert]`, or one list for the whole model.
    cutters: Vec<Vec<Sparsifier>>,
    unit: Unit,
    /// The scope whose partials arrive; earlier ones have ended the round.
    at: usize,
}

impl Sparsify {
    fn new(values: &Values, job: &Job, salt: usize, by_row: bool) -> Result<Self> {
        let (rule, rescale) = (rule_of(values), Rescale::of(values, "rescale"));
        let stream = |name: &str, expert: usize| match salt {
            0 => Stream::new(job.seed, name, expert as u64),
            n => Stream::new(job.seed, &format!("{name}\0pre{n}"), expert as u64),
        };
        let experts = 0..job.experts.len();
        let mut unit = Unit::Chunk;
        let cutters = if values.word("scope") == "model" {
            let elements: usize = job.tensors.iter().map(|t| t.elements()).sum();
            if by_row && rescale == Rescale::L1 {
                unit = Unit::Tensor; // Rows of many lengths: only whole tensors make the same sums.
            }
            vec![
                experts
                    .map(|e| {
                        let one = Sparsifier::new(rule, rescale, &[elements], stream("", e))?;
                        Ok(if by_row { one.without_samples() } else { one })
                    })
                    .collect::<Result<_>>()?,
            ]
        } else {
            let mut all = Vec::new();
            for tensor in &job.tensors {
                let mut list = Vec::new();
                for e in experts.clone() {
                    let mut one =
                        Sparsifier::new(rule, rescale, &tensor.shape, stream(&tensor.name, e))?;
                    if by_row || one.unit() == Unit::Row {
                        one = one.in_rows(tensor.last_axis());
                    }
                    if job.tensors.len() > 1 {
                        one = one.without_masks().without_samples();
                    }
                    unit = unit.max(one.unit());
                    list.push(one);
                }
                all.push(list);
            }
            all
        };
        Ok(Self {
            cutters,
            unit,
            at: 0,
        })
    }

    fn scope_of(&self, tensor: usize) -> usize {
        tensor.min(self.cutters.len().saturating_sub(1))
    }

    fn end(&mut self, scope: usize) {
        for cutter in &mut self.cutters[scope] {
            cutter.finish();
        }
    }
}

impl PreStep for Sparsify {
    fn surveys(&self) -> bool {
        self.cutters.iter().flatten().any(Sparsifier::surveys)
    }

    fn unit(&self) -> Unit {
        self.unit
    }

    fn samples(&self) -> bool {
        self.cutters.iter().flatten().all(Sparsifier::samples)
    }

    fn survey(&self, chunk: &Chunk) -> Result<Partial> {
        let scope = self.scope_of(chunk.index);
        let place = (chunk.index, chunk.start);
        let found: Vec<Found> = self.cutters[scope]
            .iter()
            .zip(chunk.inputs)
            .map(|(cutter, values)| cutter.survey(place, values))
            .collect();
        Ok(Box::new((scope, found)))
    }

    fn absorb(&mut self, partial: Partial) -> Result<()> {
        let (scope, found) = typed::<(usize, Vec<Found>)>(partial)?;
        while self.at < scope {
            self.end(self.at);
            self.at += 1;
        }
        for (cutter, found) in self.cutters[scope].iter_mut().zip(found) {
            cutter.absorb(found);
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<Next> {
        for scope in self.at..self.cutters.len() {
            self.end(scope);
        }
        self.at = 0;
        Ok(if self.surveys() {
            Next::Again
        } else {
            Next::Done
        })
    }

    fn change(&self, chunk: &Chunk, out: &mut [Vec<f32>]) -> Result<()> {
        let place = (chunk.index, chunk.start);
        let cutters = &self.cutters[self.scope_of(chunk.index)];
        for ((cutter, values), out) in cutters.iter().zip(chunk.inputs).zip(out) {
            let mut walk = cutter.walk(place);
            let step = cutter.step();
            for (v, o) in values.chunks(step).zip(out.chunks_mut(step)) {
                walk.next(v, o);
            }
            let scale = cutter.scale();
            if scale != 1.0 {
                out.iter_mut().for_each(|x| *x *= scale);
            }
        }
        Ok(())
    }
}

/// `sparsify` with rule `svd`: the leading singular directions of every matrix; other tensors stay whole.
struct Directions {
    density: f64,
    l1: bool,
    matrices: bool,
}

impl Directions {
    fn leading(&self, rows: usize, cols: usize, values: &[f32]) -> Result<Vec<f32>, String> {
        let k = (self.density * rows.min(cols) as f64) as usize;
        let d = svd(&Matrix::from_f32(rows, cols, values))?;
        let (u, vt) = (d.u.first_columns(k), d.vt.first_rows(k));
        let mut kept = u.scale_columns(&d.s[..k.min(d.s.len())]).times(&vt);
        if self.l1 {
            let before: f64 = values.iter().map(|x| f64::from(x.abs())).sum();
            let after: f64 = kept.data.iter().map(|x| x.abs()).sum();
            if before >= 1e-7 && after >= 1e-7 {
                kept.data.iter_mut().for_each(|x| *x *= before / after);
            }
        }
        Ok(kept.to_f32())
    }
}

impl PreStep for Directions {
    fn surveys(&self) -> bool {
        false
    }

    fn unit(&self) -> Unit {
        if self.matrices && self.density < 1.0 {
            Unit::Tensor
        } else {
            Unit::Chunk
        }
    }

    fn survey(&self, _: &Chunk) -> Result<Partial> {
        Ok(Box::new(()))
    }

    fn absorb(&mut self, _: Partial) -> Result<()> {
        Ok(())
    }

    fn finish(&mut self) -> Result<Next> {
        Ok(Next::Done)
    }

    fn change(&self, chunk: &Chunk, out: &mut [Vec<f32>]) -> Result<()> {
        for (values, out) in chunk.inputs.iter().zip(out) {
            match chunk.tensor.shape[..] {
                [rows, cols] if self.density < 1.0 && values.iter().any(|x| *x != 0.0) => {
                    *out = self.leading(rows, cols, values).map_err(|e| {
                        MergeError::plan(
                            "decomposition",
                            format!("step `sparsify`: tensor `{}`: {e}", chunk.tensor.name),
                        )
                    })?;
                }
                _ => out.copy_from_slice(values),
            }
        }
        Ok(())
    }
}

/// `elect_sign`.
struct ElectSign {
    /// Elements whose sum is positive minus those whose sum is negative.
    majority: i64,
}

impl ElectSign {
    /// Sums over the task vectors, in single precision and in order as the released code adds them.
    fn sums(chunk: &Chunk) -> Vec<f32> {
        let mut sums = vec![0.0f32; chunk.len()];
        for input in chunk.inputs {
            for (s, x) in sums.iter_mut().zip(*input) {
                *s += x;
            }
        }
        sums
    }
}

impl PreStep for ElectSign {
    fn surveys(&self) -> bool {
        true
    }

    fn survey(&self, chunk: &Chunk) -> Result<Partial> {
        let signs: i64 = Self::sums(chunk)
            .iter()
            .map(|s| i64::from(*s > 0.0) - i64::from(*s < 0.0))
            .sum();
        Ok(Box::new(signs))
    }

    fn absorb(&mut self, partial: Partial) -> Result<()> {
        self.majority += typed::<i64>(partial)?;
        Ok(())
    }

    fn finish(&mut self) -> Result<Next> {
        Ok(Next::Done)
    }

    fn change(&self, chunk: &Chunk, out: &mut [Vec<f32>]) -> Result<()> {
        let sums = Self::sums(chunk);
        for (values, out) in chunk.inputs.iter().zip(out) {
            for ((x, o), sum) in values.iter().zip(out.iter_mut()).zip(&sums) {
                // A sign that stays 0 selects negative entries, as in the released code.
                let up = *sum > 0.0 || *sum == 0.0 && self.majority > 0;
                let agrees = if up { *x > 0.0 } else { *x < 0.0 };
                *o = if agrees { *x } else { 0.0 };
            }
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "pre_tests.rs"]
mod tests;
