//! Slices of a file's rows: `[:90%]`, `[90%:]`, `[100:200]`.

use polyloom_core::rng::Stream;

/// One end of a slice.
#[derive(Debug, Clone, Copy, PartialEq)]
enum End {
    /// A row.
    Row(u64),
    /// A share in percent, in [0, 100].
    Percent(f64),
}

/// A half-open range of rows, in rows or in percent of the file.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Slice {
    from: Option<End>,
    to: Option<End>,
}

impl Slice {
    /// Parses `[a:b]`, where an end is a row, a percentage or empty; empty text is the whole file.
    ///
    /// # Errors
    /// A sentence on what is wrong.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Ok(Self::default());
        }
        let bad = || format!("`{text}` is no slice; write [:90%], [90%:] or [100:200]");
        let inner = text.strip_prefix('[').and_then(|t| t.strip_suffix(']'));
        let (from, to) = inner.and_then(|t| t.split_once(':')).ok_or_else(bad)?;
        let end = |text: &str| -> Result<Option<End>, String> {
            let text = text.trim();
            if text.is_empty() {
                return Ok(None);
            }
            if let Some(percent) = text.strip_suffix('%') {
                let p: f64 = percent.trim().parse().map_err(|_| bad())?;
                return if (0.0..=100.0).contains(&p) {
                    Ok(Some(End::Percent(p)))
                } else {
                    Err(format!("`{text}` is not between 0% and 100%"))
                };
            }
            text.parse().map(|n| Some(End::Row(n))).map_err(|_| bad())
        };
        let slice = Self {
            from: end(from)?,
            to: end(to)?,
        };
        let empty = match (slice.from, slice.to) {
            (Some(End::Row(a)), Some(End::Row(b))) => a >= b,
            (Some(End::Percent(a)), Some(End::Percent(b))) => a >= b,
            _ => false,
        };
        if empty {
            return Err(format!("`{text}` is empty"));
        }
        Ok(slice)
    }

    /// Whether it is the whole file.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.from.is_none() && self.to.is_none()
    }

    /// The rows `[from, to)` of a file of `n`. A percentage p ends at floor(n p / 100), so slices that share an end
    /// neither overlap nor leave a row out.
    #[must_use]
    pub fn range(&self, n: u64) -> (u64, u64) {
        let at = |end: Option<End>, none: u64| match end {
            None => none,
            Some(End::Row(r)) => r.min(n),
            #[allow(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                clippy::cast_precision_loss,
                reason = "row counts are far below 2^53"
            )]
            Some(End::Percent(p)) => ((n as f64 * p / 100.0).floor() as u64).min(n),
        };
        let (from, to) = (at(self.from, 0), at(self.to, n));
        (from, to.max(from))
    }

    /// Whether two slices of one file may share rows. Rows and percentages cannot be compared without the file, and
    /// count as apart.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        let low = |e: Option<End>| e.unwrap_or(End::Percent(0.0));
        let high = |e: Option<End>| e.unwrap_or(End::Percent(100.0));
        let before = |to: Option<End>, from: Option<End>| match (high(to), low(from)) {
            (End::Percent(a), End::Percent(b)) => a <= b,
            (End::Row(a), End::Row(b)) => a <= b,
            // One end is open: the whole rest of the file lies there.
            (End::Percent(a), End::Row(_)) => to.is_some() && a < 100.0,
            (End::Row(_), End::Percent(b)) => from.is_some() && b > 0.0,
        };
        !(before(self.to, other.from) || before(other.to, self.from))
    }
}

/// The order in which the rows of a file are cut: file order, or a permutation that depends only on the seed and `n`.
///
/// Cost: O(n log n), 16 bytes per row while it runs.
#[must_use]
pub fn order(n: u64, seed: Option<u64>) -> Vec<u64> {
    let mut rows: Vec<u64> = (0..n).collect();
    if let Some(seed) = seed {
        let stream = Stream::new(seed, "split", 0);
        rows.sort_by_cached_key(|i| (stream.bits(*i), *i));
    }
    rows
}

/// Which rows of a file of `n` a slice takes, in ascending order of the file.
#[must_use]
pub fn rows(n: u64, slice: &Slice, seed: Option<u64>) -> Vec<u64> {
    let (from, to) = slice.range(n);
    if seed.is_none() {
        return (from..to).collect();
    }
    let order = order(n, seed);
    #[allow(clippy::cast_possible_truncation, reason = "it indexes a vector of n")]
    let mut taken = order[from as usize..to as usize].to_vec();
    taken.sort_unstable();
    taken
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_cut_without_gap_or_overlap() {
        let [a, b] = ["[:90%]", "[90%:]"].map(|t| Slice::parse(t).unwrap());
        for n in [1, 7, 10, 99, 1000] {
            assert_eq!(a.range(n).1, b.range(n).0);
            let mut both = rows(n, &a, Some(3));
            both.extend(rows(n, &b, Some(3)));
            both.sort_unstable();
            assert_eq!(both, (0..n).collect::<Vec<_>>());
        }
        assert_eq!(a.range(10), (0, 9));
        assert!(!a.overlaps(&b));
    }

    #[test]
    fn shuffles_depend_on_the_seed_alone() {
        assert_eq!(order(50, Some(1)), order(50, Some(1)));
        assert_ne!(order(50, Some(1)), order(50, Some(2)));
        assert_eq!(order(3, None), [0, 1, 2]);
    }

    #[test]
    fn bad_slices_are_named() {
        for text in ["90%", "[a:]", "[:101%]", "[5:5]", "[:]x"] {
            assert!(Slice::parse(text).is_err(), "{text}");
        }
        assert!(Slice::parse("[:]").unwrap().is_whole());
    }

    #[test]
    fn overlap_is_seen() {
        let meets = |a: &str, b: &str| Slice::parse(a).unwrap().overlaps(&Slice::parse(b).unwrap());
        assert!(meets("", "") && meets("[:90%]", "[80%:]") && meets("[0:10]", "[9:]"));
        assert!(!meets("[0:10]", "[10:20]") && !meets("[10:]", "[:10]"));
        assert!(meets("", "[:10]"));
    }
}
