//! Dropout: which elements fall is a function of the seed and the position, so that the backward pass draws the same.

use super::BLOCK;
use crate::rng::Stream;
use crate::wide;

/// Sets a share `rate` of the elements to 0 and multiplies the others by `1 / (1 - rate)`; the elements are those from
/// `start` on of the stream. The same call on the gradient is the backward pass.
///
/// # Panics
/// If `rate` is not in 0 to below 1.
pub fn apply(x: &mut [f32], start: u64, rate: f32, stream: Stream) {
    assert!((0.0..1.0).contains(&rate), "a dropout of {rate}");
    if rate == 0.0 {
        return;
    }
    let least = (f64::from(rate) * 4_294_967_296.0) as u32;
    let factor = 1.0 / (1.0 - rate);
    super::blocks(x, BLOCK, |block, x| {
        let mut draws = [0u32; 1024];
        for (i, x) in x.chunks_mut(1024).enumerate() {
            let draws = &mut draws[..x.len()];
            stream.draws(start + (block * BLOCK + i * 1024) as u64, draws);
            wide(
                #[inline(always)]
                || {
                    for (x, d) in x.iter_mut().zip(draws.iter()) {
                        *x = if *d < least { 0.0 } else { *x * factor };
                    }
                },
            );
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_falls_and_positions_decide() {
        let stream = Stream::new(3, "dropout", 0);
        let mut all = vec![1.0; 3 * BLOCK];
        apply(&mut all, 0, 0.25, stream);
        let fallen = all.iter().filter(|x| **x == 0.0).count() as f64 / all.len() as f64;
        assert!((fallen - 0.25).abs() < 0.01, "{fallen}");
        assert!(all.iter().all(|x| *x == 0.0 || *x == 1.0 / 0.75));
        let mut part = vec![1.0; 100];
        apply(&mut part, 5000, 0.25, stream);
        assert_eq!(part, all[5000..5100]);
    }
}
