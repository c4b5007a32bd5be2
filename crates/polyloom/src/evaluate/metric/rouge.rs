//! ROUGE (Lin 2004, "ROUGE: A Package for Automatic Evaluation of Summaries") as the package rouge-score counts it.
//!
//! Text is lower-cased and cut at everything but a to z and 0 to 9, so letters beyond ASCII separate tokens and text in
//! other scripts scores 0. A mean over examples is the plain mean; Hugging Face's `evaluate` prints the middle of a
//! bootstrap instead, which agrees to about 0.001.

use std::collections::BTreeMap;

use rayon::prelude::*;

use crate::evaluate::sum::Sum;
use crate::evaluate::text::{Clips, Map, Words, porter};
use crate::evaluate::{EvalError, Result};

/// What overlap is counted in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RougeKind {
    /// N-grams of one length, at least 1.
    N(usize),
    /// The longest common subsequence of the whole texts.
    L,
    /// Per line of the reference, the union of its longest common subsequences with the lines of the prediction
    /// (section 3.2 of the paper). Lines are split at newlines.
    Lsum,
}

/// Precision, recall and F1, each in [0, 1]; 0 where a side has nothing to count.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Overlap {
    /// Share of the prediction that the reference has.
    pub precision: f64,
    /// Share of the reference that the prediction has.
    pub recall: f64,
    /// Harmonic mean of the two.
    pub f1: f64,
}

impl Overlap {
    /// From the size of the overlap and of both sides.
    fn of(hits: u64, prediction: u64, reference: u64) -> Self {
        let share = |of: u64| hits as f64 / of.max(1) as f64;
        let (precision, recall) = (share(prediction), share(reference));
        let both = precision + recall;
        Self {
            precision,
            recall,
            f1: if both > 0.0 {
                2.0 * precision * recall / both
            } else {
                0.0
            },
        }
    }
}

/// Means of [`Overlap`]s; parts can be merged.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct OverlapMean {
    precision: Sum,
    recall: Sum,
    f1: Sum,
}

impl OverlapMean {
    /// Adds an example.
    pub fn add(&mut self, overlap: &Overlap) {
        self.precision.add(overlap.precision);
        self.recall.add(overlap.recall);
        self.f1.add(overlap.f1);
    }

    /// Adds the examples of another mean.
    pub fn merge(&mut self, other: &Self) {
        self.precision.merge(&other.precision);
        self.recall.merge(&other.recall);
        self.f1.merge(&other.f1);
    }

    /// The means of precision, recall and F1.
    ///
    /// # Errors
    /// No example was added.
    pub fn finish(&self) -> Result<Overlap> {
        if self.f1.count() == 0 {
            return Err(EvalError::Empty { what: "ROUGE" });
        }
        Ok(Overlap {
            precision: self.precision.mean(),
            recall: self.recall.mean(),
            f1: self.f1.mean(),
        })
    }
}

/// ROUGE of some kinds, with or without stems. Holds the tokens seen so far and working space, so use one for many
/// examples.
pub struct Rouge {
    kinds: Vec<RougeKind>,
    stem: bool,
    words: Words,
    clips: Clips,
    common: Common,
    token: String,
    prediction: Text,
    reference: Text,
}

/// Numbers of tokens, and where each line ends. An empty line is a line too.
#[derive(Default)]
struct Text {
    tokens: Vec<u32>,
    ends: Vec<usize>,
}

impl Text {
    fn lines(&self) -> impl Iterator<Item = &[u32]> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts
            .zip(&self.ends)
            .map(|(start, &end)| &self.tokens[start..end])
    }
}

impl Rouge {
    /// Counts `kinds`. With `stem`, tokens longer than three characters are replaced by their Porter stems.
    ///
    /// # Errors
    /// N-grams of length 0.
    pub fn new(kinds: &[RougeKind], stem: bool) -> Result<Self> {
        if kinds.contains(&RougeKind::N(0)) {
            return Err(EvalError::invalid("ROUGE-N", "n-grams of length 0"));
        }
        Ok(Self {
            kinds: kinds.to_vec(),
            stem,
            words: Words::default(),
            clips: Clips::default(),
            common: Common::default(),
            token: String::new(),
            prediction: Text::default(),
            reference: Text::default(),
        })
    }

    /// One overlap per kind, in the order given to [`Rouge::new`]. Empty texts score 0, also two of them. O(tokens) for
    /// n-grams, O(n·m/64) for L and Lsum.
    pub fn score(&mut self, prediction: &str, reference: &str) -> Vec<Overlap> {
        self.prediction = self.read(prediction, 0);
        self.against(reference)
    }

    /// As [`Rouge::score`] with several references: per kind the reference with the highest F1, the first of equals.
    ///
    /// # Errors
    /// No reference.
    pub fn score_best(&mut self, prediction: &str, references: &[&str]) -> Result<Vec<Overlap>> {
        self.prediction = self.read(prediction, 0);
        let mut references = references.iter();
        let first = references.next().ok_or(EvalError::Empty {
            what: "references for ROUGE",
        })?;
        let mut best = self.against(first);
        for reference in references {
            for (best, new) in best.iter_mut().zip(self.against(reference)) {
                if new.f1 > best.f1 {
                    *best = new;
                }
            }
        }
        Ok(best)
    }

    fn against(&mut self, reference: &str) -> Vec<Overlap> {
        self.reference = self.read(reference, 1);
        let longest = |kind: &RougeKind| match kind {
            RougeKind::N(n) => *n,
            _ => 0,
        };
        let order = self.kinds.iter().map(longest).max().unwrap_or(0);
        let (p, r) = (&self.prediction, &self.reference);
        let mut matches = vec![0; order.min(p.tokens.len())];
        self.clips.clear();
        self.clips.reference(&r.tokens, order);
        self.clips.matches(&p.tokens, &mut matches);
        let (n, m) = (p.tokens.len() as u64, r.tokens.len() as u64);
        let kinds = self.kinds.iter();
        kinds
            .map(|kind| match kind {
                RougeKind::N(order) => {
                    let grams = |tokens: u64| (tokens + 1).saturating_sub(*order as u64);
                    let hits = matches.get(order - 1).copied().unwrap_or(0);
                    Overlap::of(hits, grams(n), grams(m))
                }
                RougeKind::L => {
                    let hits = self.common.length(&p.tokens, &r.tokens);
                    Overlap::of(hits, n, m)
                }
                RougeKind::Lsum => Overlap::of(summary_hits(&mut self.common, p, r), n, m),
            })
            .collect()
    }

    /// Tokens of a text.
    fn read(&mut self, text: &str, side: usize) -> Text {
        let old = if side == 0 {
            &mut self.prediction
        } else {
            &mut self.reference
        };
        let mut out = std::mem::take(old);
        out.tokens.clear();
        out.ends.clear();
        for line in text.split('\n') {
            for c in line.chars() {
                if c.is_ascii() {
                    self.push(c.to_ascii_lowercase(), &mut out);
                } else {
                    // The Kelvin sign and the dotted capital I are the letters whose lower case is ASCII.
                    c.to_lowercase().for_each(|c| self.push(c, &mut out));
                }
            }
            self.push('\n', &mut out);
            out.ends.push(out.tokens.len());
        }
        out
    }

    /// Adds a character to the token, or ends the token.
    fn push(&mut self, c: char, out: &mut Text) {
        if c.is_ascii_alphanumeric() {
            self.token.push(c);
        } else if !self.token.is_empty() {
            out.tokens.push(if self.stem && self.token.len() > 3 {
                self.words.changed(&self.token, porter::stem)
            } else {
                self.words.id(&self.token)
            });
            self.token.clear();
        }
    }
}

/// ROUGE of many examples on all threads: per example one overlap per kind. The numbers do not depend on the threads.
///
/// # Errors
/// Lists of different lengths, an example without references, n-grams of length 0.
pub fn rouge(
    predictions: &[&str],
    references: &[Vec<&str>],
    kinds: &[RougeKind],
    stem: bool,
) -> Result<Vec<Vec<Overlap>>> {
    crate::evaluate::error::same_length("ROUGE", predictions.len(), references.len())?;
    Rouge::new(kinds, stem)?;
    predictions
        .par_iter()
        .zip(references)
        .with_min_len(256)
        .map_init(
            || Rouge::new(kinds, stem),
            |rouge, (prediction, references)| match rouge {
                Ok(rouge) => rouge.score_best(prediction, references),
                Err(problem) => Err(problem.clone()),
            },
        )
        .collect()
}

/// Hits of Lsum: tokens of the unions, each at most as often as both texts have it.
fn summary_hits(common: &mut Common, prediction: &Text, reference: &Text) -> u64 {
    let mut left = BTreeMap::<u32, (u64, u64)>::new();
    for token in &prediction.tokens {
        left.entry(*token).or_default().0 += 1;
    }
    for token in &reference.tokens {
        left.entry(*token).or_default().1 += 1;
    }
    let mut hits = 0;
    let mut union = Vec::new();
    for line in reference.lines() {
        union.clear();
        union.resize(line.len(), false);
        prediction
            .lines()
            .for_each(|ours| common.mark(ours, line, &mut union));
        for (token, _) in line.iter().zip(&union).filter(|(_, marked)| **marked) {
            if let Some((p, r)) = left.get_mut(token)
                && *p > 0
                && *r > 0
            {
                *p -= 1;
                *r -= 1;
                hits += 1;
            }
        }
    }
    hits
}

/// Longest common subsequences, 64 cells of the table at a time (Hyyrö 2004, "Bit-parallel LCS-length computation
/// revisited"). A row belongs to a token of the prediction; a zero bit at place i says that the longest common
/// subsequence with the first i + 1 tokens of the reference is one longer than with the first i.
#[derive(Default)]
struct Common {
    /// The distinct tokens of the reference, and where each stands.
    known: Map<u32, usize>,
    places: Vec<Vec<u32>>,
    /// Masks of the tokens that stand in the reference at least once per 64 tokens (of which there are at most 64).
    dense: Vec<Option<Vec<u64>>>,
    scratch: Vec<u64>,
    words: usize,
    rows: Vec<u64>,
}

/// Rows that are kept at most before the walk back computes them a second time, in words.
const KEPT: usize = 1 << 20;

impl Common {
    fn prepare(&mut self, reference: &[u32]) {
        self.words = reference.len().div_ceil(64);
        self.known.clear();
        self.places.iter_mut().for_each(Vec::clear);
        self.scratch.clear();
        self.scratch.resize(self.words, 0);
        for (i, token) in reference.iter().enumerate() {
            let next = self.known.len();
            let at = *self.known.entry(*token).or_insert(next);
            if at == self.places.len() {
                self.places.push(Vec::new());
            }
            self.places[at].push(i as u32);
        }
        self.dense.clear();
        for places in &self.places {
            self.dense.push((places.len() >= self.words).then(|| {
                let mut mask = vec![0; self.words];
                set(&mut mask, places);
                mask
            }));
        }
    }

    /// The row after `row`.
    fn step(&mut self, row: &mut [u64], token: u32) {
        let Some(&at) = self.known.get(&token) else {
            return;
        };
        if let Some(mask) = &self.dense[at] {
            return advance(row, mask);
        }
        let places = &self.places[at];
        set(&mut self.scratch, places);
        advance(row, &self.scratch);
        for place in places {
            self.scratch[*place as usize / 64] = 0;
        }
    }

    fn length(&mut self, prediction: &[u32], reference: &[u32]) -> u64 {
        self.prepare(reference);
        let mut row = std::mem::take(&mut self.rows);
        row.clear();
        row.resize(self.words, u64::MAX);
        for token in prediction {
            self.step(&mut row, *token);
        }
        let zeros: u64 = row.iter().map(|v| u64::from(v.count_zeros())).sum();
        self.rows = row;
        zeros
    }

    /// Marks the places of the reference in one longest common subsequence: the one that is found from the end, giving
    /// up a token of the prediction only where that loses nothing and giving up one of the reference does. Memory: that
    /// of the rows, or of the square root of their number twice, the rows being computed again.
    fn mark(&mut self, prediction: &[u32], reference: &[u32], marked: &mut [bool]) {
        let (n, words) = (prediction.len(), reference.len().div_ceil(64));
        let block = if n * words <= KEPT { n } else { n.isqrt() };
        self.mark_in_blocks(prediction, reference, marked, block.max(1));
    }

    fn mark_in_blocks(
        &mut self,
        prediction: &[u32],
        reference: &[u32],
        marked: &mut [bool],
        block: usize,
    ) {
        self.prepare(reference);
        let words = self.words;
        let mut row = vec![u64::MAX; words];
        let mut starts = Vec::new();
        for tokens in prediction.chunks(block) {
            starts.extend_from_slice(&row);
            if starts.len() / words.max(1) * block < prediction.len() {
                tokens.iter().for_each(|token| self.step(&mut row, *token));
            }
        }
        let mut rows = std::mem::take(&mut self.rows);
        let mut i = reference.len();
        for (part, tokens) in prediction.chunks(block).enumerate().rev() {
            rows.clear();
            rows.extend_from_slice(&starts[part * words..(part + 1) * words]);
            for (k, token) in tokens.iter().enumerate() {
                rows.extend_from_within(k * words..);
                self.step(&mut rows[(k + 1) * words..], *token);
            }
            let mut j = tokens.len();
            while i > 0 && j > 0 {
                if reference[i - 1] == tokens[j - 1] {
                    (i, j) = (i - 1, j - 1);
                    marked[i] = true;
                } else if (rows[j * words + (i - 1) / 64] >> ((i - 1) % 64)) & 1 == 0 {
                    j -= 1;
                } else {
                    i -= 1;
                }
            }
        }
        self.rows = rows;
    }
}

fn set(mask: &mut [u64], places: &[u32]) {
    for place in places {
        mask[*place as usize / 64] |= 1 << (place % 64);
    }
}

fn advance(row: &mut [u64], mask: &[u64]) {
    let mut carry = false;
    for (v, m) in row.iter_mut().zip(mask) {
        let u = *v & m;
        let (sum, over) = v.overflowing_add(u);
        let (sum, again) = sum.overflowing_add(u64::from(carry));
        carry = over | again;
        *v = sum | (*v & !u);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ALL: [RougeKind; 4] = [
        RougeKind::N(1),
        RougeKind::N(2),
        RougeKind::L,
        RougeKind::Lsum,
    ];

    #[test]
    fn by_hand() {
        let mut rouge = Rouge::new(&ALL, false).unwrap();
        let found = rouge.score("the cat sat", "The cat, then sat.");
        assert_eq!(found[0], Overlap::of(3, 3, 4));
        assert_eq!(found[1], Overlap::of(1, 2, 3));
        assert_eq!(found[2], Overlap::of(3, 3, 4));
        assert_eq!(found[0].recall, 0.75);
        assert_eq!(found[0].f1, 1.5 / 1.75);
        // Each line finds its own order; the whole texts share only one of the two pairs.
        let found = rouge.score("c d\na b", "a b\nc d");
        assert_eq!(found[2], Overlap::of(2, 4, 4));
        assert_eq!(found[3], Overlap::of(4, 4, 4));
        assert!(rouge.score("", "").iter().all(|o| o.f1 == 0.0));
        assert_eq!(rouge.score("K İ", "k i")[0].f1, 1.0);
        assert!(rouge.score_best("a", &[]).is_err());
        let best = rouge.score_best("a b", &["a", "b a", "a b"]).unwrap();
        assert!(best.iter().all(|o| o.f1 == 1.0));
        assert!(Rouge::new(&[RougeKind::N(0)], false).is_err());
    }

    #[test]
    fn stems_match() {
        let mut rouge = Rouge::new(&[RougeKind::N(1)], true).unwrap();
        assert_eq!(rouge.score("relational", "relate")[0].f1, 1.0);
        assert_eq!(rouge.score("dies", "die")[0].f1, 1.0);
        assert_eq!(rouge.score("was", "wa")[0].f1, 0.0);
    }

    #[test]
    fn lists_are_as_single_examples_in_their_order() {
        let texts: Vec<String> = (0..300)
            .map(|i| format!("w{} w{} w{}\nw{}", i % 7, i % 5, i % 3, i % 2))
            .collect();
        let predictions: Vec<&str> = texts.iter().map(String::as_str).collect();
        let references: Vec<Vec<&str>> = predictions.iter().rev().map(|t| vec![*t]).collect();
        let all = rouge(&predictions, &references, &ALL, false).unwrap();
        let mut one = Rouge::new(&ALL, false).unwrap();
        for ((found, p), r) in all.iter().zip(&predictions).zip(&references) {
            assert_eq!(*found, one.score(p, r[0]));
        }
        let mut halves = [OverlapMean::default(), OverlapMean::default()];
        let mut whole = OverlapMean::default();
        for (i, overlaps) in all.iter().enumerate() {
            halves[usize::from(i > 99)].add(&overlaps[0]);
            whole.add(&overlaps[0]);
        }
        let [mut left, right] = halves;
        left.merge(&right);
        assert_eq!(left.finish(), whole.finish());
        assert!(OverlapMean::default().finish().is_err());
        assert!(rouge(&predictions, &references[1..], &ALL, false).is_err());
    }

    /// The table itself, and the walk from its end.
    fn plain(prediction: &[u32], reference: &[u32]) -> (u64, Vec<bool>) {
        let mut table = vec![vec![0u64; prediction.len() + 1]; reference.len() + 1];
        for i in 1..=reference.len() {
            for j in 1..=prediction.len() {
                table[i][j] = if reference[i - 1] == prediction[j - 1] {
                    table[i - 1][j - 1] + 1
                } else {
                    table[i - 1][j].max(table[i][j - 1])
                };
            }
        }
        let (mut i, mut j) = (reference.len(), prediction.len());
        let length = table[i][j];
        let mut marked = vec![false; i];
        while i > 0 && j > 0 {
            if reference[i - 1] == prediction[j - 1] {
                (i, j) = (i - 1, j - 1);
                marked[i] = true;
            } else if table[i][j - 1] > table[i - 1][j] {
                j -= 1;
            } else {
                i -= 1;
            }
        }
        (length, marked)
    }

    proptest! {
        #[test]
        fn bits_are_the_table(
            prediction in prop::collection::vec(0u32..40, 0..150),
            reference in prop::collection::vec(0u32..40, 0..200),
        ) {
            let (length, places) = plain(&prediction, &reference);
            let mut common = Common::default();
            prop_assert_eq!(common.length(&prediction, &reference), length);
            for block in [1, 7, 200] {
                let mut marked = vec![false; reference.len()];
                common.mark_in_blocks(&prediction, &reference, &mut marked, block);
                prop_assert_eq!(&marked, &places);
            }
        }
    }
}
