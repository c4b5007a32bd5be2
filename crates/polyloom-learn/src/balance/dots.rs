//! Dot products of gradients, in an order that no number of threads changes.

use std::ops::Range;

use rayon::prelude::*;

use super::method::{Gram, Part};

/// Elements whose products are summed by one thread.
const RUN: usize = 1 << 18;

/// Of whole vectors: runs of elements on all threads, in f64, added in their order.
pub fn of(rows: &[&[f32]]) -> Gram {
    let n = rows.first().map_or(0, |r| r.len());
    let runs: Vec<Range<usize>> = (0..n.div_ceil(RUN))
        .map(|r| r * RUN..n.min((r + 1) * RUN))
        .collect();
    let grams: Vec<Gram> = runs
        .into_par_iter()
        .map(|at| Gram::of(&rows.iter().map(|r| &r[at.clone()]).collect::<Vec<_>>()))
        .collect();
    sum(rows.len(), grams.iter())
}

/// By tensor: names and places among the shared parameters.
pub fn by_part(rows: &[&[f32]], places: &[(String, Range<usize>)]) -> Vec<Part> {
    let part = |(name, at): &(String, Range<usize>)| Part {
        name: name.clone(),
        at: at.clone(),
        gram: of(&rows.iter().map(|r| &r[at.clone()]).collect::<Vec<_>>()),
    };
    places.par_iter().map(part).collect()
}

/// Sum of the parts, in their order.
pub fn whole(n: usize, parts: &[Part]) -> Gram {
    sum(n, parts.iter().map(|p| &p.gram))
}

fn sum<'a>(n: usize, grams: impl Iterator<Item = &'a Gram>) -> Gram {
    let mut sum = Gram::of(&vec![&[][..]; n]);
    grams.for_each(|g| sum.add(g));
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_and_runs_add_up() {
        let rows: Vec<Vec<f32>> = (0..3)
            .map(|t| (0..600_000).map(|i| ((i * (t + 1)) % 7) as f32).collect())
            .collect();
        let rows: Vec<&[f32]> = rows.iter().map(Vec::as_slice).collect();
        let places = [("a".to_owned(), 0..100), ("b".to_owned(), 100..600_000)];
        let (one, parts) = (of(&rows), by_part(&rows, &places));
        let sum = whole(3, &parts);
        for i in 0..3 {
            for j in 0..3 {
                // Small whole numbers: exact in any order.
                let by_hand: f64 = rows[i]
                    .iter()
                    .zip(rows[j])
                    .map(|(a, b)| f64::from(a * b))
                    .sum();
                assert_eq!((one.dot(i, j), sum.dot(i, j)), (by_hand, by_hand));
            }
        }
        assert_eq!(of(&[]).len(), 0);
    }
}
