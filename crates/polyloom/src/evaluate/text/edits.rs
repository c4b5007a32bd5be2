//! Edits between two lists of words, where moving a block of words is one edit (tercom's search).

/// The longest block that is moved, and how far.
const LONGEST_BLOCK: usize = 10;
const FARTHEST: usize = 50;
/// Half the width of the band of the table in which the edit distance is searched.
const BEAM: usize = 25;
/// Moves that are tried for one pair of texts before the search ends.
const MOVES: usize = 1000;

const NEVER: u32 = u32::MAX / 2;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Edit {
    Keep,
    Replace,
    /// A word of the first text is dropped.
    Drop,
    /// A word of the second text is put in.
    Insert,
    Unknown,
}

/// Edits that turn `ours` into `theirs`: moves are made one at a time, always the one after which the fewest words are
/// to be edited, as long as it saves more than none.
pub(crate) fn edits(ours: &[u32], theirs: &[u32]) -> u64 {
    if theirs.is_empty() {
        return ours.len() as u64;
    }
    let mut table = Table::new(ours.len(), theirs);
    let mut words = ours.to_vec();
    let (mut moves, mut tried) = (0, 0);
    loop {
        table.fill(&words);
        let Some((saved, moved)) = best_move(&table, &words, &mut tried) else {
            break;
        };
        if tried >= MOVES || saved <= 0 {
            break;
        }
        moves += 1;
        words = moved;
    }
    moves + u64::from(table.distance())
}

/// The table of the edit distance, in a band about its diagonal. Row i belongs to the first i words of ours.
struct Table<'a> {
    theirs: &'a [u32],
    bands: Vec<(usize, usize)>,
    rows: Vec<Vec<(u32, Edit)>>,
}

impl<'a> Table<'a> {
    fn new(ours: usize, theirs: &'a [u32]) -> Self {
        let ratio = if ours == 0 {
            1.0
        } else {
            theirs.len() as f64 / ours as f64
        };
        let beam = if (BEAM as f64) < ratio / 2.0 {
            (ratio / 2.0 + BEAM as f64).ceil() as usize
        } else {
            BEAM
        };
        let mut bands = vec![(0, theirs.len() + 1)];
        for i in 1..=ours {
            let middle = (i as f64 * ratio).floor() as usize;
            let end = if i == ours {
                theirs.len() + 1
            } else {
                (theirs.len() + 1).min(middle + beam)
            };
            bands.push((middle.saturating_sub(beam), end));
        }
        let first = (0..=theirs.len()).map(|j| (j as u32, Edit::Insert));
        let mut rows = vec![first.collect()];
        rows.resize(ours + 1, Vec::new());
        Self {
            theirs,
            bands,
            rows,
        }
    }

    fn cell(&self, i: usize, j: usize) -> (u32, Edit) {
        let place = j.checked_sub(self.bands[i].0);
        let found = place.and_then(|p| self.rows[i].get(p));
        found.copied().unwrap_or((NEVER, Edit::Unknown))
    }

    /// Row i from row i − 1. At equal cost a word is kept or replaced rather than dropped, and dropped rather than put
    /// in.
    fn row(&self, i: usize, word: u32, above: &[(u32, Edit)], out: &mut Vec<(u32, Edit)>) {
        let (start, end) = self.bands[i];
        let before = self.bands[i - 1].0;
        let cost_above = |j: usize| {
            let found = j.checked_sub(before).and_then(|p| above.get(p));
            found.map_or(NEVER, |cell| cell.0)
        };
        out.clear();
        let mut left = NEVER;
        let mut corner = start.checked_sub(1).map_or(NEVER, cost_above);
        for j in start..end {
            let up = cost_above(j);
            let mut best = (NEVER, Edit::Unknown);
            if j > 0 {
                let same = word == self.theirs[j - 1];
                let edit = if same { Edit::Keep } else { Edit::Replace };
                best = best.min_by_cost(corner + u32::from(!same), edit);
            }
            best = best.min_by_cost(up + 1, Edit::Drop);
            if j > 0 {
                best = best.min_by_cost(left + 1, Edit::Insert);
            }
            out.push(best);
            left = best.0;
            corner = up;
        }
    }

    fn fill(&mut self, words: &[u32]) {
        for (i, word) in words.iter().enumerate() {
            let mut row = std::mem::take(&mut self.rows[i + 1]);
            self.row(i + 1, *word, &self.rows[i], &mut row);
            self.rows[i + 1] = row;
        }
    }

    fn distance(&self) -> u32 {
        self.cell(self.rows.len() - 1, self.theirs.len()).0
    }

    /// The distance of words that begin as those of the table do, up to `same`.
    fn trial(&self, words: &[u32], same: usize, spare: &mut [Vec<(u32, Edit)>; 2]) -> u32 {
        let [above, row] = spare;
        above.clear();
        above.extend_from_slice(&self.rows[same]);
        for (i, word) in words.iter().enumerate().skip(same) {
            self.row(i + 1, *word, above, row);
            std::mem::swap(above, row);
        }
        let place = self.theirs.len() - self.bands[words.len()].0;
        above.get(place).map_or(NEVER, |cell| cell.0)
    }

    fn alignment(&self) -> Alignment {
        let (mut i, mut j) = (self.rows.len() - 1, self.theirs.len());
        let mut path = Vec::with_capacity(i + j);
        while i > 0 || j > 0 {
            let edit = self.cell(i, j).1;
            path.push(edit);
            i -= usize::from(edit != Edit::Insert && i > 0);
            j -= usize::from(edit != Edit::Drop && j > 0);
        }
        let mut found = Alignment::default();
        for edit in path.into_iter().rev() {
            let wrong = edit != Edit::Keep;
            if edit != Edit::Insert {
                found.wrong_ours.push(wrong);
            }
            if edit != Edit::Drop {
                found.wrong_theirs.push(wrong);
                found.after.push(found.wrong_ours.len());
            }
        }
        found
    }
}

trait Cheaper {
    fn min_by_cost(self, cost: u32, edit: Edit) -> Self;
}

impl Cheaper for (u32, Edit) {
    fn min_by_cost(self, cost: u32, edit: Edit) -> Self {
        if cost < self.0 { (cost, edit) } else { self }
    }
}

/// What the edits say about each word.
#[derive(Default)]
struct Alignment {
    /// Per word of theirs: how many words of ours are used up with it. Its own word of ours is the last of them, or none
    /// if that is 0.
    after: Vec<usize>,
    wrong_theirs: Vec<bool>,
    wrong_ours: Vec<bool>,
}

/// The move that saves the most edits, and what is left after it: among equals the longest block, then the earliest
/// one, then the earliest target.
fn best_move(table: &Table<'_>, words: &[u32], tried: &mut usize) -> Option<(i64, Vec<u32>)> {
    let now = i64::from(table.distance());
    let Alignment {
        after,
        wrong_theirs,
        wrong_ours,
    } = table.alignment();
    let mut best = None;
    let mut moved = Vec::with_capacity(words.len());
    let mut spare = [Vec::new(), Vec::new()];
    'search: for start in 0..words.len() {
        let near = start.saturating_sub(FARTHEST)..table.theirs.len().min(start + FARTHEST + 1);
        for target in near {
            let same = words[start..].iter().zip(&table.theirs[target..]);
            let longest = same.take(LONGEST_BLOCK).take_while(|(a, b)| a == b).count();
            for length in 1..=longest {
                // The block must be wrong where it is, and something wrong where it goes, elsewhere.
                if !wrong_ours[start..start + length].contains(&true)
                    || !wrong_theirs[target..target + length].contains(&true)
                    || (start + 1..=start + length).contains(&after[target])
                {
                    continue;
                }
                let mut before = None;
                for place in target..=target + length {
                    // Before the target, then after each of the words there.
                    let to = match place.checked_sub(1) {
                        None => 0,
                        Some(place) => match after.get(place) {
                            Some(to) => *to,
                            None => break,
                        },
                    };
                    if before == Some(to) {
                        continue;
                    }
                    before = Some(to);
                    shift(words, start, length, to, &mut moved);
                    let same = start.min(to);
                    let saved = now - i64::from(table.trial(&moved, same, &mut spare));
                    *tried += 1;
                    let key = (saved, length, !start, !to);
                    if best.as_ref().is_none_or(|(most, _)| key > *most) {
                        best = Some((key, moved.clone()));
                    }
                }
                if *tried >= MOVES {
                    break 'search;
                }
            }
        }
    }
    best.map(|((saved, ..), moved)| (saved, moved))
}

/// Moves the block `start..start + length` before the word at `to`; to a place within itself, it goes on by as many words.
fn shift(words: &[u32], start: usize, length: usize, to: usize, out: &mut Vec<u32>) {
    out.clear();
    let end = start + length;
    let block = &words[start..end];
    if to < start {
        for part in [&words[..to], block, &words[to..start], &words[end..]] {
            out.extend_from_slice(part);
        }
    } else {
        let until = if to > end { to } else { to + length };
        let until = until.min(words.len());
        for part in [&words[..start], &words[end..until], block, &words[until..]] {
            out.extend_from_slice(part);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moves_are_one_edit() {
        assert_eq!(edits(&[1, 2, 3], &[1, 2, 3]), 0);
        assert_eq!(edits(&[4, 5, 1, 2, 3], &[1, 2, 3, 4, 5]), 1);
        assert_eq!(edits(&[1, 2, 3], &[3, 2, 1]), 2);
        assert_eq!(edits(&[1, 9, 3], &[1, 2, 3, 4]), 2);
        assert_eq!(edits(&[], &[1, 2]), 2);
        assert_eq!(edits(&[1, 2], &[]), 2);
        assert_eq!(edits(&[7], &[1; 300]), 300);
    }

    #[test]
    fn blocks_go_where_they_are_sent() {
        let mut out = Vec::new();
        for (start, length, to, expected) in [
            (2, 2, 0, [3, 4, 1, 2, 5]),
            (0, 2, 4, [3, 4, 1, 2, 5]),
            (0, 2, 5, [3, 4, 5, 1, 2]),
            (1, 2, 1, [1, 2, 3, 4, 5]),
            (1, 2, 3, [1, 4, 5, 2, 3]),
        ] {
            shift(&[1, 2, 3, 4, 5], start, length, to, &mut out);
            assert_eq!(out, expected, "{start} {length} {to}");
        }
    }
}
