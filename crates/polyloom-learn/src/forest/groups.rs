//! Columns that are summed in one pass over the rows of a node.
//!
//! The codes of a row stand side by side, so that a row costs one access to memory for all columns of its group, and the
//! bins of a group fit into the first cache. How columns are grouped changes no sum: each bin gets its rows in their order.

use polyloom_core::wide;
use rayon::prelude::*;

use super::bins::{Bins, Codes};
use super::histogram::{Gathered, NARROW, add, plus};

/// Most columns of a group, for rows of so many lanes: as many as 32 KiB of bins hold.
fn most(lanes: usize) -> usize {
    match lanes {
        2 => 8,
        4 => 4,
        _ => 1,
    }
}

/// Columns whose sums are made together.
#[derive(Debug)]
pub(super) struct Group {
    /// The columns, rising.
    pub columns: Vec<usize>,
    /// Numbers that the bins of a column take: room for [`NARROW`] bins at least, times lanes.
    pub stride: usize,
    /// Codes of all columns row by row; none where there is one column, whose own codes stand like that.
    packed: Vec<u8>,
}

impl Group {
    /// The columns that can be split, in groups. Columns of wide codes are alone, and so is every column where a row has
    /// many lanes.
    pub fn all(bins: &Bins, usable: &[bool], lanes: usize) -> Vec<Self> {
        let narrow = |c: &usize| matches!(bins.codes[*c], Codes::Narrow(_));
        let columns = (0..usable.len()).filter(|c| usable[*c]);
        let (narrow, wide): (Vec<usize>, Vec<usize>) = columns.partition(narrow);
        // The same for every thread, so that none waits for another.
        let count = narrow.len().div_ceil(most(lanes));
        let count = count.next_multiple_of(rayon::current_num_threads());
        let count = count.clamp(1, narrow.len().max(1));
        let bound = |i: usize| i * narrow.len() / count;
        let shared = (0..count).map(|i| narrow[bound(i)..bound(i + 1)].to_vec());
        let alone = wide.into_iter().map(|c| vec![c]);
        let groups: Vec<Vec<usize>> = shared.chain(alone).filter(|g| !g.is_empty()).collect();
        let group = |columns: Vec<usize>| Self {
            stride: columns
                .iter()
                .map(|c| (bins.cuts[*c].bins() + 1).max(NARROW) * lanes)
                .max()
                .unwrap_or(0),
            packed: pack(bins, &columns),
            columns,
        };
        groups.into_par_iter().map(group).collect()
    }

    /// Numbers that the bins of all columns take.
    pub fn len(&self) -> usize {
        self.columns.len() * self.stride
    }

    /// Adds the rows of a node to the bins of the columns, in the order of the rows.
    pub fn add(&self, out: &mut [f64], lanes: usize, bins: &Bins, node: Gathered<'_>) {
        match (lanes, &self.columns[..]) {
            (_, [column]) => add(out, lanes, &bins.codes[*column], node),
            (2, columns) => add_packed::<2>(out, columns.len(), &self.packed, node),
            (_, columns) => add_packed::<4>(out, columns.len(), &self.packed, node),
        }
    }
}

/// Codes of narrow columns, row by row.
fn pack(bins: &Bins, columns: &[usize]) -> Vec<u8> {
    if columns.len() < 2 {
        return Vec::new();
    }
    let mut packed = vec![0; bins.rows * columns.len()];
    for (i, column) in columns.iter().enumerate() {
        if let Codes::Narrow(codes) = &bins.codes[*column] {
            let to = packed[i..].iter_mut().step_by(columns.len());
            to.zip(codes).for_each(|(to, code)| *to = *code);
        }
    }
    packed
}

fn add_packed<const L: usize>(bins: &mut [f64], columns: usize, codes: &[u8], node: Gathered<'_>) {
    match columns {
        2 => add_columns::<L, 2>(bins, codes, node),
        3 => add_columns::<L, 3>(bins, codes, node),
        4 => add_columns::<L, 4>(bins, codes, node),
        5 => add_columns::<L, 5>(bins, codes, node),
        6 => add_columns::<L, 6>(bins, codes, node),
        7 => add_columns::<L, 7>(bins, codes, node),
        8 => add_columns::<L, 8>(bins, codes, node),
        _ => unreachable!("a group has at most 8 columns"),
    }
}

fn add_columns<const L: usize, const C: usize>(bins: &mut [f64], codes: &[u8], node: Gathered<'_>) {
    let bins = bins.as_chunks_mut::<L>().0;
    let bins = bins.as_chunks_mut::<NARROW>().0;
    let bins = bins.first_chunk_mut::<C>();
    let bins = bins.expect("a group has bins for its columns");
    let (codes, values) = (codes.as_chunks::<C>().0, node.values.as_chunks::<L>().0);
    wide(
        #[inline(always)]
        || {
            let mut row = |codes: &[u8; C], value: &[f32; L]| {
                for c in 0..C {
                    plus(&mut bins[c][codes[c] as usize], value);
                }
            };
            match node.rows {
                Some(rows) => {
                    for (at, value) in rows.iter().zip(values) {
                        row(&codes[*at as usize], value);
                    }
                }
                None => {
                    for (codes, value) in codes.iter().zip(values) {
                        row(codes, value);
                    }
                }
            }
        },
    );
}

#[cfg(test)]
mod tests {
    use super::super::bins::Cuts;
    use super::*;

    fn bins(columns: usize, rows: usize) -> Bins {
        let code = |c: usize, row: usize| ((row * (c + 3)) % (7 + c)) as u8;
        let column = |c: usize| Codes::Narrow((0..rows).map(|row| code(c, row)).collect());
        let cuts = |c: usize| (0..7 + c).map(|b| (b as f32, b as f32)).collect();
        Bins {
            rows,
            cuts: (0..columns).map(|c| Cuts::Number(cuts(c))).collect(),
            codes: (0..columns).map(column).collect(),
        }
    }

    #[test]
    fn groups_sum_what_columns_sum_alone() {
        let rows: Vec<u32> = (0..100).filter(|r| r % 3 != 1).collect();
        for (columns, lanes) in [(1, 2), (2, 2), (5, 2), (8, 2), (19, 2), (7, 4), (3, 8)] {
            let bins = bins(columns, 100);
            let mut usable = vec![true; columns];
            usable[columns / 2] = columns == 1;
            let values: Vec<f32> = (0..100 * lanes).map(|i| (i as f32).sin()).collect();
            let some = &values[..rows.len() * lanes];
            for (rows, values) in [(None, &values[..]), (Some(&rows[..]), some)] {
                let node = Gathered { rows, values };
                let mut seen = Vec::new();
                for group in Group::all(&bins, &usable, lanes) {
                    let mut sums = vec![0.0; group.len()];
                    group.add(&mut sums, lanes, &bins, node);
                    for (column, sums) in group.columns.iter().zip(sums.chunks(group.stride)) {
                        let mut alone = vec![0.0; group.stride];
                        add(&mut alone, lanes, &bins.codes[*column], node);
                        assert_eq!(sums, alone);
                        seen.push(*column);
                    }
                }
                let wanted = (0..columns).filter(|c| usable[*c]);
                assert_eq!(seen, wanted.collect::<Vec<_>>());
            }
        }
    }

    #[test]
    fn wide_columns_stay_alone() {
        let mut bins = bins(4, 9);
        bins.codes[1] = Codes::Wide(vec![0; 9]);
        let groups = Group::all(&bins, &[true; 4], 2);
        assert!(groups.iter().any(|g| g.columns == [1]));
        let all: usize = groups.iter().map(|g| g.columns.len()).sum();
        assert_eq!(all, 4);
    }
}
