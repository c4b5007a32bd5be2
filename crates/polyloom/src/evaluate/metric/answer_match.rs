//! Does a short answer equal one of the accepted ones: exact match, and the token F1 of SQuAD.

use regex::Regex;

use crate::evaluate::sum::Sum;
use crate::evaluate::{EvalError, Result};

/// An answer as SQuAD compares it (Rajpurkar et al. 2016, the official script): lower case, without ASCII punctuation,
/// without the articles a, an, the, white space squeezed to single spaces.
///
/// An article is one where letters, digits and underscores of any script end, as in Python's `\b`; after the
/// punctuation is gone, so that "the-cat" becomes "thecat" and keeps its article.
pub fn squad_normal_form(answer: &str) -> String {
    let mut text = String::with_capacity(answer.len());
    for c in answer.chars().filter(|c| !c.is_ascii_punctuation()) {
        if c.is_ascii() {
            text.push(c.to_ascii_lowercase());
        } else {
            text.extend(c.to_lowercase());
        }
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let is_word = |c: char| c.is_alphanumeric() || c == '_';
        let end = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        out.push_str(if matches!(word, "a" | "an" | "the") {
            " "
        } else {
            word
        });
        let next = after.find(is_word).unwrap_or(after.len());
        out.push_str(&after[..next]);
        rest = &after[next..];
    }
    let words: Vec<&str> = out.split_whitespace().collect();
    words.join(" ")
}

/// Exact match and token F1 of one answer, both 0 to 100.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Squad {
    /// 100 where the normal forms are equal, else 0.
    pub exact_match: f64,
    /// F1 of the multisets of tokens.
    pub f1: f64,
}

/// Compares an answer with the accepted ones; each number is the largest over them. Where either side has no token, F1
/// is 100 if both have none. O(tokens · log tokens) per accepted answer.
///
/// # Errors
/// No accepted answer.
pub fn squad(prediction: &str, accepted: &[&str]) -> Result<Squad> {
    if accepted.is_empty() {
        return Err(EvalError::Empty {
            what: "accepted answers",
        });
    }
    let ours = squad_normal_form(prediction);
    let mut our_tokens: Vec<&str> = ours.split_whitespace().collect();
    our_tokens.sort_unstable();
    let mut best = Squad::default();
    for answer in accepted {
        let theirs = squad_normal_form(answer);
        let mut their_tokens: Vec<&str> = theirs.split_whitespace().collect();
        their_tokens.sort_unstable();
        let f1 = 100.0 * multiset_f1(&our_tokens, &their_tokens);
        best.f1 = best.f1.max(f1);
        if ours == theirs {
            best.exact_match = 100.0;
        }
    }
    Ok(best)
}

/// F1 of two sorted lists with repeats.
fn multiset_f1(ours: &[&str], theirs: &[&str]) -> f64 {
    if ours.is_empty() || theirs.is_empty() {
        return f64::from(u8::from(ours.is_empty() && theirs.is_empty()));
    }
    let (mut i, mut j, mut same) = (0, 0, 0u32);
    while i < ours.len() && j < theirs.len() {
        let order = ours[i].cmp(theirs[j]);
        same += u32::from(order.is_eq());
        i += usize::from(order.is_le());
        j += usize::from(order.is_ge());
    }
    2.0 * f64::from(same) / (ours.len() + theirs.len()) as f64
}

/// Means of [`Squad`] over examples, 0 to 100; parts can be merged.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct SquadMean {
    exact_match: Sum,
    f1: Sum,
}

impl SquadMean {
    /// Adds an example.
    pub fn add(&mut self, example: Squad) {
        self.exact_match.add(example.exact_match);
        self.f1.add(example.f1);
    }

    /// Adds the examples of another mean.
    pub fn merge(&mut self, other: &Self) {
        self.exact_match.merge(&other.exact_match);
        self.f1.merge(&other.f1);
    }

    /// The means.
    ///
    /// # Errors
    /// No example was added.
    pub fn finish(&self) -> Result<Squad> {
        if self.f1.count() == 0 {
            return Err(EvalError::Empty { what: "SQuAD" });
        }
        Ok(Squad {
            exact_match: self.exact_match.mean(),
            f1: self.f1.mean(),
        })
    }
}

/// What [`exact_match`] disregards, applied in the order of the fields (`exact_match` of lm-evaluation-harness and of
/// Hugging Face's `evaluate`). Nothing by default: white space counts.
#[derive(Debug, Clone, Default)]
pub struct Disregard {
    /// Patterns whose matches are deleted first, one after the other.
    pub patterns: Vec<Regex>,
    /// Lower and upper case.
    pub case: bool,
    /// ASCII punctuation.
    pub punctuation: bool,
    /// The digits 0 to 9.
    pub digits: bool,
}

impl Disregard {
    fn apply(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for pattern in &self.patterns {
            text = pattern.replace_all(&text, "").into_owned();
        }
        if self.case {
            text = text.to_lowercase();
        }
        let punctuation = |c: char| self.punctuation && c.is_ascii_punctuation();
        let digit = |c: char| self.digits && c.is_ascii_digit();
        text.retain(|c| !punctuation(c) && !digit(c));
        text
    }
}

/// Are two texts equal after what is disregarded was taken out of both?
pub fn exact_match(prediction: &str, reference: &str, disregard: &Disregard) -> bool {
    disregard.apply(prediction) == disregard.apply(reference)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normal_forms() {
        for (answer, form) in [
            ("The  Cat!", "cat"),
            ("an apple\ta day", "apple day"),
            ("theatre", "theatre"),
            ("U.S.A.", "usa"),
            ("the-cat", "thecat"),
            ("élan a…b", "élan …b"),
            ("ÀA", "àa"),
            ("the", ""),
        ] {
            assert_eq!(squad_normal_form(answer), form);
        }
    }

    #[test]
    fn overlap_counts_repeats() {
        let found = squad("red red blue", &["red blue blue"]).unwrap();
        assert_eq!(found.exact_match, 0.0);
        assert!((found.f1 - 200.0 / 3.0).abs() < 1e-12);
        assert_eq!(squad("", &["a"]).unwrap().f1, 100.0);
        assert_eq!(squad("", &["b"]).unwrap().f1, 0.0);
        assert!(squad("x", &[]).is_err());
        let mut left = SquadMean::default();
        assert!(left.finish().is_err());
        left.add(found);
        let mut right = SquadMean::default();
        right.add(squad("b", &["B"]).unwrap());
        left.merge(&right);
        assert_eq!(left.finish().unwrap().exact_match, 50.0);
    }

    #[test]
    fn what_is_disregarded() {
        let plain = Disregard::default();
        assert!(exact_match("A", "A", &plain) && !exact_match("A", "a", &plain));
        let all = Disregard {
            patterns: vec![Regex::new(r"\s+").unwrap()],
            case: true,
            punctuation: true,
            digits: true,
        };
        assert!(exact_match("Answer: No. 42", "answer no", &all));
    }
}
