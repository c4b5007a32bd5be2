//! Agreement of two clusterings of the same examples, whatever the clusters are called.

use std::collections::BTreeMap;

use super::confusion::Confusion;
use crate::evaluate::error::same_length;
use crate::evaluate::sum::{Sum, sum};
use crate::evaluate::{EvalError, Result};

/// Logarithm of a probability that adds nothing to an expectation.
const NEGLIGIBLE: f64 = -80.0;

/// How many examples true class and cluster share. Logarithms are natural.
///
/// Two clusterings of nothing, or each of one cluster, agree: their scores are 1, except
/// [`fowlkes_mallows`](Self::fowlkes_mallows), which counts pairs. Cost: that of [`Confusion`].
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Clustering {
    classes: Vec<u64>,
    clusters: Vec<u64>,
    /// (place of the class, place of the cluster, examples).
    cells: Vec<(usize, usize, u64)>,
    total: u64,
}

impl Clustering {
    /// Shared examples of two lists of ids.
    ///
    /// # Errors
    /// Lists of different lengths.
    pub fn new(truth: &[u32], clusters: &[u32]) -> Result<Self> {
        if truth.is_empty() && clusters.is_empty() {
            return Ok(Self::default());
        }
        let mut all = Confusion::default();
        all.extend(truth, clusters, None)?;
        Self::of(&all)
    }

    /// Shared examples as a confusion counted them, so that parts can be counted apart and merged.
    ///
    /// # Errors
    /// Weighted examples.
    pub fn of(counted: &Confusion) -> Result<Self> {
        if counted.is_weighted() {
            return Err(EvalError::invalid("clustering", "examples are weighted"));
        }
        let mut sums = [BTreeMap::<u32, u64>::new(), BTreeMap::new()];
        for (t, c, n) in counted.counted() {
            *sums[0].entry(t).or_default() += n;
            *sums[1].entry(c).or_default() += n;
        }
        let places = |sums: &BTreeMap<u32, u64>| -> BTreeMap<u32, usize> {
            sums.keys().copied().zip(0..).collect()
        };
        let (rows, columns) = (places(&sums[0]), places(&sums[1]));
        let cells = counted
            .counted()
            .map(|(t, c, n)| (rows[&t], columns[&c], n));
        Ok(Self {
            cells: cells.collect(),
            classes: sums[0].values().copied().collect(),
            clusters: sums[1].values().copied().collect(),
            total: sums[0].values().sum(),
        })
    }

    fn trivial(&self) -> bool {
        self.classes.len() <= 1 && self.clusters.len() <= 1
    }

    fn entropy(&self, sizes: &[u64]) -> f64 {
        let share = |n: &u64| *n as f64 / self.total as f64;
        sum(sizes.iter().map(share).map(|p| -p * p.ln()))
    }

    fn information(&self) -> f64 {
        let n = self.total as f64;
        let each = self.cells.iter().map(|&(t, c, shared)| {
            let (t, c, shared) = (
                self.classes[t] as f64,
                self.clusters[c] as f64,
                shared as f64,
            );
            shared / n * (n * shared / (t * c)).ln()
        });
        sum(each).max(0.0)
    }

    /// Mutual information in nats, from 0 to the smaller entropy.
    ///
    /// Source: scikit-learn `mutual_info_score`.
    ///
    /// # Errors
    /// No examples.
    pub fn mutual_information(&self) -> Result<f64> {
        same_length(
            "mutual information",
            self.total as usize,
            self.total as usize,
        )?;
        Ok(self.information())
    }

    /// Whether each cluster holds one class only: 1 − H(class | cluster) / H(class), in [0, 1]; 1 for a single class.
    ///
    /// Source: Rosenberg and Hirschberg 2007, scikit-learn `homogeneity_score`.
    pub fn homogeneity(&self) -> f64 {
        self.share_of(&self.classes)
    }

    /// Whether each class lies in one cluster only; homogeneity with the sides exchanged.
    ///
    /// Source: scikit-learn `completeness_score`.
    pub fn completeness(&self) -> f64 {
        self.share_of(&self.clusters)
    }

    fn share_of(&self, sizes: &[u64]) -> f64 {
        match self.entropy(sizes) {
            0.0 => 1.0,
            entropy => self.information() / entropy,
        }
    }

    /// V-measure (1 + β) h c / (β h + c), in [0, 1]; 0 where both are 0. A `beta` above 1 weighs completeness more.
    ///
    /// Source: scikit-learn `v_measure_score`.
    ///
    /// # Errors
    /// A `beta` that is negative or not finite.
    pub fn v_measure(&self, beta: f64) -> Result<f64> {
        if !beta.is_finite() || beta < 0.0 {
            return Err(EvalError::invalid("V-measure", format!("beta is {beta}")));
        }
        let (h, c) = (self.homogeneity(), self.completeness());
        if h + c == 0.0 {
            return Ok(0.0);
        }
        Ok((1.0 + beta) * h * c / (beta * h + c))
    }

    /// Normalised mutual information, the mean of the entropies below the line: in [0, 1]; equal to the V-measure of β 1.
    ///
    /// Source: scikit-learn `normalized_mutual_info_score`.
    pub fn normalized_mutual_information(&self) -> f64 {
        if self.trivial() {
            return 1.0;
        }
        let information = self.information();
        if information <= f64::EPSILON {
            return 0.0;
        }
        information / self.mean_entropy()
    }

    fn mean_entropy(&self) -> f64 {
        (self.entropy(&self.classes) + self.entropy(&self.clusters)) / 2.0
    }

    /// Mutual information above that of chance, over the mean of the entropies above it: at most 1, 0 is chance.
    ///
    /// The expectation is exact, over all clusterings with the same sizes. Cost: for each pair of distinct sizes
    /// of class and cluster the spread of what they share by chance. Source: Vinh, Epps and Bailey 2010; scikit-learn `adjusted_mutual_info_score`.
    /// Differs: the same clustering on both sides is exactly 1, also where every example is alone.
    pub fn adjusted_mutual_information(&self) -> f64 {
        let shared = self.cells.len();
        let same = shared == self.classes.len() && shared == self.clusters.len();
        if same || self.trivial() {
            return 1.0;
        }
        let chance = self.expected_information();
        let below = self.mean_entropy() - chance;
        let below = if below < 0.0 {
            below.min(-f64::EPSILON)
        } else {
            below.max(f64::EPSILON)
        };
        (self.information() - chance) / below
    }

    /// Mean mutual information over random clusterings of these sizes; equal sizes are computed once.
    fn expected_information(&self) -> f64 {
        let mut ln_factorial = vec![0.0];
        let mut running = Sum::default();
        for i in 1..=self.total {
            running.add((i as f64).ln());
            ln_factorial.push(running.total());
        }
        let f = |n: u64| ln_factorial[n as usize];
        let sizes = |sizes: &[u64]| {
            let mut found = BTreeMap::<u64, u64>::new();
            sizes
                .iter()
                .for_each(|&s| *found.entry(s).or_default() += 1);
            found
        };
        let (n, clusters) = (self.total, sizes(&self.clusters));
        let mut expected = Sum::default();
        for (a, a_times) in sizes(&self.classes) {
            for (&b, &b_times) in &clusters {
                let fixed = f(a) + f(b) + f(n - a) + f(n - b) - f(n);
                // How often k examples are shared falls off on both sides of the likeliest k.
                let (least, most) = ((a + b).saturating_sub(n).max(1), a.min(b));
                let likeliest = (u128::from(a + 1) * u128::from(b + 1) / u128::from(n + 2)) as u64;
                let likeliest = likeliest.clamp(least, most);
                let term = |k: u64| {
                    let ways = fixed - f(k) - f(a - k) - f(b - k) - f(n + k - a - b);
                    let gain = (n as f64 * k as f64 / (a as f64 * b as f64)).ln();
                    (ways > NEGLIGIBLE).then(|| k as f64 / n as f64 * gain * ways.exp())
                };
                let down = (least..likeliest).rev().map_while(term);
                let pair: Sum = (likeliest..=most).map_while(term).chain(down).collect();
                expected.add((a_times * b_times) as f64 * pair.total());
            }
        }
        expected.total()
    }

    /// Pairs of examples: together in both, in the classes, in the clusters, all.
    fn pairs(&self) -> [i128; 4] {
        let pairs = |n: u64| i128::from(n) * (i128::from(n) - 1) / 2;
        [
            self.cells.iter().map(|c| pairs(c.2)).sum(),
            self.classes.iter().map(|&n| pairs(n)).sum(),
            self.clusters.iter().map(|&n| pairs(n)).sum(),
            pairs(self.total),
        ]
    }

    /// Adjusted Rand index: pairs put together or apart alike, above chance; at most 1, 0 is chance, at least -0.5.
    ///
    /// Source: Hubert and Arabie 1985, scikit-learn `adjusted_rand_score`.
    pub fn adjusted_rand(&self) -> f64 {
        let [both, classes, clusters, all] = self.pairs();
        let (only_class, only_cluster) = (classes - both, clusters - both);
        if only_class == 0 && only_cluster == 0 {
            return 1.0;
        }
        let apart = all - classes - clusters + both;
        let above = 2 * (both * apart - only_class * only_cluster);
        let below = classes * (only_class + apart) + clusters * (only_cluster + apart);
        above as f64 / below as f64
    }

    /// Fowlkes-Mallows index: geometric mean of precision and recall over pairs, in [0, 1]; 0 without a shared pair.
    ///
    /// Source: scikit-learn `fowlkes_mallows_score`.
    pub fn fowlkes_mallows(&self) -> f64 {
        let [both, classes, clusters, _] = self.pairs();
        if both == 0 {
            return 0.0;
        }
        let both = both as f64;
        (both / classes as f64).sqrt() * (both / clusters as f64).sqrt()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn by_hand() {
        let found = Clustering::new(&[0, 0, 1, 1], &[0, 0, 0, 1]).unwrap();
        // Pairs: 1 together in both, 2 in the classes, 3 in the clusters, 6 in all.
        assert_eq!(found.pairs(), [1, 2, 3, 6]);
        assert_eq!(found.adjusted_rand(), 0.0);
        assert!((found.fowlkes_mallows() - 1.0 / 6f64.sqrt()).abs() < 1e-15);
        // I = 1/2 ln(4·2/(2·3)) + 1/4 ln(4/(2·3)) + 1/4 ln(4/2)
        let (four, two) = ((4.0f64 / 3.0).ln(), (2.0f64 / 3.0).ln());
        let information = 0.5 * four + 0.25 * two + 0.25 * 2f64.ln();
        assert!((found.mutual_information().unwrap() - information).abs() < 1e-15);
        assert!((found.homogeneity() - information / 2f64.ln()).abs() < 1e-15);
    }

    #[test]
    fn trivial_and_refused() {
        let nothing = Clustering::new(&[], &[]).unwrap();
        assert_eq!((nothing.homogeneity(), nothing.adjusted_rand()), (1.0, 1.0));
        assert!(nothing.mutual_information().is_err());
        let one = Clustering::new(&[7, 7], &[3, 3]).unwrap();
        assert_eq!(one.adjusted_mutual_information(), 1.0);
        assert_eq!(one.normalized_mutual_information(), 1.0);
        assert!(one.v_measure(-1.0).is_err() && one.v_measure(f64::NAN).is_err());
        assert!(Clustering::new(&[1], &[]).is_err());
        let mut weighted = Confusion::default();
        weighted.add_weighted(0, 0, 0.5).unwrap();
        assert!(Clustering::of(&weighted).is_err());
    }

    proptest! {
        #[test]
        fn names_do_not_matter(rows in prop::collection::vec((0u32..4, 0u32..4), 1..40)) {
            let (truth, clusters): (Vec<u32>, Vec<u32>) = rows.into_iter().unzip();
            let renamed: Vec<u32> = clusters.iter().map(|c| 3 - c).collect();
            let a = Clustering::new(&truth, &clusters).unwrap();
            let b = Clustering::new(&truth, &renamed).unwrap();
            prop_assert_eq!(a.adjusted_rand(), b.adjusted_rand());
            prop_assert!((a.homogeneity() - b.homogeneity()).abs() < 1e-12);
            let exchanged = Clustering::new(&clusters, &truth).unwrap();
            prop_assert!((exchanged.homogeneity() - a.completeness()).abs() < 1e-12);
            let (v, nmi) = (a.v_measure(1.0).unwrap(), a.normalized_mutual_information());
            prop_assert!((v - nmi).abs() < 1e-9);
            let same = Clustering::new(&truth, &truth).unwrap();
            prop_assert_eq!(same.adjusted_mutual_information(), 1.0);
        }
    }
}
