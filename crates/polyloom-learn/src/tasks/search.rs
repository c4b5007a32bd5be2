//! Retrieval by vectors: queries and documents of a task as a model takes them, embedded once each, ranked by cosine.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;
use std::sync::Arc;

use polyloom::MergeError;
use polyloom::evaluate::board::score::answers::{Answers, Columns};
use polyloom::evaluate::board::score::examples::{self, Input, Wanted, is_taken};
use polyloom::evaluate::board::score::search::{documents, queries};
use polyloom::tasks::load::Loader;
use polyloom::tasks::spec::TaskSpec;
use polyloom_core::nn::matmul::{Threads, View, product};
use polyloom_core::rng::Stream;
use serde_json::{Map, json};

use super::forward::features;
use super::head::Feature;
use super::rows::{Reader, Rows, Shown};
use crate::engine::slice;
use crate::error::Result;
use crate::models::Source;
use crate::models::open::Model;

/// Documents of a ranking.
pub const DEPTH: usize = 100;
/// Queries whose scores are in memory at once.
const QUERIES: usize = 64;

/// Queries of a split and the documents that they are asked of.
#[derive(Debug, Clone)]
pub struct Search {
    /// Ids of the queries, in the order of the split.
    pub ids: Vec<String>,
    queries: Vec<Shown>,
    document_ids: Vec<String>,
    documents: Vec<Shown>,
    /// The queries are the documents: none is found for itself.
    own: bool,
}

fn texts(all: impl Iterator<Item = String>) -> Vec<Input> {
    all.map(|text| Input::Text(text, None)).collect()
}

impl Search {
    /// Reads the queries of a split, at most `limit` (spread evenly over it), and all documents.
    ///
    /// # Errors
    /// What [`queries`], [`documents`] and [`Reader::show`] report; a split without queries, no documents.
    pub fn read(
        spec: &TaskSpec,
        loader: &Loader<'_>,
        split: &str,
        reader: &Reader,
        limit: Option<usize>,
    ) -> Result<Self> {
        let all = queries(spec, loader, split)?;
        let n = all.len();
        let taken = (0..n).map(|i| is_taken(i, n, limit));
        let asked: Vec<_> = all
            .into_iter()
            .zip(taken)
            .filter_map(|(q, taken)| taken.then_some(q))
            .collect();
        let found = documents(spec, loader, split)?;
        if asked.is_empty() || found.is_empty() {
            let what = match asked.is_empty() {
                true => format!("task `{}` has no queries in split `{split}`", spec.id),
                false => format!("task `{}` has no documents", spec.id),
            };
            return Err(MergeError::plan("empty", what).into());
        }
        let (ids, queries): (Vec<_>, Vec<_>) = asked.into_iter().map(|q| (q.id, q.text)).unzip();
        let (document_ids, documents): (Vec<_>, Vec<_>) =
            found.into_iter().map(|d| (d.id, d.text)).unzip();
        let show = |all: Vec<String>| reader.show(&texts(all.into_iter()), Feature::Embedding);
        Ok(Self {
            ids,
            queries: show(queries)?,
            document_ids,
            documents: show(documents)?,
            own: !spec.splits.named.contains_key("documents"),
        })
    }

    /// Rankings of the [`DEPTH`] documents nearest to each query by cosine, of equal ones those that stand first in their
    /// file. `model` is where the model lies, and the hash of its content.
    ///
    /// Cost: a pass over all queries and documents, and `queries x documents x width` products.
    ///
    /// # Errors
    /// As [`vectors`].
    pub fn answers(
        &self,
        (path, hash): (&Path, &str),
        model: &Model,
        source: &dyn Source,
        reader: &Reader,
        batch: usize,
    ) -> Result<Answers> {
        let width = model.width();
        let asked = vectors(model, source, reader, &self.queries, batch)?;
        let found = vectors(model, source, reader, &self.documents, batch)?;
        let mut rows = Vec::with_capacity(self.ids.len());
        for (part, ids) in asked.chunks(QUERIES * width).zip(self.ids.chunks(QUERIES)) {
            let scores = product(
                1.0,
                View::new(part, ids.len(), width),
                View::new(&found, self.document_ids.len(), width).t(),
                Threads::All,
            );
            for (id, scores) in ids.iter().zip(scores.chunks_exact(self.document_ids.len())) {
                let kept = nearest(scores, DEPTH, |i| self.own && self.document_ids[i] == *id);
                let list: Vec<_> = kept
                    .into_iter()
                    .map(|i| json!([self.document_ids[i], scores[i]]))
                    .collect();
                let mut row = Map::new();
                row.insert("id".into(), id.clone().into());
                row.insert("ranking".into(), list.into());
                rows.push(row);
            }
        }
        Ok(Answers {
            path: path.to_owned(),
            hash: hash.to_owned(),
            rows,
            columns: vec!["id".into(), "ranking".into()],
            task: None,
            chosen: Columns {
                id: Some("id".into()),
                ..Columns::default()
            },
        })
    }
}

/// Places of the largest scores, in falling order, of equal ones the first; those that `skipped` names are left out.
pub(super) fn nearest(scores: &[f32], most: usize, skipped: impl Fn(usize) -> bool) -> Vec<usize> {
    let mut order: Vec<usize> = (0..scores.len()).filter(|i| !skipped(*i)).collect();
    let by = |a: &usize, b: &usize| scores[*b].total_cmp(&scores[*a]).then(a.cmp(b));
    if order.len() > most {
        order.select_nth_unstable_by(most, by);
        order.truncate(most);
    }
    order.sort_unstable_by(by);
    order
}

/// The vectors of texts at length 1, `[texts, width]`, in their order; the pass runs over batches of like length.
///
/// # Errors
/// As [`features`].
pub fn vectors(
    model: &Model,
    source: &dyn Source,
    reader: &Reader,
    shown: &[Shown],
    batch: usize,
) -> Result<Vec<f32>> {
    let width = model.width();
    let mut order: Vec<usize> = (0..shown.len()).collect();
    order.sort_by_key(|&i| (shown[i].length(), i));
    let mut out = vec![0f32; shown.len() * width];
    for part in order.chunks(batch.max(1)) {
        let of = part.iter().map(|&i| &shown[i]).collect();
        let found = features(model, source, reader, &[(Feature::Embedding, of)])?;
        let values = slice(found[0].data())?;
        for (&i, row) in part.iter().zip(values.chunks_exact(width)) {
            out[i * width..][..width].copy_from_slice(row);
        }
    }
    Ok(out)
}

impl Rows {
    /// The queries of a retrieval task's split alone, as single texts; `taken` as in [`Rows::read_some`].
    ///
    /// # Errors
    /// As [`queries`] and [`Reader::show`].
    pub fn queries(
        spec: &TaskSpec,
        loader: &Loader<'_>,
        split: &str,
        reader: &Reader,
        taken: impl FnOnce(usize) -> Vec<bool>,
    ) -> Result<Self> {
        let all = queries(spec, loader, split)?;
        let taken = taken(all.len());
        let kept = all.into_iter().zip(taken).filter(|(_, taken)| *taken);
        let (ids, asked): (Vec<_>, Vec<_>) = kept.map(|(q, _)| (q.id, q.text)).unzip();
        Ok(Self {
            asked: examples::asked(spec)?,
            wanted: vec![vec![None; ids.len()]],
            ids,
            shown: reader.show(&texts(asked.into_iter()), Feature::Embedding)?,
            weights: None,
        })
    }

    /// Queries of a retrieval task's split, each beside a relevant document that the seed draws; a document with the query's
    /// own text is none. At most `limit`, spread evenly over the queries that have one.
    ///
    /// # Errors
    /// As [`queries`], [`documents`] and [`Reader::show`].
    pub fn pairs(
        spec: &TaskSpec,
        loader: &Loader<'_>,
        split: &str,
        reader: &Reader,
        limit: Option<usize>,
        seed: u64,
    ) -> Result<Self> {
        let found = documents(spec, loader, split)?;
        let number: HashMap<&str, u32> = (0u32..)
            .zip(&found)
            .map(|(i, d)| (d.id.as_str(), i))
            .collect();
        // Queries that are judged alike share a list, and so do their numbers.
        let mut lists: HashMap<usize, Arc<Vec<u32>>> = HashMap::new();
        let mut pairs = Vec::new();
        let asked = queries(spec, loader, split)?;
        let stream = Stream::new(seed, "pairs", 0);
        for (i, query) in (0u64..).zip(&asked) {
            let all = lists
                .entry(Arc::as_ptr(&query.judged) as usize)
                .or_insert_with(|| {
                    let relevant = query.judged.iter().filter(|(_, grade)| *grade > 0);
                    let numbers = relevant.filter_map(|(d, _)| number.get(d.as_str()).copied());
                    Arc::new(numbers.collect::<BTreeSet<u32>>().into_iter().collect())
                });
            let others: Vec<u32> = all
                .iter()
                .copied()
                .filter(|d| found[*d as usize].text != query.text)
                .collect();
            if others.is_empty() {
                continue;
            }
            // The bias of a remainder of 64 bits cannot be seen.
            let document = others[(stream.bits(i) % others.len() as u64) as usize];
            pairs.push((query, document, all.clone()));
        }
        let n = pairs.len();
        let mut rows = Self {
            asked: examples::asked(spec)?,
            ids: Vec::new(),
            shown: Vec::new(),
            wanted: vec![Vec::new()],
            weights: None,
        };
        let mut inputs = Vec::new();
        for (i, (query, document, all)) in pairs.into_iter().enumerate() {
            if is_taken(i, n, limit) {
                rows.ids.push(query.id.clone());
                let text = found[document as usize].text.clone();
                inputs.push(Input::Text(query.text.clone(), Some(text)));
                rows.wanted[0].push(Some(Wanted::Relevant { document, all }));
            }
        }
        rows.shown = reader.show(&inputs, Feature::Embeddings)?;
        Ok(rows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_come_in_order_and_of_equal_ones_the_first() {
        let scores = [0.1, 0.9, 0.5, 0.9, -1.0];
        assert_eq!(nearest(&scores, 3, |_| false), [1, 3, 2]);
        assert_eq!(nearest(&scores, 9, |i| i == 1), [3, 2, 0, 4]);
        assert_eq!(nearest(&scores, 1, |_| false), [1]);
    }
}
