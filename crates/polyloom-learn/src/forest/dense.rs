//! Rows as trees walk over them: side by side, categories as their bins.

use std::ops::Range;

use rayon::prelude::*;

use super::bins::Categories;
use super::data::{Table, Values};

/// Rows of a block.
const BLOCK: usize = 1024;

/// Rows of a table, row by row; what is missing is `NaN`, a category is the number of its bin.
#[derive(Debug, Clone, PartialEq)]
pub struct Dense {
    width: usize,
    values: Vec<f32>,
}

impl Dense {
    /// Some rows of a table; `categories` are the bins of every column that has categories.
    #[must_use]
    pub fn new(table: &Table, categories: &[Option<&Categories>], rows: Range<usize>) -> Self {
        let width = table.columns.len();
        let mut values = vec![0f32; rows.len() * width];
        let fill = |(block, values): (usize, &mut [f32])| {
            let first = rows.start + block * BLOCK;
            for (j, column) in table.columns.iter().enumerate() {
                let to = values.iter_mut().skip(j).step_by(width);
                match &column.values {
                    Values::Number(x) => {
                        to.zip(&x[first..]).for_each(|(to, x)| *to = *x);
                    }
                    Values::Category { codes, .. } => {
                        let bins = categories[j];
                        let bin = |code: u32| bins.and_then(|b| b.bin(code));
                        let of = |code: &u32| bin(*code).map_or(f32::NAN, |b| b as f32);
                        to.zip(&codes[first..]).for_each(|(to, c)| *to = of(c));
                    }
                }
            }
        };
        values
            .par_chunks_mut(BLOCK * width.max(1))
            .enumerate()
            .for_each(fill);
        Self { width, values }
    }

    /// A row.
    #[must_use]
    pub fn row(&self, row: usize) -> &[f32] {
        &self.values[row * self.width..][..self.width]
    }
}

#[cfg(test)]
mod tests {
    use super::super::data::{Column, UNKNOWN};
    use super::*;

    #[test]
    fn rows_hold_numbers_and_bins() {
        let column = |values: Values| Column {
            name: "x".into(),
            values,
        };
        let table = Table {
            rows: 3,
            columns: vec![
                column(Values::Number(vec![1.0, 2.0, 3.0])),
                column(Values::Category {
                    codes: vec![1, UNKNOWN, 0],
                    cardinality: 2,
                }),
            ],
            weights: None,
        };
        let bins = Categories {
            bin_of: vec![super::super::bins::UNSEEN, 4],
            bins: 5,
        };
        let all = Dense::new(&table, &[None, Some(&bins)], 0..3);
        assert_eq!(all.row(0), [1.0, 4.0]);
        assert!(all.row(1)[1].is_nan() && all.row(2)[1].is_nan());
        let last = Dense::new(&table, &[None, Some(&bins)], 2..3);
        assert_eq!(last.row(0)[0], 3.0);
        let none = Table {
            rows: 2,
            ..Table::default()
        };
        assert!(Dense::new(&none, &[], 0..2).row(1).is_empty());
    }
}
