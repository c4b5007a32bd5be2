//! What a prediction says, read from its row.

use serde_json::Value;

use super::answers::{number, plain, unpacked};
use super::cells::{
    among, chosen, labels_of, largest, list, long, marks, numbers, ranked, shown, spans, truthy,
};
use super::extract::Extract;
use super::goal::Goal;
use super::graphs::graph;
use super::layout::Layout;
use super::maps::Map;
use super::shown::tools;
use crate::error::{MergeError, Result};
use crate::evaluate::metric::multiple_choice::softmax;
use crate::evaluate::metric::skill_mix::Marks;
use crate::evaluate::metric::span::Span;
use crate::evaluate::metric::tool_graph::ToolGraph;
use crate::tasks::spec::TaskType;

/// Cells of a row of predictions.
type Row = serde_json::Map<String, Value>;

/// What was predicted for one example.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Given {
    /// As people read it.
    pub shown: String,
    /// A class, a choice or a cluster; one beyond the last for an answer that is none of them.
    pub class: Option<u32>,
    /// A score per class or choice.
    pub scores: Option<Vec<f64>>,
    /// Whether the scores are log-likelihoods.
    pub loglik: bool,
    /// Log-likelihoods of the choices without the question.
    pub premise: Option<Vec<f64>>,
    /// A number; of two classes the score of the last.
    pub number: Option<f64>,
    pub set: Option<Vec<u32>>,
    /// Texts: one, or several attempts.
    pub texts: Vec<String>,
    /// Whether the attempts passed, where the file says so.
    pub passed: Option<Vec<bool>>,
    pub spans: Option<Vec<Span>>,
    pub tags: Option<Vec<String>>,
    pub ranking: Option<Vec<(String, f64)>>,
    /// The ranking before an instruction changed.
    pub before: Option<Vec<(String, f64)>>,
    /// Tokens of each choice.
    pub tokens: Option<Vec<f64>>,
    /// A value per pixel.
    pub map: Option<Map>,
    /// Marks of a grader.
    pub marks: Option<Marks>,
    /// Numbers from which clusters are made.
    pub embedding: Option<Vec<f64>>,
    /// Tools and links.
    pub graph: Option<ToolGraph>,
}

impl Given {
    /// Probabilities of the classes, where scores are.
    pub fn probabilities(&self) -> Option<Vec<f64>> {
        let scores = self.scores.as_ref()?;
        if self.loglik {
            return softmax(scores).ok();
        }
        Some(scores.clone())
    }
}

impl Layout {
    /// Reads rows (several only for attempts and rankings in long form); `None` where they say nothing.
    pub fn read(
        &self,
        goal: &Goal,
        rows: &[&Row],
        choices: Option<&[String]>,
        extract: &Extract,
        at: &dyn Fn() -> String,
    ) -> Result<Option<Given>> {
        let Some(row) = rows.first() else {
            return Ok(None);
        };
        let bad = |what: String| MergeError::plan("bad-prediction", what).at(at());
        let mut given = Given::default();
        let cell = |name: &Option<String>| {
            let value = name.as_ref().and_then(|n| row.get(n));
            value.filter(|v| {
                !v.is_null() && v.as_str().is_none_or(|t| self.text || !t.trim().is_empty())
            })
        };
        let prediction = cell(&self.prediction);
        let width = choices.map_or(goal.classes.len(), <[String]>::len);
        if !self.scores.is_empty() {
            let read = |c: &String| {
                let value = row.get(c).unwrap_or(&Value::Null);
                number(value, true)
                    .ok_or_else(|| bad(format!("column `{c}`: `{}` is no number", plain(value))))
            };
            given.scores = Some(self.scores.iter().map(read).collect::<Result<_>>()?);
        } else if let Some(value) = cell(&self.list).filter(|_| goal.kind != TaskType::Perplexity) {
            given.scores = Some(list(value, goal, width).map_err(&bad)?);
            given.loglik = self.loglik;
        }
        if let Some(value) = cell(&self.tokens) {
            given.tokens = Some(list(value, goal, width).map_err(&bad)?);
        }
        if let Some(value) = cell(&self.premise) {
            given.premise = Some(list(value, goal, width).map_err(&bad)?);
        }
        match goal.kind {
            TaskType::Clustering => match (prediction, cell(&self.embedding)) {
                (Some(value), _) => given.shown = plain(value),
                (None, Some(value)) => {
                    given.embedding = Some(numbers(value).map_err(&bad)?);
                    given.shown = "embedding".into();
                }
                (None, None) => return Ok(None),
            },
            TaskType::Classification | TaskType::PairClassification => {
                if let Some(value) = cell(&self.number) {
                    let x = number(value, true);
                    given.number = Some(x.ok_or_else(|| {
                        bad(format!("the score `{}` is no number", plain(value)))
                    })?);
                }
                if let Some(value) = prediction {
                    given.class = Some(self.class(goal, value, extract).map_err(&bad)?);
                    given.shown = shown(goal, given.class, value);
                }
                Self::complete(goal, &mut given);
                if given.class.is_none() && given.scores.is_none() && given.number.is_none() {
                    return Ok(None);
                }
                if given.shown.is_empty() && given.class.is_none() {
                    given.shown = given.number.map(|x| x.to_string()).unwrap_or_default();
                }
            }
            TaskType::Multilabel => {
                let list = match (prediction, &given.scores) {
                    (Some(value), _) => labels_of(value),
                    // Labels whose score passes one half.
                    (None, Some(scores)) => {
                        let over = scores.iter().enumerate().filter(|(_, s)| **s > 0.5);
                        over.map(|(i, _)| Value::from(goal.classes[i].clone()))
                            .collect()
                    }
                    // An empty cell is an empty set where the column is there.
                    (None, None) if self.prediction.is_some() => Vec::new(),
                    (None, None) => return Ok(None),
                };
                let mut set = Vec::new();
                for label in &list {
                    let class = goal.class(label);
                    set.push(class.ok_or_else(|| unknown(goal, label, at))?);
                }
                set.sort_unstable();
                set.dedup();
                let names: Vec<String> = set.iter().map(|c| goal.class_name(*c)).collect();
                given.shown = names.join("|");
                given.set = Some(set);
            }
            TaskType::Regression | TaskType::Sts | TaskType::Forecasting | TaskType::Survival => {
                let Some(value) = prediction.or(cell(&self.number)) else {
                    return Ok(None);
                };
                let parsed = match value {
                    Value::String(text) if self.text => {
                        number(&Value::from(extract.read(text)), false)
                    }
                    value => number(value, false),
                };
                given.number =
                    Some(parsed.ok_or_else(|| bad(format!("`{}` is no number", plain(value))))?);
                given.shown = plain(value);
            }
            TaskType::Generation => {
                for row in rows {
                    let value = self
                        .prediction
                        .as_ref()
                        .and_then(|n| row.get(n))
                        .unwrap_or(&Value::Null);
                    match unpacked(value) {
                        Value::Array(list) => given
                            .texts
                            .extend(list.iter().map(|v| extract.read(&plain(v)))),
                        _ => given.texts.push(extract.read(&plain(value))),
                    }
                }
                if let Some(column) = &self.passed {
                    let passed = rows
                        .iter()
                        .flat_map(|r| labels_of(r.get(column).unwrap_or(&Value::Null)));
                    let passed: Vec<bool> = passed.map(|v| truthy(&v)).collect();
                    given.passed = (passed.len() == given.texts.len()).then_some(passed);
                }
                given.marks = marks(row).map_err(&bad)?;
                given.shown = given.texts.join("\n---\n");
            }
            TaskType::MultipleChoice => {
                let choices = choices.unwrap_or_default();
                if let Some(value) = prediction {
                    let text = match self.text {
                        true => extract.read(&plain(value)),
                        false => plain(value),
                    };
                    given.class = Some(chosen(&text, choices));
                }
                if given.class.is_none() && given.scores.is_none() {
                    return Ok(None);
                }
                if given.class.is_none() {
                    given.class = given.scores.as_ref().map(|s| largest(s));
                }
                let class = given.class.and_then(|c| choices.get(c as usize));
                given.shown = class.cloned().or(prediction.map(plain)).unwrap_or_default();
            }
            TaskType::TokenClassification => {
                let Some(value) = prediction else {
                    return Ok(None);
                };
                let tags: Vec<String> = labels_of(value)
                    .iter()
                    .map(|v| {
                        let named = v
                            .as_u64()
                            .and_then(|i| goal.classes.get(usize::try_from(i).ok()?));
                        named.cloned().unwrap_or_else(|| plain(v))
                    })
                    .collect();
                given.shown = tags.join(" ");
                given.tags = Some(tags);
            }
            TaskType::Span => {
                let value = prediction.map(unpacked).unwrap_or(Value::Null);
                let found = spans(&value, "").map_err(&bad)?;
                let words: Vec<String> = found
                    .iter()
                    .map(|s| format!("{} {}-{}", s.label, s.start, s.end))
                    .collect();
                given.shown = words.join(", ");
                given.spans = Some(found);
            }
            TaskType::Retrieval | TaskType::Reranking => {
                let read = |value: &Value| ranked(&unpacked(value)).map_err(&bad);
                let ranking = match (prediction, given.scores.take(), choices) {
                    (Some(value), ..) => read(value)?,
                    (None, Some(scores), Some(candidates)) => {
                        candidates.iter().cloned().zip(scores).collect()
                    }
                    _ => long(rows, at)?,
                };
                let ranking = match choices {
                    Some(candidates) => among(ranking, candidates).map_err(&bad)?,
                    None => ranking,
                };
                given.before = cell(&self.before).map(read).transpose()?;
                let first: Vec<&str> = ranking.iter().take(10).map(|(d, _)| &**d).collect();
                given.shown = first.join(" ");
                given.ranking = Some(ranking);
            }
            TaskType::Perplexity => {
                let Some(value) = cell(&self.list).or(cell(&self.number)).or(prediction) else {
                    return Ok(None);
                };
                let value = unpacked(value);
                let one = value.as_array().and_then(|a| a.first()).unwrap_or(&value);
                given.number = Some(
                    number(one, false)
                        .ok_or_else(|| bad(format!("`{}` is no number", plain(one))))?,
                );
                given.shown = plain(one);
            }
            TaskType::ToolGraph => {
                let Some(value) = prediction else {
                    return Ok(None);
                };
                let value = match value {
                    Value::String(said) if self.text => Value::from(extract.read(said)),
                    other => other.clone(),
                };
                // An output that is no graph names no tool.
                let graph = match graph(&value) {
                    Ok(graph) => graph,
                    Err(_) if self.text => ToolGraph::default(),
                    Err(error) => return Err(bad(error)),
                };
                given.shown = tools(&graph);
                given.graph = Some(graph);
            }
            TaskType::Dense => {
                let Some(value) = prediction else {
                    return Ok(None);
                };
                given.map = Some(Map::of_json(&unpacked(value)).map_err(&bad)?);
                given.shown = "map".into();
            }
        }
        Ok(Some(given))
    }

    /// The class that an answer names. In free text an unknown answer is wrong; in a column of labels it is a mistake of
    /// the file.
    fn class(
        &self,
        goal: &Goal,
        value: &Value,
        extract: &Extract,
    ) -> std::result::Result<u32, String> {
        let none = u32::try_from(goal.classes.len()).unwrap_or(u32::MAX);
        if self.text {
            let answer = extract.read(&plain(value));
            let bare = answer.trim().trim_end_matches('.');
            return Ok(goal.class(&Value::from(bare)).unwrap_or(none));
        }
        match goal.class(value) {
            Some(class) => Ok(class),
            // Without a list of names any label may be a class.
            None if goal.discovered => Ok(none),
            None => Err(known(goal, value)),
        }
    }

    /// Class and score of the last class from scores, and the other way round for two classes.
    fn complete(goal: &Goal, given: &mut Given) {
        let two = goal.classes.len() == 2;
        if given.class.is_none()
            && let Some(scores) = &given.scores
        {
            given.class = Some(largest(scores));
            given.shown = goal.class_name(largest(scores));
        }
        if let (Some(x), None, true) = (given.number, &given.scores, two)
            && (0.0..=1.0).contains(&x)
        {
            given.scores = Some(vec![1.0 - x, x]);
            if given.class.is_none() {
                let class = u32::from(x > 0.5);
                given.class = Some(class);
                given.shown = goal.class_name(class);
            }
        }
        if given.number.is_none() && two {
            given.number = given.scores.as_ref().map(|s| s[1]);
        }
    }
}

fn known(goal: &Goal, value: &Value) -> String {
    let names: Vec<&str> = goal.classes.iter().take(8).map(|n| &**n).collect();
    let dots = if goal.classes.len() > 8 { ", ..." } else { "" };
    format!(
        "`{}` is no class of the task; classes: {}{dots}",
        plain(value),
        names.join(", ")
    )
}

fn unknown(goal: &Goal, value: &Value, at: &dyn Fn() -> String) -> MergeError {
    MergeError::plan("bad-prediction", known(goal, value)).at(at())
}
