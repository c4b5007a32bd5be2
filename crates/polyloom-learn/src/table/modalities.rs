//! Columns that are one source of what is known of a row: named by who trains, or found by what rows lack together.

use std::collections::HashMap;

use indexmap::IndexMap;
use polyloom::MergeError;
use polyloom::suggest::nearest;

use super::{Place, Preparation, Prepared};
use crate::error::Result;
use crate::models::table::Modality;

/// A set of rows by a sum over them: the same rows give the same sum, others another one (but for a chance of 2^-128).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct RowSet([u64; 2]);

impl RowSet {
    /// Puts a row in, by its number.
    pub fn put(&mut self, row: u64) {
        for (sum, salt) in self.0.iter_mut().zip([1, 2]) {
            *sum = sum.wrapping_add(mixed(mixed(row).wrapping_add(salt)));
        }
    }
}

/// The last step of SplitMix64 (Steele et al. 2014).
fn mixed(x: u64) -> u64 {
    let z = x.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

impl Preparation {
    /// Modalities as a model reads them: columns by the name of their modality, in the order of reading; of none `together`,
    /// lists of columns, each called by its first one.
    ///
    /// # Errors
    /// A column that there is not, one of two modalities or of none, a modality without a column.
    pub fn modalities(
        &self,
        named: &IndexMap<String, Vec<String>>,
        together: &[Vec<String>],
    ) -> Result<Vec<Modality>> {
        let bad = |what: String| {
            let what = format!("`train.new.modalities`: {what}");
            MergeError::plan("bad-recipe", what)
        };
        let found = together.iter().filter_map(|c| Some((c.first()?, c)));
        let all: Vec<(&String, &Vec<String>)> = match named.is_empty() {
            true => found.collect(),
            false => named.iter().collect(),
        };
        let mut places: HashMap<String, Place> = self.places().into_iter().collect();
        places.retain(|_, place| *place != Place::Group);
        let mut owner: HashMap<&str, &str> = HashMap::new();
        let mut made = Vec::with_capacity(all.len());
        for (name, columns) in all {
            if columns.is_empty() {
                return Err(bad(format!("`{name}` has no column")).into());
            }
            let mut modality = Modality {
                name: name.clone(),
                numbers: Vec::new(),
                fields: Vec::new(),
                marks: Vec::new(),
            };
            for column in columns {
                let Some(place) = places.get(column) else {
                    let mut names: Vec<&str> = places.keys().map(String::as_str).collect();
                    names.sort_unstable();
                    let near = nearest(column, &names, 1);
                    let near = near.first().map(|n| format!(" (did you mean `{n}`?)"));
                    let what = format!(
                        "`{name}` names a column `{column}`, which is no feature{}",
                        near.unwrap_or_default()
                    );
                    let hint = format!("features: {}", names.join(", "));
                    return Err(bad(what).hint(hint).into());
                };
                if let Some(other) = owner.insert(column, name) {
                    let what = format!("column `{column}` is of `{other}` and of `{name}`");
                    return Err(bad(what).hint("a column is of one modality, once").into());
                }
                match place {
                    Place::Number(at, _) => modality.numbers.push(*at),
                    Place::Text(at, size, _) => modality.numbers.extend(*at..at + size),
                    Place::Word(at, _) => modality.fields.push(*at),
                    Place::Group => {}
                }
                modality.marks.extend(place.mark());
            }
            made.push(modality);
        }
        let own = self.columns.iter().map(Prepared::name);
        let left: Vec<&str> = own.filter(|c| !owner.contains_key(c)).collect();
        if !left.is_empty() {
            let what = format!("of none are: {}", left.join(", "));
            return Err(bad(what)
                .hint("every feature is of a modality; --drop leaves a column out")
                .into());
        }
        Ok(made)
    }
}

#[cfg(test)]
mod tests {
    use polyloom::evaluate::board::score::examples::{Column, ColumnKind, Field};

    use super::super::{Fitting, Settings};
    use super::*;

    fn columns() -> Vec<Column> {
        let column = |name: &str, kind| Column {
            name: name.into(),
            kind,
        };
        vec![
            column("age", ColumnKind::Number),
            column("urea", ColumnKind::Number),
            column("job", ColumnKind::Word),
            column("blood", ColumnKind::Word),
            column("note", ColumnKind::Text),
        ]
    }

    /// Six rows: the second and fourth lack `urea` and `blood`, the third `note`.
    fn fitting() -> Fitting {
        let settings = Settings {
            rare: 1,
            text: 2,
            ..Settings::default()
        };
        let mut fitting = Fitting::new(settings).unwrap().marking();
        for i in 0..6 {
            fitting.see(&columns(), &row(i)).unwrap();
        }
        fitting
    }

    fn row(i: usize) -> Vec<Field> {
        let word = |lacks: bool, text: &str| match lacks {
            true => Field::Missing,
            false => Field::Word(text.into()),
        };
        let lab = i == 1 || i == 3;
        let urea = match lab {
            true => Field::Missing,
            false => Field::Number(i as f64 * 2.0),
        };
        vec![
            Field::Number(i as f64),
            urea,
            word(false, "cook"),
            word(lab, "A"),
            word(i == 2, "soup"),
        ]
    }

    #[test]
    fn columns_that_the_same_rows_lack_are_one_modality() {
        let fitting = fitting();
        let together = fitting.together();
        assert_eq!(
            together,
            [vec!["age", "job"], vec!["urea", "blood"], vec!["note"]]
        );
        let made = fitting.finish().unwrap();
        // Two numbers, two places of the text, five marks.
        assert_eq!((made.numeric(), made.categories().len()), (9, 2));
        let found = made.modalities(&IndexMap::new(), &together).unwrap();
        let of = |name: &str, numbers: &[usize], fields: &[usize], marks: &[usize]| Modality {
            name: name.into(),
            numbers: numbers.to_vec(),
            fields: fields.to_vec(),
            marks: marks.to_vec(),
        };
        assert_eq!(
            found,
            [
                of("age", &[0], &[0], &[4, 6]),
                of("urea", &[1], &[1], &[5, 7]),
                of("note", &[2, 3], &[], &[8]),
            ]
        );
        let columns = columns();
        let reader = made.reader(&columns).unwrap();
        assert_eq!(
            reader.row(&row(1)).unwrap().numbers[4..],
            [0.0, 1.0, 0.0, 1.0, 0.0]
        );
        let third = reader.row(&row(2)).unwrap().numbers;
        assert_eq!(third[2..], [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0]);
        // A file without the columns of a modality has rows that lack it.
        let some = &columns[..1];
        let reader = made.reader(some).unwrap();
        let only = reader
            .row(&[Field::<std::sync::Arc<str>>::Number(2.0)])
            .unwrap()
            .numbers;
        assert_eq!(only[4..], [0.0, 1.0, 1.0, 1.0, 1.0]);
        assert_eq!(
            made.names().0[4..],
            ["age", "urea", "job", "blood", "note"].map(|n| format!("{n} is missing"))
        );
        let again: Preparation = serde_json::from_str(&made.text().unwrap()).unwrap();
        assert_eq!(again, made);
    }

    #[test]
    fn modalities_by_name_or_what_is_wrong_with_them() {
        let made = fitting().finish().unwrap();
        let of = |text: &str| {
            let named = serde_json::from_str(text).unwrap();
            made.modalities(&named, &[])
        };
        let found = of(r#"{"b": ["note", "job"], "a": ["blood", "age", "urea"]}"#).unwrap();
        assert_eq!((&*found[0].name, &*found[1].name), ("b", "a"));
        assert_eq!((&found[0].marks, &found[1].fields), (&vec![8, 6], &vec![1]));
        for (text, part) in [
            (
                r#"{"a": ["age", "uria"]}"#,
                "names a column `uria`, which is no feature (did you mean `urea`?)",
            ),
            (
                r#"{"a": ["age"], "b": ["age"]}"#,
                "column `age` is of `a` and of `b`",
            ),
            (r#"{"a": ["age"], "b": []}"#, "`b` has no column"),
            (r#"{"a": ["age", "urea"]}"#, "of none are: job, blood, note"),
        ] {
            let said = of(text).unwrap_err().to_string();
            assert!(said.contains(part), "{said}");
        }
    }
}
