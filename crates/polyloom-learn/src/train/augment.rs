//! Small random changes of pictures: turns, stretches, shears, shifts. No mirroring: letters have a side.

use polyloom_core::rng::Stream;

use crate::tasks::{Reader, Shown};

/// A picture as a reader shows it, changed at random ([`changed`]); nothing for other inputs.
#[must_use]
pub fn changed_of(reader: &Reader, shown: &Shown, strength: f32, stream: Stream) -> Option<Shown> {
    match (reader, shown) {
        (Reader::Pictures(p), Shown::Planes(planes)) => {
            Some(Shown::Planes(changed(planes, p.size, strength, stream)))
        }
        (Reader::Sensors(sensors), Shown::Sensed(stem, planes)) => {
            let side = sensors.side(*stem);
            Some(Shown::Sensed(
                *stem,
                changed(planes, side, strength, stream),
            ))
        }
        _ => None,
    }
}

/// A picture `[channels, size, size]` changed at random: at strength 1 turned by at most 0.2, stretched by at most 12 %,
/// sheared by at most 0.12, shifted by at most 7 % of its size. Bilinear; beyond the edge the edge goes on.
#[must_use]
pub fn changed(planes: &[u8], size: usize, strength: f32, stream: Stream) -> Vec<u8> {
    if size == 0 {
        return planes.to_vec();
    }
    let draw = |i: u64, most: f32| (2.0 * stream.uniform(i) - 1.0) * most * strength;
    let angle = draw(0, 0.2);
    let (wide, high, shear) = (1.0 + draw(1, 0.12), 1.0 + draw(2, 0.12), draw(3, 0.12));
    let (right, down) = (draw(4, 0.07), draw(5, 0.07));
    let (sin, cos) = angle.sin_cos();
    let half = size as f32 / 2.0;
    let mut out = vec![0u8; planes.len()];
    for (from, to) in planes
        .chunks_exact(size * size)
        .zip(out.chunks_exact_mut(size * size))
    {
        for y in 0..size {
            for x in 0..size {
                // From -1 to 1 over the picture, where the new pixel comes from.
                let (u, v) = (
                    (x as f32 + 0.5 - half) / half,
                    (y as f32 + 0.5 - half) / half,
                );
                let a = cos * wide * u + (shear - sin * high) * v + 2.0 * right;
                let b = sin * wide * u + cos * high * v + 2.0 * down;
                to[y * size + x] = at(from, size, a * half + half - 0.5, b * half + half - 0.5);
            }
        }
    }
    out
}

fn at(plane: &[u8], size: usize, x: f32, y: f32) -> u8 {
    let last = (size - 1) as f32;
    let (x, y) = (x.clamp(0.0, last), y.clamp(0.0, last));
    let (left, top) = (x.floor(), y.floor());
    let (dx, dy) = (x - left, y - top);
    let (x0, y0) = (left as usize, top as usize);
    let (x1, y1) = ((x0 + 1).min(size - 1), (y0 + 1).min(size - 1));
    let p = |x: usize, y: usize| f32::from(plane[y * size + x]);
    let upper = p(x0, y0) * (1.0 - dx) + p(x1, y0) * dx;
    let lower = p(x0, y1) * (1.0 - dx) + p(x1, y1) * dx;
    (upper * (1.0 - dy) + lower * dy).round() as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_strength_changes_nothing_and_seeds_differ() {
        let picture: Vec<u8> = (0..2 * 64).map(|i| (i * 37 % 251) as u8).collect();
        let of = |strength, seed| changed(&picture, 8, strength, Stream::new(seed, "t", 0));
        assert_eq!(of(0.0, 1), picture);
        assert_eq!(of(1.0, 1), of(1.0, 1));
        assert_ne!(of(1.0, 1), of(1.0, 2));
        assert_eq!(changed(&[9; 64], 8, 1.0, Stream::new(1, "t", 0)), [9; 64]);
    }
}
