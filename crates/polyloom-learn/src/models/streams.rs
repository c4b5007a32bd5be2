//! What comes into the layers of a decoder, of weights that are read from their files when they are needed.

use std::cell::RefCell;

use polyloom::moe::Taken;
use polyloom_core::Checkpoint;
use serde_json::Value as Json;

use super::decoder::Decoder;
use super::{Batch, Point, Source};
use crate::engine::{Value, slice, tensor};
use crate::error::{Error, In, Result};

/// For every layer and sequence what comes into the layer (the stream before its first norm), of the width of the model.
/// Every weight is read once and dropped, so that memory holds one at a time; what fills sequences up does not count.
///
/// # Errors
/// A checkpoint that is no decoder, no sequences or empty ones, and as [`Decoder::forward`].
pub fn layer_inputs(
    checkpoint: &Checkpoint,
    sequences: &[Vec<u32>],
    taken: Taken,
) -> Result<Vec<Vec<Vec<f32>>>> {
    let folder = checkpoint.origin();
    let config: &Json = checkpoint
        .config()
        .ok_or_else(|| Error::file(folder, "holds no config.json"))?;
    let prefix = match checkpoint.get("model.embed_tokens.weight") {
        Some(_) => "model.",
        None => "",
    };
    let parsed = serde_json::from_value(config.clone());
    let parsed = parsed.map_err(|e| Error::file(&folder.join("config.json"), e.to_string()))?;
    let decoder = Decoder::new(parsed, prefix)?;
    if sequences.iter().any(Vec::is_empty) {
        return Err(Error::shape("layer inputs", "a sequence without tokens"));
    }
    // What fills up stands behind and is seen by nothing before it.
    let batch = Batch::padded(sequences, 0)?;
    let layers = decoder.config.num_hidden_layers;
    let kept = RefCell::new(Vec::new());
    let source = Streams {
        checkpoint,
        layers,
        keep: &|x| {
            kept.borrow_mut().push(states(x, sequences, taken)?);
            Ok(())
        },
    };
    decoder.forward(&source, &batch, None)?;
    Ok(kept.into_inner())
}

/// The states of a stream `[sequences, length, width]`.
fn states(x: &Value, sequences: &[Vec<u32>], taken: Taken) -> Result<Vec<Vec<f32>>> {
    let &[_, length, width] = x.dims() else {
        return Err(Error::shape(
            "layer inputs",
            format!("a stream of {:?}", x.dims()),
        ));
    };
    let data = x.data().contiguous().during("layer inputs")?;
    let values = slice(&data)?;
    let of = |(i, tokens): (usize, &Vec<u32>)| -> Vec<f32> {
        let rows = &values[i * length * width..][..tokens.len() * width];
        match taken {
            Taken::Last => rows[rows.len() - width..].to_vec(),
            Taken::Mean => {
                let mut sum = vec![0f64; width];
                for row in rows.chunks_exact(width) {
                    sum.iter_mut()
                        .zip(row)
                        .for_each(|(s, v)| *s += f64::from(*v));
                }
                let n = tokens.len() as f64;
                sum.into_iter().map(|s| (s / n) as f32).collect()
            }
        }
    };
    Ok(sequences.iter().enumerate().map(of).collect())
}

/// Weights of a checkpoint, read when they are asked for; shows what comes into layers.
struct Streams<'a> {
    checkpoint: &'a Checkpoint,
    layers: usize,
    keep: &'a dyn Fn(&Value) -> Result<()>,
}

impl Source for Streams<'_> {
    fn find(&self, name: &str) -> Result<Option<Value>> {
        let Some(stored) = self.checkpoint.get(name) else {
            return Ok(None);
        };
        let values = self.checkpoint.read_all(stored)?;
        let tensor = tensor(values, stored.shape.clone())?;
        Ok(Some(Value::constant(tensor)))
    }

    fn pass(&self, point: Point, x: Value) -> Result<Value> {
        match point {
            Point::Embedded => (self.keep)(&x)?,
            Point::Layer(layer) if layer + 1 < self.layers => (self.keep)(&x)?,
            _ => {}
        }
        Ok(x)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::models::open::{Model, Trunk};

    /// The streams of one sequence without filling, by a pass over weights in memory.
    fn alone(model: &Model, tokens: &[u32]) -> Vec<Vec<f32>> {
        struct Keep<'a>(&'a dyn Source, RefCell<Vec<Vec<f32>>>);
        impl Source for Keep<'_> {
            fn find(&self, name: &str) -> Result<Option<Value>> {
                self.0.find(name)
            }
            fn pass(&self, point: Point, x: Value) -> Result<Value> {
                if matches!(point, Point::Embedded | Point::Layer(_)) {
                    self.1.borrow_mut().push(slice(x.data())?.to_vec());
                }
                Ok(x)
            }
        }
        let Trunk::Decoder(decoder) = &model.trunk else {
            panic!("no decoder");
        };
        let keep = Keep(&model.weights, RefCell::default());
        let batch = Batch::padded(&[tokens], 0).unwrap();
        decoder.forward(&keep, &batch, None).unwrap();
        keep.1.into_inner()
    }

    #[test]
    fn streams_are_those_of_each_sequence_alone() {
        for name in ["llama", "qwen3"] {
            let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
                .join("tests/models")
                .join(name);
            let model = Model::open(&folder).unwrap();
            let checkpoint = Checkpoint::open(&folder).unwrap();
            let sequences = [vec![3, 1, 4, 1, 5], vec![2, 7]];
            let width = model.width();
            for taken in [Taken::Last, Taken::Mean] {
                let found = layer_inputs(&checkpoint, &sequences, taken).unwrap();
                for (i, tokens) in sequences.iter().enumerate() {
                    let want = alone(&model, tokens);
                    // The stream after the last layer comes into none.
                    assert_eq!(found.len() + 1, want.len());
                    for (layer, found) in found.iter().enumerate() {
                        let rows = want[layer].chunks_exact(width);
                        let want: Vec<f32> = match taken {
                            Taken::Last => rows.last().unwrap().to_vec(),
                            Taken::Mean => {
                                let mut sum = vec![0f32; width];
                                rows.for_each(|r| {
                                    sum.iter_mut().zip(r).for_each(|(s, v)| *s += v);
                                });
                                sum.iter().map(|s| s / tokens.len() as f32).collect()
                            }
                        };
                        for (a, b) in found[i].iter().zip(&want) {
                            assert!((a - b).abs() < 1e-5, "{name} layer {layer}: {a} {b}");
                        }
                    }
                }
            }
            assert!(layer_inputs(&checkpoint, &[vec![]], Taken::Last).is_err());
        }
    }
}
