//! Losses that tie goals of a table together: one thing happens only after another.

use crate::engine::{Value, tensor};
use crate::error::Result;
use crate::ops::{self, Activation};

/// The two losses of ESMM.
#[derive(Debug, Clone)]
pub struct EntireSpace {
    /// Of clicks.
    pub click: Value,
    /// Of clicks that convert.
    pub conversion: Value,
}

/// The entire-space losses of Ma et al., SIGIR 2018 (ESMM), over all impressions: the cross-entropy of `p(click)`, and that of
/// `p(click) p(conversion | click)` against "clicked and converted", each a mean over the rows. The conversion rate itself has
/// no loss. `click` and `conversion` are scores (logits) `[rows, 1]`; ESMM is `shared_bottom` with two goals and their sum. Training
/// takes chains of any length (`train.chain`).
///
/// # Errors
/// Shapes that do not fit together.
pub fn entire_space(
    click: &Value,
    conversion: &Value,
    clicked: &[bool],
    converted: &[bool],
) -> Result<EntireSpace> {
    let both = clicked.iter().zip(converted).map(|(a, b)| *a && *b);
    let both: Vec<f32> = both.map(|y| f32::from(u8::from(y))).collect();
    let labels: Vec<u32> = clicked.iter().map(|y| u32::from(*y)).collect();
    let no = tensor(vec![0.0; click.data().elem_count()], click.dims())?;
    let scores = ops::concat(&[&Value::constant(no), click], 1)?;
    Ok(EntireSpace {
        click: ops::cross_entropy(&scores, &labels, 0.0)?,
        conversion: ops::chained_cross_entropy(&[click, conversion], &both)?,
    })
}

/// What a chain of goals breaks its order by: `sum_t mean max(0, p_t - p_(t-1))`, `p = sigmoid` of scores of one shape; `None`
/// for fewer than two. AITM's calibrator (Xi et al., KDD 2021; weight 0.6 there).
///
/// # Errors
/// Two shapes.
pub fn ordered(scores: &[Value]) -> Result<Option<Value>> {
    let mut total: Option<Value> = None;
    for pair in scores.windows(2) {
        let p = |x: &Value| ops::activate(x, Activation::Sigmoid);
        let more = ops::sub(&p(&pair[1])?, &p(&pair[0])?)?;
        let one = ops::mean(&ops::activate(&more, Activation::Relu)?)?;
        total = Some(match total {
            Some(sum) => ops::add(&sum, &one)?,
            None => one,
        });
    }
    Ok(total)
}
