//! How good narrower forms of a model are on rows, beside the whole.

use polyloom::MergeError;

use super::super::judge::{said, scored};
use super::super::pruning::each_loss;
use super::{By, Form, Settings, Tried, describe, formed, narrowed};
use crate::engine::Value;
use crate::error::Result;
use crate::models::Plain;
use crate::models::open::Model;
use crate::tasks::{Head, Opened, Reader};
use crate::train::Given;
use crate::tune::objective::{Seen, Wanted, seen};
use crate::tune::recipe::Expert;

/// What a goal has: more is better.
type Good = f64;

/// Fills in how much better than the whole model every form is.
pub(super) fn judge(
    settings: &Settings,
    given: &[Given],
    opened: &Opened,
    heads: &[Head],
    preferences: &[f64],
    whole: &Form<'_>,
    forms: &mut [Tried],
) -> Result<()> {
    let rows = Rows::of(settings, given, opened, heads)?;
    let full = whole.at(1.0, vec![1.0; heads.len()])?;
    let full = rows.good(opened, heads, &full)?;
    // A goal that counts nothing may have a score that is not defined.
    let odd = |(i, f): (usize, &Good)| preferences[i] > 0.0 && (!f.is_finite() || *f == 0.0);
    if let Some(place) = full.iter().enumerate().position(odd) {
        let what = format!(
            "goal `{}` has {} of {} on the rows: nothing is a share of that",
            heads[place].task,
            settings.by.word(),
            full[place].abs()
        );
        return Err(MergeError::plan("no-score", what)
            .at(settings.model.clone())
            .hint("--by losses, more rows (--limit), or --prefer GOAL=0")
            .into());
    }
    let sum: f64 = preferences.iter().sum();
    for form in forms {
        let found = rows.good(opened, heads, form)?;
        let pairs = found.iter().zip(&full);
        form.gains = pairs.map(|(a, b)| (a - b) / b.abs()).collect();
        let counted = form
            .gains
            .iter()
            .zip(preferences)
            .filter(|(_, p)| **p > 0.0);
        form.mean = counted.map(|(g, p)| g * p).sum::<f64>() / sum;
    }
    Ok(())
}

impl By {
    /// In words.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Scores => "scores",
            Self::Losses => "losses",
        }
    }
}

/// Rows that forms are judged by.
struct Rows<'a> {
    settings: &'a Settings,
    given: &'a [Given],
    reader: Reader,
    seen: Vec<Seen>,
}

impl<'a> Rows<'a> {
    fn of(
        settings: &'a Settings,
        given: &'a [Given],
        opened: &Opened,
        heads: &[Head],
    ) -> Result<Self> {
        let reader = Reader::prepared(&opened.model, None, None)?;
        let mut own = Expert::default();
        own.path.clone_from(&settings.model);
        let wanted = Wanted {
            base: &settings.model,
            experts: &[own],
            heads: None,
            split: &settings.split,
            limit: settings.limit,
            entropy: false,
            vectors: None,
            table: "slim",
        };
        let seen = seen(&wanted, opened, &reader, given)?;
        let known = |head: &&Head| {
            seen.iter()
                .any(|s| s.heads.iter().any(|h| h.task == head.task))
        };
        match heads.iter().find(|head| !known(head)) {
            None => Ok(Self {
                settings,
                given,
                reader,
                seen,
            }),
            Some(head) => {
                let what = format!("`{}` is a goal of no task that is named", head.task);
                Err(MergeError::plan("arguments", what)
                    .at(settings.model.clone())
                    .hint("--task names all tasks that the model has learned")
                    .into())
            }
        }
    }

    /// What the goals have, in the order of the heads, of a model at the widths of a form: scores, or losses below 0, so that
    /// more is better.
    fn good(&self, opened: &Opened, heads: &[Head], form: &Tried) -> Result<Vec<Good>> {
        let slim = formed(&opened.model, heads, form)?;
        let narrow = narrowed(opened, heads, &slim)?;
        let mut config = opened.config.clone();
        describe(&mut config, &slim.vit.config);
        let model = Model::of(&opened.model.folder, &config, narrow.clone())?;
        let mut found = vec![f64::NAN; heads.len()];
        for (seen, given) in self.seen.iter().zip(self.given) {
            let of_task = match self.settings.by {
                By::Losses => self.losses(&model, &narrow, seen)?,
                By::Scores => self.scores(&model, &narrow, seen, given)?,
            };
            for (name, value) in of_task {
                if let Some(place) = heads.iter().position(|h| h.task == name) {
                    found[place] = value;
                }
            }
        }
        Ok(found)
    }

    /// Mean losses of a task's goals, below 0.
    fn losses(&self, model: &Model, source: &Plain, seen: &Seen) -> Result<Vec<(String, Good)>> {
        let mut sums = vec![(0.0, 0usize); seen.heads.len()];
        let mut add = |place: usize, value: &Value, n: usize| {
            let (sum, count) = &mut sums[place];
            *sum += f64::from(value.number()?) * n as f64;
            *count += n;
            Ok(())
        };
        each_loss(model, source, &self.reader, seen, &mut add)?;
        let named = seen.heads.iter().zip(sums);
        let mean = |(sum, count): (f64, usize)| -sum / count.max(1) as f64;
        Ok(named.map(|(h, s)| (h.task.clone(), mean(s))).collect())
    }

    /// The metric that counts of a task's goals, below 0 where less is better.
    fn scores(
        &self,
        model: &Model,
        source: &Plain,
        seen: &Seen,
        given: &Given,
    ) -> Result<Vec<(String, Good)>> {
        let said = said(model, source, &self.reader, seen)?;
        let all = scored(given, &self.settings.split, model, seen, &said)?;
        let first = |s: polyloom::evaluate::board::score::Scored| {
            let m = s.metrics.into_iter().next()?;
            let sign = if m.higher_is_better { 1.0 } else { -1.0 };
            Some((s.task, sign * m.value))
        };
        Ok(all.into_iter().filter_map(first).collect())
    }
}
