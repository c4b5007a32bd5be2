//! What a prediction says, read from its row.

use serde_json::{Map, Value};

use super::answers::{Answers, number, plain, unpacked};
use super::cells::{chosen, labels_of, largest, list, long, ranked, shown, spans, truthy};
use super::extract::Extract;
use super::truth::Goal;
use crate::error::{MergeError, Result};
use crate::evaluate::metric::multiple_choice::softmax;
use crate::evaluate::metric::span::Span;
use crate::tasks::spec::TaskType;

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

/// The columns that a goal is read from.
#[derive(Debug, Clone, Default)]
pub(crate) struct Layout {
    pub prediction: Option<String>,
    /// `prediction` is free text, from which an answer is read.
    pub text: bool,
    /// One column per class.
    scores: Vec<String>,
    /// A list or an object of scores, or of log-likelihoods.
    list: Option<String>,
    loglik: bool,
    premise: Option<String>,
    /// One number.
    pub number: Option<String>,
    passed: Option<String>,
}

const PREDICTION: &[&str] = &["prediction", "pred", "y_pred", "predicted"];

impl Layout {
    /// Finds the columns of a goal. `alone`: the file's rows are about this goal only, so plain names mean it.
    pub fn find(goal: &Goal, answers: &Answers, alone: bool) -> Result<Self> {
        let mut names: Vec<String> = Vec::new();
        let name = &goal.name;
        if !name.is_empty() {
            names.extend(
                PREDICTION
                    .iter()
                    .flat_map(|p| [format!("{p}_{name}"), format!("{name}_{p}")]),
            );
            if name != &goal.column || !answers.has(&goal.column) || !alone {
                names.push(name.clone());
            }
        }
        let stem = |s: &str| -> Vec<String> {
            let mut all = Vec::new();
            if !name.is_empty() {
                all.extend([format!("{s}_{name}"), format!("{name}_{s}")]);
            }
            if alone {
                all.push(s.to_owned());
            }
            all
        };
        let first = |names: &[&str]| -> Option<String> {
            let mut all = names.iter().flat_map(|n| stem(n));
            all.find(|n| answers.has(n))
        };
        if alone {
            let own: &[&str] = match goal.kind {
                TaskType::Span => &["spans"],
                TaskType::TokenClassification => &["tags"],
                TaskType::Retrieval => &["ranking"],
                TaskType::Clustering => &["cluster"],
                TaskType::Multilabel => &["labels"],
                _ => &[],
            };
            names.extend(own.iter().map(|n| (*n).to_owned()));
            names.extend(PREDICTION.iter().map(|n| (*n).to_owned()));
        }
        let chosen = answers.chosen.prediction.clone();
        let mut prediction = chosen.or_else(|| names.iter().find(|n| answers.has(n)).cloned());
        let mut text = goal.kind == TaskType::Generation;
        if prediction.is_none() && alone {
            let output = if answers.has("outputs") {
                "outputs"
            } else {
                "output"
            };
            if answers.has(output) {
                (prediction, text) = (Some(output.into()), true);
            } else if answers.has("label") && goal.kind != TaskType::Generation {
                prediction = Some("label".into());
            }
        }
        let classes = &goal.classes;
        let mut scores = Vec::new();
        let prefixes = ["score", "prob", "proba", "probability"];
        let kinds = [
            TaskType::Classification,
            TaskType::PairClassification,
            TaskType::Multilabel,
        ];
        if kinds.contains(&goal.kind) && classes.len() > 1 {
            for stem in prefixes.iter().flat_map(|p| stem(p)) {
                let by = |of: &dyn Fn(usize) -> String| -> Vec<String> {
                    (0..classes.len())
                        .map(|i| format!("{stem}_{}", of(i)))
                        .collect()
                };
                let sets = [by(&|i| classes[i].clone()), by(&|i| i.to_string())];
                if let Some(set) = sets.into_iter().find(|s| s.iter().all(|c| answers.has(c))) {
                    scores = set;
                    break;
                }
            }
        }
        let loglik = first(&["loglik", "logprobs"]);
        let list = first(&["probabilities", "scores", "probs"]);
        let number = first(&["score", "probability", "proba", "prob"]);
        Ok(Self {
            prediction,
            text,
            scores,
            loglik: list.is_none() && loglik.is_some(),
            list: list.or(loglik),
            premise: first(&["loglik_premise"]),
            number,
            passed: first(&["passed", "correct"]),
        })
    }

    /// Whether nothing of a row says anything of the goal.
    pub fn is_empty(&self) -> bool {
        self.prediction.is_none()
            && self.scores.is_empty()
            && self.list.is_none()
            && self.number.is_none()
    }

    /// The names that were looked for, for messages.
    pub fn wanted(goal: &Goal) -> String {
        let suffix = if goal.name.is_empty() {
            String::new()
        } else {
            format!("_{}", goal.name)
        };
        match goal.kind {
            TaskType::Classification | TaskType::PairClassification => {
                format!(
                    "`prediction{suffix}`, `output`, `score{suffix}` or `score{suffix}_<class>`"
                )
            }
            TaskType::Span => "`spans` or `prediction`".into(),
            TaskType::Retrieval => "`ranking`, or `document` and `score`".into(),
            TaskType::Generation => "`output` or `prediction`".into(),
            TaskType::MultipleChoice => "`prediction`, `output` or `loglik` (a list)".into(),
            TaskType::Perplexity => "`loglik`".into(),
            _ => format!("`prediction{suffix}`"),
        }
    }

    /// Reads rows (several only for attempts and rankings in long form); `None` where they say nothing.
    pub fn read(
        &self,
        goal: &Goal,
        rows: &[&Map<String, Value>],
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
        if let Some(value) = cell(&self.premise) {
            given.premise = Some(list(value, goal, width).map_err(&bad)?);
        }
        match goal.kind {
            TaskType::Clustering => {
                let Some(value) = prediction else {
                    return Ok(None);
                };
                given.shown = plain(value);
            }
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
            TaskType::Retrieval => {
                let ranking = match prediction {
                    Some(value) => ranked(&unpacked(value)).map_err(&bad)?,
                    None => long(rows, at)?,
                };
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
            TaskType::Reranking | TaskType::ToolGraph | TaskType::Dense => return Ok(None),
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
