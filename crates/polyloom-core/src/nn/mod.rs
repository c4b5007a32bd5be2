//! What neural networks are made of, forward and backward, on plain slices of `f32`: products, activations, norms,
//! attention, losses, optimisers.
//!
//! Layout is row-major, the last axis is the one that varies fastest. Backward functions take the gradient of the output
//! and write or add the gradients of the inputs; where they add, the name says `add`. Work is cut into blocks of fixed
//! size, so that results are the same bits for any number of threads (products of matrices excepted: the same bits for the
//! same number of threads). Lengths that do not fit together panic: callers check shapes and name what is wrong.

pub mod activation;
pub mod attention;
pub mod batch_norm;
pub mod blend;
pub mod dropout;
pub mod elementwise;
pub mod embedding;
pub mod loss;
pub mod math;
pub mod matmul;
pub mod norm;
pub mod optim;
pub mod rope;
pub mod softmax;
pub mod sophia;
pub mod unmixed;
pub mod window;

use std::mem::MaybeUninit;

use rayon::prelude::*;

/// Elements of a block: it stays in the first two levels of the cache.
pub(crate) const BLOCK: usize = 1 << 14;

/// Rows of a block, for work by rows.
pub(crate) fn rows_of(width: usize) -> usize {
    (BLOCK / width.max(1)).max(1)
}

/// `f(block number, block)` over blocks of `size`, on all threads where there are several.
pub(crate) fn blocks(out: &mut [f32], size: usize, f: impl Fn(usize, &mut [f32]) + Sync) {
    if out.len() <= size {
        if !out.is_empty() {
            f(0, out);
        }
    } else {
        out.par_chunks_mut(size)
            .enumerate()
            .for_each(|(i, block)| f(i, block));
    }
}

/// A vector of `n` elements that `f(block number, block)` writes, block by block, on all threads. It is not filled with
/// zeros first: a buffer of some megabytes would pass through the cache once more.
///
/// # Safety
/// `f` writes every element of every block.
pub(crate) unsafe fn fresh(
    n: usize,
    size: usize,
    f: impl Fn(usize, &mut [MaybeUninit<f32>]) + Sync,
) -> Vec<f32> {
    let mut out = Vec::with_capacity(n);
    let spare = &mut out.spare_capacity_mut()[..n];
    if n <= size {
        if n > 0 {
            f(0, spare);
        }
    } else {
        spare
            .par_chunks_mut(size)
            .enumerate()
            .for_each(|(i, block)| f(i, block));
    }
    // SAFETY: the capacity is at least `n`, and `f` wrote the first `n` elements.
    unsafe { out.set_len(n) };
    out
}

/// Sum with sixteen running sums, so that it takes the width of the machine.
#[inline(always)]
pub(crate) fn sum(x: &[f32]) -> f32 {
    fold(x, x, |a, x, _| a + x)
}

/// Sum of products.
#[inline(always)]
pub(crate) fn dot(x: &[f32], y: &[f32]) -> f32 {
    fold(x, y, |a, x, y| a + x * y)
}

/// Sixteen running values over two slices of one length, added up at the end.
#[inline(always)]
fn fold(x: &[f32], y: &[f32], f: impl Fn(f32, f32, f32) -> f32) -> f32 {
    let mut lanes = [0f32; 16];
    let (xs, ys) = (x.chunks_exact(16), y[..x.len()].chunks_exact(16));
    let (xr, yr) = (xs.remainder(), ys.remainder());
    for (x, y) in xs.zip(ys) {
        for i in 0..16 {
            lanes[i] = f(lanes[i], x[i], y[i]);
        }
    }
    for (i, (x, y)) in xr.iter().zip(yr).enumerate() {
        lanes[i] = f(lanes[i], *x, *y);
    }
    let mut half = [0f32; 8];
    for i in 0..8 {
        half[i] = lanes[i] + lanes[i + 8];
    }
    (half[0] + half[4]) + (half[1] + half[5]) + ((half[2] + half[6]) + (half[3] + half[7]))
}

/// Column sums of rows that blocks make one partial row of each: `partial(block, sums)` adds the rows of its block. The
/// partial rows are added to `out` in the order of the blocks.
pub(crate) fn column_sums(
    out: &mut [f32],
    count: usize,
    partial: impl Fn(usize, &mut [f32]) + Sync,
) {
    let width = out.len();
    let mut all = vec![0f32; count * width];
    blocks(&mut all, width.max(1), partial);
    for row in all.chunks_exact(width.max(1)) {
        elementwise::add_assign(out, row);
    }
}
