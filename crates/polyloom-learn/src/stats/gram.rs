//! Gram matrices of the inputs of linear layers, summed in `f64` while a model runs.

use std::collections::HashMap;

use polyloom_core::linalg::{Gram, Matrix};

use crate::engine::{Value, slice};
use crate::error::{Error, In, Result};

/// Rows that are widened to `f64` at a time.
const BLOCK: usize = 1024;

/// Sums of all layers. Layers that always see the same inputs (queries, keys and values) share one.
#[derive(Debug)]
pub struct Grams {
    sums: Vec<Sum>,
    /// Sum that the inputs of a layer go to; layers that share the sum of another are not here.
    feeds: HashMap<String, usize>,
    /// Sum of a layer, in the order of first use.
    layers: Vec<(String, usize)>,
}

#[derive(Debug)]
struct Sum {
    gram: Gram,
    rows: u64,
}

impl Grams {
    /// For the layers of a pass, as it came by them.
    ///
    /// # Errors
    /// An input without an axis.
    pub fn of(pass: &[(String, Value)]) -> Result<Self> {
        let mut calls: Vec<(&String, Vec<&Value>)> = Vec::new();
        for (name, x) in pass {
            match calls.iter_mut().find(|(n, _)| *n == name) {
                Some((_, inputs)) => inputs.push(x),
                None => calls.push((name, vec![x])),
            }
        }
        let same = |a: &[&Value], b: &[&Value]| {
            let ids = a.iter().zip(b);
            a.len() == b.len() && ids.into_iter().all(|(a, b)| a.data().id() == b.data().id())
        };
        let mut made = Self {
            sums: Vec::new(),
            feeds: HashMap::new(),
            layers: Vec::new(),
        };
        for (i, (name, inputs)) in calls.iter().enumerate() {
            let before = calls[..i].iter().position(|(_, other)| same(other, inputs));
            let sum = match before {
                Some(before) => made.layers[before].1,
                None => {
                    made.sums.push(Sum {
                        gram: Gram::new(width(inputs[0])?),
                        rows: 0,
                    });
                    made.feeds.insert((*name).clone(), made.sums.len() - 1);
                    made.sums.len() - 1
                }
            };
            made.layers.push(((*name).clone(), sum));
        }
        Ok(made)
    }

    /// Adds an input `[.., in]` of a layer. Where it has a row for each place of a batch of texts, those that are filling
    /// (not `present`) do not count.
    ///
    /// # Errors
    /// A layer that was not there before, an input of another width.
    pub fn add(&mut self, name: &str, x: &Value, present: Option<&[bool]>) -> Result<()> {
        let Some(&at) = self.feeds.get(name) else {
            return Ok(());
        };
        let sum = &mut self.sums[at];
        let width = width(x)?;
        if width != sum.gram.columns() {
            let of = sum.gram.columns();
            return Err(Error::shape(
                "gram",
                format!("`{name}` sees {width} numbers, and {of} before"),
            ));
        }
        let data = x.data().contiguous().during("gram")?;
        let values = slice(&data)?;
        let rows = values.len() / width;
        let present = present.filter(|p| p.len() == rows);
        let counts = |i: usize| present.is_none_or(|p| p[i]);
        let mut block = Vec::with_capacity(BLOCK.min(rows) * width);
        let mut left = values.chunks_exact(width).enumerate().peekable();
        while left.peek().is_some() {
            block.clear();
            for (i, row) in left.by_ref() {
                if counts(i) {
                    block.extend(row.iter().map(|v| f64::from(*v)));
                }
                if block.len() == BLOCK * width {
                    break;
                }
            }
            let matrix = Matrix {
                rows: block.len() / width,
                cols: width,
                data: std::mem::take(&mut block),
            };
            sum.gram.add_shared(&matrix);
            sum.rows += matrix.rows as u64;
            block = matrix.data;
        }
        Ok(())
    }

    /// Appends the layers of others.
    pub fn join(&mut self, other: Self) {
        let before = self.sums.len();
        self.sums.extend(other.sums);
        let feeds = other.feeds.into_iter();
        self.feeds.extend(feeds.map(|(name, i)| (name, i + before)));
        let layers = other.layers.into_iter();
        self.layers
            .extend(layers.map(|(name, i)| (name, i + before)));
    }

    /// Layers in the order of first use.
    pub fn layers(&self) -> impl Iterator<Item = &str> {
        self.layers.iter().map(|(name, _)| name.as_str())
    }

    /// Width of a layer's input.
    pub fn width(&self, layer: usize) -> usize {
        self.sums[self.layers[layer].1].gram.columns()
    }

    /// Rows that a layer saw.
    pub fn rows(&self, layer: usize) -> u64 {
        self.sums[self.layers[layer].1].rows
    }

    /// `X'X / rows` of a layer, row by row.
    pub fn values(&self, layer: usize) -> impl Iterator<Item = f32> + '_ {
        let sum = &self.sums[self.layers[layer].1];
        sum.gram.divided(sum.rows.max(1) as f64)
    }
}

fn width(x: &Value) -> Result<usize> {
    let width = x.dims().last().copied().filter(|n| *n > 0);
    width.ok_or_else(|| Error::shape("gram", format!("an input of {:?}", x.dims())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::tensor;

    #[test]
    fn by_hand() {
        let x = Value::constant(tensor(vec![1.0, 2.0, 3.0, 4.0, 9.0, 9.0], (1, 3, 2)).unwrap());
        let other = Value::constant(tensor(vec![1.0; 3], (3, 1)).unwrap());
        let pass = ["q", "k", "o", "q2"].map(|n| {
            let x = if n == "o" { &other } else { &x };
            (n.to_owned(), x.clone())
        });
        let mut grams = Grams::of(&pass).unwrap();
        // Three layers share what they see; the third place is filling.
        assert_eq!(grams.sums.len(), 2);
        for (name, x) in &pass {
            grams.add(name, x, Some(&[true, true, false])).unwrap();
        }
        let layers: Vec<&str> = grams.layers().collect();
        assert_eq!(layers, ["q", "k", "o", "q2"]);
        assert_eq!((grams.rows(1), grams.rows(2)), (2, 2));
        // (1, 2) and (3, 4): [[1 + 9, 2 + 12], [14, 4 + 16]] / 2.
        for layer in [0, 1, 3] {
            let values: Vec<f32> = grams.values(layer).collect();
            assert_eq!(values, [5.0, 7.0, 7.0, 10.0]);
        }
        // Fewer rows than places: a row for each input counts.
        let mut grams = Grams::of(&pass[2..3]).unwrap();
        let present = [true, false, true, true, false, false];
        grams.add("o", &other, Some(&present)).unwrap();
        assert_eq!((grams.rows(0), grams.values(0).next()), (3, Some(1.0)));
        let wide = Value::constant(tensor(vec![1.0; 2], (1, 2)).unwrap());
        assert!(grams.add("o", &wide, None).is_err());
    }

    #[test]
    fn long_inputs_are_cut_into_blocks() {
        let n = 2 * BLOCK + 5;
        let x = Value::constant(tensor((0..n).map(|i| i as f32).collect(), (n, 1)).unwrap());
        let mut grams = Grams::of(&[("l".to_owned(), x.clone())]).unwrap();
        let present: Vec<bool> = (0..n).map(|i| i % 3 != 0).collect();
        grams.add("l", &x, Some(&present)).unwrap();
        let kept = (0..n).filter(|i| i % 3 != 0);
        let squares: f64 = kept.clone().map(|i| (i as f64).powi(2)).sum();
        let want = (squares / kept.count() as f64) as f32;
        assert_eq!(grams.values(0).next(), Some(want));
    }
}
