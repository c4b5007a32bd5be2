//! How far a mean of per-example values can be believed: standard errors, plain and by cluster, and Student's interval.

use super::special::t_quantile;
use super::{Interval, check_finite, check_level};
use crate::evaluate::error::{EvalError, Result, same_length};
use crate::evaluate::sum::{Sum, mean, sum};

/// Sample standard deviation (divisor n - 1) of finite values; `NaN` for one value.
pub fn standard_deviation(values: &[f64]) -> f64 {
    let centre = mean(values.iter().copied());
    let squares = sum(values.iter().map(|x| (x - centre).powi(2)));
    (squares / (values.len() as f64 - 1.0)).sqrt()
}

/// Standard error of the mean, `s / sqrt(n)`; `NaN` for one value (lm-eval prints N/A there, inspect_ai 0).
///
/// # Errors
/// No values, or one that is not finite.
pub fn standard_error(values: &[f64]) -> Result<f64> {
    const WHAT: &str = "standard error of a mean";
    same_length(WHAT, values.len(), values.len())?;
    check_finite(WHAT, values)?;
    Ok(standard_deviation(values) / (values.len() as f64).sqrt())
}

/// Student's interval `mean ± t s / sqrt(n)` at `level`; `NaN` bounds for one value. Peer: `scipy.stats.t.interval`.
///
/// # Errors
/// No values, one that is not finite, or a level outside (0, 1).
pub fn t_interval(values: &[f64], level: f64) -> Result<Interval> {
    check_level("interval of a mean", level)?;
    let error = standard_error(values)?;
    let centre = mean(values.iter().copied());
    let half = t_quantile(0.5 + 0.5 * level, values.len() as f64 - 1.0) * error;
    Ok(Interval::new(centre - half, centre + half))
}

/// Standard error of the mean where examples of a cluster (questions on one text, rows of one patient) go together:
/// `sqrt(sum_c (sum of deviations in c)^2 * C/(C-1)) / n` for `C` clusters.
///
/// Without `corrected` the factor `C/(C-1)` is left out. `NaN` for one cluster when corrected. `cluster` names the cluster
/// of each value. Cost: O(n log n). Peer: inspect_ai `stderr(cluster=...)`; Miller, "Adding error bars to evals" (2024).
///
/// # Errors
/// No values, different lengths, or a value that is not finite.
pub fn clustered_standard_error(values: &[f64], cluster: &[u32], corrected: bool) -> Result<f64> {
    const WHAT: &str = "clustered standard error";
    same_length(WHAT, values.len(), cluster.len())?;
    check_finite(WHAT, values)?;
    let clusters = Clusters::new(cluster)?;
    let centre = mean(values.iter().copied());
    let squares: Sum = clusters
        .iter()
        .map(|members| sum(members.iter().map(|&i| values[i as usize] - centre)).powi(2))
        .collect();
    let count = clusters.len() as f64;
    let factor = if corrected {
        count / (count - 1.0)
    } else {
        1.0
    };
    if factor.is_infinite() {
        return Ok(f64::NAN);
    }
    Ok((squares.total() * factor).sqrt() / values.len() as f64)
}

/// Which examples belong together, in ascending order of the clusters' numbers and of the examples.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Clusters {
    members: Vec<u32>,
    /// Where each cluster's members begin, and the end.
    starts: Vec<usize>,
}

impl Clusters {
    /// Groups examples by the number of their cluster. Cost: O(n log n).
    ///
    /// # Errors
    /// No examples, or more than 2^32.
    pub fn new(cluster: &[u32]) -> Result<Self> {
        const WHAT: &str = "clusters";
        same_length(WHAT, cluster.len(), cluster.len())?;
        let n = u32::try_from(cluster.len())
            .map_err(|_| EvalError::invalid(WHAT, "more than 2^32 examples"))?;
        let mut members: Vec<u32> = (0..n).collect();
        members.sort_by_key(|&i| cluster[i as usize]);
        let starts = (0..members.len())
            .filter(|&k| k == 0 || cluster[members[k] as usize] != cluster[members[k - 1] as usize])
            .chain([members.len()])
            .collect();
        Ok(Self { members, starts })
    }

    /// Number of clusters, at least 1.
    #[allow(clippy::len_without_is_empty, reason = "never empty")]
    pub fn len(&self) -> usize {
        self.starts.len() - 1
    }

    /// The examples of a cluster, by its place in ascending order.
    pub fn members(&self, place: usize) -> &[u32] {
        &self.members[self.starts[place]..self.starts[place + 1]]
    }

    /// The examples of each cluster.
    pub fn iter(&self) -> impl Iterator<Item = &[u32]> {
        (0..self.len()).map(|place| self.members(place))
    }

    /// Number of examples.
    pub fn examples(&self) -> usize {
        self.members.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_hand() {
        assert_eq!(standard_error(&[1.0, 3.0]).unwrap(), 1.0);
        assert!(standard_error(&[1.0]).unwrap().is_nan());
        assert!(standard_error(&[]).is_err() && standard_error(&[f64::NAN]).is_err());
        // t with one degree of freedom at 0.5: tan(pi/4) = 1.
        let interval = t_interval(&[1.0, 3.0], 0.5).unwrap();
        assert!((interval.low - 1.0).abs() < 1e-14 && (interval.high - 3.0).abs() < 1e-14);
    }

    #[test]
    fn clusters_of_equal_values_count_once() {
        let values = [0.0, 0.0, 1.0, 1.0];
        // Deviations of the clusters: -1 and 1, so sqrt(2 * 2) / 4.
        let found = clustered_standard_error(&values, &[9, 9, 4, 4], true).unwrap();
        assert_eq!(found, 0.5);
        let alone = clustered_standard_error(&values, &[0, 1, 2, 3], true).unwrap();
        assert!((alone - standard_error(&values).unwrap()).abs() < 1e-16);
        assert!(
            clustered_standard_error(&values, &[1; 4], true)
                .unwrap()
                .is_nan()
        );
        assert_eq!(
            clustered_standard_error(&values, &[1; 4], false).unwrap(),
            0.0
        );
        assert!(clustered_standard_error(&values, &[1; 3], false).is_err());
    }

    #[test]
    fn clusters_keep_their_members() {
        let clusters = Clusters::new(&[5, 2, 5, 2, 7]).unwrap();
        let all: Vec<&[u32]> = clusters.iter().collect();
        assert_eq!(all, [&[1u32, 3][..], &[0, 2], &[4]]);
        assert_eq!(clusters.examples(), 5);
    }
}
