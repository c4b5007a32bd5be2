//! Which part of a prepared row comes from a column.

use super::{Preparation, Prepared, Row};

/// What a column is in a [`Row`]: its number with the mark of what is missing, its code, or the group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Place of the number, and of the mark where the column has one.
    Number(usize, Option<usize>),
    /// Place of the code, and of the mark where the column has one.
    Word(usize, Option<usize>),
    /// First of the numbers of a text, how many, and the place of the mark where the column has one.
    Text(usize, usize, Option<usize>),
    /// The group that has goals of its own.
    Group,
}

impl Place {
    /// Gives a row what another one has there. Columns are prepared one by one, so that this is the row that it would be with
    /// the other one's cell.
    pub fn take(self, from: &Row, to: &mut Row) {
        let (numbers, code) = match self {
            Self::Number(at, _) => (at..at + 1, None),
            Self::Word(at, _) => (0..0, Some(at)),
            Self::Text(at, size, _) => (at..at + size, None),
            Self::Group => {
                to.group = from.group;
                return;
            }
        };
        let mark = self.mark().map_or(0..0, |at| at..at + 1);
        for range in [numbers, mark] {
            if let (Some(to), Some(from)) =
                (to.numbers.get_mut(range.clone()), from.numbers.get(range))
            {
                to.copy_from_slice(from);
            }
        }
        if let Some(at) = code
            && let (Some(to), Some(from)) = (to.codes.get_mut(at), from.codes.get(at))
        {
            *to = *from;
        }
    }

    /// Place of the mark of what is missing, where the column has one.
    #[must_use]
    pub fn mark(self) -> Option<usize> {
        match self {
            Self::Number(_, mark) | Self::Word(_, mark) | Self::Text(_, _, mark) => mark,
            Self::Group => None,
        }
    }
}

impl Preparation {
    /// Where numbers, those of texts and the marks of what is missing begin among the numbers of a row.
    pub(super) fn starts(&self) -> [usize; 3] {
        let of = |c: &Prepared| match c {
            Prepared::Text { .. } | Prepared::Vector { .. } => (0, c.numbers()),
            _ => (c.numbers(), 0),
        };
        let sizes = self.columns.iter().map(of);
        let (numbers, texts) = sizes.fold((0, 0), |all, one| (all.0 + one.0, all.1 + one.1));
        [0, numbers, numbers + texts]
    }

    /// Columns that a model reads, by name, with what they are in its rows; that of the groups at the end.
    #[must_use]
    pub fn places(&self) -> Vec<(String, Place)> {
        let [mut number, mut text, mut absent] = self.starts();
        let mut word = 0;
        let mut found = Vec::with_capacity(self.columns.len() + 1);
        for column in &self.columns {
            let mark = column.is_marked().then_some(absent);
            absent += usize::from(column.is_marked());
            let place = match column {
                Prepared::Number { .. } => {
                    number += 1;
                    Place::Number(number - 1, mark)
                }
                Prepared::Words { .. } => {
                    word += 1;
                    Place::Word(word - 1, mark)
                }
                Prepared::Text { .. } | Prepared::Vector { .. } => {
                    let size = column.numbers();
                    text += size;
                    Place::Text(text - size, size, mark)
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
    use polyloom::evaluate::board::score::examples::{Column, ColumnKind, Field};

    use super::super::{Fitting, Preparation};

    /// Taking a column over is preparing the row with the other one's cell, for numbers, marks, words, texts and groups.
    #[test]
    fn a_column_taken_over_is_the_cell_taken_over() {
        let column = |name: &str, kind| Column {
            name: name.into(),
            kind,
        };
        let columns = [
            column("job", ColumnKind::Word),
            column("age", ColumnKind::Number),
            column("note", ColumnKind::Text),
            column("born", ColumnKind::Number),
            column("city", ColumnKind::Word),
            column("school", ColumnKind::Word),
        ];
        let word = |w: &str| -> Field { Field::Word(w.into()) };
        let rows = [
            [
                word("cook"),
                Field::Number(3.0),
                word("likes soup"),
                Field::Missing,
                word("a"),
                word("x"),
            ],
            [
                Field::Missing,
                Field::Number(5.0),
                Field::Missing,
                Field::Number(9.0),
                word("b"),
                word("y"),
            ],
            [
                word("clerk"),
                Field::Missing,
                word("soup, mostly cold soup"),
                Field::Number(1.0),
                word("a"),
                word("z"),
            ],
        ];
        for marking in [false, true] {
            let mut fitting = Fitting::default().by_group("school".into());
            if marking {
                fitting = fitting.marking();
            }
            for row in rows.iter().cycle().take(12) {
                fitting.see(&columns, row).unwrap();
            }
            taken_over(&fitting.finish().unwrap(), &columns, &rows);
        }
    }

    fn taken_over(made: &Preparation, columns: &[Column], rows: &[[Field; 6]]) {
        let columns = columns.to_vec();
        let reader = made.reader(&columns).unwrap();
        let places = made.places();
        let mut names: Vec<&str> = places.iter().map(|(n, _)| &**n).collect();
        names.sort_unstable();
        assert_eq!(names, ["age", "born", "city", "job", "note", "school"]);
        for (name, place) in &places {
            let at = columns.iter().position(|c| c.name == *name).unwrap();
            for from in rows {
                for to in rows {
                    let mut cells = to.clone();
                    cells[at] = from[at].clone();
                    let mut row = reader.row(to).unwrap();
                    place.take(&reader.row(from).unwrap(), &mut row);
                    assert_eq!(row, reader.row(&cells).unwrap(), "{name}");
                }
            }
        }
    }
}
