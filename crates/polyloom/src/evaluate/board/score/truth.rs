//! The examples of a task's split, with what is right.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use indexmap::IndexSet;
use serde_json::Value;

use super::answers::{number, plain, sha256, unpacked};
use super::cells::{labels_of, spans};
use super::judged::Judgements;
use crate::error::{MergeError, Result};
use crate::evaluate::metric::span::Span;
use crate::tasks::data::Table;
use crate::tasks::hash::canonical;
use crate::tasks::load::{Loader, sample_of};
use crate::tasks::predicate::Predicate;
use crate::tasks::prompt::Renderer;
use crate::tasks::spec::{GroupAs, Metric, TaskSpec, TaskType};

/// What is right for one example.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Truth {
    /// A class, or the true cluster.
    Class(u32),
    /// Classes, ascending.
    Set(Vec<u32>),
    /// A number.
    Number(f64),
    /// Accepted texts.
    Texts(Vec<String>),
    /// Spans.
    Spans(Vec<Span>),
    /// A tag per token.
    Tags(Vec<String>),
    /// When, and whether the event was seen.
    Time(f64, bool),
    /// Judged documents of a query; the query's own document is left out.
    Judged(Arc<Vec<(String, i64)>>, Option<String>),
    /// Choices and the right one.
    Choice(Vec<String>, usize),
    /// Size of a text: words, bytes.
    Size(u64, u64),
}

/// One example.
#[derive(Debug, Clone)]
pub(crate) struct Example {
    pub id: String,
    pub hash: String,
    pub group: Option<String>,
    pub cluster: Option<String>,
    /// Per goal; none where the goal has no value in this row.
    pub truths: Vec<Option<Truth>>,
}

/// One thing that is asked for: the task, or one of its targets.
#[derive(Debug, Clone)]
pub(crate) struct Goal {
    /// Name of the target; empty without targets.
    pub name: String,
    pub kind: TaskType,
    pub column: String,
    pub metrics: Vec<Metric>,
    /// Classes; discovered and sorted where the spec names none.
    pub classes: Vec<String>,
    /// Raw labels of other names, and numbers where the data has numbers.
    pub also: HashMap<String, u32>,
    /// Whether the classes come from the data.
    pub discovered: bool,
    open: Option<IndexSet<String>>,
    sample: Option<Predicate>,
}

/// The examples of a split.
#[derive(Debug, Clone)]
pub(crate) struct Questions {
    pub goals: Vec<Goal>,
    pub examples: Vec<Example>,
    /// The column of ids; empty where rows are counted from 0.
    pub id: String,
}

impl Goal {
    /// The class of a label as it stands in data or predictions.
    pub fn class(&self, label: &Value) -> Option<u32> {
        let text = plain(label);
        let text = text.trim();
        let place = |p: usize| u32::try_from(p).ok();
        if let Some(class) = self.also.get(text) {
            return Some(*class);
        }
        if let Some(p) = self.classes.iter().position(|n| n == text) {
            return place(p);
        }
        // 1.0 for 1, as tables with missing values have it.
        let whole = text.strip_suffix(".0").and_then(|t| self.also.get(t));
        if let Some(class) = whole {
            return Some(*class);
        }
        let lower = text.to_lowercase();
        let mut same = self
            .classes
            .iter()
            .enumerate()
            .filter(|(_, n)| n.to_lowercase() == lower);
        match (same.next(), same.next()) {
            (Some((p, _)), None) => place(p),
            _ => None,
        }
    }

    /// The name of a class.
    pub fn class_name(&self, class: u32) -> String {
        self.classes
            .get(class as usize)
            .cloned()
            .unwrap_or_else(|| class.to_string())
    }

    fn truth_class(&mut self, label: &Value, at: &dyn Fn() -> String) -> Result<u32> {
        if let Some(open) = &mut self.open {
            return Ok(u32::try_from(open.insert_full(plain(label)).0).unwrap_or(u32::MAX));
        }
        self.class(label).ok_or_else(|| {
            MergeError::plan(
                "bad-label",
                format!("the label `{}` is no class of the task", plain(label)),
            )
            .at(at())
            .hint("`polyloom tasks check` lists such rows; labels.ignore leaves them out")
        })
    }
}

fn goals(spec: &TaskSpec) -> Result<Vec<Goal>> {
    let goal = |name: &str,
                kind,
                column: &str,
                metrics: &[Metric],
                labels: &[String],
                sample: Option<Predicate>| {
        let with_classes = matches!(
            kind,
            TaskType::Classification
                | TaskType::PairClassification
                | TaskType::Multilabel
                | TaskType::Clustering
        );
        let mut also = HashMap::new();
        for i in 0..u32::try_from(labels.len()).unwrap_or(0) {
            if !labels.contains(&i.to_string()) {
                also.insert(i.to_string(), i);
            }
        }
        also.extend(
            spec.labels
                .map
                .iter()
                .map(|(raw, class)| (raw.clone(), *class)),
        );
        let open = with_classes && labels.is_empty() && spec.labels.map.is_empty();
        Goal {
            name: name.to_owned(),
            kind,
            column: column.to_owned(),
            metrics: metrics.to_vec(),
            classes: labels.to_vec(),
            also,
            discovered: open,
            open: open.then(IndexSet::new),
            sample,
        }
    };
    if spec.targets.is_empty() {
        let kind = spec.kind.ok_or_else(|| {
            MergeError::plan("no-type", format!("task `{}` has no type", spec.id))
        })?;
        let f = &spec.fields;
        return Ok(vec![goal(
            "",
            kind,
            &f.target,
            &spec.metrics,
            &spec.labels.names,
            None,
        )]);
    }
    let of = |t: &crate::tasks::spec::Target| {
        Ok(goal(
            &t.name,
            t.kind,
            &t.column,
            &t.metrics,
            &t.labels,
            sample_of(t)?,
        ))
    };
    spec.targets.iter().map(of).collect()
}

/// Reads a split.
pub(crate) fn read(spec: &TaskSpec, loader: &Loader<'_>, split: &str) -> Result<Questions> {
    let mut goals = goals(spec)?;
    let judged = match spec.kind {
        Some(TaskType::Retrieval) => Some(Judgements::read(spec, loader, split)?),
        _ => None,
    };
    let group = spec.table.as_ref().filter(|t| !t.group.is_empty());
    let renderer = Renderer::new();
    let mut examples = Vec::new();
    let mut seen = HashSet::new();
    let mut number_of_row = 0u64;
    loader.rows(split, &mut |table| {
        for row in 0..table.rows() {
            let place = number_of_row;
            number_of_row += 1;
            let id = match &*spec.fields.id {
                "" => place.to_string(),
                column => plain(&table.at(row, column)),
            };
            let at = || format!("task `{}`, split `{split}`, example `{id}`", spec.id);
            if !seen.insert(id.clone()) {
                return Err(MergeError::plan("duplicate-id", "stands twice").at(at()));
            }
            let mut hash = String::new();
            canonical(&Value::Object(table.row(row)), &mut hash);
            let text = |column: &str| {
                let value = table.at(row, column);
                (!value.is_null()).then(|| plain(&value))
            };
            let truths = goals.iter_mut().map(|goal| {
                if goal.sample.as_ref().is_some_and(|s| !s.holds(&table, row)) {
                    return Ok(None);
                }
                let about = About {
                    spec,
                    loader,
                    table: &table,
                    row,
                    renderer: &renderer,
                    judged: judged.as_ref(),
                };
                truth(goal, &about, &id, &at)
            });
            let truths = truths.collect::<Result<Vec<_>>>()?;
            examples.push(Example {
                hash: sha256(&hash)[..32].to_owned(),
                group: spec.task_group().and_then(text),
                cluster: match &*spec.fields.cluster {
                    "" => group
                        .filter(|t| t.group_as == GroupAs::Cluster)
                        .and_then(|t| text(&t.group)),
                    column => text(column),
                },
                id,
                truths,
            });
        }
        Ok(())
    })?;
    for (place, goal) in goals.iter_mut().enumerate() {
        close(goal, place, &mut examples);
    }
    Ok(Questions {
        goals,
        examples,
        id: spec.fields.id.clone(),
    })
}

/// Sorts classes that were discovered (numbers by value) and renames those of the examples.
fn close(goal: &mut Goal, place: usize, examples: &mut [Example]) {
    let Some(open) = goal.open.take() else { return };
    let mut order: Vec<(usize, &String)> = open.iter().enumerate().collect();
    let value = |t: &String| t.parse::<f64>().ok();
    if open.iter().all(|t| value(t).is_some()) {
        order.sort_by(|a, b| {
            value(a.1)
                .unwrap_or(0.0)
                .total_cmp(&value(b.1).unwrap_or(0.0))
        });
    } else {
        order.sort_by_key(|(_, name)| name.as_str());
    }
    let mut new = vec![0u32; order.len()];
    for (now, (before, _)) in (0u32..).zip(&order) {
        new[*before] = now;
    }
    goal.classes = order.into_iter().map(|(_, name)| name.clone()).collect();
    // A class that is the number 1 is found under 1.0 too.
    goal.also = (0u32..)
        .zip(&goal.classes)
        .map(|(i, name)| (name.clone(), i))
        .collect();
    for example in examples {
        match &mut example.truths[place] {
            Some(Truth::Class(c)) => *c = new[*c as usize],
            Some(Truth::Set(set)) => {
                set.iter_mut().for_each(|c| *c = new[*c as usize]);
                set.sort_unstable();
            }
            _ => {}
        }
    }
}

struct About<'a> {
    spec: &'a TaskSpec,
    loader: &'a Loader<'a>,
    table: &'a Table,
    row: usize,
    renderer: &'a Renderer,
    judged: Option<&'a Judgements>,
}

fn truth(
    goal: &mut Goal,
    about: &About<'_>,
    id: &str,
    at: &dyn Fn() -> String,
) -> Result<Option<Truth>> {
    let About {
        spec,
        loader,
        table,
        row,
        ..
    } = *about;
    let target = unpacked(&table.at(row, &goal.column));
    let bad = |what: String| MergeError::plan("bad-target", what).at(at());
    let from_number = |column: &str| {
        let value = table.at(row, column);
        number(&value, false).ok_or_else(|| {
            bad(format!(
                "`{}` in column `{column}` is no number",
                plain(&value)
            ))
        })
    };
    let needs_target = !matches!(
        goal.kind,
        TaskType::Retrieval
            | TaskType::Span
            | TaskType::Survival
            | TaskType::Perplexity
            | TaskType::MultipleChoice
            | TaskType::Generation
    );
    if needs_target && (target.is_null() || target.as_str().is_some_and(|t| t.trim().is_empty())) {
        return Ok(None);
    }
    Ok(Some(match goal.kind {
        TaskType::Classification | TaskType::PairClassification | TaskType::Clustering => {
            Truth::Class(goal.truth_class(&target, at)?)
        }
        TaskType::Multilabel => {
            let list = labels_of(&target);
            let mut set = Vec::new();
            for label in &list {
                set.push(goal.truth_class(label, at)?);
            }
            set.sort_unstable();
            set.dedup();
            Truth::Set(set)
        }
        TaskType::Regression | TaskType::Sts | TaskType::Forecasting => {
            Truth::Number(from_number(&goal.column)?)
        }
        TaskType::TokenClassification => {
            let list = labels_of(&target);
            let name = |v: &Value| match v
                .as_u64()
                .and_then(|i| goal.classes.get(usize::try_from(i).ok()?))
            {
                Some(name) => name.clone(),
                None => plain(v),
            };
            Truth::Tags(list.iter().map(name).collect())
        }
        TaskType::Span => {
            let value = unpacked(&table.at(row, &spec.fields.spans));
            let input = plain(&table.at(row, &spec.fields.input));
            Truth::Spans(spans(&value, &input).map_err(bad)?)
        }
        TaskType::Survival => {
            let event = match &*spec.fields.event {
                "" => true,
                column => from_number(column)? != 0.0,
            };
            Truth::Time(from_number(&spec.fields.time)?, event)
        }
        TaskType::Perplexity => {
            let column = if spec.fields.input.is_empty() {
                &goal.column
            } else {
                &spec.fields.input
            };
            let text = plain(&table.at(row, column));
            Truth::Size(text.split_whitespace().count() as u64, text.len() as u64)
        }
        TaskType::Generation | TaskType::MultipleChoice => {
            let prompt = spec.prompts.first();
            let prompt =
                prompt.filter(|p| goal.kind == TaskType::MultipleChoice || !p.target.is_empty());
            let Some(prompt) = prompt else {
                return Ok(Some(Truth::Texts(match target {
                    Value::Null => return Ok(None),
                    Value::Array(list) => list.iter().map(plain).collect(),
                    one => vec![plain(&one)],
                })));
            };
            let question = about
                .renderer
                .question(prompt, &loader.record(table, row))
                .map_err(|e| e.at(at()))?;
            match goal.kind {
                TaskType::Generation => Truth::Texts(question.targets),
                _ => {
                    let gold = question.gold.or_else(|| {
                        let answer = question.targets.first()?;
                        question.choices.iter().position(|c| c == answer)
                    });
                    let gold = gold.filter(|g| *g < question.choices.len());
                    let gold =
                        gold.ok_or_else(|| bad("the right answer is none of the choices".into()))?;
                    Truth::Choice(question.choices, gold)
                }
            }
        }
        TaskType::Retrieval => match about.judged {
            Some(judged) => judged.of(id, table, row),
            None => return Ok(None),
        },
        kind @ (TaskType::Reranking | TaskType::ToolGraph | TaskType::Dense) => {
            let what = format!("predictions for tasks of type {kind} are not scored");
            return Err(MergeError::plan("not-scored", what)
                .at(format!("task `{}`", spec.id))
                .hint("a file with a score per example can be taken as it is: --values COLUMN"));
        }
    }))
}
