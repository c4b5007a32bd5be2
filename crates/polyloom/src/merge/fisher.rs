//! `fisher`: an average in which every parameter counts by how much its model's outputs depend on it.

use std::sync::Arc;

use super::method::{
    Base, Chunk, Golden, Job, Kernel, Kind, Method, Missing, Next, Param, Partial, Scope, Spec,
    Statistics, TensorJob, Unset, typed,
};
use super::regmean::{STATS, statistics};
use super::survey::{BlockSums, Total};
use crate::error::{MergeError, Result};

static SPEC: Spec = Spec {
    name: "fisher",
    summary: "Average weighted by each parameter's diagonal Fisher information",
    source: "Merging Models with Fisher-Weighted Averaging (Matena and Raffel 2021); fusion_bench/method/fisher_merging; methods section 5",
    formula: "`R = sum_i l_i (F_i + epsilon) W_i / sum_i l_i (F_i + epsilon)` with the stored `<weight>.fisher` as `F_i >= 0` and `l_i = weight_i v_i`; with `normalize` `v_i = (1 / (|F_i| + epsilon)) / sum_j (1 / (|F_j| + epsilon))`, `|F_i|` the L2 norm over the whole model, else `v_i = 1`.",
    differs: "Computed in f64 and rounded once. Where all weights of an entry are zero its plain mean is taken; the peer divides by zero.",
    cost: "one pass over weights and statistics, two with `normalize`, O(elements x experts)",
    base: Base::Ignored,
    experts: (1, usize::MAX),
    deltas: false,
    scope: Scope::Model,
    params: &[
        Param::each(
            "weight",
            Kind::Number(0.0, f64::INFINITY),
            Unset::Number(1.0),
            "Importance of this input beside its Fisher information.",
        ),
        STATS,
        Param::shared(
            "normalize",
            Kind::Flag,
            Unset::Flag(true),
            "Divide each input's Fisher information by its norm over the whole model.",
        )
        .whole(),
        Param::shared(
            "epsilon",
            Kind::Number(0.0, f64::INFINITY),
            Unset::Number(1e-6),
            "Added to every Fisher value and norm.",
        )
        .whole(),
    ],
    on: None,
    golden: Golden::Cases(&["fisher"]),
    missing: Missing::Refuse,
};

/// The entries of this file.
pub static METHODS: &[&dyn Method] = &[&Fisher];

struct Fisher;

struct Weighted {
    statistics: Arc<dyn Statistics>,
    epsilon: f64,
    normalize: bool,
    squares: Total,
    /// `v_i`, once the norms are known.
    v: Vec<f64>,
}

fn named(tensor: &TensorJob) -> String {
    format!("{}.fisher", tensor.name)
}

/// The error of a tensor without statistics.
fn lacks(file: Option<String>, name: &str, what: &str) -> MergeError {
    MergeError::plan("missing-statistics", format!("{what} `{name}`"))
        .at(file.unwrap_or_default())
        .hint("collect them on this very model: `polyloom stats MODEL -t TASK --kind fisher -o FILE`; `fisher` needs one value per parameter")
        .hint("or merge with `regmean` or `linear`, which average what has no statistics")
}

impl Method for Fisher {
    fn spec(&self) -> &'static Spec {
        &SPEC
    }

    fn kernel(&self, job: &Job) -> Result<Box<dyn Kernel>> {
        let n = job.experts.len();
        let shared = &job.tensors[0].shared;
        Ok(Box::new(Weighted {
            statistics: statistics("fisher", "fisher", job)?.clone(),
            epsilon: shared.number("epsilon"),
            normalize: shared.flag("normalize"),
            squares: Total::new(n),
            v: vec![1.0; n],
        }))
    }

    fn check(&self, job: &Job) -> Result<Vec<String>> {
        let statistics = statistics("fisher", "fisher", job)?;
        for (expert, input) in job.experts.iter().enumerate() {
            let shape = |t: &TensorJob| statistics.shape(expert, &named(t));
            let lacking: Vec<&Arc<TensorJob>> =
                job.tensors.iter().filter(|t| shape(t).is_none()).collect();
            if let Some(first) = lacking.first() {
                let what = format!(
                    "the statistics of `{input}` lack {} of {} tensors; first:",
                    lacking.len(),
                    job.tensors.len()
                );
                return Err(lacks(statistics.file(expert), &named(first), &what));
            }
            for tensor in &job.tensors {
                if let Some(found) = shape(tensor).filter(|s| *s != tensor.shape) {
                    let what = format!("shape {found:?} instead of {:?} of", tensor.shape);
                    return Err(lacks(statistics.file(expert), &named(tensor), &what));
                }
            }
        }
        Ok(Vec::new())
    }
}

impl Weighted {
    /// Fisher values of all inputs for a chunk.
    fn read(&self, chunk: &Chunk) -> Result<Vec<Vec<f32>>> {
        let name = named(chunk.tensor);
        (0..chunk.inputs.len())
            .map(|expert| {
                let mut values = vec![0.0f32; chunk.len()];
                self.statistics
                    .read(expert, &name, chunk.start, &mut values)?;
                if let Some(at) = values.iter().position(|v| !(v.is_finite() && *v >= 0.0)) {
                    return Err(MergeError::plan(
                        "bad-statistics",
                        format!(
                            "tensor `{name}` holds {} at element {}; Fisher information is not negative",
                            values[at],
                            chunk.start + at
                        ),
                    )
                    .at(self.statistics.file(expert).unwrap_or_default())
                    .hint("collect the statistics again"));
                }
                Ok(values)
            })
            .collect()
    }
}

impl Kernel for Weighted {
    fn surveys(&self) -> bool {
        self.normalize
    }

    fn survey(&self, _: usize, chunk: &Chunk) -> Result<Partial> {
        let mut sums = BlockSums::new(chunk.inputs.len());
        for (i, f) in self.read(chunk)?.iter().enumerate() {
            sums.dot(i, f, f);
        }
        Ok(Box::new(sums))
    }

    fn absorb(&mut self, _: usize, partial: Partial) -> Result<()> {
        self.squares.absorb(&typed::<BlockSums>(partial)?);
        Ok(())
    }

    fn finish(&mut self, _: usize) -> Result<Next> {
        let inverse = |i: usize| 1.0 / (self.squares.get(i).sqrt() + self.epsilon);
        let n = self.v.len();
        // Without an epsilon a model of no information at all would count infinitely: it counts as the others do.
        let all: Vec<f64> = (0..n).map(inverse).collect();
        let total: f64 = all.iter().sum();
        if total.is_finite() {
            self.v = all.iter().map(|x| x / total).collect();
        }
        Ok(Next::Done)
    }

    fn apply(&self, chunk: &Chunk, out: &mut [f32]) -> Result<()> {
        let fisher = self.read(chunk)?;
        let each = &chunk.tensor.each;
        let l: Vec<f64> = self
            .v
            .iter()
            .zip(each)
            .map(|(v, values)| v * values.number("weight"))
            .collect();
        for (k, out) in out.iter_mut().enumerate() {
            let (mut above, mut below, mut plain) = (0.0, 0.0, 0.0);
            for ((l, f), w) in l.iter().zip(&fisher).zip(chunk.inputs) {
                let weight = l * (f64::from(f[k]) + self.epsilon);
                above += weight * f64::from(w[k]);
                below += weight;
                plain += f64::from(w[k]);
            }
            *out = if below > 0.0 {
                above / below
            } else {
                plain / chunk.inputs.len() as f64
            } as f32;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::method::Values;
    use super::super::run::{Collect, Group, Memory, Options, run};
    use super::*;

    struct Planted(Vec<Vec<f32>>);

    impl Statistics for Planted {
        fn shape(&self, expert: usize, name: &str) -> Option<Vec<usize>> {
            (name == "w.fisher").then(|| vec![self.0[expert].len()])
        }

        fn read(&self, expert: usize, _: &str, start: usize, out: &mut [f32]) -> Result<()> {
            out.copy_from_slice(&self.0[expert][start..start + out.len()]);
            Ok(())
        }

        fn file(&self, expert: usize) -> Option<String> {
            Some(format!("{expert}.safetensors"))
        }
    }

    fn job(fisher: &[[f32; 2]], normalize: bool, weights: [f64; 2]) -> Job {
        let mut shared = Values::default();
        shared.set("normalize", json!(normalize));
        shared.set("epsilon", json!(0.0));
        let each = weights.map(|w| {
            let mut values = Values::default();
            values.set("weight", json!(w));
            values
        });
        Job {
            tensors: vec![Arc::new(TensorJob {
                name: "w".into(),
                shape: vec![2],
                shared,
                each: each.to_vec(),
                layer: None,
                before: 0,
            })],
            experts: vec!["a".into(), "b".into()],
            has_base: false,
            seed: 0,
            statistics: Some(Arc::new(Planted(
                fisher.iter().map(|f| f.to_vec()).collect(),
            ))),
            inner_maker: None,
        }
    }

    /// Weights (0, 0) and (4, 4).
    fn merged(job: &Job) -> Result<Vec<f32>> {
        let make = |job: &Job| Fisher.kernel(job);
        let group = Group {
            job,
            deltas: false,
            scope: Scope::Model,
            make: &make,
        };
        let feed = Memory {
            base: Vec::new(),
            inputs: vec![vec![&[0.0, 0.0]], vec![&[4.0, 4.0]]],
        };
        let sink = Collect::new(&job.tensors);
        run(&group, None, &feed, &sink, &Options::default())?;
        Ok(sink.into_values().remove(0))
    }

    #[test]
    fn information_weighs_every_entry() {
        let f = [[1.0, 3.0], [3.0, 1.0]];
        assert_eq!(merged(&job(&f, false, [1.0; 2])).unwrap(), [3.0, 1.0]);
        // Weight 3 on the second: 9 of 10 and 3 of 6 shares of 4.
        assert_eq!(merged(&job(&f, false, [1.0, 3.0])).unwrap(), [3.6, 2.0]);
    }

    #[test]
    fn the_scale_of_a_model_s_information_is_divided_out() {
        let f = [[1.0, 3.0], [6.0, 2.0]];
        let got = merged(&job(&f, true, [1.0; 2])).unwrap();
        assert!((got[0] - 3.0).abs() < 1e-6 && (got[1] - 1.0).abs() < 1e-6);
        let got = merged(&job(&f, false, [1.0; 2])).unwrap();
        assert!((got[0] - 24.0 / 7.0).abs() < 1e-6 && (got[1] - 1.6).abs() < 1e-6);
    }

    #[test]
    fn entries_without_information_are_averaged() {
        let f = [[0.0, 1.0], [0.0, 1.0]];
        assert_eq!(merged(&job(&f, true, [1.0; 2])).unwrap(), [2.0, 2.0]);
    }

    #[test]
    fn bad_statistics_are_refused_by_name() {
        let error = merged(&job(&[[1.0, -1.0], [1.0, 1.0]], true, [1.0; 2])).unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("0.safetensors: tensor `w.fisher` holds -1 at element 1"),
            "{text}"
        );
        let mut lacking = job(&[[1.0; 2], [1.0; 2]], true, [1.0; 2]);
        Arc::make_mut(&mut lacking.tensors[0]).name = "v".into();
        let text = Fisher.check(&lacking).unwrap_err().to_string();
        assert!(
            text.contains("`v.fisher`") && text.contains("1 of 1"),
            "{text}"
        );
        lacking.statistics = None;
        let error = Fisher.check(&lacking).unwrap_err();
        assert!(error.to_string().contains("`a` has none"), "{error}");
    }
}
