//! Vectors side by side, and what two sets of them have to do with each other.

use polyloom::MergeError;
use polyloom_core::nn::matmul::{Threads, View, product};

use crate::error::Result;

/// Vectors of one width, row after row.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Points {
    /// The numbers.
    pub values: Vec<f32>,
    /// Numbers of a vector.
    pub width: usize,
}

/// Vectors with the expert that each belongs to.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Labelled {
    /// The vectors.
    pub points: Points,
    /// Number of the expert of each.
    pub labels: Vec<u32>,
}

impl Points {
    /// Of numbers that are whole rows.
    ///
    /// # Errors
    /// Numbers that are no whole rows.
    pub fn new(values: Vec<f32>, width: usize) -> Result<Self> {
        if width == 0 || !values.len().is_multiple_of(width) {
            let what = format!("{} numbers are no vectors of {width}", values.len());
            return Err(MergeError::plan("bad-features", what).into());
        }
        Ok(Self { values, width })
    }

    /// Number of vectors.
    #[must_use]
    pub fn len(&self) -> usize {
        self.values.len() / self.width.max(1)
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// One vector after the other.
    pub fn rows(&self) -> std::slice::ChunksExact<'_, f32> {
        self.values.chunks_exact(self.width.max(1))
    }

    /// One vector.
    #[must_use]
    pub fn row(&self, i: usize) -> &[f32] {
        &self.values[i * self.width..(i + 1) * self.width]
    }

    /// Some of the vectors, in the order asked for.
    #[must_use]
    pub fn taken(&self, rows: &[usize]) -> Self {
        Self {
            values: rows.iter().flat_map(|&i| self.row(i)).copied().collect(),
            width: self.width,
        }
    }

    /// The same vectors at length 1; a vector of zeros stays one.
    #[must_use]
    pub fn unit(mut self) -> Self {
        for row in self.values.chunks_exact_mut(self.width.max(1)) {
            let squares: f64 = row.iter().map(|x| f64::from(*x).powi(2)).sum();
            // As PyTorch's cosine: lengths below 1e-8 count as 1e-8.
            let factor = 1.0 / squares.sqrt().max(1e-8);
            row.iter_mut()
                .for_each(|x| *x = (f64::from(*x) * factor) as f32);
        }
        self
    }

    /// Inner products with other vectors, `[these, others]`.
    #[must_use]
    pub fn products(&self, others: &Self) -> Vec<f32> {
        product(
            1.0,
            View::new(&self.values, self.len(), self.width),
            View::new(&others.values, others.len(), others.width).t(),
            Threads::All,
        )
    }

    /// The mean of some vectors.
    #[must_use]
    pub fn mean(&self, rows: impl ExactSizeIterator<Item = usize>) -> Vec<f32> {
        let n = rows.len().max(1) as f64;
        let mut sums = vec![0f64; self.width];
        for i in rows {
            for (s, x) in sums.iter_mut().zip(self.row(i)) {
                *s += f64::from(*x);
            }
        }
        sums.into_iter().map(|s| (s / n) as f32).collect()
    }
}

impl Labelled {
    /// Vectors of equal width with a label each, every expert with at least one.
    ///
    /// # Errors
    /// Lengths that differ, labels beyond the experts, an expert without a vector, numbers that are not finite.
    pub fn check(&self, experts: usize) -> Result<()> {
        let wrong = |what: String| Err(MergeError::plan("bad-features", what).into());
        if self.points.len() != self.labels.len() {
            let (n, m) = (self.points.len(), self.labels.len());
            return wrong(format!("{n} vectors with {m} labels"));
        }
        if self.points.values.iter().any(|x| !x.is_finite()) {
            return wrong("features hold a value that is not finite: the model overflows".into());
        }
        let mut seen = vec![false; experts];
        for &label in &self.labels {
            match seen.get_mut(label as usize) {
                Some(seen) => *seen = true,
                None => return wrong(format!("label {label} for {experts} experts")),
            }
        }
        match seen.iter().position(|s| !s) {
            Some(i) => wrong(format!("expert {i} has no examples")),
            None => Ok(()),
        }
    }

    /// Rows of each of some experts, in their order.
    #[must_use]
    pub fn by_expert(&self, experts: usize) -> Vec<Vec<usize>> {
        let mut found = vec![Vec::new(); experts];
        for (i, &label) in self.labels.iter().enumerate() {
            if let Some(list) = found.get_mut(label as usize) {
                list.push(i);
            }
        }
        found
    }

    /// Some of the rows.
    #[must_use]
    pub fn taken(&self, rows: &[usize]) -> Self {
        Self {
            points: self.points.taken(rows),
            labels: rows.iter().map(|&i| self.labels[i]).collect(),
        }
    }
}
