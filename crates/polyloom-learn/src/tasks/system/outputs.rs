//! What heads say of inputs through a system in memory.

use rayon::prelude::*;

use super::super::forward::{self, Output};
use super::super::head::Head;
use super::super::rows::{Reader, Shown};
use super::{Change, Ready};
use crate::error::Result;
use crate::weave::Choice;

impl Ready<'_> {
    /// Outputs of heads that see the same feature, for each head and input. A woven model chooses its parts by input.
    ///
    /// # Errors
    /// As [`forward::outputs`] and [`crate::weave::Woven::run`].
    pub fn outputs(
        &self,
        reader: &Reader,
        heads: &[&Head],
        shown: &[Shown],
        batch: usize,
    ) -> Result<Vec<Vec<Output>>> {
        if let Some(woven) = self.woven() {
            let said = woven.run(self.model(), reader, heads, shown, batch, Choice::Router)?;
            return Ok(said.outputs);
        }
        if let (Reader::Tables(_), Change::None | Change::Folded(_)) = (reader, &self.change) {
            return self.of_table(reader, heads, shown, batch);
        }
        self.with(heads, |model, source| {
            forward::outputs(model, source, reader, heads, shown, batch)
        })
    }

    /// The same before probabilities are made ([`forward::scores`]); not of a woven model.
    ///
    /// # Errors
    /// As [`forward::scores`] and [`Self::with`].
    pub fn scores(
        &self,
        reader: &Reader,
        heads: &[&Head],
        shown: &[Shown],
        batch: usize,
    ) -> Result<Vec<Vec<Output>>> {
        self.with(heads, |model, source| {
            forward::scores(model, source, reader, heads, shown, batch)
        })
    }

    /// Outputs of heads over rows of a table. A pass over these is small: passes go side by side.
    fn of_table(
        &self,
        reader: &Reader,
        heads: &[&Head],
        shown: &[Shown],
        batch: usize,
    ) -> Result<Vec<Vec<Output>>> {
        let model = self.model();
        let plain = model.weights.with(heads.iter().flat_map(|h| h.tensors()));
        let parts = shown.par_chunks(batch.max(1));
        let said: Vec<Result<Vec<Vec<Output>>>> = parts
            .map(|part| forward::outputs(model, &plain, reader, heads, part, batch))
            .collect();
        let mut all = vec![Vec::with_capacity(shown.len()); heads.len()];
        for part in said {
            for (all, mut part) in all.iter_mut().zip(part?) {
                all.append(&mut part);
            }
        }
        Ok(all)
    }
}
