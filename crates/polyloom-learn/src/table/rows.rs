//! Rows as a model takes them, of fields as files have them.

use std::collections::HashMap;

use foldhash::fast::RandomState;
use polyloom::evaluate::board::score::examples::Field;
use polyloom::evaluate::statistics::special::normal_quantile;

use super::groups::Finder;
use super::{Preparation, Prepared, Row, texts};
use crate::error::{Error, Result};

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

/// Codes of a field of words. Short words are looked up by their bytes as a number: nothing else has to be fetched from memory,
/// and the tables of many fields stay small.
#[derive(Default)]
pub(super) struct Codes<'a> {
    /// Words of up to eight bytes.
    tiny: HashMap<u64, u32, RandomState>,
    /// Of up to fifteen.
    short: HashMap<u128, u32, RandomState>,
    long: HashMap<&'a str, u32, RandomState>,
    /// That of rows without a word.
    missing: u32,
}

/// A word as a number.
enum Packed {
    Tiny(u64),
    Short(u128),
    Long,
}

fn packed(word: &str) -> Packed {
    let bytes = word.as_bytes();
    match bytes.len() {
        // Zeros fill up: a word that ends with one is told by its length.
        0..=8 if bytes.last() != Some(&0) => {
            let mut key = [0; 8];
            key[..bytes.len()].copy_from_slice(bytes);
            Packed::Tiny(u64::from_le_bytes(key))
        }
        n @ 0..=15 => {
            let mut key = [0; 16];
            key[..n].copy_from_slice(bytes);
            key[15] = n as u8;
            Packed::Short(u128::from_le_bytes(key))
        }
        _ => Packed::Long,
    }
}

impl<'a> Codes<'a> {
    pub(super) fn of(column: &'a Prepared) -> Self {
        let mut codes = Self::default();
        if let Prepared::Words { words, .. } = column {
            for (word, code) in words.iter().zip(1..) {
                let Some(word) = word else {
                    codes.missing = code;
                    continue;
                };
                match packed(word) {
                    Packed::Tiny(key) => _ = codes.tiny.insert(key, code),
                    Packed::Short(key) => _ = codes.short.insert(key, code),
                    Packed::Long => _ = codes.long.insert(word, code),
                }
            }
        }
        codes
    }

    /// That of rows without a word.
    pub(super) fn missing(&self) -> u32 {
        self.missing
    }

    /// The code of a word, 0 for one that training rows did not have often enough.
    pub(super) fn code(&self, word: &str) -> u32 {
        let code = match packed(word) {
            Packed::Tiny(key) => self.tiny.get(&key),
            Packed::Short(key) => self.short.get(&key),
            Packed::Long => self.long.get(word),
        };
        code.copied().unwrap_or(0)
    }
}

impl RowReader<'_> {
    /// A row of its fields.
    ///
    /// # Errors
    /// What the encoder of texts refuses, where there is one.
    pub fn row<W: AsRef<str>>(&self, fields: &[Field<W>]) -> Result<Row> {
        let field = |place: usize, _| Ok(fields.get(place).map_or(Field::Missing, Field::lent));
        let mut rows = self.rows(1, field, |e| e)?;
        Ok(rows.pop().unwrap_or_default())
    }

    /// Rows, of what `field` says that stands at a place of the columns and in a row. It is asked column by column: what a
    /// column is looked up in stays at hand.
    ///
    /// # Errors
    /// What `field` says of the first row of which it says an error; what the encoder of texts refuses, as `refused` says it.
    pub fn rows<W: AsRef<str>, E>(
        &self,
        count: usize,
        field: impl Fn(usize, usize) -> std::result::Result<Field<W>, E>,
        refused: impl Fn(Error) -> E,
    ) -> std::result::Result<Vec<Row>, E> {
        let preparation = self.preparation;
        let words = |c: &&Prepared| matches!(c, Prepared::Words { .. });
        let blank = Row {
            numbers: vec![0.0; self.numbers],
            codes: vec![0; preparation.columns.iter().filter(words).count()],
            group: None,
            before: None,
        };
        let mut rows = vec![blank; count];
        let mut failed = None;
        // Rows behind the first error are not looked at.
        let mut each = |place: Option<usize>, put: &mut dyn FnMut(&mut Row, &Field<W>)| {
            let upto = rows.len();
            for at in 0..upto {
                let found = match place {
                    Some(place) => field(place, at),
                    None => Ok(Field::Missing),
                };
                match found {
                    Ok(found) => put(&mut rows[at], &found),
                    Err(error) => {
                        failed = Some(error);
                        rows.truncate(at);
                        break;
                    }
                }
            }
        };
        let [mut number, mut text, mut absent] = preparation.starts();
        let mut code = 0;
        let columns = preparation.columns.iter();
        for ((column, place), codes) in columns.zip(&self.places).zip(&self.codes) {
            let told = column.is_marked().then_some(absent);
            match column {
                Prepared::Number {
                    mean,
                    deviation,
                    landmarks,
                    ..
                } => {
                    let scale = Scale {
                        mean: *mean,
                        deviation: *deviation,
                        landmarks,
                        clip: preparation.clip,
                    };
                    each(*place, &mut |row, field| match (field, told) {
                        (Field::Number(x), _) => row.numbers[number] = scale.scaled(*x),
                        (_, Some(told)) => row.numbers[told] = 1.0,
                        (_, None) => {}
                    });
                    number += 1;
                }
                Prepared::Words { .. } => {
                    each(*place, &mut |row, field| {
                        row.codes[code] = match (field, told) {
                            (Field::Word(word), _) => codes.code(word.as_ref()),
                            (_, Some(told)) => {
                                row.numbers[told] = 1.0;
                                codes.missing
                            }
                            (_, None) => codes.missing,
                        };
                    });
                    code += 1;
                }
                Prepared::Text { weights, .. } => {
                    let range = text..text + weights.len();
                    each(*place, &mut |row, field| match (field, told) {
                        (Field::Word(said), _) => {
                            texts::put(said.as_ref(), weights, &mut row.numbers[range.clone()]);
                        }
                        (_, Some(told)) => row.numbers[told] = 1.0,
                        (_, None) => {}
                    });
                    text += weights.len();
                }
                Prepared::Vector { width, .. } => {
                    let mut said = Vec::new();
                    each(*place, &mut |_, field| {
                        if let Field::Word(word) = field {
                            said.push(word.as_ref().to_owned());
                        }
                    });
                    let texts: Vec<&str> = said.iter().map(String::as_str).collect();
                    let vectors = match (&preparation.encoder, &texts[..]) {
                        (None, _) | (_, []) => Vec::new(),
                        (Some(encoder), texts) => encoder.vectors(texts).map_err(&refused)?,
                    };
                    let range = text..text + width;
                    let mut vectors = vectors.chunks_exact(*width);
                    each(*place, &mut |row, field| match (field, told) {
                        (Field::Word(_), _) => {
                            if let Some(vector) = vectors.next() {
                                row.numbers[range.clone()].copy_from_slice(vector);
                            }
                        }
                        (_, Some(told)) => row.numbers[told] = 1.0,
                        (_, None) => {}
                    });
                    text += width;
                }
            }
            absent += usize::from(told.is_some());
        }
        if let Some(finder) = &self.finder {
            each(Some(finder.place), &mut |row, field| {
                row.group = finder.group(field);
            });
        }
        match failed {
            Some(error) => Err(error),
            None => Ok(rows),
        }
    }
}

/// How a column of numbers is scaled.
struct Scale<'a> {
    mean: f64,
    deviation: f64,
    landmarks: &'a [f64],
    clip: f32,
}

impl Scale<'_> {
    fn scaled(&self, x: f64) -> f32 {
        let scaled = match self.landmarks {
            [_, _, ..] => normal_quantile(rank(self.landmarks, x).clamp(EDGE, 1.0 - EDGE)),
            _ => (x - self.mean) / self.deviation,
        };
        (scaled as f32).clamp(-self.clip, self.clip)
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
