//! Rows sorted into the two sides of a split, in place.

use rayon::prelude::*;

/// Rows that a thread sorts at once.
const ROWS: usize = 1 << 13;

/// Puts rows whose code passes first, each side in the order in which it was, and says how many they are. `other` is as
/// long as `rows`; what it holds is lost.
pub(super) fn sides<C: Copy + Sync>(
    rows: &mut [u32],
    other: &mut [u32],
    codes: &[C],
    passes: impl Fn(C) -> bool + Sync,
) -> usize {
    // Both sides are written at every row and only the ends move: no branch to guess.
    let block = |(rows, other): (&mut [u32], &mut [u32])| {
        let (mut left, mut right) = (0, 0);
        for i in 0..rows.len() {
            let row = rows[i];
            let passed = passes(codes[row as usize]);
            rows[left] = row;
            other[right] = row;
            left += usize::from(passed);
            right += usize::from(!passed);
        }
        left
    };
    if rows.len() <= 2 * ROWS {
        let left = block((&mut *rows, &mut *other));
        let n = rows.len() - left;
        rows[left..].copy_from_slice(&other[..n]);
        return left;
    }
    let parts = rows.par_chunks_mut(ROWS).zip(other.par_chunks_mut(ROWS));
    let lefts: Vec<usize> = parts.map(block).collect();
    let mut at = 0;
    for (i, left) in lefts.iter().enumerate() {
        rows.copy_within(i * ROWS..i * ROWS + left, at);
        at += left;
    }
    let all = at;
    for (other, left) in other.chunks(ROWS).zip(&lefts) {
        let n = other.len() - left;
        rows[at..at + n].copy_from_slice(&other[..n]);
        at += n;
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_keep_their_order_over_blocks() {
        for n in [0usize, 1, 7, 2 * ROWS, 5 * ROWS + 13] {
            let codes: Vec<u8> = (0..n).map(|i| (i * i % 7) as u8).collect();
            let passes = [true, false, true, false, false, false, true];
            let mut rows: Vec<u32> = (0..n as u32).rev().collect();
            let goes = |row: &u32| passes[codes[*row as usize] as usize];
            let (left, right): (Vec<u32>, Vec<u32>) = rows.iter().partition(|r| goes(r));
            let passed = |code: u8| passes[code as usize];
            let count = sides(&mut rows, &mut vec![0; n], &codes, passed);
            assert_eq!(rows[..count], left);
            assert_eq!(rows[count..], right);
        }
    }
}
