//! `sce`: select, calculate, erase (FuseChat's merge).

use super::band::{Band, BandWalk, Seen};
use super::election::{Ballot, Divisor, elect};
use super::method::{
    Base, Chunk, Golden, Job, Kernel, Kind, Method, Missing, Next, Param, Partial, Scope, Spec,
    Unset, typed,
};
use super::sparsify::STEP;
use super::survey::{BlockSums, Total};
use crate::error::{MergeError, Result};

static SPEC: Spec = Spec {
    name: "sce",
    summary: "Keeps the elements that differ most between task vectors, weighs tasks by energy, elects signs",
    source: "FuseChat (Wan et al. 2024), section 3; mergekit 0.1.5 merge_methods/sce.py",
    formula: "Below `select_topk` 1, keep the `int(select_topk m)` elements with the largest variance over the \
              experts, `m` = elements whose variance is not 0. `c_i` = mean of `D_i^2`, divided by their sum (`1/n` \
              each if that is below 1e-6). `S = sign(sum_i D_i)`, zero counting as +, `M_i = [sign(D_i) = S]`; \
              `V = sum_i c_i M_i D_i / max(sum_i c_i M_i, 1e-6)`.",
    differs: "",
    cost: "two passes, four with `select_topk` below 1; O(elements x experts)",
    base: Base::Required,
    experts: (1, usize::MAX),
    deltas: true,
    scope: Scope::Tensor,
    params: &[
        Param::shared(
            "select_topk",
            Kind::Number(f64::NEG_INFINITY, f64::INFINITY),
            Unset::Number(1.0),
            "Share of the elements that vary to keep; 1 or more keeps all elements.",
        ),
        Param::shared(
            "int8_mask",
            Kind::Flag,
            Unset::Flag(false),
            "Storage of the peer's sign mask; results are the same with and without.",
        ),
    ],
    on: None,
    golden: Golden::Cases(&["sce"]),
    missing: Missing::Refuse,
};

/// The entries of this file.
pub static METHODS: &[&dyn Method] = &[&Sce];

struct Sce;

impl Method for Sce {
    fn spec(&self) -> &'static Spec {
        &SPEC
    }

    fn kernel(&self, job: &Job) -> Result<Box<dyn Kernel>> {
        let tensor = &job.tensors[0];
        let topk = tensor.shared.number("select_topk");
        let n = job.experts.len();
        let (stage, selection) = if topk < 1.0 {
            (Stage::Spread, Selection::Largest(Box::new(Band::open())))
        } else {
            (Stage::Energy, Selection::All)
        };
        Ok(Box::new(Fuse {
            elements: tensor.elements(),
            topk,
            stage,
            selection,
            varying: 0,
            energy: Total::new(n),
            shares: vec![0.0; n],
        }))
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Stage {
    /// Looks for the variances to keep.
    Spread,
    /// Adds up squares of what was kept.
    Energy,
}

enum Selection {
    All,
    Nothing,
    Largest(Box<Band>),
}

struct Fuse {
    elements: usize,
    topk: f64,
    stage: Stage,
    selection: Selection,
    /// Elements whose variance is not 0.
    varying: u64,
    energy: Total,
    shares: Vec<f32>,
}

enum Found {
    Spread(u64, Seen),
    Energy(BlockSums),
}

/// Population variance over the inputs, per element.
fn variances(inputs: &[&[f32]], out: &mut [f32]) {
    let n = inputs.len() as f64;
    let mut sums = [0.0f64; STEP];
    let mut squares = [0.0f64; STEP];
    for (k, out) in out.chunks_mut(STEP).enumerate() {
        let at = k * STEP..k * STEP + out.len();
        sums.fill(0.0);
        squares.fill(0.0);
        for x in inputs {
            for (s, x) in sums.iter_mut().zip(&x[at.clone()]) {
                *s += f64::from(*x);
            }
        }
        sums.iter_mut().for_each(|s| *s /= n);
        for x in inputs {
            for ((q, mean), x) in squares.iter_mut().zip(&sums).zip(&x[at.clone()]) {
                let d = f64::from(*x) - mean;
                *q += d * d;
            }
        }
        for (o, q) in out.iter_mut().zip(&squares) {
            *o = (q / n) as f32;
        }
    }
}

impl Fuse {
    /// Variances (empty where they do not matter) and the walk that selects by them.
    fn selector(&self, chunk: &Chunk) -> (Vec<f32>, Option<BandWalk>) {
        match &self.selection {
            Selection::Largest(band) => {
                let mut spread = vec![0.0; chunk.len()];
                variances(chunk.inputs, &mut spread);
                (spread, Some(band.walk((chunk.index, chunk.start))))
            }
            _ => (Vec::new(), None),
        }
    }

    /// Copies elements `at` of an input, those not selected as zero. `walk` stands where the step starts.
    fn kept(&self, spread: &[f32], walk: Option<&BandWalk>, values: &[f32], out: &mut [f32]) {
        match (&self.selection, walk) {
            (Selection::Largest(_), Some(walk)) => walk.clone().next(spread, values, out),
            (Selection::Nothing, _) => out.fill(0.0),
            _ => out.copy_from_slice(values),
        }
    }
}

impl Kernel for Fuse {
    fn surveys(&self) -> bool {
        true
    }

    fn survey(&self, _: usize, chunk: &Chunk) -> Result<Partial> {
        if self.stage == Stage::Spread {
            let mut spread = vec![0.0; chunk.len()];
            variances(chunk.inputs, &mut spread);
            let varying = spread.iter().filter(|v| **v != 0.0).count() as u64;
            let place = (chunk.index, chunk.start);
            let Selection::Largest(band) = &self.selection else {
                return Err(MergeError::Internal("sce selects nothing".into()));
            };
            let seen = band.survey(place, self.elements, &spread);
            return Ok(Box::new(Found::Spread(varying, seen)));
        }
        let mut sums = BlockSums::new(chunk.inputs.len());
        let (spread, walk) = self.selector(chunk);
        let mut kept = vec![0.0; chunk.len()];
        for (i, values) in chunk.inputs.iter().enumerate() {
            self.kept(&spread, walk.as_ref(), values, &mut kept);
            sums.dot(i, &kept, &kept);
        }
        Ok(Box::new(Found::Energy(sums)))
    }

    fn absorb(&mut self, round: usize, partial: Partial) -> Result<()> {
        match typed::<Found>(partial)? {
            Found::Energy(sums) => self.energy.absorb(&sums),
            Found::Spread(varying, seen) => {
                if round == 0 {
                    self.varying += varying;
                }
                if let Selection::Largest(band) = &mut self.selection {
                    band.absorb(seen);
                }
            }
        }
        Ok(())
    }

    fn finish(&mut self, _: usize) -> Result<Next> {
        if self.stage == Stage::Spread {
            let n = self.elements as u64;
            let k = (self.topk * self.varying as f64) as u64;
            match &mut self.selection {
                Selection::Largest(band) if k > 0 => {
                    band.aim(n - k, n);
                    if band.finish() == Next::Done {
                        self.stage = Stage::Energy;
                    }
                }
                selection => {
                    *selection = Selection::Nothing;
                    self.stage = Stage::Energy;
                }
            }
            return Ok(Next::Again);
        }
        let experts = self.shares.len();
        let mean = |i| self.energy.get(i) / self.elements.max(1) as f64;
        let sum: f64 = (0..experts).map(mean).sum();
        self.shares = (0..experts)
            .map(|i| {
                if sum.abs() < 1e-6 {
                    1.0 / experts as f32
                } else {
                    (mean(i) / sum) as f32
                }
            })
            .collect();
        Ok(Next::Done)
    }

    fn apply(&self, chunk: &Chunk, out: &mut [f32]) -> Result<()> {
        let (spread, mut walk) = self.selector(chunk);
        let mut kept = vec![[0.0f32; STEP]; chunk.inputs.len()];
        for (k, out) in out.chunks_mut(STEP).enumerate() {
            let at = k * STEP..k * STEP + out.len();
            let keys = spread.get(at.clone()).unwrap_or_default();
            for (values, kept) in chunk.inputs.iter().zip(&mut kept) {
                let kept = &mut kept[..out.len()];
                self.kept(keys, walk.as_ref(), &values[at.clone()], kept);
            }
            // Signs are elected by the task vectors themselves; only the sums are weighted.
            let ballots: Vec<Ballot> = kept
                .iter()
                .zip(&self.shares)
                .map(|(kept, share)| Ballot {
                    values: &kept[..out.len()],
                    vote: 1.0,
                    share: *share,
                    weight: *share,
                })
                .collect();
            elect(&ballots, Divisor::AtLeast(1e-6), out);
            if let Some(walk) = &mut walk {
                walk.next(keys, &chunk.inputs[0][at], &mut kept[0][..out.len()]);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variances_by_hand() {
        let mut out = [0.0; 3];
        variances(
            &[&[1.0, 2.0, 0.1], &[3.0, 2.0, 0.1], &[5.0, 2.0, 0.1]],
            &mut out,
        );
        assert_eq!(out, [8.0 / 3.0, 0.0, 0.0]);
    }
}
