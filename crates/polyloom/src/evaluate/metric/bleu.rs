//! BLEU (Papineni et al. 2002) as sacrebleu 2 computes it (Post 2018), 0 to 100.
//!
//! BLEU is a number of a corpus, not a mean of numbers of segments: counts of segments are added, then scored. So the
//! counts of parts can be merged, and a bootstrap adds the counts of the segments that it draws.

use rayon::prelude::*;

use crate::evaluate::error::same_length;
use crate::evaluate::text::tokenize::{Cutter, Tokenizer};
use crate::evaluate::text::{Clips, Words};
use crate::evaluate::{EvalError, Result};

/// The longest n-gram that can be asked for.
pub const LONGEST: usize = 8;

/// What an order without a match counts as (Chen and Cherry 2014, "A Systematic Comparison of Smoothing Techniques for
/// Sentence-Level BLEU").
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub enum Smoothing {
    /// Zero, and with it the score.
    None,
    /// This many matches; 0.1 in the paper.
    Floor(f64),
    /// All orders but the first get this many matches and n-grams more; 1 in the paper. A score without any match at
    /// all stays 0.
    AddK(f64),
    /// The k-th order without a match gets 1/2^k matches, as in mteval-v13a.
    #[default]
    Exp,
}

/// How BLEU is computed. The default is that of sacrebleu.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BleuOptions {
    /// How text is cut into tokens.
    pub tokenizer: Tokenizer,
    /// Lower-cases before that.
    pub lowercase: bool,
    /// What orders without a match count as.
    pub smoothing: Smoothing,
    /// The longest n-gram, 1 to [`LONGEST`].
    pub order: usize,
    /// Takes the geometric mean over the orders that the system text is long enough for. For scores of single
    /// sentences, which would otherwise be 0 below four tokens.
    pub effective_order: bool,
}

impl Default for BleuOptions {
    fn default() -> Self {
        Self {
            tokenizer: Tokenizer::V13a,
            lowercase: false,
            smoothing: Smoothing::Exp,
            order: 4,
            effective_order: false,
        }
    }
}

/// Counts of a segment or of a corpus. Those of parts add up to those of the whole.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BleuStats {
    /// Tokens of the system.
    pub system: u64,
    /// Tokens of the reference that is nearest in length; of two, the shorter.
    pub reference: u64,
    /// N-grams of the system that are matched, by length from 1.
    pub matched: [u64; LONGEST],
    /// N-grams of the system.
    pub total: [u64; LONGEST],
}

impl BleuStats {
    /// Adds the counts of another part.
    pub fn merge(&mut self, other: &Self) {
        self.system += other.system;
        self.reference += other.reference;
        for n in 0..LONGEST {
            self.matched[n] += other.matched[n];
            self.total[n] += other.total[n];
        }
    }
}

/// A score with what it is made of.
#[derive(Debug, Clone, PartialEq)]
pub struct BleuScore {
    /// 0 to 100, up to rounding: a perfect corpus may score 100.00000000000004.
    pub score: f64,
    /// Brevity penalty, 0 to 1.
    pub brevity: f64,
    /// Per order, in percent, after smoothing.
    pub precisions: Vec<f64>,
    /// Per order; with [`Smoothing::AddK`] including what was added.
    pub matched: Vec<f64>,
    /// Per order, likewise.
    pub total: Vec<f64>,
}

impl BleuOptions {
    /// Refuses an order or a smoothing that is not defined.
    ///
    /// # Errors
    /// An order outside 1 to [`LONGEST`], a smoothing below 0 or not finite.
    pub fn check(&self) -> Result<()> {
        if !(1..=LONGEST).contains(&self.order) {
            let problem = format!("n-grams of length 1 to {LONGEST}, not {}", self.order);
            return Err(EvalError::invalid("BLEU", problem));
        }
        match self.smoothing {
            Smoothing::Floor(x) | Smoothing::AddK(x) if !(x.is_finite() && x >= 0.0) => {
                Err(EvalError::invalid("BLEU", format!("smoothing by {x}")))
            }
            _ => Ok(()),
        }
    }

    /// The score of counts: BP · exp(mean of ln p_n). 0 where nothing is matched, whatever the smoothing. Nothing beyond
    /// the order that was counted is looked at, so the options should be those of the counts.
    pub fn score(&self, stats: &BleuStats) -> BleuScore {
        let order = self.order.min(LONGEST);
        let float = |counts: &[u64; LONGEST]| counts[..order].iter().map(|&n| n as f64).collect();
        let mut matched: Vec<f64> = float(&stats.matched);
        let mut total: Vec<f64> = float(&stats.total);
        let mut precisions = vec![0.0; order];
        let brevity = if stats.system >= stats.reference {
            1.0
        } else if stats.system == 0 {
            0.0
        } else {
            (1.0 - stats.reference as f64 / stats.system as f64).exp()
        };
        let mut score = 0.0;
        if stats.matched[..order].iter().any(|&n| n > 0) {
            let mut counted = order;
            let mut halves = 1.0;
            for n in 0..order {
                if let Smoothing::AddK(k) = self.smoothing
                    && n > 0
                {
                    matched[n] += k;
                    total[n] += k;
                }
                if total[n] == 0.0 {
                    break;
                }
                if self.effective_order {
                    counted = n + 1;
                }
                let hits = match self.smoothing {
                    _ if matched[n] > 0.0 => matched[n],
                    Smoothing::Exp => {
                        halves *= 2.0;
                        1.0 / halves
                    }
                    Smoothing::Floor(hits) => hits,
                    _ => 0.0,
                };
                precisions[n] = 100.0 * hits / total[n];
            }
            let logs: f64 = precisions[..counted].iter().map(|p| p.ln()).sum();
            score = brevity * (logs / counted as f64).exp();
        }
        BleuScore {
            score,
            brevity,
            precisions,
            matched,
            total,
        }
    }

    /// What a reader needs to compute the same number, in the form of sacrebleu. `references` is the number of
    /// references per segment; none where it varies.
    pub fn signature(&self, references: Option<usize>) -> String {
        let nrefs = references.map_or("var".to_owned(), |n| n.to_string());
        let case = if self.lowercase { "lc" } else { "mixed" };
        let eff = if self.effective_order { "yes" } else { "no" };
        let smooth = match self.smoothing {
            Smoothing::None => "none".to_owned(),
            Smoothing::Floor(x) => format!("floor[{x:.2}]"),
            Smoothing::AddK(x) => format!("add-k[{x:.2}]"),
            Smoothing::Exp => "exp".to_owned(),
        };
        let order = match self.order {
            4 => String::new(),
            n => format!("|order:{n}"),
        };
        let (tok, version) = (self.tokenizer.name(), env!("CARGO_PKG_VERSION"));
        format!(
            "nrefs:{nrefs}|case:{case}|eff:{eff}|tok:{tok}|smooth:{smooth}{order}|version:polyloom-{version}"
        )
    }
}

/// Counts segments. Holds the tokens seen so far and working space, so use one for many segments.
pub struct Bleu {
    options: BleuOptions,
    cutter: Cutter,
    words: Words,
    clips: Clips,
    tokens: Vec<u32>,
}

impl Bleu {
    /// A counter with options.
    ///
    /// # Errors
    /// Options that [`BleuOptions::check`] refuses.
    pub fn new(options: BleuOptions) -> Result<Self> {
        options.check()?;
        Ok(Self {
            options,
            cutter: Cutter::default(),
            words: Words::default(),
            clips: Clips::default(),
            tokens: Vec::new(),
        })
    }

    fn cut(&mut self, text: &str) {
        self.tokens.clear();
        let sink = |token: &str| self.tokens.push(self.words.id(token));
        if self.options.lowercase {
            let text = text.to_lowercase();
            self.cutter.each(self.options.tokenizer, &text, sink);
        } else {
            self.cutter.each(self.options.tokenizer, text, sink);
        }
    }

    /// Counts of one segment; an n-gram is matched at most as often as it stands in the reference that has it most often.
    /// A reference that is missing is left out of the list, the others remain. O(order · tokens).
    ///
    /// # Errors
    /// No reference at all.
    pub fn count(&mut self, system: &str, references: &[&str]) -> Result<BleuStats> {
        if references.is_empty() {
            return Err(EvalError::Empty {
                what: "references for BLEU",
            });
        }
        let order = self.options.order;
        self.clips.clear();
        // The system text is cut last, so that the lengths wait for it.
        let mut lengths = Vec::with_capacity(references.len());
        for reference in references {
            self.cut(reference);
            lengths.push(self.tokens.len() as u64);
            self.clips.reference(&self.tokens, order);
        }
        self.cut(system);
        let length = self.tokens.len() as u64;
        let nearest = lengths.into_iter().min_by_key(|n| (n.abs_diff(length), *n));
        let mut stats = BleuStats {
            system: length,
            reference: nearest.unwrap_or(0),
            ..BleuStats::default()
        };
        for (n, total) in stats.total[..order].iter_mut().enumerate() {
            *total = length.saturating_sub(n as u64);
        }
        self.clips
            .matches(&self.tokens, &mut stats.matched[..order]);
        Ok(stats)
    }
}

/// Counts of many segments, on all threads, in order. `references[i]` are those of segment i.
///
/// # Errors
/// Lists that are empty or of different lengths, a segment without references, options that are not defined.
pub fn bleu_counts(
    system: &[&str],
    references: &[Vec<&str>],
    options: BleuOptions,
) -> Result<Vec<BleuStats>> {
    same_length("BLEU", system.len(), references.len())?;
    options.check()?;
    system
        .par_iter()
        .zip(references)
        .with_min_len(256)
        .map_init(
            || Bleu::new(options),
            |bleu, (system, references)| match bleu {
                Ok(bleu) => bleu.count(system, references),
                Err(problem) => Err(problem.clone()),
            },
        )
        .collect()
}

/// BLEU of a corpus, with the counts that it is made of.
///
/// # Errors
/// As [`bleu_counts`].
pub fn bleu(
    system: &[&str],
    references: &[Vec<&str>],
    options: BleuOptions,
) -> Result<(BleuScore, BleuStats)> {
    let mut whole = BleuStats::default();
    for part in bleu_counts(system, references, options)? {
        whole.merge(&part);
    }
    Ok((options.score(&whole), whole))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn one(options: BleuOptions, system: &str, references: &[&str]) -> BleuScore {
        let mut bleu = Bleu::new(options).unwrap();
        options.score(&bleu.count(system, references).unwrap())
    }

    #[test]
    fn by_hand() {
        let options = BleuOptions {
            smoothing: Smoothing::None,
            order: 2,
            ..BleuOptions::default()
        };
        // Three of four tokens, one of three pairs, five tokens in the reference.
        let found = one(options, "the cat the cat", &["the cat sat on the"]);
        assert_eq!(found.matched, [3.0, 1.0]);
        assert_eq!(found.precisions, [75.0, 100.0 / 3.0]);
        let expected = (-0.25f64).exp() * (0.75f64 / 3.0).sqrt() * 100.0;
        assert!((found.score - expected).abs() < 1e-10);
        // The nearest length, of two the shorter; the most matches over the references.
        let mut bleu = Bleu::new(options).unwrap();
        let stats = bleu.count("a a b", &["a a a a", "a b", "b"]).unwrap();
        assert_eq!((stats.reference, stats.matched[0]), (2, 3));
        assert!(bleu.count("a", &[]).is_err());
    }

    #[test]
    fn smoothing_of_missing_orders() {
        let score = |smoothing| {
            let options = BleuOptions {
                smoothing,
                ..BleuOptions::default()
            };
            one(options, "a b x d", &["a b c d"])
        };
        assert_eq!(score(Smoothing::None).score, 0.0);
        let exp = score(Smoothing::Exp);
        assert_eq!(exp.precisions, [75.0, 100.0 / 3.0, 25.0, 25.0]);
        let floor = score(Smoothing::Floor(0.5)).precisions;
        assert_eq!(floor[2..], [25.0, 50.0]);
        let add = score(Smoothing::AddK(1.0)).precisions;
        assert_eq!(add[1..], [50.0, 100.0 / 3.0, 50.0]);
        let none = one(BleuOptions::default(), "x", &["y"]);
        assert_eq!((none.score, none.brevity), (0.0, 1.0));
    }

    #[test]
    fn options_are_checked_and_signed() {
        for order in [0, 9] {
            let options = BleuOptions {
                order,
                ..BleuOptions::default()
            };
            assert!(Bleu::new(options).is_err());
        }
        let options = BleuOptions {
            smoothing: Smoothing::Floor(f64::NAN),
            ..BleuOptions::default()
        };
        assert!(options.check().is_err());
        let signature = BleuOptions::default().signature(Some(1));
        assert!(signature.starts_with("nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:"));
        assert!(bleu(&["a"], &[], BleuOptions::default()).is_err());
        assert!(bleu(&[], &[], BleuOptions::default()).is_err());
    }

    proptest! {
        #[test]
        fn halves_make_the_whole(
            texts in prop::collection::vec(("[a-c .]{0,20}", "[a-c .]{0,20}"), 1..40),
            cut in 0usize..40,
        ) {
            let system: Vec<&str> = texts.iter().map(|t| t.0.as_str()).collect();
            let references: Vec<Vec<&str>> = texts.iter().map(|t| vec![t.1.as_str()]).collect();
            let counts = bleu_counts(&system, &references, BleuOptions::default()).unwrap();
            let sum = |part: &[BleuStats]| {
                let mut sum = BleuStats::default();
                part.iter().for_each(|s| sum.merge(s));
                sum
            };
            let cut = cut.min(counts.len());
            let mut whole = sum(&counts[cut..]);
            whole.merge(&sum(&counts[..cut]));
            let (score, stats) = bleu(&system, &references, BleuOptions::default()).unwrap();
            prop_assert_eq!(whole, stats);
            prop_assert!((0.0..=100.0 + 1e-9).contains(&score.score));
        }
    }
}
