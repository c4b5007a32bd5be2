//! PEFT's sparsifying and merging rules on plain slices (`utils/merge_utils.py`). They differ from mergekit's: votes
//! are unweighted and the disjoint mean divides by a count.

/// How the sign of an entry is elected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SignRule {
    /// Sign of the sum of the values.
    #[default]
    Total,
    /// Sign of the sum of the signs.
    Frequency,
}

impl SignRule {
    /// Reads PEFT's word.
    pub fn from_word(word: &str) -> Option<Self> {
        match word {
            "total" => Some(Self::Total),
            "frequency" => Some(Self::Frequency),
            _ => None,
        }
    }
}

/// Keeps the `int(density * n)` entries of largest magnitude and sets the others to 0; of equal ones the lowest index
/// stays. No minimum of one entry.
pub fn top_by_magnitude(values: &mut [f64], density: f64) {
    let keep = (density * values.len() as f64) as usize;
    if keep >= values.len() {
        return;
    }
    let mut order: Vec<usize> = (0..values.len()).collect();
    if keep > 0 {
        order.select_nth_unstable_by(keep - 1, |&a, &b| {
            values[b].abs().total_cmp(&values[a].abs()).then(a.cmp(&b))
        });
    }
    for &i in &order[keep..] {
        values[i] = 0.0;
    }
}

/// Elected sign (+1 or -1; zero counts as +) of every entry over the unweighted `tensors`.
pub fn elect(tensors: &[Vec<f64>], rule: SignRule) -> Vec<f64> {
    let n = tensors.first().map_or(0, Vec::len);
    (0..n)
        .map(|i| {
            let vote: f64 = tensors
                .iter()
                .map(|t| match rule {
                    SignRule::Total => t[i],
                    SignRule::Frequency => sign(t[i]),
                })
                .sum();
            if vote >= 0.0 { 1.0 } else { -1.0 }
        })
        .collect()
}

/// `sum_t w_t x_t [sign(x_t) = elected] / max(count, 1)`; zeros agree with neither sign.
pub fn disjoint_mean(tensors: &[Vec<f64>], weights: &[f64], elected: &[f64]) -> Vec<f64> {
    elected
        .iter()
        .enumerate()
        .map(|(i, e)| {
            let (mut sum, mut count) = (0.0, 0.0f64);
            for (t, w) in tensors.iter().zip(weights) {
                if sign(t[i]) == *e {
                    sum += w * t[i];
                    count += 1.0;
                }
            }
            sum / count.max(1.0)
        })
        .collect()
}

/// `sum_t w_t x_t`.
pub(super) fn weighted_sum(tensors: &[Vec<f64>], weights: &[f64]) -> Vec<f64> {
    let mut out = vec![0.0; tensors.first().map_or(0, Vec::len)];
    for (t, w) in tensors.iter().zip(weights) {
        for (o, x) in out.iter_mut().zip(t) {
            *o += w * x;
        }
    }
    out
}

fn sign(x: f64) -> f64 {
    if x > 0.0 {
        1.0
    } else if x < 0.0 {
        -1.0
    } else {
        0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pruning_keeps_the_floor_of_the_share() {
        let mut v = [3.0, -1.0, 1.0, -4.0, 0.5];
        top_by_magnitude(&mut v, 0.5);
        assert_eq!(v, [3.0, 0.0, 0.0, -4.0, 0.0]);
        let mut v = [1.0, -1.0, 1.0];
        top_by_magnitude(&mut v, 0.34);
        assert_eq!(v, [1.0, 0.0, 0.0]);
        top_by_magnitude(&mut v, 0.2);
        assert_eq!(v, [0.0; 3]);
    }

    #[test]
    fn the_two_elections_differ() {
        let t = [vec![5.0, 0.0], vec![-1.0, 0.0], vec![-1.0, -2.0]];
        assert_eq!(elect(&t, SignRule::Total), [1.0, -1.0]);
        assert_eq!(elect(&t, SignRule::Frequency), [-1.0, -1.0]);
        // Only the agreeing entries are weighted and counted: (-1 * 2 - 1 * 4) / 2, then -2 * 4 / 1.
        let mean = disjoint_mean(&t, &[1.0, 2.0, 4.0], &[-1.0, -1.0]);
        assert_eq!(mean, [-3.0, -8.0]);
        // Nobody agrees with an elected plus that came from zeros.
        assert_eq!(disjoint_mean(&[vec![0.0]], &[1.0], &[1.0]), [0.0]);
    }
}
