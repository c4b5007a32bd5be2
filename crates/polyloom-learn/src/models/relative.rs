//! Biases of scores by the distance of positions (Raffel et al. 2020, T5), which MPNet took over.

use crate::engine::Value;
use crate::error::Result;
use crate::ops;

/// How distances share buckets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Buckets {
    /// Buckets in all.
    pub count: usize,
    /// Distances from here on share the last bucket.
    pub farthest: usize,
    /// Half of the buckets for keys after the query; else those count as distance 0.
    pub both: bool,
}

impl Buckets {
    /// The bucket of a key so many positions after the query (below 0: before it).
    fn of(self, distance: i64) -> u32 {
        let (half, side, far) = if self.both {
            let half = self.count / 2;
            (
                half,
                if distance > 0 { half } else { 0 },
                distance.unsigned_abs() as usize,
            )
        } else {
            (self.count, 0, (-distance).max(0) as usize)
        };
        let exact = half / 2;
        let within = if far < exact {
            far
        } else {
            let log = (far as f32 / exact as f32).ln() / (self.farthest as f32 / exact as f32).ln()
                * (half - exact) as f32;
            (exact + log as usize).min(half.saturating_sub(1))
        };
        (side + within) as u32
    }

    /// The bias `[heads, queries, keys]` out of a table `[buckets, heads]`; with more keys than queries, the queries are the
    /// last positions.
    ///
    /// # Errors
    /// A table of another shape.
    pub fn bias(self, table: &Value, queries: usize, keys: usize) -> Result<Value> {
        let heads = table.dims().last().copied().unwrap_or(0);
        let mut at = Vec::with_capacity(queries * keys);
        for query in keys - queries..keys {
            at.extend((0..keys).map(|key| self.of(key as i64 - query as i64)));
        }
        let rows = ops::embedding(table, &at, &[queries * keys])?;
        // [positions, heads] to [heads, positions]: one column a head.
        let column = |h| ops::reshape(&ops::narrow(&rows, 1, h, 1)?, &[1, queries, keys]);
        let columns: Vec<Value> = (0..heads).map(column).collect::<Result<_>>()?;
        ops::concat(&columns.iter().collect::<Vec<_>>(), 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_by_hand() {
        let both = Buckets {
            count: 32,
            farthest: 128,
            both: true,
        };
        assert_eq!(
            [0, -1, 1, -7, -8, -127, -500, 500].map(|d| both.of(d)),
            [0, 1, 17, 7, 8, 15, 15, 31]
        );
        let back = Buckets {
            both: false,
            ..both
        };
        assert_eq!(
            [3, 0, -15, -16, -127, -200].map(|d| back.of(d)),
            [0, 0, 15, 16, 31, 31]
        );
    }
}
