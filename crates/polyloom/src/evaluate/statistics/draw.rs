//! Random numbers of the bootstrap and of random permutations, written down so that any program can repeat them.
//!
//! The generator is ChaCha with 8 rounds. Its 32-byte key is the SHA-256 of the task's hash, a zero byte and the name of
//! the metric, both as UTF-8. Draw number `b` is the stream `b` (the 64-bit nonce) from block 0. A 64-bit number is two
//! words of the key stream, the low one first; `u` is its upper 53 bits over 2^53; an index below `n` is `floor(u n)`. So
//! a draw does not depend on how many others there are or on which thread makes it.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use sha2::{Digest, Sha256};

/// Where the random numbers of a quantity begin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seed([u8; 32]);

impl Seed {
    /// The seed of a metric on a task.
    pub fn of(task_hash: &str, metric: &str) -> Self {
        let mut hasher = Sha256::new();
        hasher.update(task_hash.as_bytes());
        hasher.update([0]);
        hasher.update(metric.as_bytes());
        Self(hasher.finalize().into())
    }

    /// The random numbers of a draw.
    pub fn draw(&self, number: u64) -> Draw {
        let mut generator = ChaCha8Rng::from_seed(self.0);
        generator.set_stream(number);
        Draw(generator)
    }
}

/// The random numbers of one draw.
#[derive(Debug, Clone)]
pub struct Draw(ChaCha8Rng);

impl Draw {
    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// A number in `[0, 1)`, a multiple of 2^-53.
    pub fn unit(&mut self) -> f64 {
        // Below 2^53, so the signed conversion (one instruction) is exact.
        (self.bits() >> 11) as i64 as f64 * (1.0 / (1u64 << 53) as f64)
    }

    /// An index below `n`, which must be at least 1 and at most 2^32.
    pub fn index(&mut self, n: usize) -> u32 {
        // u n stays below n: the product's rounding error is less than n 2^-53, and u is at most 1 - 2^-53.
        (self.unit() * n as f64) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stream_is_pinned() {
        // Zero key, stream 0: first bytes of the key stream of ChaCha8 (draft-strombergson-chacha-test-vectors, TC1).
        let mut draw = Seed([0; 32]).draw(0);
        let bytes = [draw.bits().to_le_bytes(), draw.bits().to_le_bytes()].concat();
        let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(hex, "3e00ef2f895f40d67f5bb8e81f09a5a1");
        // SHA-256 of "task", 0, "accuracy".
        let seed = Seed::of("task", "accuracy");
        assert_ne!(seed, Seed::of("taska", "ccuracy"));
        let mut draw = seed.draw(7);
        let indices: Vec<u32> = (0..6).map(|_| draw.index(1000)).collect();
        // By a second program, written from the text above.
        assert_eq!(indices, [428, 13, 609, 544, 75, 954]);
    }

    #[test]
    fn indices_stay_below_n() {
        for n in [1usize, 3, 10, 1 << 20, (1 << 32) - 1, 1 << 32] {
            let highest = ((1u64 << 53) - 1) as f64 / (1u64 << 53) as f64;
            assert!(((highest * n as f64) as u64) < n as u64);
            assert!((seed().draw(1).index(n) as usize) < n);
        }
    }

    #[test]
    fn indices_are_even() {
        let mut counts = [0u32; 7];
        for number in 0..700 {
            let mut draw = seed().draw(number);
            (0..100).for_each(|_| counts[draw.index(7) as usize] += 1);
        }
        // 10000 expected, standard deviation 93.
        assert!(
            counts.iter().all(|c| c.abs_diff(10_000) < 400),
            "{counts:?}"
        );
    }

    fn seed() -> Seed {
        Seed::of("task", "metric")
    }
}
