//! Rows as a model takes them, of fields as files have them.

use std::collections::HashMap;

use foldhash::fast::RandomState;
use polyloom::evaluate::board::score::examples::Field;
use polyloom::evaluate::statistics::special::normal_quantile;

use super::groups::Finder;
use super::{Preparation, Prepared, Row};

/// How near to 0 and 1 ranks come: at the ends a normal distribution has no end.
pub(crate) const EDGE: f64 = 1e-7;

/// Makes rows of one table.
pub struct RowReader<'a> {
    pub(super) preparation: &'a Preparation,
    /// Numbers of a row.
    pub(super) numbers: usize,
    /// Where each column stands among the fields.
    pub(super) places: Vec<Option<usize>>,
    pub(super) codes: Vec<Codes<'a>>,
    pub(super) finder: Option<Finder>,
}

/// Codes of a field of words.
#[derive(Default)]
pub(super) struct Codes<'a> {
    /// Words of up to fifteen bytes, whose bytes are the key: nothing else has to be looked at.
    short: HashMap<u128, u32, RandomState>,
    long: HashMap<&'a str, u32, RandomState>,
    /// That of rows without a word.
    missing: u32,
}

/// A word of up to fifteen bytes with its length.
fn packed(word: &str) -> Option<u128> {
    let mut key = [0; 16];
    key.get_mut(..word.len())?.copy_from_slice(word.as_bytes());
    key[15] = u8::try_from(word.len()).ok().filter(|n| *n < 16)?;
    Some(u128::from_le_bytes(key))
}

impl<'a> Codes<'a> {
    pub(super) fn of(column: &'a Prepared) -> Self {
        let mut codes = Self::default();
        if let Prepared::Words { words, .. } = column {
            for (word, code) in words.iter().zip(1..) {
                match word {
                    None => codes.missing = code,
                    Some(word) => match packed(word) {
                        Some(key) => _ = codes.short.insert(key, code),
                        None => _ = codes.long.insert(word, code),
                    },
                }
            }
        }
        codes
    }

    /// The code of a word, 0 for one that training rows did not have often enough.
    fn code(&self, word: &str) -> u32 {
        let code = match packed(word) {
            Some(key) => self.short.get(&key),
            None => self.long.get(word),
        };
        code.copied().unwrap_or(0)
    }
}

impl RowReader<'_> {
    /// A row of its fields.
    #[must_use]
    pub fn row<W: AsRef<str>>(&self, fields: &[Field<W>]) -> Row {
        let clip = self.preparation.clip;
        let mut row = Row {
            numbers: Vec::with_capacity(self.numbers),
            codes: Vec::with_capacity(self.places.len()),
            group: None,
        };
        let mut absent = Vec::new();
        let columns = self.preparation.columns.iter();
        for ((column, place), codes) in columns.zip(&self.places).zip(&self.codes) {
            let field = place
                .and_then(|at| fields.get(at))
                .unwrap_or(&Field::Missing);
            match (column, field) {
                (
                    Prepared::Number {
                        mean,
                        deviation,
                        landmarks,
                        missing,
                        ..
                    },
                    field,
                ) => {
                    let scaled = match field {
                        Field::Number(x) if landmarks.len() > 1 => {
                            let rank = rank(landmarks, *x).clamp(EDGE, 1.0 - EDGE);
                            normal_quantile(rank) as f32
                        }
                        Field::Number(x) => ((x - mean) / deviation) as f32,
                        _ => 0.0,
                    };
                    row.numbers.push(scaled.clamp(-clip, clip));
                    if *missing {
                        absent.push(f32::from(u8::from(!matches!(field, Field::Number(_)))));
                    }
                }
                (Prepared::Words { .. }, field) => {
                    row.codes.push(match field {
                        Field::Word(word) => codes.code(word.as_ref()),
                        Field::Number(_) | Field::Missing => codes.missing,
                    });
                }
            }
        }
        row.numbers.append(&mut absent);
        row.group = self.finder.as_ref().and_then(|f| f.group(fields));
        row
    }
}

/// Where a number stands among quantiles at even steps, 0 to 1; the middle of its place where several are equal to it.
pub(super) fn rank(landmarks: &[f64], x: f64) -> f64 {
    let steps = (landmarks.len() - 1) as f64;
    // Places of the first landmark that is not below, and of the first above.
    let (from, to) = (
        landmarks.partition_point(|l| *l < x),
        landmarks.partition_point(|l| *l <= x),
    );
    if from < to {
        return (from + to - 1) as f64 / 2.0 / steps;
    }
    match from {
        0 => 0.0,
        n if n == landmarks.len() => 1.0,
        n => {
            let (below, above) = (landmarks[n - 1], landmarks[n]);
            ((n - 1) as f64 + (x - below) / (above - below)) / steps
        }
    }
}
