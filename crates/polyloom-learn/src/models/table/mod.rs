//! Architectures that learn several goals over the rows of a table: one file per architecture, one line in
//! `architectures!`.
//!
//! `config.json` has `"model_type": "polyloom-table"` and the keys of [`Config`]. A row is numbers and codes of categories;
//! the model gives one feature vector for every goal, heads outside of it make scores of them. Tensors that only one goal
//! uses are named `goals.<g>.`, by its place among the goals: what is not so named is shared. Experts of one shape that read
//! one input are stacked: `[experts * out, in]`, the rows of expert `e` from `e * out` on.

mod architecture;
mod config;
mod fields;
mod history;
mod interest;
pub mod loss;
pub mod page;
mod pass;
mod tensors;
pub mod turns;

use std::fmt;
use std::ops::Range;

pub use architecture::{Architecture, Golden, Kind, Param, Spec, Unset, Values, Visited};
pub use config::{Common, Config, Front, MODEL_TYPE, Modality, NormKind};
pub use history::{Before, Past};
pub use pass::{Pass, Watch};
pub use tensors::{Declared, Init, Tensors};

use polyloom::evaluate::board::score::sessions::Step;

use super::Source;
use crate::engine::Value;
use crate::error::{Error, Result};
use crate::ops::{self, Activation};
use turns::InTurn;

/// Declares the modules of architectures and the table of all, in the order of the reference page.
macro_rules! architectures {
    ($($name:ident),* $(,)?) => {
        $(pub mod $name;)*
        /// Modules of architectures; each offers `ARCHITECTURES`, the entries it adds.
        static FAMILIES: &[&[&dyn Architecture]] = &[$($name::ARCHITECTURES),*];
    };
}

architectures! {
    shared_bottom,
    mmoe,
    ple,
    cross_stitch,
    aitm,
    home,
    multitab,
    dselect_k,
    dtrn,
    task_expert,
    multimodn,
    apem,
    m2trec,
}

/// All registered architectures.
pub fn architectures() -> impl Iterator<Item = &'static dyn Architecture> {
    FAMILIES.iter().flat_map(|f| f.iter().copied())
}

/// An architecture by its name.
///
/// # Errors
/// None of that name: those that there are.
pub fn find(name: &str) -> Result<&'static dyn Architecture> {
    let found = architectures().find(|a| a.spec().name == name);
    found.ok_or_else(|| {
        let names: Vec<&str> = architectures().map(|a| a.spec().name).collect();
        let near = match polyloom::suggest::nearest(name, &names, 1).first() {
            Some(near) => format!(" (did you mean `{near}`?)"),
            None => String::new(),
        };
        Error::Config {
            what: format!(
                "no architecture `{name}`{near}; there are: {}",
                names.join(", ")
            ),
        }
    })
}

/// Rows of a table.
#[derive(Debug, Clone)]
pub struct TableBatch {
    /// How many.
    pub rows: usize,
    /// Their numbers `[rows, numeric]`; not read where the model takes none.
    pub numbers: Value,
    /// Their codes, row after row, each within its own field.
    pub codes: Vec<u32>,
    /// What was before each in its session; not read where the model shows rows alone ([`Config::history`]).
    pub before: Vec<Before>,
}

/// A model of one configuration.
#[derive(Clone)]
pub struct TableModel {
    /// The configuration.
    pub config: Config,
    architecture: &'static dyn Architecture,
    /// The architecture's options, complete.
    values: Values,
    activation: Activation,
    tensors: Tensors,
    /// The first row of every categorical field in the embedding table.
    offsets: Vec<u32>,
    width: usize,
}

impl fmt::Debug for TableModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TableModel")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

impl TableModel {
    /// Of a configuration.
    ///
    /// # Errors
    /// An architecture that there is not, keys that it does not read, options and sizes out of range.
    pub fn new(config: Config) -> Result<Self> {
        let architecture = find(&config.architecture)?;
        config.check()?;
        let values = options(architecture.spec(), &config)?;
        let activation = Activation::named(&config.activation).ok_or_else(|| Error::Config {
            what: format!("activation `{}` is unknown", config.activation),
        })?;
        let mut first = 0;
        let offsets = config
            .categories
            .iter()
            .map(|codes| {
                let at = first;
                // `check` holds the sum below 2^32.
                first += *codes as u32;
                at
            })
            .collect();
        let mut model = Self {
            architecture,
            values,
            activation,
            tensors: Tensors::default(),
            offsets,
            width: 0,
            config,
        };
        architecture.check(&model)?;
        let mut tensors = Tensors::new(model.config.norm);
        model.width = architecture.declare(&model, &mut tensors)?;
        model.tensors = tensors;
        Ok(model)
    }

    /// Width of the feature of every goal.
    #[must_use]
    pub fn width(&self) -> usize {
        self.width
    }

    /// Names, shapes and initial values of its tensors.
    #[must_use]
    pub fn tensors(&self) -> &Tensors {
        &self.tensors
    }

    /// The first row of every categorical field in the table of all.
    pub(crate) fn first_rows(&self) -> &[u32] {
        &self.offsets
    }

    /// The features `[rows, width]` of the goals of a range. Parts that only other goals use are not computed.
    ///
    /// # Errors
    /// Rows of another table, codes outside of their vocabulary, goals that there are not, tensors that are absent or of
    /// another shape.
    pub fn forward(
        &self,
        weights: &dyn Source,
        batch: &TableBatch,
        goals: Range<usize>,
    ) -> Result<Vec<Value>> {
        if goals.end > self.config.goals.len() || goals.is_empty() {
            return Err(Error::shape(
                "table",
                format!("goals {goals:?} of {}", self.config.goals.len()),
            ));
        }
        self.fits(batch)?;
        let pass = Pass {
            model: self,
            weights,
            batch,
            groups: None,
            watch: None,
        };
        self.architecture.forward(&pass, &goals.collect::<Vec<_>>())
    }

    /// Whether it reads rows of sessions ([`Self::visited`]) in place of single ones ([`Self::forward`]).
    #[must_use]
    pub fn reads_sessions(&self) -> bool {
        self.architecture.reads_sessions()
    }

    /// Items scored for rows of sessions: `sessions` are the steps before each row, which name `items` by their place. The
    /// states are those of every goal.
    ///
    /// # Errors
    /// As [`Self::forward`]; steps of items that there are not, no rows, an architecture of single rows.
    pub fn visited(
        &self,
        weights: &dyn Source,
        items: &TableBatch,
        sessions: &[&[Step]],
    ) -> Result<Visited> {
        self.fits(items)?;
        let known = |step: &Step| (step.item as usize) < items.rows;
        if sessions.is_empty() || !sessions.iter().flat_map(|s| s.iter()).all(known) {
            let what = format!("sessions with items beyond {}, or none", items.rows);
            return Err(Error::shape("table", what));
        }
        let pass = Pass {
            model: self,
            weights,
            batch: items,
            groups: None,
            watch: None,
        };
        let mut found = self.architecture.visited(&pass, sessions)?;
        let same = vec![&found.states; self.goals()];
        found.states = ops::concat(&same, 1)?;
        Ok(found)
    }

    /// How goals learn from more than their last features ([`Self::learning`]); `None` where they do not.
    #[must_use]
    pub fn in_turn(&self) -> Option<InTurn> {
        self.architecture.in_turn(self)
    }

    /// What training learns from, laid out as [`InTurn`] reads it: the features of [`Self::forward`] for all goals, then those
    /// on the states before the last. `None` where goals learn from their last features alone.
    ///
    /// # Errors
    /// As [`Self::forward`].
    pub fn learning(&self, weights: &dyn Source, batch: &TableBatch) -> Result<Option<Value>> {
        if self.in_turn().is_none() {
            return Ok(None);
        }
        self.fits(batch)?;
        let pass = Pass {
            model: self,
            weights,
            batch,
            groups: None,
            watch: None,
        };
        let goals: Vec<usize> = (0..self.goals()).collect();
        let turns = self.architecture.turns(&pass, &goals)?;
        turns.side_by_side().map(Some)
    }

    /// Shows the mixtures of experts of a pass for all goals; with `own`, each row's group and how many there are, for the
    /// goals of its group ([`Self::forward_own`]).
    ///
    /// # Errors
    /// As [`Self::forward`] and [`Self::forward_own`], and what `watch` refuses.
    pub fn watched(
        &self,
        weights: &dyn Source,
        batch: &TableBatch,
        own: Option<(&[u32], usize)>,
        watch: &dyn Watch,
    ) -> Result<()> {
        self.fits(batch)?;
        let rows = own.map(|(of, groups)| self.by_group(batch, of, groups));
        let rows = rows.transpose()?;
        let asked = |goal: &usize| match &rows {
            Some(rows) => !rows[goal % rows.len()].is_empty(),
            None => true,
        };
        let goals: Vec<usize> = (0..self.goals()).filter(asked).collect();
        let pass = Pass {
            model: self,
            weights,
            batch,
            groups: rows.as_deref(),
            watch: Some(watch),
        };
        self.architecture.forward(&pass, &goals)?;
        Ok(())
    }

    /// The features `[rows, width]` of every target where each group of rows has goals of its own: those of goal `target *
    /// groups + of[row]` for each row. What one goal alone uses runs over that goal's rows alone, so the cost is about that
    /// of one goal, but for architectures that compute every goal for every row below their last layer (`cross_stitch`,
    /// `aitm`, `multitab`, `ple` of several levels).
    ///
    /// # Errors
    /// As [`Self::forward`]; a row of a group that there is not, goals that are no multiple of the groups.
    pub fn forward_own(
        &self,
        weights: &dyn Source,
        batch: &TableBatch,
        of: &[u32],
        groups: usize,
    ) -> Result<Vec<Value>> {
        self.fits(batch)?;
        let rows = self.by_group(batch, of, groups)?;
        let (all, order) = (self.goals(), rows.concat());
        let pass = Pass {
            model: self,
            weights,
            batch,
            groups: Some(&rows),
            watch: None,
        };
        let goals: Vec<usize> = (0..all).filter(|g| !rows[g % groups].is_empty()).collect();
        let found = self.architecture.forward(&pass, &goals)?;
        let mut place = vec![0u32; order.len()];
        (0u32..)
            .zip(&order)
            .for_each(|(i, row)| place[*row as usize] = i);
        let present = goals.len() * groups / all;
        found
            .chunks(present)
            .map(|parts| {
                let grouped = match parts {
                    [one] => one.clone(),
                    _ => ops::concat(&parts.iter().collect::<Vec<_>>(), 0)?,
                };
                ops::rows(&grouped, &place)
            })
            .collect()
    }

    /// The rows of every group, of which `of` says that of each row.
    fn by_group(&self, batch: &TableBatch, of: &[u32], groups: usize) -> Result<Vec<Vec<u32>>> {
        let mut rows = vec![Vec::new(); groups];
        for (row, group) in (0u32..).zip(of) {
            if let Some(rows) = rows.get_mut(*group as usize) {
                rows.push(row);
            }
        }
        let (all, placed) = (self.goals(), rows.iter().map(Vec::len).sum::<usize>());
        if placed != batch.rows || groups == 0 || !all.is_multiple_of(groups) {
            let what = format!(
                "{placed} of {} rows are of one of {groups} groups, with {all} goals",
                batch.rows
            );
            return Err(Error::shape("table", what));
        }
        Ok(rows)
    }

    fn fits(&self, batch: &TableBatch) -> Result<()> {
        let c = &self.config;
        let codes = batch.rows.checked_mul(c.categories.len());
        let numbers = c.numeric == 0 || batch.numbers.dims() == [batch.rows, c.numeric];
        if batch.rows > 0 && codes == Some(batch.codes.len()) && numbers {
            return Ok(());
        }
        Err(Error::shape(
            "table",
            format!(
                "{} rows with numbers {:?} and {} codes; the model takes {} numbers and {} codes a row",
                batch.rows,
                batch.numbers.dims(),
                batch.codes.len(),
                c.numeric,
                c.categories.len()
            ),
        ))
    }

    /// Whether a tensor belongs to one goal alone: no other goal's loss reaches it.
    #[must_use]
    pub fn is_own(name: &str) -> bool {
        name.starts_with("goals.")
    }

    /// Width of the features of a row ([`Pass::features`]).
    fn input(&self) -> usize {
        let c = &self.config;
        let numbers = match c.front {
            Front::Raw => c.numeric,
            Front::Linear => c.embed_dim * usize::from(c.numeric > 0),
        };
        c.categories.len() * c.embed_dim + numbers
    }

    /// Goals.
    fn goals(&self) -> usize {
        self.config.goals.len()
    }

    /// A whole number among the options.
    fn count(&self, name: &str) -> usize {
        self.values.maybe(name).unwrap_or_default() as usize
    }
}

/// The options of an architecture, checked and complete.
fn options(spec: &Spec, config: &Config) -> Result<Values> {
    let wrong = |what: String| Error::Config { what };
    for key in Common::ALL {
        if !spec.uses.contains(key) && config.says(*key) {
            return Err(wrong(format!(
                "`{}` means nothing to architecture `{}`: leave it out",
                key.word(),
                spec.name
            )));
        }
    }
    let names: Vec<&str> = spec.params.iter().map(|p| p.name).collect();
    if let Some(key) = config.options.keys().find(|k| !names.contains(&k.as_str())) {
        let mut all: Vec<&str> = spec.uses.iter().map(|c| c.word()).collect();
        all.extend(names);
        return Err(wrong(format!(
            "unknown key `{key}` for architecture `{}`; it reads: {}",
            spec.name,
            all.join(", ")
        )));
    }
    polyloom::merge::params::complete(spec.params, &config.options, false)
        .map_err(|e| wrong(format!("architecture `{}`: {e}", spec.name)))
}
