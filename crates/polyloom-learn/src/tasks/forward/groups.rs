//! Rows of groups without a goal of their own.

use super::Output;
use crate::tasks::rows::{Reader, Shown};

/// Rows of groups that training did not have stand once for every group: the inputs with them in that place, and of each
/// which one it was. `None` where there are none such.
pub(super) fn spread(reader: &Reader, shown: &[Shown]) -> Option<(Vec<Shown>, Vec<usize>)> {
    let Reader::Tables(preparation) = reader else {
        return None;
    };
    let groups = preparation.groups()?.values.len() as u32;
    if shown.iter().all(Shown::has_goal) {
        return None;
    }
    let (mut all, mut of) = (Vec::new(), Vec::new());
    for (i, one) in shown.iter().enumerate() {
        match one {
            Shown::Row(row) if row.group.is_none() => {
                for group in 0..groups {
                    let mut row = row.clone();
                    row.group = Some(group);
                    all.push(Shown::Row(row));
                    of.push(i);
                }
            }
            one => {
                all.push(one.clone());
                of.push(i);
            }
        }
    }
    Some((all, of))
}

/// The mean of the outputs of one input, for each of `n` inputs.
pub(super) fn means(outputs: &[Output], of: &[usize], n: usize) -> Vec<Output> {
    let mut sums: Vec<(Vec<f64>, f64)> = vec![(Vec::new(), 0.0); n];
    for (output, i) in outputs.iter().zip(of) {
        let (sum, count) = &mut sums[*i];
        sum.resize(output.len(), 0.0);
        sum.iter_mut()
            .zip(output)
            .for_each(|(s, x)| *s += f64::from(*x));
        *count += 1.0;
    }
    let mean = |(sum, count): (Vec<f64>, f64)| sum.iter().map(|s| (s / count) as f32).collect();
    sums.into_iter().map(mean).collect()
}
