//! `knots`: task matrices in a common basis, merged there by another method.

use std::sync::Arc;

use polyloom_core::linalg::{Matrix, svd};

use super::method::{
    Base, Chunk, Golden, Job, Kernel, Method, Missing, Next, Partial, Scope, Spec, TensorJob, Unit,
    typed,
};
use super::spectral::{EXCLUDE, LAMBDA, Mean, VOCABULARY, decomposed};
use crate::error::{MergeError, Result};

static SPEC: Spec = Spec {
    name: "knots",
    summary: "Aligns task matrices by one common decomposition and merges them in that basis",
    source: "KnOTS (Stoica et al. 2024), from memory; methods section 4",
    formula: "Per matrix: `[D_1 ... D_n] = U S [V_1' ... V_n']` (thin, columns side by side); `V'` = the merged vector that `on` makes of the task vectors `V_i'`; `V = lambda U S V'`. Other tensors: mean of the task vectors times `lambda`; they take no part in `on`.",
    differs: "Singular values below 1e-5 of the largest are dropped before `on` sees the basis; the released code, as remembered, drops those below 1e-5. Methods of `on` that work on weights see a base of zeros.",
    cost: "two passes and those of the inner merge; a thin SVD of [out, n in] per matrix and pass in f64, one thread each, two tensors at a time",
    base: Base::Required,
    experts: (1, usize::MAX),
    deltas: true,
    scope: Scope::Tensor,
    params: &[LAMBDA, EXCLUDE, VOCABULARY],
    on: Some("ties"),
    golden: Golden::None("optional"),
    missing: Missing::Refuse,
};

/// The entries of this file.
pub static METHODS: &[&dyn Method] = &[&Knots];

/// Singular values below this part of the largest count as zero.
const TOLERANCE: f64 = 1e-5;

struct Knots;

/// The common basis of one tensor and the task vectors in it.
struct Aligned {
    /// `U S`, `[out, rank]`.
    us: Matrix,
    /// `V_i'`, `[rank, in]` each, row-major.
    blocks: Vec<Vec<f32>>,
}

/// Decomposes `[D_1 ... D_n]`.
fn align(chunk: &Chunk) -> Result<Aligned> {
    let rows = chunk.tensor.shape[0];
    let (cols, n) = (chunk.len() / rows.max(1), chunk.inputs.len());
    let mut joined = Matrix::zeros(rows, cols * n);
    for (i, input) in chunk.inputs.iter().enumerate() {
        for (r, row) in input.chunks_exact(cols.max(1)).enumerate() {
            let at = r * cols * n + i * cols;
            for (x, v) in joined.data[at..at + cols].iter_mut().zip(row) {
                *x = f64::from(*v);
            }
        }
    }
    let d = svd(&joined).map_err(|e| {
        MergeError::plan(
            "decomposition",
            format!("tensor `{}`: {e}", chunk.tensor.name),
        )
        .hint("average it instead: add a part of its name to `exclude`")
    })?;
    let least = d.s.first().copied().unwrap_or(0.0) * TOLERANCE;
    let rank = d.s.iter().take_while(|s| **s > least).count();
    let blocks = (0..n)
        .map(|i| {
            d.vt.data
                .chunks_exact((cols * n).max(1))
                .take(rank)
                .flat_map(|row| &row[i * cols..(i + 1) * cols])
                .map(|v| *v as f32)
                .collect()
        })
        .collect();
    Ok(Aligned {
        us: d.u.first_columns(rank).scale_columns(&d.s[..rank]),
        blocks,
    })
}

/// The inner merge in the common bases. Round 0 finds their ranks, further rounds are the inner kernel's own; the
/// bases are made again in every round, because keeping them would need the memory of all models.
struct InBasis {
    job: Job,
    /// Per tensor of `job`: its tensor in the inner job, `None` if it is averaged or has no change at all.
    places: Vec<Option<usize>>,
    inner_tensors: Vec<Arc<TensorJob>>,
    /// (tensor, rank), as surveyed.
    ranks: Vec<(usize, usize)>,
    inner: Option<Box<dyn Kernel>>,
}

impl Method for Knots {
    fn spec(&self) -> &'static Spec {
        &SPEC
    }

    fn kernel(&self, job: &Job) -> Result<Box<dyn Kernel>> {
        Ok(Box::new(InBasis {
            job: job.clone(),
            places: vec![None; job.tensors.len()],
            inner_tensors: Vec::new(),
            ranks: Vec::new(),
            inner: None,
        }))
    }
}

impl InBasis {
    /// Hands a tensor's vectors in its basis to `f`; `None` for tensors that are not merged there.
    fn within<T>(
        &self,
        chunk: &Chunk,
        f: impl FnOnce(&dyn Kernel, &Chunk) -> Result<T>,
    ) -> Result<Option<(T, Matrix)>> {
        let (Some(index), Some(inner)) = (self.places[chunk.index], &self.inner) else {
            return Ok(None);
        };
        let aligned = align(chunk)?;
        let inputs: Vec<&[f32]> = aligned.blocks.iter().map(Vec::as_slice).collect();
        let base = vec![0.0; inputs.first().map_or(0, |x| x.len())];
        let view = Chunk {
            tensor: &self.inner_tensors[index],
            index,
            start: 0,
            base: Some(&base),
            inputs: &inputs,
        };
        Ok(Some((f(&**inner, &view)?, aligned.us)))
    }
}

impl Kernel for InBasis {
    fn surveys(&self) -> bool {
        self.job.tensors.iter().any(|t| decomposed(t))
    }

    fn unit(&self) -> Unit {
        if self.surveys() {
            Unit::Tensor
        } else {
            Unit::Chunk
        }
    }

    fn survey(&self, round: usize, chunk: &Chunk) -> Result<Partial> {
        if round == 0 {
            let rank = if decomposed(chunk.tensor) {
                align(chunk)?.us.cols
            } else {
                0
            };
            return Ok(Box::new((chunk.index, rank)));
        }
        let found = self.within(chunk, |inner, view| inner.survey(round - 1, view))?;
        Ok(Box::new(found.map(|(partial, _)| partial)))
    }

    fn absorb(&mut self, round: usize, partial: Partial) -> Result<()> {
        if round == 0 {
            self.ranks.push(typed(partial)?);
        } else if let (Some(partial), Some(inner)) =
            (typed::<Option<Partial>>(partial)?, &mut self.inner)
        {
            inner.absorb(round - 1, partial)?;
        }
        Ok(())
    }

    fn finish(&mut self, round: usize) -> Result<Next> {
        if round > 0 {
            return match &mut self.inner {
                Some(inner) => inner.finish(round - 1),
                None => Ok(Next::Done),
            };
        }
        let mut before = 0;
        for &(index, rank) in self.ranks.iter().filter(|(_, rank)| *rank > 0) {
            let outer = &self.job.tensors[index];
            self.places[index] = Some(self.inner_tensors.len());
            let tensor = TensorJob {
                shape: vec![rank, outer.last_axis()],
                before,
                ..(**outer).clone()
            };
            before += tensor.elements() as u64;
            self.inner_tensors.push(Arc::new(tensor));
        }
        if self.inner_tensors.is_empty() {
            return Ok(Next::Done);
        }
        let mut job = self.job.clone();
        job.tensors.clone_from(&self.inner_tensors);
        let inner = job.inner()?;
        let next = if inner.surveys() {
            Next::Again
        } else {
            Next::Done
        };
        self.inner = Some(inner);
        Ok(next)
    }

    fn apply(&self, chunk: &Chunk, out: &mut [f32]) -> Result<()> {
        let lambda = chunk.tensor.shared.number("lambda");
        if !decomposed(chunk.tensor) {
            let weight = (lambda / chunk.inputs.len() as f64) as f32;
            return Mean(weight).apply(chunk, out);
        }
        let merged = self.within(chunk, |inner, view| {
            let mut v = vec![0.0; view.len()];
            inner.apply(view, &mut v)?;
            Ok(Matrix::from_f32(
                view.tensor.shape[0],
                view.tensor.shape[1],
                &v,
            ))
        })?;
        match merged {
            None => out.fill(0.0), // No task changes this matrix.
            Some((vt, us)) => {
                for (o, v) in out.iter_mut().zip(&us.times(&vt).data) {
                    *o = (v * lambda) as f32;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::{Value, json};

    use super::super::method::Values;
    use super::super::run::{Collect, Group, Memory, Options, run};
    use super::*;
    use crate::plan::{Composition, Inner};

    /// Two tensors, `w` [2, 2] and a vector `b` [2], through `knots` on a method with the given words.
    fn merged(
        on: &'static str,
        words: &[(&'static str, Value)],
        inputs: &[[f32; 4]],
    ) -> [Vec<f32>; 2] {
        let n = inputs.len();
        let spec = crate::merge::find(on).unwrap().spec();
        let fill = |each: bool| -> Values {
            let params: Vec<_> = spec
                .params
                .iter()
                .filter(|p| p.each == each)
                .copied()
                .collect();
            let given = words
                .iter()
                .filter(|(k, _)| params.iter().any(|p| p.name == *k))
                .map(|(k, v)| ((*k).to_owned(), v.clone()))
                .collect();
            crate::merge::params::complete(&params, &given, false).unwrap()
        };
        let composition = Composition {
            method: "knots",
            on: Some(Inner {
                method: spec.name,
                shared: fill(false),
                each: vec![fill(true); n],
                pre: Vec::new(),
            }),
            pre: Vec::new(),
            post: Vec::new(),
        };
        let mut shared = Values::default();
        shared.set("lambda", json!(1.0));
        let tensor = |name: &str, shape: &[usize], before| {
            Arc::new(TensorJob {
                name: name.into(),
                shape: shape.to_vec(),
                shared: shared.clone(),
                each: vec![Values::default(); n],
                layer: None,
                before,
            })
        };
        let job = Job {
            tensors: vec![tensor("b", &[2], 0), tensor("w", &[2, 2], 2)],
            experts: (0..n).map(|i| i.to_string()).collect(),
            has_base: true,
            seed: 0,
            statistics: None,
            inner_maker: None,
        };
        let make = |job: &Job| composition.build(job);
        let group = Group {
            job: &job,
            deltas: composition.deltas(),
            scope: composition.scope(),
            make: &make,
        };
        let feed = Memory {
            base: vec![&[0.0; 2], &[0.0; 4]],
            inputs: inputs.iter().map(|x| vec![&x[..2], &x[..]]).collect(),
        };
        let sink = Collect::new(&job.tensors);
        run(&group, None, &feed, &sink, &Options::default()).unwrap();
        let mut values = sink.into_values();
        let w = values.remove(1);
        [values.remove(0), w]
    }

    fn close(a: &[f32], b: &[f32]) {
        assert!(
            a.len() == b.len() && a.iter().zip(b).all(|(x, y)| (x - y).abs() < 1e-5),
            "{a:?} against {b:?}"
        );
    }

    #[test]
    fn a_sum_is_the_same_in_any_basis() {
        let inputs = [[1.0, 2.0, 3.0, 4.0], [0.5, -2.0, 0.0, 1.0]];
        let [b, w] = merged("task_arithmetic", &[], &inputs);
        close(&w, &[1.5, 0.0, 3.0, 5.0]);
        close(&b, &[0.75, 0.0]); // Not a matrix: the mean.
    }

    #[test]
    fn signs_are_elected_in_the_common_basis() {
        // Both matrices have rank one along u = (3, 4)/5: rows 3 and 4 of (x, y) with x = 1 in the first, -0.5 in the
        // second, y = 1 in both. U S holds u times |(1, 1, -0.5, 1)| 5; V_1' and V_2' are (1, 1) and (-0.5, 1) over that
        // norm. The election drops -0.5; with ties_reference's mean over those that are left: (1, 1) -> 3, 3, 4, 4.
        let inputs = [[3.0, 3.0, 4.0, 4.0], [-1.5, 3.0, -2.0, 4.0]];
        let words = [("density", json!(1.0))];
        let [b, w] = merged("ties_reference", &words, &inputs);
        close(&w, &[3.0, 3.0, 4.0, 4.0]);
        close(&b, &[0.75, 3.0]);
    }

    #[test]
    fn one_task_comes_back_and_no_change_stays_none() {
        let inputs = [[1.0, 2.0, 3.0, 5.0]];
        close(&merged("ties", &[], &inputs)[1], &inputs[0]);
        close(&merged("ties", &[], &[[0.0; 4], [0.0; 4]])[1], &[0.0; 4]);
    }
}
