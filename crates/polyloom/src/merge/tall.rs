//! Masks on a multi-task vector: `tall`, `magnitude_mask` (one restored model per task) and `consensus` (one model).

use polyloom_core::DType;
use polyloom_core::dtype::round_through;

use super::cuts::{Cuts, InnerFirst};
use super::method::{
    Base, Chunk, Golden, Job, Kernel, Kind, Method, Missing, Next, Param, Part, Partial, Scope,
    Spec, Unset,
};
use super::survey::magnitude_bits;
use crate::error::{MergeError, Result};

const ANY: Kind = Kind::Number(f64::NEG_INFINITY, f64::INFINITY);
const TASK: Param = Param::shared(
    "task",
    Kind::Text,
    Unset::Nothing,
    "Expert whose restored model is written.",
)
.whole();

/// The type that a vector shared by all tasks is kept in.
pub(super) const STORE: Param = Param::shared(
    "store",
    Kind::Word(&[("f32", "f32"), ("f16", "f16"), ("bf16", "bf16")]),
    Unset::Word("f32"),
    "Type that the shared vector is rounded to, and kept in by a bundle.",
)
.whole();

/// The type that a job's `store` asks for; nothing is rounded to `f32`.
pub(super) fn store_of(job: &Job) -> Option<DType> {
    DType::from_word(job.tensors[0].shared.word("store")).filter(|d| *d != DType::F32)
}

static TALL: Spec = Spec {
    name: "tall",
    summary: "Restores one task from the multi-task vector by its localisation mask",
    source: "Localizing Task Information (Wang et al. 2024), section 4; nik-dim/tall_masks src/utils/tallmask_utils.py",
    formula: "`m_t = |W0 - W_t| > mask_lambda_t |W0 + T - W_t|` (strict; both sides zero: false); `V = m_t T` for the chosen `task`, with `T` the merged vector of `on` times `task_vector_scale`.",
    differs: "",
    cost: "one pass besides the inner merge's, O(elements x experts)",
    base: Base::Required,
    experts: (2, usize::MAX),
    deltas: true,
    scope: Scope::Tensor,
    params: &[
        Param::each(
            "mask_lambda",
            Kind::Number(0.0, f64::INFINITY),
            Unset::Number(0.4),
            "Threshold of this task's mask; larger keeps fewer entries.",
        )
        .whole(),
        Param::shared(
            "task_vector_scale",
            ANY,
            Unset::Number(1.0),
            "Factor of the multi-task vector.",
        )
        .whole(),
        STORE,
        TASK,
    ],
    on: Some("task_arithmetic"),
    golden: Golden::Cases(&["tall_masks", "tall_masks_apply", "merge.tall_mask"]),
    missing: Missing::Refuse,
};

static MAGNITUDE: Spec = Spec {
    name: "magnitude_mask",
    summary: "Restores one task from the multi-task vector by its largest changes",
    source: "Localizing Task Information (Wang et al. 2024), baseline; nik-dim/tall_masks",
    formula: "`m_t` = magnitudes of `D_t` not below the threshold that keeps the share `density` of the whole model; `V = m_t T` for the chosen `task`.",
    differs: "",
    cost: "three passes besides the inner merge's, O(elements x experts)",
    base: Base::Required,
    experts: (2, usize::MAX),
    deltas: true,
    scope: Scope::Model,
    params: &[
        Param::shared(
            "density",
            Kind::Number(0.0, 1.0),
            Unset::Number(0.1),
            "Share of the whole model that is kept.",
        )
        .whole(),
        STORE,
        TASK,
    ],
    on: Some("task_arithmetic"),
    golden: Golden::Cases(&["magnitude_masking"]),
    missing: Missing::Refuse,
};

static CONSENSUS: Spec = Spec {
    name: "consensus",
    summary: "Keeps the entries of the multi-task vector that several tasks use",
    source: "Localizing Task Information (Wang et al. 2024), section 5",
    formula: "`count = sum_t m_t` with the masks of `tall`; `V = lambda T [count >= min_tasks]`.",
    differs: "",
    cost: "one pass besides the inner merge's, O(elements x experts)",
    base: Base::Required,
    experts: (2, usize::MAX),
    deltas: true,
    scope: Scope::Tensor,
    params: &[
        Param::each(
            "mask_lambda",
            Kind::Number(0.0, f64::INFINITY),
            Unset::Number(0.4),
            "Threshold of this task's mask.",
        )
        .whole(),
        Param::shared(
            "min_tasks",
            Kind::Integer(0, i64::MAX),
            Unset::Number(2.0),
            "Tasks that must use an entry; 0 keeps everything.",
        )
        .whole(),
        Param::shared(
            "lambda",
            ANY,
            Unset::Number(0.4),
            "Factor of the merged vector.",
        ),
    ],
    on: Some("task_arithmetic"),
    golden: Golden::Cases(&["consensus"]),
    missing: Missing::Refuse,
};

/// The entries of this file.
pub static METHODS: &[&dyn Method] = &[&Tall, &MagnitudeMask, &Consensus];

struct Tall;
struct MagnitudeMask;
struct Consensus;

/// What decides a mask.
enum Rule {
    /// `mask_lambda` per expert.
    Tall(Vec<f32>),
    /// Whole-model cuts.
    Magnitude(Cuts),
}

struct Masked {
    inner: InnerFirst,
    rule: Rule,
    scale: f32,
    store: Option<DType>,
    /// The restored task, or the least count and `lambda` per tensor.
    use_: Use,
    names: Vec<String>,
}

enum Use {
    Task(Option<usize>),
    Count(usize, Vec<f32>),
}

/// The expert a `task` parameter names.
pub(super) fn task_of(job: &Job) -> Result<Option<usize>> {
    let task = job.tensors[0].shared.word("task");
    if task.is_empty() {
        return Ok(None);
    }
    job.experts
        .iter()
        .position(|e| e == task)
        .map(Some)
        .ok_or_else(|| {
            MergeError::plan(
                "unknown-task",
                format!("`task = \"{task}\"` names no expert"),
            )
            .hint(format!("the experts are {}", job.experts.join(", ")))
        })
}

/// The error of a method that writes one model per task.
pub(super) fn needs_task(method: &str, names: &[String]) -> MergeError {
    MergeError::plan(
        "no-task",
        format!("merge method `{method}` restores one model per task, so it needs to know which"),
    )
    .hint(format!(
        "add `task = \"…\"` (--shared task=…): one of {}",
        names.join(", ")
    ))
}

impl Method for Tall {
    fn spec(&self) -> &'static Spec {
        &TALL
    }

    fn kernel(&self, job: &Job) -> Result<Box<dyn Kernel>> {
        Ok(Box::new(Masked {
            inner: InnerFirst::new(job.inner()?),
            rule: Rule::Tall(lambdas(job)),
            scale: job.tensors[0].shared.number("task_vector_scale") as f32,
            store: store_of(job),
            use_: Use::Task(task_of(job)?),
            names: job.experts.clone(),
        }))
    }
}

impl Method for MagnitudeMask {
    fn spec(&self) -> &'static Spec {
        &MAGNITUDE
    }

    fn kernel(&self, job: &Job) -> Result<Box<dyn Kernel>> {
        let density = job.tensors[0].shared.number("density");
        let cuts = Cuts::new(job.experts.len(), move |d| {
            (d - (d as f64 * density) as u64).checked_sub(1)
        });
        Ok(Box::new(Masked {
            inner: InnerFirst::new(job.inner()?),
            rule: Rule::Magnitude(cuts),
            scale: 1.0,
            store: store_of(job),
            use_: Use::Task(task_of(job)?),
            names: job.experts.clone(),
        }))
    }
}

impl Method for Consensus {
    fn spec(&self) -> &'static Spec {
        &CONSENSUS
    }

    fn kernel(&self, job: &Job) -> Result<Box<dyn Kernel>> {
        let least = job.tensors[0].shared.number("min_tasks") as usize;
        let lambda = job
            .tensors
            .iter()
            .map(|t| t.shared.number("lambda") as f32)
            .collect();
        Ok(Box::new(Masked {
            inner: InnerFirst::new(job.inner()?),
            rule: Rule::Tall(lambdas(job)),
            scale: 1.0,
            store: None,
            use_: Use::Count(least, lambda),
            names: job.experts.clone(),
        }))
    }
}

fn lambdas(job: &Job) -> Vec<f32> {
    job.tensors[0]
        .each
        .iter()
        .map(|v| v.number("mask_lambda") as f32)
        .collect()
}

impl Masked {
    fn vector(&self, chunk: &Chunk) -> Result<Vec<f32>> {
        let mut t = self.inner.vector(chunk)?;
        if self.scale != 1.0 {
            t.iter_mut().for_each(|x| *x *= self.scale);
        }
        if let Some(dtype) = self.store {
            round_through(&mut t, dtype);
        }
        Ok(t)
    }

    /// Whether the mask of `task` holds element `k`.
    fn mask(&self, task: usize, chunk: &Chunk, t: &[f32], k: usize) -> bool {
        let d = chunk.inputs[task][k];
        match &self.rule {
            Rule::Tall(lambdas) => {
                // In weights, as the released code computes: W0 + T - W_t.
                let (w0, rest) = match chunk.base {
                    Some(base) => (base[k], (base[k] + t[k]) - (base[k] + d)),
                    None => (0.0, t[k] - d),
                };
                (w0 - (w0 + d)).abs() > lambdas[task] * rest.abs()
            }
            Rule::Magnitude(cuts) => cuts.of(task).is_none_or(|cut| magnitude_bits(d) >= cut.key),
        }
    }
}

impl Kernel for Masked {
    fn surveys(&self) -> bool {
        self.inner.surveying() || matches!(self.rule, Rule::Magnitude(..))
    }

    fn unit(&self) -> super::method::Unit {
        self.inner.kernel().unit()
    }

    fn survey(&self, round: usize, chunk: &Chunk) -> Result<Partial> {
        match &self.rule {
            _ if self.inner.surveying() => self.inner.kernel().survey(round, chunk),
            Rule::Magnitude(cuts) => Ok(cuts.survey(self.inner.own_round(round), chunk)),
            Rule::Tall(_) => Ok(Box::new(())),
        }
    }

    fn absorb(&mut self, round: usize, partial: Partial) -> Result<()> {
        if self.inner.surveying() {
            return self.inner.absorb(round, partial);
        }
        match &mut self.rule {
            Rule::Magnitude(cuts) => cuts.absorb(partial),
            Rule::Tall(_) => Ok(()),
        }
    }

    fn finish(&mut self, round: usize) -> Result<Next> {
        if self.inner.surveying() {
            let ready = self.inner.finish(round)?;
            return Ok(if ready && matches!(self.rule, Rule::Tall(_)) {
                Next::Done
            } else {
                Next::Again
            });
        }
        let own = self.inner.own_round(round);
        Ok(match &mut self.rule {
            Rule::Magnitude(cuts) => cuts.finish(own),
            Rule::Tall(_) => Next::Done,
        })
    }

    fn apply(&self, chunk: &Chunk, out: &mut [f32]) -> Result<()> {
        let t = self.vector(chunk)?;
        match &self.use_ {
            Use::Task(Some(task)) => {
                for (k, o) in out.iter_mut().enumerate() {
                    *o = if self.mask(*task, chunk, &t, k) {
                        t[k]
                    } else {
                        0.0
                    };
                }
            }
            Use::Task(None) => {
                let name = if matches!(self.rule, Rule::Tall(_)) {
                    "tall"
                } else {
                    "magnitude_mask"
                };
                return Err(needs_task(name, &self.names));
            }
            Use::Count(least, lambdas) => {
                let lambda = lambdas[chunk.index];
                for (k, o) in out.iter_mut().enumerate() {
                    let count = (0..chunk.inputs.len())
                        .filter(|i| self.mask(*i, chunk, &t, k))
                        .count();
                    *o = if count >= *least { lambda * t[k] } else { 0.0 };
                }
            }
        }
        Ok(())
    }

    fn part(&self, part: Part, chunk: &Chunk, out: &mut [f32]) -> Result<bool> {
        let t = self.vector(chunk)?;
        match part {
            Part::Shared => out.copy_from_slice(&t),
            Part::Mask(task) => {
                for (k, o) in out.iter_mut().enumerate() {
                    *o = f32::from(u8::from(self.mask(task, chunk, &t, k)));
                }
            }
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::merged;

    #[test]
    fn a_mask_keeps_what_its_task_changed_more_than_the_others() {
        // T = [3, 0, -1]; for a: |1| > 0.4 |2|, |2| > 0.4 |-2|, 0 > ... is false.
        let inputs: &[&[f32]] = &[&[1.0, 2.0, 0.0], &[2.0, -2.0, -1.0]];
        assert_eq!(
            merged("tall", &[("task", "a".into())], inputs),
            [3.0, 0.0, 0.0]
        );
        // b: |2| > 0.4 |1|, |-2| > 0.4 |2|, |-1| > 0.
        assert_eq!(
            merged("tall", &[("task", "b".into())], inputs),
            [3.0, 0.0, -1.0]
        );
    }

    #[test]
    fn consensus_counts_masks() {
        let inputs: &[&[f32]] = &[&[1.0, 2.0, 0.0], &[2.0, -2.0, -1.0]];
        let got = merged("consensus", &[("lambda", 1.0.into())], inputs);
        assert_eq!(
            got,
            [3.0, 0.0, 0.0],
            "the last entry is used by one task only"
        );
        let all = merged(
            "consensus",
            &[("lambda", 1.0.into()), ("min_tasks", 0.into())],
            inputs,
        );
        assert_eq!(all, [3.0, 0.0, -1.0]);
    }

    #[test]
    fn the_largest_changes_of_one_task() {
        let inputs: &[&[f32]] = &[&[1.0, 5.0, 0.5, 0.0], &[1.0, 1.0, 1.0, 1.0]];
        // d = 4, density 0.25: j = 3, the third smallest magnitude (1) is kept as well.
        let got = merged(
            "magnitude_mask",
            &[("task", "a".into()), ("density", 0.25.into())],
            inputs,
        );
        assert_eq!(got, [2.0, 6.0, 0.0, 0.0]);
    }
}
