//! How fast the loss of every goal rises around the weights that were found.
//!
//! Sharpness is that of SAM (Foret et al., ICLR 2021), to first order: `L_t(w + rho g_t / |g_t|) - L_t(w)`, g_t the gradient
//! of goal t's mean loss by all weights of the trunk and its own head. Losses are those of training without what regularises
//! them, and dropout is off. Scales of weights matter to it: models of one architecture and one way of training can be
//! compared, others hardly.

use polyloom::MergeError;

use super::forward::by_head;
use super::{Head, Opened, Reader, Shown};
use crate::engine::{Parameters, Tensor, slice, tensor};
use crate::error::Result;
use crate::models::{Source, Trained, is_statistic};
use crate::train::Given;
use crate::train::objective::loss;
use crate::tune::objective::{Seen, Wanted, seen};
use crate::tune::recipe::Expert;

/// Rows of a pass.
const BATCH: usize = 64;

/// What was found of a goal.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Sharpness {
    /// Its name.
    pub goal: String,
    /// Its mean loss.
    pub loss: f64,
    /// How much higher it is `rho` along its gradient.
    pub rise: f64,
    /// Length of the gradient.
    pub gradient: f64,
    /// Labels that the loss is the mean of.
    pub labels: usize,
}

/// Looks at all goals of a model's tasks. Costs one pass back and two forward over the rows of each goal; memory holds the
/// weights three times.
///
/// # Errors
/// A length that is not above 0, tasks without rows or heads, what the model reports, a loss that is not finite.
pub fn sharpness(
    model: &str,
    given: &[Given],
    (split, limit): (&str, Option<usize>),
    rho: f64,
) -> Result<Vec<Sharpness>> {
    if !(rho.is_finite() && rho > 0.0) {
        let what = format!("a step of {rho} along the gradient; it must be above 0");
        return Err(MergeError::plan("arguments", what)
            .hint("--rho 0.05")
            .into());
    }
    let opened = Opened::open(model)?;
    let reader = Reader::prepared(&opened.model, None, None)?;
    let mut own = Expert::default();
    own.path = model.to_owned();
    let wanted = Wanted {
        base: model,
        experts: &[own],
        heads: None,
        split,
        limit,
        entropy: false,
        vectors: None,
        table: "sharpness",
    };
    let mut found = Vec::new();
    for seen in &seen(&wanted, &opened, &reader, given)? {
        for (place, head) in seen.heads.iter().enumerate() {
            let look = Look {
                opened: &opened,
                reader: &reader,
                seen,
                place,
                head,
            };
            found.push(look.sharpness(rho)?);
        }
    }
    Ok(found)
}

/// A goal on its rows.
struct Look<'a> {
    opened: &'a Opened,
    reader: &'a Reader,
    seen: &'a Seen,
    place: usize,
    head: &'a Head,
}

impl Look<'_> {
    fn sharpness(&self, rho: f64) -> Result<Sharpness> {
        let weights = self.opened.model.weights.with(self.head.tensors());
        let trunk = self.opened.stored.iter().map(|(name, ..)| name.clone());
        let names = trunk.chain(self.head.tensors().map(|(name, _)| name));
        let mut tensors: Vec<(String, Tensor)> = Vec::new();
        for name in names.filter(|name| !is_statistic(name)) {
            // Whole numbers, such as positions in files of older programs, are none of the model's.
            if let Some(value) = weights.find(&name)? {
                tensors.push((name, value.data().clone()));
            }
        }
        let parameters = Parameters::new(tensors)?;
        let source = Trained {
            parameters: &parameters,
            frozen: &weights,
            seed: None,
        };
        let (mut gradient, mut labels, mut here) = (vec![0f64; parameters.len()], 0, 0.0);
        self.each(&source, &mut |value, n| {
            here += f64::from(value.number()?) * n as f64;
            labels += n;
            let mut found = parameters.gradients()?;
            value.backward_into(&mut found)?;
            let gathered = parameters.gathered(&found)?;
            let both = gradient.iter_mut().zip(gathered.iter());
            both.for_each(|(sum, g)| *sum += f64::from(*g) * n as f64);
            Ok(())
        })?;
        let count = labels.max(1) as f64;
        gradient.iter_mut().for_each(|g| *g /= count);
        let length = gradient.iter().map(|g| g * g).sum::<f64>().sqrt();
        let goal = self.head.task.clone();
        if !length.is_finite() || labels == 0 {
            let what = match labels {
                0 => format!("no row of goal `{goal}` says what is right"),
                _ => format!("the gradient of goal `{goal}` is not finite"),
            };
            return Err(MergeError::plan("no-loss", what)
                .hint("`polyloom tasks check` shows the rows")
                .into());
        }
        let step = if length > 0.0 { rho / length } else { 0.0 };
        let mut moved = Vec::new();
        for p in parameters.iter() {
            let values = slice(p.value.data())?;
            let there = values.iter().zip(&gradient[p.at.clone()]);
            let there = there.map(|(w, g)| (f64::from(*w) + step * g) as f32);
            moved.push((p.name.clone(), tensor(there.collect(), p.value.dims())?));
        }
        let mut there = 0.0;
        self.each(&weights.with(moved), &mut |value, n| {
            there += f64::from(value.number()?) * n as f64;
            Ok(())
        })?;
        Ok(Sharpness {
            goal,
            loss: here / count,
            rise: (there - here) / count,
            gradient: length,
            labels,
        })
    }

    /// Mean losses of some rows after others, each with how many labels it is of.
    fn each(
        &self,
        source: &dyn Source,
        take: &mut dyn FnMut(&crate::engine::Value, usize) -> Result<()>,
    ) -> Result<()> {
        let all: Vec<usize> = (0..self.seen.rows.len()).collect();
        for part in all.chunks(BATCH) {
            let shown: Vec<&Shown> = part.iter().map(|i| &self.seen.rows.shown[*i]).collect();
            let asked = [(self.seen.feature, vec![self.head], shown)];
            let found = by_head(&self.opened.model, source, self.reader, &asked)?;
            let Some(features) = found.first().and_then(|f| f.first()) else {
                continue;
            };
            let said = self.head.forward(source, features)?;
            let wanted = part
                .iter()
                .map(|i| self.seen.rows.wanted[self.place][*i].as_ref());
            let wanted: Vec<_> = wanted.collect();
            if let Some((value, n)) = loss(self.head, &said, &wanted, 0.0)? {
                take(&value, n)?;
            }
        }
        Ok(())
    }
}

/// The mean over goals of how much higher their losses are.
#[must_use]
pub fn mean(found: &[Sharpness]) -> f64 {
    found.iter().map(|f| f.rise).sum::<f64>() / found.len().max(1) as f64
}
