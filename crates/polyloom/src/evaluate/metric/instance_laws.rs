//! The law between size and passing, instance by instance.

use super::pass_at_k::SizeLaw;
use crate::evaluate::error::same_length;
use crate::evaluate::{EvalError, Result};

const WHAT: &str = "laws of instances";

/// A law of size for every instance of a task (the instance-level form, IPU, of "Predicting Emergent Abilities with
/// Infinite Resolution Evaluation", Hu et al. 2023): instances differ in how hard they are, so that one law for their
/// mean bends where theirs are straight.
#[derive(Debug, Clone, PartialEq)]
pub struct InstanceLaws {
    /// The law of each instance; none where fewer than two sizes have a chance strictly between 0 and 1.
    pub laws: Vec<Option<SizeLaw>>,
}

impl InstanceLaws {
    /// Fits the instances: `chances[instance]` holds a chance of passing per size, `NaN` where it was not measured.
    /// Chances of 0 (nothing passed within the budget) and 1 have no place on the law and are left out.
    ///
    /// # Errors
    /// No instance, an instance with another number of chances than sizes, a size that is not above 0 or not finite, a
    /// chance outside 0 to 1, no instance with a law.
    pub fn fit(sizes: &[f64], chances: &[Vec<f64>]) -> Result<Self> {
        if chances.is_empty() {
            return Err(EvalError::Empty { what: WHAT });
        }
        let mut laws = Vec::with_capacity(chances.len());
        for chances in chances {
            same_length(WHAT, sizes.len(), chances.len())?;
            if let Some(p) = chances.iter().find(|p| **p < 0.0 || **p > 1.0) {
                return Err(EvalError::invalid(WHAT, format!("a chance of {p}")));
            }
            let inside = sizes.iter().zip(chances);
            let inside = inside.filter(|(_, p)| **p > 0.0 && **p < 1.0);
            let (n, p): (Vec<f64>, Vec<f64>) = inside.unzip();
            let several = n.windows(2).any(|w| w[0] != w[1]);
            laws.push(several.then(|| SizeLaw::fit(&n, &p)).transpose()?);
        }
        if laws.iter().all(Option::is_none) {
            let problem = "no instance has two sizes with a chance between 0 and 1";
            return Err(EvalError::invalid(WHAT, problem));
        }
        Ok(Self { laws })
    }

    fn at(&self, size: f64) -> impl Iterator<Item = f64> {
        self.laws.iter().flatten().map(move |law| law.at(size))
    }

    /// Chance that a model of a size passes all instances that have a law: the product of their chances.
    pub fn all(&self, size: f64) -> f64 {
        self.at(size).map(f64::ln).sum::<f64>().exp()
    }

    /// Mean chance over the instances that have a law.
    pub fn mean(&self, size: f64) -> f64 {
        crate::evaluate::sum::mean(self.at(size))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn planted_laws_are_found_and_multiplied() {
        let laws = [(3.0, 0.2), (5.0, 0.3)].map(|(log_c, alpha)| SizeLaw {
            log_c,
            alpha,
            curvature: None,
        });
        let sizes = [1e6, 1e7, 1e8];
        let of = |law: &SizeLaw| sizes.map(|n| law.at(n)).to_vec();
        let mut chances: Vec<Vec<f64>> = laws.iter().map(of).collect();
        chances.push(vec![0.0, 1.0, 0.5]);
        chances[1].push(0.0);
        let mut sizes = sizes.to_vec();
        sizes.push(1e5);
        chances[0].push(f64::NAN);
        chances[2].push(f64::NAN);
        let found = InstanceLaws::fit(&sizes, &chances).unwrap();
        assert!(found.laws[2].is_none());
        let wanted = laws.map(|l| l.at(1e9));
        assert!((found.all(1e9) - wanted[0] * wanted[1]).abs() < 1e-9);
        assert!((found.mean(1e9) - f64::midpoint(wanted[0], wanted[1])).abs() < 1e-9);
        assert!(InstanceLaws::fit(&sizes, &[]).is_err());
        assert!(InstanceLaws::fit(&sizes, &[vec![0.5]]).is_err());
        assert!(InstanceLaws::fit(&[1.0, 2.0], &[vec![0.5, 1.5]]).is_err());
        assert!(InstanceLaws::fit(&[1.0, 2.0], &[vec![0.0, 0.5]]).is_err());
    }
}
