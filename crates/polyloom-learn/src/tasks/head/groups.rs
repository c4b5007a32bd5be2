//! Heads with outputs for every group of rows.

use super::{Feature, Head};
use crate::engine::{Value, slice, tensor};
use crate::error::{Error, Result};
use crate::ops;

impl Head {
    /// Whether a tensor of a model of tables is one that its goal alone uses, or one of the goals of its groups.
    #[must_use]
    pub fn is_own_part(&self, name: &str) -> bool {
        let goal = || name.strip_prefix("goals.")?.split('.').next()?.parse().ok();
        let target = |goal: usize| goal / self.groups.len().max(1);
        self.feature == Feature::Goal && goal().map(target) == Some(self.goal)
    }

    /// Gives it groups, which all begin with the last layer that it has.
    ///
    /// # Errors
    /// Never in practice: lengths that fit.
    pub fn for_groups(&mut self, groups: Vec<String>) -> Result<()> {
        if let Some((w, b)) = self.layers.last_mut() {
            let n = groups.len();
            let (weight, bias) = (slice(w)?.repeat(n), slice(b)?.repeat(n));
            let (out, width) = (bias.len(), weight.len() / bias.len().max(1));
            *w = tensor(weight, (out, width))?;
            *b = tensor(bias, out)?;
        }
        self.groups = groups;
        Ok(())
    }
}

/// Of the outputs `[n, groups * out]` those of every row's own group, `[n, out]`. The group stands in the last column of the
/// features.
pub(super) fn of_rows(outputs: &Value, features: &Value, groups: usize) -> Result<Value> {
    let (&[n, all], Some(&width)) = (outputs.dims(), features.dims().last()) else {
        return Err(Error::shape(
            "head",
            format!("outputs {:?}", outputs.dims()),
        ));
    };
    let seen = slice(features.data())?;
    let of = |i: usize| seen[i * width + width - 1];
    if let Some(row) = (0..n).find(|i| !(0.0..groups as f32).contains(&of(*i))) {
        let what = format!(
            "row {row} is of group {}, and the head has {groups}",
            of(row)
        );
        return Err(Error::shape("head", what));
    }
    let chosen: Vec<u32> = (0..n).map(|i| (i * groups) as u32 + of(i) as u32).collect();
    ops::rows(
        &ops::reshape(outputs, &[n * groups, all / groups])?,
        &chosen,
    )
}
