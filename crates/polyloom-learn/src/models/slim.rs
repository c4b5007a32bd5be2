//! Slimmable layers: one set of weights that runs at several widths (Yu et al., ICLR 2019; for several tasks: Efficient
//! Controllable Multi-Task Architectures, ICCV 2023).

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{slice, tensor};

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
