//! Many tests at once: p-values adjusted so that a report full of comparisons does not find differences by chance.

use crate::evaluate::error::{EvalError, Result};

/// What is kept in check over a family of tests, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Correction {
    /// Holm (1979), step down: probability of any false finding, whatever the dependence. Never worse than
    /// [`Self::Bonferroni`]. The default.
    #[default]
    Holm,
    /// `m p`: probability of any false finding.
    Bonferroni,
    /// Hochberg (1988), step up: as Holm, sharper, for independent or positively dependent tests.
    Hochberg,
    /// Benjamini and Hochberg (1995): expected share of false findings among the findings, for independent or positively
    /// dependent tests.
    BenjaminiHochberg,
    /// Benjamini and Yekutieli (2001): the same whatever the dependence.
    BenjaminiYekutieli,
}

/// Adjusted p-values in the order given; a finding at level alpha is one whose adjusted p-value is at most alpha.
///
/// Cost: O(m log m). Peer: `statsmodels.stats.multitest.multipletests` (`holm`, `bonferroni`, `simes-hochberg`, `fdr_bh`,
/// `fdr_by`), which these equal.
///
/// # Errors
/// No p-values, or one outside `[0, 1]` or `NaN`: what was not tested does not belong to the family.
pub fn adjust(p_values: &[f64], correction: Correction) -> Result<Vec<f64>> {
    const WHAT: &str = "adjusted p-values";
    if p_values.is_empty() {
        return Err(EvalError::Empty { what: WHAT });
    }
    if let Some(i) = p_values.iter().position(|p| !(0.0..=1.0).contains(p)) {
        let problem = format!("p-value {} at {i} is outside [0, 1]", p_values[i]);
        return Err(EvalError::invalid(WHAT, problem));
    }
    let m = p_values.len();
    let mut order: Vec<usize> = (0..m).collect();
    order.sort_by(|&a, &b| p_values[a].total_cmp(&p_values[b]));
    let harmonic: f64 = (1..=m).map(|i| 1.0 / i as f64).sum();
    // Factor of the p-value at a place of the order, the smallest first.
    let factor = |place: usize| match correction {
        Correction::Bonferroni => m as f64,
        Correction::Holm | Correction::Hochberg => (m - place) as f64,
        Correction::BenjaminiHochberg => m as f64 / (place + 1) as f64,
        Correction::BenjaminiYekutieli => harmonic * m as f64 / (place + 1) as f64,
    };
    let scaled = order
        .iter()
        .enumerate()
        .map(|(k, &i)| factor(k) * p_values[i]);
    let mut scaled: Vec<f64> = scaled.collect();
    if correction == Correction::Holm {
        let mut most = 0.0f64;
        for p in &mut scaled {
            most = most.max(*p);
            *p = most;
        }
    } else {
        let mut least = f64::INFINITY;
        for p in scaled.iter_mut().rev() {
            least = least.min(*p);
            *p = least;
        }
    }
    let mut adjusted = vec![0.0; m];
    for (&i, p) in order.iter().zip(scaled) {
        adjusted[i] = p.min(1.0);
    }
    Ok(adjusted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn three_by_hand() {
        let p = [0.04, 0.01, 0.03];
        let near = |correction, wanted: [f64; 3]| {
            for (a, w) in adjust(&p, correction).unwrap().iter().zip(wanted) {
                assert!((a - w).abs() < 1e-15, "{correction:?}: {a} for {w}");
            }
        };
        near(Correction::Bonferroni, [0.12, 0.03, 0.09]);
        near(Correction::Holm, [0.06, 0.03, 0.06]);
        near(Correction::Hochberg, [0.04, 0.03, 0.04]);
        near(Correction::BenjaminiHochberg, [0.04, 0.03, 0.04]);
        let by = 11.0 / 6.0;
        near(
            Correction::BenjaminiYekutieli,
            [0.04 * by, 0.03 * by, 0.04 * by],
        );
        assert!(adjust(&[0.1, f64::NAN], Correction::Holm).is_err());
        assert!(adjust(&[], Correction::Holm).is_err());
    }

    proptest! {
        #[test]
        fn sharper_corrections_never_adjust_more(p in prop::collection::vec(0.0..=1.0f64, 1..40)) {
            let of = |correction| adjust(&p, correction).unwrap();
            let (bonferroni, holm) = (of(Correction::Bonferroni), of(Correction::Holm));
            let (hochberg, bh) = (of(Correction::Hochberg), of(Correction::BenjaminiHochberg));
            for i in 0..p.len() {
                prop_assert!(p[i] <= bh[i] && bh[i] <= hochberg[i] + 1e-15);
                prop_assert!(hochberg[i] <= holm[i] && holm[i] <= bonferroni[i]);
            }
        }

        #[test]
        fn order_of_the_tests_does_not_matter(p in prop::collection::vec(0.0..=1.0f64, 1..40)) {
            let backwards: Vec<f64> = p.iter().rev().copied().collect();
            for correction in [Correction::Holm, Correction::Hochberg, Correction::BenjaminiYekutieli] {
                let mut there = adjust(&backwards, correction).unwrap();
                there.reverse();
                prop_assert_eq!(adjust(&p, correction).unwrap(), there);
            }
        }
    }
}
