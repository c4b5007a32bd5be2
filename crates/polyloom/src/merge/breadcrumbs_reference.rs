//! `breadcrumbs_reference`: Model Breadcrumbs as the paper's code cuts, per row.

use super::method::{
    Base, Chunk, Golden, Job, Kernel, Kind, Method, Missing, Param, Scope, Spec, Unit, Unset,
};
use super::survey::magnitude_bits;
use crate::error::Result;

static SPEC: Spec = Spec {
    name: "breadcrumbs_reference",
    summary: "Removes the largest and smallest entries of each row of each task vector, adds up",
    source: "Model Breadcrumbs (Davari and Belilovsky 2023); rezazzr/breadcrumbs src/task_vectors.py",
    formula: "Per row of the last axis of length m (a 1-d tensor is one row, a scalar is left alone): zero the `int(m gamma)` largest magnitudes, then keep the `int(m density)` largest of what is left (the other order if `remove_first` is false); `V = lambda sum_i D_i`.",
    differs: "Cuts per row, as the paper's code; `breadcrumbs` cuts per tensor, as mergekit.",
    cost: "one pass, O(elements x experts x log row)",
    base: Base::Required,
    experts: (1, usize::MAX),
    deltas: true,
    scope: Scope::Tensor,
    params: &[
        Param::shared(
            "density",
            Kind::Number(0.0, 1.0),
            Unset::Number(0.15),
            "Share of each row that is kept.",
        ),
        Param::shared(
            "gamma",
            Kind::Number(0.0, 1.0),
            Unset::Number(0.007),
            "Share of largest magnitudes of each row that is removed.",
        ),
        Param::shared(
            "remove_first",
            Kind::Flag,
            Unset::Flag(true),
            "Remove the largest before choosing what is kept.",
        ),
        Param::shared(
            "lambda",
            Kind::Number(f64::NEG_INFINITY, f64::INFINITY),
            Unset::Number(0.3),
            "Factor of the merged vector.",
        ),
    ],
    on: None,
    golden: Golden::Cases(&["breadcrumbs_reference"]),
    missing: Missing::Refuse,
};

/// The entries of this file.
pub static METHODS: &[&dyn Method] = &[&Breadcrumbs];

struct Breadcrumbs;

struct Rows {
    row: usize,
    /// Positions, by descending magnitude, that survive.
    kept: std::ops::Range<usize>,
    lambda: f32,
}

impl Method for Breadcrumbs {
    fn spec(&self) -> &'static Spec {
        &SPEC
    }

    fn kernel(&self, job: &Job) -> Result<Box<dyn Kernel>> {
        let tensor = &job.tensors[0];
        let m = tensor.last_axis().max(1);
        let remove = (m as f64 * tensor.shared.number("gamma")) as usize;
        let keep = (m as f64 * tensor.shared.number("density")) as usize;
        let kept = if tensor.shape.is_empty() {
            0..1
        } else if tensor.shared.flag("remove_first") {
            remove..(remove + keep).min(m)
        } else {
            remove..keep.max(remove)
        };
        Ok(Box::new(Rows {
            row: m,
            kept,
            lambda: tensor.shared.number("lambda") as f32,
        }))
    }
}

/// Zeroes what a row does not keep; `order` is scratch. Equal magnitudes: the lower index counts as larger.
pub(super) fn cut_row(row: &mut [f32], kept: &std::ops::Range<usize>, order: &mut Vec<u32>) {
    order.clear();
    order.extend(0..row.len() as u32);
    order.sort_unstable_by_key(|i| (std::cmp::Reverse(magnitude_bits(row[*i as usize])), *i));
    for (position, i) in order.iter().enumerate() {
        if !kept.contains(&position) {
            row[*i as usize] = 0.0;
        }
    }
}

impl Kernel for Rows {
    fn unit(&self) -> Unit {
        Unit::Row
    }

    fn apply(&self, chunk: &Chunk, out: &mut [f32]) -> Result<()> {
        out.fill(0.0);
        let (mut row, mut order) = (Vec::new(), Vec::new());
        for input in chunk.inputs {
            for (o, x) in out.chunks_mut(self.row).zip(input.chunks(self.row)) {
                row.clear();
                row.extend_from_slice(x);
                cut_row(&mut row, &self.kept, &mut order);
                for (o, x) in o.iter_mut().zip(&row) {
                    *o += x;
                }
            }
        }
        out.iter_mut().for_each(|o| *o *= self.lambda);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::merged;

    #[test]
    fn largest_goes_then_the_next_largest_stay() {
        let params = [
            ("density", 0.5.into()),
            ("gamma", 0.25.into()),
            ("lambda", 1.0.into()),
        ];
        let got = merged("breadcrumbs_reference", &params, &[&[9.0, -3.0, 1.0, 2.0]]);
        assert_eq!(got, [0.0, -3.0, 0.0, 2.0]);
    }

    #[test]
    fn the_other_order_keeps_fewer() {
        let params = [
            ("density", 0.5.into()),
            ("gamma", 0.25.into()),
            ("lambda", 1.0.into()),
            ("remove_first", false.into()),
        ];
        let got = merged("breadcrumbs_reference", &params, &[&[9.0, -3.0, 1.0, 2.0]]);
        assert_eq!(got, [0.0, -3.0, 0.0, 0.0]);
    }
}
