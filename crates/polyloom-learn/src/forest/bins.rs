//! Columns cut into bins: what trees are grown on.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::data::{Column, Table, Values, wrong};
use crate::error::Result;

/// Most bins of a category column; what is rarer shares the last one.
pub const CATEGORY_BINS: usize = 255;

/// Most bins of a column of numbers.
pub const MAX_BINS: usize = u16::MAX as usize;

/// Values of an exact cut that lie closer than this are one, as in scikit-learn's trees.
const SAME: f32 = 1e-7;

/// Bins of codes; what was never seen is missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Categories {
    /// Bin of each code, [`UNSEEN`] for codes that were not there.
    pub bin_of: Vec<u16>,
    /// Bins.
    pub bins: usize,
}

impl Categories {
    /// The bin of a code; `None` is missing.
    #[inline]
    #[must_use]
    pub fn bin(&self, code: u32) -> Option<usize> {
        let bin = self.bin_of.get(code as usize)?;
        (*bin != UNSEEN).then_some(*bin as usize)
    }
}

/// In place of the bin of a code that training never met.
pub const UNSEEN: u16 = u16::MAX;

/// How values become bins. The missing bin comes after the others.
#[derive(Debug, Clone, PartialEq)]
pub enum Cuts {
    /// Numbers: the lowest and the highest value of each bin, rising.
    Number(Vec<(f32, f32)>),
    /// Categories.
    Category(Categories),
}

impl Cuts {
    /// Bins without the missing one.
    #[must_use]
    pub fn bins(&self) -> usize {
        match self {
            Self::Number(ranges) => ranges.len(),
            Self::Category(categories) => categories.bins,
        }
    }

    /// The bins of categories.
    #[must_use]
    pub fn categories(&self) -> Option<&Categories> {
        match self {
            Self::Category(categories) => Some(categories),
            Self::Number(_) => None,
        }
    }

    /// The threshold between two bins: the middle of the gap, rounded down so that `x <= t` is what it is in `f64`.
    /// Without a second bin every number is below it.
    #[must_use]
    pub fn threshold(&self, last: usize, next: Option<usize>) -> f32 {
        match (self, next) {
            (Self::Number(ranges), Some(next)) => between(ranges[last].1, ranges[next].0),
            _ => f32::INFINITY,
        }
    }
}

/// How finely columns are cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cutting {
    /// At most so many bins of nearly equal numbers of rows, 2 to [`MAX_BINS`]. Where there are fewer distinct values, each
    /// has its own bin.
    Quantiles(usize),
    /// A bin for each value (those within 1e-7 of a neighbour are one), as an exact search for splits needs.
    Exact,
}

/// Bins of the rows of a column: a byte each where that is enough.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Codes {
    /// At most 255 bins and the missing one.
    Narrow(Vec<u8>),
    /// More.
    Wide(Vec<u16>),
}

/// A table in bins.
#[derive(Debug, Clone, PartialEq)]
pub struct Bins {
    /// Rows.
    pub rows: usize,
    /// Cuts of each column.
    pub cuts: Vec<Cuts>,
    /// Bins of each column.
    pub codes: Vec<Codes>,
}

impl Bins {
    /// Cuts the columns of a table and puts its rows into bins.
    ///
    /// Cost: a sort per column. The same for any number of threads.
    ///
    /// # Errors
    /// A number of bins out of range; more than 65,534 distinct values where every one needs a bin.
    pub fn new(table: &Table, cutting: Cutting) -> Result<Self> {
        if let Cutting::Quantiles(n) = cutting
            && !(2..=MAX_BINS).contains(&n)
        {
            return Err(wrong(format!("{n} bins; 2 to {MAX_BINS} are possible")));
        }
        let one = |column: &Column| -> Result<(Cuts, Codes)> {
            let cuts = match &column.values {
                Values::Number(x) => numbers(&column.name, x, cutting)?,
                Values::Category { codes, cardinality } => categories(codes, *cardinality),
            };
            let codes = encode(&cuts, &column.values);
            Ok((cuts, codes))
        };
        let made: Result<Vec<_>> = table.columns.par_iter().map(one).collect();
        let (cuts, codes) = made?.into_iter().unzip();
        Ok(Self {
            rows: table.rows,
            cuts,
            codes,
        })
    }

    /// Of every column of categories its bins.
    #[must_use]
    pub fn categories(&self) -> Vec<Option<&Categories>> {
        self.cuts.iter().map(Cuts::categories).collect()
    }
}

/// Values that one thread sorts: columns are sorted at the same time.
const ALONE: usize = 1 << 18;

const SIGN: u32 = 1 << 31;

/// A whole number that orders as [`f32::total_cmp`] does, and sorts in half the time.
fn rank(x: f32) -> u32 {
    let bits = x.to_bits();
    if bits & SIGN == 0 { bits | SIGN } else { !bits }
}

fn of_rank(rank: u32) -> f32 {
    f32::from_bits(if rank & SIGN == 0 {
        !rank
    } else {
        rank & !SIGN
    })
}

/// Distinct values with how often they are there, as (lowest, highest, count) of runs of neighbours within `same`.
fn distinct(values: &[f32], same: Option<f32>) -> Vec<(f32, f32, usize)> {
    let known = values.iter().filter(|x| !x.is_nan());
    let mut sorted: Vec<u32> = known.map(|x| rank(*x)).collect();
    if sorted.len() < ALONE {
        sorted.sort_unstable();
    } else {
        sorted.par_sort_unstable();
    }
    let mut runs: Vec<(f32, f32, usize)> = Vec::new();
    for x in sorted.into_iter().map(of_rank) {
        match runs.last_mut() {
            Some((_, last, n)) if x <= *last + same.unwrap_or(0.0) => {
                *last = x;
                *n += 1;
            }
            _ => runs.push((x, x, 1)),
        }
    }
    runs
}

/// The threshold between two neighbours.
fn between(low: f32, high: f32) -> f32 {
    let middle = (f64::from(low) + f64::from(high)) / 2.0;
    let near = middle as f32;
    let below = if f64::from(near) > middle {
        near.next_down()
    } else {
        near
    };
    // Also where the middle is an infinity or none at all.
    if below >= low && below < high {
        below
    } else {
        low
    }
}

fn numbers(name: &str, values: &[f32], cutting: Cutting) -> Result<Cuts> {
    let exact = cutting == Cutting::Exact;
    let runs = distinct(values, exact.then_some(SAME));
    let most = match cutting {
        Cutting::Quantiles(n) => n,
        Cutting::Exact => MAX_BINS - 1,
    };
    if runs.len() > most && exact {
        let n = runs.len();
        return Err(wrong(format!(
            "column `{name}` has {n} distinct values; an exact search for splits takes at most {most}: turn `stump` off or round the values"
        )));
    }
    if runs.len() <= most {
        return Ok(Cuts::Number(runs.iter().map(|r| (r.0, r.1)).collect()));
    }
    // Bins in order, each of its share of what is left; a frequent value takes what it needs and the rest is shared anew.
    let mut ranges: Vec<(f32, f32)> = Vec::new();
    let mut left: usize = runs.iter().map(|r| r.2).sum();
    let (mut low, mut inside) = (None, 0);
    for (i, run) in runs.iter().enumerate() {
        let from = *low.get_or_insert(run.0);
        inside += run.2;
        let bins = most - ranges.len();
        if i + 1 == runs.len() || (bins > 1 && inside * bins >= left) {
            ranges.push((from, run.1));
            left -= inside;
            (low, inside) = (None, 0);
        }
    }
    Ok(Cuts::Number(ranges))
}

/// A bin for each category that is there; of more than [`CATEGORY_BINS`] the rarest share the last (of equal counts
/// those with the higher codes).
fn categories(codes: &[u32], cardinality: u32) -> Cuts {
    // The table of bins ends with the largest code that is there: a claimed cardinality takes no memory.
    let known = codes.iter().copied().filter(|c| *c < cardinality);
    let length = known.clone().max().map_or(0, |c| c as usize + 1);
    let mut counts = vec![0u32; length];
    known.for_each(|c| counts[c as usize] += 1);
    let mut seen: Vec<usize> = (0..length).filter(|c| counts[*c] > 0).collect();
    let mut bin_of = vec![UNSEEN; length];
    let bins = seen.len().min(CATEGORY_BINS);
    if seen.len() > CATEGORY_BINS {
        seen.sort_by_key(|c| (std::cmp::Reverse(counts[*c]), *c));
        let rare = seen.split_off(CATEGORY_BINS - 1);
        rare.iter()
            .for_each(|c| bin_of[*c] = CATEGORY_BINS as u16 - 1);
        seen.sort_unstable();
    }
    for (bin, c) in (0u16..).zip(seen) {
        bin_of[c] = bin;
    }
    Cuts::Category(Categories { bin_of, bins })
}

fn encode(cuts: &Cuts, values: &Values) -> Codes {
    let missing = cuts.bins();
    match (cuts, values) {
        (Cuts::Number(ranges), Values::Number(x)) => {
            let last: Vec<f32> = ranges.iter().map(|r| r.1).collect();
            codes(x, missing, |x| match x.is_nan() {
                true => missing,
                false => last.partition_point(|last| *last < x),
            })
        }
        (Cuts::Category(categories), Values::Category { codes: c, .. }) => {
            codes(c, missing, |c| categories.bin(c).unwrap_or(missing))
        }
        (_, values) => codes(&vec![0u8; values.len()], missing, |_| missing),
    }
}

fn codes<T: Copy + Sync>(values: &[T], missing: usize, bin: impl Fn(T) -> usize + Sync) -> Codes {
    let values = values.par_iter().with_min_len(4096);
    if missing <= u8::MAX as usize {
        Codes::Narrow(values.map(|v| bin(*v) as u8).collect())
    } else {
        Codes::Wide(values.map(|v| bin(*v) as u16).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(values: Values) -> Table {
        Table {
            rows: values.len(),
            columns: vec![Column {
                name: "x".into(),
                values,
            }],
            weights: None,
        }
    }

    fn cut(x: &[f32], cutting: Cutting) -> (Vec<f32>, Codes) {
        let mut bins = Bins::new(&column(Values::Number(x.to_vec())), cutting).unwrap();
        let cuts = &bins.cuts[0];
        let thresholds = 1..cuts.bins();
        let thresholds = thresholds.map(|b| cuts.threshold(b - 1, Some(b))).collect();
        (thresholds, bins.codes.remove(0))
    }

    #[test]
    fn ranks_order_as_numbers() {
        let x = [
            f32::NEG_INFINITY,
            -2.0,
            -f32::MIN_POSITIVE,
            -0.0,
            0.0,
            1e-45,
            3.0,
            f32::INFINITY,
        ];
        assert!(x.windows(2).all(|w| rank(w[0]) < rank(w[1])));
        assert!(x.iter().all(|x| of_rank(rank(*x)).to_bits() == x.to_bits()));
    }

    #[test]
    fn few_values_have_a_bin_each_and_thresholds_in_the_middle() {
        let (thresholds, codes) = cut(&[3.0, 1.0, f32::NAN, 1.0, 2.0], Cutting::Quantiles(255));
        assert_eq!(thresholds, [1.5, 2.5]);
        assert_eq!(codes, Codes::Narrow(vec![2, 0, 3, 0, 1]));
        let (thresholds, codes) = cut(&[f32::NAN; 3], Cutting::Exact);
        assert!(thresholds.is_empty());
        assert_eq!(codes, Codes::Narrow(vec![0; 3]));
    }

    #[test]
    fn neighbours_are_kept_apart_or_not() {
        // The middle of neighbours rounds down, so that the lower goes left and the upper right.
        let (low, high) = (1.0f32, 1.0f32.next_up());
        assert_eq!(cut(&[low, high], Cutting::Quantiles(8)).0, [low]);
        let (low, high) = (high, high.next_up());
        assert_eq!(cut(&[low, high], Cutting::Quantiles(8)).0, [low]);
        // An exact cut does not split what is within 1e-7.
        assert!(cut(&[0.1, 0.1 + 5e-8], Cutting::Exact).0.is_empty());
        assert_eq!(cut(&[0.1, 0.1 + 3e-7], Cutting::Exact).0.len(), 1);
        let all = [f32::NEG_INFINITY, 0.0, f32::INFINITY];
        let (thresholds, codes) = cut(&all, Cutting::Exact);
        assert_eq!(thresholds, [f32::NEG_INFINITY, 0.0]);
        assert_eq!(codes, Codes::Narrow(vec![0, 1, 2]));
        assert_eq!(cut(&[-0.0, 0.0], Cutting::Exact).0.len(), 0);
    }

    #[test]
    fn quantiles_share_rows_and_frequent_values_stay_alone() {
        let x: Vec<f32> = (0..1000).map(|i| i as f32).collect();
        let (thresholds, _) = cut(&x, Cutting::Quantiles(4));
        assert_eq!(thresholds, [249.5, 499.5, 749.5]);
        // 600 of 1000 rows are 0: a bin; what is left is shared by the three others.
        let x: Vec<f32> = (0..1000).map(|i| (i as f32 - 599.0).max(0.0)).collect();
        let (thresholds, _) = cut(&x, Cutting::Quantiles(4));
        assert_eq!(thresholds.len(), 3);
        assert_eq!(thresholds[0], 0.5);
        let x: Vec<f32> = (0..70_000).map(|i| i as f32).collect();
        let table = column(Values::Number(x));
        assert!(Bins::new(&table, Cutting::Exact).is_err());
        assert!(Bins::new(&table, Cutting::Quantiles(1)).is_err());
        let bins = Bins::new(&table, Cutting::Quantiles(300)).unwrap();
        assert_eq!(bins.cuts[0].bins(), 300);
        assert!(matches!(&bins.codes[0], Codes::Wide(c) if c[69_999] == 299));
    }

    #[test]
    fn categories_have_bins_and_the_rarest_share_one() {
        let codes = vec![5, 2, 5, super::super::data::UNKNOWN, 9, 2, 5];
        let bins = Bins::new(
            &column(Values::Category {
                codes,
                cardinality: 8,
            }),
            Cutting::Quantiles(255),
        )
        .unwrap();
        assert_eq!(bins.codes[0], Codes::Narrow(vec![1, 0, 1, 2, 2, 0, 1]));
        let bins = bins.categories()[0].unwrap();
        assert_eq!(
            [bins.bin(5), bins.bin(4), bins.bin(9)],
            [Some(1), None, None]
        );
        let codes: Vec<u32> = (0..10_000).chain(0..100).collect();
        let Cuts::Category(bins) = categories(&codes, u32::MAX) else {
            panic!("no categories")
        };
        assert_eq!(bins.bins, CATEGORY_BINS);
        let found = [99, 253, 254, 9_999, 10_000].map(|c| bins.bin(c));
        assert_eq!(found, [Some(99), Some(253), Some(254), Some(254), None]);
    }
}
