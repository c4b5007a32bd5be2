//! `ties_reference`: TIES as the paper's code does it, over the whole model.

use super::cuts::Cuts;
use super::method::{
    Base, Chunk, Golden, Job, Kernel, Kind, Method, Missing, Next, Param, Partial, Scope, Spec,
    Unset, typed,
};
use super::survey::{BlockSums, Total, magnitude_bits};
use crate::error::Result;

static SPEC: Spec = Spec {
    name: "ties_reference",
    summary: "Trims over the whole model, elects a sign per element, averages what agrees",
    source: "TIES-Merging (Yadav et al. 2023), section 4; prateeky2806/ties-merging src/utils/merge_utils.py",
    formula: "Per task vector of length d: threshold = j-th smallest magnitude with `j = d - int(d density)`, keep `|x| >= threshold` (density 1 keeps all); sign by summed mass, where that is 0 the majority sign of the model; keep entries of that sign; `reduce` them; `V = lambda` times that.",
    differs: "mergekit's TIES is `ties`: cuts per tensor, weights vote and divide.",
    cost: "four passes, O(elements x experts)",
    base: Base::Required,
    experts: (1, usize::MAX),
    deltas: true,
    scope: Scope::Model,
    params: &[
        Param::shared("density", Kind::Number(0.0, 1.0), Unset::Number(0.2), "Share of the whole task vector that is kept.").whole(),
        Param::shared(
            "resolve",
            Kind::Word(&[("mass", "mass"), ("normfrac", "normfrac"), ("normmass", "normmass")]),
            Unset::Word("mass"),
            "Who elects the sign: the sum, the entry with the largest share of its vector's squared norm, or signs weighted by that share.",
        )
        .whole(),
        Param::shared(
            "reduce",
            Kind::Word(&[("mean", "mean"), ("sum", "sum"), ("max", "max"), ("dis-mean", "mean"), ("dis-sum", "sum"), ("dis-max", "max")]),
            Unset::Word("mean"),
            "Mean over agreeing non-zero entries, their sum, or the largest magnitude with the elected sign.",
        )
        .whole(),
        Param::shared("lambda", Kind::Number(f64::NEG_INFINITY, f64::INFINITY), Unset::Nothing, "Factor of the merged vector; 1 if unset, 0.3 for `sum`."),
    ],
    on: None,
    golden: Golden::Cases(&["ties_official", "ties_reference"]),
    missing: Missing::Refuse,
};

/// The entries of this file.
pub static METHODS: &[&dyn Method] = &[&Ties];

struct Ties;

#[derive(Clone, Copy, PartialEq)]
enum Resolve {
    Mass,
    NormFrac,
    NormMass,
}

#[derive(Clone, Copy, PartialEq)]
enum Reduce {
    Mean,
    Sum,
    Max,
}

struct Elect {
    cuts: Cuts,
    cut_rounds: usize,
    resolve: Resolve,
    reduce: Reduce,
    lambdas: Vec<f32>,
    norms: Total,
    majority: i64,
}

impl Method for Ties {
    fn spec(&self) -> &'static Spec {
        &SPEC
    }

    fn kernel(&self, job: &Job) -> Result<Box<dyn Kernel>> {
        let first = &job.tensors[0].shared;
        let density = first.number("density");
        let reduce = match first.word("reduce") {
            "sum" => Reduce::Sum,
            "max" => Reduce::Max,
            _ => Reduce::Mean,
        };
        let resolve = match first.word("resolve") {
            "normfrac" => Resolve::NormFrac,
            "normmass" => Resolve::NormMass,
            _ => Resolve::Mass,
        };
        let default = if reduce == Reduce::Sum { 0.3 } else { 1.0 };
        let rank = move |d: u64| {
            let j = d - (d as f64 * density) as u64;
            // j = 0: everything is kept. The j-th smallest, counted from 1, has rank j - 1.
            j.checked_sub(1)
        };
        Ok(Box::new(Elect {
            cuts: Cuts::new(job.experts.len(), rank),
            cut_rounds: 0,
            resolve,
            reduce,
            lambdas: job
                .tensors
                .iter()
                .map(|t| t.shared.maybe("lambda").unwrap_or(default) as f32)
                .collect(),
            norms: Total::new(job.experts.len()),
            majority: 0,
        }))
    }
}

impl Elect {
    /// Element `k` of every task vector after the cut.
    fn kept(&self, expert: usize, x: f32) -> f32 {
        match self.cuts.of(expert) {
            Some(cut) if magnitude_bits(x) < cut.key => 0.0,
            _ => x,
        }
    }

    /// The elected sign before ties are resolved: -1, 0 or 1.
    fn sign(&self, values: &[f32]) -> f32 {
        let sign = |x: f64| {
            if x > 0.0 {
                1.0
            } else if x < 0.0 {
                -1.0
            } else {
                0.0
            }
        };
        match self.resolve {
            // Single precision, as the released code sums.
            Resolve::Mass => sign(f64::from(values.iter().sum::<f32>())),
            Resolve::NormFrac => {
                let share = |i: usize| {
                    f64::from(values[i]).powi(2) / self.norms.get(i).max(f64::MIN_POSITIVE)
                };
                let best =
                    (0..values.len()).fold(0, |b, i| if share(i) > share(b) { i } else { b });
                sign(f64::from(values[best]))
            }
            Resolve::NormMass => sign(
                values
                    .iter()
                    .enumerate()
                    .map(|(i, v)| {
                        f64::from(v.signum()) * f64::from(*v).powi(2)
                            / self.norms.get(i).max(f64::MIN_POSITIVE)
                    })
                    .sum(),
            ),
        }
    }

    fn trimmed(&self, chunk: &Chunk, k: usize, values: &mut [f32]) {
        for (i, (v, input)) in values.iter_mut().zip(chunk.inputs).enumerate() {
            *v = self.kept(i, input[k]);
        }
    }

    fn norm_round(&self) -> Option<usize> {
        (self.resolve != Resolve::Mass).then_some(self.cut_rounds)
    }
}

impl Kernel for Elect {
    fn surveys(&self) -> bool {
        true
    }

    fn survey(&self, round: usize, chunk: &Chunk) -> Result<Partial> {
        if self.cut_rounds == 0 {
            return Ok(self.cuts.survey(round, chunk));
        }
        if self.norm_round() == Some(round) {
            let mut sums = BlockSums::new(chunk.inputs.len());
            for (i, input) in chunk.inputs.iter().enumerate() {
                sums.add(i, input.len(), |k| {
                    f64::from(self.kept(i, input[k])).powi(2)
                });
            }
            return Ok(Box::new(sums));
        }
        let mut values = vec![0.0; chunk.inputs.len()];
        let mut signs = 0i64;
        for k in 0..chunk.len() {
            self.trimmed(chunk, k, &mut values);
            signs += self.sign(&values) as i64;
        }
        Ok(Box::new(signs))
    }

    fn absorb(&mut self, round: usize, partial: Partial) -> Result<()> {
        if self.cut_rounds == 0 {
            return self.cuts.absorb(partial);
        }
        if self.norm_round() == Some(round) {
            self.norms.absorb(&typed::<BlockSums>(partial)?);
        } else {
            self.majority += typed::<i64>(partial)?;
        }
        Ok(())
    }

    fn finish(&mut self, round: usize) -> Result<Next> {
        if self.cut_rounds == 0 {
            if self.cuts.finish(round) == Next::Done {
                self.cut_rounds = round + 1;
            }
            return Ok(Next::Again);
        }
        Ok(if self.norm_round() == Some(round) {
            Next::Again
        } else {
            Next::Done
        })
    }

    fn apply(&self, chunk: &Chunk, out: &mut [f32]) -> Result<()> {
        let lambda = self.lambdas[chunk.index];
        let majority = self.majority.signum() as f32;
        let mut values = vec![0.0; chunk.inputs.len()];
        for (k, o) in out.iter_mut().enumerate() {
            self.trimmed(chunk, k, &mut values);
            let mut sign = self.sign(&values);
            if sign == 0.0 {
                sign = majority;
            }
            // A sign that stays 0 selects negative entries, as in the released code.
            let agree = |v: &&f32| if sign > 0.0 { **v > 0.0 } else { **v < 0.0 };
            let chosen = values.iter().filter(agree);
            *o = lambda
                * match self.reduce {
                    Reduce::Sum => chosen.sum::<f32>(),
                    Reduce::Mean => {
                        let count = values.iter().filter(agree).count().max(1);
                        chosen.sum::<f32>() / count as f32
                    }
                    Reduce::Max => sign * chosen.fold(0.0f32, |m, v| m.max(v.abs())),
                };
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::merged;

    #[test]
    fn whole_vector_cut_and_mean_over_agreeing() {
        // d = 5, density 0.4: j = 3, threshold = third smallest, which is kept too.
        let a: &[f32] = &[5.0, -4.0, 3.0, 1.0, 0.5];
        let b: &[f32] = &[1.0, 4.0, -6.0, 2.0, 3.0];
        let got = merged("ties_reference", &[("density", 0.4.into())], &[a, b]);
        // a keeps 5, -4, 3; b keeps 4, -6, 3. Sums: 5, 0, -3, 0, 3; the majority is +.
        assert_eq!(got, [5.0, 4.0, -6.0, 0.0, 3.0]);
    }

    #[test]
    fn sum_and_max() {
        let inputs: &[&[f32]] = &[&[1.0, -2.0], &[3.0, -1.0]];
        let sum = merged(
            "ties_reference",
            &[("density", 1.0.into()), ("reduce", "sum".into())],
            inputs,
        );
        assert!(
            (sum[0] - 1.2).abs() < 1e-6 && (sum[1] + 0.9).abs() < 1e-6,
            "{sum:?}"
        );
        let max = merged(
            "ties_reference",
            &[("density", 1.0.into()), ("reduce", "dis-max".into())],
            inputs,
        );
        assert_eq!(max, [3.0, -2.0]);
    }
}
