//! `graft`: the few parameters that moved most, grafted onto the base.

use super::cuts::Cuts;
use super::method::{
    Base, Chunk, Golden, Job, Kernel, Kind, Method, Missing, Next, Param, Partial, Scope, Spec,
    Unset,
};
use super::survey::magnitude_bits;
use crate::error::{MergeError, Result};

static SPEC: Spec = Spec {
    name: "graft",
    summary: "Grafts the entries of one expert that moved most onto the base",
    source: "Task-specific skill localization (Panigrahi et al. 2023); Skill-Localization-by-grafting src/graft_trainer.py",
    formula: "`n = int(density d)`, threshold = n-th largest `|D|` of the whole model; `V = D [|D| > threshold]` (strict: n - 1 entries without ties).",
    differs: "",
    cost: "three passes, O(elements)",
    base: Base::Required,
    experts: (1, 1),
    deltas: true,
    scope: Scope::Model,
    params: &[
        Param::shared(
            "density",
            Kind::Number(0.0, 1.0),
            Unset::Number(1e-4),
            "Share of the whole model that is grafted.",
        )
        .whole(),
        Param::shared(
            "learned",
            Kind::Flag,
            Unset::Flag(false),
            "Learn which entries; needs training, which this build does not hold.",
        )
        .whole(),
    ],
    on: None,
    golden: Golden::Cases(&["graft"]),
    missing: Missing::Refuse,
};

/// The entries of this file.
pub static METHODS: &[&dyn Method] = &[&Graft];

struct Graft;

struct Moved {
    cuts: Cuts,
    wanted: f64,
}

impl Method for Graft {
    fn spec(&self) -> &'static Spec {
        &SPEC
    }

    fn kernel(&self, job: &Job) -> Result<Box<dyn Kernel>> {
        let shared = &job.tensors[0].shared;
        if shared.flag("learned") {
            return Err(MergeError::plan(
                "needs-training",
                "a learned graft needs gradients, which this build does not hold",
            )
            .hint("leave `learned` out to graft what moved most"));
        }
        let density = shared.number("density");
        // The n-th largest has rank d - n from the smallest.
        let rank = move |d: u64| {
            let n = (d as f64 * density) as u64;
            (n > 0).then(|| d - n)
        };
        Ok(Box::new(Moved {
            cuts: Cuts::new(1, rank),
            wanted: density,
        }))
    }
}

impl Kernel for Moved {
    fn surveys(&self) -> bool {
        true
    }

    fn survey(&self, round: usize, chunk: &Chunk) -> Result<Partial> {
        Ok(self.cuts.survey(round, chunk))
    }

    fn absorb(&mut self, _: usize, partial: Partial) -> Result<()> {
        self.cuts.absorb(partial)
    }

    fn finish(&mut self, round: usize) -> Result<Next> {
        Ok(self.cuts.finish(round))
    }

    fn apply(&self, chunk: &Chunk, out: &mut [f32]) -> Result<()> {
        let none = (self.cuts.elements() as f64 * self.wanted) < 1.0;
        for (o, d) in out.iter_mut().zip(chunk.inputs[0]) {
            let keep = !none
                && self
                    .cuts
                    .of(0)
                    .is_none_or(|cut| magnitude_bits(*d) > cut.key);
            *o = if keep { *d } else { 0.0 };
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::merged;

    #[test]
    fn strictly_above_the_nth_largest() {
        let d: &[f32] = &[4.0, -3.0, 2.0, 1.0];
        assert_eq!(
            merged("graft", &[("density", 0.5.into())], &[d]),
            [4.0, 0.0, 0.0, 0.0]
        );
        assert_eq!(merged("graft", &[("density", 0.1.into())], &[d]), [0.0; 4]);
    }
}
