//! Images made worse on purpose, to see what a model still knows: noise, blur, low contrast, a hidden patch.
//!
//! Five severities a kind. Noise and contrast are those of ImageNet-C (Hendrycks and Dietterich 2019, its published code);
//! blur and occlusion are ours, in units of the image's side, since their pixels would not fit images of 28 x 28.

pub mod write;

use super::synth::random::Random;

/// What is done to an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Gaussian noise on every value: deviation 0.08, 0.12, 0.18, 0.26, 0.38 of the full range (ImageNet-C).
    Noise,
    /// Gaussian blur: deviation 1, 2, 3, 4.5, 6 % of the longer side (ours); edges repeat.
    Blur,
    /// Differences from the mean of each channel are multiplied by 0.4, 0.3, 0.2, 0.1, 0.05 (ImageNet-C).
    Contrast,
    /// A patch of 20, 30, 40, 50, 60 % of both sides at a random place gets the mean of each channel (ours).
    Occlusion,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Self; 4] = [Self::Noise, Self::Blur, Self::Contrast, Self::Occlusion];

    /// The word for it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Noise => "noise",
            Self::Blur => "blur",
            Self::Contrast => "contrast",
            Self::Occlusion => "occlusion",
        }
    }

    /// How strong it is, in the unit that the kind says.
    fn strength(self, severity: Severity) -> f64 {
        let table = match self {
            Self::Noise => [0.08, 0.12, 0.18, 0.26, 0.38],
            Self::Blur => [0.01, 0.02, 0.03, 0.045, 0.06],
            Self::Contrast => [0.4, 0.3, 0.2, 0.1, 0.05],
            Self::Occlusion => [0.2, 0.3, 0.4, 0.5, 0.6],
        };
        table[usize::from(severity.0 - 1)]
    }
}

/// From 1 (weak) to 5 (strong).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Severity(u8);

impl Severity {
    /// A severity; `None` outside of 1 to 5.
    #[must_use]
    pub fn new(level: u8) -> Option<Self> {
        (1..=5).contains(&level).then_some(Self(level))
    }

    /// The number.
    #[must_use]
    pub fn level(self) -> u8 {
        self.0
    }
}

/// One way of making images worse.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Corruption {
    /// What is done.
    pub kind: Kind,
    /// How strongly.
    pub severity: Severity,
    /// Seed of noise and places (its lowest 16 bits).
    pub seed: u64,
}

/// Random numbers of one image; images of more numbers share some with the next one.
const SPAN: u64 = 1 << 20;
const NOISE: u64 = 201;
const PLACE: u64 = 202;

impl Corruption {
    /// A worse copy of `pixels`, `[height, width, channels]` row by row, 0 to 255. It depends on the seed and the number of
    /// the row alone. Time: linear in the pixels, for blur times the kernel's width.
    ///
    /// `pixels` must have `height * width * channels` values; a size with a zero gives a plain copy.
    #[must_use]
    pub fn apply(&self, pixels: &[u8], size: [usize; 3], row: u64) -> Vec<u8> {
        if size.contains(&0) || size.iter().product::<usize>() != pixels.len() {
            return pixels.to_vec();
        }
        let strength = self.kind.strength(self.severity);
        let random = Random::new(self.seed);
        let first = row.wrapping_mul(SPAN);
        match self.kind {
            Kind::Noise => (first..)
                .zip(pixels)
                .map(|(i, p)| byte(f64::from(*p) + 255.0 * strength * random.normal(NOISE, i)))
                .collect(),
            Kind::Blur => blurred(pixels, size, strength * size[0].max(size[1]) as f64),
            Kind::Contrast => {
                let means = means(pixels, size[2]);
                let channels = means.iter().cycle();
                let pairs = pixels.iter().zip(channels);
                pairs
                    .map(|(p, m)| byte(m + strength * (f64::from(*p) - m)))
                    .collect()
            }
            Kind::Occlusion => {
                let place = [0, 1].map(|i| random.uniform(PLACE, 2 * row + i));
                hidden(pixels, size, strength, place)
            }
        }
    }
}

/// The nearest byte.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "clamped to the range of a byte"
)]
fn byte(x: f64) -> u8 {
    x.round().clamp(0.0, 255.0) as u8
}

/// The mean of each channel.
fn means(pixels: &[u8], channels: usize) -> Vec<f64> {
    let mut sums = vec![0.0; channels];
    for pixel in pixels.chunks_exact(channels) {
        for (sum, p) in sums.iter_mut().zip(pixel) {
            *sum += f64::from(*p);
        }
    }
    let n = (pixels.len() / channels) as f64;
    sums.into_iter().map(|s| s / n).collect()
}

/// Weights of a normal curve cut at four deviations, sum 1.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a few deviations of a share of the side"
)]
fn kernel(deviation: f64) -> Vec<f64> {
    let reach = (4.0 * deviation).ceil() as i32;
    let raw: Vec<f64> = (-reach..=reach)
        .map(|x| (-0.5 * (f64::from(x) / deviation).powi(2)).exp())
        .collect();
    let sum: f64 = raw.iter().sum();
    raw.into_iter().map(|w| w / sum).collect()
}

/// Along the rows, then along the columns; the outermost pixels repeat.
fn blurred(pixels: &[u8], [height, width, channels]: [usize; 3], deviation: f64) -> Vec<u8> {
    let weights = kernel(deviation);
    let reach = weights.len() / 2;
    let along = |from: &[f64], vertical: bool| -> Vec<f64> {
        let length = if vertical { height } else { width };
        let at = |y: usize, x: usize, c: usize| (y * width + x) * channels + c;
        let mut out = Vec::with_capacity(from.len());
        for i in 0..from.len() {
            let (c, x, y) = (i % channels, i / channels % width, i / (channels * width));
            let here = if vertical { y } else { x };
            let sum = weights.iter().enumerate().map(|(k, w)| {
                let there = (here + k).saturating_sub(reach).min(length - 1);
                w * from[if vertical {
                    at(there, x, c)
                } else {
                    at(y, there, c)
                }]
            });
            out.push(sum.sum());
        }
        out
    };
    let values: Vec<f64> = pixels.iter().map(|p| f64::from(*p)).collect();
    along(&along(&values, false), true)
        .into_iter()
        .map(byte)
        .collect()
}

/// A patch of a share of both sides; `place` says where, 0 to 1 of what is left.
fn hidden(
    pixels: &[u8],
    [height, width, channels]: [usize; 3],
    share: f64,
    place: [f64; 2],
) -> Vec<u8> {
    use super::synth::random::int;
    let means = means(pixels, channels);
    let part = |side: usize, place: f64| {
        let long = (int((side as f64 * share).round()) as usize).clamp(1, side);
        let from = int(place * (side - long + 1) as f64) as usize;
        from..from + long
    };
    let (rows, columns) = (part(height, place[0]), part(width, place[1]));
    let mut out = pixels.to_vec();
    for y in rows {
        for x in columns.clone() {
            let start = (y * width + x) * channels;
            for (value, mean) in out[start..start + channels].iter_mut().zip(&means) {
                *value = byte(*mean);
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(kind: Kind, level: u8) -> Corruption {
        Corruption {
            kind,
            severity: Severity::new(level).unwrap(),
            seed: 1,
        }
    }

    #[test]
    fn severities_end_at_five() {
        assert!(Severity::new(0).is_none() && Severity::new(6).is_none());
        assert_eq!(Severity::new(5).unwrap().level(), 5);
    }

    #[test]
    fn contrast_keeps_the_mean_of_each_channel() {
        // Two channels: means 100 and 60.
        let out = of(Kind::Contrast, 1).apply(&[50, 60, 150, 60], [1, 2, 2], 0);
        assert_eq!(out, [80, 60, 120, 60]);
    }

    #[test]
    fn blur_spreads_a_point_by_the_normal_curve() {
        let mut image = vec![0u8; 51 * 51];
        image[25 * 51 + 25] = 255;
        // 2 % of 51 pixels: a deviation of 1.02.
        let out = of(Kind::Blur, 2).apply(&image, [51, 51, 1], 0);
        let weights = kernel(1.02);
        let middle = weights[weights.len() / 2];
        let next = weights[weights.len() / 2 + 1];
        assert_eq!(out[25 * 51 + 25], byte(255.0 * middle * middle));
        assert_eq!(out[25 * 51 + 26], byte(255.0 * middle * next));
        assert_eq!(out[26 * 51 + 25], out[25 * 51 + 26]);
        let flat = of(Kind::Blur, 5).apply(&[7; 300], [10, 10, 3], 0);
        assert_eq!(flat, [7; 300]);
    }

    #[test]
    fn a_patch_has_its_size_and_stays_inside() {
        let image: Vec<u8> = (0..100).map(|i| if i < 50 { 0 } else { 200 }).collect();
        for row in 0..50 {
            let out = of(Kind::Occlusion, 3).apply(&image, [10, 10, 1], row);
            assert_eq!(out.iter().filter(|p| **p == 100).count(), 16);
        }
    }

    #[test]
    fn noise_has_its_deviation_and_depends_on_the_row() {
        let image = vec![128u8; 10_000];
        let noise = of(Kind::Noise, 1);
        let out = noise.apply(&image, [100, 100, 1], 3);
        let squares: f64 = out.iter().map(|p| (f64::from(*p) - 128.0).powi(2)).sum();
        let deviation = (squares / 1e4).sqrt();
        assert!((deviation - 20.4).abs() < 0.6, "{deviation}");
        assert_eq!(out, noise.apply(&image, [100, 100, 1], 3));
        assert_ne!(out, noise.apply(&image, [100, 100, 1], 4));
    }

    #[test]
    fn what_is_no_image_is_left_alone() {
        for kind in Kind::ALL {
            assert!(of(kind, 5).apply(&[], [0, 3, 1], 0).is_empty());
            assert_eq!(of(kind, 5).apply(&[9], [1, 1, 1], 0).len(), 1);
        }
    }
}
