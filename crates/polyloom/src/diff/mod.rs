//! Look before you merge: what experts changed against their base, or what adapters hold, compared pair by pair.
//!
//! [`open`] finds out what was given, [`measure`] measures it in bounded memory (chunks, at most three passes per
//! tensor) and returns a [`Report`]: numbers per tensor, layer and model, a cluster order and an indicator table. The
//! report renders itself as text ([`Report::text`]), JSON events ([`Report::events`]) and one HTML page
//! ([`Report::html`]). The numbers do not depend on thread count or chunk size.

mod cluster;
mod events;
mod factors;
mod html;
mod indicators;
mod models;
mod numbers;
mod open;
mod report;
mod spectrum;
mod stream;
mod text;

#[cfg(test)]
mod tests;

use std::sync::atomic::AtomicBool;

use regex::Regex;

use crate::error::{MergeError, Result};

pub use cluster::{Clusters, Join, cluster};
pub use indicators::{Indicator, Speaks};
pub use numbers::Numbers;
pub use open::{Inputs, open};
pub use report::{Report, Row};
pub use spectrum::{Spectrum, effective_rank, stable_rank};
pub use text::Detail;

/// Which left singular vectors count as intruders (arXiv 2410.21228; the defaults are PEFT's).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct IntruderRule {
    /// How many leading left vectors of the tuned matrix are looked at.
    pub k: usize,
    /// A vector is an intruder if its largest absolute cosine with a left vector of the base is below this.
    pub epsilon: f64,
}

impl Default for IntruderRule {
    fn default() -> Self {
        Self {
            k: 10,
            epsilon: 0.5,
        }
    }
}

/// Hears of work done: elements, and the tensor they belong to.
pub type Progress<'a> = dyn Fn(u64, &str) + Sync + 'a;

/// Settings of [`measure`].
#[derive(Clone)]
pub struct Options<'a> {
    /// Share of the entries of a tensor, by magnitude, that the overlap compares; in (0, 1].
    pub top: f64,
    /// Decompose every matrix: effective rank, stable rank, and with a base the intruder dimensions. `None`: only
    /// where it is cheap, which is from the factors of adapters.
    pub spectral: Option<bool>,
    /// The rule for intruder dimensions.
    pub intruders: IntruderRule,
    /// Only tensors (of adapters: modules) whose name matches somewhere.
    pub include: Option<String>,
    /// No tensors whose name matches somewhere.
    pub exclude: Option<String>,
    /// Elements per chunk; 0 = 128 Ki. Rounded up to whole blocks; changes no number.
    pub chunk: usize,
    /// Raised to stop after the current chunk.
    pub stop: Option<&'a AtomicBool>,
    /// Hears of work done: elements, of [`Inputs::work`] in all, and the tensor.
    pub progress: Option<&'a Progress<'a>>,
}

impl Default for Options<'_> {
    fn default() -> Self {
        Self {
            top: 0.2,
            spectral: None,
            intruders: IntruderRule::default(),
            include: None,
            exclude: None,
            chunk: 0,
            stop: None,
            progress: None,
        }
    }
}

impl Options<'_> {
    fn check(&self) -> Result<Filter> {
        if !(self.top > 0.0 && self.top <= 1.0) {
            return Err(MergeError::plan(
                "bad-parameter",
                format!(
                    "the share of the overlap must be in (0, 1], not {}",
                    self.top
                ),
            )
            .hint("--top-k 0.2 compares the fifth of the entries with the largest magnitude"));
        }
        if !self.intruders.epsilon.is_finite() || self.intruders.k == 0 {
            return Err(MergeError::plan(
                "bad-parameter",
                "the intruder rule needs a finite epsilon and at least one vector",
            ));
        }
        Ok(Filter {
            include: pattern("include", self.include.as_deref())?,
            exclude: pattern("exclude", self.exclude.as_deref())?,
        })
    }

    fn stopped(&self) -> Result<()> {
        if self
            .stop
            .is_some_and(|s| s.load(std::sync::atomic::Ordering::Relaxed))
        {
            return Err(polyloom_core::Error::Interrupted.into());
        }
        Ok(())
    }

    fn done(&self, elements: usize, name: &str) {
        if let Some(progress) = self.progress {
            progress(elements as u64, name);
        }
    }
}

/// Which names are compared.
struct Filter {
    include: Option<Regex>,
    exclude: Option<Regex>,
}

impl Filter {
    fn takes(&self, name: &str) -> bool {
        self.include.as_ref().is_none_or(|r| r.is_match(name))
            && !self.exclude.as_ref().is_some_and(|r| r.is_match(name))
    }
}

fn pattern(key: &str, text: Option<&str>) -> Result<Option<Regex>> {
    text.map(|t| {
        Regex::new(t).map_err(|e| {
            let all = e.to_string();
            let last = all.lines().last().unwrap_or_default().to_owned();
            MergeError::plan("bad-parameter", format!("{key} pattern `{t}`: {last}"))
        })
    })
    .transpose()
}

/// One tensor (of adapters: the product of one module's factors) that all inputs are compared in.
#[derive(Debug, Clone)]
struct Task {
    name: String,
    shape: Vec<usize>,
}

impl Task {
    fn elements(&self) -> usize {
        self.shape.iter().product()
    }

    /// Rows and columns as a matrix: the first axis against the rest; `None` for vectors.
    fn matrix(&self) -> Option<(usize, usize)> {
        let rows = *self.shape.first()?;
        let cols: usize = self.shape[1..].iter().product();
        (self.shape.len() >= 2 && rows > 1 && cols > 1).then_some((rows, cols))
    }
}

/// Where differences come from.
trait Source: Sync {
    /// Makes one tensor ready for reading.
    fn open<'a>(&'a self, task: &'a Task) -> Result<Box<dyn Reader + 'a>>;
    /// Spectra of one tensor, one per expert; empty if the tensor has none.
    fn spectra(&self, task: &Task, rule: IntruderRule) -> Result<Vec<Spectrum>>;
    /// True if [`Source::spectra`] holds whole tensors: two at a time then.
    fn whole_spectra(&self) -> bool;
}

/// One tensor of all inputs.
trait Reader: Sync {
    /// Fills `deltas` (one per expert, all as long) with differences from element `start` on, and `base`, if there is
    /// one, with the base's values.
    fn read(
        &self,
        start: usize,
        base: &mut Vec<f32>,
        deltas: &mut [Vec<f32>],
        scratch: &mut polyloom_core::checkpoint::Scratch,
    ) -> Result<()>;
    /// True if there is a base whose values [`Reader::read`] gives.
    fn has_base(&self) -> bool;
    /// Inner products of all pairs, where they are known without reading entries.
    fn dots(&self) -> Option<Vec<f64>> {
        None
    }
}

/// Measures the inputs.
///
/// # Errors
/// No common tensors, shapes that differ, values that are not finite, files that cannot be read, bad options.
pub fn measure(inputs: &Inputs, options: &Options) -> Result<Report, Vec<MergeError>> {
    let filter = options.check().map_err(|e| vec![e])?;
    let (tasks, source, mut facts) = match inputs {
        Inputs::Models { base, experts } => models::plan(base, experts, &filter)?,
        Inputs::Adapters(adapters) => factors::plan(adapters, &filter)?,
    };
    let n = facts.experts.len();
    let mut numbers = stream::run(&*source, &tasks, n, options).map_err(|e| vec![e])?;
    let spectral = options.spectral.unwrap_or(!source.whole_spectra());
    if spectral {
        let found = spectrum::run(&*source, &tasks, options).map_err(|e| vec![e])?;
        let large = |t: &&Task| t.matrix().is_some() && t.elements() > spectrum::LARGEST;
        if let Some(first) = tasks.iter().find(large).filter(|_| source.whole_spectra()) {
            facts.notes.push(format!(
                "{} matrices are too large to decompose and count in no rank (first: `{}`)",
                tasks.iter().filter(large).count(),
                first.name
            ));
        }
        for (numbers, spectra) in numbers.iter_mut().zip(found) {
            numbers.spectra = spectra;
        }
    }
    let rows = tasks
        .into_iter()
        .zip(numbers)
        .map(|(task, numbers)| Row {
            name: task.name,
            shape: task.shape,
            tensors: 1,
            numbers,
        })
        .collect();
    Ok(report::build(facts, rows, spectral, options))
}

/// What a report says about its inputs besides numbers.
struct Facts {
    base: Option<String>,
    experts: Vec<String>,
    notes: Vec<String>,
}

/// What planning found: the tensors to compare, where they come from, remarks.
type Planned<'a> = (Vec<Task>, Box<dyn Source + 'a>, Facts);
