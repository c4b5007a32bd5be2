//! Convolution of small images.

use polyloom_core::nn::window::Window;

use super::{cpu, dense, linear, reshape};
use crate::engine::{Into, Op, Tensor, Value, compose, slice, tensor};
use crate::error::{Error, Result};

const CONVOLUTION: &str = "convolution";

/// Convolution of `x [batch, channels, height, width]` with `weight [out, channels, kernel, kernel]`: `[batch, out
/// height * out width, out]`, positions row by row, which is what transformers of images go on with.
///
/// # Errors
/// Shapes that do not fit together, a stride of 0, a kernel larger than the image.
pub fn convolution(
    x: &Value,
    weight: &Value,
    bias: Option<&Value>,
    stride: usize,
    padding: usize,
) -> Result<Value> {
    let wrong = || {
        Error::shape(
            CONVOLUTION,
            format!(
                "{:?} with a kernel of {:?}, stride {stride}",
                x.dims(),
                weight.dims()
            ),
        )
    };
    let (&[batch, channels, height, width], &[out, of, kh, kw]) = (x.dims(), weight.dims()) else {
        return Err(wrong());
    };
    let window = Window {
        channels,
        image: [height, width],
        kernel: [kh, kw],
        stride,
        padding,
    };
    let Some([oh, ow]) = window.output().filter(|_| of == channels) else {
        return Err(wrong());
    };
    if !cpu(&[x, weight]) {
        let inputs: Vec<&Value> = [Some(x), Some(weight), bias]
            .into_iter()
            .flatten()
            .collect();
        return compose(CONVOLUTION, &inputs, move |t| {
            let y = t[0]
                .conv2d(&t[1], padding, stride, 1, 1)?
                .flatten_from(2)?
                .transpose(1, 2)?
                .contiguous()?;
            if let Some(b) = t.get(2) {
                y.broadcast_add(b)
            } else {
                Ok(y)
            }
        });
    }
    let data = dense(x.data(), CONVOLUTION)?;
    let rows = window.columns(&slice(&data)?);
    let rows = Value::made(
        tensor(rows, (batch, oh * ow, channels * kh * kw))?,
        Columns(window),
        &[x],
    );
    linear(&rows, &reshape(weight, &[out, channels * kh * kw])?, bias)
}

struct Columns(Window);

impl Op for Columns {
    fn name(&self) -> &'static str {
        CONVOLUTION
    }

    fn backward(
        &self,
        inputs: &[Value],
        _: &Tensor,
        grad: &Tensor,
        into: &mut Into<'_>,
    ) -> Result<()> {
        let g = dense(grad, CONVOLUTION)?;
        let found = self.0.add_back(&slice(&g)?, inputs[0].dims()[0]);
        into.give_values(0, found)
    }
}
