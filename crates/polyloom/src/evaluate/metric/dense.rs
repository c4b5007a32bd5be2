//! A value per pixel: classes, depths, surface normals, edges.
//!
//! All count over the pixels of all examples together, and can be filled example by example and merged.

use crate::evaluate::error::same_length;
use crate::evaluate::sum::Sum;
use crate::evaluate::{EvalError, Result};

/// The class that says "no class": such true pixels are left out (PASCAL VOC's border).
pub const VOID: u32 = 255;

/// True and predicted class of every pixel, counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClassMaps {
    classes: usize,
    /// Row-major, true x predicted; the last column is of predictions that are no class.
    counts: Vec<u64>,
}

impl ClassMaps {
    /// Nothing counted yet.
    ///
    /// # Errors
    /// No class.
    pub fn new(classes: usize) -> Result<Self> {
        if classes == 0 {
            return Err(EvalError::Empty {
                what: "classes of a map",
            });
        }
        Ok(Self {
            classes,
            counts: vec![0; classes * (classes + 1)],
        })
    }

    /// Counts the pixels of an example; true pixels of [`VOID`] are left out, unless there are so many classes.
    ///
    /// # Errors
    /// Maps of different sizes, a true class that does not exist.
    pub fn add(&mut self, truth: &[u32], predicted: &[u32]) -> Result<()> {
        same_length("pixels", truth.len(), predicted.len())?;
        let n = self.classes;
        for (&t, &p) in truth.iter().zip(predicted) {
            if t as usize >= n {
                if t == VOID {
                    continue;
                }
                let problem = format!("a pixel of class {t} of {n}");
                return Err(EvalError::invalid("map of classes", problem));
            }
            self.counts[t as usize * (n + 1) + (p as usize).min(n)] += 1;
        }
        Ok(())
    }

    /// Adds what another one counted.
    ///
    /// # Errors
    /// Another number of classes.
    pub fn merge(&mut self, other: &Self) -> Result<()> {
        same_length("classes of maps", self.classes, other.classes)?;
        let both = self.counts.iter_mut().zip(&other.counts);
        both.for_each(|(a, b)| *a += b);
        Ok(())
    }

    /// Intersection over union of every class, in [0, 1]; `NaN` for a class that is neither true nor predicted anywhere.
    pub fn overlaps(&self) -> Vec<f64> {
        let n = self.classes;
        let of = |c: usize| {
            let hits = self.counts[c * (n + 1) + c];
            let truth: u64 = self.counts[c * (n + 1)..(c + 1) * (n + 1)].iter().sum();
            let predicted: u64 = (0..n).map(|t| self.counts[t * (n + 1) + c]).sum();
            hits as f64 / (truth + predicted - hits) as f64
        };
        (0..n).map(of).collect()
    }

    /// Mean of [`Self::overlaps`] over the classes that occur; `NaN` without pixels.
    ///
    /// Source: Everingham et al. 2015, PASCAL VOC. Peer: scikit-learn `jaccard_score(average="macro")` over all pixels.
    pub fn mean_overlap(&self) -> f64 {
        let overlaps = self.overlaps().into_iter();
        overlaps.filter(|x| !x.is_nan()).collect::<Sum>().mean()
    }

    /// Share of the pixels with the right class; `NaN` without pixels.
    pub fn pixel_accuracy(&self) -> f64 {
        let n = self.classes;
        let hits: u64 = (0..n).map(|c| self.counts[c * (n + 1) + c]).sum();
        hits as f64 / self.counts.iter().sum::<u64>() as f64
    }
}

/// Errors of depths, over the pixels where a depth was measured: the true one is finite and above 0.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct DepthErrors {
    absolute: Sum,
    relative: Sum,
    /// Squares of errors and of the truth.
    squares: [Sum; 2],
}

impl DepthErrors {
    /// Adds the pixels of an example.
    ///
    /// # Errors
    /// Maps of different sizes, a prediction that is not finite where a depth was measured.
    pub fn add(&mut self, truth: &[f32], predicted: &[f32]) -> Result<()> {
        same_length("pixels", truth.len(), predicted.len())?;
        let measured = truth.iter().zip(predicted);
        for (&t, &p) in measured.filter(|(t, _)| t.is_finite() && **t > 0.0) {
            if !p.is_finite() {
                return Err(EvalError::invalid(
                    "map of depths",
                    format!("a depth of {p}"),
                ));
            }
            let off = (f64::from(t) - f64::from(p)).abs();
            self.absolute.add(off);
            self.relative.add(off / f64::from(t));
            self.squares[0].add(off * off);
            self.squares[1].add(f64::from(t) * f64::from(t));
        }
        Ok(())
    }

    /// Adds what another one holds.
    pub fn merge(&mut self, other: &Self) {
        self.absolute.merge(&other.absolute);
        self.relative.merge(&other.relative);
        for (own, other) in self.squares.iter_mut().zip(&other.squares) {
            own.merge(other);
        }
    }

    /// Mean absolute error, in the unit of the depths; `NaN` where nothing was measured.
    pub fn absolute(&self) -> f64 {
        self.absolute.mean()
    }

    /// Mean of error over true depth.
    pub fn relative(&self) -> f64 {
        self.relative.mean()
    }

    /// Length of all errors over the length of all true values (2-norms): what a solution of a differential equation is judged
    /// by. 1 for an answer of 0; `NaN` where nothing was measured.
    pub fn length(&self) -> f64 {
        let [errors, truth] = &self.squares;
        (errors.mean() / truth.mean()).sqrt()
    }
}

/// Angles in degrees between true and predicted normals, three values a pixel, where the true one has a length. A
/// prediction without a length is 90 degrees off.
///
/// # Errors
/// Maps of different sizes or not of three values a pixel, a prediction that is not finite.
pub fn normal_angles(truth: &[f32], predicted: &[f32]) -> Result<Vec<f64>> {
    const WHAT: &str = "map of normals";
    same_length("pixels", truth.len(), predicted.len())?;
    let ((truth, rest), (predicted, _)) = (truth.as_chunks::<3>(), predicted.as_chunks::<3>());
    if !rest.is_empty() {
        return Err(EvalError::invalid(WHAT, "not three values a pixel"));
    }
    let mut angles = Vec::with_capacity(truth.len());
    for (t, p) in truth.iter().zip(predicted) {
        let (t, p) = (t.map(f64::from), p.map(f64::from));
        if p.iter().any(|x| !x.is_finite()) {
            return Err(EvalError::invalid(WHAT, "a normal that is not finite"));
        }
        let dot = |a: &[f64; 3], b: &[f64; 3]| a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
        let (long, said) = (dot(&t, &t).sqrt(), dot(&p, &p).sqrt());
        if long > 0.0 {
            let cosine = if said > 0.0 {
                dot(&t, &p) / (long * said)
            } else {
                0.0
            };
            angles.push(cosine.clamp(-1.0, 1.0).acos().to_degrees());
        }
    }
    Ok(angles)
}

/// Edge pixels: hits, true ones, predicted ones.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct EdgeCounts {
    hits: u64,
    truth: u64,
    predicted: u64,
}

impl EdgeCounts {
    /// Counts an example: a value above one half is an edge.
    ///
    /// # Errors
    /// Maps of different sizes.
    pub fn add(&mut self, truth: &[f32], predicted: &[f32]) -> Result<()> {
        same_length("pixels", truth.len(), predicted.len())?;
        for (t, p) in truth.iter().zip(predicted) {
            let (t, p) = (*t > 0.5, *p > 0.5);
            self.hits += u64::from(t && p);
            self.truth += u64::from(t);
            self.predicted += u64::from(p);
        }
        Ok(())
    }

    /// Adds what another one counted.
    pub fn merge(&mut self, other: &Self) {
        self.hits += other.hits;
        self.truth += other.truth;
        self.predicted += other.predicted;
    }

    /// F1 of edge pixels at their exact places, all examples together; `NaN` without a true or predicted edge.
    pub fn f1(&self) -> f64 {
        2.0 * self.hits as f64 / (self.truth + self.predicted) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_by_hand() {
        let mut all = ClassMaps::new(4).unwrap();
        all.add(&[0, 0, 1, 1, VOID], &[0, 1, 1, 1, 0]).unwrap();
        let mut other = ClassMaps::new(4).unwrap();
        other.add(&[2], &[9]).unwrap();
        all.merge(&other).unwrap();
        let found = all.overlaps();
        assert_eq!((found[0], found[1], found[2]), (0.5, 2.0 / 3.0, 0.0));
        assert!(found[3].is_nan());
        // As scikit-learn's jaccard_score(average="macro") with a class for what is none, left out of the mean.
        assert!((all.mean_overlap() - (0.5 + 2.0 / 3.0) / 3.0).abs() < 1e-15);
        assert_eq!(all.pixel_accuracy(), 0.6);
        assert!(all.add(&[4], &[0]).is_err() && all.add(&[0], &[]).is_err());
        assert!(all.merge(&ClassMaps::new(3).unwrap()).is_err() && ClassMaps::new(0).is_err());
    }

    #[test]
    fn classes_as_scikit_learn() {
        // jaccard_score(average="macro") and accuracy_score.
        let mut all = ClassMaps::new(3).unwrap();
        all.add(
            &[0, 0, 1, 2, 2, 1, 0, 2, 2, 1],
            &[0, 1, 1, 2, 0, 1, 0, 2, 2, 2],
        )
        .unwrap();
        assert!((all.mean_overlap() - 0.533_333_333_333_333_3).abs() < 1e-15);
        assert_eq!(all.pixel_accuracy(), 0.7);
    }

    #[test]
    fn depths_by_hand() {
        let mut all = DepthErrors::default();
        all.add(&[2.0, 0.0, f32::NAN, 4.0], &[1.0, 9.0, 9.0, 5.0])
            .unwrap();
        assert_eq!((all.absolute(), all.relative()), (1.0, 0.375));
        // Errors of 1 and 1, true values of 2 and 4.
        assert!((all.length() - 0.1f64.sqrt()).abs() < 1e-15);
        let mut whole = DepthErrors::default();
        whole.add(&[1.0], &[1.0]).unwrap();
        whole.merge(&all);
        assert!((whole.absolute() - 2.0 / 3.0).abs() < 1e-15);
        assert!(all.add(&[1.0], &[f32::NAN]).is_err());
        assert!(DepthErrors::default().absolute().is_nan());
    }

    #[test]
    fn angles_by_hand() {
        let truth = [0.0, 0.0, 2.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0, 0.0];
        let said = [0.0, 0.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0];
        let found = normal_angles(&truth, &said).unwrap();
        assert_eq!((found.len(), found[0], found[2]), (3, 0.0, 90.0));
        assert!((found[1] - 45.0).abs() < 1e-9);
        assert!(normal_angles(&[1.0], &[1.0]).is_err());
        assert!(normal_angles(&[1.0; 3], &[f32::INFINITY; 3]).is_err());
    }

    #[test]
    fn edges_by_hand() {
        let mut all = EdgeCounts::default();
        all.add(&[1.0, 1.0, 0.0, 0.0], &[0.9, 0.5, 0.6, 0.0])
            .unwrap();
        assert_eq!(all.f1(), 0.5);
        let twice = all;
        all.merge(&twice);
        assert_eq!(all.f1(), 0.5);
        assert!(EdgeCounts::default().f1().is_nan() && all.add(&[1.0], &[]).is_err());
    }
}
