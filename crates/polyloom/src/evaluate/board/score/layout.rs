//! Which columns of a file say what of a goal.

use super::answers::Answers;
use super::goal::Goal;
use crate::error::Result;
use crate::tasks::spec::TaskType;

/// The columns that a goal is read from.
#[derive(Debug, Clone, Default)]
pub(crate) struct Layout {
    pub prediction: Option<String>,
    /// `prediction` is free text, from which an answer is read.
    pub text: bool,
    /// One column per class.
    pub(super) scores: Vec<String>,
    /// A list or an object of scores, or of log-likelihoods.
    pub(super) list: Option<String>,
    pub(super) loglik: bool,
    pub(super) premise: Option<String>,
    /// One number.
    pub number: Option<String>,
    pub(super) passed: Option<String>,
    pub(super) before: Option<String>,
    pub(super) tokens: Option<String>,
    pub(super) embedding: Option<String>,
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
                TaskType::Retrieval | TaskType::Reranking => &["ranking"],
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
            before: first(&["ranking_before"]),
            tokens: first(&["tokens"]),
            embedding: first(&["embedding"]),
        })
    }

    /// Whether nothing of a row says anything of the goal.
    pub fn is_empty(&self) -> bool {
        self.prediction.is_none()
            && self.scores.is_empty()
            && self.list.is_none()
            && self.number.is_none()
            && self.embedding.is_none()
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
            TaskType::Reranking => "`scores` (a list), `ranking`, or `document` and `score`".into(),
            TaskType::Generation => "`output` or `prediction`".into(),
            TaskType::MultipleChoice => "`prediction`, `output` or `loglik` (a list)".into(),
            TaskType::Perplexity => "`loglik`".into(),
            TaskType::Clustering => "`cluster`, `prediction` or `embedding` (a list)".into(),
            _ => format!("`prediction{suffix}`"),
        }
    }
}
