//! Predictions joined with the examples of a task.

use std::collections::{BTreeSet, HashMap};

use serde_json::{Map, Value};

use super::answers::{Answers, plain};
use super::extract::Extract;
use super::given::Given;
use super::goal::Goal;
use super::layout::Layout;
use super::measure::refuse;
use super::shown::{LISTED, first, listed};
use super::truth::{self, Questions, Truth};
use super::{Options, Scored};
use crate::error::{MergeError, Result};
use crate::evaluate::metric::registry::{self, Metric as Known};
use crate::tasks::load::Loader;
use crate::tasks::spec::{Metric, TaskSpec, TaskType};

/// Cells of a row of predictions.
type Row = Map<String, Value>;

/// Scores predictions on a task: one result per target and group of the task.
///
/// # Errors
/// What the readers report; ids that one side lacks (unless allowed); a prediction that is not what the task asks for; a
/// metric that counts and cannot be computed from what the file holds. Other metrics that cannot be computed are named
/// in the result.
pub fn score(
    spec: &TaskSpec,
    loader: &Loader<'_>,
    task_hash: &str,
    answers: &Answers,
    options: &Options,
) -> Result<Vec<Scored>> {
    Exam::read(spec, loader, task_hash, options)?.score(answers)
}

/// The examples of a split with what is right, read once for any number of answers.
pub struct Exam<'a> {
    spec: &'a TaskSpec,
    loader: &'a Loader<'a>,
    hash: &'a str,
    options: &'a Options,
    extract: Extract,
    questions: Questions,
}

impl<'a> Exam<'a> {
    /// Reads the split.
    ///
    /// # Errors
    /// What the readers report, a split without examples.
    pub fn read(
        spec: &'a TaskSpec,
        loader: &'a Loader<'a>,
        hash: &'a str,
        options: &'a Options,
    ) -> Result<Self> {
        let questions = truth::read(spec, loader, &options.split)?;
        if questions.examples.is_empty() {
            let what = format!(
                "task `{}` has no examples in split `{}`",
                spec.id, options.split
            );
            return Err(MergeError::plan("empty", what));
        }
        let extract = match &options.extract {
            Some(extract) => extract.clone(),
            None => Extract::of_task(&spec.parse)?.unwrap_or_else(Extract::whole),
        };
        Ok(Self {
            spec,
            loader,
            hash,
            options,
            extract,
            questions,
        })
    }

    /// Scores answers, as [`score`] does.
    ///
    /// # Errors
    /// As [`score`].
    pub fn score(&self, answers: &Answers) -> Result<Vec<Scored>> {
        let mut scored = Vec::new();
        for place in 0..self.questions.goals.len() {
            let about = Task {
                spec: self.spec,
                loader: self.loader,
                hash: self.hash,
                answers,
                options: self.options,
                extract: &self.extract,
                questions: &self.questions,
                place,
            };
            scored.extend(about.score()?);
        }
        if scored.is_empty() {
            return Err(answers.bad(
                "no-shared-id",
                format!("says nothing about task `{}`", self.spec.id),
            ));
        }
        Ok(scored)
    }
}

pub(super) struct Task<'a> {
    pub spec: &'a TaskSpec,
    pub loader: &'a Loader<'a>,
    pub hash: &'a str,
    pub answers: &'a Answers,
    pub options: &'a Options,
    pub extract: &'a Extract,
    pub questions: &'a Questions,
    /// Number of the goal.
    pub place: usize,
}

/// What a file says of the examples of a goal.
pub(super) struct Read {
    /// By example; none where it says nothing or nothing is asked.
    pub given: Vec<Option<Given>>,
    /// Ids that are asked for and have nothing.
    pub missing: Vec<String>,
    /// Ids of the file that the split lacks.
    pub extra: Vec<String>,
    /// Answers that are no class or choice.
    pub unread: usize,
    /// Whether a column `label` was read as the prediction.
    pub label: bool,
}

impl Task<'_> {
    pub fn goal(&self) -> &Goal {
        &self.questions.goals[self.place]
    }

    /// The rows about this goal, and whether they are about it alone.
    fn rows(&self) -> Result<(Vec<&Row>, bool)> {
        let (answers, goal) = (self.answers, self.goal());
        let all = || answers.rows.iter().collect::<Vec<_>>();
        let Some(column) = &answers.task else {
            return Ok((all(), self.questions.goals.len() == 1));
        };
        let last = self.spec.id.rsplit('/').next().unwrap_or_default();
        let mut names = vec![self.spec.id.clone(), last.to_owned()];
        let targets: Vec<String> = match &*goal.name {
            "" => Vec::new(),
            name => vec![
                name.to_owned(),
                format!("{}/{name}", self.spec.id),
                format!("{last}/{name}"),
            ],
        };
        let named = |names: &[String]| -> Vec<&Row> {
            let of = |r: &&Row| r.get(column).is_some_and(|v| names.contains(&plain(v)));
            answers.rows.iter().filter(of).collect()
        };
        let own = named(&targets);
        if !own.is_empty() {
            return Ok((own, true));
        }
        let rows = named(&names);
        if rows.is_empty() {
            names.clear();
            let there = answers.tasks();
            let first: Vec<&str> = there.iter().take(8).map(|t| &**t).collect();
            let dots = if there.len() > 8 { ", ..." } else { "" };
            return Err(answers
                .bad(
                    "no-task",
                    format!("has no row of task `{}` in column `{column}`", self.spec.id),
                )
                .hint(format!("its tasks: {}{dots}", first.join(", "))));
        }
        Ok((rows, self.questions.goals.len() == 1))
    }

    /// The rows of each example, and the ids of rows that belong to none.
    fn joined<'r>(
        &self,
        rows: &[&'r Row],
        several: bool,
    ) -> Result<(Vec<Vec<&'r Row>>, Vec<String>)> {
        let examples = &self.questions.examples;
        let (answers, options) = (self.answers, self.options);
        let mut of = vec![Vec::new(); examples.len()];
        let query = ["query", "query_id", "query-id", "qid"]
            .into_iter()
            .find(|c| answers.has(c));
        let query = query.filter(|_| self.goal().kind.is_ranking());
        let Some(column) = answers.id_column(&self.questions.id).or(query) else {
            if rows.len() != examples.len() {
                let what = format!(
                    "has no ids and {} rows, and split `{}` of task `{}` has {} examples",
                    rows.len(),
                    options.split,
                    self.spec.id,
                    examples.len()
                );
                return Err(answers.bad("count-differs", what).hint(format!(
                    "--id COLUMN names the column of ids; its columns: {}",
                    answers.columns.join(", ")
                )));
            }
            rows.iter().zip(&mut of).for_each(|(row, of)| of.push(*row));
            return Ok((of, Vec::new()));
        };
        let places: HashMap<&str, usize> = examples
            .iter()
            .enumerate()
            .map(|(i, e)| (&*e.id, i))
            .collect();
        let mut extra = Vec::new();
        for row in rows {
            let id = row.get(column).map(plain).unwrap_or_default();
            let id = id.trim();
            let whole = id.strip_suffix(".0").unwrap_or(id);
            match places.get(id).or_else(|| places.get(whole)) {
                Some(place) if several || of[*place].is_empty() => of[*place].push(*row),
                Some(_) => {
                    let error =
                        answers.bad("duplicate-id", format!("the example `{id}` stands twice"));
                    return Err(error.hint("one system a file: --only COLUMN=VALUE keeps the rows of one; other ids: --id COLUMN"));
                }
                None => extra.push(id.to_owned()),
            }
        }
        Ok((of, extra))
    }

    fn metrics(&self) -> Result<Vec<(Metric, &'static Known)>> {
        let declared = &self.goal().metrics;
        let mut chosen: Vec<Metric> = match self.options.metrics.is_empty() {
            true => declared.clone(),
            false => self
                .options
                .metrics
                .iter()
                .map(|name| {
                    let same = |m: &&Metric| registry::find(&m.name) == registry::find(name);
                    declared
                        .iter()
                        .find(same)
                        .cloned()
                        .unwrap_or_else(|| Metric::named(name.clone(), false))
                })
                .collect(),
        };
        if chosen.is_empty() {
            return Err(
                refuse(format!("task `{}` declares no metric", self.spec.id))
                    .hint("--metrics NAME,NAME"),
            );
        }
        if self.options.metrics.is_empty() {
            chosen.sort_by_key(|m| !m.primary);
        }
        let known = |m: Metric| match registry::find(&m.name) {
            Some(known) => Ok((m, known)),
            None => {
                let near = crate::suggest::nearest(&m.name, &registry::names(), 3).join(", ");
                Err(refuse(format!("unknown metric `{}`", m.name))
                    .hint(format!("did you mean {near}? `polyloom metrics` lists all")))
            }
        };
        chosen.into_iter().map(known).collect()
    }

    /// What the file says of every example of the goal. `several`: an example may have several rows.
    pub(super) fn read(&self, several: bool) -> Result<Read> {
        let (answers, goal, examples) = (self.answers, self.goal(), &self.questions.examples);
        let (rows, alone) = self.rows()?;
        let layout = Layout::find(goal, answers, alone)?;
        let ranked = goal.kind.is_ranking();
        if layout.is_empty() && !ranked {
            return Err(answers.lacks(format!(
                "of predictions for `{}`: {}",
                self.id(None),
                Layout::wanted(goal)
            )));
        }
        let (of, extra) = self.joined(&rows, several || ranked)?;
        let mut read = Read {
            given: Vec::with_capacity(examples.len()),
            missing: Vec::new(),
            extra,
            unread: 0,
            label: layout.prediction.as_deref() == Some("label"),
        };
        for (example, rows) in examples.iter().zip(&of) {
            let Some(truth) = &example.truths[self.place] else {
                read.given.push(None);
                continue;
            };
            let at = || format!("{}: example `{}`", answers.path.display(), example.id);
            let listed: Vec<String>;
            let choices = match truth {
                Truth::Choice(choices, _) => Some(&choices[..]),
                Truth::Judged(list, _) if goal.kind == TaskType::Reranking => {
                    listed = list.iter().map(|(d, _)| d.clone()).collect();
                    Some(&listed[..])
                }
                _ => None,
            };
            let found = layout.read(goal, rows, choices, self.extract, &at)?;
            if found.is_none() {
                read.missing.push(example.id.clone());
            }
            let none_of_these = choices.map_or(goal.classes.len(), <[String]>::len);
            read.unread += usize::from(
                found
                    .as_ref()
                    .and_then(|g| g.class)
                    .is_some_and(|c| c as usize >= none_of_these),
            );
            read.given.push(found);
        }
        Ok(read)
    }

    fn score(&self) -> Result<Vec<Scored>> {
        let (answers, examples) = (self.answers, &self.questions.examples);
        let metrics = self.metrics()?;
        let attempts = metrics
            .iter()
            .any(|(_, m)| m.needs == registry::Needs::Attempts);
        let Read {
            given,
            missing,
            extra,
            unread,
            label,
        } = self.read(attempts)?;
        let asked = examples
            .iter()
            .filter(|e| e.truths[self.place].is_some())
            .count();
        if missing.len() == asked {
            let listed: Vec<&str> = examples.iter().take(LISTED).map(|e| &*e.id).collect();
            return Err(answers
                .bad(
                    "no-shared-id",
                    format!(
                        "has no prediction for any example of `{}`, split `{}`",
                        self.spec.id, self.options.split
                    ),
                )
                .hint(format!(
                    "ids of the task: {}, ...; of the file: {}",
                    listed.join(", "),
                    first(&extra)
                )));
        }
        if !self.options.allow_partial && (!missing.is_empty() || !extra.is_empty()) {
            return Err(self.partial(&missing, &extra, asked));
        }
        let mut notes = Vec::new();
        if unread > 0 {
            let are = if unread == 1 {
                "answer is"
            } else {
                "answers are"
            };
            notes.push(format!(
                "{unread} {are} none of the task's classes or choices and wrong"
            ));
        }
        if given.iter().flatten().any(|g| g.embedding.is_some()) {
            let how = "clusters are made from the embeddings, one per class: k-means, best of 10 k-means++ starts, seed 0";
            notes.push(how.into());
        }
        if label {
            notes.push("column `label` was read as the prediction".into());
        }
        let groups: Vec<Option<String>> = match self.spec.task_group() {
            None => vec![None],
            Some(_) => {
                let all: BTreeSet<&String> =
                    examples.iter().filter_map(|e| e.group.as_ref()).collect();
                let mut all: Vec<&String> = all.into_iter().collect();
                all.sort_by_key(|g| (g.parse::<i64>().unwrap_or(i64::MAX), (*g).clone()));
                all.into_iter().cloned().map(Some).collect()
            }
        };
        let means = self.training_means(&metrics)?;
        let mut scored = Vec::new();
        for group in &groups {
            let places: Vec<usize> = (0..examples.len())
                .filter(|i| {
                    given[*i].is_some() && (group.is_none() || examples[*i].group == *group)
                })
                .collect();
            if places.is_empty() {
                continue;
            }
            let mean = means
                .as_ref()
                .and_then(|m| m.get(group).or(m.get(&None)).copied());
            let mut one = self.group(group.as_deref(), &places, &given, &metrics, mean)?;
            one.missing = listed(&missing);
            one.extra = listed(&extra);
            one.notes.extend(notes.iter().cloned());
            scored.push(one);
        }
        Ok(scored)
    }

    fn partial(&self, missing: &[String], extra: &[String], asked: usize) -> MergeError {
        let mut parts = Vec::new();
        if !missing.is_empty() {
            parts.push(format!(
                "lacks {} of {asked} examples ({})",
                missing.len(),
                first(missing)
            ));
        }
        if !extra.is_empty() {
            parts.push(format!(
                "has {} ids that are not in it ({})",
                extra.len(),
                first(extra)
            ));
        }
        let what = format!(
            "task `{}`, split `{}`: {}",
            self.spec.id,
            self.options.split,
            parts.join(" and ")
        );
        self.answers
            .bad("examples-differ", what)
            .hint("--allow-partial scores what is there")
    }

    /// The id with target and group.
    pub fn id(&self, group: Option<&str>) -> String {
        let parts = [Some(&*self.spec.id), group, Some(&*self.goal().name)];
        let parts: Vec<&str> = parts
            .into_iter()
            .flatten()
            .filter(|p| !p.is_empty())
            .collect();
        parts.join("/")
    }
}
