//! Rows of tables as a model meets them: the columns of features, and what a row has in them.

use std::borrow::Cow;
use std::collections::HashSet;
use std::sync::Arc;

use rayon::prelude::*;

use super::answers::plain;
use super::examples::Input;
use crate::error::{MergeError, Result};
use crate::tasks::data;
use crate::tasks::data::table::{Cell, is_absent_number};
use crate::tasks::load::Loader;
use crate::tasks::spec::{GroupAs, TaskSpec};

/// A column of features.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// Its name in the file.
    pub name: String,
    /// Whether it holds numbers (dates among them); else words.
    pub numeric: bool,
}

/// What a row has in a column; `W` is a word.
#[derive(Debug, Clone, PartialEq)]
pub enum Field<W = Arc<str>> {
    /// A number; of a date the days since 1970.
    Number(f64),
    /// A word.
    Word(W),
    /// Nothing.
    Missing,
}

/// The columns of features of a task of tables: numbers, then words, then the group where every group is a task of its own.
/// Empty for a task without a table.
#[must_use]
pub fn columns(spec: &TaskSpec) -> Vec<Column> {
    let Some(table) = &spec.table else {
        return Vec::new();
    };
    let one = |name: &String, numeric| Column {
        name: name.clone(),
        numeric,
    };
    let mut found: Vec<Column> = table.numeric.iter().map(|n| one(n, true)).collect();
    let listed = |name: &String| table.numeric.contains(name) || table.categorical.contains(name);
    found.extend(
        table
            .features
            .iter()
            .filter(|n| !listed(n))
            .map(|n| one(n, true)),
    );
    found.extend(table.categorical.iter().map(|n| one(n, false)));
    if table.group_as == GroupAs::Task && !table.group.is_empty() && !listed(&table.group) {
        found.push(one(&table.group, false));
    }
    found
}

/// Reads rows of columns; equal words of a column share their bytes.
pub struct Fields {
    columns: Arc<[Column]>,
    /// Where they stood in the table of the last row.
    places: Vec<usize>,
    words: HashSet<Arc<str>>,
}

impl Fields {
    /// Of columns; `None` of none.
    #[must_use]
    pub fn new(columns: Vec<Column>) -> Option<Self> {
        (!columns.is_empty()).then(|| Self {
            places: vec![0; columns.len()],
            columns: columns.into(),
            words: HashSet::new(),
        })
    }

    /// A row of a batch.
    ///
    /// # Errors
    /// A column that the batch lacks, a column of numbers that holds something else.
    pub fn input(&mut self, table: &data::Table, row: usize) -> Result<Input> {
        let mut fields = Vec::with_capacity(self.columns.len());
        for (column, place) in self.columns.iter().zip(&mut self.places) {
            let (at, values) = found(table, *place, &column.name)?;
            *place = at;
            fields.push(match field(column, values.cell(row))? {
                Field::Number(x) => Field::Number(x),
                Field::Missing => Field::Missing,
                Field::Word(text) => Field::Word(match self.words.get(&*text) {
                    Some(word) => word.clone(),
                    None => {
                        let word: Arc<str> = (*text).into();
                        self.words.insert(word.clone());
                        word
                    }
                }),
            });
        }
        Ok(Input::Row {
            columns: self.columns.clone(),
            fields,
        })
    }

    /// What `make` makes of every row of a batch, on all threads, in the order of the rows; words are lent, not kept.
    ///
    /// # Errors
    /// As [`Self::input`], with the place of the first such row.
    pub fn each<T: Send>(
        &self,
        table: &data::Table,
        make: impl Fn(&[Field<Cow<'_, str>>]) -> T + Sync,
    ) -> std::result::Result<Vec<T>, (usize, MergeError)> {
        let places = self.columns.iter().zip(&self.places);
        let columns: Result<Vec<&data::Column>> = places
            .map(|(c, place)| Ok(found(table, *place, &c.name)?.1))
            .collect();
        let columns = columns.map_err(|e| (0, e))?;
        let one = |row: usize| {
            let cells = self.columns.iter().zip(&columns);
            let fields = cells.map(|(column, values)| field(column, values.cell(row)));
            Ok(make(&fields.collect::<Result<Vec<_>>>()?))
        };
        let rows = (0..table.rows()).into_par_iter().with_min_len(TOGETHER);
        let made: Vec<Result<T>> = rows.map(one).collect();
        let placed = made.into_iter().enumerate();
        placed.map(|(row, one)| one.map_err(|e| (row, e))).collect()
    }
}

/// Rows that a thread takes at least.
const TOGETHER: usize = 128;

/// A column of a batch with its place; `place` is looked at first.
fn found<'t>(
    table: &'t data::Table,
    place: usize,
    name: &str,
) -> Result<(usize, &'t data::Column)> {
    table.column_from(place, name).ok_or_else(|| {
        let names: Vec<&str> = table.columns().map(|(n, _)| n).collect();
        MergeError::plan("bad-table", format!("has no column `{name}`"))
            .hint(format!("its columns: {}", names.join(", ")))
    })
}

/// What a cell holds for a column.
fn field<'t>(column: &Column, cell: Cell<'t>) -> Result<Field<Cow<'t, str>>> {
    Ok(match column.numeric {
        _ if cell.is_empty() => Field::Missing,
        true => number(&column.name, cell)?,
        false => Field::Word(match cell {
            Cell::Text(text) => Cow::Borrowed(text),
            other => Cow::Owned(other.to_text()),
        }),
    })
}

/// Largest weight of a row.
pub const MAX_ROW_WEIGHT: f64 = 1e12;

/// Reads what the rows of a split count in a loss.
pub(super) struct Weights {
    column: String,
    /// The column that rows are known by, and where that is empty how many were read.
    id: String,
    rows: u64,
    split: String,
    file: String,
}

impl Weights {
    /// Of a task that names a column of weights.
    pub fn of(spec: &TaskSpec, loader: &Loader<'_>, split: &str) -> Option<Self> {
        let column = &spec.table.as_ref()?.weight;
        let name = spec.splits.named.get(split).map_or("", |s| &*s.file);
        let file = loader.files().get(name).map(|p| p.display().to_string());
        (!column.is_empty()).then(|| Self {
            column: column.clone(),
            id: spec.fields.id.clone(),
            rows: 0,
            split: split.to_owned(),
            file: file.unwrap_or_else(|| format!("task `{}`", spec.id)),
        })
    }

    /// Goes to the next row.
    pub fn next(&mut self) {
        self.rows += 1;
    }

    /// The weight of the row that it is at.
    pub fn weight(&self, table: &data::Table, row: usize) -> Result<f32> {
        let bad = |what: String| {
            let what = format!("column `{}` (row weights) {what}", self.column);
            MergeError::plan("bad-weight", what)
                .at(self.file.clone())
                .hint("every row that is learned has a number from 0 to 1e12 there; `table.weight` of the spec names the column")
        };
        let Some(values) = table.column(&self.column) else {
            return Err(bad("is not there".into()));
        };
        let cell = values.cell(row);
        match cell.to_number() {
            Some(x) if (0.0..=MAX_ROW_WEIGHT).contains(&x) => Ok(x as f32),
            _ => {
                let id = match &*self.id {
                    "" => (self.rows - 1).to_string(),
                    id => plain(&table.at(row, id)),
                };
                let said = match cell.is_empty() {
                    true => "nothing".to_owned(),
                    false => format!("`{}`", cell.to_text()),
                };
                Err(bad(format!(
                    "holds {said} in row `{id}` of split `{}`",
                    self.split
                )))
            }
        }
    }
}

/// The number of a cell that is there.
fn number<W>(column: &str, cell: Cell) -> Result<Field<W>> {
    if let Some(x) = cell.to_number() {
        // What is no number is not there: no model can learn from it.
        return Ok(match x.is_finite() {
            true => Field::Number(x),
            false => Field::Missing,
        });
    }
    let text = cell.to_text();
    match days(&text) {
        Some(days) => Ok(Field::Number(days)),
        None if is_absent_number(&text) => Ok(Field::Missing),
        None => {
            let what = format!("column `{column}` holds `{text}`, which is no number and no date");
            Err(MergeError::plan("bad-table", what)
                .hint("name the column in `table.categorical`, or leave it out"))
        }
    }
}

/// Days since 1970-01-01 of a date `YYYY-MM-DD`, with the part of the day where a time `HH:MM` or `HH:MM:SS` (with fractions,
/// `Z`) follows after a blank or `T`. `None` for everything else.
#[must_use]
pub fn days(text: &str) -> Option<f64> {
    let text = text.trim();
    let (date, time) = match text.find(['T', ' ']) {
        Some(at) => (text.get(..at)?, text.get(at + 1..)?),
        None => (text, ""),
    };
    let mut parts = date.split('-');
    let (y, m, d) = (parts.next()?, parts.next()?, parts.next()?);
    let digits = |t: &str, n: usize| t.len() == n && t.bytes().all(|b| b.is_ascii_digit());
    if parts.next().is_some() || !digits(y, 4) || !digits(m, 2) || !digits(d, 2) {
        return None;
    }
    let (y, m, d): (i64, i64, i64) = (y.parse().ok()?, m.parse().ok()?, d.parse().ok()?);
    let leap = y % 4 == 0 && (y % 100 != 0 || y % 400 == 0);
    let long = match m {
        2 => 28 + i64::from(leap),
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    };
    if !(1..=long).contains(&d) {
        return None;
    }
    // Years begin in March, so that the leap day is the last one.
    let (year, month) = if m > 2 { (y, m - 3) } else { (y - 1, m + 9) };
    let day = 365 * year + year.div_euclid(4) - year.div_euclid(100)
        + year.div_euclid(400)
        + (153 * month + 2) / 5
        + d
        - 1
        - 719_468;
    Some(day as f64 + part_of_day(time)?)
}

/// The part of a day that a time says; 0 for none.
fn part_of_day(time: &str) -> Option<f64> {
    let time = time.strip_suffix('Z').unwrap_or(time);
    if time.is_empty() {
        return Some(0.0);
    }
    let mut parts = time.split(':');
    let mut next = |below: f64| -> Option<f64> {
        let part = parts.next().unwrap_or("0");
        let plain = part.bytes().all(|b| b.is_ascii_digit() || b == b'.');
        let x: f64 = part.parse().ok().filter(|_| plain)?;
        (0.0..below).contains(&x).then_some(x)
    };
    let (h, m, s) = (next(24.0)?, next(60.0)?, next(60.0)?);
    Some((h * 3600.0 + m * 60.0 + s) / 86400.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_found_where_they_stand_and_words_are_shared() {
        let text = |words: &[&str]| data::Column::Text(words.iter().map(|w| Some(*w)).collect());
        let column = |name: &str, numeric| Column {
            name: name.into(),
            numeric,
        };
        let mut fields = Fields::new(vec![column("age", true), column("job", false)]).unwrap();
        let job = text(&["cook", "cook"]);
        let tables = [
            data::Table::of([("age", text(&["3", " "])), ("job", job.clone())]),
            data::Table::of([
                ("other", text(&["", ""])),
                ("job", job),
                ("age", text(&["4", "5"])),
            ]),
        ];
        let mut seen = Vec::new();
        for table in &tables {
            for row in 0..2 {
                let Input::Row { fields, .. } = fields.input(table, row).unwrap() else {
                    panic!("no row")
                };
                seen.push(fields);
            }
        }
        let ages: Vec<&Field> = seen.iter().map(|f| &f[0]).collect();
        let [a, b, c] = [3.0, 4.0, 5.0].map(Field::Number);
        assert_eq!(ages, [&a, &Field::Missing, &b, &c]);
        let words = seen.iter().map(|f| match &f[1] {
            Field::Word(word) => Arc::as_ptr(word),
            other => panic!("{other:?}"),
        });
        let words: Vec<*const str> = words.collect();
        assert!(words.iter().all(|w| std::ptr::addr_eq(*w, words[0])));
        let lacks = data::Table::of([("age", text(&["3"]))]);
        assert!(fields.input(&lacks, 0).is_err());
    }

    #[test]
    fn dates_by_hand() {
        assert_eq!(days("1970-01-01"), Some(0.0));
        assert_eq!(days("1969-12-31"), Some(-1.0));
        assert_eq!(days("2000-03-01"), Some(11017.0));
        assert_eq!(days("2024-02-29T12:00:00Z"), Some(19782.5));
        assert_eq!(days("2024-02-29 06:00"), Some(19782.25));
        for wrong in [
            "2023-02-29",
            "2023-13-01",
            "12-01-2023",
            "soon",
            "2023-1-1",
            "2023-01-01T25:00",
            "",
        ] {
            assert_eq!(days(wrong), None, "{wrong}");
        }
    }
}
