//! What is relevant for a query: by a rule over the rows, or from a file of judgements.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use super::answers::{number, plain};
use super::truth::Truth;
use crate::error::{MergeError, Result};
use crate::tasks::data;
use crate::tasks::data::Table;
use crate::tasks::load::Loader;
use crate::tasks::spec::{Qrels, TaskSpec};

/// The judged documents of every query.
pub(super) struct Judgements {
    by_value: BTreeMap<String, Arc<Vec<(String, i64)>>>,
    /// The column whose value queries share with relevant documents; `None` for a file of judgements, by query id.
    same: Option<String>,
    /// Queries are documents too.
    own: bool,
}

impl Judgements {
    pub(super) fn read(spec: &TaskSpec, loader: &Loader<'_>, split: &str) -> Result<Self> {
        let mut lists: BTreeMap<String, Vec<(String, i64)>> = BTreeMap::new();
        match &spec.qrels {
            None => {
                let what = format!(
                    "task `{}` has no `qrels`: what is relevant is unknown",
                    spec.id
                );
                return Err(MergeError::plan("no-qrels", what).hint(
                    "qrels = { same = \"label\" }, or a file of `query document relevance`",
                ));
            }
            Some(Qrels::Rule(rule)) => {
                let documents = spec.splits.named.contains_key("documents");
                let from = if documents { "documents" } else { split };
                let column = loader.column(&rule.same).to_owned();
                let mut number_of_row = 0u64;
                loader.rows(from, &mut |table| {
                    for row in 0..table.rows() {
                        let id = match &*spec.fields.id {
                            "" => number_of_row.to_string(),
                            column => plain(&table.at(row, column)),
                        };
                        number_of_row += 1;
                        lists
                            .entry(plain(&table.at(row, &column)))
                            .or_default()
                            .push((id, 1));
                    }
                    Ok(())
                })?;
                return Ok(Self {
                    by_value: shared(lists),
                    same: Some(column),
                    own: !documents,
                });
            }
            Some(Qrels::File(name)) => {
                let path = loader.folder().join(name);
                let bad = |what: String| {
                    MergeError::plan("bad-qrels", what).at(path.display().to_string())
                };
                let mut add = |query: String, document: String, grade: Option<f64>| -> Result<()> {
                    let grade = grade
                        .ok_or_else(|| bad(format!("a relevance of `{query}` is no number")))?;
                    lists
                        .entry(query)
                        .or_default()
                        .push((document, grade as i64));
                    Ok(())
                };
                if let Some(kind) = data::kind_of(&path) {
                    data::read(&path, kind, &data::Limits::default(), &mut |table| {
                        for row in 0..table.rows() {
                            let find = |names: &[&str]| {
                                names
                                    .iter()
                                    .map(|n| table.at(row, n))
                                    .find(|v| !v.is_null())
                            };
                            let query = find(&["query", "query-id", "query_id", "qid"]);
                            let document = find(&[
                                "document",
                                "corpus-id",
                                "corpus_id",
                                "document_id",
                                "docid",
                            ]);
                            let grade = find(&["relevance", "score", "rel"]);
                            let (Some(query), Some(document), Some(grade)) =
                                (query, document, grade)
                            else {
                                return Err(bad(
                                    "needs the columns query, document, relevance".into()
                                ));
                            };
                            add(plain(&query), plain(&document), number(&grade, false))?;
                        }
                        Ok(())
                    })?;
                } else {
                    let text = std::fs::read_to_string(&path)
                        .map_err(|e| polyloom_core::Error::io(&path, "read", e))?;
                    for line in text.lines().filter(|l| !l.trim().is_empty()) {
                        let words: Vec<&str> = line.split_whitespace().collect();
                        match words[..] {
                            [q, d, g] | [q, _, d, g] => add(q.into(), d.into(), g.parse().ok())?,
                            _ => {
                                return Err(bad(format!(
                                    "`{line}` is not `query document relevance`"
                                )));
                            }
                        }
                    }
                }
            }
        }
        Ok(Self {
            by_value: shared(lists),
            same: None,
            own: false,
        })
    }

    pub(super) fn of(&self, id: &str, table: &Table, row: usize) -> Truth {
        let key = match &self.same {
            Some(column) => plain(&table.at(row, column)),
            None => id.to_owned(),
        };
        let list = self.by_value.get(&key).cloned().unwrap_or_default();
        Truth::Judged(list, self.own.then(|| id.to_owned()))
    }
}

fn shared(
    lists: BTreeMap<String, Vec<(String, i64)>>,
) -> BTreeMap<String, Arc<Vec<(String, i64)>>> {
    lists.into_iter().map(|(k, v)| (k, Arc::new(v))).collect()
}

/// The candidates of a query with their grades: those of a list of judgements, else grades in the order of the
/// candidates (`[1, 0, 0]`), else the relevant ones by name. A candidate without a judgement is not relevant.
pub(super) fn candidates(
    documents: &Value,
    target: &Value,
    judged: Option<Truth>,
) -> std::result::Result<Truth, String> {
    let documents: Vec<String> = match documents {
        Value::Array(list) => list.iter().map(plain).collect(),
        Value::Null => Vec::new(),
        other => return Err(format!("the candidates `{}` are no list", plain(other))),
    };
    if let Some(Truth::Judged(list, own)) = judged {
        if documents.is_empty() {
            return Ok(Truth::Judged(list, own));
        }
        let grade = |d: &String| list.iter().find(|(j, _)| j == d).map_or(0, |(_, g)| *g);
        let graded = documents.iter().map(|d| (d.clone(), grade(d)));
        return Ok(Truth::Judged(Arc::new(graded.collect()), None));
    }
    let Value::Array(target) = target else {
        return Err(format!("the relevance `{}` is no list", plain(target)));
    };
    let by_name = |d: &String| i64::from(target.iter().any(|t| plain(t) == *d));
    let named = target.iter().all(|t| documents.contains(&plain(t)));
    let grades: Vec<i64> = if named {
        documents.iter().map(by_name).collect()
    } else {
        let read = |t: &Value| number(t, false).map(|g| g as i64);
        let grades: Option<Vec<i64>> = target.iter().map(read).collect();
        let grades = grades.ok_or("the relevance names a text that is no candidate")?;
        if grades.len() != documents.len() {
            let (n, m) = (grades.len(), documents.len());
            return Err(format!("{n} grades for {m} candidates"));
        }
        grades
    };
    let both = documents.into_iter().zip(grades);
    Ok(Truth::Judged(Arc::new(both.collect()), None))
}
