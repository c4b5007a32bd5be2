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
    /// What it holds.
    pub kind: ColumnKind,
}

/// What a column of features holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ColumnKind {
    /// Numbers, dates among them.
    Number,
    /// Words, one a row.
    Word,
    /// Running text.
    Text,
}

impl ColumnKind {
    /// In words: `numbers`.
    #[must_use]
    pub fn plural(self) -> &'static str {
        match self {
            Self::Number => "numbers",
            Self::Word => "words",
            Self::Text => "running text",
        }
    }
}

/// What a row has in a column; `W` is a word.
#[derive(Debug, Clone, PartialEq)]
pub enum Field<W = Arc<str>> {
    /// A number; of a date the days since 1970.
    Number(f64),
    /// A word, or a text.
    Word(W),
    /// Nothing.
    Missing,
}

impl<W: AsRef<str>> Field<W> {
    /// The same, its word lent.
    #[must_use]
    pub fn lent(&self) -> Field<&str> {
        match self {
            Self::Number(x) => Field::Number(*x),
            Self::Word(word) => Field::Word(word.as_ref()),
            Self::Missing => Field::Missing,
        }
    }
}

/// The columns of features of a task of tables: numbers, then words, then texts, then the group where every group is a task of its own.
/// Empty for a task without a table.
#[must_use]
pub fn columns(spec: &TaskSpec) -> Vec<Column> {
    let Some(table) = &spec.table else {
        return Vec::new();
    };
    use ColumnKind::{Number, Text, Word};
    let one = |name: &String, kind| Column {
        name: name.clone(),
        kind,
    };
    let mut found: Vec<Column> = table.numeric.iter().map(|n| one(n, Number)).collect();
    let lists = [&table.numeric, &table.categorical, &table.text];
    let listed = |name: &String| lists.iter().any(|list| list.contains(name));
    found.extend(
        table
            .features
            .iter()
            .filter(|n| !listed(n))
            .map(|n| one(n, Number)),
    );
    found.extend(table.categorical.iter().map(|n| one(n, Word)));
    found.extend(table.text.iter().map(|n| one(n, Text)));
    if table.group_as == GroupAs::Task && !table.group.is_empty() && !listed(&table.group) {
        found.push(one(&table.group, Word));
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
                    // Hardly two texts are alike.
                    None if column.kind == ColumnKind::Text => (*text).into(),
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
            before: None,
        })
    }

    /// What `make` makes of the rows of a batch, block by block on all threads, in the order of the rows; words are lent, not
    /// kept.
    ///
    /// # Errors
    /// As [`Self::input`], with the place of the first such row.
    pub fn blocks<T: Send>(
        &self,
        table: &data::Table,
        make: impl Fn(&Block<'_>) -> std::result::Result<Vec<T>, Misread> + Sync,
    ) -> std::result::Result<Vec<T>, Misread> {
        let places = self.columns.iter().zip(&self.places);
        let values: Result<Vec<&data::Column>> = places
            .map(|(c, place)| Ok(found(table, *place, &c.name)?.1))
            .collect();
        let values = values.map_err(|e| (0, e))?;
        let size = table.rows().div_ceil(rayon::current_num_threads());
        let size = size.max(TOGETHER);
        let starts: Vec<usize> = (0..table.rows()).step_by(size).collect();
        let made = starts.into_par_iter().map(|first| {
            make(&Block {
                columns: &self.columns,
                values: &values,
                first,
                rows: size.min(table.rows() - first),
            })
        });
        let made: Vec<_> = made.collect();
        let mut all = Vec::with_capacity(table.rows());
        for block in made {
            all.append(&mut block?);
        }
        Ok(all)
    }
}

/// Rows of a batch that are next to each other.
pub struct Block<'t> {
    columns: &'t [Column],
    values: &'t [&'t data::Column],
    first: usize,
    rows: usize,
}

/// The place of a row in a batch, and what is wrong with it.
pub type Misread = (usize, MergeError);

impl<'t> Block<'t> {
    /// How many there are.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// What a row of the block has in the column at a place; missing where there is no such place.
    ///
    /// # Errors
    /// A column of numbers that holds something else; with the place of the row in the batch.
    pub fn field(
        &self,
        place: usize,
        row: usize,
    ) -> std::result::Result<Field<Cow<'t, str>>, Misread> {
        match (self.columns.get(place), self.values.get(place)) {
            (Some(column), Some(values)) => {
                let row = self.first + row;
                field(column, values.cell(row)).map_err(|e| (row, e))
            }
            _ => Ok(Field::Missing),
        }
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
    Ok(match column.kind {
        _ if cell.is_empty() => Field::Missing,
        ColumnKind::Number => number(&column.name, cell)?,
        ColumnKind::Word | ColumnKind::Text => Field::Word(match cell {
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
        let column = |name: &str, kind| Column {
            name: name.into(),
            kind,
        };
        let columns = vec![
            column("age", ColumnKind::Number),
            column("job", ColumnKind::Word),
        ];
        let mut fields = Fields::new(columns).unwrap();
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
