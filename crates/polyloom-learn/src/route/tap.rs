//! Features of inputs, read from a model's pass.

use std::cell::RefCell;

use super::points::Points;
use super::router::Tap;
use crate::engine::{Value, slice};
use crate::error::{Error, Result};
use crate::models::open::{Model, Trunk};
use crate::models::sentence::{Pooling, pooled};
use crate::models::{Batch, Point, Source};
use crate::tasks::forward::{batched, features, pixels};
use crate::tasks::rows::usual_feature;
use crate::tasks::{Feature, Reader, Shown};

/// What heads of a model see as a rule.
#[must_use]
pub fn usual(model: &Model) -> Tap {
    Tap::Last(usual_feature(model, false))
}

/// How inputs are shown to a model for a tap: pairs are read together.
#[must_use]
pub fn shown_as(tap: Tap) -> Feature {
    match tap {
        Tap::Last(feature) => feature,
        Tap::Layer(_) => Feature::Mean,
    }
}

/// Features of some inputs. For `layer:K` the pass ends there, so that it costs K layers.
///
/// # Errors
/// A feature or a layer that the model does not have, inputs that it does not take.
pub fn read(
    model: &Model,
    source: &dyn Source,
    reader: &Reader,
    tap: Tap,
    shown: &[&Shown],
) -> Result<Points> {
    let vectors = match (tap, reader, &model.trunk) {
        (Tap::Layer(layer), ..) => return early(model, source, reader, layer, shown),
        (Tap::Last(Feature::Mean), Reader::Pictures(preparation), Trunk::Vit(vit)) => {
            let hidden = vit.forward(source, &pixels(preparation, shown)?)?;
            return of_stream(&hidden, None);
        }
        (Tap::Last(feature), ..) => features(model, source, reader, &[(feature, shown.to_vec())])?,
    };
    let rows = vectors
        .first()
        .ok_or_else(|| Error::shape("features", "no inputs"))?;
    points(rows)
}

/// One vector per input of a stream `[inputs, tokens, width]`, the mean over the tokens (those that are there, of texts), or
/// of vectors `[inputs, width]`.
///
/// # Errors
/// A stream of other dimensions.
pub fn of_stream(x: &Value, texts: Option<&Batch>) -> Result<Points> {
    match (x.dims(), texts) {
        ([_, _], _) => points(x),
        (_, Some(batch)) => points(&pooled(x, batch, &vec![Pooling::Mean; batch.sequences])?),
        (&[inputs, tokens, width], None) => {
            let values = slice(x.data())?;
            let mut means = Vec::with_capacity(inputs * width);
            for input in values.chunks_exact((tokens * width).max(1)) {
                let mut sums = vec![0f64; width];
                for token in input.chunks_exact(width) {
                    sums.iter_mut()
                        .zip(token)
                        .for_each(|(s, x)| *s += f64::from(*x));
                }
                means.extend(sums.iter().map(|s| (s / tokens as f64) as f32));
            }
            Points::new(means, width)
        }
        (other, None) => Err(Error::shape("features", format!("a stream of {other:?}"))),
    }
}

/// The numbers of vectors `[inputs, width]`.
fn points(x: &Value) -> Result<Points> {
    let width = x.dims().last().copied().unwrap_or(0);
    Points::new(slice(x.data())?.to_vec(), width)
}

/// The stream after some layers.
fn early(
    model: &Model,
    source: &dyn Source,
    reader: &Reader,
    layer: usize,
    shown: &[&Shown],
) -> Result<Points> {
    let point = match layer {
        0 => Point::Embedded,
        n => Point::Layer(n - 1),
    };
    let until = Until {
        base: source,
        point,
        seen: RefCell::new(None),
    };
    let (passed, batch) = match reader {
        Reader::Pictures(preparation) => {
            let pixels = pixels(preparation, shown)?;
            (model.look(&until, &pixels).map(drop), None)
        }
        Reader::Sensors(sensors) => {
            let (stem, pixels) = sensors.pixels(shown)?;
            let Some(of) = model.sensors() else {
                let what = "pictures of sensors for another model";
                return Err(Error::shape("features", what));
            };
            (of.look(&until, stem, &pixels).map(drop), None)
        }
        Reader::Tables(_) => {
            return Err(Error::shape(
                "features",
                "rows of tables pass no layers that a router reads",
            ));
        }
        Reader::Texts(text) => {
            let batch = batched(text, &[(Feature::Mean, shown.to_vec())])?;
            (model.hidden(&until, &batch).map(drop), Some(batch))
        }
    };
    match (passed, until.seen.into_inner()) {
        (Err(Error::Ended), Some(stream)) => of_stream(&stream, batch.as_ref()),
        (Err(error), _) => Err(error),
        (Ok(()), _) => Err(Error::shape(
            "features",
            format!(
                "the model passes no layer {layer}; layer:0 is the embedded input, layer:1 stands after the first layer"
            ),
        )),
    }
}

/// Ends the pass at a point.
struct Until<'a> {
    base: &'a dyn Source,
    point: Point,
    seen: RefCell<Option<Value>>,
}

impl Source for Until<'_> {
    fn find(&self, name: &str) -> Result<Option<Value>> {
        self.base.find(name)
    }

    fn linear(&self, name: &str, x: &Value) -> Result<Value> {
        self.base.linear(name, x)
    }

    fn pass(&self, point: Point, x: Value) -> Result<Value> {
        let x = self.base.pass(point, x)?;
        if point != self.point {
            return Ok(x);
        }
        *self.seen.borrow_mut() = Some(x);
        Err(Error::Ended)
    }
}
