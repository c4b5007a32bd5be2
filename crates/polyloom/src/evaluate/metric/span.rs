//! Labelled stretches of a text: how many were found with the exact place and label, and how many were touched.

use crate::evaluate::error::{EvalError, Result};

/// A labelled stretch, `start..end` in Unicode scalar values of the text.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span {
    /// First character.
    pub start: u64,
    /// One beyond the last character.
    pub end: u64,
    /// Label.
    pub label: String,
}

/// Counts of an example or of many; those of parts add up to those of the whole.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SpanCounts {
    /// True spans.
    pub truth: u64,
    /// Predicted spans.
    pub predicted: u64,
    /// True spans that were predicted with the same place and label.
    pub exact: u64,
    /// True spans that share a character with a predicted one of the same label.
    pub found: u64,
    /// Predicted spans that share a character with a true one of the same label.
    pub touching: u64,
}

impl SpanCounts {
    /// Counts of one example. A span that stands twice on a side counts once.
    ///
    /// Cost: O(truth x predicted).
    ///
    /// # Errors
    /// A span that ends before it starts.
    pub fn of(truth: &[Span], predicted: &[Span]) -> Result<Self> {
        if let Some(bad) = truth.iter().chain(predicted).find(|s| s.end < s.start) {
            let problem = format!("`{}` goes from {} to {}", bad.label, bad.start, bad.end);
            return Err(EvalError::invalid("spans", problem));
        }
        let once = |spans: &[Span]| {
            let mut spans = spans.to_vec();
            spans.sort();
            spans.dedup();
            spans
        };
        let (truth, predicted) = (once(truth), once(predicted));
        let meets = |a: &Span, b: &Span| {
            a.label == b.label && (a == b || a.start < b.end && b.start < a.end)
        };
        let count = |of: &[Span], fits: &dyn Fn(&Span) -> bool| {
            of.iter().filter(|s| fits(s)).count() as u64
        };
        Ok(Self {
            truth: truth.len() as u64,
            predicted: predicted.len() as u64,
            exact: count(&truth, &|s| predicted.binary_search(s).is_ok()),
            found: count(&truth, &|s| predicted.iter().any(|p| meets(s, p))),
            touching: count(&predicted, &|p| truth.iter().any(|s| meets(s, p))),
        })
    }

    /// Adds the counts of another part.
    pub fn merge(&mut self, other: &Self) {
        self.truth += other.truth;
        self.predicted += other.predicted;
        self.exact += other.exact;
        self.found += other.found;
        self.touching += other.touching;
    }

    /// F1 of exact spans (`span_f1`): 2 exact / (truth + predicted); `NaN` where neither side has a span.
    ///
    /// Peer: `seqeval.metrics.f1_score`, which gives 0 there.
    pub fn f1(&self) -> f64 {
        2.0 * self.exact as f64 / (self.truth + self.predicted) as f64
    }

    /// F1 of touched spans (`span_f1_relaxed`): harmonic mean of touching / predicted and found / truth.
    pub fn relaxed_f1(&self) -> f64 {
        let share = |a: u64, b: u64| if b == 0 { 0.0 } else { a as f64 / b as f64 };
        if self.truth + self.predicted == 0 {
            return f64::NAN;
        }
        let (p, r) = (
            share(self.touching, self.predicted),
            share(self.found, self.truth),
        );
        if p + r == 0.0 {
            0.0
        } else {
            2.0 * p * r / (p + r)
        }
    }
}

/// The spans of BIO tags, in token numbers: `B-x` starts one, `I-x` after the same label goes on (and starts one
/// elsewhere, as seqeval's default reading has it).
pub fn bio(tags: &[String]) -> Vec<Span> {
    let mut spans: Vec<Span> = Vec::new();
    let mut open: Option<String> = None;
    for (i, tag) in tags.iter().enumerate() {
        let at = i as u64;
        let (kind, label) = match tag.split_once('-') {
            Some((kind, label)) => (kind, label.to_owned()),
            None => (&**tag, String::new()),
        };
        match kind {
            "I" | "E" if open.as_ref() == Some(&label) => {
                if let Some(last) = spans.last_mut() {
                    last.end = at + 1;
                }
            }
            "B" | "I" | "E" | "S" | "U" => {
                spans.push(Span {
                    start: at,
                    end: at + 1,
                    label: label.clone(),
                });
                open = Some(label);
                continue;
            }
            _ => open = None,
        }
    }
    spans
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(start: u64, end: u64, label: &str) -> Span {
        Span {
            start,
            end,
            label: label.into(),
        }
    }

    #[test]
    fn exact_and_touching() {
        let truth = [span(0, 4, "time"), span(10, 12, "people")];
        let predicted = [
            span(0, 4, "time"),
            span(11, 14, "people"),
            span(20, 22, "date"),
        ];
        let c = SpanCounts::of(&truth, &predicted).unwrap();
        assert_eq!((c.exact, c.found, c.touching), (1, 2, 2));
        assert!((c.f1() - 2.0 / 5.0).abs() < 1e-15);
        // P = 2/3, R = 1.
        assert!((c.relaxed_f1() - 0.8).abs() < 1e-15);
        assert!(SpanCounts::default().f1().is_nan());
        assert!(SpanCounts::of(&[span(3, 1, "x")], &[]).is_err());
    }

    #[test]
    fn halves_add_up() {
        let a = SpanCounts::of(&[span(0, 1, "x")], &[span(0, 1, "x")]).unwrap();
        let b = SpanCounts::of(&[span(0, 1, "x")], &[]).unwrap();
        let mut both = a;
        both.merge(&b);
        assert!((both.f1() - 2.0 / 3.0).abs() < 1e-15);
    }

    #[test]
    fn tags_become_spans() {
        let tags = ["B-per", "I-per", "O", "I-loc", "B-loc"].map(String::from);
        assert_eq!(
            bio(&tags),
            [span(0, 2, "per"), span(3, 4, "loc"), span(4, 5, "loc")]
        );
    }
}
