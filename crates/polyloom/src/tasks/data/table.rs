//! A few thousand rows, column by column.

use std::fmt::Write as _;

use indexmap::IndexMap;
use serde_json::Value;

use super::texts::Texts;

/// A column; every entry may be missing.
#[derive(Debug, Clone, PartialEq)]
pub enum Column {
    /// Text.
    Text(Texts),
    /// Numbers; whole ones beyond 2^53 are kept as [`Column::Nested`] instead.
    Number(Vec<Option<f64>>),
    /// Truth values.
    Bool(Vec<Option<bool>>),
    /// Raw bytes, such as images.
    Bytes(Vec<Option<Vec<u8>>>),
    /// Lists, objects, or values of several types.
    Nested(Vec<Option<Value>>),
}

/// One entry.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Cell<'a> {
    /// Missing.
    Null,
    /// Text.
    Text(&'a str),
    /// A number.
    Number(f64),
    /// A truth value.
    Bool(bool),
    /// Raw bytes.
    Bytes(&'a [u8]),
    /// Anything else.
    Nested(&'a Value),
}

/// One entry, owned.
#[derive(Debug, Clone, PartialEq)]
pub enum Owned {
    /// Missing.
    Null,
    /// Text.
    Text(String),
    /// A number.
    Number(f64),
    /// A truth value.
    Bool(bool),
    /// Raw bytes.
    Bytes(Vec<u8>),
    /// Anything else.
    Nested(Value),
}

impl From<Value> for Owned {
    fn from(value: Value) -> Self {
        match value {
            Value::Null => Self::Null,
            Value::Bool(b) => Self::Bool(b),
            Value::String(s) => Self::Text(s),
            Value::Number(n) => {
                const EXACT: u64 = 1 << 53;
                let whole = n.as_u64().or(n.as_i64().map(i64::unsigned_abs));
                match n.as_f64() {
                    Some(x) if whole.is_none_or(|w| w <= EXACT) => Self::Number(x),
                    _ => Self::Nested(Value::Number(n)),
                }
            }
            other => Self::Nested(other),
        }
    }
}

impl From<Cell<'_>> for Owned {
    fn from(cell: Cell<'_>) -> Self {
        match cell {
            Cell::Null => Self::Null,
            Cell::Text(t) => Self::Text(t.to_owned()),
            Cell::Number(x) => Self::Number(x),
            Cell::Bool(b) => Self::Bool(b),
            Cell::Bytes(b) => Self::Bytes(b.to_vec()),
            Cell::Nested(v) => Self::Nested(v.clone()),
        }
    }
}

impl Cell<'_> {
    /// Whether it is missing, or text of white space alone.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        match self {
            Self::Null => true,
            Self::Text(t) => t.trim().is_empty(),
            Self::Bytes(b) => b.is_empty(),
            _ => false,
        }
    }

    /// As JSON; bytes become their number and hash.
    #[must_use]
    pub fn to_json(self) -> Value {
        match self {
            Self::Null => Value::Null,
            Self::Text(t) => t.into(),
            Self::Number(x) => number(x),
            Self::Bool(b) => b.into(),
            Self::Bytes(b) => {
                format!("{} bytes {:016x}", b.len(), polyloom_core::hash::xxh3(b)).into()
            }
            Self::Nested(v) => v.clone(),
        }
    }

    /// As plain text: no quotes around text, whole numbers without a point.
    #[must_use]
    pub fn to_text(self) -> String {
        let mut text = String::new();
        self.push_text(&mut text);
        text
    }

    /// Appends it as plain text.
    pub fn push_text(self, text: &mut String) {
        match self {
            Self::Null => {}
            Self::Text(t) => text.push_str(t),
            Self::Nested(v) => push_plain(v, text),
            other => push_plain(&other.to_json(), text),
        }
    }

    /// As a number, also from text that is one. Truth values are 0 and 1.
    #[must_use]
    pub fn to_number(self) -> Option<f64> {
        match self {
            Self::Number(x) => Some(x),
            Self::Bool(b) => Some(f64::from(u8::from(b))),
            Self::Text(t) => parse_number(t),
            Self::Nested(v) => v.as_f64(),
            Self::Null | Self::Bytes(_) => None,
        }
    }
}

/// Appends a value: text without quotes, anything else as JSON.
fn push_plain(value: &Value, text: &mut String) {
    match value {
        Value::String(s) => text.push_str(s),
        // A string takes whatever is written to it.
        value => _ = write!(text, "{value}"),
    }
}

/// Whether a text stands for a number that is missing, as R, pandas and SQL write it: `NA`, `NaN`, `N/A`, `#N/A`, `<NA>`, `null`,
/// `None`, in any case. In a column of words these are words.
#[must_use]
pub fn is_absent_number(text: &str) -> bool {
    const WORDS: [&str; 7] = ["na", "nan", "n/a", "#n/a", "<na>", "null", "none"];
    let text = text.trim();
    WORDS.iter().any(|w| w.eq_ignore_ascii_case(text))
}

/// A finite number in plain or scientific notation; `nan` and `inf` are words, not numbers.
#[must_use]
pub fn parse_number(text: &str) -> Option<f64> {
    let text = text.trim();
    let fine = |c: char| c.is_ascii_digit() || "+-.eE".contains(c);
    if text.is_empty() || !text.chars().all(fine) {
        return None;
    }
    text.parse().ok().filter(|x: &f64| x.is_finite())
}

/// A number as JSON, whole where it is; what is not finite is a word.
#[must_use]
pub fn number(x: f64) -> Value {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    if x.fract() == 0.0 && x.abs() <= EXACT && !(x == 0.0 && x.is_sign_negative()) {
        #[allow(clippy::cast_possible_truncation, reason = "whole and below 2^53")]
        return (x as i64).into();
    }
    serde_json::Number::from_f64(x).map_or_else(|| Value::String(x.to_string()), Value::Number)
}

impl Column {
    /// A column of values of any types.
    pub(crate) fn of(values: impl Iterator<Item = Owned>) -> Self {
        let mut column = Self::Text(Texts::default());
        values.for_each(|value| column.push(value));
        column
    }

    /// Number of rows.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Text(v) => v.len(),
            Self::Number(v) => v.len(),
            Self::Bool(v) => v.len(),
            Self::Bytes(v) => v.len(),
            Self::Nested(v) => v.len(),
        }
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// One entry; missing beyond the end.
    #[must_use]
    pub fn cell(&self, row: usize) -> Cell<'_> {
        fn at<T>(list: &[Option<T>], row: usize) -> Option<&T> {
            list.get(row).and_then(Option::as_ref)
        }
        match self {
            Self::Text(v) => v.get(row).map_or(Cell::Null, Cell::Text),
            Self::Number(v) => at(v, row).map_or(Cell::Null, |x| Cell::Number(*x)),
            Self::Bool(v) => at(v, row).map_or(Cell::Null, |b| Cell::Bool(*b)),
            Self::Bytes(v) => at(v, row).map_or(Cell::Null, |b| Cell::Bytes(b)),
            Self::Nested(v) => at(v, row).map_or(Cell::Null, Cell::Nested),
        }
    }

    fn push(&mut self, value: Owned) {
        match (&mut *self, value) {
            (Self::Text(v), Owned::Text(t)) => v.push(Some(&t)),
            (Self::Number(v), Owned::Number(x)) => v.push(Some(x)),
            (Self::Bool(v), Owned::Bool(b)) => v.push(Some(b)),
            (Self::Bytes(v), Owned::Bytes(b)) => v.push(Some(b)),
            (Self::Nested(v), Owned::Nested(x)) => v.push(Some(x)),
            (column, Owned::Null) => column.push_null(),
            (column, value) => column.push_other(value),
        }
    }

    /// Appends the values of another column.
    fn append(&mut self, other: Self) {
        match (&mut *self, other) {
            (Self::Text(v), Self::Text(more)) => more.iter().for_each(|t| v.push(t)),
            (Self::Number(v), Self::Number(mut more)) => v.append(&mut more),
            (Self::Bool(v), Self::Bool(mut more)) => v.append(&mut more),
            (Self::Bytes(v), Self::Bytes(mut more)) => v.append(&mut more),
            (Self::Nested(v), Self::Nested(mut more)) => v.append(&mut more),
            (column, more) => (0..more.len()).for_each(|i| column.push(more.cell(i).into())),
        }
    }

    fn push_null(&mut self) {
        match self {
            Self::Text(v) => v.push(None),
            Self::Number(v) => v.push(None),
            Self::Bool(v) => v.push(None),
            Self::Bytes(v) => v.push(None),
            Self::Nested(v) => v.push(None),
        }
    }

    /// A value of another type: a column of nothing so far takes it on, any other holds mixed values from here.
    fn push_other(&mut self, value: Owned) {
        let n = self.len();
        let none_yet = (0..n).all(|i| self.cell(i) == Cell::Null);
        let mut other = match (&value, none_yet) {
            (Owned::Text(_), true) => Self::Text(Texts::missing(n)),
            (Owned::Number(_), true) => Self::Number(vec![None; n]),
            (Owned::Bool(_), true) => Self::Bool(vec![None; n]),
            (Owned::Bytes(_), true) => Self::Bytes(vec![None; n]),
            _ => Self::Nested(
                (0..n)
                    .map(|i| Some(self.cell(i).to_json()).filter(|v| !v.is_null()))
                    .collect(),
            ),
        };
        match (&mut other, value) {
            (Self::Nested(v), value) => v.push(Some(match value {
                Owned::Null => Value::Null,
                Owned::Text(t) => t.into(),
                Owned::Number(x) => number(x),
                Owned::Bool(b) => b.into(),
                Owned::Bytes(b) => Cell::Bytes(&b).to_json(),
                Owned::Nested(v) => v,
            })),
            (column, value) => column.push(value),
        }
        *self = other;
    }

    fn word(&self) -> &'static str {
        match self {
            Self::Text(_) => "text",
            Self::Number(_) => "number",
            Self::Bool(_) => "bool",
            Self::Bytes(_) => "bytes",
            Self::Nested(_) => "nested",
        }
    }
}

/// Rows, column by column. Names are unique, all columns have the same length.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Table {
    columns: IndexMap<String, Column>,
    rows: usize,
}

impl Table {
    /// A table without rows and with these text columns.
    #[must_use]
    pub fn with_columns<'a>(names: impl IntoIterator<Item = &'a str>) -> Self {
        let empty = |n: &str| (n.to_owned(), Column::Text(Texts::default()));
        Self {
            columns: names.into_iter().map(empty).collect(),
            rows: 0,
        }
    }

    /// A table of columns; those that are shorter than the longest one are missing at their end.
    #[must_use]
    pub fn of<N: Into<String>>(columns: impl IntoIterator<Item = (N, Column)>) -> Self {
        Self::default().with(columns)
    }

    /// Adds columns, or replaces those of the same names; shorter ones are missing at their end.
    #[must_use]
    pub fn with<N: Into<String>>(mut self, columns: impl IntoIterator<Item = (N, Column)>) -> Self {
        let columns = columns.into_iter().map(|(n, c)| (n.into(), c));
        self.columns.extend(columns);
        self.rows = self.columns.values().map(Column::len).max().unwrap_or(0);
        for column in self.columns.values_mut() {
            while column.len() < self.rows {
                column.push_null();
            }
        }
        self
    }

    /// Number of rows.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Names and columns, in file order.
    pub fn columns(&self) -> impl ExactSizeIterator<Item = (&str, &Column)> {
        self.columns.iter().map(|(n, c)| (&**n, c))
    }

    /// A column by name.
    #[must_use]
    pub fn column(&self, name: &str) -> Option<&Column> {
        self.columns.get(name)
    }

    /// A column by name with its place; `place`, where it may stand, is looked at first.
    #[must_use]
    pub fn column_from(&self, place: usize, name: &str) -> Option<(usize, &Column)> {
        match self.columns.get_index(place) {
            Some((there, column)) if there == name => Some((place, column)),
            _ => {
                let (place, _, column) = self.columns.get_full(name)?;
                Some((place, column))
            }
        }
    }

    /// Names and types, such as `label: number`.
    #[must_use]
    pub fn types(&self) -> Vec<(&str, &'static str)> {
        self.columns().map(|(n, c)| (n, c.word())).collect()
    }

    /// Appends a row: values by column position. Columns that get no value are missing in this row.
    pub(crate) fn push(&mut self, values: impl Iterator<Item = Owned>) {
        let mut values = values;
        for column in self.columns.values_mut() {
            column.push(values.next().unwrap_or(Owned::Null));
        }
        self.rows += 1;
    }

    /// Appends the rows of a table with the same columns in the same order.
    pub(crate) fn append(&mut self, other: Self) {
        if self.columns.is_empty() {
            *self = other;
            return;
        }
        for (column, (_, more)) in self.columns.values_mut().zip(other.columns) {
            column.append(more);
        }
        self.rows += other.rows;
    }

    /// Appends a row of texts by column position; an empty one is missing.
    pub(crate) fn push_texts<'t>(&mut self, texts: impl Iterator<Item = &'t str>) {
        let mut texts = texts;
        for column in self.columns.values_mut() {
            let text = texts.next().filter(|t| !t.is_empty());
            match (&mut *column, text) {
                (Column::Text(v), text) => v.push(text),
                (column, Some(text)) => column.push(Owned::Text(text.to_owned())),
                (column, None) => column.push_null(),
            }
        }
        self.rows += 1;
    }

    /// Appends a row by names; a new name is a new column, missing in the rows before.
    pub(crate) fn push_named(&mut self, values: impl Iterator<Item = (String, Owned)>) {
        for (name, value) in values {
            let rows = self.rows;
            let column = self
                .columns
                .entry(name)
                .or_insert_with(|| Column::Text(Texts::missing(rows)));
            if column.len() == rows {
                column.push(value);
            }
        }
        self.rows += 1;
        for column in self.columns.values_mut() {
            if column.len() < self.rows {
                column.push_null();
            }
        }
    }

    /// Adds or replaces a column; it must have a value for every row.
    pub(crate) fn put(&mut self, name: &str, values: Vec<Owned>) {
        let column = Column::of(values.into_iter());
        if column.len() == self.rows {
            self.columns.insert(name.to_owned(), column);
        }
    }

    /// The rows for which `keep` holds.
    #[must_use]
    pub fn filtered(&self, keep: impl Fn(usize) -> bool) -> Self {
        fn pick<T: Clone>(list: &[Option<T>], keep: &[usize]) -> Vec<Option<T>> {
            keep.iter().map(|i| list[*i].clone()).collect()
        }
        let rows: Vec<usize> = (0..self.rows).filter(|i| keep(*i)).collect();
        let column = |c: &Column| match c {
            Column::Text(v) => Column::Text(rows.iter().map(|i| v.get(*i)).collect()),
            Column::Number(v) => Column::Number(pick(v, &rows)),
            Column::Bool(v) => Column::Bool(pick(v, &rows)),
            Column::Bytes(v) => Column::Bytes(pick(v, &rows)),
            Column::Nested(v) => Column::Nested(pick(v, &rows)),
        };
        Self {
            columns: self
                .columns
                .iter()
                .map(|(n, c)| (n.clone(), column(c)))
                .collect(),
            rows: rows.len(),
        }
    }

    /// A row as a JSON object, without its missing entries.
    #[must_use]
    pub fn row(&self, row: usize) -> serde_json::Map<String, Value> {
        let entries = self
            .columns()
            .map(|(n, c)| (n.to_owned(), c.cell(row).to_json()));
        entries.filter(|(_, v)| !v.is_null()).collect()
    }

    /// The value at a column path (`a`, `a.b`, `a.b[0]`, `a[1].c`) in a row; a column whose own name is the whole path
    /// wins. Missing parts are `Null`.
    #[must_use]
    pub fn at(&self, row: usize, path: &str) -> Value {
        if let Some(column) = self.columns.get(path) {
            return column.cell(row).to_json();
        }
        let end = path.find(['.', '[']).unwrap_or(path.len());
        let Some(column) = self.columns.get(&path[..end]) else {
            return Value::Null;
        };
        let start = column.cell(row).to_json();
        inside(&start, &path[end..]).cloned().unwrap_or(Value::Null)
    }

    /// Whether the table has the first part of a column path.
    #[must_use]
    pub fn has(&self, path: &str) -> bool {
        let end = path.find(['.', '[']).unwrap_or(path.len());
        self.columns.contains_key(path) || self.columns.contains_key(&path[..end])
    }
}

/// Follows `.name` and `[index]` into a value.
fn inside<'v>(value: &'v Value, path: &str) -> Option<&'v Value> {
    if let Some(rest) = path.strip_prefix('[') {
        let (index, rest) = rest.split_once(']')?;
        return inside(value.get(index.parse::<usize>().ok()?)?, rest);
    }
    if let Some(rest) = path.strip_prefix('.') {
        let end = rest.find(['.', '[']).unwrap_or(rest.len());
        return inside(value.get(&rest[..end])?, &rest[end..]);
    }
    path.is_empty().then_some(value)
}
