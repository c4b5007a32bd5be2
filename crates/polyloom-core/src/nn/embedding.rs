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

#[cfg(test)]
mod tests {
    use super::*;

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
