//! Low-rank deltas: factors of every matrix, and which of them a number of bytes buys.

use polyloom_core::linalg::{Matrix, svd};

use super::mask::pack;
use crate::error::{MergeError, Result};

/// Which units of a stored weight `[out, in]` share an importance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Axis {
    /// Columns: what reads one input (the rows of the paper, whose weights are `[in, out]`).
    #[default]
    Input,
    /// Rows: what makes one output.
    Output,
}

/// A matrix as a sum of products of a column and a row, the ones that matter most first.
#[derive(Debug, Clone)]
pub struct Decomposed {
    /// `[rows, k]`, singular values in it.
    pub left: Matrix,
    /// `[k, cols]`.
    pub right: Matrix,
    /// What each product takes off the (weighted) squared error.
    pub gains: Vec<f64>,
}

/// The importance of a weight's units from its diagonal Fisher information `[out, in]`: the root of the sum over the other
/// axis, at least `floor` (an importance of 0 could not be divided out again).
#[must_use]
pub fn importance(
    fisher: &[f32],
    (rows, cols): (usize, usize),
    axis: Axis,
    floor: f64,
) -> Vec<f64> {
    let n = match axis {
        Axis::Input => cols,
        Axis::Output => rows,
    };
    let mut sums = vec![0f64; n];
    for (r, row) in fisher.chunks_exact(cols.max(1)).enumerate() {
        for (c, f) in row.iter().enumerate() {
            sums[if axis == Axis::Input { c } else { r }] += f64::from(*f);
        }
    }
    sums.into_iter()
        .map(|s| s.max(0.0).sqrt().max(floor))
        .collect()
}

/// The singular value decomposition of a matrix (`W = U S V'`: left `U S`, right `V'`), or with the importance of its units
/// the one that is best by the weighted error (FWSVD, Hsu et al. 2022): `W diag(I) = U S V'`, right `V' diag(I)^-1`; by
/// outputs `diag(I) W = U S V'`, left `diag(I)^-1 U S`. The first k products are the best of rank k.
///
/// Cost: one decomposition in `f64`.
///
/// # Errors
/// A matrix with values that are not finite.
pub fn decompose(w: &Matrix, weights: Option<(Axis, &[f64])>) -> Result<Decomposed> {
    let weighted = match weights {
        None => w.clone(),
        Some((Axis::Input, i)) => w.clone().scale_columns(i),
        Some((Axis::Output, i)) => w.clone().scale_rows(i),
    };
    let found =
        svd(&weighted).map_err(|e| MergeError::plan("not-finite", format!("a delta {e}")))?;
    let gains = found.s.iter().map(|s| s * s).collect();
    let left = found.u.scale_columns(&found.s);
    let inverse = |i: &[f64]| -> Vec<f64> { i.iter().map(|x| 1.0 / x).collect() };
    let (left, right) = match weights {
        None => (left, found.vt),
        Some((Axis::Input, i)) => (left, found.vt.scale_columns(&inverse(i))),
        Some((Axis::Output, i)) => (left.scale_rows(&inverse(i)), found.vt),
    };
    Ok(Decomposed { left, right, gains })
}

/// The factors of a rank in `f32`, the length of every column of the left one shared with its row of the right one: both fit
/// a type of few bits.
#[must_use]
pub fn factors(d: &Decomposed, rank: usize) -> (Vec<f32>, Vec<f32>) {
    let (left, right) = (d.left.first_columns(rank), d.right.first_rows(rank));
    let mut columns = vec![0f64; left.cols];
    for row in left.data.chunks_exact(left.cols.max(1)) {
        columns.iter_mut().zip(row).for_each(|(s, x)| *s += x * x);
    }
    let rows = right.data.chunks_exact(right.cols.max(1));
    let rows: Vec<f64> = rows.map(|r| r.iter().map(|x| x * x).sum()).collect();
    let share = |(a, b): (&f64, &f64)| {
        if *a > 0.0 && *b > 0.0 {
            (b / a).sqrt().sqrt()
        } else {
            1.0
        }
    };
    let by: Vec<f64> = columns.iter().zip(&rows).map(share).collect();
    let back: Vec<f64> = by.iter().map(|x| 1.0 / x).collect();
    (
        left.scale_columns(&by).to_f32(),
        right.scale_rows(&back).to_f32(),
    )
}

/// One tensor of one task, as the budget sees it.
#[derive(Debug, Clone, Default)]
pub struct Item {
    /// What each product takes off the error, as a share of the task's; empty for a tensor that is no matrix.
    pub gains: Vec<f64>,
    /// Bytes of one product.
    pub cost: u64,
    /// What storing it whole takes off the error.
    pub all: f64,
    /// Bytes of the whole tensor.
    pub whole: u64,
}

/// What a tensor gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    /// Nothing: it is the base's.
    Same,
    /// So many products.
    Rank(usize),
    /// All of its numbers.
    Whole,
}

/// Spends a budget over all tensors: products (and whole tensors that are no matrices) are bought in the order of what they
/// take off the error per byte, until the next one does not fit; then those that still fit, in the same order. A matrix
/// whose products would cost as much as the whole tensor becomes whole.
///
/// Since the gains of a matrix fall, this is the optimum of the relaxed problem (all pieces above one price per byte) and
/// misses that of the whole one by less than one piece.
#[must_use]
pub fn allocate(items: &[Item], budget: u64) -> Vec<Choice> {
    let mut pieces: Vec<(f64, usize, u64)> = Vec::new();
    for (i, item) in items.iter().enumerate() {
        if item.gains.is_empty() {
            if item.all > 0.0 {
                pieces.push((item.all / item.whole.max(1) as f64, i, item.whole));
            }
        } else {
            let worth = item.gains.iter().filter(|g| **g > 0.0);
            pieces.extend(worth.map(|g| (g / item.cost.max(1) as f64, i, item.cost)));
        }
    }
    // Stable: of equals the first tensor, and the products of a tensor in their order.
    pieces.sort_by(|a, b| b.0.total_cmp(&a.0));
    let mut found = vec![Choice::Same; items.len()];
    let mut left = budget;
    for (_, i, _) in pieces {
        let item = &items[i];
        let (now, next) = match found[i] {
            Choice::Whole => continue,
            Choice::Same if item.gains.is_empty() => (0, Choice::Whole),
            Choice::Same => (0, Choice::Rank(1)),
            Choice::Rank(k) => (k as u64 * item.cost, Choice::Rank(k + 1)),
        };
        let price = |c: Choice| match c {
            Choice::Rank(k) => k as u64 * item.cost,
            _ => item.whole,
        };
        let next = if price(next) >= item.whole {
            Choice::Whole
        } else {
            next
        };
        if let Some(rest) = (left + now).checked_sub(price(next)) {
            left = rest;
            found[i] = next;
        }
    }
    found
}

/// One-bit delta of a tensor (BitDelta, Liu et al. 2024): signs, zeros counting as plus, packed as in mask files, and the
/// mean magnitude, of all elements or of each of `rows`. `None` where nothing changed.
#[must_use]
pub fn signs(delta: &[f32], rows: Option<usize>) -> Option<(Vec<u8>, Vec<f32>)> {
    if delta.iter().all(|d| *d == 0.0) {
        return None;
    }
    let mut bits = Vec::new();
    pack(delta.iter().map(|d| *d >= 0.0), &mut bits);
    let cols = delta.len() / rows.unwrap_or(1).max(1);
    let mean = |row: &[f32]| {
        let sum: f64 = row.iter().map(|d| f64::from(d.abs())).sum();
        (sum / row.len() as f64) as f32
    };
    Some((bits, delta.chunks(cols.max(1)).map(mean).collect()))
}

#[cfg(test)]
mod tests {
    use super::super::delta::Stored;
    use super::*;

    fn random(n: usize, key: u64) -> Vec<f32> {
        let s = polyloom_core::rng::Stream::new(5, "lowrank", key);
        (0..n as u64).map(|i| s.normal(i)).collect()
    }

    #[test]
    fn factors_make_the_matrix_and_their_error_is_what_is_left() {
        let w = random(12 * 7, 0);
        let m = Matrix::from_f32(12, 7, &w);
        let d = decompose(&m, None).unwrap();
        for rank in [1, 3, 7] {
            let (left, right) = factors(&d, rank);
            let mut values = vec![0f32; 84];
            Stored::LowRank { rank, left, right }.apply(&[12, 7], 0, &mut values);
            let error: f64 = values
                .iter()
                .zip(&w)
                .map(|(a, b)| f64::from(a - b).powi(2))
                .sum();
            let rest: f64 = d.gains[rank..].iter().sum();
            assert!((error - rest).abs() < 1e-4, "{rank}: {error} {rest}");
        }
    }

    #[test]
    fn importance_decides_what_is_kept() {
        let w = Matrix::from_f32(8, 6, &random(48, 1));
        let fisher: Vec<f32> = (0..48)
            .map(|i| [9.0f32, 0.0, 1.0, 4.0, 1.0, 0.01][i % 6])
            .collect();
        let i = importance(&fisher, (8, 6), Axis::Input, 1e-4);
        assert!((i[0] - 72f64.sqrt()).abs() < 1e-9 && i[1] == 1e-4);
        let weighted = |d: &Decomposed, rank: usize| {
            let made = d.left.first_columns(rank).times(&d.right.first_rows(rank));
            let mut rest = w.clone();
            rest.add(-1.0, &made);
            rest.scale_columns(&i).norm()
        };
        let ours = decompose(&w, Some((Axis::Input, &i))).unwrap();
        let plain = decompose(&w, None).unwrap();
        for rank in 1..5 {
            assert!(weighted(&ours, rank) < weighted(&plain, rank));
            let rest: f64 = ours.gains[rank..].iter().sum();
            assert!((weighted(&ours, rank).powi(2) - rest).abs() < 1e-9);
        }
    }

    #[test]
    fn a_budget_buys_what_is_worth_most_per_byte() {
        let items = [
            Item {
                gains: vec![8.0, 4.0, 0.5],
                cost: 4,
                all: 12.5,
                whole: 10,
            },
            Item {
                gains: vec![],
                cost: 0,
                all: 3.0,
                whole: 1,
            },
            Item {
                gains: vec![3.0, 1.0],
                cost: 2,
                all: 4.0,
                whole: 100,
            },
        ];
        // Per byte: 3 (whole vector), 2, 1.5, 1, 0.5, 0.125.
        assert_eq!(
            allocate(&items, 5),
            [Choice::Rank(1), Choice::Whole, Choice::Same]
        );
        assert_eq!(
            allocate(&items, 7),
            [Choice::Rank(1), Choice::Whole, Choice::Rank(1)]
        );
        // Nine bytes: the second product of the first no longer fits, the second of the third does.
        assert_eq!(
            allocate(&items, 9),
            [Choice::Rank(1), Choice::Whole, Choice::Rank(2)]
        );
        // Three products would cost more than the tensor.
        assert_eq!(
            allocate(&items, 15),
            [Choice::Whole, Choice::Whole, Choice::Rank(2)]
        );
        assert_eq!(allocate(&items, 0), [Choice::Same; 3]);
    }

    #[test]
    fn one_bit_by_hand_and_its_error() {
        assert!(signs(&[0.0; 5], None).is_none());
        let d = [1.0f32, -2.0, 0.0, -5.0];
        assert_eq!(signs(&d, None).unwrap(), (vec![0b1010_0000], vec![2.0]));
        assert_eq!(signs(&d, Some(2)).unwrap().1, [1.5, 2.5]);
        let d = random(1000, 2);
        let (bits, scales) = signs(&d, None).unwrap();
        let mut made = vec![0f32; 1000];
        Stored::Signs {
            bits,
            scales: scales.clone(),
        }
        .apply(&[1000], 0, &mut made);
        assert!(made.iter().zip(&d).all(|(a, b)| a.signum() == b.signum()));
        let squares = |x: &[f32]| x.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>();
        let error: Vec<f32> = made.iter().zip(&d).map(|(a, b)| a - b).collect();
        let want = squares(&d) - 1000.0 * f64::from(scales[0]).powi(2);
        assert!((squares(&error) - want).abs() < 1e-2);
    }
}
