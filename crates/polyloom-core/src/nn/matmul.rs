//! Products of matrices that lie inside slices, by the `gemm` crate (which takes the widest instructions by itself).

/// A matrix inside a slice, read.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    data: &'a [f32],
    rows: usize,
    cols: usize,
    row_stride: usize,
    col_stride: usize,
}

/// A matrix inside a slice, written. Its columns lie side by side.
#[derive(Debug)]
pub struct ViewMut<'a> {
    data: &'a mut [f32],
    rows: usize,
    cols: usize,
    row_stride: usize,
}

fn fits(len: usize, rows: usize, cols: usize, row_stride: usize, col_stride: usize) {
    let last = rows.saturating_sub(1) * row_stride + cols.saturating_sub(1) * col_stride;
    assert!(
        rows == 0 || cols == 0 || last < len,
        "a matrix of {rows} x {cols}, strides {row_stride} and {col_stride}, does not fit {len} values"
    );
}

impl<'a> View<'a> {
    /// Row after row.
    ///
    /// # Panics
    /// If there are not that many values.
    pub fn new(data: &'a [f32], rows: usize, cols: usize) -> Self {
        Self::strided(data, rows, cols, cols)
    }

    /// Rows that begin `row_stride` apart.
    ///
    /// # Panics
    /// As [`View::new`].
    pub fn strided(data: &'a [f32], rows: usize, cols: usize, row_stride: usize) -> Self {
        fits(data.len(), rows, cols, row_stride, 1);
        Self {
            data,
            rows,
            cols,
            row_stride,
            col_stride: 1,
        }
    }

    /// Rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Columns.
    pub fn columns(&self) -> usize {
        self.cols
    }

    /// The transpose, of the same values.
    #[must_use]
    pub fn t(self) -> Self {
        Self {
            rows: self.cols,
            cols: self.rows,
            row_stride: self.col_stride,
            col_stride: self.row_stride,
            ..self
        }
    }
}

impl<'a> ViewMut<'a> {
    /// Row after row.
    ///
    /// # Panics
    /// If there are not that many values.
    pub fn new(data: &'a mut [f32], rows: usize, cols: usize) -> Self {
        Self::strided(data, rows, cols, cols)
    }

    /// Rows that begin `row_stride` apart.
    ///
    /// # Panics
    /// As [`ViewMut::new`], and if rows overlap.
    pub fn strided(data: &'a mut [f32], rows: usize, cols: usize, row_stride: usize) -> Self {
        fits(data.len(), rows, cols, row_stride, 1);
        assert!(rows < 2 || row_stride >= cols, "rows overlap");
        Self {
            data,
            rows,
            cols,
            row_stride,
        }
    }
}

/// Threads of a product.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Threads {
    /// The calling one: for products inside a loop that is shared out already.
    One,
    /// All of the current pool.
    All,
}

/// `out = alpha a b`, or with `add` `out += alpha a b`.
///
/// # Panics
/// If the shapes do not fit together.
#[allow(
    clippy::needless_pass_by_value,
    reason = "a view that is written is made for one product"
)]
pub fn matmul(out: ViewMut<'_>, add: bool, alpha: f32, a: View<'_>, b: View<'_>, threads: Threads) {
    assert!(
        a.cols == b.rows && out.rows == a.rows && out.cols == b.cols,
        "product of {} x {} and {} x {} into {} x {}",
        a.rows,
        a.cols,
        b.rows,
        b.cols,
        out.rows,
        out.cols
    );
    if out.rows == 0 || out.cols == 0 {
        return;
    }
    if a.cols == 0 {
        if !add {
            for row in 0..out.rows {
                out.data[row * out.row_stride..][..out.cols].fill(0.0);
            }
        }
        return;
    }
    // SAFETY: `fits` checked, when the view was made, that every element that shape and stride reach lies inside its slice;
    // `out` is borrowed alone and its rows do not overlap.
    unsafe {
        raw(
            out.data.as_mut_ptr(),
            out.row_stride,
            add,
            alpha,
            a,
            b,
            threads,
        );
    }
}

/// The product in a vector of its own, which is not filled with zeros first.
///
/// # Panics
/// If the shapes do not fit together.
pub fn product(alpha: f32, a: View<'_>, b: View<'_>, threads: Threads) -> Vec<f32> {
    assert!(
        a.cols == b.rows,
        "product of {} x {} and {} x {}",
        a.rows,
        a.cols,
        b.rows,
        b.cols
    );
    let n = a.rows * b.cols;
    if n == 0 || a.cols == 0 {
        return vec![0f32; n];
    }
    let mut out = Vec::<f32>::with_capacity(n);
    // SAFETY: the capacity holds `a.rows` rows of `b.cols`, and a product that does not add writes each of them without
    // reading.
    unsafe {
        raw(out.as_mut_ptr(), b.cols, false, alpha, a, b, threads);
        out.set_len(n);
    }
    out
}

/// # Safety
/// `out` holds `a.rows` rows of `b.cols` elements, `stride` apart, that nothing else reads or writes; initialised where
/// `add`. `a.cols` equals `b.rows`.
unsafe fn raw(
    out: *mut f32,
    stride: usize,
    add: bool,
    alpha: f32,
    a: View<'_>,
    b: View<'_>,
    threads: Threads,
) {
    let parallelism = match threads {
        Threads::All if rayon::current_num_threads() > 1 => gemm::Parallelism::Rayon(0),
        _ => gemm::Parallelism::None,
    };
    let wide = |n: usize| n as isize;
    // SAFETY: the caller vouches for `out`; `fits` checked, when the views were made, that every element of theirs lies
    // inside its slice. Strides of slices fit an isize.
    unsafe {
        gemm::gemm(
            a.rows,
            b.cols,
            a.cols,
            out,
            1,
            wide(stride),
            add,
            a.data.as_ptr(),
            wide(a.col_stride),
            wide(a.row_stride),
            b.data.as_ptr(),
            wide(b.col_stride),
            wide(b.row_stride),
            if add { 1.0 } else { 0.0 },
            alpha,
            false,
            false,
            false,
            parallelism,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_hand() {
        let (a, b) = (
            [1.0, 2.0, 3.0, 4.0, 5.0, 6.0],
            [1.0, 0.0, 2.0, 1.0, 0.0, 3.0],
        );
        let mut out = [9.0; 4];
        matmul(
            ViewMut::new(&mut out, 2, 2),
            false,
            1.0,
            View::new(&a, 2, 3),
            View::new(&b, 3, 2),
            Threads::All,
        );
        assert_eq!(out, [5.0, 11.0, 14.0, 23.0]);
        matmul(
            ViewMut::new(&mut out, 2, 2),
            true,
            -2.0,
            View::new(&a, 2, 3),
            View::new(&b, 2, 3).t(),
            Threads::One,
        );
        assert_eq!(out, [5.0 - 14.0, 11.0 - 20.0, 14.0 - 32.0, 23.0 - 44.0]);
        // Every second column group of a wider matrix.
        let mut wide = [0.0; 8];
        matmul(
            ViewMut::strided(&mut wide[2..], 2, 2, 4),
            false,
            1.0,
            View::strided(&a, 2, 1, 3),
            View::new(&[1.0, 2.0], 1, 2),
            Threads::One,
        );
        assert_eq!(wide, [0.0, 0.0, 1.0, 2.0, 0.0, 0.0, 4.0, 8.0]);
        matmul(
            ViewMut::new(&mut wide[..2], 1, 2),
            false,
            1.0,
            View::new(&[], 1, 0),
            View::new(&[], 0, 2),
            Threads::One,
        );
        assert_eq!(wide[..2], [0.0, 0.0]);
    }

    #[test]
    #[should_panic(expected = "does not fit")]
    fn views_are_checked() {
        let _ = View::strided(&[0.0; 5], 2, 3, 3);
    }
}
