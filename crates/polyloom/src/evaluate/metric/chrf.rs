//! chrF and chrF++ (Popović 2015 and 2017) as sacrebleu 2 computes them, 0 to 100.
//!
//! As BLEU, chrF is a number of a corpus: counts of segments are added, then scored.

use rayon::prelude::*;

use crate::evaluate::error::same_length;
use crate::evaluate::text::tokenize::{is_space, words};
use crate::evaluate::text::{Clips, Words};
use crate::evaluate::{EvalError, Result};

/// The most orders that can be asked for, of characters and words together.
pub const ORDERS: usize = 12;

/// How chrF is computed. The default is chrF2 of sacrebleu; `words: 2` makes it chrF++.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ChrfOptions {
    /// The longest n-gram of characters.
    pub chars: usize,
    /// The longest n-gram of words; 0 for none.
    pub words: usize,
    /// How much more recall weighs than precision.
    pub beta: f64,
    /// Lower-cases first.
    pub lowercase: bool,
    /// Keeps white space in the n-grams of characters.
    pub whitespace: bool,
    /// Takes the mean of the F-scores of all orders, an order that one side is too short for counting as 1e-16: as
    /// chrF++.py, NLTK and Moses. Otherwise precision and recall are averaged first, over the orders that both sides
    /// are long enough for.
    pub eps_smoothing: bool,
}

impl Default for ChrfOptions {
    fn default() -> Self {
        Self {
            chars: 6,
            words: 0,
            beta: 2.0,
            lowercase: false,
            whitespace: false,
            eps_smoothing: false,
        }
    }
}

/// Counts of a segment or of a corpus, by order: those of characters, then those of words. Those of parts add up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ChrfStats {
    /// N-grams of the system; none where the reference has none of that length.
    pub system: [u64; ORDERS],
    /// N-grams of the reference.
    pub reference: [u64; ORDERS],
    /// N-grams of the system that are matched.
    pub matched: [u64; ORDERS],
}

impl ChrfStats {
    /// Adds the counts of another part.
    pub fn merge(&mut self, other: &Self) {
        for n in 0..ORDERS {
            self.system[n] += other.system[n];
            self.reference[n] += other.reference[n];
            self.matched[n] += other.matched[n];
        }
    }
}

impl ChrfOptions {
    /// Refuses options that are not defined.
    ///
    /// # Errors
    /// No order or more than [`ORDERS`], a weight that is negative or not finite.
    pub fn check(&self) -> Result<()> {
        let orders = self.chars.saturating_add(self.words);
        if !(1..=ORDERS).contains(&orders) {
            let problem = format!("1 to {ORDERS} orders of characters and words, not {orders}");
            return Err(EvalError::invalid("chrF", problem));
        }
        if !(self.beta.is_finite() && self.beta >= 0.0) {
            let problem = format!("a weight of recall of {}", self.beta);
            return Err(EvalError::invalid("chrF", problem));
        }
        Ok(())
    }

    /// The score of counts.
    pub fn score(&self, stats: &ChrfStats) -> f64 {
        const EPS: f64 = 1e-16;
        let orders = self.chars.saturating_add(self.words).min(ORDERS);
        let weight = self.beta * self.beta;
        let f = |precision: f64, recall: f64| {
            let below = weight * precision + recall;
            (below > 0.0).then(|| (1.0 + weight) * precision * recall / below)
        };
        let (mut precisions, mut recalls, mut scores, mut counted) = (0.0, 0.0, 0.0, 0);
        for n in 0..orders {
            let (system, reference) = (stats.system[n], stats.reference[n]);
            let share = |of: u64| match of {
                0 => EPS,
                of => stats.matched[n] as f64 / of as f64,
            };
            let (precision, recall) = (share(system), share(reference));
            scores += f(precision, recall).unwrap_or(EPS);
            if system > 0 && reference > 0 {
                precisions += precision;
                recalls += recall;
                counted += 1;
            }
        }
        if self.eps_smoothing {
            return 100.0 * scores / orders as f64;
        }
        let counted = f64::from(counted.max(1));
        100.0 * f(precisions / counted, recalls / counted).unwrap_or(0.0)
    }

    /// What a reader needs to compute the same number, in the form of sacrebleu. `references` is the number of
    /// references per segment; none where it varies.
    pub fn signature(&self, references: Option<usize>) -> String {
        let nrefs = references.map_or("var".to_owned(), |n| n.to_string());
        let case = if self.lowercase { "lc" } else { "mixed" };
        let eff = if self.eps_smoothing { "no" } else { "yes" };
        let space = if self.whitespace { "yes" } else { "no" };
        let (nc, nw, version) = (self.chars, self.words, env!("CARGO_PKG_VERSION"));
        let beta = match self.beta {
            2.0 => String::new(),
            beta => format!("|beta:{beta}"),
        };
        format!(
            "nrefs:{nrefs}|case:{case}|eff:{eff}|nc:{nc}|nw:{nw}{beta}|space:{space}|version:polyloom-{version}"
        )
    }
}

/// Counts segments. Holds the words seen so far and working space, so use one for many segments.
pub struct Chrf {
    options: ChrfOptions,
    vocabulary: Words,
    clips: Clips,
    system: Text,
    reference: Text,
}

/// A text as characters and as words.
#[derive(Default)]
struct Text {
    chars: Vec<u32>,
    words: Vec<u32>,
}

impl Chrf {
    /// A counter with options.
    ///
    /// # Errors
    /// Options that [`ChrfOptions::check`] refuses.
    pub fn new(options: ChrfOptions) -> Result<Self> {
        options.check()?;
        Ok(Self {
            options,
            vocabulary: Words::default(),
            clips: Clips::default(),
            system: Text::default(),
            reference: Text::default(),
        })
    }

    /// Counts of one segment against the reference with the highest score, the first of equals. A reference that is
    /// missing is left out of the list. O(orders · characters) per reference.
    ///
    /// # Errors
    /// No reference at all.
    pub fn count(&mut self, system: &str, references: &[&str]) -> Result<ChrfStats> {
        let mut text = std::mem::take(&mut self.system);
        self.read(system, &mut text);
        self.system = text;
        let mut best: Option<(f64, ChrfStats)> = None;
        for reference in references {
            let stats = self.against(reference);
            let score = self.options.score(&stats);
            if best.as_ref().is_none_or(|(most, _)| score > *most) {
                best = Some((score, stats));
            }
        }
        best.map(|(_, stats)| stats).ok_or(EvalError::Empty {
            what: "references for chrF",
        })
    }

    fn against(&mut self, reference: &str) -> ChrfStats {
        let mut text = std::mem::take(&mut self.reference);
        self.read(reference, &mut text);
        let mut stats = ChrfStats::default();
        let ChrfOptions { chars, words, .. } = self.options;
        for (first, order, ours, theirs) in [
            (0, chars, &self.system.chars, &text.chars),
            (chars, words, &self.system.words, &text.words),
        ] {
            self.clips.clear();
            self.clips.reference(theirs, order);
            let matched = &mut stats.matched[first..first + order];
            self.clips.matches(ours, matched);
            for n in 0..order {
                let grams = theirs.len().saturating_sub(n);
                stats.reference[first + n] = grams as u64;
                if grams > 0 {
                    stats.system[first + n] = ours.len().saturating_sub(n) as u64;
                }
            }
        }
        self.reference = text;
        stats
    }

    fn read(&mut self, text: &str, to: &mut Text) {
        let lower;
        let text = if self.options.lowercase {
            lower = text.to_lowercase();
            &lower
        } else {
            text
        };
        to.chars.clear();
        to.words.clear();
        let keep = |c: &char| self.options.whitespace || !is_space(*c);
        to.chars.extend(text.chars().filter(keep).map(u32::from));
        if self.options.words == 0 {
            return;
        }
        for word in words(text) {
            let (begin, end) = apart(word);
            to.words.push(self.vocabulary.id(begin));
            if !end.is_empty() {
                to.words.push(self.vocabulary.id(end));
            }
        }
    }
}

/// A word without the punctuation mark at its end, and the mark; failing that, the mark at its start and the rest. Only
/// one mark of ASCII is taken off, as in chrF++.py.
fn apart(word: &str) -> (&str, &str) {
    let mark = |b: Option<&u8>| word.len() > 1 && b.is_some_and(u8::is_ascii_punctuation);
    let bytes = word.as_bytes();
    if mark(bytes.last()) {
        word.split_at(word.len() - 1)
    } else if mark(bytes.first()) {
        word.split_at(1)
    } else {
        (word, "")
    }
}

/// Counts of many segments, on all threads, in order. `references[i]` are those of segment i.
///
/// # Errors
/// Lists that are empty or of different lengths, a segment without references, options that are not defined.
pub fn chrf_counts(
    system: &[&str],
    references: &[Vec<&str>],
    options: ChrfOptions,
) -> Result<Vec<ChrfStats>> {
    same_length("chrF", system.len(), references.len())?;
    options.check()?;
    system
        .par_iter()
        .zip(references)
        .with_min_len(256)
        .map_init(
            || Chrf::new(options),
            |chrf, (system, references)| match chrf {
                Ok(chrf) => chrf.count(system, references),
                Err(problem) => Err(problem.clone()),
            },
        )
        .collect()
}

/// chrF of a corpus, with the counts that it is made of.
///
/// # Errors
/// As [`chrf_counts`].
pub fn chrf(
    system: &[&str],
    references: &[Vec<&str>],
    options: ChrfOptions,
) -> Result<(f64, ChrfStats)> {
    let mut whole = ChrfStats::default();
    for part in chrf_counts(system, references, options)? {
        whole.merge(&part);
    }
    Ok((options.score(&whole), whole))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn by_hand() {
        let options = ChrfOptions {
            chars: 2,
            ..ChrfOptions::default()
        };
        let mut chrf = Chrf::new(options).unwrap();
        let stats = chrf.count("a bc", &["ab d"]).unwrap();
        assert_eq!(stats.system[..2], [3, 2]);
        assert_eq!(stats.reference[..2], [3, 2]);
        assert_eq!(stats.matched[..2], [2, 1]);
        // Precision and recall are (2/3 + 1/2) / 2.
        assert!((options.score(&stats) - 100.0 * 7.0 / 12.0).abs() < 1e-12);
        // The reference has no pair, so those of the system do not count.
        let stats = chrf.count("ab", &["a"]).unwrap();
        assert_eq!(stats.system[..2], [2, 0]);
        assert!((options.score(&stats) - 100.0 * 2.5 / 3.0).abs() < 1e-12);
        assert_eq!(options.score(&chrf.count("", &[""]).unwrap()), 0.0);
        assert!(chrf.count("a", &[]).is_err());
        let best = chrf.count("ab", &["x", "ab", "ab"]).unwrap();
        assert_eq!(options.score(&best), 100.0);
    }

    #[test]
    fn words_lose_one_mark() {
        for (word, parts) in [
            ("(hi)", ("(hi", ")")),
            ("(hi", ("(", "hi")),
            ("!", ("!", "")),
            ("é!", ("é", "!")),
            ("hi", ("hi", "")),
        ] {
            assert_eq!(apart(word), parts);
        }
    }

    #[test]
    fn options_are_checked_and_signed() {
        let with = |chars, words, beta| ChrfOptions {
            chars,
            words,
            beta,
            ..ChrfOptions::default()
        };
        assert!(with(0, 0, 2.0).check().is_err());
        assert!(with(usize::MAX, 2, 2.0).check().is_err());
        assert!(with(6, 2, f64::NAN).check().is_err());
        assert!(chrf(&["a"], &[], with(6, 2, 2.0)).is_err());
        let signature = with(6, 2, 3.0).signature(None);
        assert!(signature.starts_with("nrefs:var|case:mixed|eff:yes|nc:6|nw:2|beta:3|space:no|"));
    }

    proptest! {
        #[test]
        fn halves_make_the_whole(
            texts in prop::collection::vec(("[a-c .é]{0,20}", "[a-c .é]{0,20}"), 1..30),
            cut in 0usize..30,
        ) {
            let options = ChrfOptions { words: 2, ..ChrfOptions::default() };
            let system: Vec<&str> = texts.iter().map(|t| t.0.as_str()).collect();
            let references: Vec<Vec<&str>> = texts.iter().map(|t| vec![t.1.as_str()]).collect();
            let counts = chrf_counts(&system, &references, options).unwrap();
            let cut = cut.min(counts.len());
            let mut whole = ChrfStats::default();
            counts[cut..].iter().chain(&counts[..cut]).for_each(|s| whole.merge(s));
            let (score, stats) = chrf(&system, &references, options).unwrap();
            prop_assert_eq!(whole, stats);
            prop_assert!((0.0..=100.0 + 1e-9).contains(&score));
        }
    }
}
