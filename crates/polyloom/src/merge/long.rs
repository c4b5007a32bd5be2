//! A matrix seen along its longer side. Blocks of it are read and blocks of the result written, so that nothing of its
//! size is held: what stays is square in the shorter side.

use std::ops::Range;

use polyloom_core::linalg::{Gram, Matrix, svd};

use super::method::{Chunk, Pieces, TensorJob};
use crate::error::{MergeError, Result};

/// Rows of a block. A constant, for the last bits of sums over blocks depend on it.
const BLOCK: usize = 256;

/// A matrix and its result; the longer side counts as rows, the shorter as columns.
pub(super) struct Long<'a> {
    pieces: &'a mut dyn Pieces,
    name: &'a str,
    /// Of the tensor as it is stored.
    shape: (usize, usize),
    buffer: Vec<f32>,
}

/// Left singular vectors, as columns.
pub(super) enum Left {
    /// What the matrix's rows are multiplied with to get them.
    Through(Matrix),
    /// Themselves, where the spectrum was too wide for that.
    Held(Matrix),
}

impl Left {
    /// Their rows `range`, for those rows of the matrix.
    pub(super) fn rows(&self, range: &Range<usize>, of: &Matrix) -> Matrix {
        match self {
            Self::Through(factor) => of.times(factor),
            Self::Held(all) => Matrix {
                rows: range.len(),
                cols: all.cols,
                data: all.data[range.start * all.cols..range.end * all.cols].to_vec(),
            },
        }
    }
}

/// The first singular triples of a matrix.
pub(super) struct Triples {
    pub(super) left: Left,
    pub(super) s: Vec<f64>,
    /// Right vectors as rows.
    pub(super) right: Matrix,
}

impl<'a> Long<'a> {
    /// Of a matrix `tensor`.
    pub(super) fn new(tensor: &'a TensorJob, pieces: &'a mut dyn Pieces) -> Self {
        Self {
            pieces,
            name: &tensor.name,
            shape: (tensor.shape[0], tensor.shape[1]),
            buffer: Vec::new(),
        }
    }

    fn wide(&self) -> bool {
        self.shape.0 < self.shape.1
    }

    /// The shorter side.
    pub(super) fn columns(&self) -> usize {
        self.shape.0.min(self.shape.1)
    }

    /// The longer side.
    pub(super) fn rows(&self) -> usize {
        self.shape.0.max(self.shape.1)
    }

    /// True if the rows here are those of the tensor as it is stored.
    pub(super) fn upright(&self) -> bool {
        !self.wide()
    }

    /// All rows, block by block.
    pub(super) fn blocks(&self) -> impl Iterator<Item = Range<usize>> + use<> {
        let n = self.rows();
        (0..n).step_by(BLOCK).map(move |s| s..(s + BLOCK).min(n))
    }

    /// Adds rows of an input to `block`.
    pub(super) fn add(
        &mut self,
        input: usize,
        rows: &Range<usize>,
        block: &mut Matrix,
    ) -> Result<()> {
        let (n, stored) = (self.columns(), self.shape.1);
        let wide = self.wide();
        self.buffer
            .resize(if wide { rows.len() } else { rows.len() * n }, 0.0);
        if !wide {
            self.pieces.read(input, rows.start * n, &mut self.buffer)?;
            for (b, v) in block.data.iter_mut().zip(&self.buffer) {
                *b += f64::from(*v);
            }
            return Ok(());
        }
        for c in 0..n {
            let start = c * stored + rows.start;
            self.pieces.read(input, start, &mut self.buffer)?;
            for (row, v) in block.data.chunks_exact_mut(n).zip(&self.buffer) {
                row[c] += f64::from(*v);
            }
        }
        Ok(())
    }

    /// Rows of an input.
    pub(super) fn read(&mut self, input: usize, rows: &Range<usize>) -> Result<Matrix> {
        let mut block = Matrix::zeros(rows.len(), self.columns());
        self.add(input, rows, &mut block)?;
        Ok(block)
    }

    /// Rows of the sum of the first `n` inputs.
    pub(super) fn sum(&mut self, n: usize, rows: &Range<usize>) -> Result<Matrix> {
        let mut block = Matrix::zeros(rows.len(), self.columns());
        for input in 0..n {
            self.add(input, rows, &mut block)?;
        }
        Ok(block)
    }

    /// Writes rows of the result, times `factor`.
    pub(super) fn write(&mut self, rows: &Range<usize>, block: &Matrix, factor: f64) -> Result<()> {
        let (n, stored) = (self.columns(), self.shape.1);
        self.buffer.clear();
        if !self.wide() {
            let values = block.data.iter().map(|v| (v * factor) as f32);
            self.buffer.extend(values);
            return self.pieces.write(rows.start * n, &mut self.buffer);
        }
        for c in 0..n {
            self.buffer.clear();
            let values = block.data.iter().skip(c).step_by(n);
            self.buffer.extend(values.map(|v| (v * factor) as f32));
            self.pieces
                .write(c * stored + rows.start, &mut self.buffer)?;
        }
        Ok(())
    }

    /// Writes zeros.
    pub(super) fn write_zeros(&mut self) -> Result<()> {
        for rows in self.blocks() {
            let zeros = Matrix::zeros(rows.len(), self.columns());
            self.write(&rows, &zeros, 1.0)?;
        }
        Ok(())
    }

    /// The Gram matrix of the rows that `make` makes, of `columns` columns.
    pub(super) fn gram(
        &mut self,
        columns: usize,
        mut make: impl FnMut(&mut Self, &Range<usize>) -> Result<Matrix>,
    ) -> Result<Gram> {
        let mut gram = Gram::new(columns);
        for rows in self.blocks() {
            gram.add(&make(self, &rows)?);
        }
        Ok(gram)
    }

    /// All rows that `make` makes: for the full decomposition.
    pub(super) fn whole(
        &mut self,
        columns: usize,
        mut make: impl FnMut(&mut Self, &Range<usize>) -> Result<Matrix>,
    ) -> Result<Matrix> {
        let mut all = Matrix::zeros(self.rows(), columns);
        for rows in self.blocks() {
            all.data[rows.start * columns..rows.end * columns]
                .copy_from_slice(&make(self, &rows)?.data);
        }
        Ok(all)
    }

    /// The first `n` singular triples of the matrix whose rows `make` makes. A matrix of zeros has unit vectors.
    pub(super) fn triples(
        &mut self,
        n: usize,
        mut make: impl FnMut(&mut Self, &Range<usize>) -> Result<Matrix>,
    ) -> Result<Triples> {
        let k = self.columns();
        let unit = |rows: usize, cols: usize| {
            let mut m = Matrix::zeros(rows, cols);
            (0..rows.min(cols)).for_each(|i| m.data[i * cols + i] = 1.0);
            m
        };
        if n == 0 {
            return Ok(Triples {
                left: Left::Through(Matrix::zeros(k, 0)),
                s: Vec::new(),
                right: Matrix::zeros(0, k),
            });
        }
        let gram = self.gram(k, &mut make)?;
        if gram.is_zero() {
            return Ok(Triples {
                left: Left::Held(unit(self.rows(), n)),
                s: vec![0.0; n],
                right: unit(n, k),
            });
        }
        if let Some(mut found) = gram.spectrum(n - 1) {
            found.s.truncate(n);
            let inverse: Vec<f64> = found.s.iter().map(|s| 1.0 / s).collect();
            let first = found.vectors.first_columns(n);
            return Ok(Triples {
                right: first.transposed(),
                left: Left::Through(first.scale_columns(&inverse)),
                s: found.s,
            });
        }
        let whole = self.whole(k, make)?;
        let all = self.trusted(svd(&whole))?;
        Ok(Triples {
            left: Left::Held(all.u.first_columns(n)),
            s: all.s[..n].to_vec(),
            right: all.vt.first_rows(n),
        })
    }

    /// Says of which tensor a decomposition failed.
    pub(super) fn trusted<T>(&self, found: std::result::Result<T, String>) -> Result<T> {
        found.map_err(|e| {
            MergeError::plan("decomposition", format!("tensor `{}`: {e}", self.name))
                .hint("average it instead: add a part of its name to `exclude`")
        })
    }
}

/// A chunk that is a whole tensor, and its result.
pub(super) struct Held<'a> {
    pub(super) inputs: &'a [&'a [f32]],
    pub(super) out: &'a mut [f32],
}

impl<'a> Held<'a> {
    pub(super) fn new(chunk: &'a Chunk, out: &'a mut [f32]) -> Self {
        Self {
            inputs: chunk.inputs,
            out,
        }
    }
}

impl Pieces for Held<'_> {
    fn read(&mut self, input: usize, start: usize, out: &mut [f32]) -> Result<()> {
        out.copy_from_slice(&self.inputs[input][start..start + out.len()]);
        Ok(())
    }

    fn write(&mut self, start: usize, values: &mut [f32]) -> Result<()> {
        self.out[start..start + values.len()].copy_from_slice(values);
        Ok(())
    }
}
