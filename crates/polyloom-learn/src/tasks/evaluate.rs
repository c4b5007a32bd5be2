//! A system on a task: heads found and fitted, rows read once, predictions as the board scores them.

use std::path::Path;

use polyloom::MergeError;
use polyloom::evaluate::board::score::answers::Answers;
use polyloom::evaluate::board::score::ask;
use polyloom::evaluate::board::score::examples;
use polyloom::evaluate::board::score::search::is_search;
use polyloom::tasks::load::Loader;
use polyloom::tasks::spec::{TaskSpec, TaskType};
use polyloom_core::nn::softmax;

use super::answers::{answers, scores_by_name};
use super::asked::ToAsk;
use super::fit::{fit, full};
use super::forward::Output;
use super::head::{Head, HeadKind};
use super::rows::{Reader, Shown};
pub use super::shelf::Shelf;
use super::speak::{Speaker, Spoken};
use super::system::{Ready, System, no_head};
use crate::calibrate::told;
use crate::error::Result;
use crate::models::fusion::Fusion;
use crate::models::open::Model;
use crate::weave::{Choice, Woven};

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

/// What a system says of a task.
pub enum Heard {
    /// Predictions by heads, and what should be said about them.
    Answers(Answers, Vec<String>),
    /// What a decoder says.
    Spoken(Spoken),
    /// It has neither heads for the task nor speaks.
    Nothing,
}

/// A small model beside a large one, with its heads for a task.
pub struct Fellow<'a> {
    /// The system, and how it reads.
    pub run: Run<'a>,
    /// Its heads.
    pub found: Vec<Found>,
    /// Rows as it reads them.
    pub shelf: Shelf,
}

/// Which of the small models it is, in words.
fn small_place(number: usize) -> String {
    match number {
        0 => "small base".to_owned(),
        n => format!("small expert {n}"),
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
    /// Asks by heads (`found`, else the model's own classifier), else in words: `speech` says how a prompt is made, and
    /// prompts are cut to `most` tokens. Retrieval is answered by the vectors of an encoder, and so is similarity where there
    /// is no head for it.
    ///
    /// # Errors
    /// As [`Self::predict`], [`ask::questions`] and [`Speaker::answers`].
    pub fn hear(
        &self,
        spec: &TaskSpec,
        loader: &Loader<'_>,
        found: Option<Vec<Found>>,
        shelf: &mut Shelf,
        speech: &dyn Fn() -> ask::Settings,
        most: Option<usize>,
    ) -> Result<Heard> {
        if is_search(spec) {
            let said = self.search(spec, loader, shelf)?;
            return Ok(Heard::Answers(said, Vec::new()));
        }
        let mut found = match found {
            Some(found) => Some(found),
            None => own(self.ready, spec)?,
        };
        let mut note = None;
        if found.is_none() && spec.kind == Some(TaskType::Sts) && spec.targets.is_empty() {
            note = self.ready.embeds().then(|| {
                format!(
                    "{}: no head, so the cosine of the two texts' vectors answers",
                    spec.id
                )
            });
            found = note.as_ref().map(|_| vec![self.embedding(spec)]);
        }
        if let Some(found) = found {
            let (answers, mut notes) = self.predict(spec, loader, &found, shelf)?;
            notes.extend(note);
            return Ok(Heard::Answers(answers, notes));
        }
        if !self.ready.speaks() {
            return Ok(Heard::Nothing);
        }
        let asking = ask::questions(spec, loader, &speech())?;
        let (path, hash) = self.model;
        let spoken = self.ready.with(&[], |model, source| {
            let speaker = Speaker::of(model, source, most)?;
            speaker.map(|s| s.answers(&asking, path, hash)).transpose()
        })?;
        Ok(spoken.map_or(Heard::Nothing, Heard::Spoken))
    }

    /// The model's own vectors in place of a head.
    fn embedding(&self, spec: &TaskSpec) -> Found {
        Found {
            target: String::new(),
            head: Head::embedding(&spec.id),
            place: self.ready.model().folder.display().to_string(),
            own: true,
        }
    }

    /// Rankings of a retrieval task.
    ///
    /// # Errors
    /// As [`Search::read`] and [`Search::answers`]; a model that gives texts no vectors.
    fn search(&self, spec: &TaskSpec, loader: &Loader<'_>, shelf: &mut Shelf) -> Result<Answers> {
        if !self.ready.embeds() {
            let what = format!("gives texts no vectors, which task `{}` asks for", spec.id);
            return Err(MergeError::plan("no-vectors", what)
                .at(self.ready.model().folder.display().to_string())
                .hint("encoders of texts do (with experts: of a shared gate), and decoders with a modules.json (sentence-transformers)")
                .into());
        }
        let search = shelf.search(spec, loader, self.reader)?;
        let (path, hash) = self.model;
        self.ready.with(&[], |model, source| {
            search.answers((path, hash), model, source, self.reader, self.batch)
        })
    }

    /// Predictions of a task, ready to be scored, and what should be said about them. A woven model is told the task: its
    /// router chooses parts, not the head.
    ///
    /// # Errors
    /// Heads that do not fit, rows that the model does not take, and as [`Ready::outputs`].
    pub fn predict(
        &self,
        spec: &TaskSpec,
        loader: &Loader<'_>,
        found: &[Found],
        shelf: &mut Shelf,
    ) -> Result<(Answers, Vec<String>)> {
        let mut asked = self.ask(spec, loader, found, shelf)?;
        let said =
            asked.each(|heads, shown| self.ready.outputs(self.reader, heads, shown, self.batch))?;
        let made = self.answers(&asked, found, &said);
        let told = asked.coverage(found, &said);
        asked.notes.extend(told);
        Ok((made, std::mem::take(&mut asked.notes)))
    }

    /// The same with what small experts learned put into its answers ([`Fusion`]): `small` is their base, then the experts,
    /// all with heads for the same classes.
    ///
    /// # Errors
    /// As [`Self::predict`]; heads of something else than one class, or of other classes.
    pub fn predict_fused(
        &self,
        spec: &TaskSpec,
        loader: &Loader<'_>,
        (found, shelf): (&[Found], &mut Shelf),
        small: &mut [Fellow<'_>],
        fusion: &Fusion,
    ) -> Result<(Answers, Vec<String>)> {
        let said = |run: &Run<'_>, asked: &ToAsk| {
            asked.each(|heads, shown| run.ready.outputs(run.reader, heads, shown, run.batch))
        };
        let mut asked = self.ask(spec, loader, found, shelf)?;
        let mut outputs = said(self, &asked)?;
        let mut others = Vec::with_capacity(small.len());
        for fellow in small {
            let Fellow { run, found, shelf } = fellow;
            let other = run.ask(spec, loader, found, shelf)?;
            asked.notes.extend(other.notes.iter().cloned());
            let said = said(run, &other)?;
            others.push((other, said));
        }
        for (h, head) in asked.heads.iter().enumerate() {
            let wrong = |what: String| Err(MergeError::plan("bad-fusion", what).into());
            if head.kind != HeadKind::Classification {
                let kind = head.kind.word();
                return wrong(format!(
                    "task `{}` asks for {kind}; fusion is of one class",
                    spec.id
                ));
            }
            let same = |(o, _): &(ToAsk, Vec<Vec<Output>>)| {
                let other = &o.heads[h];
                other.kind == head.kind
                    && other.outputs() == head.outputs()
                    && other.labels == head.labels
            };
            if let Some(other) = others.iter().position(|o| !same(o)) {
                let place = small_place(other);
                return wrong(format!(
                    "the head of the {place} for `{}` has other classes",
                    spec.id
                ));
            }
            for (i, row) in outputs[h].iter_mut().enumerate() {
                // Logarithms of probabilities are logits up to a constant, which nothing depends on.
                let logits = |p: &[f32]| -> Vec<f64> {
                    p.iter().map(|p| f64::from(p.max(1e-30)).ln()).collect()
                };
                let all: Vec<Vec<f64>> = others.iter().map(|(_, o)| logits(&o[h][i])).collect();
                let Some((base, experts)) = all.split_first() else {
                    return wrong("fusion needs a small base".into());
                };
                let experts: Vec<&[f64]> = experts.iter().map(Vec::as_slice).collect();
                let fused = fusion.step(&logits(row), base, &experts)?;
                *row = fused.logits.iter().map(|x| *x as f32).collect();
                let width = row.len();
                softmax::forward(row, width);
            }
        }
        let made = self.answers(&asked, found, &outputs);
        Ok((made, std::mem::take(&mut asked.notes)))
    }

    /// What a woven model answers, in each reading.
    ///
    /// # Errors
    /// As [`Self::predict`].
    pub fn predict_woven(
        &self,
        woven: &Woven,
        spec: &TaskSpec,
        loader: &Loader<'_>,
        found: &[Found],
        shelf: &mut Shelf,
    ) -> Result<(Readings, Vec<String>)> {
        let mut asked = self.ask(spec, loader, found, shelf)?;
        let model = self.ready.model();
        let expert = woven.meta.expert_of(&spec.id);
        let mut chosen: Vec<Option<usize>> = Vec::new();
        let mut corrected: Vec<Vec<Output>> = Vec::new();
        let said = asked.each(|heads, shown| {
            let run = |shown: &[Shown], choice| {
                woven.run(model, self.reader, heads, shown, self.batch, choice)
            };
            let routed = run(shown, Choice::Router)?;
            if chosen.is_empty() {
                chosen = routed.experts();
            }
            let mut right = routed.outputs.clone();
            if let Some(expert) = expert {
                // What the router decided as the right expert alone would have is known already.
                let other: Vec<usize> = (0..shown.len())
                    .filter(|&i| !woven.is_alone(&routed.weights[i], expert))
                    .collect();
                let some: Vec<Shown> = other.iter().map(|&i| shown[i].clone()).collect();
                let again = run(&some, Choice::Expert(expert))?;
                for (right, again) in right.iter_mut().zip(again.outputs) {
                    for (i, output) in other.iter().zip(again) {
                        right[*i] = output;
                    }
                }
            }
            corrected.extend(right);
            Ok(routed.outputs)
        })?;
        let known = self.answers(&asked, found, &said);
        let right = expert.map(|_| self.answers(&asked, found, &asked.in_order(corrected)));
        let one = match (&asked.heads[..], &asked.asked[..]) {
            ([head], [asked]) => asked.target.is_empty() && head.kind == HeadKind::Classification,
            _ => false,
        };
        let unknown = match (expert, one) {
            (Some(expert), true) => {
                let mut made = known.clone();
                wrong_heads(&mut made, &chosen, expert, woven);
                Some(made)
            }
            _ => None,
        };
        let hits = chosen.iter().filter(|c| **c == expert).count();
        let readings = Readings {
            known,
            right,
            unknown,
            router: expert.map(|_| hits as f64 / chosen.len().max(1) as f64),
            passes: woven.passes(model.layers()),
        };
        Ok((readings, std::mem::take(&mut asked.notes)))
    }

    /// Heads fitted to a task, and its rows.
    pub(super) fn ask(
        &self,
        spec: &TaskSpec,
        loader: &Loader<'_>,
        found: &[Found],
        shelf: &mut Shelf,
    ) -> Result<ToAsk> {
        let mut out = ToAsk::default();
        for (place, found) in found.iter().enumerate() {
            let rows = shelf.rows(spec, loader, self.reader, found.head.feature)?;
            if place == 0 {
                out.ids.clone_from(&rows.ids);
                out.asked.clone_from(&rows.asked);
            }
            if rows.is_empty() {
                let what = format!(
                    "task `{}` has no rows in split `{}`",
                    spec.id,
                    shelf.split()
                );
                return Err(MergeError::plan("empty", what).into());
            }
            let mut head = found.head.clone();
            head.task = full(&spec.id, &found.target);
            let of = rows.asked.iter().find(|a| a.target == found.target);
            if let Some(of) = of {
                let (fitted, note) = fit(head, of, self.ready.model(), &found.place, found.own)?;
                out.notes.extend(note);
                out.notes.extend(told(&fitted));
                out.heads.push(fitted.naming(&rows.shown).into_owned());
                out.rows.push(rows);
            }
        }
        Ok(out)
    }

    /// What heads said, as the board reads it.
    pub(super) fn answers(&self, task: &ToAsk, found: &[Found], said: &[Vec<Output>]) -> Answers {
        let named: Vec<(&str, &Head)> = found.iter().map(|f| &*f.target).zip(&task.heads).collect();
        let (path, hash) = self.model;
        let mut made = answers(path, hash, &task.ids, &named, said);
        if let ([one], [asked]) = (&task.heads[..], &task.asked[..])
            && asked.target.is_empty()
        {
            scores_by_name(&mut made, one, &asked.classes);
        }
        made
    }
}

/// What a woven model answered.
pub struct Readings {
    /// The task is known: the router chooses parts, the head is that of the task.
    pub known: Answers,
    /// The task's own expert and head for every row; `None` where no expert is for the task.
    pub right: Option<Answers>,
    /// Nothing is known: the router chooses parts and head. `None` where no expert is for the task, or where it does not ask
    /// for one class, so that a wrong head's answer would not be wrong.
    pub unknown: Option<Answers>,
    /// Share of rows that go to the task's expert.
    pub router: Option<f64>,
    /// Passes of one model that an input costs.
    pub passes: f64,
}

/// Rows of which another head answers than the task's: that is no answer to it. The rest is told as text is: what names no
/// class is wrong.
fn wrong_heads(made: &mut Answers, chosen: &[Option<usize>], expert: usize, woven: &Woven) {
    let said = "output";
    for (row, chosen) in made.rows.iter_mut().zip(chosen) {
        row.shift_remove("probabilities");
        let own = row.shift_remove("prediction").unwrap_or_default();
        let answer = match chosen {
            Some(chosen) if *chosen == expert => own,
            Some(other) => format!("answered by {}", woven.experts[*other].name).into(),
            None => "answered by no expert".into(),
        };
        row.insert(said.into(), answer);
    }
    made.columns = vec!["id".into(), said.into()];
}
