//! Slimmable layers: one set of weights that runs at several widths (Yu et al., ICLR 2019; for several tasks: Efficient
//! Controllable Multi-Task Architectures, ICCV 2023).

use std::collections::HashMap;

use super::Source;
use super::vit::Vit;
use crate::engine::Value;
use crate::error::{Error, Result};
use crate::ops;

/// Channels at a ratio of a width: the nearest number, halves to the even one, 1 at least.
///
/// # Errors
/// A ratio that is not above 0 and up to 1.
pub fn channels(width: usize, ratio: f64) -> Result<usize> {
    if ratio > 0.0 && ratio <= 1.0 {
        Ok(((width as f64 * ratio).round_ties_even() as usize).max(1))
    } else {
        Err(Error::shape(
            "slimmed linear",
            format!("a ratio of {ratio}, not above 0 and up to 1"),
        ))
    }
}

/// The linear layer `x Wᵀ + b` with the first channels of `W [out, in]` and `b [out]`: `out` of them, and as many columns as `x`
/// has features. The weights that are left out get a gradient of 0.
///
/// # Errors
/// More channels or features than the layer has.
pub fn linear(x: &Value, weight: &Value, bias: Option<&Value>, out: usize) -> Result<Value> {
    let features = x.dims().last().copied().unwrap_or_default();
    let fits = match weight.dims() {
        &[rows, columns] => out <= rows && features <= columns && out > 0 && features > 0,
        _ => false,
    };
    if !fits || bias.is_some_and(|b| b.dims() != &weight.dims()[..1]) {
        return Err(Error::shape(
            "slimmed linear",
            format!(
                "{out} channels on {:?} of a weight of {:?}",
                x.dims(),
                weight.dims()
            ),
        ));
    }
    let weight = ops::narrow(&ops::narrow(weight, 0, 0, out)?, 1, 0, features)?;
    let bias = bias.map(|b| ops::narrow(b, 0, 0, out)).transpose()?;
    ops::linear(x, &weight, bias.as_ref())
}

/// A vision transformer at a part of its width: whole attention heads, the stream, the feed-forward parts, each the first ones
/// of what there is. Norms are those of the whole model, over the channels that are left (batch norms have statistics of their
/// own for every width in the papers; layer norms take none along).
#[derive(Debug, Clone)]
pub struct Slim {
    /// The narrow model.
    pub vit: Vit,
    whole: [usize; 2],
    /// Of tensors outside of the trunk what stays of every axis; 0 for all.
    heads: HashMap<String, Vec<usize>>,
}

impl Slim {
    /// Of a model and a ratio of its width.
    ///
    /// # Errors
    /// A ratio that is not above 0 and up to 1; experts or memories, which have widths of their own.
    pub fn of(vit: &Vit, ratio: f64) -> Result<Self> {
        if vit.experts.is_some() || vit.memories.is_some() {
            return Err(Error::Config {
                what: "a model with experts that are chosen by goal has one width".into(),
            });
        }
        let mut config = vit.config.clone();
        let each = config.hidden_size / config.num_attention_heads;
        config.num_attention_heads = channels(config.num_attention_heads, ratio)?;
        config.hidden_size = each * config.num_attention_heads;
        config.intermediate_size = channels(config.intermediate_size, ratio)?;
        Ok(Self {
            vit: Vit::new(config, &vit.prefix)?,
            whole: [vit.config.hidden_size, vit.config.intermediate_size],
            heads: HashMap::new(),
        })
    }

    /// Cuts a head on the trunk too: its layers' weights by name and shape `[out, in]`, the width that stays between them.
    ///
    /// # Errors
    /// As [`channels`].
    pub fn cut(&mut self, layers: &[(String, [usize; 2])], ratio: f64) -> Result<()> {
        let mut inputs = self.vit.config.hidden_size;
        for (place, (name, [out, _])) in layers.iter().enumerate() {
            let outputs = match place + 1 == layers.len() {
                true => *out,
                false => channels(*out, ratio)?,
            };
            self.heads
                .insert(format!("{name}.weight"), vec![outputs, inputs]);
            self.heads.insert(format!("{name}.bias"), vec![outputs]);
            inputs = outputs;
        }
        Ok(())
    }

    /// What stays of the axes of a tensor.
    fn kept(&self, name: &str, dims: &[usize]) -> Option<Vec<usize>> {
        if let Some(cut) = self.heads.get(name) {
            return Some(cut.clone());
        }
        let rest = name.strip_prefix(&*self.vit.prefix)?;
        let (stream, inner) = (
            self.vit.config.hidden_size,
            self.vit.config.intermediate_size,
        );
        let ends = |parts: [&str; 2]| parts.iter().any(|part| rest.contains(part));
        let attention = rest.contains("attention.");
        let up = !attention && ends(["intermediate.dense.", "mlp.fc1."]);
        let down = !attention && ends(["output.dense.", "mlp.fc2."]);
        let axes = match dims.len() {
            1 if up => vec![inner],
            1 => vec![stream],
            2 if up => vec![inner, stream],
            2 if down => vec![stream, inner],
            2 => vec![stream, stream],
            // Class token and positions, in front of which stand one and the number of tokens.
            3 => vec![0, 0, stream],
            4 => vec![stream, 0, 0, 0],
            _ => return None,
        };
        let begins = ["embeddings.", "encoder.", "layers.", "layernorm."];
        begins.iter().any(|b| rest.starts_with(b)).then_some(axes)
    }

    /// Whether nothing is left out of the trunk.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        let c = &self.vit.config;
        [c.hidden_size, c.intermediate_size] == self.whole
    }
}

/// The first channels of the tensors of a source.
pub struct Slimmed<'a> {
    inner: &'a dyn Source,
    slim: &'a Slim,
}

impl<'a> Slimmed<'a> {
    /// Over a source of the whole model.
    #[must_use]
    pub fn over(inner: &'a dyn Source, slim: &'a Slim) -> Self {
        Self { inner, slim }
    }
}

impl Source for Slimmed<'_> {
    fn find(&self, name: &str) -> Result<Option<Value>> {
        let Some(mut value) = self.inner.find(name)? else {
            return Ok(None);
        };
        let dims = value.dims().to_vec();
        for (axis, kept) in self
            .slim
            .kept(name, &dims)
            .into_iter()
            .flatten()
            .enumerate()
        {
            if kept > 0 && kept < dims[axis] {
                value = ops::narrow(&value, axis, 0, kept)?;
            }
        }
        Ok(Some(value))
    }

    fn dropout(&self) -> Option<u64> {
        self.inner.dropout()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{slice, tensor};
    use crate::models::Plain;
    use crate::models::fresh::fresh;
    use serde_json::json;

    /// A narrow model is the model of its own configuration with the first channels of every tensor.
    #[test]
    fn widths_of_a_transformer() {
        let mut config = json!({
            "model_type": "vit", "image_size": 4, "patch_size": 2, "num_channels": 3, "hidden_size": 12,
            "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 12
        });
        let plain = |config: &serde_json::Value| {
            let all = fresh(config, 3).unwrap().into_iter();
            all.map(|(name, shape, values)| (name, tensor(values, shape).unwrap()))
                .collect::<Vec<_>>()
        };
        let whole = plain(&config);
        let vit = Vit::new(serde_json::from_value(config.clone()).unwrap(), "").unwrap();
        let mut slim = Slim::of(&vit, 0.6).unwrap();
        let c = &slim.vit.config;
        assert_eq!(
            (c.num_attention_heads, c.hidden_size, c.intermediate_size),
            (2, 8, 7)
        );
        assert!(!slim.is_whole() && Slim::of(&vit, 1.0).unwrap().is_whole());
        for (key, value) in [
            ("hidden_size", 8),
            ("num_attention_heads", 2),
            ("intermediate_size", 7),
        ] {
            config[key] = json!(value);
        }
        let source = Plain::new(whole);
        let narrow = Slimmed::over(&source, &slim);
        for (name, t) in plain(&config) {
            assert_eq!(narrow.tensor(&name).unwrap().dims(), t.dims(), "{name}");
        }
        let weight = narrow
            .tensor("encoder.layer.1.output.dense.weight")
            .unwrap();
        let all = source
            .tensor("encoder.layer.1.output.dense.weight")
            .unwrap();
        let (weight, all) = (
            weight.data().to_vec2::<f32>().unwrap(),
            all.data().to_vec2::<f32>().unwrap(),
        );
        assert!(weight.iter().zip(&all).all(|(a, b)| a[..] == b[..7]));
        let pixels = Value::constant(tensor(vec![0.3; 2 * 48], (2, 3, 4, 4)).unwrap());
        let said = slim.vit.forward(&narrow, &pixels).unwrap();
        assert_eq!(said.dims(), [2, 5, 8]);
        let layers = [
            ("heads/a.0".to_owned(), [6, 12]),
            ("heads/a.2".to_owned(), [5, 6]),
        ];
        slim.cut(&layers, 0.5).unwrap();
        let head = |shape: (usize, usize)| tensor(vec![1.0; shape.0 * shape.1], shape).unwrap();
        let source = source.with([
            ("heads/a.0.weight".to_owned(), head((6, 12))),
            ("heads/a.2.weight".to_owned(), head((5, 6))),
        ]);
        let narrow = Slimmed::over(&source, &slim);
        assert_eq!(narrow.tensor("heads/a.0.weight").unwrap().dims(), [3, 8]);
        assert_eq!(narrow.tensor("heads/a.2.weight").unwrap().dims(), [5, 3]);
    }

    #[test]
    fn by_hand() {
        assert_eq!(channels(6, 0.25).unwrap(), 2);
        assert_eq!(channels(10, 0.25).unwrap(), 2);
        assert_eq!(channels(3, 0.1).unwrap(), 1);
        assert!(channels(4, 0.0).is_err() && channels(4, 1.5).is_err());
        let value =
            |values: &[f32], shape: &[usize]| Value::leaf(tensor(values.to_vec(), shape).unwrap());
        let (x, w) = (
            value(&[2.0, 3.0], &[1, 2]),
            value(&[1.0, 2.0, 9.0, 3.0, 4.0, 9.0], &[2, 3]),
        );
        let b = value(&[0.5, 9.0], &[2]);
        let y = linear(&x, &w, Some(&b), 1).unwrap();
        assert_eq!(*slice(y.data()).unwrap(), [8.5]);
        let gradients = ops::sum(&y).unwrap().backward().unwrap();
        let found = slice(gradients.get(&w).unwrap()).unwrap().to_vec();
        assert_eq!(found, [2.0, 3.0, 0.0, 0.0, 0.0, 0.0]);
        assert!(linear(&x, &w, None, 3).is_err());
    }
}
