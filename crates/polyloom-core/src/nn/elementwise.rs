//! Sums and scales of whole slices.

use std::mem::MaybeUninit;

use rayon::prelude::*;

use super::BLOCK;
use crate::wide;

fn pairs(out: &mut [f32], x: &[f32], f: impl Fn(&mut [f32], &[f32]) + Sync) {
    assert_eq!(out.len(), x.len(), "lengths");
    if out.len() <= BLOCK {
        f(out, x);
    } else {
        out.par_chunks_mut(BLOCK)
            .zip(x.par_chunks(BLOCK))
            .for_each(|(out, x)| f(out, x));
    }
}

/// `out += x`.
///
/// # Panics
/// If the lengths differ; so for every function of this file.
pub fn add_assign(out: &mut [f32], x: &[f32]) {
    axpy(out, 1.0, x);
}

/// `out += factor x`.
///
/// # Panics
/// If the lengths differ.
pub fn axpy(out: &mut [f32], factor: f32, x: &[f32]) {
    pairs(out, x, |out, x| {
        wide(
            #[inline(always)]
            || out.iter_mut().zip(x).for_each(|(o, x)| *o += factor * x),
        );
    });
}

/// `out *= factor`.
pub fn scale(out: &mut [f32], factor: f32) {
    super::blocks(out, BLOCK, |_, out| {
        wide(
            #[inline(always)]
            || out.iter_mut().for_each(|o| *o *= factor),
        );
    });
}

/// `f` of the elements of two slices.
///
/// # Panics
/// If the lengths differ.
pub fn map2(x: &[f32], y: &[f32], f: impl Fn(f32, f32) -> f32 + Sync + Copy) -> Vec<f32> {
    assert_eq!(x.len(), y.len(), "lengths");
    let write = |block: usize, out: &mut [MaybeUninit<f32>]| {
        let at = block * BLOCK;
        let (x, y) = (&x[at..][..out.len()], &y[at..][..out.len()]);
        wide(
            #[inline(always)]
            || {
                for ((o, x), y) in out.iter_mut().zip(x).zip(y) {
                    o.write(f(*x, *y));
                }
            },
        );
    };
    // SAFETY: the three have one length, so the loop writes every element.
    unsafe { super::fresh(x.len(), BLOCK, write) }
}

/// `f` of the elements of a slice.
pub fn map(x: &[f32], f: impl Fn(f32) -> f32 + Sync + Copy) -> Vec<f32> {
    map2(
        x,
        x,
        #[inline(always)]
        |x, _| f(x),
    )
}

/// `x + bias` for every row: adds a row to all rows of `out`, in place.
///
/// # Panics
/// If `out` is not whole rows.
pub fn add_row(out: &mut [f32], row: &[f32]) {
    assert!(out.len().is_multiple_of(row.len().max(1)), "rows");
    super::blocks(out, super::rows_of(row.len()) * row.len(), |_, out| {
        wide(
            #[inline(always)]
            || {
                for out in out.chunks_exact_mut(row.len()) {
                    out.iter_mut().zip(row).for_each(|(o, r)| *o += r);
                }
            },
        );
    });
}

/// A row again and again, `rows` times.
pub fn repeated(row: &[f32], rows: usize) -> Vec<f32> {
    let write = |_: usize, out: &mut [MaybeUninit<f32>]| {
        for out in out.chunks_exact_mut(row.len().max(1)) {
            out.write_copy_of_slice(row);
        }
    };
    let size = super::rows_of(row.len()) * row.len();
    // SAFETY: blocks are whole rows, and every row is written.
    unsafe { super::fresh(rows * row.len(), size, write) }
}

/// `out += ` sums of the columns of `x`, whose rows have the length of `out`.
///
/// # Panics
/// If `x` is not whole rows.
pub fn add_column_sums(out: &mut [f32], x: &[f32]) {
    let width = out.len();
    assert!(x.len().is_multiple_of(width.max(1)), "rows");
    let size = super::rows_of(width) * width;
    super::column_sums(out, x.len().div_ceil(size.max(1)), |block, sums| {
        let x = &x[block * size..];
        let x = &x[..x.len().min(size)];
        wide(
            #[inline(always)]
            || {
                for row in x.chunks_exact(width) {
                    sums.iter_mut().zip(row).for_each(|(s, x)| *s += x);
                }
            },
        );
    });
}

/// `base + factors[0] parts[0] + factors[1] parts[1] + ...`, one block after the other.
///
/// # Panics
/// If the lengths differ.
pub fn mix(base: &[f32], parts: &[&[f32]], factors: &[f32]) -> Vec<f32> {
    assert_eq!(parts.len(), factors.len(), "factors");
    assert!(parts.iter().all(|p| p.len() == base.len()), "lengths");
    let write = |block: usize, out: &mut [MaybeUninit<f32>]| {
        let at = block * BLOCK..block * BLOCK + out.len();
        let out = out.write_copy_of_slice(&base[at.clone()]);
        for (part, factor) in parts.iter().zip(factors) {
            let part = &part[at.clone()];
            wide(
                #[inline(always)]
                || out.iter_mut().zip(part).for_each(|(o, x)| *o += factor * x),
            );
        }
    };
    // SAFETY: the copy of the base writes every element.
    unsafe { super::fresh(base.len(), BLOCK, write) }
}

/// Sum of products in `f64`, blocks added in order.
///
/// # Panics
/// If the lengths differ.
pub fn inner(x: &[f32], y: &[f32]) -> f64 {
    assert_eq!(x.len(), y.len(), "lengths");
    let part = |(x, y): (&[f32], &[f32])| {
        wide(
            #[inline(always)]
            || f64::from(super::dot(x, y)),
        )
    };
    let parts: Vec<f64> = x
        .par_chunks(BLOCK)
        .zip(y.par_chunks(BLOCK))
        .map(part)
        .collect();
    parts.iter().sum()
}

/// Sum of squares in `f64`, blocks added in order.
pub fn squares(x: &[f32]) -> f64 {
    inner(x, x)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_and_short() {
        for n in [0usize, 5, BLOCK, 3 * BLOCK + 7] {
            let x: Vec<f32> = (0..n).map(|i| (i % 10) as f32).collect();
            let mut out = vec![1.0; n];
            axpy(&mut out, 2.0, &x);
            assert!(
                out.iter()
                    .enumerate()
                    .all(|(i, o)| *o == 1.0 + 2.0 * (i % 10) as f32)
            );
            scale(&mut out, 0.5);
            assert!(
                out.iter()
                    .enumerate()
                    .all(|(i, o)| *o == 0.5 + (i % 10) as f32)
            );
            assert_eq!(map2(&x, &out, |x, y| y - x), vec![0.5; n]);
            let mixed = mix(&x, &[&out, &x], &[2.0, -3.0]);
            assert!(mixed.iter().all(|m| *m == 1.0) && mixed.len() == n);
            let wanted: f64 = (0..n).map(|i| (i % 10 * (i % 10)) as f64).sum();
            assert!((inner(&x, &x) - wanted).abs() <= 1e-6 * wanted);
        }
        let rows = 40_000;
        let mut out = vec![0.0; 3 * rows];
        add_row(&mut out, &[1.0, 2.0, 3.0]);
        assert_eq!(&out[out.len() - 3..], [1.0, 2.0, 3.0]);
        assert_eq!(repeated(&[1.0, 2.0, 3.0], rows), out);
        assert!(repeated(&[], 5).is_empty() && repeated(&[1.0], 0).is_empty());
        let mut sums = [1.0, 0.0, 0.0];
        add_column_sums(&mut sums, &out);
        assert_eq!(sums, [40_001.0, 80_000.0, 120_000.0]);
        assert_eq!(squares(&out), 40_000.0 * 14.0);
    }
}
