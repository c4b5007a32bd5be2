//! Angles of rotary positions, with the scalings that configurations name.

use std::ops::Range;

use serde::Deserialize;

use crate::error::{Error, Result};
use crate::ops::Angles;

/// Base and scaling of the angles, under the names of `transformers`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub struct Rope {
    /// `default`, `linear` or `llama3`.
    #[serde(alias = "type")]
    pub rope_type: Option<String>,
    /// Base of the angles; 10,000 where nobody says.
    pub rope_theta: Option<f64>,
    /// Positions are divided by it.
    pub factor: Option<f64>,
    /// Llama 3: waves longer than the original length over this are scaled fully.
    pub low_freq_factor: Option<f64>,
    /// Llama 3: waves shorter than the original length over this are not scaled.
    pub high_freq_factor: Option<f64>,
    /// Positions of the first training.
    pub original_max_position_embeddings: Option<f64>,
    /// Share of the features that turn.
    pub partial_rotary_factor: Option<f64>,
}

/// Cosines and sines for heads of `dim` features at some positions.
///
/// # Errors
/// A scaling that is not known, or without its numbers.
pub fn angles(
    rope: &Rope,
    theta: Option<f64>,
    dim: usize,
    positions: Range<usize>,
) -> Result<Angles> {
    let base = rope.rope_theta.or(theta).unwrap_or(10_000.0);
    let turning = (dim as f64 * rope.partial_rotary_factor.unwrap_or(1.0)) as usize;
    let half = turning / 2;
    let kind = rope.rope_type.as_deref().unwrap_or("default");
    let need = |x: Option<f64>, name: &str| {
        x.filter(|x| *x > 0.0).ok_or_else(|| Error::Config {
            what: format!("rotary scaling `{kind}` needs `{name}` above 0"),
        })
    };
    let mut frequencies = Vec::with_capacity(half);
    for i in 0..half {
        let plain = base.powf(-((2 * i) as f64) / turning as f64);
        frequencies.push(match kind {
            "default" => plain,
            "linear" => plain / need(rope.factor, "factor")?,
            "llama3" => {
                let factor = need(rope.factor, "factor")?;
                let (low, high) = (
                    need(rope.low_freq_factor, "low_freq_factor")?,
                    need(rope.high_freq_factor, "high_freq_factor")?,
                );
                let original = need(
                    rope.original_max_position_embeddings,
                    "original_max_position_embeddings",
                )?;
                let waves = original * plain / std::f64::consts::TAU;
                if waves > high {
                    plain
                } else if waves < low {
                    plain / factor
                } else {
                    let smooth = (waves - low) / (high - low);
                    (1.0 - smooth) * plain / factor + smooth * plain
                }
            }
            other => {
                return Err(Error::Config {
                    what: format!("rotary scaling `{other}` is none of default, linear, llama3"),
                });
            }
        });
    }
    let all = positions.flat_map(|p| frequencies.iter().map(move |f| p as f64 * f));
    let (cos, sin) = all.map(|a| (a.cos() as f32, a.sin() as f32)).unzip();
    Ok(Angles {
        cos,
        sin,
        halves: true,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scaled_and_not() {
        let plain = angles(&Rope::default(), None, 4, 1..2).unwrap();
        assert!(
            (plain.sin[0] - 1f32.sin()).abs() < 1e-7 && (plain.sin[1] - 0.01f32.sin()).abs() < 1e-7
        );
        let linear = Rope {
            rope_type: Some("linear".into()),
            factor: Some(2.0),
            ..Rope::default()
        };
        assert!((angles(&linear, None, 4, 1..2).unwrap().sin[0] - 0.5f32.sin()).abs() < 1e-7);
        let unknown = Rope {
            rope_type: Some("x".into()),
            ..Rope::default()
        };
        assert!(
            angles(&unknown, None, 4, 0..1)
                .unwrap_err()
                .to_string()
                .contains("`x` is none of")
        );
        let lacks = Rope {
            rope_type: Some("linear".into()),
            ..Rope::default()
        };
        assert!(
            angles(&lacks, None, 4, 0..1)
                .unwrap_err()
                .to_string()
                .contains("needs `factor`")
        );
    }
}
