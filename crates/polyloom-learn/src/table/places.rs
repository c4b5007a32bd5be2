//! Which part of a prepared row comes from a column.

use super::{Preparation, Prepared, Row};

/// What a column is in a [`Row`]: its number with the mark of what is missing, its code, or the group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Place of the number, and of the mark where the column has one.
    Number(usize, Option<usize>),
    /// Place of the code.
    Word(usize),
    /// The group that has goals of its own.
    Group,
}

impl Place {
    /// Gives a row what another one has there. Columns are prepared one by one, so that this is the row that it would be with
    /// the other one's cell.
    pub fn take(self, from: &Row, to: &mut Row) {
        match self {
            Self::Number(at, absent) => {
                for at in [Some(at), absent].into_iter().flatten() {
                    if let (Some(to), Some(from)) = (to.numbers.get_mut(at), from.numbers.get(at)) {
                        *to = *from;
                    }
                }
            }
            Self::Word(at) => {
                if let (Some(to), Some(from)) = (to.codes.get_mut(at), from.codes.get(at)) {
                    *to = *from;
                }
            }
            Self::Group => to.group = from.group,
        }
    }
}

impl Preparation {
    /// Columns that a model reads, by name, with what they are in its rows; that of the groups at the end.
    #[must_use]
    pub fn places(&self) -> Vec<(String, Place)> {
        let numbers = self
            .columns
            .iter()
            .filter(|c| matches!(c, Prepared::Number { .. }));
        let (mut number, mut absent, mut word) = (0, numbers.count(), 0);
        let mut found = Vec::with_capacity(self.columns.len() + 1);
        for column in &self.columns {
            let place = match column {
                Prepared::Number { missing, .. } => {
                    let mark = missing.then_some(absent);
                    absent += usize::from(*missing);
                    number += 1;
                    Place::Number(number - 1, mark)
                }
                Prepared::Words { .. } => {
                    word += 1;
                    Place::Word(word - 1)
                }
            };
            found.push((column.name().to_owned(), place));
        }
        let group = self.groups.iter().map(|g| (g.column.clone(), Place::Group));
        found.extend(group);
        found
    }
}

#[cfg(test)]
mod tests {
    use polyloom::evaluate::board::score::examples::{Column, Field};

    use super::super::{Fitting, Settings};

    /// Taking a column over is preparing the row with the other one's cell, for numbers, marks, words and groups.
    #[test]
    fn a_column_taken_over_is_the_cell_taken_over() {
        let column = |name: &str, numeric| Column {
            name: name.into(),
            numeric,
        };
        let columns = [
            column("job", false),
            column("age", true),
            column("born", true),
            column("city", false),
            column("school", false),
        ];
        let word = |w: &str| -> Field { Field::Word(w.into()) };
        let rows = [
            [
                word("cook"),
                Field::Number(3.0),
                Field::Missing,
                word("a"),
                word("x"),
            ],
            [
                Field::Missing,
                Field::Number(5.0),
                Field::Number(9.0),
                word("b"),
                word("y"),
            ],
            [
                word("clerk"),
                Field::Missing,
                Field::Number(1.0),
                word("a"),
                word("z"),
            ],
        ];
        let mut fitting = Fitting::by_group("school".into());
        for row in rows.iter().cycle().take(12) {
            fitting.see(&columns, row).unwrap();
        }
        let made = fitting.finish(Settings::default()).unwrap();
        let reader = made.reader(&columns).unwrap();
        let places = made.places();
        let mut names: Vec<&str> = places.iter().map(|(n, _)| &**n).collect();
        names.sort_unstable();
        assert_eq!(names, ["age", "born", "city", "job", "school"]);
        for (name, place) in &places {
            let at = columns.iter().position(|c| c.name == *name).unwrap();
            for from in &rows {
                for to in &rows {
                    let mut cells = to.clone();
                    cells[at] = from[at].clone();
                    let mut row = reader.row(to);
                    place.take(&reader.row(from), &mut row);
                    assert_eq!(row, reader.row(&cells), "{name}");
                }
            }
        }
    }
}
