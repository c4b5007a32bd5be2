//! Merges whose result is one weighted sum per tensor (or row), with weights from the inputs' dot products.

use super::linear::weighted_sum;
use super::method::{Chunk, Kernel, Next, Partial, Unit, typed};
use super::survey::{BlockSums, Total};
use crate::error::Result;

/// Dot products of all pairs of vectors.
#[derive(Debug, Clone)]
pub struct Gram {
    n: usize,
    dots: Vec<f64>,
}

impl Gram {
    fn new(n: usize, total: &Total) -> Self {
        let mut dots = vec![0.0; n * n];
        for (q, (i, j)) in pairs(n).enumerate() {
            dots[i * n + j] = total.get(q);
            dots[j * n + i] = total.get(q);
        }
        Self { n, dots }
    }

    /// From whole vectors.
    pub fn of(vectors: &[&[f32]]) -> Self {
        let mut total = Total::new(pairs(vectors.len()).count());
        total.absorb(&survey(vectors));
        Self::new(vectors.len(), &total)
    }

    /// Number of vectors.
    #[allow(clippy::len_without_is_empty, reason = "a merge has inputs")]
    pub fn len(&self) -> usize {
        self.n
    }

    /// Dot product of vectors `i` and `j`.
    pub fn dot(&self, i: usize, j: usize) -> f64 {
        self.dots[i * self.n + j]
    }

    /// Length of vector `i`.
    pub fn norm(&self, i: usize) -> f64 {
        self.dot(i, i).sqrt()
    }

    /// Divides every vector by a length of its own.
    #[must_use]
    pub fn divided(&self, lengths: &[f64]) -> Self {
        let mut out = self.clone();
        for i in 0..self.n {
            for j in 0..self.n {
                out.dots[i * self.n + j] /= lengths[i] * lengths[j];
            }
        }
        out
    }

    /// Adds the dot products of further elements of the same vectors.
    ///
    /// # Panics
    /// If it is of another number of vectors.
    pub fn add(&mut self, other: &Self) {
        assert_eq!(self.n, other.n, "dot products: vectors");
        for (a, b) in self.dots.iter_mut().zip(&other.dots) {
            *a += b;
        }
    }

    /// Of some of the vectors.
    #[must_use]
    pub fn kept(&self, vectors: &[usize]) -> Self {
        let pairs = vectors
            .iter()
            .flat_map(|i| vectors.iter().map(|j| self.dot(*i, *j)));
        Self {
            n: vectors.len(),
            dots: pairs.collect(),
        }
    }

    /// Dot product of vector `i` with the weighted sum of all.
    pub fn dot_sum(&self, i: usize, weights: &[f64]) -> f64 {
        (0..self.n).map(|j| self.dot(i, j) * weights[j]).sum()
    }

    /// Length of the weighted sum of all vectors.
    pub fn norm_of_sum(&self, weights: &[f64]) -> f64 {
        let square: f64 = (0..self.n)
            .map(|i| weights[i] * self.dot_sum(i, weights))
            .sum();
        square.max(0.0).sqrt()
    }
}

fn pairs(n: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..n).flat_map(move |i| (i..n).map(move |j| (i, j)))
}

fn survey(vectors: &[&[f32]]) -> BlockSums {
    let mut sums = BlockSums::new(pairs(vectors.len()).count());
    for (q, (i, j)) in pairs(vectors.len()).enumerate() {
        sums.dot(q, vectors[i], vectors[j]);
    }
    sums
}

/// Factors of the vectors, from their dot products.
pub type Solve = Box<dyn Fn(&Gram) -> Result<Vec<f64>> + Send + Sync>;

/// The kernel: `out = sum_i solve(gram)_i x_i`.
pub struct Combine {
    /// Vector 0 is the base.
    pub with_base: bool,
    /// Every row on its own; else one set of factors for the tensor.
    pub by_row: bool,
    /// The method.
    pub solve: Solve,
    total: Total,
    n: usize,
    factors: Vec<f32>,
}

impl Combine {
    /// A kernel over `inputs` vectors (and the base).
    pub fn new(inputs: usize, with_base: bool, by_row: bool, solve: Solve) -> Self {
        let n = inputs + usize::from(with_base);
        Self {
            with_base,
            by_row,
            solve,
            total: Total::new(pairs(n).count()),
            n,
            factors: Vec::new(),
        }
    }

    fn vectors<'a>(&self, chunk: &Chunk<'a>) -> Vec<&'a [f32]> {
        let base = chunk.base.filter(|_| self.with_base);
        base.into_iter()
            .chain(chunk.inputs.iter().copied())
            .collect()
    }

    fn factors(&self, gram: &Gram) -> Result<Vec<f32>> {
        Ok((self.solve)(gram)?.into_iter().map(|x| x as f32).collect())
    }
}

impl Kernel for Combine {
    fn surveys(&self) -> bool {
        !self.by_row
    }

    fn unit(&self) -> Unit {
        if self.by_row { Unit::Row } else { Unit::Chunk }
    }

    fn survey(&self, _: usize, chunk: &Chunk) -> Result<Partial> {
        Ok(Box::new(survey(&self.vectors(chunk))))
    }

    fn absorb(&mut self, _: usize, partial: Partial) -> Result<()> {
        self.total.absorb(&typed::<BlockSums>(partial)?);
        Ok(())
    }

    fn finish(&mut self, _: usize) -> Result<Next> {
        self.factors = self.factors(&Gram::new(self.n, &self.total))?;
        Ok(Next::Done)
    }

    fn apply(&self, chunk: &Chunk, out: &mut [f32]) -> Result<()> {
        let vectors = self.vectors(chunk);
        if !self.by_row {
            weighted_sum(&self.factors, &vectors, out);
            return Ok(());
        }
        let row = chunk.tensor.last_axis().max(1);
        for (r, out) in out.chunks_mut(row).enumerate() {
            let at = r * row..r * row + out.len();
            let vectors: Vec<&[f32]> = vectors.iter().map(|v| &v[at.clone()]).collect();
            weighted_sum(&self.factors(&Gram::of(&vectors))?, &vectors, out);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dots_by_hand() {
        let g = Gram::of(&[&[3.0, 4.0], &[1.0, -1.0]]);
        assert_eq!(
            (g.len(), g.norm(0), g.dot(0, 1), g.dot(1, 1)),
            (2, 5.0, -1.0, 2.0)
        );
        // 2 x_0 - x_1 = (5, 9).
        assert_eq!(g.dot_sum(0, &[2.0, -1.0]), 51.0);
        assert!((g.norm_of_sum(&[2.0, -1.0]) - 106f64.sqrt()).abs() < 1e-12);
        assert_eq!(g.divided(&[5.0, 1.0]).dot(0, 1), -0.2);
        let mut twice = g.kept(&[1]);
        twice.add(&g.kept(&[1]));
        assert_eq!((twice.len(), twice.dot(0, 0)), (1, 4.0));
    }
}
