//! Random numbers of the generators: a pure function of seed, stream and position.

/// The golden ratio step and finaliser of `SplitMix64` (Steele, Lea and Flood 2014).
#[inline]
#[must_use]
pub fn mix(x: u64) -> u64 {
    let z = x.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// The numbers of one seed (below 2^16).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Random(u64);

impl Random {
    /// The numbers of a seed; only its lowest 16 bits count.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed << 48)
    }

    /// Uniform in [0, 1) with 53 bits; streams below 2^8, positions below 2^40.
    #[inline]
    #[must_use]
    pub fn uniform(self, stream: u64, i: u64) -> f64 {
        const SCALE: f64 = 1.0 / (1u64 << 53) as f64;
        let bits = mix(self.0.wrapping_add(stream << 40).wrapping_add(i)) >> 11;
        bits as f64 * SCALE
    }

    /// Standard normal (Box and Muller 1958) from positions 2i and 2i + 1 of the stream.
    #[inline]
    #[must_use]
    pub fn normal(self, stream: u64, i: u64) -> f64 {
        let (a, b) = (self.uniform(stream, 2 * i), self.uniform(stream, 2 * i + 1));
        (-2.0 * (1.0 - a).ln()).sqrt() * (2.0 * std::f64::consts::PI * b).cos()
    }

    /// A whole number from 0 to n - 1.
    #[inline]
    #[must_use]
    pub fn below(self, n: u32, stream: u64, i: u64) -> u32 {
        int(f64::from(n) * self.uniform(stream, i))
    }
}

/// A number of at least 0 without its fraction.
#[inline]
#[must_use]
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "truncation is what it is for"
)]
pub fn int(x: f64) -> u32 {
    x as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_the_reference() {
        let r = Random::new(7);
        for (i, expected) in [(0, 0.971_831_17), (1, 0.622_977_34), (2, 0.374_722_15)] {
            assert!((r.uniform(1, i) - expected).abs() < 5e-9, "{i}");
        }
    }

    #[test]
    fn normal_numbers_are_normal() {
        let r = Random::new(3);
        let n = 100_000;
        let (mut s, mut ss) = (0.0, 0.0);
        for i in 0..n {
            let x = r.normal(5, i);
            s += x;
            ss += x * x;
        }
        assert!((s / n as f64).abs() < 0.015);
        assert!((ss / n as f64 - 1.0).abs() < 0.02);
    }
}
