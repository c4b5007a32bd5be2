//! A retrieval task made small: the relevant documents and the hardest others that systems found.
//!
//! As MMTEB shrinks its retrieval tasks (250 documents a query from three systems): per query the documents that stand
//! highest in the rankings of several systems without being relevant, taken from the systems in turn, rank by rank.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::Options;
use super::answers::{Answers, plain};
use super::extract::Extract;
use super::join::Task;
use super::search::DOCUMENTS;
use super::truth::{self, Truth};
use crate::error::{MergeError, Result};
use crate::evaluate::metric::correlation::{coefficient, spearman};
use crate::evaluate::metric::retrieval::Ranked;
use crate::evaluate::sum::mean;
use crate::tasks::load::Loader;
use crate::tasks::slice;
use crate::tasks::spec::{Qrels, SourceKind, Split, TaskSpec, TaskType};

/// How a task is made small.
#[derive(Debug, Clone)]
pub struct Pooling {
    /// The split of the queries.
    pub split: String,
    /// Documents that are not relevant, per query.
    pub negatives: usize,
    /// Queries, drawn by seed; all without it.
    pub queries: Option<usize>,
    /// Seed of that draw.
    pub seed: u64,
}

/// What is kept.
#[derive(Debug, Clone, PartialEq)]
pub struct Pool {
    /// Ids of the queries, in the order of the split.
    pub queries: Vec<String>,
    /// Queries of the split.
    pub queries_before: usize,
    /// Ids of the documents.
    pub documents: BTreeSet<String>,
    /// nDCG at 10 over the kept queries of every system, among all documents and among those that would be kept without
    /// it: by what it chose itself no system could be judged. With one system the second is `NaN`.
    pub scores: Vec<(f64, f64)>,
    /// Spearman's correlation of the two; `NaN` with fewer than two systems.
    pub agreement: f64,
    /// Judgements of the kept queries: query, document, grade.
    judged: Vec<(String, String, i64)>,
    split: String,
}

type Ranking = Vec<(String, f64)>;

/// Chooses what to keep from the rankings of several systems. A query that a system lacks gets nothing from it.
///
/// # Errors
/// A task that is not of type retrieval or whose queries are its documents, no system, no query, what the readers report.
pub fn pool(
    spec: &TaskSpec,
    loader: &Loader<'_>,
    systems: &[Answers],
    how: &Pooling,
) -> Result<Pool> {
    let bad = |what: &str| MergeError::plan("cannot-pool", what).at(format!("task `{}`", spec.id));
    if spec.kind != Some(TaskType::Retrieval) {
        return Err(bad("is not of type retrieval"));
    }
    if !spec.splits.named.contains_key(DOCUMENTS) {
        return Err(bad(
            "its queries are its documents: leaving documents out would leave queries out",
        )
        .hint("name the documents as a split: splits.documents"));
    }
    if systems.is_empty() || how.queries == Some(0) {
        return Err(bad("needs the ranking of at least one system, and a query"));
    }
    let options = Options {
        split: how.split.clone(),
        allow_partial: true,
        ..Options::default()
    };
    let questions = truth::read(spec, loader, &how.split)?;
    let extract = Extract::whole();
    let mut rankings: Vec<Vec<Option<Ranking>>> = Vec::new();
    for answers in systems {
        let task = Task {
            spec,
            loader,
            hash: "",
            answers,
            options: &options,
            extract: &extract,
            questions: &questions,
            place: 0,
        };
        let read = task.read(true)?;
        rankings.push(read.given.into_iter().map(|g| g?.ranking).collect());
    }
    let all = questions.examples.len();
    let mut chosen: Vec<usize> = match how.queries {
        Some(n) if n < all => slice::order(all as u64, Some(how.seed))
            .into_iter()
            .take(n)
            .map(|i| i as usize)
            .collect(),
        _ => (0..all).collect(),
    };
    chosen.sort_unstable();
    let mut found = Pool {
        queries: Vec::new(),
        queries_before: all,
        documents: BTreeSet::new(),
        scores: Vec::new(),
        agreement: f64::NAN,
        judged: Vec::new(),
        split: how.split.clone(),
    };
    for &i in &chosen {
        let example = &questions.examples[i];
        if matches!(example.truths[0], Some(Truth::Judged(..))) {
            found.queries.push(example.id.clone());
        }
    }
    found.documents = kept(&questions, &chosen, &rankings, how.negatives, None)?;
    for system in 0..rankings.len() {
        let others = match rankings.len() {
            1 => None,
            _ => Some(kept(
                &questions,
                &chosen,
                &rankings,
                how.negatives,
                Some(system),
            )?),
        };
        let list = &rankings[system];
        found.scores.push((
            quality(&questions, &chosen, list, None)?,
            match &others {
                Some(others) => quality(&questions, &chosen, list, Some(others))?,
                None => f64::NAN,
            },
        ));
    }
    let (before, after): (Vec<f64>, Vec<f64>) = found.scores.iter().copied().unzip();
    found.agreement = coefficient(spearman(&before, &after));
    for &i in &chosen {
        let example = &questions.examples[i];
        if let Some(Truth::Judged(judged, _)) = &example.truths[0] {
            let kept = judged.iter().filter(|(d, _)| found.documents.contains(d));
            let rows = kept.map(|(d, grade)| (example.id.clone(), d.clone(), *grade));
            found.judged.extend(rows);
        }
    }
    Ok(found)
}

/// A system's documents in order.
fn ordered(ranking: &Ranking, judged: &[(&str, i64)]) -> Result<Ranked> {
    let run: Vec<(&str, f64)> = ranking.iter().map(|(d, s)| (&**d, *s)).collect();
    Ranked::new(&run, judged).map_err(|e| MergeError::plan("bad-prediction", e.to_string()))
}

/// The documents that stand highest without being relevant: of the systems in turn, rank by rank.
fn hardest<'r>(
    lists: impl Iterator<Item = &'r Ranking>,
    relevant: &BTreeSet<&str>,
    most: usize,
) -> Result<BTreeSet<String>> {
    let lists = lists.map(|l| ordered(l, &[])).collect::<Result<Vec<_>>>()?;
    let longest = lists.iter().map(Ranked::retrieved).max().unwrap_or(0);
    let mut found = BTreeSet::new();
    for rank in 0..longest {
        for list in &lists {
            if found.len() == most {
                return Ok(found);
            }
            let document = list.documents().get(rank);
            if let Some(d) = document.filter(|d| !relevant.contains(&***d)) {
                found.insert(d.clone());
            }
        }
    }
    Ok(found)
}

/// The relevant documents of the queries, and the hardest of the others that the systems found but one.
fn kept(
    questions: &truth::Questions,
    chosen: &[usize],
    rankings: &[Vec<Option<Ranking>>],
    negatives: usize,
    without: Option<usize>,
) -> Result<BTreeSet<String>> {
    let mut documents = BTreeSet::new();
    for &i in chosen {
        let Some(Truth::Judged(judged, _)) = &questions.examples[i].truths[0] else {
            continue;
        };
        let relevant = judged.iter().filter(|(_, grade)| *grade > 0);
        let relevant: BTreeSet<&str> = relevant.map(|(d, _)| &**d).collect();
        documents.extend(relevant.iter().map(|d| (*d).to_owned()));
        let lists = rankings.iter().enumerate();
        let lists = lists.filter(|(system, _)| Some(*system) != without);
        let lists = lists.filter_map(|(_, list)| list[i].as_ref());
        documents.extend(hardest(lists, &relevant, negatives)?);
    }
    Ok(documents)
}

/// Mean nDCG at 10 of a system, among all documents or those kept.
fn quality(
    questions: &truth::Questions,
    chosen: &[usize],
    rankings: &[Option<Ranking>],
    kept: Option<&BTreeSet<String>>,
) -> Result<f64> {
    let mut values = Vec::new();
    for &i in chosen {
        let Some(Truth::Judged(judged, _)) = &questions.examples[i].truths[0] else {
            continue;
        };
        let judged: Vec<(&str, i64)> = judged.iter().map(|(d, g)| (&**d, *g)).collect();
        let mut list = rankings[i].clone().unwrap_or_default();
        list.retain(|(d, _)| kept.is_none_or(|k| k.contains(d)));
        values.push(ordered(&list, &judged)?.ndcg(10));
    }
    Ok(mean(values))
}

/// What was written.
#[derive(Debug, Clone, PartialEq)]
pub struct Written {
    /// The spec of the small task, whose data lie in the folder.
    pub spec: TaskSpec,
    /// Documents before.
    pub documents_before: u64,
    /// Documents kept.
    pub documents: u64,
    /// The files.
    pub files: Vec<PathBuf>,
}

/// Writes the rows of the kept queries and documents (`queries.jsonl`, `documents.jsonl`, and `qrels.tsv` where the task
/// has a file of judgements) and gives the spec that reads them: id `<id>/pool`, other splits left out.
///
/// # Errors
/// What the readers report, a folder that cannot be written.
pub fn write(spec: &TaskSpec, loader: &Loader<'_>, pool: &Pool, folder: &Path) -> Result<Written> {
    std::fs::create_dir_all(folder).map_err(|e| polyloom_core::Error::io(folder, "make", e))?;
    let queries: BTreeSet<&str> = pool.queries.iter().map(|q| &**q).collect();
    let id = match &*spec.fields.id {
        "" => ID,
        column => column,
    };
    let rows =
        |split: &str, name: &str, keep: &dyn Fn(&str) -> bool| -> Result<(PathBuf, u64, u64)> {
            let path = folder.join(name);
            let io = |e| polyloom_core::Error::io(&path, "write", e);
            let mut out = BufWriter::new(std::fs::File::create(&path).map_err(io)?);
            let (mut all, mut kept) = (0u64, 0u64);
            loader.rows(split, &mut |table| {
                for i in 0..table.rows() {
                    let key = match &*spec.fields.id {
                        "" => all.to_string(),
                        column => plain(&table.at(i, column)),
                    };
                    all += 1;
                    if keep(&key) {
                        let mut row = table.row(i);
                        row.retain(|name, _| !name.contains("{{"));
                        row.insert(id.to_owned(), key.into());
                        writeln!(out, "{}", Value::Object(row)).map_err(io)?;
                        kept += 1;
                    }
                }
                Ok(())
            })?;
            out.flush().map_err(io)?;
            Ok((path, all, kept))
        };
    let (first, ..) = rows(&pool.split, "queries.jsonl", &|k| queries.contains(k))?;
    let (second, before, after) = rows(DOCUMENTS, "documents.jsonl", &|k| {
        pool.documents.contains(k)
    })?;
    let mut files = vec![first, second];
    let mut small = spec.clone();
    small.id = format!("{}/pool", spec.id);
    small.source.kind = SourceKind::Jsonl;
    small.source.root = ".".into();
    small.source.sha256 = BTreeMap::new();
    small.fields.id = id.to_owned();
    let file = |name: &str| Split {
        file: name.into(),
        ..Split::default()
    };
    small.splits.named.clear();
    small
        .splits
        .named
        .insert(pool.split.clone(), file("queries.jsonl"));
    small
        .splits
        .named
        .insert(DOCUMENTS.into(), file("documents.jsonl"));
    small.splits.fewshot = None;
    if let Some(Qrels::File(_)) = spec.qrels {
        let path = folder.join("qrels.tsv");
        let mut text = String::from("query\tdocument\trelevance\n");
        for (query, document, grade) in &pool.judged {
            text += &format!("{query}\t{document}\t{grade}\n");
        }
        std::fs::write(&path, text).map_err(|e| polyloom_core::Error::io(&path, "write", e))?;
        files.push(path);
        small.qrels = Some(Qrels::File("qrels.tsv".into()));
    }
    Ok(Written {
        spec: small,
        documents_before: before,
        documents: after,
        files,
    })
}

/// The column of ids where the task counts its rows.
const ID: &str = "row_id";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn negatives_come_from_the_systems_in_turn() {
        let list = |names: &[&str]| -> Ranking {
            let n = names.len();
            let scored = names.iter().enumerate();
            scored
                .map(|(i, d)| ((*d).to_owned(), (n - i) as f64))
                .collect()
        };
        let lists = [list(&["a", "b", "c", "d"]), list(&["x", "b", "y"])];
        let relevant = BTreeSet::from(["b", "x"]);
        let take = |most| hardest(lists.iter(), &relevant, most).unwrap();
        let set = |names: &[&str]| {
            names
                .iter()
                .map(|n| (*n).to_owned())
                .collect::<BTreeSet<_>>()
        };
        assert_eq!(take(1), set(&["a"]));
        assert_eq!(take(2), set(&["a", "c"]));
        assert_eq!(take(3), set(&["a", "c", "y"]));
        assert_eq!(take(9), set(&["a", "c", "d", "y"]));
        assert_eq!(take(0), set(&[]));
    }
}
