//! The router of a woven model, fitted on rows of the experts' tasks.

use super::blend::Parts;
use super::meta::{Meta, Method};
use super::reading;
use super::recipe::Recipe;
use super::smile::{Gates, Smile};
use super::wemoe::{self, Blocks, Mixing, Wemoe};
use crate::engine::slice;
use crate::error::{Error, Result};
use crate::models::{Plain, Source};
use crate::route::fit::on_points;
use crate::route::{Expert, Fitted, Points, Reads, Tap};
use crate::tasks::forward::features;
use crate::tasks::{Opened, Reader, Shown};
use crate::train::Given;
use crate::tune::objective::Seen;

/// Inputs of a batch.
const BATCH: usize = 64;

/// What a router is fitted with.
pub(super) struct Maker<'a> {
    pub recipe: &'a Recipe,
    pub opened: &'a Opened,
    pub reader: &'a Reader,
    /// Base with shared vector, and mixers.
    pub weights: &'a Plain,
    pub names: &'a [String],
    pub tasks: &'a [Given],
    pub parts: &'a [&'a Parts],
    pub gates: &'a Gates,
    pub meta: &'a Meta,
}

impl Maker<'_> {
    pub fn fit(&self, learned: &[Seen]) -> Result<Fitted> {
        let tap = match self.meta.method {
            Method::Twin => self.recipe.tap()?,
            // What the heads see: no further pass.
            _ => {
                let feature = learned[0].feature;
                if learned.iter().any(|s| s.feature != feature) {
                    let what = "heads see different features; with smile and wemoe the router reads what they see";
                    return Err(Error::shape("weave", what));
                }
                Tap::Last(feature)
            }
        };
        let mut examples = Vec::with_capacity(learned.len());
        for seen in learned {
            examples.push(self.points(seen, tap)?);
        }
        let paths = self.recipe.experts.iter().map(|e| e.path.clone());
        let experts = self.names.iter().zip(self.tasks).zip(paths);
        let experts = experts.map(|((name, task), path)| Expert {
            name: name.clone(),
            path: Some(path),
            task: Some(task.spec.id.clone()),
        });
        // The folder that the router lies in is what it reads through.
        let reads = Reads {
            max_length: self.recipe.weave.max_length,
            ..Reads::default()
        };
        on_points(
            &self.recipe.fit(),
            (tap, &reads),
            experts.collect(),
            &examples,
        )
    }

    /// What the router reads of a task's rows.
    fn points(&self, seen: &Seen, tap: Tap) -> Result<Points> {
        let model = &self.opened.model;
        let blocks = match self.meta.method {
            Method::Wemoe => Some(Blocks::new(&self.meta.blocks, self.parts)?),
            _ => None,
        };
        let smile = Smile {
            shared: self.weights,
            experts: self.parts.to_vec(),
            gates: self.gates,
            top: self.meta.gating.map_or(1, |g| g.top),
            forced: None,
        };
        let mut points = Points::default();
        for part in seen.rows.shown.chunks(BATCH) {
            let of: Vec<&Shown> = part.iter().collect();
            let found = if self.meta.method == Method::Twin {
                reading::read(model, self.weights, self.reader, &of, tap)?
            } else {
                let asked = [(seen.feature, of)];
                let mixed;
                let source: &dyn Source = match &blocks {
                    Some(blocks) => {
                        let tokens = wemoe::present(self.reader, &asked)?;
                        mixed = Wemoe::new(self.weights, blocks, Mixing::Each, tokens);
                        &mixed
                    }
                    None => &smile,
                };
                let vectors = features(model, source, self.reader, &asked)?;
                let width = vectors[0].dims().last().copied().unwrap_or(0);
                Points::new(slice(vectors[0].data())?.to_vec(), width)?
            };
            points.width = found.width;
            points.values.extend(found.values);
        }
        Ok(points)
    }
}
