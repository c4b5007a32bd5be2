//! A task on its way to a model: its heads, the rows of each, and what should be said about them.

use std::rc::Rc;

use polyloom::evaluate::board::score::examples::Asked;

use super::evaluate::Found;
use super::forward::Output;
use super::head::{Feature, Head};
use super::rows::{Rows, Shown};
use crate::calibrate::{Level, coverage};
use crate::error::Result;

/// A task on its way to a model.
#[derive(Default)]
pub(super) struct ToAsk {
    pub ids: Vec<String>,
    pub asked: Vec<Asked>,
    pub heads: Vec<Head>,
    /// The rows of each head.
    pub rows: Vec<Rc<Rows>>,
    pub notes: Vec<String>,
}

impl ToAsk {
    /// How many of the rows the intervals of heads hold, in words.
    pub fn coverage(&self, found: &[Found], said: &[Vec<Output>]) -> Vec<String> {
        let heads = found.iter().zip(&self.heads);
        let each = heads.zip(&self.rows).zip(said);
        let told = each.filter_map(|(((found, head), rows), said)| {
            let place = rows.asked.iter().position(|a| a.target == found.target)?;
            coverage::told(head, said, &rows.wanted[place], Level::USUAL)
        });
        told.collect()
    }

    /// Places of heads, those of one feature together.
    fn groups(&self) -> Vec<Vec<usize>> {
        let mut groups: Vec<(Feature, Vec<usize>)> = Vec::new();
        for (i, head) in self.heads.iter().enumerate() {
            match groups.iter_mut().find(|(f, _)| *f == head.feature) {
                Some((_, list)) => list.push(i),
                None => groups.push((head.feature, vec![i])),
            }
        }
        groups.into_iter().map(|(_, list)| list).collect()
    }

    /// Runs heads of one feature after the other, so that they share the pass of the trunk; gives what each head said.
    pub fn each(
        &self,
        mut run: impl FnMut(&[&Head], &[Shown]) -> Result<Vec<Vec<Output>>>,
    ) -> Result<Vec<Vec<Output>>> {
        let mut all = Vec::new();
        for group in self.groups() {
            let heads: Vec<&Head> = group.iter().map(|&i| &self.heads[i]).collect();
            all.extend(run(&heads, &self.rows[group[0]].shown)?);
        }
        Ok(self.in_order(all))
    }

    /// What came out group by group, in the order of the heads.
    pub fn in_order(&self, all: Vec<Vec<Output>>) -> Vec<Vec<Output>> {
        let mut out = vec![Vec::new(); self.heads.len()];
        for (i, said) in self.groups().concat().into_iter().zip(all) {
            out[i] = said;
        }
        out
    }
}
