//! Sums that do not depend on how the values were split among threads.

/// A sum with Neumaier's compensation (1974): the error is that of one rounding, whatever the number of values, as long
/// as they do not cancel beyond twice the precision. Two of them can be added, so that parts summed apart make a whole.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Sum {
    sum: f64,
    lost: f64,
    count: u64,
}

impl Sum {
    /// Adds a value.
    pub fn add(&mut self, x: f64) {
        self.count += 1;
        self.plus(x);
    }

    fn plus(&mut self, x: f64) {
        let sum = self.sum + x;
        self.lost += if self.sum.abs() >= x.abs() {
            (self.sum - sum) + x
        } else {
            (x - sum) + self.sum
        };
        self.sum = sum;
    }

    /// Adds what another sum holds.
    pub fn merge(&mut self, other: &Self) {
        self.plus(other.sum);
        self.lost += other.lost;
        self.count += other.count;
    }

    /// The sum.
    pub fn total(&self) -> f64 {
        if self.sum.is_finite() {
            self.sum + self.lost
        } else {
            self.sum
        }
    }

    /// How many values were added.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The mean; `NaN` of nothing.
    pub fn mean(&self) -> f64 {
        self.total() / self.count as f64
    }
}

impl FromIterator<f64> for Sum {
    fn from_iter<T: IntoIterator<Item = f64>>(values: T) -> Self {
        let mut sum = Self::default();
        values.into_iter().for_each(|x| sum.add(x));
        sum
    }
}

/// Sum of values.
pub fn sum(values: impl IntoIterator<Item = f64>) -> f64 {
    values.into_iter().collect::<Sum>().total()
}

/// Mean of values; `NaN` of nothing.
pub fn mean(values: impl IntoIterator<Item = f64>) -> f64 {
    values.into_iter().collect::<Sum>().mean()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_lost() {
        assert_eq!(sum([1.0, 1e100, 1.0, -1e100]), 2.0);
        let tenths: Sum = std::iter::repeat_n(0.1, 1_000_000).collect();
        assert_eq!(tenths.total(), 100_000.0);
        assert_eq!(tenths.mean(), 0.1);
        assert!(mean([]).is_nan());
        assert_eq!(sum([f64::INFINITY, 1.0]), f64::INFINITY);
    }

    #[test]
    fn halves_make_the_whole() {
        let values: Vec<f64> = (0..1001)
            .map(|i| (f64::from(i) * 0.7).sin() * 1e6)
            .collect();
        let mut left: Sum = values[..400].iter().copied().collect();
        left.merge(&values[400..].iter().copied().collect());
        let whole: Sum = values.into_iter().collect();
        assert_eq!((left.total(), left.count()), (whole.total(), 1001));
    }
}
