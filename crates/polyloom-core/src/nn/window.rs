//! Convolution by windows: `columns` lays every window of an image out as a row, a product with the kernels does the rest.

use rayon::prelude::*;

/// A convolution over images `[batch, channels, height, width]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// Channels of the input.
    pub channels: usize,
    /// Height and width of the input.
    pub image: [usize; 2],
    /// Height and width of the kernel.
    pub kernel: [usize; 2],
    /// Step of the kernel.
    pub stride: usize,
    /// Zeros around the image.
    pub padding: usize,
}

impl Window {
    /// Height and width of the output; `None` where the kernel is larger than the image, or where a length is 0.
    pub fn output(&self) -> Option<[usize; 2]> {
        if self.width() == 0 || self.image.contains(&0) {
            return None;
        }
        let side = |n: usize, k: usize| {
            let room = (n + 2 * self.padding).checked_sub(k)?;
            Some(room.checked_div(self.stride)? + 1)
        };
        Some([
            side(self.image[0], self.kernel[0])?,
            side(self.image[1], self.kernel[1])?,
        ])
    }

    fn width(&self) -> usize {
        self.channels * self.kernel[0] * self.kernel[1]
    }

    /// `f(position in the row, position in the image)` for the part of the window at `(y, x)` that lies inside.
    fn inside(&self, y: usize, x: usize, mut f: impl FnMut(usize, usize)) {
        let ([height, width], [kh, kw]) = (self.image, self.kernel);
        for c in 0..self.channels {
            for i in 0..kh {
                let row = (y * self.stride + i).wrapping_sub(self.padding);
                if row >= height {
                    continue;
                }
                for j in 0..kw {
                    let column = (x * self.stride + j).wrapping_sub(self.padding);
                    if column < width {
                        f((c * kh + i) * kw + j, (c * height + row) * width + column);
                    }
                }
            }
        }
    }

    /// Rows `[batch * out height * out width, channels * kernel height * kernel width]`, zeros outside of the image.
    ///
    /// # Panics
    /// If `x` is not whole images or the kernel does not fit.
    pub fn columns(&self, x: &[f32]) -> Vec<f32> {
        let size = self.channels * self.image[0] * self.image[1];
        let [oh, ow] = self.output().expect("a kernel that fits the image");
        assert!(x.len().is_multiple_of(size), "whole images");
        let mut out = vec![0f32; x.len() / size * oh * ow * self.width()];
        out.par_chunks_mut(ow * self.width())
            .enumerate()
            .for_each(|(at, rows)| {
                let x_image = &x[at / oh * size..][..size];
                for (x, row) in rows.chunks_exact_mut(self.width()).enumerate() {
                    self.inside(at % oh, x, |to, from| row[to] = x_image[from]);
                }
            });
        out
    }

    /// Adds rows back to where they came from: the gradient of [`Window::columns`].
    ///
    /// # Panics
    /// If `rows` are not those of whole images or the kernel does not fit.
    pub fn add_back(&self, rows: &[f32], batch: usize) -> Vec<f32> {
        let size = self.channels * self.image[0] * self.image[1];
        let [oh, ow] = self.output().expect("a kernel that fits the image");
        assert_eq!(
            rows.len(),
            batch * oh * ow * self.width(),
            "rows of windows"
        );
        let mut out = vec![0f32; batch * size];
        out.par_chunks_mut(size.max(1))
            .enumerate()
            .for_each(|(b, image)| {
                for (at, row) in rows[b * oh * ow * self.width()..]
                    .chunks_exact(self.width())
                    .take(oh * ow)
                    .enumerate()
                {
                    self.inside(at / ow, at % ow, |from, to| image[to] += row[from]);
                }
            });
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_by_hand() {
        let w = Window {
            channels: 1,
            image: [2, 3],
            kernel: [2, 2],
            stride: 1,
            padding: 0,
        };
        assert_eq!(w.output(), Some([1, 2]));
        let x = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
        assert_eq!(w.columns(&x), [1.0, 2.0, 4.0, 5.0, 2.0, 3.0, 5.0, 6.0]);
        // Every pixel as often as a window holds it.
        assert_eq!(w.add_back(&[1.0; 8], 1), [1.0, 2.0, 1.0, 1.0, 2.0, 1.0]);
        let padded = Window {
            padding: 1,
            stride: 2,
            ..w
        };
        assert_eq!(padded.output(), Some([2, 2]));
        assert_eq!(
            padded.columns(&x)[..8],
            [0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 2.0, 3.0]
        );
        assert_eq!(
            Window {
                kernel: [0, 2],
                ..w
            }
            .output(),
            None
        );
        assert_eq!(Window { stride: 0, ..w }.output(), None);
        assert_eq!(
            Window {
                kernel: [5, 1],
                ..w
            }
            .output(),
            None
        );
    }
}
