//! Grafts of all tasks: by movement, or learned on the rows of a split.

use polyloom::MergeError;
use polyloom::compress::delta::Stored;

use super::graft::{self, Pass};
use super::judge::{Judge, Score, rows};
use super::make::{Parts, flat, grafted, moved, overlap};
use super::session::{Shop, Told};
use crate::engine::{Parameters, Value, tensor};
use crate::error::{Error, Result};
use crate::models::{Source, Trained};
use crate::ops;
use crate::tasks::forward::features;
use crate::tasks::{Head, Shown};
use crate::train::objective::loss;
use crate::tune::objective::{Seen, drawn, seen};

/// Grafts that were made.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Grafts {
    /// Task, share of the weights, calibration error of base, expert and graft on the rows that decide.
    pub tasks: Vec<(String, f64, [Option<f64>; 3])>,
    /// For every pair of tasks the share of the first one's entries that the second one grafts too.
    pub overlap: Vec<Vec<f64>>,
}

impl Shop<'_, '_> {
    /// Grafts of all tasks.
    pub(super) fn grafts(&mut self, density: f64) -> Result<Parts> {
        let mut parts = Vec::with_capacity(self.names.len());
        for expert in 0..self.names.len() {
            let delta = flat(&self.deltas, expert)?;
            let mask = match self.maker.settings.learned {
                true => self.learned(expert, delta, density)?,
                false => moved(&delta, density),
            };
            parts.push(grafted(&self.deltas, expert, &mask)?);
        }
        Ok(parts)
    }

    fn learned(&mut self, task: usize, mut delta: Vec<f32>, density: f64) -> Result<Vec<bool>> {
        let s = self.maker.settings;
        let (base, experts) = self.places();
        let entries = (delta.len() as f64 * density) as usize;
        let Some(looks) = &mut self.looks else {
            return Err(MergeError::Internal("a learned graft without rows".into()).into());
        };
        let given = &self.given[task];
        let tensors = self.deltas.tensors();
        // Embeddings and heads stay out.
        let mut at = 0;
        for t in &tensors {
            let n: usize = t.shape.iter().product();
            if t.name.contains("embeddings")
                || t.name.contains("embed_tokens")
                || polyloom::plan::names::is_head(&t.name)
            {
                delta[at..at + n].fill(0.0);
            }
            at += n;
        }
        let asked = rows(s, &base, &experts, &s.train);
        let one = std::slice::from_ref(given);
        let found = seen(&asked, looks.judge.opened(), looks.judge.reader(), one)?;
        let none = || MergeError::Internal("a task without rows".into());
        let rows = found.into_iter().next().ok_or_else(none)?;
        let mut start = Vec::with_capacity(delta.len());
        let mut named = Vec::new();
        for (t, out) in tensors.iter().enumerate() {
            let values = self.deltas.base(t)?;
            start.extend_from_slice(&values);
            named.push((out.name.clone(), tensor(values, out.shape.clone())?));
        }
        let merged = Parameters::new(named)?;
        let settings = graft::Settings {
            entries,
            bias: s.mask_bias as f32,
            rate: s.rate as f32,
            passes: s.passes,
        };
        let patch = graft::start(&delta, density);
        // The passes look at the judge's model, the scores change the judge: taken apart by a cell.
        let judge = std::cell::RefCell::new(&mut looks.judge);
        let mut gradient = |g: &[f32], pass: u32| -> Result<Vec<f32>> {
            merged.update(|weights, _| {
                for (((w, b), d), g) in weights.iter_mut().zip(&start).zip(&delta).zip(g) {
                    *w = b + g * d;
                }
            })?;
            let judge = judge.borrow();
            let frozen = judge
                .opened()
                .model
                .weights
                .with(rows.heads.iter().flat_map(Head::tensors));
            let source = Trained {
                parameters: &merged,
                frozen: &frozen,
                seed: None,
            };
            let mut total = vec![0f32; delta.len()];
            for batch in 0..s.batches {
                let number = pass * s.batches as u32 + batch as u32;
                let places = drawn(rows.rows.len(), s.batch, s.seed, task, number);
                let value = supervised(&judge, &source, &rows, &places)?;
                let mut found = merged.gradients()?;
                value.backward_into(&mut found)?;
                let own = merged.gathered(&found)?;
                total
                    .iter_mut()
                    .zip(own.iter())
                    .for_each(|(t, g)| *t += g / s.batches as f32);
            }
            Ok(total)
        };
        let mut score = |mask: &[bool]| -> Result<Score> {
            let mut at = 0;
            let mut all = Vec::with_capacity(tensors.len());
            for (t, out) in tensors.iter().enumerate() {
                let (mut values, own) = (self.deltas.base(t)?, self.deltas.expert(task, t)?);
                let n = values.len();
                for ((v, o), m) in values.iter_mut().zip(own).zip(&mask[at..at + n]) {
                    if *m {
                        *v = o;
                    }
                }
                at += n;
                all.push((out.name.clone(), tensor(values, out.shape.clone())?));
            }
            judge.borrow_mut().score(task, all)
        };
        let (watch, name) = (&mut self.watch, &self.names[task]);
        let mut hear = |pass: &Pass| watch(&Told::Graft(name, pass));
        let (mask, _) = graft::learn(
            settings,
            &delta,
            &patch,
            &mut gradient,
            &mut score,
            &mut hear,
        )?;
        Ok(mask)
    }

    /// What is said of grafts.
    pub(super) fn told(&mut self, parts: &Parts, scores: Option<&[Score]>) -> Result<Grafts> {
        let all: usize = self
            .deltas
            .tensors()
            .iter()
            .map(|t| t.shape.iter().product::<usize>())
            .sum();
        let mut tasks = Vec::new();
        for (task, parts) in parts.iter().enumerate() {
            let of = |p: &Option<Stored>| match p {
                Some(Stored::Graft { at, .. }) => at.len(),
                _ => 0,
            };
            let share = parts.iter().map(of).sum::<usize>() as f64 / all.max(1) as f64;
            let errors = match (&mut self.looks, scores) {
                (Some(looks), Some(scores)) => {
                    let base = looks.judge.score(task, Vec::new())?;
                    [base.ece, looks.experts[task].ece, scores[task].ece]
                }
                _ => [None; 3],
            };
            tasks.push((self.names[task].clone(), share, errors));
        }
        Ok(Grafts {
            tasks,
            overlap: overlap(parts),
        })
    }
}

/// The mean loss of a batch of rows.
fn supervised(judge: &Judge, source: &dyn Source, rows: &Seen, places: &[usize]) -> Result<Value> {
    let shown: Vec<&Shown> = places.iter().map(|i| &rows.rows.shown[*i]).collect();
    let found = features(
        &judge.opened().model,
        source,
        judge.reader(),
        &[(rows.feature, shown)],
    )?;
    let mut whole: Option<Value> = None;
    for (place, head) in rows.heads.iter().enumerate() {
        let said = head.forward(source, &found[0])?;
        let wanted: Vec<_> = places
            .iter()
            .map(|i| rows.rows.wanted[place][*i].as_ref())
            .collect();
        if let Some((value, _)) = loss(head, &said, &wanted, 0.0)? {
            whole = Some(match whole {
                Some(sum) => ops::add(&sum, &value)?,
                None => value,
            });
        }
    }
    whole.ok_or_else(|| Error::shape("compress", "no row of a batch says what is right"))
}
