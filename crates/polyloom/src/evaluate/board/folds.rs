//! Scores of a repeated k-fold cross-validation: the file `folds.json` (`polyloom.folds/1`), what can be said of their means,
//! and two models on the same folds.

use std::path::Path;

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use crate::error::{MergeError, Result};
use crate::evaluate::error::EvalError;
use crate::evaluate::statistics::Interval;
use crate::evaluate::statistics::multiplicity::{Correction, adjust};
use crate::evaluate::statistics::resampled::resampled;
use crate::evaluate::sum::mean;

/// The schema name.
pub const SCHEMA: &str = "polyloom.folds/1";
/// Name of the file in its folder.
pub const FILE: &str = "folds.json";
/// Level of the intervals in the file.
pub const LEVEL: f64 = 0.95;

/// The file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Folds {
    /// [`SCHEMA`].
    pub schema: String,
    /// Version that wrote it.
    pub polyloom: String,
    /// Hash of what it depends on: recipe, tasks, version.
    pub key: String,
    /// The architecture.
    pub model: String,
    /// Folds of a repeat.
    pub folds: usize,
    /// Times that folds were drawn.
    pub repeats: usize,
    /// Seed of the draws.
    pub seed: u64,
    /// Tasks by id.
    pub tasks: IndexMap<String, Drawn>,
    /// Metrics of all targets, the first of each counts.
    pub scores: Vec<Scores>,
}

/// How the rows of a task were put into folds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Drawn {
    /// Hash of the task.
    pub hash: String,
    /// Splits whose rows they are.
    pub splits: Vec<String>,
    /// Rows.
    pub rows: usize,
    /// "classes", "groups" or "rows": what the draw minds.
    pub by: String,
    /// Share of a fold's training rows that stop training; 0 for none.
    pub validation: f64,
    /// Test rows over training rows of a fold, the mean of all.
    pub ratio: f64,
    /// Hash of the fold of every row: two files with the same are of the same draws.
    pub draw: String,
}

/// A metric of a target on all folds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Scores {
    /// Id of the task, with the target where there are several.
    pub name: String,
    /// Id of the task.
    pub task: String,
    /// Name in the registry.
    pub metric: String,
    /// It is the one that counts.
    pub primary: bool,
    /// Whether more is better.
    pub higher_is_better: bool,
    /// By repeat and fold; none where it is not defined on the fold's rows.
    pub values: Vec<Vec<Option<f64>>>,
    /// Why one is not defined.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Mean over folds of all repeats; none where a fold has no value.
    pub mean: Option<f64>,
    /// Standard deviation over folds.
    pub deviation: Option<f64>,
    /// Corrected standard error of the mean ([`resampled`]).
    pub stderr: Option<f64>,
    /// Its 95 % interval.
    pub interval: Option<[f64; 2]>,
}

impl Scores {
    /// All values in the order of repeats and folds, where every fold has one.
    #[must_use]
    pub fn all(&self) -> Option<Vec<f64>> {
        self.values.iter().flatten().copied().collect()
    }

    /// Fills in mean, deviation and interval; `ratio` is test rows over training rows of a fold.
    ///
    /// # Errors
    /// What [`resampled`] reports.
    pub fn summed(mut self, ratio: f64) -> Result<Self> {
        if let Some(values) = self.all() {
            let found = resampled(&values, ratio, LEVEL).map_err(|e| untold(&e))?;
            self.mean = Some(found.mean);
            self.deviation = Some(found.deviation);
            self.stderr = Some(found.stderr);
            self.interval = Some([found.interval.low, found.interval.high]);
        }
        Ok(self)
    }
}

/// Scores of a file that nothing can be said of.
fn untold(error: &EvalError) -> MergeError {
    MergeError::plan("bad-folds", error.to_string())
}

/// Whether a path is such a file, or a folder with one.
#[must_use]
pub fn is(path: &Path) -> bool {
    #[derive(Deserialize)]
    struct Head {
        schema: String,
    }
    let read = |file: &Path| std::fs::read(file).ok();
    let text = match path.is_dir() {
        true => read(&path.join(FILE)),
        false
            if path
                .extension()
                .is_some_and(|e| e.eq_ignore_ascii_case("json")) =>
        {
            read(path)
        }
        false => None,
    };
    let head = text.and_then(|t| serde_json::from_slice::<Head>(&t).ok());
    head.is_some_and(|h| h.schema == SCHEMA)
}

impl Folds {
    /// Reads the file, or that of a folder.
    ///
    /// # Errors
    /// A file that is not there or holds something else.
    pub fn read(path: &Path) -> Result<Self> {
        let file = match path.is_dir() {
            true => path.join(FILE),
            false => path.to_owned(),
        };
        let text = std::fs::read_to_string(&file)
            .map_err(|e| polyloom_core::Error::io(&file, "read", e))?;
        let bad = |what: String| {
            MergeError::plan("bad-folds", what)
                .at(file.display().to_string())
                .hint("polyloom train TABLE --folds 5 -o OUT writes OUT.folds/folds.json")
        };
        let folds: Self = serde_json::from_str(&text)
            .map_err(|e| bad(format!("holds no scores of folds: {e}")))?;
        if folds.schema != SCHEMA {
            return Err(bad(format!(
                "has the schema `{}`, not `{SCHEMA}`",
                folds.schema
            )));
        }
        let whole = |s: &Scores| {
            s.values.len() == folds.repeats && s.values.iter().all(|r| r.len() == folds.folds)
        };
        if let Some(odd) = folds.scores.iter().find(|s| !whole(s)) {
            let what = format!(
                "`{}` has not {} repeats of {} folds",
                odd.name, folds.repeats, folds.folds
            );
            return Err(bad(what));
        }
        Ok(folds)
    }

    /// The metric that counts of every target.
    pub fn primary(&self) -> impl Iterator<Item = &Scores> {
        self.scores.iter().filter(|s| s.primary)
    }

    /// Test rows over training rows of a score's task.
    fn ratio(&self, of: &Scores) -> f64 {
        self.tasks.get(&of.task).map_or(0.0, |t| t.ratio)
    }

    /// The mean over targets on every fold, where all count by one metric; with the largest ratio of their tasks.
    fn over_targets(&self) -> Option<(Scores, f64)> {
        let of: Vec<&Scores> = self.primary().collect();
        let first = *of.first().filter(|_| of.len() > 1)?;
        if of.iter().any(|s| s.metric != first.metric) {
            return None;
        }
        let all: Vec<Vec<f64>> = of.iter().map(|s| s.all()).collect::<Option<_>>()?;
        let fold = |i: usize| Some(mean(all.iter().map(|v| v[i])));
        let places: Vec<usize> = (0..self.folds * self.repeats).collect();
        let ratio = of.iter().map(|s| self.ratio(s)).fold(0.0, f64::max);
        let scores = Scores {
            name: "mean".into(),
            values: places
                .chunks(self.folds)
                .map(|r| r.iter().map(|i| fold(*i)).collect())
                .collect(),
            ..first.clone()
        };
        Some((scores, ratio))
    }

    /// What is shown: the metric that counts of every target, and their mean where all count by one.
    ///
    /// # Errors
    /// What [`resampled`] reports.
    pub fn shown(&self) -> Result<Vec<Scores>> {
        let mut rows: Vec<Scores> = self.primary().cloned().collect();
        if let Some((scores, ratio)) = self.over_targets() {
            rows.push(scores.summed(ratio)?);
        }
        Ok(rows)
    }
}

/// Two models on the same folds: the second less the first.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Difference {
    /// Task or target; "mean" for the mean over all targets.
    pub name: String,
    /// Metric.
    pub metric: String,
    /// Whether more is better.
    pub higher_is_better: bool,
    /// Means of the first and of the second.
    pub means: [f64; 2],
    /// Mean difference.
    pub difference: f64,
    /// Its interval at `1 - alpha`.
    pub interval: [f64; 2],
    /// p-value after Holm over the targets; the mean over targets is tested alone. None where nothing differs on any fold.
    pub p: Option<f64>,
    /// Folds on which the second is better, the same, worse.
    pub folds: [usize; 3],
}

impl Difference {
    /// Whether the second is told apart from the first, and better: `None` where it is not told apart.
    #[must_use]
    pub fn better(&self, alpha: f64) -> Option<bool> {
        self.p.filter(|p| *p <= alpha)?;
        Some((self.difference > 0.0) == self.higher_is_better)
    }
}

/// Pairs the folds of two models, target by target and for their mean: corrected resampled t ([`resampled`]) on the
/// differences of every fold, which both were scored on.
///
/// # Errors
/// Other tasks, rows or draws; no target with a value on every fold of both.
pub fn compare(old: &Folds, new: &Folds, alpha: f64) -> Result<Vec<Difference>> {
    let differ = |what: String| {
        MergeError::plan("folds-differ", what).hint(
            "the same table, --folds, --repeats and --seed give the same folds for every model",
        )
    };
    for (id, drawn) in &old.tasks {
        match new.tasks.get(id) {
            None => return Err(differ(format!("the second has no folds of `{id}`"))),
            Some(other) if other.draw != drawn.draw || other.hash != drawn.hash => {
                return Err(differ(format!(
                    "the rows of `{id}` are in other folds, or are others"
                )));
            }
            Some(_) => {}
        }
    }
    let mut found = Vec::new();
    let pair = |a: &Scores, b: &Scores, ratio: f64| -> Result<Option<Difference>> {
        let (Some(x), Some(y)) = (a.all(), b.all()) else {
            return Ok(None);
        };
        let differences: Vec<f64> = x.iter().zip(&y).map(|(x, y)| y - x).collect();
        let test = resampled(&differences, ratio, 1.0 - alpha).map_err(|e| untold(&e))?;
        let Interval { low, high } = test.interval;
        let better = |d: &&f64| **d != 0.0 && (**d > 0.0) == a.higher_is_better;
        let wins = differences.iter().filter(better).count();
        let same = differences.iter().filter(|d| **d == 0.0).count();
        Ok(Some(Difference {
            name: a.name.clone(),
            metric: a.metric.clone(),
            higher_is_better: a.higher_is_better,
            means: [mean(x.iter().copied()), mean(y.iter().copied())],
            difference: test.mean,
            interval: [low, high],
            p: Some(test.p).filter(|p| p.is_finite()),
            folds: [wins, same, differences.len() - wins - same],
        }))
    };
    for a in old.primary() {
        let same = |b: &&Scores| b.name == a.name && b.metric == a.metric;
        if let Some(b) = new.primary().find(same) {
            found.extend(pair(a, b, old.ratio(a))?);
        }
    }
    if found.is_empty() {
        return Err(differ("no target has a score on every fold of both".into()));
    }
    let p: Vec<f64> = found.iter().filter_map(|d| d.p).collect();
    if !p.is_empty() {
        let mut adjusted = adjust(&p, Correction::Holm)
            .map_err(|e| untold(&e))?
            .into_iter();
        for one in found.iter_mut().filter(|d| d.p.is_some()) {
            one.p = adjusted.next();
        }
    }
    if let (Some((a, ratio)), Some((b, _))) = (old.over_targets(), new.over_targets())
        && a.metric == b.metric
        && old.primary().count() == new.primary().count()
    {
        found.extend(pair(&a, &b, ratio)?);
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folds(model: &str, of: &[(&str, &[f64])]) -> Folds {
        let scores = of.iter().map(|(name, values)| {
            let values = values
                .chunks(2)
                .map(|r| r.iter().map(|x| Some(*x)).collect());
            let scores = Scores {
                name: (*name).into(),
                task: "t".into(),
                metric: "rmse".into(),
                primary: true,
                higher_is_better: false,
                values: values.collect(),
                reason: None,
                mean: None,
                deviation: None,
                stderr: None,
                interval: None,
            };
            scores.summed(1.0).unwrap()
        });
        let drawn = Drawn {
            hash: "h".into(),
            splits: vec!["train".into()],
            rows: 4,
            by: "rows".into(),
            validation: 0.0,
            ratio: 1.0,
            draw: "d".into(),
        };
        Folds {
            schema: SCHEMA.into(),
            polyloom: "0".into(),
            key: String::new(),
            model: model.into(),
            folds: 2,
            repeats: 1,
            seed: 0,
            tasks: [("t".to_owned(), drawn)].into_iter().collect(),
            scores: scores.collect(),
        }
    }

    #[test]
    fn pairs_by_hand() {
        let a = folds("a", &[("t/x", &[4.0, 6.0]), ("t/y", &[1.0, 1.0])]);
        let b = folds("b", &[("t/x", &[3.0, 3.0]), ("t/y", &[1.0, 1.0])]);
        let found = compare(&a, &b, 0.5).unwrap();
        // Differences -1 and -3: s^2 = 2, error sqrt(2 (1/2 + 1)) = sqrt 3; t at 0.75 with one degree of freedom is 1.
        let root = 3f64.sqrt();
        assert_eq!(found[0].difference, -2.0);
        assert!((found[0].interval[0] - (-2.0 - root)).abs() < 1e-14);
        assert_eq!((found[0].folds, found[0].means), ([2, 0, 0], [5.0, 3.0]));
        assert_eq!((found[1].p, found[1].folds), (None, [0, 2, 0]));
        assert_eq!((&*found[2].name, found[2].difference), ("mean", -1.0));
        // p of one target, so Holm changes nothing: 1 - 2 atan(2 / sqrt 3) / pi.
        let p = 1.0 - 2.0 / std::f64::consts::PI * (2.0 / root).atan();
        assert!((found[0].p.unwrap() - p).abs() < 1e-14);
        assert_eq!(found[0].better(0.5), Some(true));
        assert_eq!(found[0].better(0.05), None);
    }

    #[test]
    fn other_folds_are_no_pairs() {
        let a = folds("a", &[("t/x", &[4.0, 6.0])]);
        let mut b = a.clone();
        b.tasks[0].draw = "other".into();
        let told = compare(&a, &b, 0.05).unwrap_err().to_string();
        assert!(told.contains("in other folds"), "{told}");
        let mut b = a.clone();
        b.scores[0].values[0][1] = None;
        let told = compare(&a, &b, 0.05).unwrap_err().to_string();
        assert!(told.contains("no target has a score"), "{told}");
    }

    #[test]
    fn what_is_no_such_file() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join(FILE);
        for (text, told) in [
            ("{", "holds no scores of folds"),
            (
                "{\"schema\": \"polyloom.results/1\"}",
                "holds no scores of folds",
            ),
        ] {
            std::fs::write(&file, text).unwrap();
            assert!(!is(&file) && !is(dir.path()));
            let error = Folds::read(&file).unwrap_err().to_string();
            assert!(error.contains(told), "{error}");
        }
        let mut whole = folds("a", &[("t/x", &[4.0, 6.0])]);
        let write = |f: &Folds| std::fs::write(&file, serde_json::to_string(f).unwrap()).unwrap();
        write(&whole);
        assert!(is(dir.path()));
        assert_eq!(Folds::read(dir.path()).unwrap(), whole);
        whole.scores[0].values[0].pop();
        write(&whole);
        let error = Folds::read(&file).unwrap_err().to_string();
        assert!(error.contains("has not 1 repeats of 2 folds"), "{error}");
    }
}
