//! Rows of a task that statistics are collected on.

use polyloom::MergeError;
use polyloom::evaluate::board::score::examples::Wanted;
use polyloom::tasks::load::Loader;
use polyloom::tasks::spec::TaskSpec;
use polyloom_core::rng::Stream;

use super::Settings;
use crate::error::Result;
use crate::tasks::{Feature, Reader, Rows, Shown};

/// Inputs of the rows that were drawn, as each feature sees them.
pub struct Inputs {
    features: Vec<(Feature, Vec<Shown>)>,
    /// What is right, for each thing that is asked.
    pub wanted: Vec<Vec<Option<Wanted>>>,
    /// Places of the rows, short inputs first.
    pub order: Vec<usize>,
}

impl Inputs {
    /// Draws at most `settings.rows` rows of a split by the seed, without regard to their order, and reads them for the
    /// features.
    ///
    /// # Errors
    /// As [`Rows::read`]; a split without rows.
    pub fn read(
        spec: &TaskSpec,
        loader: &Loader<'_>,
        reader: &Reader,
        features: &[Feature],
        settings: &Settings,
    ) -> Result<Self> {
        let mut made = Self {
            features: Vec::new(),
            wanted: Vec::new(),
            order: Vec::new(),
        };
        for &feature in features {
            let taken = |n| drawn(n, settings.rows, settings.seed);
            let rows = Rows::read_some(spec, loader, &settings.split, reader, feature, taken)?;
            if rows.is_empty() {
                let what = format!(
                    "task `{}` has no rows in split `{}`",
                    spec.id, settings.split
                );
                return Err(MergeError::plan("empty", what).into());
            }
            made.wanted = rows.wanted;
            made.features.push((feature, rows.shown));
        }
        let rows = made.features.first().map_or(0, |(_, s)| s.len());
        let length = |i: usize| {
            let lengths = made.features.iter().map(|(_, s)| s[i].length());
            lengths.max().unwrap_or(0)
        };
        made.order = (0..rows).collect();
        made.order.sort_by_key(|&i| (length(i), i));
        Ok(made)
    }

    /// The inputs of some rows, for each feature.
    pub fn parts(&self, rows: &[usize]) -> Vec<(Feature, Vec<&Shown>)> {
        self.features
            .iter()
            .map(|(feature, shown)| {
                let taken = rows.iter().map(|&i| &shown[i]).collect();
                (*feature, taken)
            })
            .collect()
    }
}

/// Which `most` of `n` rows a seed draws: those with the smallest random numbers.
pub fn drawn(n: usize, most: usize, seed: u64) -> Vec<bool> {
    let stream = Stream::new(seed, "statistics", 0);
    let mut keys: Vec<(u64, usize)> = (0..n).map(|i| (stream.bits(i as u64), i)).collect();
    keys.sort_unstable();
    let mut taken = vec![false; n];
    for (_, i) in keys.into_iter().take(most) {
        taken[i] = true;
    }
    taken
}

#[cfg(test)]
mod tests {
    use super::drawn;

    #[test]
    fn rows_are_drawn_by_seed() {
        let count = |t: &[bool]| t.iter().filter(|t| **t).count();
        let (a, b) = (drawn(100, 30, 0), drawn(100, 30, 1));
        assert_eq!((count(&a), count(&b)), (30, 30));
        assert!(a != b && a == drawn(100, 30, 0));
        // Not the first ones.
        assert!(count(&a[..50]) > 5 && count(&a[50..]) > 5);
        assert_eq!(count(&drawn(3, 10, 0)), 3);
    }
}
