//! A system on a task: heads found and fitted, rows read once, predictions as the board scores them.

use std::collections::HashMap;
use std::path::Path;
use std::rc::Rc;

use polyloom::MergeError;
use polyloom::evaluate::board::score::answers::Answers;
use polyloom::evaluate::board::score::examples::{self, Asked};
use polyloom::tasks::load::Loader;
use polyloom::tasks::spec::TaskSpec;

use super::answers::{answers, scores_by_name};
use super::fit::{fit, full};
use super::forward::{Output, outputs};
use super::head::{Feature, Head};
use super::rows::{Reader, Rows};
use super::system::{Ready, System, no_head};
use crate::error::Result;
use crate::models::open::Model;

/// A head before it is fitted to its task.
#[derive(Debug, Clone)]
pub struct Found {
    /// Target that it answers; empty for a task without targets.
    pub target: String,
    /// The head.
    pub head: Head,
    /// Its file, or the model that brings it.
    pub place: String,
    /// It came with the model, not for this task: its classes may be taken by number.
    pub own: bool,
}

/// The head files of a system for the targets of a task, in their order; `None` where it has none at all.
///
/// # Errors
/// Some of several targets without a head, files that are no heads.
pub fn files(system: &System, spec: &TaskSpec) -> Result<Option<Vec<Found>>> {
    let mut found = Vec::new();
    let mut lacking = None;
    for asked in examples::asked(spec)? {
        match system.head(&spec.id, &asked.target)? {
            Some((head, file)) => found.push(Found {
                target: asked.target,
                head,
                place: file.display().to_string(),
                own: false,
            }),
            None => lacking = lacking.or(Some(asked.target)),
        }
    }
    match lacking {
        None => Ok(Some(found)),
        Some(target) if !found.is_empty() => Err(no_head(system, &spec.id, &target)),
        Some(_) => Ok(None),
    }
}

/// Says before anything runs whether heads fit what a task asks for, as far as its spec tells.
///
/// # Errors
/// As [`fit`].
pub fn check(found: &[Found], spec: &TaskSpec, model: &Model) -> Result<()> {
    for (found, asked) in found.iter().zip(examples::asked(spec)?) {
        fit(found.head.clone(), &asked, model, &found.place, found.own)?;
    }
    Ok(())
}

/// The classifier of the model itself as the head of a task; `None` where it has none.
///
/// # Errors
/// A task of several targets.
pub fn own(ready: &Ready<'_>, spec: &TaskSpec) -> Result<Option<Vec<Found>>> {
    let Some(mut head) = ready.own_head()? else {
        return Ok(None);
    };
    let place = ready.model().folder.display().to_string();
    if spec.targets.len() > 1 {
        let what = format!(
            "has one classifier; task `{}` has {} targets",
            spec.id,
            spec.targets.len()
        );
        return Err(MergeError::plan("no-head", what).at(place).into());
    }
    head.task.clone_from(&spec.id);
    Ok(Some(vec![Found {
        target: spec
            .targets
            .first()
            .map_or(String::new(), |t| t.name.clone()),
        head,
        place,
        own: true,
    }]))
}

/// Rows of tasks as a reader takes them, made once for all systems that read alike.
pub struct Shelf {
    split: String,
    limit: Option<usize>,
    rows: HashMap<(String, bool), Rc<Rows>>,
}

impl Shelf {
    /// Empty: of a split, at most `limit` rows of a task.
    #[must_use]
    pub fn new(split: &str, limit: Option<usize>) -> Self {
        Self {
            split: split.to_owned(),
            limit,
            rows: HashMap::new(),
        }
    }

    /// The rows of a task for heads of a feature.
    ///
    /// # Errors
    /// As [`Rows::read`].
    pub fn rows(
        &mut self,
        spec: &TaskSpec,
        loader: &Loader<'_>,
        reader: &Reader,
        feature: Feature,
    ) -> Result<Rc<Rows>> {
        let key = (spec.id.clone(), feature == Feature::Pair);
        if let Some(rows) = self.rows.get(&key) {
            return Ok(rows.clone());
        }
        let read = Rows::read(spec, loader, &self.split, reader, feature, self.limit)?;
        let rows = Rc::new(read);
        self.rows.insert(key, rows.clone());
        Ok(rows)
    }
}

/// What is run, and how.
pub struct Run<'a> {
    /// The system.
    pub ready: &'a Ready<'a>,
    /// How inputs are read.
    pub reader: &'a Reader,
    /// Where it lies, and the hash of its content.
    pub model: (&'a Path, &'a str),
    /// Inputs of a batch.
    pub batch: usize,
}

impl Run<'_> {
    /// Predictions of a task, ready to be scored, and what should be said about them.
    ///
    /// # Errors
    /// Heads that do not fit, rows that the model does not take, and as [`outputs`].
    pub fn predict(
        &self,
        spec: &TaskSpec,
        loader: &Loader<'_>,
        found: &[Found],
        shelf: &mut Shelf,
    ) -> Result<(Answers, Vec<String>)> {
        let (mut notes, mut heads, mut said) = (Vec::new(), Vec::new(), Vec::new());
        let (mut ids, mut asked): (Vec<String>, Vec<Asked>) = (Vec::new(), Vec::new());
        for (place, found) in found.iter().enumerate() {
            let rows = shelf.rows(spec, loader, self.reader, found.head.feature)?;
            if place == 0 {
                ids.clone_from(&rows.ids);
                asked.clone_from(&rows.asked);
            }
            if rows.is_empty() {
                let what = format!("task `{}` has no rows in split `{}`", spec.id, shelf.split);
                return Err(MergeError::plan("empty", what).into());
            }
            let mut head = found.head.clone();
            head.task = full(&spec.id, &found.target);
            let of = rows.asked.iter().find(|a| a.target == found.target);
            if let Some(of) = of {
                let (fitted, note) = fit(head, of, self.ready.model(), &found.place, found.own)?;
                notes.extend(note);
                heads.push(fitted);
                said.push(Vec::<Output>::new());
            }
        }
        // Heads of one feature share the pass of the trunk.
        let mut features: Vec<Feature> = heads.iter().map(|h| h.feature).collect();
        features.dedup();
        for (i, feature) in features.iter().enumerate() {
            if features[..i].contains(feature) {
                continue;
            }
            let of: Vec<usize> = (0..heads.len())
                .filter(|h| heads[*h].feature == *feature)
                .collect();
            let some: Vec<&Head> = of.iter().map(|h| &heads[*h]).collect();
            let rows = shelf.rows(spec, loader, self.reader, *feature)?;
            let found = self.ready.with(&some, |model, source| {
                outputs(model, source, self.reader, &some, &rows.shown, self.batch)
            })?;
            for (h, found) in of.into_iter().zip(found) {
                said[h] = found;
            }
        }
        let named: Vec<(&str, &Head)> = found.iter().map(|f| &*f.target).zip(&heads).collect();
        let (path, hash) = self.model;
        let mut made = answers(path, hash, &ids, &named, &said);
        if let ([one], [asked]) = (&heads[..], &asked[..])
            && asked.target.is_empty()
        {
            scores_by_name(&mut made, one, &asked.classes);
        }
        Ok((made, notes))
    }
}
