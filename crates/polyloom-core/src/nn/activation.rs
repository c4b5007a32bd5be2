//! Activations and their gradients.

use super::elementwise::{map, map2};
use super::math::{erf, exp, sigmoid, tanh};

/// A function of one number between two linear layers, under the names that configurations of transformers use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// `x Φ(x)` with the error function (`gelu`).
    Gelu,
    /// The same by the hyperbolic tangent (`gelu_new`, `gelu_pytorch_tanh`).
    GeluTanh,
    /// `x σ(1.702 x)` (`quick_gelu`, CLIP).
    QuickGelu,
    /// `x σ(x)` (`silu`, `swish`).
    Silu,
    /// `max(x, 0)`.
    Relu,
    /// Hyperbolic tangent.
    Tanh,
    /// Logistic function.
    Sigmoid,
}

const HALF_ROOT: f32 = std::f32::consts::FRAC_1_SQRT_2;
/// 1 / √(2π).
const DENSITY: f32 = 0.398_942_3;
/// √(2/π) and the cube's factor of the tangent form.
const TANH: (f32, f32) = (0.797_884_6, 0.044_715);

#[inline(always)]
fn gelu_tanh(x: f32) -> f32 {
    0.5 * x * (1.0 + tanh(TANH.0 * (x + TANH.1 * x * x * x)))
}

#[inline(always)]
fn gelu_tanh_slope(x: f32) -> f32 {
    let t = tanh(TANH.0 * (x + TANH.1 * x * x * x));
    0.5 * (1.0 + t) + 0.5 * x * (1.0 - t * t) * TANH.0 * (1.0 + 3.0 * TANH.1 * x * x)
}

#[inline(always)]
fn silu_slope(x: f32) -> f32 {
    let s = sigmoid(x);
    s * (1.0 + x * (1.0 - s))
}

#[inline(always)]
fn quick_slope(x: f32) -> f32 {
    let s = sigmoid(1.702 * x);
    s * (1.0 + 1.702 * x * (1.0 - s))
}

#[inline(always)]
fn gelu(x: f32) -> f32 {
    0.5 * x * (1.0 + erf(HALF_ROOT * x))
}

#[inline(always)]
fn gelu_slope(x: f32) -> f32 {
    0.5 * (1.0 + erf(HALF_ROOT * x)) + x * DENSITY * exp(-0.5 * x * x)
}

impl Activation {
    /// By the name in a configuration; `None` for an unknown one.
    pub fn named(name: &str) -> Option<Self> {
        Some(match name {
            "gelu" | "gelu_python" => Self::Gelu,
            "gelu_new" | "gelu_pytorch_tanh" | "gelu_fast" | "gelu_accurate" => Self::GeluTanh,
            "quick_gelu" => Self::QuickGelu,
            "silu" | "swish" => Self::Silu,
            "relu" => Self::Relu,
            "tanh" => Self::Tanh,
            "sigmoid" => Self::Sigmoid,
            _ => return None,
        })
    }

    /// Its name in a configuration.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Gelu => "gelu",
            Self::GeluTanh => "gelu_new",
            Self::QuickGelu => "quick_gelu",
            Self::Silu => "silu",
            Self::Relu => "relu",
            Self::Tanh => "tanh",
            Self::Sigmoid => "sigmoid",
        }
    }

    /// The function of every element.
    pub fn forward(self, x: &[f32]) -> Vec<f32> {
        match self {
            Self::Gelu => map(x, gelu),
            Self::GeluTanh => map(x, gelu_tanh),
            Self::QuickGelu => map(
                x,
                #[inline(always)]
                |x| x * sigmoid(1.702 * x),
            ),
            Self::Silu => map(
                x,
                #[inline(always)]
                |x| x * sigmoid(x),
            ),
            Self::Relu => map(
                x,
                #[inline(always)]
                |x| if x < 0.0 { 0.0 } else { x },
            ),
            Self::Tanh => map(x, tanh),
            Self::Sigmoid => map(x, sigmoid),
        }
    }

    /// Gradient of the input, from the input and the gradient of the output. At 0 the slope of `Relu` is 0.
    pub fn backward(self, x: &[f32], grad: &[f32]) -> Vec<f32> {
        match self {
            Self::Gelu => map2(
                x,
                grad,
                #[inline(always)]
                |x, g| g * gelu_slope(x),
            ),
            Self::GeluTanh => map2(
                x,
                grad,
                #[inline(always)]
                |x, g| g * gelu_tanh_slope(x),
            ),
            Self::QuickGelu => map2(
                x,
                grad,
                #[inline(always)]
                |x, g| g * quick_slope(x),
            ),
            Self::Silu => map2(
                x,
                grad,
                #[inline(always)]
                |x, g| g * silu_slope(x),
            ),
            Self::Relu => map2(
                x,
                grad,
                #[inline(always)]
                |x, g| if x > 0.0 { g } else { 0.0 },
            ),
            Self::Tanh => map2(
                x,
                grad,
                #[inline(always)]
                |x, g| {
                    let t = tanh(x);
                    g * (1.0 - t * t)
                },
            ),
            Self::Sigmoid => map2(
                x,
                grad,
                #[inline(always)]
                |x, g| {
                    let s = sigmoid(x);
                    g * s * (1.0 - s)
                },
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slopes_are_differences() {
        let x: Vec<f32> = (-60..=60).map(|i| i as f32 * 0.1 + 0.003).collect();
        for name in [
            "gelu",
            "gelu_new",
            "quick_gelu",
            "silu",
            "relu",
            "tanh",
            "sigmoid",
        ] {
            let f = Activation::named(name).unwrap();
            let slope = f.backward(&x, &vec![1.0; x.len()]);
            let h = 1e-2;
            let at = |d: f32| f.forward(&x.iter().map(|x| x + d).collect::<Vec<_>>());
            let (up, down) = (at(h), at(-h));
            for i in 0..x.len() {
                let numeric = (up[i] - down[i]) / (2.0 * h);
                let kink = name == "relu" && x[i].abs() < h;
                assert!(
                    kink || (slope[i] - numeric).abs() < 2e-4,
                    "{name} at {}: {} and {numeric}",
                    x[i],
                    slope[i]
                );
            }
        }
        assert!(Activation::named("mish").is_none());
    }

    #[test]
    fn values() {
        let near =
            |f: Activation, y: f32| assert!((f.forward(&[1.0])[0] - y).abs() < 1e-6, "{f:?}");
        near(Activation::Gelu, 0.841_344_7);
        near(Activation::GeluTanh, 0.841_192);
        near(Activation::QuickGelu, 0.845_795_8);
        near(Activation::Silu, 0.731_058_6);
        assert_eq!(Activation::Relu.forward(&[-1.0, 2.0]), [0.0, 2.0]);
        assert!(Activation::Relu.forward(&[f32::NAN])[0].is_nan());
    }
}
