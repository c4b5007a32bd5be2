//! Scores a trial's model: a results file with its records.

use std::collections::HashMap;
use std::path::Path;

use polyloom::evaluate::board::score::answers::{Answers, Columns};
use polyloom::evaluate::board::score::ask::{self, Style};
use polyloom::evaluate::board::score::output::{Output, key};
use polyloom::evaluate::board::score::{Options, score};
use polyloom::tasks::data::Limits;
use polyloom::tasks::load::Loader;
use polyloom_core::hash::sha256_text;
use serde_json::json;

use super::{Study, Trial};
use crate::error::Result;
use crate::tasks::evaluate::{self, Heard, Run, Shelf};
use crate::tasks::system::no_head;
use crate::tasks::{Base, System};

/// Rows of a pass.
const BATCH: usize = 32;

/// The tasks of a study, their rows read once for all trials.
pub(super) struct Jury<'a> {
    study: &'a Study<'a>,
    /// By task and rows at most.
    shelves: HashMap<(usize, usize), Shelf>,
    /// By task: rows of the split.
    rows: HashMap<usize, usize>,
}

impl<'a> Jury<'a> {
    pub(super) fn new(study: &'a Study<'a>) -> Self {
        Self {
            study,
            shelves: HashMap::new(),
            rows: HashMap::new(),
        }
    }

    /// Scores the model in a folder on all tasks and writes `file`.
    pub(super) fn score(&mut self, folder: &Path, file: &Path, trial: &Trial) -> Result<()> {
        let study = self.study;
        let place = folder.display().to_string();
        let mut system = System::find(&place, None, study.heads.as_deref())?;
        if study.heads.is_none() {
            system.heads.extend(study.more_heads.iter().cloned());
        }
        let most = match study.max_length {
            Some(most) => Some(most),
            None => system.max_length()?,
        };
        let base = Base::prepared(&system.base, most, study.preprocessor.as_deref())?;
        let ready = base.ready(&system)?;
        let said = Answers {
            path: folder.to_owned(),
            hash: sha256_text(&json!([study.recipe, trial.values]).to_string()),
            rows: Vec::new(),
            columns: Vec::new(),
            task: None,
            chosen: Columns::default(),
        };
        let name = format!("{:03}", trial.number);
        let mut output = Output::open(file, &name, &said, true)?;
        for (at, given) in study.tasks.iter().enumerate() {
            let spec = &given.spec;
            let loader = Loader::new(spec, given.folder.clone(), Limits::default());
            let limit = self.limit(at, &loader, trial.share)?;
            let own = (at, limit.unwrap_or(usize::MAX));
            let shelf = self
                .shelves
                .entry(own)
                .or_insert_with(|| Shelf::new(&study.split, limit));
            let run = Run {
                ready: &ready,
                reader: &base.reader,
                model: (&said.path, &said.hash),
                batch: BATCH,
            };
            let speech = || ask::Settings {
                split: study.split.clone(),
                limit,
                style: Style::Completion,
                prompt: prompt_of(trial).or_else(|| study.prompt.clone()),
                fewshot: None,
                max_tokens: None,
                raw: !spec.parse.is_empty(),
            };
            let found = evaluate::files(&system, spec)?;
            let mut options = Options {
                split: study.split.clone(),
                allow_partial: limit.is_some(),
                ..Options::default()
            };
            let answers = match run.hear(spec, &loader, found, shelf, &speech, most)? {
                Heard::Answers(answers, _) => answers,
                Heard::Spoken(spoken) => {
                    options.allow_partial |= spoken.unread > 0;
                    spoken.answers
                }
                Heard::Nothing => {
                    let target = spec.targets.first().map_or("", |t| &*t.name);
                    return Err(no_head(&system, &spec.id, target));
                }
            };
            let scored = score(spec, &loader, &given.hash, &answers, &options)?;
            let settings = format!("{} rows {limit:?} tokens {most:?}", given.hash);
            output.add(&spec.id, &key(&settings, &said, &options), &scored)?;
        }
        Ok(output.write()?)
    }

    /// Rows of a task at most: a share of those that there are.
    fn limit(&mut self, task: usize, loader: &Loader<'_>, share: f64) -> Result<Option<usize>> {
        if share >= 1.0 {
            return Ok(self.study.limit);
        }
        let all = match self.rows.get(&task) {
            Some(n) => *n,
            None => {
                let mut n = 0;
                loader.rows(&self.study.split, &mut |table| {
                    n += table.rows();
                    Ok(())
                })?;
                *self.rows.entry(task).or_insert(n)
            }
        };
        let all = self.study.limit.map_or(all, |limit| all.min(limit));
        Ok(Some(((all as f64 * share).ceil() as usize).max(1)))
    }
}

/// The prompt that a trial's answers were learned with, where that is what varies.
fn prompt_of(trial: &Trial) -> Option<String> {
    let mut values = trial.values.iter();
    let (_, id) = values.find(|(key, _)| key == "train.language.prompt")?;
    Some(id.trim_matches('"').to_owned())
}
