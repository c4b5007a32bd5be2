//! Clusters of embeddings, so that they can be compared with classes: Lloyd's k-means from k-means++ starts.

use rayon::prelude::*;

use crate::evaluate::statistics::draw::{Draw, Seed};
use crate::evaluate::sum::sum;
use crate::evaluate::{EvalError, Result};

const WHAT: &str = "k-means";

/// How clusters are found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KMeans {
    /// Number of clusters.
    pub clusters: usize,
    /// Starts, of which the best counts.
    pub restarts: usize,
    /// Steps of a start at most.
    pub steps: usize,
    /// Where the random numbers begin; restart r is draw r.
    pub seed: Seed,
}

/// The clusters of the best start.
#[derive(Debug, Clone, PartialEq)]
pub struct Clustered {
    /// Cluster of every point.
    pub labels: Vec<u32>,
    /// Row-major centres.
    pub centres: Vec<f64>,
    /// Sum of the squared distances to the centres.
    pub inertia: f64,
}

impl KMeans {
    /// Ten restarts of at most 300 steps, seed 0.
    pub fn new(clusters: usize) -> Self {
        Self {
            clusters,
            restarts: 10,
            steps: 300,
            seed: Seed::of("k-means", "0"),
        }
    }

    /// Clusters points of `width` numbers each, row-major. The same bytes for any number of threads.
    ///
    /// Unlike mteb's `MiniBatchKMeans` all points count in every step, and a start ends when no point changes its cluster.
    /// An empty cluster takes the point that is farthest from its centre. Cost: restarts · steps · points · clusters ·
    /// width. Source: Lloyd 1982; Arthur and Vassilvitskii 2007.
    ///
    /// # Errors
    /// No points, no clusters or more than points, numbers that are not finite or no whole rows, no restart.
    pub fn fit(&self, points: &[f64], width: usize) -> Result<Clustered> {
        if points.is_empty() || width == 0 || self.restarts == 0 {
            return Err(EvalError::Empty { what: WHAT });
        }
        if !points.len().is_multiple_of(width) {
            let problem = format!("{} numbers are no rows of {width}", points.len());
            return Err(EvalError::invalid(WHAT, problem));
        }
        if let Some(x) = points.iter().find(|x| !x.is_finite()) {
            return Err(EvalError::invalid(WHAT, format!("a coordinate of {x}")));
        }
        let n = points.len() / width;
        if self.clusters == 0 || self.clusters > n {
            let problem = format!("{} clusters of {n} points", self.clusters);
            return Err(EvalError::invalid(WHAT, problem));
        }
        let mut best: Option<Clustered> = None;
        for restart in 0..self.restarts {
            let mut draw = self.seed.draw(restart as u64);
            let found = self.start(points, width, &mut draw);
            if best.as_ref().is_none_or(|b| found.inertia < b.inertia) {
                best = Some(found);
            }
        }
        best.ok_or(EvalError::Empty { what: WHAT })
    }

    fn start(&self, points: &[f64], width: usize, draw: &mut Draw) -> Clustered {
        let n = points.len() / width;
        let mut centres = self.spread(points, width, draw);
        let mut labels = vec![u32::MAX; n];
        let mut near = Vec::new();
        for _ in 0..self.steps {
            near = nearest(points, width, &centres);
            let same = near.iter().zip(&labels).all(|((c, _), l)| c == l);
            labels.clear();
            labels.extend(near.iter().map(|(c, _)| *c));
            if same {
                break;
            }
            let mut counts = vec![0u64; self.clusters];
            let mut next = vec![0.0; centres.len()];
            for (point, &label) in points.chunks_exact(width).zip(&labels) {
                counts[label as usize] += 1;
                let centre = &mut next[label as usize * width..][..width];
                centre.iter_mut().zip(point).for_each(|(c, x)| *c += x);
            }
            let mut far: Vec<usize> = Vec::new();
            if counts.contains(&0) {
                far = (0..n).collect();
                far.sort_by(|&a, &b| near[b].1.total_cmp(&near[a].1).then(a.cmp(&b)));
            }
            let mut taken = far.into_iter();
            for (centre, &count) in next.chunks_exact_mut(width).zip(&counts) {
                match (count, count.eq(&0).then(|| taken.next()).flatten()) {
                    (0, Some(i)) => centre.copy_from_slice(&points[i * width..(i + 1) * width]),
                    (0, None) => {}
                    (count, _) => centre.iter_mut().for_each(|c| *c /= count as f64),
                }
            }
            centres = next;
        }
        Clustered {
            labels,
            inertia: sum(near.iter().map(|(_, d)| *d)),
            centres,
        }
    }

    /// Starting centres by k-means++: each with a chance that grows with the squared distance to those chosen before.
    fn spread(&self, points: &[f64], width: usize, draw: &mut Draw) -> Vec<f64> {
        let n = points.len() / width;
        let row = |i: usize| &points[i * width..(i + 1) * width];
        let mut centres = row(draw.index(n) as usize).to_vec();
        let mut least: Vec<f64> = (0..n).map(|i| distance(row(i), &centres)).collect();
        while centres.len() < self.clusters * width {
            let total = sum(least.iter().copied());
            let mut left = draw.unit() * total;
            // Where all points are centres already, any will do.
            let chosen = least.iter().position(|d| {
                left -= d;
                left < 0.0
            });
            let last = least.iter().rposition(|d| *d > 0.0).unwrap_or(0);
            let chosen = row(chosen.unwrap_or(last)).to_vec();
            for (i, d) in least.iter_mut().enumerate() {
                *d = d.min(distance(row(i), &chosen));
            }
            centres.extend(chosen);
        }
        centres
    }
}

fn distance(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(x, y)| (x - y) * (x - y)).sum()
}

/// The nearest centre of every point, the first of equals, with the squared distance.
fn nearest(points: &[f64], width: usize, centres: &[f64]) -> Vec<(u32, f64)> {
    let of = |point: &[f64]| {
        let mut best = (0, f64::INFINITY);
        for (c, centre) in (0u32..).zip(centres.chunks_exact(width)) {
            let d = distance(point, centre);
            if d < best.1 {
                best = (c, d);
            }
        }
        best
    };
    points
        .par_chunks_exact(width)
        .with_min_len(256)
        .map(of)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_that_lie_apart() {
        // Three groups of points on a line, and one far point.
        let points = [0.0, 1.0, 2.0, 100.0, 101.0, 102.0, 200.0];
        let found = KMeans::new(3).fit(&points, 1).unwrap();
        assert_eq!(found.labels[0], found.labels[2]);
        assert_eq!(found.labels[3], found.labels[5]);
        assert_eq!(found.inertia, 4.0);
        let mut centres = found.centres.clone();
        centres.sort_unstable_by(f64::total_cmp);
        assert_eq!(centres, [1.0, 101.0, 200.0]);
        assert_eq!(KMeans::new(3).fit(&points, 1).unwrap(), found);
        // As scikit-learn's KMeans(7, n_init=10): a cluster each.
        let each = KMeans::new(7).fit(&points, 1).unwrap();
        assert_eq!(each.inertia, 0.0);
        let one = KMeans::new(1).fit(&points, 1).unwrap();
        assert!((one.centres[0] - 506.0 / 7.0).abs() < 1e-12);
    }

    #[test]
    fn as_scikit_learn() {
        // KMeans(3, n_init=10).inertia_ over the same points.
        let point = |i: i32| {
            let x = f64::from(i);
            [
                (x * 1.7).sin() * 3.0 + f64::from(i % 3) * 4.0,
                (x * 2.3).cos() * 2.0 + f64::from((i % 3) * (i % 3)),
            ]
        };
        let points: Vec<f64> = (0..30).flat_map(point).collect();
        let found = KMeans::new(3).fit(&points, 2).unwrap();
        assert!(
            (found.inertia - 150.214_186_573_298_92).abs() < 1e-9,
            "{}",
            found.inertia
        );
    }

    #[test]
    fn equal_points_and_bad_input() {
        let found = KMeans::new(2).fit(&[1.0; 8], 2).unwrap();
        assert_eq!((found.inertia, found.labels.len()), (0.0, 4));
        assert!(KMeans::new(5).fit(&[1.0; 8], 2).is_err());
        assert!(KMeans::new(0).fit(&[1.0; 8], 2).is_err());
        assert!(KMeans::new(2).fit(&[1.0; 8], 3).is_err());
        assert!(KMeans::new(2).fit(&[f64::NAN, 1.0], 1).is_err());
        assert!(KMeans::new(1).fit(&[], 1).is_err());
    }
}
