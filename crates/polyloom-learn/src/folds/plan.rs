//! Which rows are in which fold.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use indexmap::IndexSet;
use polyloom::MergeError;
use polyloom::evaluate::board::folds::Drawn;
use polyloom::evaluate::board::score::strata::{Strata, strata};
use polyloom::tasks::folds::{By, draw, forward, latest, ranks};
use polyloom::tasks::load::{Part, Parts};
use polyloom::tasks::spec::{GroupAs, TaskType};
use polyloom_core::hash::sha256_text;
use serde_json::json;

use crate::error::Result;
use crate::train::{Given, Recipe};

/// Name of the rows that a fold holds out.
pub const HELD: &str = "held out";
/// Name of the rows of all folds.
pub const ALL: &str = "folds";

/// The folds of a training.
#[derive(Debug)]
pub struct Plan<'a> {
    recipe: &'a Recipe,
    pools: Vec<Pool<'a>>,
    /// Folds of a repeat.
    pub folds: usize,
    /// Times that folds are drawn.
    pub repeats: usize,
}

/// The rows of a task.
#[derive(Debug)]
struct Pool<'a> {
    given: &'a Given,
    /// Splits that they are of.
    splits: Arc<[String]>,
    strata: Strata,
    /// Numbers of groups, where the task splits by them.
    groups: Option<Vec<u32>>,
    /// Ranks of times, where the task splits by them.
    times: Option<Vec<u32>>,
    /// Labels as numbers, each row's own.
    labels: Vec<Vec<u32>>,
    /// Share of training rows that stop training.
    validation: f64,
    /// By repeat: the fold of every row; none for the rows before all folds of a forward chain.
    drawn: Vec<Vec<Option<usize>>>,
}

/// A fold, ready to be learned.
#[derive(Debug)]
pub struct Fold {
    /// The tasks: their splits are those of the fold, [`HELD`] is what it holds out.
    pub tasks: Vec<Given>,
    /// By task: number of every row of [`HELD`] among all rows.
    pub held: Vec<Vec<usize>>,
    /// By task: rows that are learned, that stop training, that are held out.
    pub rows: Vec<[usize; 3]>,
}

impl<'a> Plan<'a> {
    /// Reads the labels of all rows and draws the folds: repeat r by the seed of the recipe and r alone, whatever the model.
    /// Groups stay whole where the task splits by them, else classes are spread evenly ([`draw`]); where it splits by time the
    /// folds follow one another and a model learns what comes before its fold ([`forward`]).
    ///
    /// # Errors
    /// A recipe without folds, tasks that split by time in several repeats or by groups too, more folds than rows, times, labels of a class or groups; what reading
    /// reports.
    pub fn of(recipe: &'a Recipe, given: &'a [Given]) -> Result<Self> {
        super::check(&recipe.train)?;
        let Some(folds) = recipe.train.folds else {
            return Err(MergeError::plan("bad-recipe", "`train.folds` is not set").into());
        };
        let of_sessions = |g: &&Given| g.spec.table.as_ref().is_some_and(|t| !t.session.is_empty());
        if let Some(task) = given.iter().find(of_sessions) {
            let what = format!(
                "task `{}` is of sessions: folds are drawn of rows, and one sees those before it",
                task.spec.id
            );
            return Err(MergeError::plan("bad-recipe", what)
                .hint("leave out train.folds (--folds)")
                .into());
        }
        let folds = folds as usize;
        let repeats = recipe.train.repeats.unwrap_or(1) as usize;
        let pools = given.iter().map(|task| {
            let mut pool = Pool::read(recipe, task)?;
            pool.check(folds)?;
            pool.drawn = match &pool.times {
                Some(times) => vec![pool.chain(times, folds, repeats)?],
                None => {
                    let shares = vec![1.0 / folds as f64; folds];
                    let once = |r| draw(pool.by(), &shares, recipe.seed, "folds", r);
                    let some = |parts: Vec<usize>| parts.into_iter().map(Some).collect();
                    (0..repeats as u64).map(|r| some(once(r))).collect()
                }
            };
            Ok(pool)
        });
        Ok(Self {
            pools: pools.collect::<Result<_>>()?,
            recipe,
            folds,
            repeats,
        })
    }

    /// Hash of what scores depend on.
    #[must_use]
    pub fn key(&self) -> String {
        let tasks: Vec<Drawn> = (0..self.pools.len()).map(|p| self.drawn(p)).collect();
        sha256_text(&json!([env!("CARGO_PKG_VERSION"), self.recipe, tasks]).to_string())
    }

    /// Rows of a task's folds, in the order that [`Fold::held`] counts.
    #[must_use]
    pub fn rows(&self, task: usize) -> usize {
        self.pools[task].labels.len()
    }

    /// How the rows of a task were drawn.
    #[must_use]
    pub fn drawn(&self, task: usize) -> Drawn {
        let pool = &self.pools[task];
        let (n, folds) = (pool.labels.len(), self.folds);
        let ratio = |fold: usize| {
            let ratios = pool.drawn.iter().map(|drawn| {
                let held = drawn.iter().filter(|f| **f == Some(fold)).count();
                held as f64 / pool.rest(drawn, fold).count().max(1) as f64
            });
            ratios.sum::<f64>()
        };
        let all: f64 = (0..folds).map(ratio).sum();
        Drawn {
            hash: pool.given.hash.clone(),
            splits: pool.splits.to_vec(),
            rows: n,
            by: match (&pool.times, &pool.groups) {
                (Some(_), _) => "time".into(),
                (None, Some(_)) => "groups".into(),
                (None, None) if pool.labels.iter().all(Vec::is_empty) => "rows".into(),
                (None, None) => "classes".into(),
            },
            validation: pool.validation,
            ratio: all / (folds * self.repeats) as f64,
            draw: sha256_text(&json!(pool.drawn).to_string()),
        }
    }

    /// A task with all rows that its folds hold out as [`ALL`].
    #[must_use]
    pub fn whole(&self, task: usize) -> Given {
        let pool = &self.pools[task];
        let part = |keep| Part {
            of: pool.splits.clone(),
            keep,
        };
        let held = pool.times.is_some().then(|| {
            let held = pool.drawn[0].iter().map(Option::is_some);
            held.collect()
        });
        // What metrics want of training rows is that of all rows.
        let parts = [(ALL, held), ("train", None)];
        let parts = parts.map(|(name, keep)| (name.to_owned(), part(keep)));
        pool.with(parts.into())
    }

    /// Number among the rows of [`Self::whole`] of a row that [`Fold::held`] counts.
    #[must_use]
    pub fn place(&self, task: usize, row: usize) -> usize {
        let before = self.pools[task].drawn[0].iter().take(row);
        before.filter(|fold| fold.is_some()).count()
    }

    /// A fold, by repeat and number from 0: what it learns, what stops training (drawn from the rest of its rows as folds
    /// are), and what it holds out.
    ///
    /// # Errors
    /// A fold without a row to learn.
    pub fn fold(&self, repeat: usize, fold: usize) -> Result<Fold> {
        let t = &self.recipe.train;
        let mut made = Fold {
            tasks: Vec::new(),
            held: Vec::new(),
            rows: Vec::new(),
        };
        for pool in &self.pools {
            let drawn = &pool.drawn[repeat];
            let rest: Vec<usize> = pool.rest(drawn, fold).collect();
            let index = (repeat * self.folds + fold) as u64;
            let stops = pool.stopping(&rest, self.recipe.seed, index);
            // 0: learned, 1: stops training, 2: held out, 3: comes after.
            let held = |f: &Option<usize>| if *f == Some(fold) { 2u8 } else { 3 };
            let mut role: Vec<u8> = drawn.iter().map(held).collect();
            for (row, stops) in rest.iter().zip(&stops) {
                role[*row] = u8::from(*stops);
            }
            let part = |of: u8| Part {
                of: pool.splits.clone(),
                keep: Some(role.iter().map(|r| *r == of).collect()),
            };
            let mut parts = BTreeMap::new();
            if pool.validation > 0.0 {
                parts.insert(t.validation.clone(), part(1));
            }
            // Metrics that want the mean of training rows ask for "train".
            parts.extend(["train", &t.split].map(|name| (name.to_owned(), part(0))));
            parts.insert(HELD.to_owned(), part(2));
            let count = |of: u8| role.iter().filter(|r| **r == of).count();
            let rows = [0, 1, 2].map(count);
            if rows[0] == 0 || rows[1] == 0 && pool.validation > 0.0 {
                let id = &pool.given.spec.id;
                let what = match rows[0] {
                    0 => "no row is left to learn from",
                    _ => "no row is left that stops training",
                };
                let what = format!("repeat {}, fold {} of `{id}`: {what}", repeat + 1, fold + 1);
                return Err(MergeError::plan("bad-folds", what)
                    .hint("more folds leave more rows to each model; train.validation = \"\" stops at the last step")
                    .into());
            }
            made.tasks.push(pool.with(parts));
            made.held
                .push((0..drawn.len()).filter(|i| role[*i] == 2).collect());
            made.rows.push(rows);
        }
        Ok(made)
    }
}

impl<'a> Pool<'a> {
    fn read(recipe: &Recipe, given: &'a Given) -> Result<Self> {
        let t = &recipe.train;
        let spec = &given.spec;
        let table = spec.table.as_ref();
        let there = |name: &String| spec.splits.named.contains_key(name);
        let splits: Vec<String> = match &t.fold_splits[..] {
            [] => {
                let usual = [t.split.clone(), t.validation.clone(), "test".to_owned()];
                let usual: IndexSet<String> = usual.into_iter().filter(there).collect();
                usual.into_iter().collect()
            }
            said => said.to_vec(),
        };
        // A split that is looked at has a share in every fold, as large as among the task's own rows.
        let looks = !t.validation.is_empty() && there(&t.validation);
        let mut sizes = [0usize; 2];
        let of = [&t.split, &t.validation];
        for (size, name) in sizes.iter_mut().zip(of).take(1 + usize::from(looks)) {
            given.loader().rows(name, &mut |table| {
                *size += table.rows();
                Ok(())
            })?;
        }
        let splits: Arc<[String]> = splits.into();
        let part = Part {
            of: splits.clone(),
            keep: None,
        };
        let loader = given.loader();
        let loader = loader.with_parts(Arc::new([(ALL.to_owned(), part)].into()));
        let group = table.filter(|t| t.group_as == GroupAs::Split && !t.group.is_empty());
        let group = group.map(|t| &*t.group);
        let strata = strata(spec, &loader, ALL, group)?;
        let mut times = None;
        if let Some(table) = table.filter(|t| !t.time.is_empty()) {
            if let Some(group) = group {
                let what = format!(
                    "task `{}` splits by groups (`{group}`) and by time (`{}`): folds are drawn by one of them",
                    spec.id, table.time
                );
                return Err(MergeError::plan("bad-folds", what)
                    .hint("take `group_as = \"split\"` or `time` out of [table]")
                    .into());
            }
            let mut values = Vec::new();
            loader.rows(ALL, &mut |rows| {
                values.extend((0..rows.rows()).map(|row| rows.at(row, &table.time)));
                Ok(())
            })?;
            times = Some(ranks(&values));
        }
        Ok(Self {
            given,
            splits,
            times,
            groups: group.map(|_| numbered(strata.rows.iter().map(|r| &*r.group))),
            labels: labels(&strata),
            strata,
            validation: sizes[1] as f64 / (sizes[0] + sizes[1]).max(1) as f64,
            drawn: Vec::new(),
        })
    }

    fn by(&self) -> By<'_> {
        match &self.groups {
            Some(groups) => By::Groups(groups),
            None => By::Labels(&self.labels),
        }
    }

    /// The rows that a fold may learn: all others, or those before it.
    fn rest<'d>(
        &self,
        drawn: &'d [Option<usize>],
        fold: usize,
    ) -> impl Iterator<Item = usize> + use<'d> {
        let timed = self.times.is_some();
        let learns = move |f: &Option<usize>| match timed {
            true => f.is_none_or(|f| f < fold),
            false => *f != Some(fold),
        };
        let rows = drawn.iter().enumerate();
        rows.filter(move |(_, f)| learns(f)).map(|(row, _)| row)
    }

    /// Folds that follow one another.
    fn chain(&self, times: &[u32], folds: usize, repeats: usize) -> Result<Vec<Option<usize>>> {
        let id = &self.given.spec.id;
        if repeats > 1 {
            let what = format!("task `{id}` splits by time, whose folds are one draw alone");
            return Err(MergeError::plan("bad-folds", what)
                .hint("leave out train.repeats (--repeats)")
                .into());
        }
        forward(times, folds).ok_or_else(|| {
            let count = times.iter().max().map_or(0, |t| *t as usize + 1);
            let what = format!(
                "task `{id}`: {} rows of {count} times cannot be cut into {} blocks, {folds} folds and what comes before them; rows of one time stay together",
                times.len(),
                folds + 1
            );
            let error = MergeError::plan("bad-folds", what);
            error.hint("fewer folds").into()
        })
    }

    /// Of a fold's rows those that stop training.
    fn stopping(&self, rest: &[usize], seed: u64, index: u64) -> Vec<bool> {
        if self.validation <= 0.0 {
            return vec![false; rest.len()];
        }
        if let Some(times) = &self.times {
            let own: Vec<u32> = rest.iter().map(|row| times[*row]).collect();
            return latest(&own, self.validation);
        }
        let shares = [1.0 - self.validation, self.validation];
        let name = "folds/validation";
        let parts = match &self.groups {
            Some(groups) => {
                let own = rest.iter().map(|i| groups[*i]);
                let own = numbered(own);
                draw(By::Groups(&own), &shares, seed, name, index)
            }
            None => {
                let own: Vec<Vec<u32>> = rest.iter().map(|i| self.labels[*i].clone()).collect();
                draw(By::Labels(&own), &shares, seed, name, index)
            }
        };
        parts.into_iter().map(|p| p == 1).collect()
    }

    /// There are rows, groups and labels for so many folds.
    fn check(&self, folds: usize) -> Result<()> {
        let (id, n) = (&self.given.spec.id, self.labels.len());
        let bad = |what: String, hint: &str| {
            let error = MergeError::plan("bad-folds", format!("task `{id}`: {what}"));
            Err(error.hint(hint).into())
        };
        if let Some(groups) = &self.groups {
            let count = groups.iter().max().map_or(0, |g| *g as usize + 1);
            // A fold needs a group to learn from, and one that stops training.
            let least = folds.max(2 + usize::from(self.validation > 0.0));
            if count < least {
                return bad(
                    format!(
                        "{count} groups cannot be put into {folds} folds; a group stays in one"
                    ),
                    "fewer folds, or another column of groups in the spec (`table.group`)",
                );
            }
        }
        if n < folds {
            return bad(
                format!("{n} rows cannot be put into {folds} folds"),
                "fewer folds",
            );
        }
        for (goal, asked) in self.strata.asked.iter().enumerate() {
            let target = match &*asked.target {
                "" => String::new(),
                target => format!("target `{target}`: "),
            };
            let rows = self.strata.rows.iter();
            let said: Vec<&Vec<u32>> = rows.filter_map(|r| r.classes[goal].as_ref()).collect();
            if said.len() < folds {
                return bad(
                    format!(
                        "{target}{} rows have a label, for {folds} folds",
                        said.len()
                    ),
                    "fewer folds, or leave the target out",
                );
            }
            if asked.kind == TaskType::Multilabel || self.groups.is_some() || self.times.is_some() {
                continue;
            }
            for (class, name) in asked.classes.iter().enumerate() {
                let count = said.iter().filter(|c| c.contains(&(class as u32))).count();
                if (1..folds).contains(&count) {
                    let rows = if count == 1 {
                        "1 row".into()
                    } else {
                        format!("{count} rows")
                    };
                    return bad(
                        format!(
                            "{target}class `{name}` has {rows}, for {folds} folds: a fold would be scored without it"
                        ),
                        "fewer folds, or put rare classes together",
                    );
                }
            }
        }
        Ok(())
    }

    /// The task with parts in place of its splits.
    fn with(&self, parts: Parts) -> Given {
        let mut spec = self.given.spec.clone();
        for name in parts.keys() {
            spec.splits.named.entry(name.clone()).or_default();
        }
        Given {
            spec,
            folder: self.given.folder.clone(),
            hash: self.given.hash.clone(),
            parts: Arc::new(parts),
        }
    }
}

/// Values as numbers from 0, in the order in which they come.
fn numbered<T: std::hash::Hash + Eq>(values: impl Iterator<Item = T>) -> Vec<u32> {
    let mut known = HashMap::new();
    values
        .map(|value| {
            let next = known.len() as u32;
            *known.entry(value).or_insert(next)
        })
        .collect()
}

/// The classes of every row, each target's apart; where rows lack what is asked, those that have it say so too.
fn labels(strata: &Strata) -> Vec<Vec<u32>> {
    let mut labels = vec![Vec::new(); strata.rows.len()];
    let mut first = 0;
    for (goal, asked) in strata.asked.iter().enumerate() {
        let lacks = strata.rows.iter().any(|r| r.classes[goal].is_none());
        let has = first + asked.classes.len() as u32;
        for (row, labels) in strata.rows.iter().zip(&mut labels) {
            if let Some(classes) = &row.classes[goal] {
                labels.extend(classes.iter().map(|c| first + c));
                labels.extend(lacks.then_some(has));
            }
        }
        first = has + 1;
    }
    labels
}
