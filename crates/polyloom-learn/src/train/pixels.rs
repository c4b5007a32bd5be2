//! Losses of maps: a value per pixel.
//!
//! All are means over the pixels that count, of all pictures together: those that the mask of the task keeps and where
//! something was measured. Classes: cross-entropy. Depths: the absolute difference in deviations of the training pixels (L1,
//! as its metric; Eigen et al. 2014 have other ones). Normals: 1 - cosine. Edges: binary cross-entropy, an edge counting
//! [`Head::positive`], divided by the sum of weights.

use polyloom::evaluate::board::score::examples::{Pixels, Wanted};
use polyloom::evaluate::metric::dense::VOID;

use crate::engine::{Value, tensor};
use crate::error::{Error, Result};
use crate::ops::{self, Activation, IGNORED};
use crate::tasks::{Head, HeadKind};

/// The class of a pixel; `None` where it is [`VOID`] and there are not as many.
///
/// # Errors
/// What is no class of so many.
pub(crate) fn class_of(value: f32, classes: usize) -> std::result::Result<Option<u32>, String> {
    let whole = value >= 0.0 && value.fract() == 0.0 && value <= u16::MAX.into();
    match value as u32 {
        class if whole && (class as usize) < classes => Ok(Some(class)),
        VOID if whole => Ok(None),
        _ => Err(format!("a pixel of class {value}, of {classes}")),
    }
}

/// Whether something was measured at a pixel: a depth that is finite and above 0, a normal with a length.
pub(crate) fn measured(pixels: Pixels, values: &[f32]) -> bool {
    match pixels {
        Pixels::Depth => values.iter().all(|x| x.is_finite() && *x > 0.0),
        Pixels::Normals => length(values) > 0.0,
        Pixels::Classes | Pixels::Edges => true,
    }
}

fn length(vector: &[f32]) -> f64 {
    let squares = vector.iter().map(|x| f64::from(*x) * f64::from(*x));
    let length = squares.sum::<f64>().sqrt();
    if length.is_finite() { length } else { 0.0 }
}

/// The loss of a head of maps: its outputs `[n, pixels * channels]` beside the maps of as many rows. `None` where no pixel
/// counts.
///
/// # Errors
/// Answers that are no maps, maps of another size, classes that the head does not have.
pub(super) fn loss(
    head: &Head,
    outputs: &Value,
    known: &[&Wanted],
    smoothing: f32,
) -> Result<Option<Value>> {
    let HeadKind::Dense(pixels) = head.kind else {
        return Err(Error::shape("loss", "a map for a head of none"));
    };
    let classes = pixels == Pixels::Classes;
    let channels = if classes {
        head.labels.len()
    } else {
        pixels.values()
    };
    let size = outputs.data().elem_count() / (known.len() * channels).max(1);
    let mut values = Vec::with_capacity(known.len() * size * pixels.values());
    let mut counts = Vec::with_capacity(known.len() * size);
    for wanted in known {
        let Wanted::Map { values: map, mask } = wanted else {
            let what = format!(
                "an answer that a head of {} does not give",
                head.kind.word()
            );
            return Err(Error::shape("loss", what));
        };
        if map.len() != size * pixels.values() || mask.as_ref().is_some_and(|m| m.len() != size) {
            let what = format!(
                "a map of {} values for {size} pixels of `{}`",
                map.len(),
                head.task
            );
            return Err(Error::shape("loss", what));
        }
        values.extend_from_slice(map);
        let kept = |i: usize| mask.as_ref().is_none_or(|m| m[i]);
        let pixel = map.chunks_exact(pixels.values()).enumerate();
        counts.extend(pixel.map(|(i, values)| kept(i) && measured(pixels, values)));
    }
    let counted = counts.iter().filter(|c| **c).count();
    if counted == 0 {
        return Ok(None);
    }
    let n = counts.len();
    let share = |i: usize| f32::from(u8::from(counts[i])) / counted as f32;
    let column = |list: Vec<f32>, width| Ok::<_, Error>(Value::constant(tensor(list, (n, width))?));
    let said = ops::reshape(outputs, &[n, channels])?;
    Ok(Some(match pixels {
        Pixels::Classes => {
            let label = |(value, counts): (&f32, &bool)| match counts {
                false => Ok(IGNORED),
                true => match class_of(*value, channels) {
                    Ok(class) => Ok(class.unwrap_or(IGNORED)),
                    Err(what) => Err(Error::shape("loss", format!("{what}, in `{}`", head.task))),
                },
            };
            let labels = values.iter().zip(&counts).map(label);
            let labels = labels.collect::<Result<Vec<u32>>>()?;
            if labels.iter().all(|l| *l == IGNORED) {
                return Ok(None);
            }
            ops::cross_entropy(&said, &labels, smoothing)?
        }
        Pixels::Depth => {
            let [mean, deviation] = head.scale;
            let unit = |i: usize| match counts[i] {
                true => ((f64::from(values[i]) - mean) / deviation) as f32,
                false => 0.0,
            };
            let off = ops::sub(&said, &column((0..n).map(unit).collect(), 1)?)?;
            let far = ops::add(
                &ops::activate(&off, Activation::Relu)?,
                &ops::activate(&ops::scale(&off, -1.0)?, Activation::Relu)?,
            )?;
            let shares = column((0..n).map(share).collect(), 1)?;
            ops::sum(&ops::mul(&far, &shares)?)?
        }
        Pixels::Normals => {
            let mut right = Vec::with_capacity(3 * n);
            for (i, normal) in values.chunks_exact(3).enumerate() {
                let factor = match counts[i] {
                    true => -f64::from(share(i)) / length(normal),
                    false => 0.0,
                };
                right.extend(normal.iter().map(|x| match factor {
                    0.0 => 0.0,
                    factor => (factor * f64::from(*x)) as f32,
                }));
            }
            let cosines = ops::mul(&ops::unit_length(&said)?, &column(right, 3)?)?;
            let one = Value::constant(tensor(vec![1.0], ())?);
            ops::add(&ops::sum(&cosines)?, &one)?
        }
        Pixels::Edges => {
            let labels: Vec<u32> = values.iter().map(|x| u32::from(*x > 0.5)).collect();
            let weight = |i: usize| match (counts[i], labels[i]) {
                (false, _) => 0.0,
                (true, 1) => head.positive,
                (true, _) => 1.0,
            };
            let all: f64 = (0..n).map(weight).sum();
            let both = ops::concat(&[&column(vec![0.0; n], 1)?, &said], 1)?;
            ops::weighed_cross_entropy(&both, &labels, 0.0, |losses| {
                let factors: Vec<f64> = (0..n).map(|i| weight(i) / all).collect();
                let terms = losses.iter().zip(&factors);
                let value = terms.map(|(l, f)| f64::from(*l) * f).sum();
                (value, factors.iter().map(|f| *f as f32).collect())
            })?
        }
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::slice;

    fn map(values: &[f32], mask: Option<&[bool]>) -> Wanted {
        Wanted::Map {
            values: values.into(),
            mask: mask.map(Into::into),
        }
    }

    fn head(pixels: Pixels, labels: &[&str]) -> Head {
        let labels = labels.iter().map(|l| (*l).to_owned()).collect();
        Head::dense("t", pixels, labels, 2, 1).unwrap()
    }

    fn outputs(values: &[f32], rows: usize) -> Value {
        Value::leaf(tensor(values.to_vec(), (rows, values.len() / rows)).unwrap())
    }

    fn number(head: &Head, said: &Value, right: &[&Wanted]) -> f32 {
        let loss = loss(head, said, right, 0.0).unwrap().unwrap();
        loss.number().unwrap()
    }

    #[test]
    fn by_hand() {
        // Two pixels: the second is void.
        let two = head(Pixels::Classes, &["a", "b"]);
        let said = outputs(&[0.0, 3f32.ln(), 9.0, -9.0], 1);
        let found = number(&two, &said, &[&map(&[1.0, 255.0], None)]);
        assert!((found - (4.0f32 / 3.0).ln()).abs() < 1e-6);
        assert!(loss(&two, &said, &[&map(&[2.0, 0.0], None)], 0.0).is_err());
        assert!(loss(&two, &said, &[&map(&[0.5, 0.0], None)], 0.0).is_err());
        assert!(loss(&two, &said, &[&map(&[0.0], None)], 0.0).is_err());
        assert!(loss(&two, &said, &[&Wanted::Class(0)], 0.0).is_err());
        let void = loss(&two, &said, &[&map(&[255.0, 255.0], None)], 0.0);
        assert!(void.unwrap().is_none());
        // Twelve is 1 in deviations of 2 from 10; the second was not measured, the last is outside of the mask.
        let mut depth = head(Pixels::Depth, &[]);
        depth.scale = [10.0, 2.0];
        let right = map(
            &[12.0, f32::NAN, 8.0, 12.0],
            Some(&[true, true, true, false]),
        );
        let said = outputs(&[2.0, 5.0, 1.0, 7.0], 1);
        assert_eq!(number(&depth, &said, &[&right]), (1.0 + 2.0) / 2.0);
        // Cosines 1 and 0.6 of true normals of any length; one has none.
        let normals = head(Pixels::Normals, &[]);
        let right = map(&[0.0, 0.0, 2.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0], None);
        let said = outputs(&[0.0, 0.0, 5.0, 0.8, 0.0, 0.6, 1.0, 1.0, 1.0], 1);
        assert!((number(&normals, &said, &[&right]) - 0.2).abs() < 1e-6);
        // An edge of weight 3 beside two pixels of none: (3 ln 4 + 2 ln 2) / 5.
        let mut edges = head(Pixels::Edges, &[]);
        edges.positive = 3.0;
        let said = outputs(&[-(3f32.ln()), 0.0, 0.0], 1);
        let found = number(&edges, &said, &[&map(&[1.0, 0.0, 0.0], None)]);
        assert!((found - (3.0 * 4f32.ln() + 2.0 * 2f32.ln()) / 5.0).abs() < 1e-6);
    }

    /// Every slope beside a difference; what does not count has none.
    #[test]
    fn slopes_beside_differences() {
        let mut depth = head(Pixels::Depth, &[]);
        depth.scale = [1.0, 0.5];
        let mut edges = head(Pixels::Edges, &[]);
        edges.positive = 2.5;
        let mask: &[bool] = &[true, false, true];
        let cases = [
            (
                head(Pixels::Classes, &["a", "b"]),
                map(&[1.0, 0.0, 0.0], Some(mask)),
                2,
            ),
            (depth, map(&[1.3, 0.7, 0.2], Some(mask)), 1),
            (
                head(Pixels::Normals, &[]),
                map(&[0.1, 0.2, 0.9, 0.5, 0.5, 0.5, -0.3, 0.0, 0.8], Some(mask)),
                3,
            ),
            (edges, map(&[1.0, 0.0, 0.0], Some(mask)), 1),
        ];
        for (head, right, channels) in cases {
            let at: Vec<f32> = (0..6 * channels)
                .map(|i| (i * 7 % 11) as f32 / 8.0 - 0.6)
                .collect();
            let rows: [&Wanted; 2] = [&right, &right];
            let x = outputs(&at, 2);
            let made = loss(&head, &x, &rows, 0.1).unwrap().unwrap();
            let gradients = made.backward().unwrap();
            let found = slice(gradients.get(&x).unwrap()).unwrap().to_vec();
            for i in 0..at.len() {
                let moved = |d: f32| {
                    let mut at = at.clone();
                    at[i] += d;
                    let made = loss(&head, &outputs(&at, 2), &rows, 0.1);
                    f64::from(made.unwrap().unwrap().number().unwrap())
                };
                let numeric = (moved(1e-2) - moved(-1e-2)) / 2e-2;
                let who = (head.kind.word(), i);
                assert!(
                    (f64::from(found[i]) - numeric).abs() < 2e-3,
                    "{who:?}: {numeric}"
                );
                if i / channels % 3 == 1 {
                    assert_eq!(found[i], 0.0, "{who:?}");
                }
            }
        }
    }
}
