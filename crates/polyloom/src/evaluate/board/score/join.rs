//! Predictions joined with the examples of a task.

use std::collections::{BTreeSet, HashMap};

use indexmap::IndexMap;
use serde_json::{Map, Value};

use super::answers::{Answers, plain, sha256};
use super::extract::Extract;
use super::given::{Given, Layout};
use super::measure::{Pairs, measure, refuse};
use super::truth::{self, Example, Goal, Questions, Truth};
use super::value::{About, Aggregate, finish};
use super::{Measured, Options, Record, Scored};
use crate::error::{MergeError, Result};
use crate::evaluate::metric::registry::{self, Metric as Known};
use crate::tasks::load::Loader;
use crate::tasks::spec::{Metric, TaskSpec, TaskType};

/// How many ids a message lists.
const LISTED: usize = 5;

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
    let mut scored = Vec::new();
    for place in 0..questions.goals.len() {
        let about = Task {
            spec,
            loader,
            hash: task_hash,
            answers,
            options,
            extract: &extract,
            questions: &questions,
            place,
        };
        scored.extend(about.score()?);
    }
    if scored.is_empty() {
        return Err(answers.bad(
            "no-shared-id",
            format!("says nothing about task `{}`", spec.id),
        ));
    }
    Ok(scored)
}

struct Task<'a> {
    spec: &'a TaskSpec,
    loader: &'a Loader<'a>,
    hash: &'a str,
    answers: &'a Answers,
    options: &'a Options,
    extract: &'a Extract,
    questions: &'a Questions,
    /// Number of the goal.
    place: usize,
}

impl Task<'_> {
    fn goal(&self) -> &Goal {
        &self.questions.goals[self.place]
    }

    /// The rows about this goal, and whether they are about it alone.
    fn rows(&self) -> Result<(Vec<&Map<String, Value>>, bool)> {
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
        let named = |names: &[String]| -> Vec<&Map<String, Value>> {
            let of =
                |r: &&Map<String, Value>| r.get(column).is_some_and(|v| names.contains(&plain(v)));
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
        rows: &[&'r Map<String, Value>],
        several: bool,
    ) -> Result<(Vec<Vec<&'r Map<String, Value>>>, Vec<String>)> {
        let examples = &self.questions.examples;
        let (answers, options) = (self.answers, self.options);
        let mut of = vec![Vec::new(); examples.len()];
        let query = ["query", "query_id", "query-id", "qid"]
            .into_iter()
            .find(|c| answers.has(c));
        let query = query.filter(|_| self.goal().kind == TaskType::Retrieval);
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

    fn score(&self) -> Result<Vec<Scored>> {
        let (answers, goal, examples) = (self.answers, self.goal(), &self.questions.examples);
        let metrics = self.metrics()?;
        let attempts = metrics
            .iter()
            .any(|(_, m)| m.needs == registry::Needs::Attempts);
        let (rows, alone) = self.rows()?;
        let layout = Layout::find(goal, answers, alone)?;
        let retrieval = goal.kind == TaskType::Retrieval;
        if layout.is_empty() && !retrieval {
            return Err(answers.lacks(format!(
                "of predictions for `{}`: {}",
                self.id(None),
                Layout::wanted(goal)
            )));
        }
        let (of, extra) = self.joined(&rows, attempts || retrieval)?;
        let mut given: Vec<Option<Given>> = Vec::with_capacity(examples.len());
        let mut missing = Vec::new();
        let mut unread = 0usize;
        for (example, rows) in examples.iter().zip(&of) {
            let Some(truth) = &example.truths[self.place] else {
                given.push(None);
                continue;
            };
            let at = || format!("{}: example `{}`", answers.path.display(), example.id);
            let choices = match truth {
                Truth::Choice(choices, _) => Some(&choices[..]),
                _ => None,
            };
            let found = layout.read(goal, rows, choices, self.extract, &at)?;
            if found.is_none() {
                missing.push(example.id.clone());
            }
            let none_of_these = choices.map_or(goal.classes.len(), <[String]>::len);
            unread += usize::from(
                found
                    .as_ref()
                    .and_then(|g| g.class)
                    .is_some_and(|c| c as usize >= none_of_these),
            );
            given.push(found);
        }
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
        if layout.prediction.as_deref() == Some("label") {
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
    fn id(&self, group: Option<&str>) -> String {
        let parts = [Some(&*self.spec.id), group, Some(&*self.goal().name)];
        let parts: Vec<&str> = parts
            .into_iter()
            .flatten()
            .filter(|p| !p.is_empty())
            .collect();
        parts.join("/")
    }

    fn group(
        &self,
        group: Option<&str>,
        places: &[usize],
        given: &[Option<Given>],
        metrics: &[(Metric, &'static Known)],
        training_mean: Option<f64>,
    ) -> Result<Scored> {
        let goal = self.goal();
        let examples = &self.questions.examples;
        let id = self.id(group);
        let hash = match id == self.spec.id {
            true => self.hash.to_owned(),
            false => sha256(&format!("{}\n{id}", self.hash)),
        };
        let truths: Vec<&Truth> = places
            .iter()
            .filter_map(|i| examples[*i].truths[self.place].as_ref())
            .collect();
        let said: Vec<&Given> = places.iter().filter_map(|i| given[*i].as_ref()).collect();
        let pairs = Pairs {
            goal,
            truths,
            given: said,
            training_mean,
        };
        let clusters = clusters(places.iter().map(|i| &examples[*i]));
        let n = pairs.truths.len();
        let mut measured = Vec::new();
        let mut values = None;
        for (i, (metric, known)) in metrics.iter().enumerate() {
            let about = About {
                metric: known,
                aggregate: match &*metric.aggregate {
                    "median" => Aggregate::Median,
                    "sum" => Aggregate::Sum,
                    _ => Aggregate::Mean,
                },
                hash: &hash,
                clusters: clusters.as_deref(),
                options: self.options,
                chance: self.chance(known, &pairs, i == 0),
            };
            let found = measure(&metric.name, &metric.params, &pairs)
                .and_then(|form| finish(form, n, &about));
            match found {
                Ok((one, each)) => {
                    if i == 0 {
                        values = each;
                    }
                    measured.push(one);
                }
                Err(error) if i == 0 => {
                    return Err(error.at(format!("{}: task `{id}`", self.answers.path.display())));
                }
                Err(error) => measured.push(not_measured(known, &error)),
            }
        }
        let records = places
            .iter()
            .zip(&pairs.given)
            .zip(&pairs.truths)
            .enumerate();
        let records = records.map(|(i, ((place, given), truth))| Record {
            task: id.clone(),
            id: examples[*place].id.clone(),
            hash: sha256(&format!("{hash}\n{}", examples[*place].hash))[..32].to_owned(),
            prediction: given.shown.clone(),
            target: target(goal, truth),
            value: values.as_ref().map(|v| v[i]).filter(|v| !v.is_nan()),
            score: given.number,
            probabilities: given.probabilities(),
        });
        Ok(Scored {
            task: id.clone(),
            hash: Some(hash.clone()),
            split: Some(self.options.split.clone()),
            records: records.collect(),
            metrics: measured,
            // The reference is of the task as a whole.
            expert: self
                .spec
                .expert
                .score
                .filter(|_| self.options.metrics.is_empty() && id == self.spec.id),
            tags: tags(self.spec, goal.kind),
            missing: (Vec::new(), 0),
            extra: (Vec::new(), 0),
            notes: Vec::new(),
        })
    }

    fn chance(&self, known: &Known, pairs: &Pairs<'_>, primary: bool) -> Option<f64> {
        let given = self
            .spec
            .score
            .chance
            .filter(|_| primary && self.options.metrics.is_empty());
        let classes = match pairs.truths.first() {
            Some(Truth::Choice(choices, _)) => choices.len(),
            _ => pairs.goal.classes.len(),
        };
        let last = u32::try_from(classes).unwrap_or(0).wrapping_sub(1);
        let positive = pairs
            .truths
            .iter()
            .filter(|t| ***t == Truth::Class(last))
            .count();
        let share = positive as f64 / pairs.truths.len() as f64;
        given.or_else(|| known.chance_for((classes > 0).then_some(classes), Some(share)))
    }

    /// Mean of the target over the training rows, over all and by group, where a metric needs it.
    fn training_means(
        &self,
        metrics: &[(Metric, &Known)],
    ) -> Result<Option<HashMap<Option<String>, f64>>> {
        if !metrics.iter().any(|(_, m)| m.name == "rmse_ratio")
            || !self.spec.splits.named.contains_key("train")
        {
            return Ok(None);
        }
        let mut all: HashMap<Option<String>, crate::evaluate::sum::Sum> = HashMap::new();
        self.loader.rows("train", &mut |table| {
            for row in 0..table.rows() {
                let Some(x) = super::answers::number(&table.at(row, &self.goal().column), false)
                else {
                    continue;
                };
                all.entry(None).or_default().add(x);
                if let Some(group) = self.spec.task_group() {
                    all.entry(Some(plain(&table.at(row, group))))
                        .or_default()
                        .add(x);
                }
            }
            Ok(())
        })?;
        Ok(Some(
            all.into_iter()
                .map(|(group, sum)| (group, sum.mean()))
                .collect(),
        ))
    }
}

fn not_measured(known: &Known, error: &MergeError) -> Measured {
    Measured {
        name: known.name.to_owned(),
        higher_is_better: known.higher_is_better(),
        value: f64::NAN,
        stderr: f64::NAN,
        interval: None,
        method: "none",
        n: 0,
        reason: Some(error.to_string()),
        chance: None,
    }
}

fn first(ids: &[String]) -> String {
    if ids.is_empty() {
        return "none".into();
    }
    let shown: Vec<&str> = ids.iter().take(LISTED).map(|i| &**i).collect();
    let dots = if ids.len() > LISTED { ", ..." } else { "" };
    format!("{}{dots}", shown.join(", "))
}

fn listed(ids: &[String]) -> (Vec<String>, usize) {
    (ids.iter().take(LISTED).cloned().collect(), ids.len())
}

/// Numbers of the clusters; none without clusters.
fn clusters<'e>(examples: impl Iterator<Item = &'e Example>) -> Option<Vec<u32>> {
    let mut seen: HashMap<&str, u32> = HashMap::new();
    let mut out = Vec::new();
    for example in examples {
        let name = example.cluster.as_deref()?;
        let next = u32::try_from(seen.len()).ok()?;
        out.push(*seen.entry(name).or_insert(next));
    }
    Some(out)
}

/// What is right, as people read it.
fn target(goal: &Goal, truth: &Truth) -> String {
    match truth {
        Truth::Class(c) => goal.class_name(*c),
        Truth::Set(set) => set
            .iter()
            .map(|c| goal.class_name(*c))
            .collect::<Vec<_>>()
            .join("|"),
        Truth::Number(x) => x.to_string(),
        Truth::Texts(list) => list.join("\n---\n"),
        Truth::Spans(spans) => {
            let words = spans
                .iter()
                .map(|s| format!("{} {}-{}", s.label, s.start, s.end));
            words.collect::<Vec<_>>().join(", ")
        }
        Truth::Tags(tags) => tags.join(" "),
        Truth::Time(t, seen) => format!("{t}{}", if *seen { "" } else { "+" }),
        Truth::Judged(list, _) => list
            .iter()
            .filter(|(_, g)| *g > 0)
            .take(10)
            .map(|(d, _)| &**d)
            .collect::<Vec<_>>()
            .join(" "),
        Truth::Choice(choices, gold) => choices[*gold].clone(),
        Truth::Size(words, bytes) => format!("{words} words, {bytes} bytes"),
    }
}

fn tags(spec: &TaskSpec, kind: TaskType) -> IndexMap<String, Vec<String>> {
    let of = [
        ("skill", &spec.tags.skills),
        ("domain", &spec.tags.domains),
        ("capability", &spec.tags.capability),
        ("tag", &spec.tags.tags),
        ("modality", &spec.modality.input),
        ("language", &spec.language),
    ];
    let mut tags: IndexMap<String, Vec<String>> = of
        .into_iter()
        .filter(|(_, list)| !list.is_empty())
        .map(|(name, list)| (name.to_owned(), list.clone()))
        .collect();
    tags.insert("type".into(), vec![kind.name().to_owned()]);
    tags
}
