//! What an expert has beyond the shared weights, a tensor at a time: low-rank factors, few entries, or all of it.

use polyloom_core::linalg::{Matrix, svd};
use polyloom_core::rng::Stream;
use serde::{Deserialize, Serialize};

use crate::engine::{Tensor, Value, slice, tensor};
use crate::error::{Error, Result};
use crate::ops;

/// How a difference is made small (Twin-Merging's words).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// The first singular triples of matrices; other tensors stay whole.
    #[default]
    Svd,
    /// The entries of largest magnitude.
    Magnitude,
    /// Entries drawn at random, divided by the share that is kept.
    Bernoulli,
}

/// The difference of a tensor.
#[derive(Debug, Clone)]
pub enum Part {
    /// `u diag(s) v` of a matrix `[out, in]`.
    LowRank(LowRank),
    /// Some entries; all others are 0.
    Sparse {
        /// Shape of the tensor.
        shape: Vec<usize>,
        /// A bit per entry, in row-major order, the lowest bit of a byte first.
        mask: Vec<u8>,
        /// The entries that are there, in that order.
        values: Vec<f32>,
    },
    /// All of it.
    Whole(Tensor),
}

/// Factors of a matrix.
#[derive(Debug, Clone)]
pub struct LowRank {
    /// Left vectors `[out, rank]`.
    pub u: Tensor,
    /// Singular values, falling.
    pub s: Vec<f32>,
    /// Right vectors `[rank, in]`.
    pub v: Tensor,
    /// `u diag(s)`, what the second thin product takes.
    scaled: Tensor,
}

impl LowRank {
    /// Of its factors.
    ///
    /// # Errors
    /// Shapes that do not fit together.
    pub fn new(u: Tensor, s: Vec<f32>, v: Tensor) -> Result<Self> {
        let rank = s.len();
        let fits = u.dims().len() == 2 && v.dims().len() == 2;
        if !fits || u.dims()[1] != rank || v.dims()[0] != rank {
            return Err(Error::shape(
                "low-rank part",
                format!("factors of {:?}, {rank} and {:?}", u.dims(), v.dims()),
            ));
        }
        let values = slice(&u)?;
        let scaled = values.iter().enumerate();
        let scaled = scaled.map(|(i, x)| x * s[i % rank.max(1)]).collect();
        let scaled = tensor(scaled, u.dims())?;
        drop(values);
        Ok(Self { u, s, v, scaled })
    }

    /// The first `rank` triples of a matrix.
    ///
    /// # Errors
    /// A matrix with numbers that are not finite.
    pub fn of(matrix: &Tensor, rank: usize) -> Result<Self> {
        let &[rows, cols] = matrix.dims() else {
            return Err(Error::shape("low-rank part", "of what is no matrix"));
        };
        let found = svd(&Matrix::from_f32(rows, cols, &slice(matrix)?))
            .map_err(|e| Error::shape("low-rank part", format!("the matrix {e}")))?;
        let rank = rank.min(found.s.len());
        Self::new(
            tensor(found.u.first_columns(rank).to_f32(), (rows, rank))?,
            found.s[..rank].iter().map(|s| *s as f32).collect(),
            tensor(found.vt.first_rows(rank).to_f32(), (rank, cols))?,
        )
    }

    /// `x [n, in]` times the transposed matrix, as two thin products.
    ///
    /// # Errors
    /// Inputs of another width.
    pub fn apply(&self, x: &Value) -> Result<Value> {
        let narrow = ops::linear(x, &Value::constant(self.v.clone()), None)?;
        ops::linear(&narrow, &Value::constant(self.scaled.clone()), None)
    }

    /// `u diag(s)`, `[out, rank]`: what `v x` goes through.
    #[must_use]
    pub fn scaled(&self) -> &Tensor {
        &self.scaled
    }

    /// Rank.
    #[must_use]
    pub fn rank(&self) -> usize {
        self.s.len()
    }
}

impl Part {
    /// The difference made small: `None` where nothing is left of it. A `density` of 1 keeps all; scalars and rows are
    /// never compressed. As in the release, counts are cut to whole numbers. `draws` is what "bernoulli" draws from.
    ///
    /// # Errors
    /// Numbers that are not finite.
    pub fn compress(
        difference: &Tensor,
        how: Compression,
        density: f64,
        draws: Stream,
    ) -> Result<Option<Self>> {
        let values = slice(difference)?;
        if let Some(at) = values.iter().position(|x| !x.is_finite()) {
            return Err(Error::shape(
                "part",
                format!("number {at} of the difference is {}", values[at]),
            ));
        }
        if values.iter().all(|x| *x == 0.0) {
            return Ok(None);
        }
        let dims = difference.dims();
        let whole = || Ok(Some(Self::Whole(difference.clone())));
        if density >= 1.0 || dims.len() < 2 {
            return whole();
        }
        let n = values.len();
        match how {
            Compression::Svd => {
                let &[rows, cols] = dims else {
                    return whole();
                };
                let rank = share(density, rows.min(cols));
                if rank == 0 {
                    return Ok(None);
                }
                let part = Self::LowRank(LowRank::of(difference, rank)?);
                // Factors that are no smaller than their product serve nobody.
                Ok(Some(match rank * (rows + cols) >= rows * cols {
                    true => Self::Whole(part.dense()?),
                    false => part,
                }))
            }
            Compression::Magnitude => {
                let keep = share(density, n);
                let mut order: Vec<u32> = (0..n as u32).collect();
                let larger = |a: &u32, b: &u32| {
                    let size = |i: u32| values[i as usize].abs();
                    size(*b).total_cmp(&size(*a)).then(a.cmp(b))
                };
                if keep > 0 && keep < n {
                    order.select_nth_unstable_by(keep - 1, larger);
                }
                order.truncate(keep);
                order.sort_unstable();
                Ok(Self::sparse(dims, &values, &order, 1.0))
            }
            Compression::Bernoulli => {
                let kept = |i: &u32| f64::from(draws.uniform(u64::from(*i))) < density;
                let order: Vec<u32> = (0..n as u32).filter(kept).collect();
                Ok(Self::sparse(dims, &values, &order, (1.0 / density) as f32))
            }
        }
    }

    fn sparse(dims: &[usize], values: &[f32], at: &[u32], factor: f32) -> Option<Self> {
        let mut mask = vec![0u8; values.len().div_ceil(8)];
        for i in at {
            mask[*i as usize / 8] |= 1 << (i % 8);
        }
        (!at.is_empty()).then(|| Self::Sparse {
            shape: dims.to_vec(),
            mask,
            values: at.iter().map(|i| factor * values[*i as usize]).collect(),
        })
    }

    /// Its shape.
    #[must_use]
    pub fn shape(&self) -> Vec<usize> {
        match self {
            Self::LowRank(f) => vec![f.u.dims()[0], f.v.dims()[1]],
            Self::Sparse { shape, .. } => shape.clone(),
            Self::Whole(t) => t.dims().to_vec(),
        }
    }

    /// Its rank, where it is one of few.
    #[must_use]
    pub fn rank(&self) -> Option<usize> {
        match self {
            Self::LowRank(f) => Some(f.rank()),
            _ => None,
        }
    }

    /// Adds `weight` times the difference to numbers in row-major order.
    ///
    /// # Errors
    /// Another count of numbers.
    pub fn add_to(&self, out: &mut [f32], weight: f32) -> Result<()> {
        if out.len() != self.shape().iter().product::<usize>() {
            return Err(Error::shape("part", "put on a tensor of another shape"));
        }
        match self {
            Self::LowRank(f) => {
                let product = ops::product(
                    &Value::constant(f.scaled.clone()),
                    &Value::constant(f.v.clone()),
                )?;
                let product = slice(product.data())?;
                out.iter_mut()
                    .zip(&*product)
                    .for_each(|(o, x)| *o += weight * x);
            }
            Self::Sparse { mask, values, .. } => {
                let mut next = values.iter();
                for (i, o) in out.iter_mut().enumerate() {
                    if mask[i / 8] >> (i % 8) & 1 == 1 {
                        *o += weight * next.next().copied().unwrap_or(0.0);
                    }
                }
            }
            Self::Whole(t) => {
                let values = slice(t)?;
                out.iter_mut()
                    .zip(&*values)
                    .for_each(|(o, x)| *o += weight * x);
            }
        }
        Ok(())
    }

    /// The difference in full.
    ///
    /// # Errors
    /// Never in practice: shapes that were checked.
    pub fn dense(&self) -> Result<Tensor> {
        let shape = self.shape();
        let mut out = vec![0f32; shape.iter().product()];
        self.add_to(&mut out, 1.0)?;
        tensor(out, shape)
    }
}

/// `int(density * n)` in f64, never more than `n`.
fn share(density: f64, n: usize) -> usize {
    ((density * n as f64).max(0.0) as usize).min(n)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn on(values: &[f32], shape: &[usize]) -> Tensor {
        tensor(values.to_vec(), shape).unwrap()
    }

    fn made(values: &[f32], shape: &[usize], how: Compression, density: f64) -> Option<Part> {
        Part::compress(&on(values, shape), how, density, Stream::new(1, "x", 0)).unwrap()
    }

    #[test]
    fn counts_are_cut_as_the_release_does() {
        // 1 - 0.8 lies below 0.2.
        assert_eq!((share(1.0 - 0.8, 10), share(0.2, 10)), (1, 2));
        assert_eq!(
            (share(0.0, 10), share(-1.0, 10), share(7.0, 10)),
            (0, 0, 10)
        );
    }

    #[test]
    fn magnitude_keeps_the_largest_and_the_first_of_equals() {
        let part = made(
            &[1.0, -3.0, 2.0, -2.0],
            &[2, 2],
            Compression::Magnitude,
            0.5,
        )
        .unwrap();
        assert_eq!(
            *slice(&part.dense().unwrap()).unwrap(),
            [0.0, -3.0, 2.0, 0.0]
        );
        assert!(made(&[1.0, 2.0], &[1, 2], Compression::Magnitude, 0.1).is_none());
    }

    #[test]
    fn rows_are_never_compressed_and_nothing_is_no_part() {
        let row = made(&[1.0, 2.0, 3.0], &[3], Compression::Svd, 0.0).unwrap();
        assert!(matches!(row, Part::Whole(_)));
        assert!(made(&[0.0; 4], &[2, 2], Compression::Svd, 1.0).is_none());
        assert!(made(&[1.0; 4], &[2, 2], Compression::Svd, 0.0).is_none());
        let whole = made(&[1.0; 4], &[2, 2], Compression::Magnitude, 1.0).unwrap();
        assert!(matches!(whole, Part::Whole(_)));
        let nan = Part::compress(
            &on(&[f32::NAN, 1.0], &[2]),
            Compression::Svd,
            0.5,
            Stream::new(1, "x", 0),
        );
        assert!(nan.unwrap_err().to_string().contains("number 0"));
    }

    #[test]
    fn thin_products_are_the_product_with_the_matrix() {
        // Of rank one: all of it in one triple.
        let part = made(
            &[1.0, 2.0, 2.0, 4.0, 3.0, 6.0],
            &[3, 2],
            Compression::Svd,
            0.5,
        )
        .unwrap();
        let Part::LowRank(factors) = &part else {
            panic!("no factors");
        };
        assert_eq!(factors.rank(), 1);
        let x = Value::constant(on(&[1.0, 1.0, 0.0, 2.0], &[2, 2]));
        let y = factors.apply(&x).unwrap();
        let whole = Value::constant(part.dense().unwrap());
        let other = ops::linear(&x, &whole, None).unwrap();
        for (a, b) in slice(y.data())
            .unwrap()
            .iter()
            .zip(&*slice(other.data()).unwrap())
        {
            assert!((a - b).abs() < 1e-5);
        }
        assert!((slice(y.data()).unwrap()[2] - 9.0).abs() < 1e-5);
    }

    #[test]
    fn bernoulli_keeps_the_mean() {
        let n = 4000;
        let part = made(&vec![1.0; n], &[40, 100], Compression::Bernoulli, 0.25).unwrap();
        let sum: f32 = slice(&part.dense().unwrap()).unwrap().iter().sum();
        assert!((sum / n as f32 - 1.0).abs() < 0.1, "{sum}");
    }
}
