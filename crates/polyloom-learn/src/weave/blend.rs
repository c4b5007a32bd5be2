//! Shared weights with a mix of parts on top, as a source: what a group of inputs with one mix runs through.

use std::cell::RefCell;
use std::collections::HashMap;

use super::part::{LowRank, Part};
use crate::engine::{Value, slice, tensor};
use crate::error::{Error, Result};
use crate::models::{Point, Source};
use crate::ops;

/// The parts of an expert by the names of their tensors.
pub type Parts = HashMap<String, Part>;

/// `shared + Σ w E` for every tensor, over the experts of a mix.
///
/// Low-rank parts of linear layers act as two thin products beside the shared weight, which stays as it is, while few tokens
/// pass; from the number of tokens on where adding the product of the factors to the weight is less work, it is added (the two
/// differ by the rounding of `f32`). Whatever else is asked for (biases, norms, tables, sparse parts) is made when it is first
/// needed. What is made is held as long as the source: a copy of one model at most.
pub struct Blend<'a> {
    shared: &'a dyn Source,
    mix: Vec<(f32, &'a Parts)>,
    made: RefCell<HashMap<String, Value>>,
}

impl<'a> Blend<'a> {
    /// Of shared weights and the parts of a mix with their weights.
    pub fn new(shared: &'a dyn Source, mix: Vec<(f32, &'a Parts)>) -> Self {
        Self {
            shared,
            mix,
            made: RefCell::default(),
        }
    }

    /// The low-rank parts of a matrix, and whether it has parts of other kinds.
    fn thin(&self, name: &str) -> (Vec<(f32, &'a LowRank)>, bool) {
        let (mut thin, mut others) = (Vec::new(), false);
        for (weight, parts) in &self.mix {
            match parts.get(name) {
                Some(Part::LowRank(factors)) => thin.push((*weight, factors)),
                Some(_) => others = true,
                None => {}
            }
        }
        (thin, others)
    }

    /// The tensor with all its parts, or with those that are no factors.
    fn make(&self, name: &str, shared: &Value, factors: bool) -> Result<Value> {
        let wanted = |part: &&Part| factors || part.rank().is_none();
        let parts: Vec<(f32, &Part)> = self
            .mix
            .iter()
            .filter_map(|(weight, parts)| Some((*weight, parts.get(name).filter(wanted)?)))
            .collect();
        if parts.is_empty() {
            return Ok(shared.clone());
        }
        let mut values = slice(shared.data())?.to_vec();
        for (weight, part) in parts {
            if part.shape() != shared.dims() {
                return Err(Error::shape(
                    "woven weights",
                    format!(
                        "a part of {:?} on `{name}` of {:?}",
                        part.shape(),
                        shared.dims()
                    ),
                ));
            }
            part.add_to(&mut values, weight)?;
        }
        Ok(Value::constant(tensor(values, shared.dims())?))
    }
}

/// Whether factors of a weight `[out, in]` are less work put together (`rank in out` for all tokens) than one after the other
/// on every token (`rank (in + out)` each).
fn added_is_less(x: &[usize], weight: &[usize]) -> bool {
    let &[out, width] = weight else {
        return false;
    };
    let tokens = x.iter().product::<usize>() / width.max(1);
    tokens * (out + width) >= out * width
}

impl Source for Blend<'_> {
    fn find(&self, name: &str) -> Result<Option<Value>> {
        if let Some(made) = self.made.borrow().get(name) {
            return Ok(Some(made.clone()));
        }
        let Some(shared) = self.shared.find(name)? else {
            return Ok(None);
        };
        let made = self.make(name, &shared, true)?;
        self.made.borrow_mut().insert(name.to_owned(), made.clone());
        Ok(Some(made))
    }

    fn linear(&self, name: &str, x: &Value) -> Result<Value> {
        let weight = format!("{name}.weight");
        let (thin, others) = self.thin(&weight);
        let bias = self.find(&format!("{name}.bias"))?;
        if thin.is_empty() || self.made.borrow().contains_key(&weight) {
            return ops::linear(x, &self.tensor(&weight)?, bias.as_ref());
        }
        let whole = self.shared.tensor(&weight)?;
        if added_is_less(x.dims(), whole.dims()) {
            return ops::linear(x, &self.tensor(&weight)?, bias.as_ref());
        }
        let shared = match others {
            false => whole,
            // Parts of several kinds on one matrix: what is no factor is added once.
            true => {
                let key = format!("{weight} without factors");
                let held = self.made.borrow().get(&key).cloned();
                match held {
                    Some(held) => held,
                    None => {
                        let made = self.make(&weight, &whole, false)?;
                        self.made.borrow_mut().insert(key, made.clone());
                        made
                    }
                }
            }
        };
        let mut y = ops::linear(x, &shared, bias.as_ref())?;
        for (weight, factors) in thin {
            let more = factors.apply(x)?;
            let more = match weight {
                1.0 => more,
                weight => ops::scale(&more, weight)?,
            };
            y = ops::add(&y, &more)?;
        }
        Ok(y)
    }

    fn pass(&self, point: Point, x: Value) -> Result<Value> {
        self.shared.pass(point, x)
    }

    fn dropout(&self) -> Option<u64> {
        self.shared.dropout()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::Plain;
    use crate::weave::part::Compression;
    use polyloom_core::rng::Stream;

    #[test]
    fn a_mix_of_parts_is_the_merged_model() {
        let numbers = |seed: u64, n: u64| -> Vec<f32> {
            (0..n)
                .map(|i| Stream::new(seed, "n", 0).normal(i))
                .collect()
        };
        let shared = Plain::new([
            (
                "m.weight".to_owned(),
                tensor(numbers(1, 48), (6, 8)).unwrap(),
            ),
            ("m.bias".to_owned(), tensor(numbers(2, 6), 6).unwrap()),
        ]);
        let x = Value::constant(tensor(numbers(3, 40), (5, 8)).unwrap());
        let parts = |seed: u64, how: Compression| -> Parts {
            let made = |values: Vec<f32>, shape: &[usize]| {
                let t = tensor(values, shape).unwrap();
                Part::compress(&t, how, 0.34, Stream::new(seed, "d", 0))
                    .unwrap()
                    .unwrap()
            };
            HashMap::from([
                ("m.weight".to_owned(), made(numbers(seed, 48), &[6, 8])),
                ("m.bias".to_owned(), made(numbers(seed + 1, 6), &[6])),
            ])
        };
        let all = [
            parts(10, Compression::Svd),
            parts(20, Compression::Magnitude),
            parts(30, Compression::Svd),
        ];
        for mix in [
            vec![(1.0, 0)],
            vec![(0.25, 0), (0.75, 2)],
            vec![(0.5, 0), (0.3, 1), (0.2, 2)],
        ] {
            let blend = Blend::new(&shared, mix.iter().map(|(w, i)| (*w, &all[*i])).collect());
            // Three tokens: thin products. Five: one product with what is put together.
            let few = Value::constant(x.data().narrow(0, 0, 3).unwrap());
            let few = blend.linear("m", &few).unwrap();
            assert!(blend.made.borrow().get("m.weight").is_none());
            let thin = blend.linear("m", &x).unwrap();
            assert!(blend.made.borrow().get("m.weight").is_some());
            for (a, b) in slice(few.data())
                .unwrap()
                .iter()
                .zip(&*slice(thin.data()).unwrap())
            {
                assert!((a - b).abs() < 1e-5, "{a} {b}");
            }
            let merged = ops::linear(
                &x,
                &blend.tensor("m.weight").unwrap(),
                Some(&blend.tensor("m.bias").unwrap()),
            )
            .unwrap();
            for (a, b) in slice(thin.data())
                .unwrap()
                .iter()
                .zip(&*slice(merged.data()).unwrap())
            {
                assert!((a - b).abs() < 1e-5, "{a} {b}");
            }
        }
    }
}
