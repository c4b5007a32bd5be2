//! Tokens of one tokenizer beside those of another: sequences by dynamic programming, vocabularies by name.

use std::collections::HashMap;

use crate::text::{END, Text};

/// Letters that must be changed, put in or left out to make one text of the other (Levenshtein).
fn distance(a: &[char], b: &[char]) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut before = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let here = before + usize::from(x != y);
            before = row[j + 1];
            row[j + 1] = here.min(before + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

/// Tokens that one token of the other side may stand for.
const SPAN: usize = 16;

/// For each token of `target` the places in `source` that stand for it, rising. The two sequences are cut into pairs of one
/// token and a span of the other side (at most [`SPAN`] tokens), or of a token and nothing, so that the edit distances of
/// the pairs' texts have the smallest sum (dynamic programming; of equal ways the one with more single steps): equal
/// sequences are aligned place by place. A token whose pair has no source gets none. Cost: the product of the lengths, times
/// spans and letters where these could help.
#[must_use]
pub(super) fn align(target: &[String], source: &[String]) -> Vec<Vec<usize>> {
    let letters = |tokens: &[String]| -> Vec<Vec<char>> {
        tokens.iter().map(|t| t.chars().collect()).collect()
    };
    let (a, b) = (letters(target), letters(source));
    let (n, m) = (a.len(), b.len());
    let at = |i: usize, j: usize| i * (m + 1) + j;
    // By how many tokens of each side were paired: the sum, and the tokens of the last pair.
    let mut ways = vec![(0usize, (0usize, 0usize)); (n + 1) * (m + 1)];
    for i in 0..=n {
        for j in 0..=m {
            if i + j == 0 {
                continue;
            }
            let mut best = (usize::MAX, (0, 0));
            let mut offer = |step: (usize, usize), add: &dyn Fn() -> usize, least: usize| {
                let before = ways[at(i - step.0, j - step.1)].0;
                // No distance is smaller than the difference of the lengths.
                if before + least < best.0 {
                    let sum = before + add();
                    if sum < best.0 {
                        best = (sum, step);
                    }
                }
            };
            if i > 0 && j > 0 {
                let (x, y) = (&a[i - 1], &b[j - 1]);
                offer((1, 1), &|| distance(x, y), x.len().abs_diff(y.len()));
                let mut span = y.clone();
                for k in 2..=j.min(SPAN) {
                    span.splice(0..0, b[j - k].iter().copied());
                    let least = x.len().abs_diff(span.len());
                    offer((1, k), &|| distance(x, &span), least);
                }
                let mut span = x.clone();
                for k in 2..=i.min(SPAN) {
                    span.splice(0..0, a[i - k].iter().copied());
                    let least = y.len().abs_diff(span.len());
                    offer((k, 1), &|| distance(&span, y), least);
                }
            }
            if i > 0 {
                offer((1, 0), &|| a[i - 1].len(), a[i - 1].len());
            }
            if j > 0 {
                offer((0, 1), &|| b[j - 1].len(), b[j - 1].len());
            }
            ways[at(i, j)] = best;
        }
    }
    let mut found = vec![Vec::new(); n];
    let (mut i, mut j) = (n, m);
    while i + j > 0 {
        let (_, (rows, columns)) = ways[at(i, j)];
        for places in &mut found[i - rows..i] {
            places.extend(j - columns..j);
        }
        (i, j) = (i - rows, j - columns);
    }
    found
}

/// The text of a token where all tokenizers write it alike: marks of words are spaces, every token that ends a text is one.
pub(super) fn written(text: &Text, id: u32) -> String {
    if text.ends().contains(&id) {
        return END.to_owned();
    }
    let own = text.token(id).unwrap_or_default();
    own.replace(['Ġ', '▁'], " ").replace('Ċ', "\n")
}

/// Finds the entries of a vocabulary that stand for those of others.
pub(super) struct Vocabulary {
    exact: HashMap<String, u32>,
    /// Letters of every entry, by id.
    letters: Vec<Vec<char>>,
    found: HashMap<String, Option<u32>>,
}

impl Vocabulary {
    /// Of a tokenizer, its first `size` entries.
    pub(super) fn of(text: &Text, size: usize) -> Self {
        let entries: Vec<String> = (0..size as u32).map(|id| written(text, id)).collect();
        Self::named(&entries)
    }

    fn named(entries: &[String]) -> Self {
        let mut exact = HashMap::new();
        for (id, entry) in (0u32..).zip(entries) {
            if !entry.is_empty() {
                exact.entry(entry.clone()).or_insert(id);
            }
        }
        Self {
            exact,
            letters: entries.iter().map(|e| e.chars().collect()).collect(),
            found: HashMap::new(),
        }
    }

    /// The entry of the same text, else that of the smallest edit distance (the first of equals); none where not one letter
    /// would stay.
    pub(super) fn find(&mut self, entry: &str) -> Option<u32> {
        if let Some(id) = self.exact.get(entry) {
            return Some(*id);
        }
        if let Some(known) = self.found.get(entry) {
            return *known;
        }
        let own: Vec<char> = entry.chars().collect();
        let mut best: Option<(usize, u32)> = None;
        for (id, other) in (0u32..).zip(&self.letters) {
            let longer = own.len().max(other.len());
            let least = best.map_or(longer, |(d, _)| d);
            // No way is shorter than the difference of the lengths.
            if other.is_empty() || own.len().abs_diff(other.len()) >= least {
                continue;
            }
            let d = distance(&own, other);
            if d < longer && d < least {
                best = Some((d, id));
            }
        }
        let id = best.map(|(_, id)| id);
        self.found.insert(entry.to_owned(), id);
        id
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(list: &[&str]) -> Vec<String> {
        list.iter().map(|w| (*w).to_owned()).collect()
    }

    #[test]
    fn equal_sequences_are_aligned_place_by_place() {
        for list in [
            &["the", " cat", " sat"][..],
            &["a", "a", "a", "b", "a"],
            &["x"],
        ] {
            let tokens = words(list);
            let places: Vec<Vec<usize>> = (0..list.len()).map(|i| vec![i]).collect();
            assert_eq!(align(&tokens, &tokens), places);
        }
        let entries = words(&["a", "b", "ab", " a"]);
        let mut vocabulary = Vocabulary::named(&entries);
        for (id, entry) in (0u32..).zip(&entries) {
            assert_eq!(vocabulary.find(entry), Some(id));
        }
    }

    #[test]
    fn spans_stand_for_the_tokens_that_they_cover() {
        let one = words(&["the", " lower", " sky"]);
        let two = words(&["the", " low", "er", " sky"]);
        assert_eq!(align(&one, &two), [vec![0], vec![1, 2], vec![3]]);
        assert_eq!(align(&two, &one), [vec![0], vec![1], vec![1], vec![2]]);
        assert_eq!(align(&one, &[]), vec![Vec::<usize>::new(); 3]);
        // Letters of an answer belong to it, however near single ones are to what stands before.
        let whole = words(&["Kind", ":", " soft", END]);
        let apart = words(&["Ki", "nd", ":", " ", "s", "o", "f", "t", END]);
        let places = [vec![0, 1], vec![2], vec![3, 4, 5, 6, 7], vec![8]];
        assert_eq!(align(&whole, &apart), places);
        // What stands on one side alone is left out.
        assert_eq!(
            align(&one, &words(&["<s>", "the", " lower", " sky"])),
            [vec![1], vec![2], vec![3]]
        );
        assert_eq!(
            align(&words(&["<s>", "the"]), &words(&["the"])),
            [vec![], vec![0]]
        );
    }

    #[test]
    fn entries_are_found_by_text_then_by_distance() {
        assert_eq!(distance(&['a', 'b', 'c'], &['b', 'c', 'd']), 2);
        let mut vocabulary = Vocabulary::named(&words(&["cat", "cart", "zzz", ""]));
        assert_eq!(vocabulary.find("cat"), Some(0));
        assert_eq!(vocabulary.find("cars"), Some(1));
        // One letter off both: the first.
        assert_eq!(vocabulary.find("caat"), Some(0));
        assert_eq!(vocabulary.find("zzzz"), Some(2));
        assert_eq!(vocabulary.find("uvw"), None);
        assert_eq!(vocabulary.find(""), None);
    }
}
