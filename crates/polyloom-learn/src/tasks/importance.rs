//! Permutation importance: how much worse a model answers where a column says what it says of other rows.
//!
//! Of a column and a target: the drop of the target's metric when the cells of the column are permuted among the scored rows,
//! mean over permutations (Breiman 2001, section 10, for forests; Fisher, Rudin, Dominici 2019, "model reliance", for any
//! model). What a model reads is permuted, not what it was trained on. Columns that say the same share their importance:
//! while one is permuted the other still says it, if the model listened to it.

use polyloom::MergeError;
use polyloom::evaluate::board::score::{Exam, Options, Scored};
use polyloom::tasks::load::Loader;
use polyloom::tasks::spec::{GroupAs, TaskSpec};
use polyloom_core::rng::Stream;

use super::evaluate::{Found, Run, Shelf};
use super::head::{Feature, Head};
use super::rows::{Reader, Shown};
use crate::error::Result;
use crate::table::Place;

/// How importances are found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// Permutations of each column; 1 or more.
    pub repeats: usize,
    /// Seed of the permutations.
    pub seed: u64,
}

/// What a target scores with all columns as they are.
#[derive(Debug, Clone, PartialEq)]
pub struct Whole {
    /// Id of the task with the target.
    pub task: String,
    /// Name of its metric: the first that the task declares.
    pub metric: String,
    /// Whether more is better.
    pub higher_is_better: bool,
    /// Its value.
    pub value: f64,
    /// Rows that it is over.
    pub n: u64,
}

/// What a column is worth for a target.
#[derive(Debug, Clone, PartialEq)]
pub struct Worth {
    /// Its name.
    pub column: String,
    /// How much worse the metric is, by permutation; below 0 where it is better.
    pub drops: Vec<f64>,
}

impl Worth {
    /// Mean over the permutations.
    #[must_use]
    pub fn mean(&self) -> f64 {
        self.drops.iter().sum::<f64>() / self.drops.len().max(1) as f64
    }

    /// Standard deviation over the permutations (of a sample: n - 1); `None` of one. It says how much chance there is in the
    /// order of rows, not in which rows are scored.
    #[must_use]
    pub fn deviation(&self) -> Option<f64> {
        let (mean, n) = (self.mean(), self.drops.len());
        let squares: f64 = self.drops.iter().map(|d| (d - mean).powi(2)).sum();
        (n > 1).then(|| (squares / (n - 1) as f64).sqrt())
    }
}

/// The columns of a target, the most important first.
pub type Importance = (Whole, Vec<Worth>);

/// Hears of every pass over the rows: how many are done, of how many, and the column.
pub type Watch<'a> = &'a mut dyn FnMut(usize, usize, &str);

impl Run<'_> {
    /// Permutation importances of the columns that a model of tables reads, by target of a task; what should be said about
    /// the heads too. Rows are read and prepared once; a column costs `repeats` passes over them.
    ///
    /// Groups that are tasks of their own are scored together here. The same for any number of threads.
    ///
    /// # Errors
    /// A model that reads no table, a metric without a value on the rows, and as [`Run::predict`].
    pub fn importance(
        &self,
        spec: &TaskSpec,
        loader: &Loader<'_>,
        hash: &str,
        (found, shelf): (&[Found], &mut Shelf),
        settings: Settings,
        watch: Watch<'_>,
    ) -> Result<(Vec<Importance>, Vec<String>)> {
        let Reader::Tables(preparation) = self.reader else {
            let what = "reads no rows of a table, whose columns could be permuted";
            return Err(MergeError::plan("no-table", what)
                .at(self.model.0.display().to_string())
                .hint("models of `polyloom train TABLE --targets A,B`, and of tasks with [table]")
                .into());
        };
        if preparation.sessions().is_some() {
            let what = "reads the rows before a row, whose cells are not permuted";
            return Err(MergeError::plan("no-table", what)
                .at(self.model.0.display().to_string())
                .hint("train it without a column (--drop) and compare")
                .into());
        }
        let mut asked = self.ask(spec, loader, found, shelf)?;
        let notes = std::mem::take(&mut asked.notes);
        let mut together = spec.clone();
        if let Some(table) = together
            .table
            .as_mut()
            .filter(|t| t.group_as == GroupAs::Task)
        {
            table.group_as = GroupAs::Cluster;
        }
        let options = Options {
            split: shelf.split().to_owned(),
            // A limit leaves rows out.
            allow_partial: true,
            // No interval is asked for.
            draws: 2,
            ..Options::default()
        };
        let exam = Exam::read(&together, loader, hash, &options)?;
        let heads: Vec<&Head> = asked.heads.iter().collect();
        let (Some(rows), true) = (
            asked.rows.first(),
            heads.iter().all(|h| h.feature == Feature::Goal),
        ) else {
            let what = format!(
                "task `{}` has no target that a model of tables answers",
                spec.id
            );
            return Err(MergeError::plan("no-table", what).into());
        };
        let mut score = |shown: &[Shown]| {
            let said = self.ready.outputs(self.reader, &heads, shown, self.batch)?;
            Ok(exam.score(&self.answers(&asked, found, &said))?)
        };
        let columns = preparation.places();
        let found = importance(&rows.shown, &columns, settings, &mut score, watch)?;
        Ok((found, notes))
    }
}

/// Importances of columns of prepared rows, by what `score` says of them.
fn importance(
    shown: &[Shown],
    columns: &[(String, Place)],
    settings: Settings,
    score: &mut dyn FnMut(&[Shown]) -> Result<Vec<Scored>>,
    watch: Watch<'_>,
) -> Result<Vec<Importance>> {
    let passes = 1 + columns.len() * settings.repeats;
    watch(0, passes, "all columns");
    let whole = score(shown)?;
    let whole = whole.iter().map(whole_of).collect::<Result<Vec<Whole>>>()?;
    let mut found: Vec<Importance> = whole.into_iter().map(|w| (w, Vec::new())).collect();
    let mut changed = shown.to_vec();
    for (c, (name, place)) in columns.iter().enumerate() {
        let mut drops = vec![Vec::with_capacity(settings.repeats); found.len()];
        for repeat in 0..settings.repeats {
            watch(1 + c * settings.repeats + repeat, passes, name);
            let order = permutation(shown.len(), settings.seed, name, repeat);
            mix(shown, &mut changed, *place, order.into_iter());
            let scored = score(&changed)?;
            for ((whole, _), drops) in found.iter().zip(&mut drops) {
                let now = scored.iter().find(|s| s.task == whole.task);
                let now = now
                    .and_then(|s| s.metrics.first())
                    .map_or(f64::NAN, |m| m.value);
                let sign = if whole.higher_is_better { 1.0 } else { -1.0 };
                drops.push(sign * (whole.value - now));
            }
        }
        mix(shown, &mut changed, *place, 0..shown.len());
        for ((_, list), drops) in found.iter_mut().zip(drops) {
            let column = name.clone();
            list.push(Worth { column, drops });
        }
    }
    for (_, list) in &mut found {
        // Of equals in the order of the columns.
        list.sort_by(|a, b| b.mean().total_cmp(&a.mean()));
    }
    Ok(found)
}

/// What the first metric of a target says.
fn whole_of(scored: &Scored) -> Result<Whole> {
    let metric = scored.metrics.first();
    match metric.filter(|m| m.value.is_finite()) {
        Some(m) => Ok(Whole {
            task: scored.task.clone(),
            metric: m.name.clone(),
            higher_is_better: m.higher_is_better,
            value: m.value,
            n: m.n,
        }),
        None => {
            let name = metric.map_or("", |m| &*m.name);
            let why = metric.and_then(|m| m.reason.clone());
            let what = format!(
                "task `{}`: its metric `{name}` has no value on these rows{}",
                scored.task,
                why.map_or_else(String::new, |why| format!(" ({why})"))
            );
            Err(MergeError::plan("no-value", what)
                .hint("another --split, or more rows")
                .into())
        }
    }
}

/// Gives every row in a column what the row of the same place in `order` has there.
fn mix(shown: &[Shown], changed: &mut [Shown], place: Place, order: impl Iterator<Item = usize>) {
    for (to, from) in changed.iter_mut().zip(order) {
        if let (Shown::Row(to), Some(Shown::Row(from))) = (to, shown.get(from)) {
            place.take(from, to);
        }
    }
}

/// A permutation of `n` rows (Fisher, Yates), a function of seed, column and repeat.
fn permutation(n: usize, seed: u64, column: &str, repeat: usize) -> Vec<usize> {
    let stream = Stream::new(seed, &format!("importance/{column}"), repeat as u64);
    let mut order: Vec<usize> = (0..n).collect();
    for i in (1..n).rev() {
        // The bias of a remainder of 64 bits cannot be seen.
        order.swap(i, (stream.bits(i as u64) % (i as u64 + 1)) as usize);
    }
    order
}

#[cfg(test)]
mod tests {
    use polyloom::evaluate::board::score::Measured;

    use super::*;
    use crate::table::Row;

    fn rows(n: usize) -> Vec<Shown> {
        let stream = Stream::new(3, "rows", 0);
        let row = |i: usize| Row {
            before: None,
            // The target itself, then noise.
            numbers: vec![(i % 2) as f32, stream.normal(i as u64)],
            codes: vec![i as u32 % 5],
            group: None,
        };
        (0..n).map(|i| Shown::Row(Box::new(row(i)))).collect()
    }

    /// What a metric says of rows.
    fn scored(task: &str, value: f64, higher_is_better: bool) -> Scored {
        Scored {
            task: task.into(),
            hash: None,
            split: None,
            metrics: vec![Measured {
                name: "accuracy".into(),
                higher_is_better,
                value,
                stderr: f64::NAN,
                interval: None,
                method: "wilson",
                n: 1,
                reason: None,
                chance: None,
            }],
            records: Vec::new(),
            expert: None,
            tags: indexmap::IndexMap::new(),
            missing: (Vec::new(), 0),
            extra: (Vec::new(), 0),
            notes: Vec::new(),
        }
    }

    fn columns() -> Vec<(String, Place)> {
        vec![
            ("noise".into(), Place::Number(1, None)),
            ("word".into(), Place::Word(0, None)),
            ("target".into(), Place::Number(0, None)),
        ]
    }

    #[test]
    fn the_target_itself_has_all_importance_and_noise_none() {
        let n = 400;
        let shown = rows(n);
        let settings = Settings {
            repeats: 5,
            seed: 7,
        };
        // A model that says the first number, and one whose error grows with the noise.
        let mut score = |shown: &[Shown]| {
            let of = |i: usize| match &shown[i] {
                Shown::Row(row) => row.numbers.clone(),
                _ => Vec::new(),
            };
            let right = (0..n).filter(|i| of(*i)[0] == (i % 2) as f32).count();
            let error: f32 = (0..n).map(|i| (of(i)[0] - (i % 2) as f32).powi(2)).sum();
            Ok(vec![
                scored("t/right", right as f64 / n as f64, true),
                scored("t/error", f64::from(error) / n as f64, false),
            ])
        };
        let mut passes = 0;
        let found = importance(
            &shown,
            &columns(),
            settings,
            &mut score,
            &mut |_, all, _| {
                passes += 1;
                assert_eq!(all, 16);
            },
        );
        let found = found.unwrap();
        assert_eq!(passes, 16);
        for (whole, list) in &found {
            assert_eq!(whole.value, f64::from(u8::from(whole.higher_is_better)));
            let names: Vec<&str> = list.iter().map(|w| &*w.column).collect();
            assert_eq!(names, ["target", "noise", "word"]);
            // Half of the permuted cells are right by chance.
            assert!((list[0].mean() - 0.5).abs() < 0.05, "{list:?}");
            assert!(list[0].deviation().unwrap() < 0.05);
            assert!(
                list[1]
                    .drops
                    .iter()
                    .chain(&list[2].drops)
                    .all(|d| *d == 0.0)
            );
        }
    }

    #[test]
    fn columns_are_as_they_were_after_their_turn() {
        let shown = rows(50);
        let mut seen: Vec<Vec<Shown>> = Vec::new();
        let settings = Settings {
            repeats: 2,
            seed: 1,
        };
        let mut score = |shown: &[Shown]| {
            seen.push(shown.to_vec());
            Ok(vec![scored("t", 1.0, true)])
        };
        importance(&shown, &columns(), settings, &mut score, &mut |_, _, _| {}).unwrap();
        let part = |all: &[Shown], of: fn(&Row) -> f32| {
            let of = |s: &Shown| match s {
                Shown::Row(row) => of(row),
                _ => f32::NAN,
            };
            all.iter().map(of).collect::<Vec<f32>>()
        };
        let parts: [fn(&Row) -> f32; 3] =
            [|r| r.numbers[1], |r| r.codes[0] as f32, |r| r.numbers[0]];
        for (pass, all) in seen.iter().enumerate() {
            for (c, of) in parts.iter().enumerate() {
                let (before, mut now) = (part(&shown, *of), part(all, *of));
                let moved = pass > 0 && (pass - 1) / 2 == c;
                assert_eq!(now != before, moved, "{pass} {c}");
                let mut sorted = before.clone();
                sorted.sort_by(f32::total_cmp);
                now.sort_by(f32::total_cmp);
                assert_eq!(now, sorted);
            }
        }
    }

    #[test]
    fn permutations_differ_by_column_and_repeat_alone() {
        let one = permutation(20, 1, "a", 0);
        let mut sorted = one.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, (0..20).collect::<Vec<_>>());
        assert_eq!(one, permutation(20, 1, "a", 0));
        for other in [(1, "a", 1), (1, "b", 0), (2, "a", 0)] {
            assert_ne!(one, permutation(20, other.0, other.1, other.2));
        }
        let none = Worth {
            column: "a".into(),
            drops: vec![0.5],
        };
        assert_eq!((none.mean(), none.deviation()), (0.5, None));
        let three = Worth {
            drops: vec![1.0, 2.0, 3.0],
            ..none
        };
        assert_eq!((three.mean(), three.deviation()), (2.0, Some(1.0)));
    }

    #[test]
    fn a_metric_without_a_value_is_said() {
        let mut score = |_: &[Shown]| Ok(vec![scored("t", f64::NAN, true)]);
        let settings = Settings {
            repeats: 1,
            seed: 0,
        };
        let told = importance(
            &rows(3),
            &columns(),
            settings,
            &mut score,
            &mut |_, _, _| {},
        );
        assert!(
            told.unwrap_err()
                .to_string()
                .contains("no value on these rows")
        );
    }
}
