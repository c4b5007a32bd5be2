//! From a trained model and the validation rows of its task to what is kept beside it.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use polyloom::MergeError;
use polyloom::evaluate::EvalError;
use polyloom::evaluate::board::score::examples::Wanted;
use polyloom::evaluate::metric::calibration::Calibration as Bins;
use polyloom::evaluate::metric::class_scores::{ClassScores, log_loss};
use polyloom::tasks::load::Loader;
use polyloom::tasks::spec::TaskSpec;

use super::coverage::error;
use super::isotonic::Isotonic;
use super::temperature;
use super::threshold::{Rule, Threshold};
use super::{Errors, Map, OfHead, Quality};
use crate::error::Result;
use crate::tasks::evaluate::Found;
use crate::tasks::family::provenance;
use crate::tasks::fit as heads;
use crate::tasks::forward::{self, Output};
use crate::tasks::head::{Head, HeadKind};
use crate::tasks::shelf::Shelf;
use crate::tasks::system::Ready;
use crate::tasks::{Reader, Shown};

/// Rows that a map or a cut is fitted on at least.
pub const LEAST: usize = 20;

/// Rows below which an isotonic curve follows single rows (scikit-learn's user guide says a thousand too).
const MANY: usize = 1000;

/// Bins of the calibration error.
const BINS: usize = 15;

/// Rows of a pass.
const BATCH: usize = 1024;

/// How probabilities are calibrated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// One number by which logits are divided.
    Temperature,
    /// A curve from the probability of the second of two classes to another one.
    Isotonic,
    /// Not at all.
    None,
}

/// What is fitted.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// How probabilities are calibrated.
    pub method: Method,
    /// Cuts of targets, or of all targets of two classes (`None`); a later one counts more.
    pub cuts: Vec<(Option<String>, Rule)>,
    /// Only these targets; empty for all.
    pub targets: Vec<String>,
}

impl Settings {
    /// Whether a target is among those that are fitted.
    fn has(&self, target: &str) -> bool {
        self.targets.is_empty() || self.targets.iter().any(|t| t == target)
    }

    /// The cut of a target, and whether it was named with it.
    fn cut(&self, target: &str) -> Option<(Rule, bool)> {
        let mut cuts = self.cuts.iter().rev();
        let of = cuts.find(|(of, _)| of.as_deref().is_none_or(|of| of == target));
        of.map(|(of, rule)| (*rule, of.is_some()))
    }
}

/// Heads by name, and what should be said about them.
pub type Fitted = (BTreeMap<String, OfHead>, Vec<String>);

/// Fits the heads of a task on the rows of a split.
///
/// Rows of groups that training did not have are left out: they are answered by the mean of calibrated answers.
///
/// # Errors
/// Rows or heads that do not fit the task; too few rows or one class among them; a method or a cut of two classes for a
/// target of more; targets that are not there.
pub fn fit(
    ready: &Ready<'_>,
    reader: &Reader,
    spec: &TaskSpec,
    loader: &Loader<'_>,
    (found, split): (&[Found], &str),
    settings: &Settings,
) -> Result<Fitted> {
    let rows = match found.first() {
        Some(first) => Shelf::new(split, None).rows(spec, loader, reader, first.head.feature)?,
        None => return Ok(Fitted::default()),
    };
    let own: Vec<usize> = (0..rows.len())
        .filter(|i| !forward::has_groups(reader) || rows.shown[*i].has_goal())
        .collect();
    let shown: Vec<Shown> = own.iter().map(|i| rows.shown[*i].clone()).collect();
    let mut asked = Vec::new();
    for found in found.iter().filter(|f| settings.has(&f.target)) {
        let Some(place) = rows.asked.iter().position(|a| a.target == found.target) else {
            continue;
        };
        asked.push((checked(found, &rows.asked[place], ready)?, place));
    }
    let all: Vec<&Head> = asked.iter().map(|(head, _)| head).collect();
    let scores = ready.scores(reader, &all, &shown, BATCH)?;
    let (mut fitted, mut notes) = Fitted::default();
    for ((head, place), scores) in asked.iter().zip(scores) {
        let target = &rows.asked[*place].target;
        let wanted = own.iter().zip(scores);
        let wanted = wanted.filter_map(|(i, s)| Some((s, rows.wanted[*place][*i].clone()?)));
        let of_head = OneHead {
            head,
            split,
            rows: wanted.collect(),
        };
        match of_head.fit(settings.method, settings.cut(target), &mut notes)? {
            Some(of) => _ = fitted.insert(head.task.clone(), of),
            None => notes.push(format!(
                "{}: answers with sets of labels or items, which is left as it is",
                head.task
            )),
        }
    }
    Ok((fitted, notes))
}

/// A head as its file has it, if the task has its classes in the same order.
fn checked(
    found: &Found,
    asked: &polyloom::evaluate::board::score::examples::Asked,
    ready: &Ready<'_>,
) -> Result<Head> {
    let head = found.head.clone();
    let (fitted, _) = heads::fit(head, asked, ready.model(), &found.place, false)?;
    if fitted.labels != found.head.labels {
        let what = format!(
            "has the classes {}; the task has {}, in this order",
            found.head.labels.join(", "),
            fitted.labels.join(", ")
        );
        return Err(MergeError::plan("head-differs", what)
            .at(found.place.clone())
            .hint("calibrate with the spec that the model was trained with")
            .into());
    }
    Ok(Head {
        calibration: None,
        ..found.head.clone()
    })
}

/// A head with what it says of rows, before any map, and what is right there.
struct OneHead<'a> {
    head: &'a Head,
    split: &'a str,
    rows: Vec<(Output, Wanted)>,
}

impl OneHead<'_> {
    /// `None` for sets of labels.
    fn fit(
        &self,
        method: Method,
        cut: Option<(Rule, bool)>,
        notes: &mut Vec<String>,
    ) -> Result<Option<OfHead>> {
        let head = self.head;
        if let Some(at) = self
            .rows
            .iter()
            .position(|(s, _)| s.iter().any(|x| !x.is_finite()))
        {
            return Err(self.no(&format!("says no number of row {at}")));
        }
        let mut of = OfHead {
            rows: self.rows.len(),
            classes: head.labels.clone(),
            map: None,
            before: None,
            after: None,
            threshold: None,
            errors: Errors::of(Vec::new()),
            positive: 1,
        };
        match head.kind {
            HeadKind::Multilabel | HeadKind::Embedding | HeadKind::Items | HeadKind::Dense(_) => {
                return Ok(None);
            }
            HeadKind::Classification => {
                self.classes(&mut of, method, cut, notes)?;
            }
            HeadKind::Regression => {
                if let Some((rule, true)) = cut {
                    let what = format!(
                        "answers with a number; the cut `{}` is of two classes",
                        rule.word()
                    );
                    return Err(self.no(&what));
                }
            }
        }
        let said = self.said(&of);
        let errors = said.iter().zip(&self.rows);
        let errors: Vec<f64> = errors.filter_map(|(s, (_, w))| error(s, Some(w))).collect();
        if errors.is_empty() {
            return Err(self.no(&format!("has no labelled row in split `{}`", self.split)));
        }
        of.errors = Errors::of(errors);
        Ok(Some(of))
    }

    /// Map and cut.
    fn classes(
        &self,
        of: &mut OfHead,
        method: Method,
        cut: Option<(Rule, bool)>,
        notes: &mut Vec<String>,
    ) -> Result<()> {
        let truth = self.truth();
        of.before = Some(self.quality(&self.said(of), &truth)?);
        if method == Method::None && cut.is_none() {
            return Ok(());
        }
        if truth.len() < LEAST {
            let what = format!(
                "has {} labelled rows in split `{}`; calibration and cuts want {LEAST}",
                truth.len(),
                self.split
            );
            return Err(self.no(&what));
        }
        if truth.windows(2).all(|w| w[0] == w[1]) {
            let class = self.head.labels.get(truth[0] as usize);
            let what = format!(
                "has one class alone among the rows of split `{}`: `{}`",
                self.split,
                class.map_or("", |c| c)
            );
            return Err(self.no(&what));
        }
        of.map = self.map(of, method, &truth, notes)?;
        let said = self.said(of);
        of.after = Some(self.quality(&said, &truth)?);
        let two = of.classes.len() == 2;
        of.threshold = match cut {
            Some((rule, _)) if two => {
                let scores: Vec<f64> = said.iter().map(|p| f64::from(p[1])).collect();
                let truth: Vec<bool> = truth.iter().map(|t| *t == 1).collect();
                Some(Threshold::fit(rule, &scores, &truth))
            }
            Some((rule, true)) => {
                let what = format!(
                    "has {} classes; the cut `{}` is one between two",
                    of.classes.len(),
                    rule.word()
                );
                return Err(self.no(&what));
            }
            Some((_, false)) => {
                notes.push(format!(
                    "{}: {} classes, so no cut: the likeliest one is answered",
                    self.head.task,
                    of.classes.len()
                ));
                None
            }
            None => None,
        };
        Ok(())
    }

    fn map(
        &self,
        of: &OfHead,
        method: Method,
        truth: &[u32],
        notes: &mut Vec<String>,
    ) -> Result<Option<Map>> {
        let name = &self.head.task;
        Ok(match method {
            Method::None => None,
            Method::Temperature => {
                let logits = self.rows.iter().flat_map(|(s, _)| s).map(|z| f64::from(*z));
                let logits: Vec<f64> = logits.collect();
                let found = temperature::fit(&logits, of.classes.len(), truth);
                if found.at_bound {
                    let why = match found.value < 1.0 {
                        true => "the rows are all answered right, so sharper is always better",
                        false => "its scores tell the classes of these rows no better than chance",
                    };
                    notes.push(format!("{name}: the temperature is at its bound: {why}"));
                }
                Some(Map::Temperature {
                    temperature: found.value,
                })
            }
            Method::Isotonic if of.classes.len() == 2 => {
                if truth.len() < MANY {
                    notes.push(format!(
                        "{name}: {} rows are few for an isotonic curve, which follows single rows; temperature needs fewer",
                        truth.len()
                    ));
                }
                let scores: Vec<f64> = self.said(of).iter().map(|p| f64::from(p[1])).collect();
                let truth: Vec<bool> = truth.iter().map(|t| *t == 1).collect();
                Some(Map::Isotonic {
                    curve: Isotonic::fit(&scores, &truth),
                })
            }
            Method::Isotonic => {
                let what = format!(
                    "has {} classes; an isotonic curve is of two (temperature takes any)",
                    of.classes.len()
                );
                return Err(self.no(&what));
            }
        })
    }

    /// Answers by what is fitted so far.
    fn said(&self, of: &OfHead) -> Vec<Output> {
        let head = Head {
            calibration: Some(Arc::new(of.clone())),
            ..self.head.clone()
        };
        let rows = self.rows.iter();
        rows.map(|(s, _)| forward::said(&head, s.clone())).collect()
    }

    fn truth(&self) -> Vec<u32> {
        let class = |(_, wanted): &(Output, Wanted)| match wanted {
            Wanted::Class(class) => Some(*class),
            _ => None,
        };
        self.rows.iter().filter_map(class).collect()
    }

    fn quality(&self, said: &[Output], truth: &[u32]) -> Result<Quality> {
        let failed = |e: EvalError| self.no(&format!("cannot be measured: {e}"));
        let p: Vec<f64> = said.iter().flatten().map(|p| f64::from(*p)).collect();
        let p = ClassScores::new(&p, self.head.outputs()).map_err(failed)?;
        let mut bins = Bins::new(BINS).map_err(failed)?;
        bins.add_classes(truth, &p).map_err(failed)?;
        Ok(Quality {
            log_loss: log_loss(truth, &p, None).map_err(failed)?,
            ece: bins.finish().map_err(failed)?.l1,
        })
    }

    fn no(&self, what: &str) -> crate::Error {
        let error = MergeError::plan("not-calibrated", format!("`{}` {what}", self.head.task));
        error.hint("--targets A,B leaves the others out").into()
    }
}

/// The split whose rows a model was chosen by: that of its recipe, else `validation`.
///
/// # Errors
/// A `polyloom.json` that cannot be read.
pub fn split_of(folder: &Path) -> Result<String> {
    let told = provenance(folder)?;
    let split = told["recipe"]["train"]["validation"].as_str();
    Ok(split.unwrap_or("validation").to_owned())
}
