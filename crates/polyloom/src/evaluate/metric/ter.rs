//! Translation edit rate (Snover et al. 2006) as sacrebleu 2 and tercom compute it: 0 for equal texts, 100 for as many
//! edits as the reference has words, more than 100 for even more.

use rayon::prelude::*;

use crate::evaluate::error::same_length;
use crate::evaluate::sum::Sum;
use crate::evaluate::text::Words;
use crate::evaluate::text::edits::edits;
use crate::evaluate::text::tokenize::{entities, is_space, western, words};
use crate::evaluate::{EvalError, Result};

/// How words are found. By default text is lower-cased and cut at white space.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TerOptions {
    /// Joins lines, replaces entities, sets punctuation apart; with `asian_support` also Chinese characters.
    pub normalized: bool,
    /// Drops punctuation; with `asian_support` also that of Asian languages.
    pub no_punct: bool,
    /// Knows Asian characters; without effect unless one of the above is set.
    pub asian_support: bool,
    /// Keeps upper case.
    pub case_sensitive: bool,
}

/// Counts of a segment or of a corpus. Those of parts add up to those of the whole.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct TerStats {
    /// Edits to the reference that needs the fewest: words put in, taken out, replaced, and blocks moved.
    pub edits: u64,
    /// Mean number of words of the references.
    pub reference: Sum,
}

impl TerStats {
    /// Adds the counts of another part.
    pub fn merge(&mut self, other: &Self) {
        self.edits += other.edits;
        self.reference.merge(&other.reference);
    }

    /// Edits per hundred words of the reference; 100 where the references are empty and the system text is not, 0 where
    /// both are.
    pub fn score(&self) -> f64 {
        let words = self.reference.total();
        if words > 0.0 {
            100.0 * self.edits as f64 / words
        } else if self.edits > 0 {
            100.0
        } else {
            0.0
        }
    }
}

impl TerOptions {
    /// What a reader needs to compute the same number, in the form of sacrebleu. `references` is the number of
    /// references per segment; none where it varies.
    pub fn signature(&self, references: Option<usize>) -> String {
        let nrefs = references.map_or("var".to_owned(), |n| n.to_string());
        let yes = |set: bool| if set { "yes" } else { "no" };
        let case = if self.case_sensitive { "mixed" } else { "lc" };
        format!(
            "nrefs:{nrefs}|case:{case}|tok:tercom|norm:{}|punct:{}|asian:{}|version:polyloom-{}",
            yes(self.normalized),
            yes(!self.no_punct),
            yes(self.asian_support),
            env!("CARGO_PKG_VERSION")
        )
    }

    /// The words of a text, apart by single spaces.
    pub fn words(&self, text: &str) -> String {
        let mut text = text.trim_end_matches(is_space).to_owned();
        if !self.case_sensitive {
            text = text.to_lowercase();
        }
        if self.normalized && !text.is_empty() {
            text = entities(&text.replace("\n-", "").replace('\n', " "));
            let mut line = format!(" {text} ").into_bytes();
            western(&mut line, &mut Vec::new(), |line| {
                let possessive = String::from_utf8_lossy(line).replace("'s ", " 's ");
                *line = possessive.into_bytes();
            });
            text = String::from_utf8_lossy(&line).into_owned();
            if self.asian_support {
                let mut apart = String::with_capacity(2 * text.len());
                for c in text.chars() {
                    if is_ideograph(c) || is_asian_mark(c) {
                        apart.extend([' ', c, ' ']);
                    } else {
                        apart.push(c);
                    }
                }
                text = apart;
            }
        }
        if self.no_punct {
            let mark = |c| matches!(c, '.' | ',' | '?' | ':' | ';' | '!' | '"' | '(' | ')');
            text.retain(|c| !(mark(c) || self.asian_support && is_asian_mark(c)));
        }
        let words: Vec<&str> = words(&text).collect();
        words.join(" ")
    }
}

fn is_ideograph(c: char) -> bool {
    matches!(c,
        '\u{2e80}'..='\u{2eff}'
        | '\u{31c0}'..='\u{31ef}'
        | '\u{3200}'..='\u{4dbf}'
        | '\u{4e00}'..='\u{9fff}'
        | '\u{f900}'..='\u{faff}'
        | '\u{fe30}'..='\u{fe4f}')
}

/// Punctuation of Asian languages, and the full-width forms of `. , ? : ; ! " ( )`.
fn is_asian_mark(c: char) -> bool {
    matches!(c,
        '\u{3001}' | '\u{3002}' | '\u{3008}'..='\u{3011}' | '\u{3014}'..='\u{301f}' | '\u{30fb}'
        | '\u{ff61}'..='\u{ff65}' | '\u{ff0e}' | '\u{ff0c}' | '\u{ff1f}' | '\u{ff1a}' | '\u{ff1b}'
        | '\u{ff01}' | '\u{ff02}' | '\u{ff08}' | '\u{ff09}')
}

/// Counts of one segment. A reference that is missing is left out of the list. Moves are searched greedily as tercom
/// does (blocks of up to 10 words, up to 50 words far, at most about 1,000 tried), so the edits are an upper bound of the
/// fewest possible. O(1,000 · words) for each reference.
///
/// # Errors
/// No reference at all.
pub fn ter_count(system: &str, references: &[&str], options: TerOptions) -> Result<TerStats> {
    let mut vocabulary = Words::default();
    let mut ids = |text: &str| -> Vec<u32> {
        let text = options.words(text);
        words(&text).map(|word| vocabulary.id(word)).collect()
    };
    let ours = ids(system);
    let mut length = 0;
    let mut fewest: Option<u64> = None;
    for reference in references {
        // sacrebleu runs its rules over references twice, which splits a few marks more.
        let theirs = ids(&options.words(reference));
        length += theirs.len();
        let found = edits(&ours, &theirs);
        fewest = Some(fewest.map_or(found, |n| n.min(found)));
    }
    let edits = fewest.ok_or(EvalError::Empty {
        what: "references for TER",
    })?;
    let mut reference = Sum::default();
    reference.add(length as f64 / references.len() as f64);
    Ok(TerStats { edits, reference })
}

/// Counts of many segments, on all threads, in order. `references[i]` are those of segment i.
///
/// # Errors
/// Lists that are empty or of different lengths, a segment without references.
pub fn ter_counts(
    system: &[&str],
    references: &[Vec<&str>],
    options: TerOptions,
) -> Result<Vec<TerStats>> {
    same_length("TER", system.len(), references.len())?;
    system
        .par_iter()
        .zip(references)
        .map(|(system, references)| ter_count(system, references, options))
        .collect()
}

/// TER of a corpus, with the counts that it is made of.
///
/// # Errors
/// As [`ter_counts`].
pub fn ter(
    system: &[&str],
    references: &[Vec<&str>],
    options: TerOptions,
) -> Result<(f64, TerStats)> {
    let mut whole = TerStats::default();
    for part in ter_counts(system, references, options)? {
        whole.merge(&part);
    }
    Ok((whole.score(), whole))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_hand() {
        let plain = TerOptions::default();
        let one = |system, references: &[&str]| ter_count(system, references, plain).unwrap();
        // One block moved.
        let found = one("d E a b c", &["a b c d e"]);
        assert_eq!((found.edits, found.score()), (1, 20.0));
        // The fewest edits, the mean length.
        let found = one("a b", &["a", "x y z"]);
        assert_eq!((found.edits, found.score()), (1, 50.0));
        assert_eq!(one("a", &[""]).score(), 100.0);
        assert_eq!(one("", &[""]).score(), 0.0);
        assert_eq!(one("", &["a b"]).score(), 100.0);
        assert!(ter_count("a", &[], plain).is_err());
        assert!(ter(&[], &[], plain).is_err());
        let (score, whole) = ter(&["a b", "c"], &[vec!["a"], vec!["c"]], plain).unwrap();
        assert_eq!((score, whole.edits), (50.0, 1));
    }

    #[test]
    fn words_by_options() {
        let all = TerOptions {
            normalized: true,
            asian_support: true,
            ..TerOptions::default()
        };
        assert_eq!(
            all.words("The dog's, 3.5\n(x) &amp; 東京。 "),
            "the dog's , 3.5 ( x ) & 東 京 。"
        );
        assert_eq!(all.words("Dog's tail-end 5-6"), "dog 's tail-end 5 - 6");
        let bare = TerOptions {
            no_punct: true,
            case_sensitive: true,
            ..TerOptions::default()
        };
        assert_eq!(bare.words("A, (b)! 。"), "A b 。");
        assert!(
            bare.signature(Some(2))
                .starts_with("nrefs:2|case:mixed|tok:tercom|norm:no|punct:no|asian:no")
        );
    }
}
