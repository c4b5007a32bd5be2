//! From a router's weights to mixes of experts that inputs can share.

use super::smile::keep_largest;

/// Experts with their weights, comparable bit by bit.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mix(Vec<(usize, u32)>);

impl Mix {
    /// One expert with weight 1.
    #[must_use]
    pub fn one(expert: usize) -> Self {
        Self(vec![(expert, 1f32.to_bits())])
    }

    /// Weights and numbers of experts.
    pub fn weights(&self) -> impl Iterator<Item = (f32, usize)> + '_ {
        self.0.iter().map(|(e, w)| (f32::from_bits(*w), *e))
    }
}

/// The mix of some weights: the `top` largest (of equals the first), brought to a sum of 1, rounded to whole multiples of
/// one over `levels` that still have this sum (largest remainders first); exact for 0 levels.
#[must_use]
pub fn mix(weights: &[f32], top: Option<usize>, levels: u32) -> Mix {
    let mut weights = weights.to_vec();
    // No expert is near enough: the shared weights alone.
    if weights.iter().all(|w| *w == 0.0) {
        return Mix::default();
    }
    if let Some(top) = top {
        keep_largest(&mut weights, top);
    }
    if levels > 0 {
        let whole = levels as f32;
        let mut counts: Vec<u32> = weights.iter().map(|w| (w * whole).floor() as u32).collect();
        let mut order: Vec<usize> = (0..weights.len()).collect();
        let rest = |i: usize| weights[i] * whole - (weights[i] * whole).floor();
        order.sort_by(|&a, &b| rest(b).total_cmp(&rest(a)).then(a.cmp(&b)));
        let short = levels.saturating_sub(counts.iter().sum());
        for &i in order.iter().cycle().take(short as usize) {
            counts[i] += 1;
        }
        weights = counts.iter().map(|c| *c as f32 / whole).collect();
    }
    let kept = weights.iter().enumerate().filter(|(_, w)| **w > 0.0);
    Mix(kept.map(|(e, w)| (e, w.to_bits())).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mixes_sum_to_one_and_repeat() {
        let of = |w: &[f32], top, levels| mix(w, top, levels).weights().collect::<Vec<_>>();
        assert_eq!(of(&[0.2, 0.7, 0.1], Some(1), 16), [(1.0, 1)]);
        assert_eq!(
            of(&[0.5, 0.3, 0.2], None, 4),
            [(0.5, 0), (0.25, 1), (0.25, 2)]
        );
        assert_eq!(of(&[0.5, 0.5], Some(1), 0), [(1.0, 0)]);
        assert_eq!(mix(&[0.98, 0.02], None, 16), Mix::one(0));
        let sum: f32 = of(&[0.31, 0.33, 0.36], None, 16)
            .iter()
            .map(|(w, _)| w)
            .sum();
        assert!((sum - 1.0).abs() < 1e-6);
        assert_eq!(mix(&[0.0, 0.0], Some(1), 16), Mix::default());
        // Exact weights stay as they are.
        assert_eq!(of(&[0.31, 0.69], None, 0), [(0.31, 0), (0.69, 1)]);
    }
}
