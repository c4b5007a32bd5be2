//! Bits coded by how likely they are: an adaptive binary range coder (as LZMA has it) over contexts.
//!
//! Whole numbers only, so that every machine writes and reads the same bytes. A block begins with nothing known; each
//! context learns the share of its bits, and a bit costs what its context makes of it.

/// What a context knows: how likely a 1 is, in 1/2^24, and after how many bits. So fine that a context of one kind of bit
/// comes down to the coder's least probability instead of stopping where a step rounds to 0.
#[derive(Clone, Copy)]
struct Share {
    one: u32,
    seen: u16,
}

/// Bits of a share.
const FINE: u32 = 24;

/// Bits after which a context forgets old ones.
const MEMORY: u16 = 1022;
/// Precision of a probability in the coder.
const PRECISION: u32 = 14;

impl Share {
    const NEW: Self = Self {
        one: 1 << (FINE - 1),
        seen: 0,
    };

    fn probability(self) -> u32 {
        (self.one >> (FINE - PRECISION)).clamp(1, (1 << PRECISION) - 1)
    }

    fn learn(&mut self, bit: bool) {
        let target = if bit { (1 << FINE) - 1 } else { 0 };
        let step = (target - self.one as i32) / (i32::from(self.seen) + 2);
        self.one = (self.one as i32 + step) as u32;
        self.seen = (self.seen + 1).min(MEMORY);
    }
}

/// Codes bits; `context(i, previous)` says which of `contexts` contexts bit `i` has.
pub fn encode(
    bits: impl Iterator<Item = bool>,
    contexts: usize,
    context: impl Fn(usize, bool) -> usize,
) -> Vec<u8> {
    let mut shares = vec![Share::NEW; contexts];
    let mut out = Encoder::new();
    let mut previous = false;
    for (i, bit) in bits.enumerate() {
        let share = &mut shares[context(i, previous)];
        out.put(bit, share.probability());
        share.learn(bit);
        previous = bit;
    }
    out.end()
}

/// The `n` bits of a block, as `each(i, bit)`. Bytes that nobody coded give some bits, never an error: what they mean is
/// for the reader to check.
pub fn decode(
    bytes: &[u8],
    n: usize,
    contexts: usize,
    context: impl Fn(usize, bool) -> usize,
    mut each: impl FnMut(usize, bool),
) {
    let mut shares = vec![Share::NEW; contexts];
    let mut from = Decoder::new(bytes);
    let mut previous = false;
    for i in 0..n {
        let share = &mut shares[context(i, previous)];
        let bit = from.take(share.probability());
        share.learn(bit);
        each(i, bit);
        previous = bit;
    }
}

struct Encoder {
    low: u64,
    range: u32,
    cache: u8,
    waiting: u64,
    out: Vec<u8>,
}

impl Encoder {
    fn new() -> Self {
        Self {
            low: 0,
            range: u32::MAX,
            cache: 0,
            waiting: 1,
            out: Vec::new(),
        }
    }

    fn put(&mut self, bit: bool, probability: u32) {
        let bound = (self.range >> PRECISION) * probability;
        if bit {
            self.range = bound;
        } else {
            self.low += u64::from(bound);
            self.range -= bound;
        }
        while self.range < 1 << 24 {
            self.range <<= 8;
            self.shift();
        }
    }

    /// Moves the highest byte out; one that a later carry may still change waits.
    fn shift(&mut self) {
        if self.low < 0xFF00_0000 || self.low > u64::from(u32::MAX) {
            let carry = (self.low >> 32) as u8;
            let mut byte = self.cache;
            while self.waiting > 0 {
                self.out.push(byte.wrapping_add(carry));
                byte = 0xFF;
                self.waiting -= 1;
            }
            self.cache = (self.low >> 24) as u8;
        }
        self.waiting += 1;
        self.low = (self.low & 0x00FF_FFFF) << 8;
    }

    fn end(mut self) -> Vec<u8> {
        for _ in 0..5 {
            self.shift();
        }
        // The first byte is always 0, and zeros at the end are what a reader finds behind the last byte.
        let mut out = self.out.split_off(1);
        while out.last() == Some(&0) {
            out.pop();
        }
        out
    }
}

struct Decoder<'a> {
    bytes: &'a [u8],
    at: usize,
    code: u32,
    range: u32,
}

impl<'a> Decoder<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        let mut made = Self {
            bytes,
            at: 0,
            code: 0,
            range: u32::MAX,
        };
        for _ in 0..4 {
            made.code = made.code << 8 | made.next();
        }
        made
    }

    fn next(&mut self) -> u32 {
        let byte = self.bytes.get(self.at).copied().unwrap_or(0);
        self.at += 1;
        u32::from(byte)
    }

    fn take(&mut self, probability: u32) -> bool {
        let bound = (self.range >> PRECISION) * probability;
        let bit = self.code < bound;
        if bit {
            self.range = bound;
        } else {
            self.code -= bound;
            self.range -= bound;
        }
        while self.range < 1 << 24 {
            self.range <<= 8;
            self.code = self.code << 8 | self.next();
        }
        bit
    }
}

/// Bits that `ones` of `n` bits need where nothing else is known of them: `n H(ones / n)`.
#[must_use]
pub fn entropy(ones: u64, n: u64) -> f64 {
    let part = |k: u64| match k {
        0 => 0.0,
        k => k as f64 * (n as f64 / k as f64).log2(),
    };
    part(ones) + part(n - ones)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn there_and_back(
        bits: &[bool],
        contexts: usize,
        context: impl Fn(usize, bool) -> usize,
    ) -> usize {
        let bytes = encode(bits.iter().copied(), contexts, &context);
        let mut back = Vec::new();
        decode(&bytes, bits.len(), contexts, &context, |_, b| back.push(b));
        assert!(back == bits);
        bytes.len()
    }

    #[test]
    fn bits_come_back_and_cost_their_entropy() {
        let stream = polyloom_core::rng::Stream::new(3, "coder", 0);
        for share in [0.0, 0.001, 0.1, 0.3, 0.5, 0.97, 1.0] {
            let bits: Vec<bool> = (0..100_000).map(|i| stream.uniform(i) < share).collect();
            let ones = bits.iter().filter(|b| **b).count() as u64;
            let bound = entropy(ones, 100_000) / 8.0;
            let found = there_and_back(&bits, 1, |_, _| 0) as f64;
            assert!(
                found >= bound * 0.999 - 1.0 && found <= bound * 1.01 + 16.0,
                "{share}: {found} {bound}"
            );
        }
        for n in 0..40 {
            let bits: Vec<bool> = (0..n).map(|i| stream.uniform(i) < 0.5).collect();
            there_and_back(&bits, 1, |_, _| 0);
        }
    }

    #[test]
    fn contexts_know_more() {
        // What bit i is depends on i mod 4.
        let stream = polyloom_core::rng::Stream::new(4, "coder", 0);
        let of = |i: u64| stream.uniform(i) < [0.02, 0.98, 0.02, 0.98][(i % 4) as usize];
        let bits: Vec<bool> = (0..50_000).map(of).collect();
        let blind = there_and_back(&bits, 1, |_, _| 0);
        let knowing = there_and_back(&bits, 4, |i, _| i % 4);
        assert!(knowing * 5 < blind, "{knowing} {blind}");
    }

    #[test]
    fn strange_bytes_give_some_bits() {
        for bytes in [&[][..], &[0xFF; 3], &[0x5A; 100]] {
            let mut count = 0;
            decode(bytes, 1000, 2, |_, p| usize::from(p), |_, _| count += 1);
            assert_eq!(count, 1000);
        }
    }
}
