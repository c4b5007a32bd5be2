//! The examples of a task's split, with what is right.

use std::collections::HashSet;
use std::sync::Arc;

use serde_json::Value;

use super::answers::{number, plain, sha256, unpacked};
use super::cells::{labels_of, spans};
use super::goal::{Goal, close, goals};
use super::graphs::graph;
use super::judged::{Judgements, candidates};
use super::maps::{Map, Pixels};
use crate::error::{MergeError, Result};
use crate::evaluate::metric::registry;
use crate::evaluate::metric::span::Span;
use crate::evaluate::metric::tool_graph::ToolGraph;
use crate::tasks::data::Table;
use crate::tasks::data::table::{Cell, is_absent_number, parse_number};
use crate::tasks::hash::canonical;
use crate::tasks::load::Loader;
use crate::tasks::prompt::Renderer;
use crate::tasks::spec::{GroupAs, TaskSpec, TaskType};

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
    /// Values of the pixels in their own unit, and by column the pixels that masks keep.
    Map {
        values: Vec<f32>,
        masks: Vec<(String, Vec<bool>)>,
    },
    /// Tools and links.
    Graph(ToolGraph),
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

/// The examples of a split.
#[derive(Debug, Clone)]
pub(crate) struct Questions {
    pub goals: Vec<Goal>,
    pub examples: Vec<Example>,
    /// The column of ids; empty where rows are counted from 0.
    pub id: String,
}

/// Told table, row and what is right; whether the row is wanted.
pub(crate) type Take<'a> = &'a mut dyn FnMut(&Table, usize, &[Option<Truth>]) -> Result<bool>;

/// Reads a split.
pub(crate) fn read(spec: &TaskSpec, loader: &Loader<'_>, split: &str) -> Result<Questions> {
    read_with(spec, loader, split, &mut |_, _, _| Ok(true))
}

/// Reads a split and shows each row that becomes an example, and leaves out those that are not wanted.
pub(crate) fn read_with(
    spec: &TaskSpec,
    loader: &Loader<'_>,
    split: &str,
    take: Take<'_>,
) -> Result<Questions> {
    let mut goals = goals(spec)?;
    let judged = match spec.kind {
        Some(TaskType::Retrieval) => Some(Judgements::read(spec, loader, split)?),
        Some(TaskType::Reranking) if spec.qrels.is_some() => {
            Some(Judgements::read(spec, loader, split)?)
        }
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
            if !take(&table, row, &truths)? {
                continue;
            }
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
            | TaskType::Reranking
            | TaskType::Dense
            | TaskType::Span
            | TaskType::Survival
            | TaskType::Perplexity
            | TaskType::MultipleChoice
            | TaskType::Generation
    );
    if needs_target && (target.is_null() || target.as_str().is_some_and(|t| t.trim().is_empty())) {
        return Ok(None);
    }
    // In a column of numbers, `NA` and the like are no label.
    let of_numbers = matches!(goal.kind, TaskType::Regression | TaskType::Forecasting)
        || goal.kind == TaskType::Classification
            && goal.classes.iter().all(|c| parse_number(c).is_some());
    if spec.table.is_some() && of_numbers && target.as_str().is_some_and(is_absent_number) {
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
            // A target of a table of sessions: the item of the row.
            None if !goal.name.is_empty() && !target.is_null() => {
                Truth::Judged(Arc::new(vec![(plain(&target), 1)]), None)
            }
            None => return Ok(None),
        },
        TaskType::Reranking => {
            let documents = unpacked(&table.at(row, &spec.fields.document));
            let judged = about.judged.map(|j| j.of(id, table, row));
            candidates(&documents, &target, judged).map_err(bad)?
        }
        TaskType::ToolGraph => Truth::Graph(graph(&target).map_err(bad)?),
        TaskType::Dense => return map(goal, table, row).map_err(bad),
    }))
}

/// The map of a row, with those that its metrics take as masks; `None` where the row lacks the map or a mask.
fn map(goal: &Goal, table: &Table, row: usize) -> std::result::Result<Option<Truth>, String> {
    let names = goal.metrics.iter().filter_map(|m| registry::find(&m.name));
    let Some(kind) = names.clone().find_map(|m| Pixels::of(m.name)) else {
        return Err("the task has no metric of maps".into());
    };
    if let Some(other) = names
        .filter_map(|m| Pixels::of(m.name))
        .find(|k| *k != kind)
    {
        return Err(format!(
            "metrics of one map read {kind:?} and {other:?}: make them several targets"
        ));
    }
    let read = |column: &str| {
        let cell = table.column(column).map_or(Cell::Null, |c| c.cell(row));
        Map::of_cell(cell).map_err(|e| format!("column `{column}`: {e}"))
    };
    let Some(map) = read(&goal.column)? else {
        return Ok(None);
    };
    let mut masks: Vec<(String, Vec<bool>)> = Vec::new();
    for name in goal
        .metrics
        .iter()
        .filter_map(|m| m.params.get("mask")?.as_str())
    {
        if masks.iter().any(|(known, _)| known == name) {
            continue;
        }
        if table.column(name).is_none() {
            return Err(format!(
                "there is no column `{name}`, which is a mask of its metrics"
            ));
        }
        // Without its mask nothing says which pixels the target is about.
        let Some(mask) = read(name)? else {
            return Ok(None);
        };
        let mask = mask.values(Pixels::Classes, None)?;
        masks.push((name.to_owned(), mask.iter().map(|x| *x != 0.0).collect()));
    }
    let values = map.values(kind, masks.first().map(|(_, m)| m.len()))?;
    Ok(Some(Truth::Map { values, masks }))
}
