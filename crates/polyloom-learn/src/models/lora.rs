//! Low-rank adapters as a source: the base's linear layers with `s B A` beside them.
//!
//! Hu et al. 2021 (LoRA), Kalajdzievski 2023 (rsLoRA), Liu et al. 2024 (DoRA); the forward passes are PEFT's.

use std::collections::HashMap;

use super::{Point, Source, place_of};
use crate::engine::{Tensor, Value, slice, tensor};
use crate::error::{Error, In, Result};
use crate::ops;

/// The low-rank part of one linear layer.
#[derive(Debug, Clone)]
pub struct LowRank {
    /// `[rank, in]`.
    pub a: Value,
    /// `[out, rank]`.
    pub b: Value,
    /// Factor of the product: `alpha / rank`, of rsLoRA `alpha / √rank`.
    pub scale: f32,
    /// DoRA's magnitude `[out]`: rows of the whole weight are brought to these lengths.
    pub magnitude: Option<Value>,
}

/// A base with low-rank parts by module.
pub struct Lora<'a> {
    /// Where all weights come from.
    pub base: &'a dyn Source,
    /// By the module's name: that of its weight without `.weight`.
    pub modules: HashMap<String, LowRank>,
    /// Dropout of the input of the low-rank parts, in training.
    pub dropout: f32,
}

impl Source for Lora<'_> {
    fn find(&self, name: &str) -> Result<Option<Value>> {
        self.base.find(name)
    }

    fn linear(&self, name: &str, x: &Value) -> Result<Value> {
        let Some(part) = self.modules.get(name) else {
            return self.base.linear(name, x);
        };
        let dropped = match self.base.dropout() {
            Some(seed) => ops::dropout(x, self.dropout, seed ^ place_of(name))?,
            None => x.clone(),
        };
        let low = ops::scale(
            &ops::linear(&ops::linear(&dropped, &part.a, None)?, &part.b, None)?,
            part.scale,
        )?;
        let Some(magnitude) = &part.magnitude else {
            return ops::add(&self.base.linear(name, x)?, &low);
        };
        // With dropout, PEFT takes the base's part from the dropped input too.
        let weight = self.tensor(&format!("{name}.weight"))?;
        let whole = ops::add(&ops::linear(&dropped, &weight, None)?, &low)?;
        let lengths = row_lengths(weight.data(), part)?;
        let turned = ops::times_row(&whole, &ops::div(magnitude, &Value::constant(lengths))?)?;
        match self.find(&format!("{name}.bias"))? {
            Some(bias) => ops::plus_row(&turned, &bias),
            None => Ok(turned),
        }
    }

    fn pass(&self, point: Point, x: Value) -> Result<Value> {
        self.base.pass(point, x)
    }

    fn dropout(&self) -> Option<u64> {
        self.base.dropout()
    }

    fn batch_statistics(&self, name: &str) -> bool {
        self.base.batch_statistics(name)
    }

    fn note(&self, name: &str, values: Vec<f32>) {
        self.base.note(name, values);
    }
}

/// Lengths of the rows of `W + s B A`; no gradient flows through them (DoRA, section 4.3).
///
/// # Errors
/// Shapes that do not fit together.
pub fn row_lengths(weight: &Tensor, part: &LowRank) -> Result<Tensor> {
    let product = ops::product(&part.b.detached(), &part.a.detached())?;
    if product.dims() != weight.dims() {
        return Err(Error::shape(
            "low rank",
            format!(
                "{:?} beside a weight of {:?}",
                product.dims(),
                weight.dims()
            ),
        ));
    }
    let whole = ops::add(
        &Value::constant(weight.clone()),
        &ops::scale(&product, part.scale)?,
    )?;
    let data = whole.data().contiguous().during("low rank")?;
    let (rows, width) = (weight.dims()[0], weight.dims()[1].max(1));
    let lengths = slice(&data)?
        .chunks_exact(width)
        .map(|r| r.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt() as f32)
        .collect();
    tensor(lengths, rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Gradients;
    use crate::models::Plain;

    #[test]
    fn low_rank_by_hand() {
        let on = |v: &[f32], s: (usize, usize)| tensor(v.to_vec(), s).unwrap();
        let base = Plain::new([
            ("m.weight".to_owned(), on(&[1.0, 0.0, 0.0, 2.0], (2, 2))),
            ("m.bias".to_owned(), tensor(vec![0.5, 0.0], 2).unwrap()),
        ]);
        let mut part = LowRank {
            a: Value::leaf(on(&[1.0, 1.0], (1, 2))),
            b: Value::leaf(on(&[3.0, 0.0], (2, 1))),
            scale: 0.5,
            magnitude: None,
        };
        let x = Value::constant(on(&[1.0, 2.0], (1, 2)));
        let run = |part: &LowRank| {
            let lora = Lora {
                base: &base,
                modules: HashMap::from([("m".to_owned(), part.clone())]),
                dropout: 0.0,
            };
            lora.linear("m", &x).unwrap()
        };
        // W + s B A = [[2.5, 1.5], [0, 2]].
        assert_eq!(*slice(run(&part).data()).unwrap(), [2.5 + 3.0 + 0.5, 4.0]);
        // DoRA: the first row brought to length 10, the second to 1.
        part.magnitude = Some(Value::leaf(tensor(vec![10.0, 1.0], 2).unwrap()));
        let length = (2.5f32 * 2.5 + 1.5 * 1.5).sqrt();
        let out = run(&part);
        let found = slice(out.data()).unwrap().to_vec();
        assert!(
            (found[0] - (5.5 * 10.0 / length + 0.5)).abs() < 1e-5 && (found[1] - 2.0).abs() < 1e-6,
            "{found:?}"
        );
        let mut gradients = Gradients::default();
        out.backward_from(on(&[1.0, 0.0], (1, 2)), &mut gradients)
            .unwrap();
        // d y / d m = (x V) / length; d y / d B = m / length * s * (x A), lengths held.
        let of = |v: &Value| slice(gradients.get(v).unwrap()).unwrap().to_vec();
        assert!((of(part.magnitude.as_ref().unwrap())[0] - 5.5 / length).abs() < 1e-5);
        assert!((of(&part.b)[0] - 10.0 / length * 0.5 * 3.0).abs() < 1e-4);
    }
}
