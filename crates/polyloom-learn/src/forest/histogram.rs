//! Sums of gradients by bin, and the best split that they show.
//!
//! A row has *lanes*: gradients of the outputs, hessians (none where all are 1, one, or one for each output), and a 1 that
//! counts it; zeros fill up to 2 or a multiple of 4, so that a row is added to its bin by whole registers.

use polyloom_core::wide;
use rayon::prelude::*;

use super::bins::Codes;

/// How the second derivatives of the loss are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Curvature {
    /// All are 1: a leaf is the mean of its gradients.
    Ones,
    /// One for all outputs of a row.
    Shared,
    /// One for each output of a row.
    Each,
}

/// Where what stands in the lanes of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lanes {
    /// Outputs.
    pub outputs: usize,
    /// Second derivatives.
    pub curvature: Curvature,
    /// Lanes, with those that fill up.
    pub len: usize,
}

impl Lanes {
    /// The lanes of so many outputs.
    #[must_use]
    pub fn new(outputs: usize, curvature: Curvature) -> Self {
        let used = outputs
            + match curvature {
                Curvature::Ones => 1,
                Curvature::Shared => 2,
                Curvature::Each => outputs + 1,
            };
        let len = if used <= 2 {
            2
        } else {
            used.next_multiple_of(4)
        };
        Self {
            outputs,
            curvature,
            len,
        }
    }

    /// The lane of the hessian of an output.
    #[must_use]
    pub fn hessian(&self, output: usize) -> usize {
        match self.curvature {
            Curvature::Each => self.outputs + output,
            _ => self.outputs,
        }
    }

    /// Hessians that are kept.
    #[must_use]
    pub fn hessians(&self) -> usize {
        match self.curvature {
            Curvature::Each => self.outputs,
            _ => 1,
        }
    }

    /// The lane that counts.
    #[must_use]
    pub fn count(&self) -> usize {
        match self.curvature {
            Curvature::Ones => self.outputs,
            Curvature::Shared => self.outputs + 1,
            Curvature::Each => 2 * self.outputs,
        }
    }
}

/// Negative gradients, hessians and counts of rows.
#[derive(Debug, Clone, PartialEq)]
pub struct Statistics {
    /// What stands where.
    pub lanes: Lanes,
    /// Rows x lanes.
    pub values: Vec<f32>,
}

impl Statistics {
    /// Zeros, with every row counted.
    #[must_use]
    pub fn new(rows: usize, lanes: Lanes) -> Self {
        let mut values = vec![0.0; rows * lanes.len];
        values
            .chunks_exact_mut(lanes.len)
            .for_each(|row| row[lanes.count()] = 1.0);
        Self { lanes, values }
    }

    /// The lanes of some rows, one after the other, in a buffer that only grows.
    pub(super) fn gather<'o>(&self, rows: &[u32], out: &'o mut Vec<f32>) -> &'o [f32] {
        let n = rows.len() * self.lanes.len;
        if out.len() < n {
            out.resize(n, 0.0);
        }
        let out = &mut out[..n];
        match self.lanes.len {
            2 => self.gather_lanes::<2>(rows, out),
            4 => self.gather_lanes::<4>(rows, out),
            n => blocks(rows, out, n, |rows, out| {
                for (out, row) in out.chunks_exact_mut(n).zip(rows) {
                    out.copy_from_slice(&self.values[*row as usize * n..][..n]);
                }
            }),
        }
        out
    }

    fn gather_lanes<const L: usize>(&self, rows: &[u32], out: &mut [f32]) {
        let values = self.values.as_chunks::<L>().0;
        blocks(rows, out, L, |rows, out| {
            for (out, row) in out.as_chunks_mut::<L>().0.iter_mut().zip(rows) {
                *out = values[*row as usize];
            }
        });
    }

    /// Sums of the lanes over rows that were gathered, in their order.
    pub(super) fn sums(&self, values: &[f32]) -> Vec<f64> {
        fn of<const L: usize>(values: &[f32]) -> Vec<f64> {
            let mut sums = [0f64; L];
            let rows = values.as_chunks::<L>().0;
            rows.iter().for_each(|row| plus(&mut sums, row));
            sums.to_vec()
        }
        match self.lanes.len {
            2 => of::<2>(values),
            4 => of::<4>(values),
            n => {
                let mut sums = vec![0f64; n];
                for row in values.chunks_exact(n) {
                    let each = sums.iter_mut().zip(row);
                    each.for_each(|(s, v)| *s += f64::from(*v));
                }
                sums
            }
        }
    }
}

/// Hands on rows with the `n` numbers of each, many of them block by block on all threads.
fn blocks(rows: &[u32], out: &mut [f32], n: usize, copy: impl Fn(&[u32], &mut [f32]) + Sync) {
    const BLOCK: usize = 1 << 13;
    if rows.len() <= 2 * BLOCK {
        return copy(rows, out);
    }
    out.par_chunks_mut(BLOCK * n)
        .zip(rows.par_chunks(BLOCK))
        .for_each(|(out, rows)| copy(rows, out));
}

/// Rows of a node, with their lanes.
#[derive(Clone, Copy)]
pub struct Gathered<'a> {
    /// Their numbers; `None`: all rows of the table in order.
    pub rows: Option<&'a [u32]>,
    /// Their lanes.
    pub values: &'a [f32],
}

/// Bins that a column of narrow codes has room for: whatever a byte says is there, and needs no check.
pub(super) const NARROW: usize = 256;

/// Adds rows to the bins of a column, in the order of the rows. `bins` has room for [`NARROW`] bins, or for as many as
/// there are where codes are wide.
pub(super) fn add(bins: &mut [f64], lanes: usize, codes: &Codes, node: Gathered<'_>) {
    match lanes {
        2 => add_lanes::<2>(bins, codes, node),
        4 => add_lanes::<4>(bins, codes, node),
        8 => add_lanes::<8>(bins, codes, node),
        12 => add_lanes::<12>(bins, codes, node),
        16 => add_lanes::<16>(bins, codes, node),
        _ => match codes {
            Codes::Narrow(codes) => add_quads(bins, lanes / 4, codes, node),
            Codes::Wide(codes) => add_quads(bins, lanes / 4, codes, node),
        },
    }
}

fn add_lanes<const L: usize>(bins: &mut [f64], codes: &Codes, node: Gathered<'_>) {
    let bins = bins.as_chunks_mut::<L>().0;
    wide(
        #[inline(always)]
        || match codes {
            Codes::Narrow(codes) => match bins.first_chunk_mut::<NARROW>() {
                Some(bins) => each(codes, node, |code, row| plus(&mut bins[code as usize], row)),
                None => each(codes, node, |code, row| plus(&mut bins[code as usize], row)),
            },
            Codes::Wide(codes) => {
                each(codes, node, |code, row| plus(&mut bins[code as usize], row));
            }
        },
    );
}

/// Hands on every row of a node: its code and its lanes.
#[inline(always)]
fn each<const L: usize, C: Copy>(
    codes: &[C],
    node: Gathered<'_>,
    mut to: impl FnMut(C, &[f32; L]),
) {
    let values = node.values.as_chunks::<L>().0;
    match node.rows {
        Some(rows) => {
            for (row, value) in rows.iter().zip(values) {
                to(codes[*row as usize], value);
            }
        }
        None => {
            for (code, value) in codes.iter().zip(values) {
                to(*code, value);
            }
        }
    }
}

#[inline(always)]
pub(super) fn plus<const L: usize>(bin: &mut [f64; L], row: &[f32; L]) {
    for l in 0..L {
        bin[l] += f64::from(row[l]);
    }
}

fn add_quads<C: Copy + Into<usize>>(
    bins: &mut [f64],
    quads: usize,
    codes: &[C],
    node: Gathered<'_>,
) {
    let bins = bins.as_chunks_mut::<4>().0;
    let values = node.values.as_chunks::<4>().0;
    wide(
        #[inline(always)]
        || {
            for (i, value) in values.chunks_exact(quads).enumerate() {
                let row = node.rows.map_or(i, |rows| rows[i] as usize);
                let at: usize = codes[row].into();
                for (bin, value) in bins[at * quads..][..quads].iter_mut().zip(value) {
                    plus(bin, value);
                }
            }
        },
    );
}

/// Turns the bins of a parent into those of a child, given the other child's.
pub(super) fn subtract(parent: &mut [f64], child: &[f64]) {
    wide(
        #[inline(always)]
        || {
            for (p, c) in parent.iter_mut().zip(child) {
                *p -= c;
            }
        },
    );
}
