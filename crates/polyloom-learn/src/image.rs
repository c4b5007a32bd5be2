//! Pictures as a model takes them: channels, size, range.

use std::path::Path;

use crate::error::{Error, Result};
use crate::models::sentence::json;

/// What is done to a picture before the model sees it; the fields of `preprocessor_config.json`.
#[derive(Debug, Clone, PartialEq)]
pub struct Preparation {
    /// Height and width that the model takes.
    pub size: usize,
    /// Channels that the model takes.
    pub channels: usize,
    /// Taken off each channel, after pixels were divided by 255.
    pub mean: Vec<f32>,
    /// Divides each channel.
    pub deviation: Vec<f32>,
    /// What size a picture is brought to first. It is put on the middle of a black square then, what is over cut off.
    pub resize: Resize,
    /// Resized by Pillow's bicubic filter (`resample = 3`), not its bilinear one.
    pub cubic: bool,
}

/// Name of the file that says how pictures are prepared.
pub const PREPROCESSOR: &str = "preprocessor_config.json";

/// The size that a picture is brought to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resize {
    /// Its own (`do_resize = false`).
    Kept,
    /// This height and width, whatever it had.
    Sides([usize; 2]),
    /// So much for the shorter side, the other one in proportion (CLIP).
    Shortest(usize),
}

impl Resize {
    fn open(config: &serde_json::Value, size: usize) -> Result<Self, String> {
        if config["do_resize"].as_bool() == Some(false) {
            return Ok(Self::Kept);
        }
        let given = &config["size"];
        let number = |value: &serde_json::Value| match value.as_u64() {
            None => Ok(None),
            Some(n @ 1..=16384) => Ok(Some(n as usize)),
            Some(n) => Err(format!("`size` brings pictures to {n}")),
        };
        let (height, width) = (number(&given["height"])?, number(&given["width"])?);
        // Older files have one number: of what is cropped the shorter side, else both.
        let alone = number(given)?;
        let cropped = config["do_center_crop"].as_bool() == Some(true);
        Ok(match (number(&given["shortest_edge"])?, height, width) {
            (Some(n), ..) => Self::Shortest(n),
            (_, Some(height), Some(width)) if cropped => Self::Sides([height, width]),
            _ if cropped && alone.is_some() => Self::Shortest(alone.unwrap_or(size)),
            _ => Self::Sides([size, size]),
        })
    }

    /// Height and width of a picture that had these.
    fn of(self, height: usize, width: usize) -> [usize; 2] {
        match self {
            Self::Kept => [height, width],
            Self::Sides(sides) => sides,
            Self::Shortest(n) if height <= width => [n, n * width / height],
            Self::Shortest(n) => [n * height / width, n],
        }
    }
}

impl Preparation {
    /// Of pictures that have this size already: pixels go from -1 to 1.
    #[must_use]
    pub fn plain(size: usize, channels: usize) -> Self {
        Self {
            size,
            channels,
            mean: vec![0.5; channels],
            deviation: vec![0.5; channels],
            resize: Resize::Kept,
            cubic: false,
        }
    }

    /// Of a model's folder; without `preprocessor_config.json` pixels go from -1 to 1.
    ///
    /// # Errors
    /// A file that cannot be read, means that are not one per channel, sizes or filters that are not known.
    pub fn open(folder: &Path, size: usize, channels: usize) -> Result<Self> {
        let file = folder.join(PREPROCESSOR);
        if file.exists() {
            return Self::read(&file, size, channels);
        }
        Self::of(&serde_json::Value::Null, &file, size, channels)
    }

    /// Of a file like `preprocessor_config.json`.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn read(file: &Path, size: usize, channels: usize) -> Result<Self> {
        Self::of(&json(file)?, file, size, channels)
    }

    /// Of what such a file says; errors name `file`.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn of(
        config: &serde_json::Value,
        file: &Path,
        size: usize,
        channels: usize,
    ) -> Result<Self> {
        let list = |name: &str| -> Result<Vec<f32>> {
            let Some(list) = config[name].as_array() else {
                return Ok(vec![0.5; channels]);
            };
            let numbers: Option<Vec<f32>> =
                list.iter().map(|x| x.as_f64().map(|x| x as f32)).collect();
            numbers
                .filter(|n| {
                    n.len() == channels && (name == "image_mean" || n.iter().all(|x| *x > 0.0))
                })
                .ok_or_else(|| {
                    Error::file(
                        file,
                        format!("`{name}` is not one number for each of {channels} channels"),
                    )
                })
        };
        let cubic = match config["resample"].as_u64() {
            None | Some(2) => false,
            Some(3) => true,
            Some(other) => {
                let what = format!("`resample` {other} is not known");
                return Err(Error::file(file, what).hint("2 is bilinear, 3 bicubic"));
            }
        };
        Ok(Self {
            size,
            channels,
            mean: list("image_mean")?,
            deviation: list("image_std")?,
            resize: Resize::open(config, size).map_err(|what| Error::file(file, what))?,
            cubic,
        })
    }

    /// Values `[channels, size, size]` of pixels `[height, width, colours]`: [`Self::planes`] and [`Self::values`].
    ///
    /// # Errors
    /// As [`Self::planes`].
    pub fn apply(&self, pixels: &[u8], size: [usize; 3]) -> Result<Vec<f32>> {
        Ok(self.values(&self.planes(pixels, size)?))
    }

    /// Planes `[channels, size, size]` of pixels `[height, width, colours]`, before the range is changed.
    ///
    /// Grey pictures fill all channels, colour is dropped from pictures for one channel (ITU-R 601), alpha is left out, but for a
    /// model of two channels, which are then its own.
    /// Another size is brought to the model's as Pillow's filters do.
    ///
    /// # Errors
    /// Another number of pixels than the size says, no pixels.
    pub fn planes(&self, pixels: &[u8], [height, width, colours]: [usize; 3]) -> Result<Vec<u8>> {
        if pixels.len() != height * width * colours || pixels.is_empty() {
            return Err(Error::shape(
                "image",
                format!("{} bytes for {height} x {width} x {colours}", pixels.len()),
            ));
        }
        let shown = if colours > 2 { 3 } else { 1 };
        let plane = |c: usize| -> Vec<f32> {
            let pixel = |p: &[u8]| match (shown, self.channels) {
                (3, 1) => {
                    (0.299 * f32::from(p[0]) + 0.587 * f32::from(p[1]) + 0.114 * f32::from(p[2]))
                        .round()
                }
                (3, _) => f32::from(p[c.min(2)]),
                // Two channels of a model that reads two are its own: no grey beside its alpha.
                (_, 2) => f32::from(p[c.min(p.len() - 1)]),
                _ => f32::from(p[0]),
            };
            pixels.chunks_exact(colours).map(pixel).collect()
        };
        let sides = self.resize.of(height, width);
        // A stripe of a picture would become a giant.
        if sides[0].saturating_mul(sides[1]) > 1 << 26 {
            return Err(Error::shape(
                "image",
                format!("{height} x {width} becomes {} x {}", sides[0], sides[1]),
            ));
        }
        let mut out = Vec::with_capacity(self.channels * self.size * self.size);
        for c in 0..self.channels {
            let plane = resized(&plane(c), [height, width], sides, self.cubic);
            let fitted = centred(plane, sides[0], sides[1], self.size);
            // Whole values already.
            out.extend(fitted.into_iter().map(|x| x.clamp(0.0, 255.0) as u8));
        }
        Ok(out)
    }

    /// Values that a model takes of planes.
    #[must_use]
    pub fn values(&self, planes: &[u8]) -> Vec<f32> {
        let plane = (self.size * self.size).max(1);
        let value = |(i, x): (usize, &u8)| {
            let c = i / plane % self.channels.max(1);
            (f32::from(*x) / 255.0 - self.mean[c]) / self.deviation[c]
        };
        planes.iter().enumerate().map(value).collect()
    }
}

/// A plane on the middle of a black square; what is over is cut off evenly.
fn centred(plane: Vec<f32>, height: usize, width: usize, size: usize) -> Vec<f32> {
    if (height, width) == (size, size) {
        return plane;
    }
    let mut out = vec![0f32; size * size];
    let (top, left) = (
        size.saturating_sub(height) / 2,
        size.saturating_sub(width) / 2,
    );
    let (from_y, from_x) = (
        height.saturating_sub(size) / 2,
        width.saturating_sub(size) / 2,
    );
    for y in 0..height.min(size) {
        let n = width.min(size);
        let row = &plane[(from_y + y) * width + from_x..][..n];
        out[(top + y) * size + left..][..n].copy_from_slice(row);
    }
    out
}

/// A plane brought to another height and width: rows, then columns, rounded to whole values each time.
fn resized(plane: &[f32], from: [usize; 2], to: [usize; 2], cubic: bool) -> Vec<f32> {
    if from == to {
        return plane.to_vec();
    }
    let whole = |x: f32| x.round().clamp(0.0, 255.0);
    let across = weights(from[1], to[1], cubic);
    let mut rows = Vec::with_capacity(from[0] * to[1]);
    for row in plane.chunks_exact(from[1]) {
        rows.extend(across.iter().map(|(start, w)| {
            let terms = w.iter().zip(&row[*start..]);
            whole(terms.map(|(w, x)| w * x).sum())
        }));
    }
    let mut out = Vec::with_capacity(to[0] * to[1]);
    for (start, w) in weights(from[0], to[0], cubic) {
        out.extend((0..to[1]).map(|x| {
            let terms = w.iter().enumerate();
            whole(terms.map(|(i, w)| w * rows[(start + i) * to[1] + x]).sum())
        }));
    }
    out
}

/// For every new pixel: the first old one that counts, and the shares. The filter is a triangle or Keys' cubic (a = -0.5),
/// as wide as a new pixel, at least as an old one.
fn weights(from: usize, to: usize, cubic: bool) -> Vec<(usize, Vec<f32>)> {
    let scale = from as f32 / to as f32;
    let wide = scale.max(1.0);
    let reach = if cubic { 2.0 * wide } else { wide };
    let filter = |x: f32| match x.abs() {
        x if !cubic => (1.0 - x).max(0.0),
        x if x < 1.0 => (1.5 * x - 2.5) * x * x + 1.0,
        x if x < 2.0 => ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0,
        _ => 0.0,
    };
    let one = |i: usize| {
        let centre = (i as f32 + 0.5) * scale;
        let start = (centre - reach + 0.5).max(0.0) as usize;
        let end = ((centre + reach + 0.5) as usize).min(from).max(start + 1);
        let all: Vec<f32> = (start..end)
            .map(|x| filter((x as f32 + 0.5 - centre) / wide))
            .collect();
        let sum: f32 = all.iter().sum();
        (start, all.into_iter().map(|w| w / sum).collect())
    };
    (0..to).map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_channels() {
        let plain = Preparation {
            size: 2,
            channels: 3,
            mean: vec![0.0; 3],
            deviation: vec![1.0; 3],
            resize: Resize::Sides([2, 2]),
            cubic: false,
        };
        // Grey fills all channels; half the size takes means under a triangle.
        let out = plain.apply(&[255, 0, 0, 255], [2, 2, 1]).unwrap();
        assert_eq!(out, [1.0, 0.0, 0.0, 1.0].repeat(3));
        assert_eq!(resized(&[10.0; 9], [3, 3], [5, 5], false), [10.0; 25]);
        assert_eq!(resized(&[0.0, 100.0], [1, 2], [1, 1], false), [50.0]);
        // Weights of four to two: 1/8, 3/8, 3/8, 1/8 cut at the edge: (3, 3, 1) / 7.
        assert_eq!(
            resized(&[70.0, 0.0, 0.0, 0.0].repeat(4), [4, 4], [2, 2], false)[..2],
            [30.0, 0.0]
        );
        let grey = Preparation {
            channels: 1,
            mean: vec![0.5],
            deviation: vec![0.5],
            ..plain
        };
        assert_eq!(
            grey.apply(&[255, 255, 255, 9].repeat(4), [2, 2, 4])
                .unwrap(),
            [1.0; 4]
        );
        assert!(grey.apply(&[0; 3], [2, 2, 1]).is_err());
        let two = Preparation {
            channels: 2,
            mean: vec![0.0; 2],
            deviation: vec![1.0; 2],
            size: 1,
            resize: Resize::Sides([1, 1]),
            cubic: false,
        };
        assert_eq!(two.apply(&[51, 255], [1, 1, 2]).unwrap(), [0.2, 1.0]);
        assert_eq!(two.apply(&[51], [1, 1, 1]).unwrap(), [0.2, 0.2]);
        // On the middle of black, or its middle.
        assert_eq!(
            centred(vec![7.0], 1, 1, 3),
            [0.0, 0.0, 0.0, 0.0, 7.0, 0.0, 0.0, 0.0, 0.0]
        );
        let nine: Vec<f32> = (0u8..9).map(f32::from).collect();
        assert_eq!(centred(nine, 3, 3, 1), [4.0]);
    }
    /// Pillow 13 and CLIPImageProcessor of transformers 5, on a grey picture of 5 x 7.
    #[test]
    fn bicubic_and_the_shorter_side() {
        let pixels: Vec<u8> = (0..35u32).map(|i| (i * i * 7 + i * 13) as u8).collect();
        let plane: Vec<f32> = pixels.iter().map(|x| f32::from(*x)).collect();
        assert_eq!(
            resized(&plane, [5, 7], [3, 6], true),
            [
                69.0, 46.0, 91.0, 144.0, 205.0, 89.0, 66.0, 177.0, 193.0, 178.0, 193.0, 177.0,
                134.0, 95.0, 155.0, 181.0, 145.0, 93.0
            ]
        );
        let larger = resized(&plane, [5, 7], [8, 9], true);
        assert_eq!(
            larger[..9],
            [0.0, 6.0, 29.0, 56.0, 105.0, 145.0, 224.0, 198.0, 66.0]
        );
        let folder = tempfile::tempdir().unwrap();
        let open = |config: &str| {
            std::fs::write(folder.path().join("preprocessor_config.json"), config).unwrap();
            Preparation::open(folder.path(), 3, 1)
        };
        let rest = r#""image_mean": [0.0], "image_std": [1.0]"#;
        for size in [r#"{"shortest_edge": 4}"#, "4"] {
            let clip = open(&format!(
                r#"{{"size": {size}, "crop_size": 3, "do_center_crop": true, "resample": 3, {rest}}}"#
            ));
            let planes = clip.unwrap().planes(&pixels, [5, 7, 1]).unwrap();
            assert_eq!(planes, [45, 99, 201, 162, 143, 198, 180, 211, 168]);
        }
        // Without a crop both sides are the model's.
        let vit = open(&format!(r#"{{"size": 4, {rest}}}"#)).unwrap();
        assert_eq!((vit.resize, vit.cubic), (Resize::Sides([3, 3]), false));
        let said = |config: &str| open(config).unwrap_err().to_string();
        assert!(said(r#"{"resample": 1}"#).contains("2 is bilinear, 3 bicubic"));
        assert!(said(r#"{"size": {"shortest_edge": 1000000}}"#).contains("to 1000000"));
        let thin = Preparation {
            resize: Resize::Shortest(8000),
            ..vit
        };
        assert!(thin.planes(&[0; 4000], [1, 4000, 1]).is_err());
    }
}
