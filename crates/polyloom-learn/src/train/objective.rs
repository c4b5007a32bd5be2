//! Losses of heads on what is right.

use polyloom::evaluate::board::score::examples::Wanted;

use super::pixels;
use super::rowwise::Form;
use crate::engine::{Value, slice, tensor};
use crate::error::{Error, Result};
use crate::ops;
use crate::tasks::{Head, HeadKind};

/// The mean loss of a head's outputs `[n, out]` over the rows that say what is right, with how many they are; `None`
/// where none does. Cross-entropy for classes and items (with smoothing), binary cross-entropy for labels (mean over labels), the
/// square for numbers in units of their deviation, of maps as `train::pixels` says.
///
/// # Errors
/// What is right is not of the head's kind.
pub fn loss(
    head: &Head,
    outputs: &Value,
    wanted: &[Option<&Wanted>],
    smoothing: f32,
) -> Result<Option<(Value, usize)>> {
    loss_by(head, outputs, wanted, None, smoothing, Form::Tokens)
}

/// The same by a form: where it weighs rows or takes the focal factor, what it makes of their losses in place of the mean.
/// Rows may have weights, at least 0: the mean is `sum w l / sum w` then, and `None` too where no row with a label weighs
/// anything.
///
/// # Errors
/// As [`loss`].
pub(super) fn loss_by(
    head: &Head,
    outputs: &Value,
    wanted: &[Option<&Wanted>],
    weights: Option<&[f32]>,
    smoothing: f32,
    form: Form,
) -> Result<Option<(Value, usize)>> {
    let plain = weights.is_none() && matches!(form, Form::Tokens | Form::Rows);
    let Some((outputs, known)) = labelled(outputs, wanted)? else {
        return Ok(None);
    };
    let weights = weights.map(|weights| {
        let of = weights.iter().zip(wanted).filter(|(_, w)| w.is_some());
        of.map(|(weight, _)| *weight).collect::<Vec<f32>>()
    });
    if weights
        .as_ref()
        .is_some_and(|w| w.iter().all(|x| *x <= 0.0))
    {
        return Ok(None);
    }
    let weights = weights.as_deref();
    let n = known.len();
    let wrong = || {
        Error::shape(
            "loss",
            format!(
                "an answer that a head of {} does not give",
                head.kind.word()
            ),
        )
    };
    if let (HeadKind::Dense(_), true) = (head.kind, plain) {
        let value = pixels::loss(head, &outputs, &known, smoothing)?;
        return Ok(value.map(|value| (value, n)));
    }
    let known = known.into_iter();
    let value = match head.kind {
        HeadKind::Classification | HeadKind::Items => {
            let items = head.kind == HeadKind::Items;
            let classes = known.map(|w| match w {
                Wanted::Class(c) if !items => Ok(*c),
                Wanted::Relevant { document, .. } if items => Ok(*document),
                _ => Err(wrong()),
            });
            let classes = classes.collect::<Result<Vec<u32>>>()?;
            match plain {
                true => ops::cross_entropy(&outputs, &classes, smoothing)?,
                false => ops::weighed_cross_entropy(&outputs, &classes, smoothing, |losses| {
                    form.weighed(losses, &vec![1; n], weights)
                })?,
            }
        }
        HeadKind::Multilabel => {
            // A label holds or not: classes 0 and 1 with the scores 0 and z.
            let width = head.outputs();
            let mut labels = Vec::with_capacity(n * width);
            for w in known {
                let Wanted::Set(set) = w else {
                    return Err(wrong());
                };
                labels.extend((0..width as u32).map(|c| u32::from(set.contains(&c))));
            }
            let z = ops::reshape(&outputs, &[n * width, 1])?;
            let zero = Value::constant(tensor(vec![0.0; n * width], (n * width, 1))?);
            let both = ops::concat(&[&zero, &z], 1)?;
            match plain {
                true => ops::cross_entropy(&both, &labels, 0.0)?,
                false => ops::weighed_cross_entropy(&both, &labels, 0.0, |losses| {
                    form.weighed(losses, &vec![width; n], weights)
                })?,
            }
        }
        HeadKind::Embedding | HeadKind::Dense(_) => return Err(wrong()),
        HeadKind::Regression => {
            let [mean, deviation] = head.scale;
            let numbers = known.map(|w| match w {
                Wanted::Number(x) => Ok(((x - mean) / deviation) as f32),
                _ => Err(wrong()),
            });
            let numbers = numbers.collect::<Result<Vec<f32>>>()?;
            let target = Value::constant(tensor(numbers, (n, 1))?);
            match plain {
                true => ops::mean_squares(&outputs, &target)?,
                false => {
                    let off = ops::sub(&outputs, &target)?;
                    let squares = ops::mul(&off, &off)?;
                    let (_, slopes) = form.weighed(&slice(squares.data())?, &vec![1; n], weights);
                    let weights = Value::constant(tensor(slopes, squares.dims())?);
                    ops::sum(&ops::mul(&squares, &weights)?)?
                }
            }
        }
    };
    Ok(Some((value, n)))
}

/// The rows of outputs `[n, ..]` that say what is right, with what that is; `None` where none does.
pub(super) fn labelled<'w>(
    outputs: &Value,
    wanted: &[Option<&'w Wanted>],
) -> Result<Option<(Value, Vec<&'w Wanted>)>> {
    let (at, known): (Vec<u32>, Vec<&Wanted>) = (0u32..)
        .zip(wanted)
        .filter_map(|(i, w)| w.map(|w| (i, w)))
        .unzip();
    if at.is_empty() {
        return Ok(None);
    }
    let outputs = match at.len() == wanted.len() {
        true => outputs.clone(),
        false => ops::rows(outputs, &at)?,
    };
    Ok(Some((outputs, known)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tasks::Feature;

    /// Rows of losses a and b, weighed by `softmax(h)` of heights -1 and 1: gradients are those of the rows times their weights.
    #[test]
    fn rows_are_weighed() {
        let low = 1.0 / (1.0 + 2f32.exp());
        let weights = [low, 1.0 - low];
        let form = Form::Weighed(crate::balance::within::Rows::Linear, 1.0, 1.0);
        let mut two = Head::zeros(
            "t",
            Feature::Cls,
            HeadKind::Classification,
            vec!["a".into(), "b".into()],
            1,
        )
        .unwrap();
        let wanted = Wanted::Class(0);
        let x = Value::leaf(tensor(vec![0.0, 0.0, 0.0, 3f32.ln()], (2, 2)).unwrap());
        let (value, n) = loss_by(&two, &x, &[Some(&wanted); 2], None, 0.0, form)
            .unwrap()
            .unwrap();
        let losses = [2f32.ln(), 4f32.ln()];
        let sum = weights[0] * losses[0] + weights[1] * losses[1];
        assert!((value.number().unwrap() - sum).abs() < 1e-6 && n == 2);
        let gradients = value.backward().unwrap();
        let g = slice(gradients.get(&x).unwrap()).unwrap().to_vec();
        let by_hand = [
            -0.5 * low,
            0.5 * low,
            -0.75 * (1.0 - low),
            0.75 * (1.0 - low),
        ];
        assert!(
            g.iter().zip(by_hand).all(|(a, b)| (a - b).abs() < 1e-6),
            "{g:?}"
        );
        // Numbers 1 and 3 beside 0: squares 1 and 9, slopes 2 w d.
        two.kind = HeadKind::Regression;
        let wanted = Wanted::Number(0.0);
        let x = Value::leaf(tensor(vec![1.0, 3.0], (2, 1)).unwrap());
        let (value, _) = loss_by(&two, &x, &[Some(&wanted); 2], None, 0.0, form)
            .unwrap()
            .unwrap();
        assert!((value.number().unwrap() - (weights[0] + 9.0 * weights[1])).abs() < 1e-5);
        let gradients = value.backward().unwrap();
        let g = slice(gradients.get(&x).unwrap()).unwrap().to_vec();
        assert!((g[0] - 2.0 * weights[0]).abs() < 1e-6 && (g[1] - 6.0 * weights[1]).abs() < 1e-5);
        // Two labels of a row: their mean is the row's loss.
        let labels = Head::zeros(
            "t",
            Feature::Cls,
            HeadKind::Multilabel,
            vec!["a".into(), "b".into()],
            1,
        )
        .unwrap();
        let x = Value::leaf(tensor(vec![0.0, 0.0, 3f32.ln(), 3f32.ln()], (2, 2)).unwrap());
        let none = Wanted::Set(Vec::new());
        let (value, _) = loss_by(&labels, &x, &[Some(&none); 2], None, 0.0, form)
            .unwrap()
            .unwrap();
        assert!((value.number().unwrap() - sum).abs() < 1e-6);
    }

    /// Weights 3, 0 and 1 of three rows, and 9 of one that has no label.
    #[test]
    fn weights_of_rows() {
        let head = |kind, labels: &[&str]| {
            let labels = labels.iter().map(|l| (*l).to_owned()).collect();
            Head::zeros("t", Feature::Cls, kind, labels, 1).unwrap()
        };
        let of = |values: &[f32], width: usize| {
            Value::leaf(tensor(values.to_vec(), (values.len() / width, width)).unwrap())
        };
        let weights = [3.0, 0.0, 9.0, 1.0];
        let found = |h: &Head, x: &Value, right: &Wanted, smoothing, form| {
            let wanted = [Some(right), Some(right), None, Some(right)];
            let made = loss_by(h, x, &wanted, Some(&weights), smoothing, form);
            let (value, n) = made.unwrap().unwrap();
            assert_eq!(n, 3);
            let gradients = value.backward().unwrap();
            let slopes = slice(gradients.get(x).unwrap()).unwrap().to_vec();
            (value.number().unwrap(), slopes)
        };
        let near = |a: &[f32], b: &[f32]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-6);
        let two = head(HeadKind::Classification, &["a", "b"]);
        let right = Wanted::Class(1);
        let x = of(&[0.0, 0.0, 5.0, 0.0, 0.0, 0.0, 0.0, 3f32.ln()], 2);
        let (half, quarter) = (2f32.ln(), (4.0f32 / 3.0).ln());
        for form in [Form::Tokens, Form::Rows] {
            let (value, slopes) = found(&two, &x, &right, 0.0, form);
            assert!((value - (3.0 * half + quarter) / 4.0).abs() < 1e-6);
            // w / sum w (p - y): 3/4 of 1/2, 1/4 of 1/4.
            let by_hand = [0.375, -0.375, 0.0, 0.0, 0.0, 0.0, 0.0625, -0.0625];
            assert!(near(&slopes, &by_hand), "{slopes:?}");
        }
        // A fifth of the probability over both classes: a tenth to the wrong one, of probability 1/4.
        let (value, _) = found(&two, &x, &right, 0.2, Form::Tokens);
        let smooth = 0.9 * quarter + 0.1 * 4f32.ln();
        assert!((value - (3.0 * half + smooth) / 4.0).abs() < 1e-6);
        // (1 - p)^2 l of p = 1/2 and 3/4.
        let (value, _) = found(&two, &x, &right, 0.0, Form::Focal(2.0));
        assert!((value - (3.0 * half / 4.0 + quarter / 16.0) / 4.0).abs() < 1e-6);
        let mut line = head(HeadKind::Regression, &[]);
        line.scale = [10.0, 2.0];
        let twelve = Wanted::Number(12.0);
        // Twelve is 1 in units of the deviation: off by 1 and 2.
        let x = of(&[2.0, 9.0, 9.0, 3.0], 1);
        let (value, slopes) = found(&line, &x, &twelve, 0.0, Form::Tokens);
        assert!((value - (3.0 + 4.0) / 4.0).abs() < 1e-6);
        assert!(near(&slopes, &[1.5, 0.0, 0.0, 1.0]), "{slopes:?}");
        let labels = head(HeadKind::Multilabel, &["a", "b"]);
        let set = Wanted::Set(vec![0]);
        let x = of(&[2.0, -1.0, 7.0, 7.0, 7.0, 7.0, 0.0, 0.0], 2);
        let (value, _) = found(&labels, &x, &set, 0.0, Form::Tokens);
        let by_hand = ((-2f32).exp().ln_1p() + (-1f32).exp().ln_1p()) / 2.0;
        assert!((value - (3.0 * by_hand + half) / 4.0).abs() < 1e-6);
        // A row of weight 2 is the row twice.
        let once = loss_by(
            &two,
            &of(&[0.3, -0.2, 0.1, 0.9], 2),
            &[Some(&right); 2],
            Some(&[2.0, 1.0]),
            0.1,
            Form::Tokens,
        );
        let rows = of(&[0.3, -0.2, 0.3, -0.2, 0.1, 0.9], 2);
        let twice = loss(&two, &rows, &[Some(&right); 3], 0.1);
        let number =
            |made: Result<Option<(Value, usize)>>| made.unwrap().unwrap().0.number().unwrap();
        assert!((number(once) - number(twice)).abs() < 1e-6);
        let none = loss_by(
            &line,
            &of(&[3.0], 1),
            &[Some(&twelve)],
            Some(&[0.0]),
            0.0,
            Form::Tokens,
        );
        assert!(none.unwrap().is_none());
    }

    #[test]
    fn by_hand() {
        let head = |kind, labels: &[&str]| {
            let labels = labels.iter().map(|l| (*l).to_owned()).collect();
            Head::zeros("t", Feature::Cls, kind, labels, 1).unwrap()
        };
        let of = |values: &[f32], width: usize| {
            Value::leaf(tensor(values.to_vec(), (values.len() / width, width)).unwrap())
        };
        let number = |h: &Head, v: &Value, w: &[Option<&Wanted>]| {
            let (loss, n) = loss(h, v, w, 0.0).unwrap().unwrap();
            (loss.number().unwrap(), n)
        };
        let two = head(HeadKind::Classification, &["a", "b"]);
        let right = Wanted::Class(1);
        // The middle row says nothing.
        let found = number(
            &two,
            &of(&[0.0, 0.0, 9.0, 0.0, 0.0, 3f32.ln()], 2),
            &[Some(&right), None, Some(&right)],
        );
        assert!((found.0 - (2f32.ln() + (4.0f32 / 3.0).ln()) / 2.0).abs() < 1e-6 && found.1 == 2);
        let labels = head(HeadKind::Multilabel, &["a", "b"]);
        let set = Wanted::Set(vec![0]);
        let found = number(&labels, &of(&[2.0, -1.0], 2), &[Some(&set)]);
        let by_hand = ((-2f32).exp().ln_1p() + (-1f32).exp().ln_1p()) / 2.0;
        assert!((found.0 - by_hand).abs() < 1e-6);
        let mut line = head(HeadKind::Regression, &[]);
        line.scale = [10.0, 2.0];
        let twelve = Wanted::Number(12.0);
        assert_eq!(number(&line, &of(&[3.0], 1), &[Some(&twelve)]), (4.0, 1));
        let plain = |w| loss(&line, &of(&[3.0], 1), &[w], 0.0);
        assert!(plain(Some(&right)).is_err());
        assert!(plain(None).unwrap().is_none());
    }
}
