//! Decoders that a decoder learns from, token by token.

use std::path::Path;

use polyloom::MergeError;
use polyloom_core::nn::softmax;

use super::align::{Vocabulary, align, written};
use super::shelf::Shelf;
use super::{Fuse, blend};
use crate::engine::{Value, slice};
use crate::error::Result;
use crate::models::Source;
use crate::models::decoder::Decoder;
use crate::models::open::{Model, Trunk};
use crate::ops;
use crate::tasks::language::{Line, Sequence, sequence};
use crate::tasks::{Base, System};
use crate::text::Text;
use crate::train::language::scores;
use crate::train::learned::Learned;

/// Entries of a distribution that are kept; the others share the rest.
const KEPT: usize = 10;

/// Sequences of a pass of a source.
const BATCH: usize = 16;

/// A distribution over a vocabulary: its likeliest entries, and what all others share evenly.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Row {
    /// Entries and their probabilities, falling; at most [`KEPT`].
    pub kept: Vec<(u32, f64)>,
    /// Probability of all others together.
    pub rest: f64,
}

impl Row {
    /// The likeliest of some entries with their probabilities (of equals the smaller ids), and what is left of 1. Entries that
    /// stand twice are added up. Nothing where nothing has a probability.
    fn of(mut entries: Vec<(u32, f64)>, rest: f64) -> Option<Self> {
        entries.sort_by_key(|(id, _)| *id);
        entries.dedup_by(|(b, q), (a, p)| {
            if a == b {
                *p += *q;
            }
            a == b
        });
        entries.sort_by(|(a, p), (b, q)| q.total_cmp(p).then(a.cmp(b)));
        let total = rest + entries.iter().map(|(_, p)| p).sum::<f64>();
        if entries.is_empty() || !(total > 0.0 && total.is_finite()) {
            return None;
        }
        let over: f64 = entries.iter().skip(KEPT).map(|(_, p)| p).sum();
        entries.truncate(KEPT);
        Some(Self {
            kept: entries.into_iter().map(|(id, p)| (id, p / total)).collect(),
            rest: (rest + over) / total,
        })
    }

    /// Probability of each entry that is not kept.
    fn other(&self, size: usize) -> f64 {
        self.rest / size.saturating_sub(self.kept.len()).max(1) as f64
    }

    /// `-log` of the probability of an entry.
    fn surprise(&self, id: u32, size: usize) -> f64 {
        let own = self.kept.iter().find(|(k, _)| *k == id);
        -own.map_or(self.other(size), |(_, p)| *p)
            .max(f64::MIN_POSITIVE)
            .ln()
    }

    fn entropy(&self, size: usize) -> f64 {
        let one = |p: f64| if p > 0.0 { -p * p.ln() } else { 0.0 };
        let others = size.saturating_sub(self.kept.len()) as f64;
        self.kept.iter().map(|(_, p)| one(*p)).sum::<f64>() + others * one(self.other(size))
    }

    /// All probabilities, softened by a temperature.
    fn whole(&self, size: usize, temperature: f64) -> Vec<f32> {
        let soft = |p: f64| p.powf(1.0 / temperature);
        let mut all = vec![soft(self.other(size)); size];
        for (id, p) in &self.kept {
            all[*id as usize] = soft(*p);
        }
        let total: f64 = all.iter().sum();
        all.into_iter().map(|p| (p / total) as f32).collect()
    }
}

/// What the sources say of a task's training rows: for each sequence, for each token of it that counts, one distribution;
/// none where the first token of every source stands for it, which nothing foretells. They lie on disk.
pub struct Soft {
    rows: Shelf,
    size: usize,
}

impl Soft {
    /// The loss of scores `[tokens that count, vocabulary]` of drawn sequences; `hard` is the loss on the tokens.
    ///
    /// # Errors
    /// Scores of another shape.
    pub(in crate::train) fn mixed(
        &self,
        fuse: &Fuse,
        hard: Value,
        said: &Value,
        drawn: &[u32],
    ) -> Result<Value> {
        let [lambda, temperature] = fuse.numbers(true);
        let (mut at, mut targets, mut place) = (Vec::new(), Vec::new(), 0u32);
        for sequence in drawn {
            for row in self.rows.rows(*sequence as usize)? {
                if let Some(row) = row {
                    at.push(place);
                    targets.extend(row.whole(self.size, temperature));
                }
                place += 1;
            }
        }
        match at.is_empty() {
            true => ops::scale(&hard, lambda as f32),
            false => {
                let said = ops::rows(said, &at)?;
                blend(lambda, temperature, Some(hard), &said, &targets)
            }
        }
    }
}

/// Asks all sources for the training rows of all tasks.
///
/// # Errors
/// Sources that cannot be opened or are no decoders; a full disk.
pub(super) fn ask(
    fuse: &Fuse,
    model: &Model,
    tasks: &mut [Learned<'_>],
    work: &Path,
) -> Result<()> {
    let own = model.tokens(usize::MAX)?;
    let size = match &model.trunk {
        Trunk::Decoder(decoder) => decoder.config.vocab_size,
        _ => return Err(no_decoder(model)),
    };
    let mut vocabulary = Vocabulary::of(&own, size);
    // By task and source.
    let mut said: Vec<Vec<Shelf>> = tasks.iter().map(|_| Vec::new()).collect();
    for name in &fuse.sources {
        let system = System::find(name, None, None)?;
        let base = Base::open(&system.base, None)?;
        let ready = base.ready(&system)?;
        ready.with(&[], |model, weights| {
            let Trunk::Decoder(decoder) = &model.trunk else {
                return Err(no_decoder(model));
            };
            let text = model.tokens(usize::MAX)?;
            let mut source = Asked {
                decoder,
                weights,
                text: &text,
                own: &own,
                vocabulary: &mut vocabulary,
            };
            for (task, said) in tasks.iter().zip(&mut said) {
                if let Some(spoken) = &task.language {
                    said.push(source.rows(&spoken.lines, &spoken.train, work)?);
                }
            }
            Ok(())
        })?;
    }
    for (task, said) in tasks.iter_mut().zip(said) {
        if let Some(spoken) = &mut task.language {
            let mut rows = Shelf::new(work, spoken.train.len())?;
            for (i, sequence) in spoken.train.iter().enumerate() {
                let sources: Vec<_> = said.iter().map(|s| s.rows(i)).collect::<Result<_>>()?;
                let sources: Vec<&[Option<Row>]> = sources.iter().map(Vec::as_slice).collect();
                rows.put(i, &fused(fuse, &sources, sequence, size))?;
            }
            spoken.soft = Some(Soft { rows, size });
        }
    }
    Ok(())
}

fn no_decoder(model: &Model) -> crate::error::Error {
    MergeError::plan(
        "bad-recipe",
        "is no decoder; language is learned from decoders",
    )
    .at(model.folder.display().to_string())
    .into()
}

/// A source, and the tokens of who learns.
struct Asked<'a> {
    decoder: &'a Decoder,
    weights: &'a dyn Source,
    text: &'a Text,
    own: &'a Text,
    vocabulary: &'a mut Vocabulary,
}

impl Asked<'_> {
    /// What it says of the tokens that count of sequences, in the vocabulary of who learns.
    fn rows(&mut self, lines: &[Line], learned: &[Sequence], work: &Path) -> Result<Shelf> {
        let most = self.decoder.config.max_position_embeddings;
        let mut asked = Vec::with_capacity(learned.len());
        for sequence_of in learned {
            asked.push(sequence(self.text, &lines[sequence_of.line], most)?);
        }
        let mut found = Shelf::new(work, learned.len())?;
        let (mut order, silent): (Vec<usize>, Vec<usize>) =
            (0..learned.len()).partition(|i| asked[*i].counted() > 0);
        for i in silent {
            found.put(i, &vec![None; learned[i].counted()])?;
        }
        order.sort_by_key(|i| asked[*i].ids.len());
        for part in order.chunks(BATCH) {
            let of: Vec<&Sequence> = part.iter().map(|i| &asked[*i]).collect();
            let (said, _) = scores(self.decoder, self.weights, self.text.pad(), &of)?;
            let width = self.decoder.config.vocab_size.max(1);
            let mut said = slice(said.data())?.to_vec();
            softmax::forward(&mut said, width);
            let mut rows = said.chunks_exact(width);
            for (i, sequence) in part.iter().zip(&of) {
                let own: Vec<&[f32]> = rows.by_ref().take(sequence.counted()).collect();
                let line = &lines[learned[*i].line];
                let mut rows = self.carried(line, &learned[*i], sequence, &own)?;
                rows.resize(learned[*i].counted(), None);
                found.put(*i, &rows)?;
            }
        }
        Ok(found)
    }

    /// Distributions of a source's tokens as those of the tokens that stand in their places. Where several stand for one, it
    /// gets the product of what each of them was given (the chain rule), and all other entries share the rest: what the
    /// source would say in their place cannot be read off letters. (FuseLLM's programs take the right token alone there.)
    fn carried(
        &mut self,
        line: &Line,
        learned: &Sequence,
        asked: &Sequence,
        said: &[&[f32]],
    ) -> Result<Vec<Option<Row>>> {
        let whole = |text: &Text| -> Result<(usize, Vec<String>)> {
            let all = sequence(text, line, usize::MAX)?;
            Ok((
                all.ids.len(),
                all.ids.iter().map(|id| written(text, *id)).collect(),
            ))
        };
        let ((n, targets), (m, sources)) = (whole(self.own)?, whole(self.text)?);
        // Of a prompt with its answer the beginning is cut, of a text the end.
        let cut = |all: usize, part: &Sequence| match line.given.is_empty() {
            true => 0,
            false => all - part.ids.len(),
        };
        let (skipped, missed) = (cut(n, learned), cut(m, asked));
        let places = align(&targets, &sources);
        let mut found = Vec::with_capacity(learned.counted());
        let foretold = |at: &usize| {
            let place = at.checked_sub(missed)?;
            let row = said.get(place.checked_sub(asked.from)?)?;
            Some((*row, asked.ids[place]))
        };
        for place in learned.from..learned.ids.len() {
            let rows: Option<Vec<_>> = places[place + skipped].iter().map(foretold).collect();
            found.push(match rows.as_deref() {
                None | Some([]) => None,
                Some([(row, _)]) => self.row(row),
                Some(span) => {
                    let p = span.iter().map(|(row, id)| f64::from(row[*id as usize]));
                    let p: f64 = p.product();
                    Row::of(vec![(learned.ids[place], p)], 1.0 - p)
                }
            });
        }
        Ok(found)
    }

    /// The likeliest entries of a source's probabilities under the names of the other vocabulary.
    fn row(&mut self, p: &[f32]) -> Option<Row> {
        let all = p.iter().map(|p| f64::from(*p));
        let top = Row::of((0u32..).zip(all).collect(), 0.0)?;
        let named = top.kept.into_iter().filter_map(|(id, p)| {
            let entry = written(self.text, id);
            Some((self.vocabulary.find(&entry)?, p))
        });
        Row::of(named.collect(), top.rest)
    }
}

/// The sources' distributions of a sequence made one.
fn fused(
    fuse: &Fuse,
    sources: &[&[Option<Row>]],
    sequence: &Sequence,
    size: usize,
) -> Vec<Option<Row>> {
    let gold = &sequence.ids[sequence.from..];
    let cost = |rows: &&[Option<Row>]| {
        let known = rows
            .iter()
            .zip(gold)
            .filter_map(|(r, id)| Some((r.as_ref()?, id)));
        let costs: Vec<f64> = known
            .map(|(row, id)| match fuse.labels {
                true => row.surprise(*id, size),
                false => row.entropy(size),
            })
            .collect();
        match costs.is_empty() {
            true => f64::INFINITY,
            false => costs.iter().sum::<f64>() / costs.len() as f64,
        }
    };
    let costs: Vec<f64> = sources.iter().map(cost).collect();
    let weights = fuse.rule.weights(&costs);
    let of_place = |place: usize| {
        let (mut entries, mut rest) = (Vec::new(), 0.0);
        // What is shared evenly goes to every entry that another source keeps, too.
        let rows = sources.iter().zip(&weights).filter(|(_, w)| **w > 0.0);
        let rows: Vec<(&Row, f64)> = rows
            .filter_map(|(s, w)| Some((s.get(place)?.as_ref()?, *w)))
            .collect();
        let mut kept: Vec<u32> = rows
            .iter()
            .flat_map(|(r, _)| r.kept.iter().map(|k| k.0))
            .collect();
        kept.sort_unstable();
        kept.dedup();
        for (row, weight) in rows {
            for id in &kept {
                entries.push((*id, weight * (-row.surprise(*id, size)).exp()));
            }
            rest += weight * row.other(size) * size.saturating_sub(kept.len()) as f64;
        }
        Row::of(entries, rest)
    };
    (0..gold.len()).map(of_place).collect()
}

#[cfg(test)]
mod tests {
    use super::super::Rule;
    use super::*;

    fn row(kept: &[(u32, f64)], rest: f64) -> Option<Row> {
        Row::of(kept.to_vec(), rest)
    }

    fn gold(ids: &[u32]) -> Sequence {
        Sequence {
            ids: [&[0], ids].concat(),
            from: 1,
            line: 0,
        }
    }

    #[test]
    fn the_better_source_is_taken_on_every_sequence() {
        let fuse = Fuse::default();
        for seed in 0..50u32 {
            let ids: Vec<u32> = (0..6).map(|i| (seed * 7 + i * 3) % 20).collect();
            let of = |p: f64| -> Vec<Option<Row>> {
                ids.iter().map(|id| row(&[(*id, p)], 1.0 - p)).collect()
            };
            let (worse, better) = (of(0.3), of(0.6));
            let found = fused(&fuse, &[&worse, &better], &gold(&ids), 20);
            for (a, b) in found.iter().zip(&better) {
                let (a, b) = (a.as_ref().unwrap(), b.as_ref().unwrap());
                assert_eq!(a.kept[0].0, b.kept[0].0);
                assert!((a.kept[0].1 - 0.6).abs() < 1e-12 && (a.rest - 0.4).abs() < 1e-12);
            }
        }
    }

    #[test]
    fn distributions_by_hand() {
        // Two of four entries are kept; the others have 0.1 each.
        let a = row(&[(2, 0.5), (0, 0.3)], 0.2).unwrap();
        assert!((a.surprise(1, 4) - -(0.1f64.ln())).abs() < 1e-12);
        let entropy = -(0.5 * 0.5f64.ln() + 0.3 * 0.3f64.ln() + 0.2 * 0.1f64.ln());
        assert!((a.entropy(4) - entropy).abs() < 1e-12);
        assert_eq!(a.whole(4, 1.0), [0.3, 0.1, 0.5, 0.1]);
        let roots: Vec<f32> = [0.3f32, 0.1, 0.5, 0.1].iter().map(|p| p.sqrt()).collect();
        let total: f32 = roots.iter().sum();
        for (x, y) in a.whole(4, 2.0).iter().zip(&roots) {
            assert!((x - y / total).abs() < 1e-6);
        }
        // Eleven entries: the least joins the rest. What stands twice is added, what is dropped is made up for.
        let many: Vec<(u32, f64)> = (0..11).map(|i| (i, 0.05 + f64::from(i) * 0.001)).collect();
        let kept = Row::of(many, 0.0).unwrap();
        assert_eq!((kept.kept.len(), kept.kept[0].0), (KEPT, 10));
        assert!((kept.rest - 0.05 / 0.605).abs() < 1e-12);
        let twice = row(&[(1, 0.2), (1, 0.2), (3, 0.1)], 0.0).unwrap();
        assert_eq!(twice.kept, [(1, 0.8), (3, 0.2)]);
        assert!(row(&[], 1.0).is_none());
    }

    #[test]
    fn means_are_weighted_by_how_likely_the_sequence_is() {
        let fuse = Fuse {
            rule: Rule::AvgCe,
            ..Fuse::default()
        };
        let (a, b) = ([row(&[(0, 0.8)], 0.2)], [row(&[(1, 0.6)], 0.4)]);
        let found = fused(&fuse, &[&a, &b], &gold(&[0]), 3);
        // The right entry has 0.8 and 0.2, which are the weights, too.
        let right = 0.8 * 0.8 + 0.2 * 0.2;
        let whole = found[0].as_ref().unwrap().whole(3, 1.0);
        for (x, y) in whole
            .iter()
            .zip([right, 0.8 * 0.1 + 0.2 * 0.6, 0.8 * 0.1 + 0.2 * 0.2])
        {
            assert!((f64::from(*x) - y).abs() < 1e-6, "{whole:?}");
        }
        // A source that says nothing of a sequence does not count, and where none does there is nothing.
        let none = [None];
        assert_eq!(fused(&fuse, &[&none, &b], &gold(&[0]), 3), b);
        assert_eq!(fused(&fuse, &[&none], &gold(&[0]), 3), none);
    }
}
