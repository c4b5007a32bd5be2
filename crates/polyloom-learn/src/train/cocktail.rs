//! Which tasks help which: sets of tasks that are learned together, and what each set is worth to a target beside learning
//! it alone.
//!
//! The sets are those of Brief et al. (2024, "cocktails" of data sets for a target in finance): the target alone, with each
//! other task, with all of them; what decides is the target's validation score.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use polyloom::MergeError;
use polyloom::evaluate::aggregate::Direction;
use polyloom::evaluate::board::compare::stored::stored;
use polyloom::evaluate::board::compare::{Options as Choices, Settings};
use polyloom::evaluate::board::import::{Options, Source, import};
use polyloom::evaluate::statistics::Interval;
use polyloom::evaluate::statistics::multiplicity::{Correction, adjust};

use crate::error::Result;

/// Tasks that one model learns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mixture {
    /// Its name among the others, which may name a file: ids joined by `+`, `/` in them as `.`; `all`.
    pub name: String,
    /// Ids, in the order in which they were given.
    pub tasks: Vec<String>,
}

/// What a mixture is worth to a target.
#[derive(Debug, Clone, PartialEq)]
pub struct Effect {
    /// Place of the mixture.
    pub mixture: usize,
    /// The target's score by the model of the mixture.
    pub value: f64,
    /// That less the score of the target learned alone.
    pub difference: f64,
    /// 95 % interval of the difference, paired over the same rows where there are records of them.
    pub interval: Interval,
    /// Two-sided p-value; `NaN` where nothing is known of the rows.
    pub p: f64,
    /// The same after Holm's correction over the mixtures of the target.
    pub p_holm: f64,
}

/// A target learned alone and in mixtures.
#[derive(Debug, Clone, PartialEq)]
pub struct Judged {
    /// The target.
    pub target: String,
    /// Its metric.
    pub metric: String,
    /// Whether more is better.
    pub higher_is_better: bool,
    /// Rows it was scored on.
    pub rows: u64,
    /// Its score where it is learned alone.
    pub alone: f64,
    /// Each other mixture that has it.
    pub effects: Vec<Effect>,
}

impl Judged {
    /// The mixture with the best score; `None` where learning alone is best (of equals it stands first).
    #[must_use]
    pub fn best(&self) -> Option<&Effect> {
        let oriented = |x: f64| if self.higher_is_better { x } else { -x };
        let mut best: Option<&Effect> = None;
        for effect in &self.effects {
            let held = best.map_or(self.alone, |b| b.value);
            if oriented(effect.value) > oriented(held) {
                best = Some(effect);
            }
        }
        best
    }
}

/// The sets to learn: each target alone and with each other task (once, where both are targets), and all tasks. In this order,
/// targets first; without those that say the same.
#[must_use]
pub fn mixtures(tasks: &[String], targets: &[String]) -> Vec<Mixture> {
    let place = |id: &String| tasks.iter().position(|t| t == id);
    let mut sets: Vec<BTreeSet<usize>> = Vec::new();
    let targets: Vec<usize> = targets.iter().filter_map(place).collect();
    let alone = targets.iter().map(|t| BTreeSet::from([*t]));
    let pairs = targets.iter().flat_map(|t| {
        let others = (0..tasks.len()).filter(move |o| o != t);
        others.map(move |o| BTreeSet::from([*t, o]))
    });
    let all = std::iter::once((0..tasks.len()).collect());
    for set in alone.chain(pairs).chain(all) {
        if !sets.contains(&set) {
            sets.push(set);
        }
    }
    let named = |set: BTreeSet<usize>| {
        let ids: Vec<String> = set.iter().map(|i| tasks[*i].clone()).collect();
        let name = match ids.len() {
            n if n > 2 && n == tasks.len() => "all".to_owned(),
            _ => ids.join("+").replace('/', "."),
        };
        Mixture { name, tasks: ids }
    };
    sets.into_iter().map(named).collect()
}

/// Judges a target: `files` are the results of each mixture that has it, by its place, the first of the target alone.
///
/// # Errors
/// Results that cannot be read, that lack the target, or that hold different rows.
pub fn judge(target: &str, files: &[(usize, PathBuf)], alpha: f64) -> Result<Judged> {
    let named = |(place, path): &(usize, PathBuf)| Source {
        name: Some(place.to_string()),
        path: path.clone(),
    };
    let sources: Vec<Source> = files.iter().map(named).collect();
    let results = import(&sources, &Options::default())?.results;
    let lacks = |place: usize| -> MergeError {
        let file = files.get(place).map_or_else(PathBuf::new, |f| f.1.clone());
        let what = format!("holds no score of `{target}`");
        MergeError::plan("no-score", what).at(file.display().to_string())
    };
    let column = results.tasks.iter().position(|t| t.column.name == target);
    let at = column.ok_or_else(|| lacks(0))?;
    let alone = results.cell(0, at).ok_or_else(|| lacks(0))?;
    let higher_is_better = results.tasks[at].column.direction != Some(Direction::Lower);
    let settings = Settings::from(Choices {
        alpha,
        allow_partial: false,
    });
    let mut judged = Judged {
        target: target.to_owned(),
        metric: results.tasks[at].metric.clone(),
        higher_is_better,
        rows: 0,
        alone: alone.value,
        effects: Vec::new(),
    };
    for (row, (mixture, _)) in files.iter().enumerate().skip(1) {
        let value = results.cell(row, at).ok_or_else(|| lacks(row))?.value;
        let found = stored(&results, 0, row, &settings)?;
        let paired = found.paired.tasks.iter().find(|p| p.task == target);
        let unpaired = found.unpaired.iter().find(|u| u.task == target);
        let (difference, interval, p) = match (paired, unpaired) {
            (Some(p), _) => {
                judged.rows = p.n;
                (p.difference, p.interval, p.p)
            }
            (None, Some(u)) => (u.difference, u.interval, u.p),
            (None, None) => return Err(lacks(row).into()),
        };
        judged.effects.push(Effect {
            mixture: *mixture,
            value,
            difference,
            interval,
            p,
            p_holm: f64::NAN,
        });
    }
    corrected(&mut judged.effects)?;
    Ok(judged)
}

/// The difference of the second file's score of a target from the first's, with its interval and p-value: of two models
/// that are compared once.
///
/// # Errors
/// As [`judge`].
pub fn confirm(target: &str, first: &Path, second: &Path, alpha: f64) -> Result<Judged> {
    judge(
        target,
        &[(0, first.to_owned()), (1, second.to_owned())],
        alpha,
    )
}

fn corrected(effects: &mut [Effect]) -> Result<()> {
    let known: Vec<usize> = (0..effects.len())
        .filter(|i| !effects[*i].p.is_nan())
        .collect();
    if known.is_empty() {
        return Ok(());
    }
    let p: Vec<f64> = known.iter().map(|i| effects[*i].p).collect();
    let corrected =
        adjust(&p, Correction::Holm).map_err(|e| MergeError::Internal(e.to_string()))?;
    for (i, p) in known.into_iter().zip(corrected) {
        effects[i].p_holm = p;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(words: &[&str]) -> Vec<String> {
        words.iter().map(|w| (*w).to_owned()).collect()
    }

    #[test]
    fn sets_are_alone_pairs_and_all() {
        let names = |tasks: &[&str], targets: &[&str]| -> Vec<String> {
            let made = mixtures(&ids(tasks), &ids(targets));
            made.into_iter().map(|m| m.name).collect()
        };
        let of_one = ["a", "a+b", "a+t.c", "all"];
        assert_eq!(names(&["a", "b", "t/c"], &["a"]), of_one);
        // A pair of two targets is learned once, in the order of the tasks.
        let of_two = ["t.c", "a", "a+t.c", "b+t.c", "a+b", "all"];
        assert_eq!(names(&["a", "b", "t/c"], &["t/c", "a"]), of_two);
        // Two tasks: the pair is all.
        assert_eq!(names(&["a", "b"], &["b"]), ["b", "a+b"]);
    }

    fn effect(mixture: usize, value: f64, p: f64) -> Effect {
        Effect {
            mixture,
            value,
            difference: value - 0.5,
            interval: Interval::new(0.0, 0.0),
            p,
            p_holm: f64::NAN,
        }
    }

    #[test]
    fn the_best_is_better_than_alone() {
        let mut judged = Judged {
            target: "t".into(),
            metric: "accuracy".into(),
            higher_is_better: true,
            rows: 10,
            alone: 0.5,
            effects: vec![effect(1, 0.4, 0.2), effect(2, 0.5, 0.9)],
        };
        assert_eq!(judged.best(), None);
        judged.effects.push(effect(3, 0.6, 0.01));
        judged.effects.push(effect(4, 0.6, 0.02));
        assert_eq!(judged.best().unwrap().mixture, 3);
        judged.higher_is_better = false;
        assert_eq!(judged.best().unwrap().mixture, 1);
        corrected(&mut judged.effects).unwrap();
        let holm: Vec<f64> = judged.effects.iter().map(|e| e.p_holm).collect();
        for (found, by_hand) in holm.iter().zip([0.4, 0.9, 0.04, 0.06]) {
            assert!((found - by_hand).abs() < 1e-12, "{holm:?}");
        }
    }
}
