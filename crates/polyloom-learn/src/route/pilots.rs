//! RouterRetriever's pilots: some vectors per expert, of queries that it answers best.

use polyloom::MergeError;
use polyloom::evaluate::metric::kmeans::KMeans;
use polyloom::evaluate::statistics::draw::Seed;
use serde::{Deserialize, Serialize};

use super::points::{Labelled, Points};
use super::router::Decision;
use crate::error::Result;

/// What an expert's pilots come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reduce {
    /// Their mean similarity: the paper's text.
    Mean,
    /// The largest: the released code.
    Max,
}

/// How vectors are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Similarity {
    /// Inner product.
    Dot,
    /// Of unit vectors.
    Cosine,
}

/// Whose a pilot is, and where it comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pilot {
    /// Number of its expert.
    pub owner: usize,
    /// The data set or task of its queries.
    pub source: String,
}

/// Chooses the expert with the largest mean (or largest single) similarity over its pilots; weights are a softmax of them
/// over a temperature. RouterRetriever (Lee et al. 2025).
#[derive(Debug, Clone, PartialEq)]
pub struct Pilots {
    /// The vectors.
    pub vectors: Points,
    /// Whose they are, one for each vector.
    pub pilots: Vec<Pilot>,
    /// What an expert's pilots come to.
    pub reduce: Reduce,
    /// How vectors are compared.
    pub similarity: Similarity,
    /// Divides similarities before the softmax.
    pub temperature: f32,
    /// Below this similarity no expert is near enough.
    pub min_similarity: Option<f32>,
}

impl Pilots {
    /// None yet: mean, inner product, temperature 1.
    #[must_use]
    pub fn empty(width: usize) -> Self {
        Self {
            vectors: Points {
                values: Vec::new(),
                width,
            },
            pilots: Vec::new(),
            reduce: Reduce::Mean,
            similarity: Similarity::Dot,
            temperature: 1.0,
            min_similarity: None,
        }
    }

    /// Of queries with every expert's score on each (`scores[query * experts + expert]`, larger is better): the queries of a
    /// data set are grouped by the expert that does best on them (of equal ones the first), and each group gives its `k`
    /// centres. Pilots come by expert, then data set.
    ///
    /// # Errors
    /// Lengths that do not fit, scores or vectors that are not finite.
    pub fn of_scores(
        mut self,
        queries: &Points,
        datasets: &[String],
        scores: &[f32],
        experts: usize,
        k: usize,
    ) -> Result<Self> {
        let n = queries.len();
        if experts == 0 || datasets.len() != n || scores.len() != n * experts {
            let what = format!(
                "{n} queries with {} data sets and {} scores for {experts} experts",
                datasets.len(),
                scores.len()
            );
            return Err(MergeError::plan("bad-features", what).into());
        }
        let mut names: Vec<&String> = Vec::new();
        for name in datasets {
            if !names.contains(&name) {
                names.push(name);
            }
        }
        let best: Vec<usize> = scores.chunks_exact(experts).map(first_largest).collect();
        for owner in 0..experts {
            for source in &names {
                let rows: Vec<usize> = (0..n)
                    .filter(|&i| best[i] == owner && datasets[i] == **source)
                    .collect();
                self.take(&queries.taken(&rows), owner, source, k)?;
            }
        }
        Ok(self)
    }

    /// Of queries that belong to an expert each, `k` centres for every expert; `sources` names the experts' data.
    ///
    /// # Errors
    /// As [`Self::of_scores`].
    pub fn of_labels(mut self, examples: &Labelled, sources: &[String], k: usize) -> Result<Self> {
        for (owner, rows) in examples.by_expert(sources.len()).iter().enumerate() {
            self.take(&examples.points.taken(rows), owner, &sources[owner], k)?;
        }
        Ok(self)
    }

    /// Takes the `k` centres of some queries (k-means; of fewer queries each is one).
    fn take(&mut self, queries: &Points, owner: usize, source: &str, k: usize) -> Result<()> {
        if queries.is_empty() {
            return Ok(());
        }
        let n = queries.len();
        let centres = if k <= 1 {
            queries.mean(0..n)
        } else {
            let means = KMeans {
                seed: Seed::of("pilots", source),
                ..KMeans::new(k.min(n))
            };
            let values: Vec<f64> = queries.values.iter().map(|x| f64::from(*x)).collect();
            let found = means
                .fit(&values, queries.width)
                .map_err(|e| MergeError::plan("bad-features", e.to_string()))?;
            found.centres.iter().map(|x| *x as f32).collect()
        };
        for _ in centres.chunks_exact(queries.width) {
            self.pilots.push(Pilot {
                owner,
                source: source.to_owned(),
            });
        }
        self.vectors.values.extend(centres);
        Ok(())
    }

    /// Similarities with every pilot, `[points, pilots]`.
    #[must_use]
    pub fn similarities(&self, points: &Points) -> Vec<f32> {
        match self.similarity {
            Similarity::Dot => points.products(&self.vectors),
            Similarity::Cosine => {
                let unit = points.clone().unit();
                unit.products(&self.vectors.clone().unit())
            }
        }
    }

    pub(super) fn decide(&self, points: &Points, experts: usize) -> Vec<Decision> {
        let near = self.similarities(points);
        let of = |row: &[f32]| {
            // An expert that is nowhere best has no pilot, and is never chosen.
            let mut found = vec![f32::NEG_INFINITY; experts];
            let mut sums = vec![(0f64, 0u32); experts];
            for (s, pilot) in row.iter().zip(&self.pilots) {
                found[pilot.owner] = found[pilot.owner].max(*s);
                let (sum, n) = &mut sums[pilot.owner];
                (*sum, *n) = (*sum + f64::from(*s), *n + 1);
            }
            if self.reduce == Reduce::Mean {
                for (f, (sum, n)) in found.iter_mut().zip(sums).filter(|(_, (_, n))| *n > 0) {
                    *f = (sum / f64::from(n)) as f32;
                }
            }
            Decision::of_similarities(&found, self.temperature, self.min_similarity)
        };
        near.chunks_exact(self.pilots.len().max(1))
            .map(of)
            .collect()
    }

    /// Takes one more expert, with `k` pilots.
    pub(super) fn add(
        &mut self,
        examples: &Points,
        owner: usize,
        source: &str,
        k: usize,
    ) -> Result<()> {
        self.take(examples, owner, source, k)
    }

    /// Forgets an expert.
    pub(super) fn remove(&mut self, expert: usize) {
        let kept: Vec<usize> = (0..self.pilots.len())
            .filter(|&i| self.pilots[i].owner != expert)
            .collect();
        self.vectors = self.vectors.taken(&kept);
        self.pilots.retain(|p| p.owner != expert);
        for pilot in &mut self.pilots {
            pilot.owner -= usize::from(pilot.owner > expert);
        }
    }
}

fn first_largest(row: &[f32]) -> usize {
    let mut best = 0;
    for (i, x) in row.iter().enumerate() {
        if *x > row[best] {
            best = i;
        }
    }
    best
}
