//! Counter-based random numbers: element `i` of a stream is a pure function of (key, i), so neither thread count nor
//! chunk size nor sharding can change a draw.

use crate::wide;

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

    /// 32 random bits for each of the positions from `start` on, by a cheaper mix than [`Self::bits`] that fills wide
    /// registers: three rounds of Wellons' hash `triple32` (hash-prospector, 2018) with the stream's key added in two
    /// places. Keys change every 2^24 positions, because within one key no draw comes twice.
    pub fn draws(self, start: u64, out: &mut [u32]) {
        const RUN: u64 = 1 << 24;
        let mut done = 0;
        while done < out.len() {
            let at = start + done as u64;
            let len = ((RUN - at % RUN) as usize).min(out.len() - done);
            let key = mix(self.0 ^ mix(!(at / RUN)));
            fill(key, (at % RUN) as u32, &mut out[done..done + len]);
            done += len;
        }
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

fn fill(key: u64, first: u32, out: &mut [u32]) {
    let (low, high) = (key as u32, (key >> 32) as u32);
    wide(
        #[inline(always)]
        || {
            for (i, o) in (0u32..).zip(out.iter_mut()) {
                let mut x = first.wrapping_add(i).wrapping_add(low);
                x = (x ^ (x >> 17)).wrapping_mul(0xED5A_D4BB);
                x = (x ^ (x >> 11)).wrapping_add(high);
                x = x.wrapping_mul(0xAC4C_1B51);
                x = (x ^ (x >> 15)).wrapping_mul(0x3184_8BAB);
                *o = x ^ (x >> 14);
            }
        },
    );
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
    fn draws_depend_on_position_alone() {
        let s = Stream::new(7, "t", 1);
        let mut all = vec![0; 5000];
        // Across a change of keys.
        let start = (1 << 24) - 1234;
        s.draws(start, &mut all);
        let mut part = vec![0; 777];
        s.draws(start + 1000, &mut part);
        assert_eq!(part, all[1000..1777]);
    }

    #[test]
    fn draws_look_independent() {
        let n = 1 << 20;
        let draw = |index| {
            let mut out = vec![0; n];
            Stream::new(11, "model.layers.0.mlp.up_proj.weight", index).draws(12_345, &mut out);
            out
        };
        let (a, b) = (draw(0), draw(1));
        // Pairs of draws, at several lags in one stream and across two: 256 cells of 4 x 4 high and 4 x 4 low bits
        // each. Chi-square with 255 degrees of freedom: mean 255, standard deviation 22.6.
        let chi = |pairs: &mut dyn Iterator<Item = (u32, u32)>, shift: u32| {
            let mut cells = [0u32; 256];
            let mut count = 0;
            for (x, y) in pairs {
                cells[((x >> shift & 15) << 4 | (y >> shift & 15)) as usize] += 1;
                count += 1;
            }
            let want = f64::from(count) / 256.0;
            let term = |c: &u32| (f64::from(*c) - want).powi(2) / want;
            cells.iter().map(term).sum::<f64>()
        };
        for shift in [28, 14, 0] {
            for lag in [1, 2, 4, 8, 16, 896, 1024, 4096] {
                let pairs = a.iter().copied().zip(a[lag..].iter().copied());
                let x = chi(&mut pairs.into_iter(), shift);
                assert!((150.0..375.0).contains(&x), "lag {lag}, bit {shift}: {x}");
            }
            let x = chi(&mut a.iter().copied().zip(b.iter().copied()), shift);
            assert!((150.0..375.0).contains(&x), "two experts, bit {shift}: {x}");
        }
        // Runs of survivors at density 0.1 have the lengths of a geometric distribution.
        let kept = |x: &u32| *x < 429_496_730;
        let both = a.windows(2).filter(|w| kept(&w[0]) && kept(&w[1])).count() as f64;
        let expected = 0.01 * (n - 1) as f64;
        assert!((both - expected).abs() < 5.0 * expected.sqrt(), "{both}");
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
