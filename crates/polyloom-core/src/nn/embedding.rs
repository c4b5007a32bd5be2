//! Rows of a table by number.

use rayon::prelude::*;

/// The rows of `table` (of `width`) with the numbers `ids`.
///
/// # Panics
/// If a number is not below the number of rows: callers check.
pub fn forward(table: &[f32], width: usize, ids: &[u32]) -> Vec<f32> {
    let mut out = vec![0f32; ids.len() * width];
    if width > 0 {
        let rows = out.par_chunks_mut(width).with_min_len(64);
        rows.zip(ids)
            .for_each(|(out, &id)| out.copy_from_slice(&table[id as usize * width..][..width]));
    }
    out
}

/// Adds the gradient of every row to the rows of the table's gradient, in the order of `ids`.
///
/// # Panics
/// If the lengths do not fit together.
pub fn add_backward(table: &mut [f32], width: usize, ids: &[u32], grad: &[f32]) {
    assert_eq!(grad.len(), ids.len() * width, "rows of an embedding");
    for (id, grad) in ids.iter().zip(grad.chunks_exact(width.max(1))) {
        let row = &mut table[*id as usize * width..][..width];
        row.iter_mut().zip(grad).for_each(|(r, g)| *r += g);
    }
}

/// A gradient of a table that holds only the rows which were looked up.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Rows {
    /// Their numbers, rising.
    pub rows: Vec<u32>,
    /// Their gradients, one after the other.
    pub values: Vec<f32>,
}

impl Rows {
    /// Adds the gradient of every row, in the order of `ids`: the same sums, to the bit, as [`add_backward`].
    ///
    /// # Panics
    /// If the lengths do not fit together.
    pub fn add(&mut self, width: usize, ids: &[u32], grad: &[f32]) {
        assert_eq!(grad.len(), ids.len() * width, "rows of an embedding");
        assert_eq!(
            self.values.len(),
            self.rows.len() * width,
            "width of an embedding"
        );
        let mut all = [&self.rows, ids].concat();
        all.sort_unstable();
        all.dedup();
        if all.len() != self.rows.len() {
            let mut values = vec![0f32; all.len() * width];
            let mut at = 0;
            for (row, old) in self.rows.iter().zip(self.values.chunks_exact(width.max(1))) {
                while all[at] != *row {
                    at += 1;
                }
                values[at * width..][..width].copy_from_slice(old);
            }
            (self.rows, self.values) = (all, values);
        }
        for (id, grad) in ids.iter().zip(grad.chunks_exact(width.max(1))) {
            let at = self.rows.partition_point(|row| row < id);
            let row = &mut self.values[at * width..][..width];
            row.iter_mut().zip(grad).for_each(|(r, g)| *r += g);
        }
    }

    /// Writes them over the rows of a whole gradient, of `width`; all other rows become 0.
    ///
    /// # Panics
    /// If a row is not there.
    pub fn write(&self, table: &mut [f32], width: usize) {
        table.fill(0.0);
        for (row, values) in self.rows.iter().zip(self.values.chunks_exact(width.max(1))) {
            table[*row as usize * width..][..width].copy_from_slice(values);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_alone_are_the_rows_of_the_whole() {
        let mut rows = Rows::default();
        rows.add(2, &[3, 1, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        assert_eq!(rows.rows, [1, 3]);
        assert_eq!(rows.values, [3.0, 4.0, 6.0, 8.0]);
        rows.add(2, &[0, 3], &[0.5, 0.5, -6.0, 1.0]);
        assert_eq!(rows.rows, [0, 1, 3]);
        assert_eq!(rows.values, [0.5, 0.5, 3.0, 4.0, 0.0, 9.0]);
        let mut table = [7.0; 8];
        rows.write(&mut table, 2);
        assert_eq!(table, [0.5, 0.5, 3.0, 4.0, 0.0, 0.0, 0.0, 9.0]);
        // Many draws: the same bits as the whole table.
        let ids: Vec<u32> = (0..500u32).map(|i| i * i % 97).collect();
        let grad: Vec<f32> = (0..1500).map(|i| (i as f32 * 0.7).sin()).collect();
        let (mut whole, mut rows) = (vec![0.0; 97 * 3], Rows::default());
        for (ids, grad) in [(&ids[..200], &grad[..600]), (&ids[200..], &grad[600..])] {
            add_backward(&mut whole, 3, ids, grad);
            rows.add(3, ids, grad);
        }
        let mut found = vec![1.0; whole.len()];
        rows.write(&mut found, 3);
        assert_eq!(found, whole);
        rows.add(3, &[], &[]);
        assert!(rows.rows.len() < 97);
    }

    #[test]
    fn rows_and_their_gradients() {
        let table = [1.0, 2.0, 3.0, 4.0];
        assert_eq!(
            forward(&table, 2, &[1, 0, 1]),
            [3.0, 4.0, 1.0, 2.0, 3.0, 4.0]
        );
        let mut grad = [0.0; 4];
        add_backward(&mut grad, 2, &[1, 0, 1], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        assert_eq!(grad, [3.0, 4.0, 6.0, 8.0]);
    }
}
