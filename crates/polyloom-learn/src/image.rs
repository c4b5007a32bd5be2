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
    /// Pictures are not resized (`do_resize = false`) but put on the middle of a black square, what is over cut off.
    pub centred: bool,
}

impl Preparation {
    /// Of a model's folder; without `preprocessor_config.json` pixels go from -1 to 1.
    ///
    /// # Errors
    /// A file that cannot be read, means that are not one per channel.
    pub fn open(folder: &Path, size: usize, channels: usize) -> Result<Self> {
        let file = folder.join("preprocessor_config.json");
        let config: serde_json::Value = if file.exists() {
            json(&file)?
        } else {
            serde_json::Value::Null
        };
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
                        &file,
                        format!("`{name}` is not one number for each of {channels} channels"),
                    )
                })
        };
        Ok(Self {
            size,
            channels,
            mean: list("image_mean")?,
            deviation: list("image_std")?,
            centred: config["do_resize"].as_bool() == Some(false),
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
    /// Grey pictures fill all channels, colour is dropped from pictures for one channel (ITU-R 601), alpha is left out.
    /// Another size is brought to the model's as Pillow's bilinear filter does, or centred on black.
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
                _ => f32::from(p[0]),
            };
            pixels.chunks_exact(colours).map(pixel).collect()
        };
        let mut out = Vec::with_capacity(self.channels * self.size * self.size);
        for c in 0..self.channels {
            let fitted = match self.centred {
                true => centred(&plane(c), height, width, self.size),
                false => resized(&plane(c), height, width, self.size),
            };
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
fn centred(plane: &[f32], height: usize, width: usize, size: usize) -> Vec<f32> {
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

/// A plane brought to `size` x `size`: rows, then columns, by a triangle as wide as a new pixel (at least as an old one),
/// rounded to whole values each time.
fn resized(plane: &[f32], height: usize, width: usize, size: usize) -> Vec<f32> {
    if (height, width) == (size, size) {
        return plane.to_vec();
    }
    let across = weights(width, size);
    let mut rows = Vec::with_capacity(height * size);
    for row in plane.chunks_exact(width) {
        rows.extend(across.iter().map(|(start, w)| {
            w.iter()
                .zip(&row[*start..])
                .map(|(w, x)| w * x)
                .sum::<f32>()
                .round()
        }));
    }
    let mut out = Vec::with_capacity(size * size);
    for (start, w) in weights(height, size) {
        out.extend((0..size).map(|x| {
            w.iter()
                .enumerate()
                .map(|(i, w)| w * rows[(start + i) * size + x])
                .sum::<f32>()
                .round()
        }));
    }
    out
}

/// For every new pixel: the first old one that counts, and the shares.
fn weights(from: usize, to: usize) -> Vec<(usize, Vec<f32>)> {
    let scale = from as f32 / to as f32;
    let reach = scale.max(1.0);
    let one = |i: usize| {
        let centre = (i as f32 + 0.5) * scale;
        let start = (centre - reach + 0.5).max(0.0) as usize;
        let end = ((centre + reach + 0.5) as usize).min(from).max(start + 1);
        let all: Vec<f32> = (start..end)
            .map(|x| (1.0 - ((x as f32 + 0.5 - centre) / reach).abs()).max(0.0))
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
            centred: false,
        };
        // Grey fills all channels; half the size takes means under a triangle.
        let out = plain.apply(&[255, 0, 0, 255], [2, 2, 1]).unwrap();
        assert_eq!(out, [1.0, 0.0, 0.0, 1.0].repeat(3));
        assert_eq!(resized(&[10.0; 9], 3, 3, 5), [10.0; 25]);
        assert_eq!(resized(&[0.0, 100.0], 1, 2, 1), [50.0]);
        // Weights of four to two: 1/8, 3/8, 3/8, 1/8 cut at the edge: (3, 3, 1) / 7.
        assert_eq!(
            resized(&[70.0, 0.0, 0.0, 0.0].repeat(4), 4, 4, 2)[..2],
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
        // On the middle of black, or its middle.
        assert_eq!(
            centred(&[7.0], 1, 1, 3),
            [0.0, 0.0, 0.0, 0.0, 7.0, 0.0, 0.0, 0.0, 0.0]
        );
        let nine: Vec<f32> = (0u8..9).map(f32::from).collect();
        assert_eq!(centred(&nine, 3, 3, 1), [4.0]);
    }
}
