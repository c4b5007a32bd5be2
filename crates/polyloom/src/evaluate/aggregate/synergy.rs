//! Synergy levels of a generalist (General-Level, Fei et al. 2025; methods/evaluation.md 3.8).
//!
//! A score counts from level 3 on only where it reaches the best specialist of its task: knowing many tasks must help each.

use std::collections::BTreeSet;

use super::matrix::{Direction, ScoreMatrix, TaskColumn};
use crate::evaluate::sum::mean;
use crate::evaluate::{EvalError, Result};

const WHAT: &str = "synergy level";

/// A score and the best specialist's, both 0 to 100, more is better; a score of `NaN` is a task that is not supported.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AgainstBest {
    /// The generalist's score; `NaN` counts as 0.
    pub score: f64,
    /// The specialist's score.
    pub best: f64,
}

/// The levels of one modality, each 0 to 100.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Synergy {
    /// Mean of the mean scores in comprehension and generation.
    pub level_2: f64,
    /// The same over the scores that reach the specialist's, others counting 0.
    pub level_3: f64,
    /// Harmonic mean of the two parts of level 3: both must be there.
    pub level_4: f64,
    /// Level 4 times the share of language scores that reach the specialist's.
    pub level_5: f64,
}

/// Levels from the tasks of three groups: comprehension, generation and language.
///
/// # Errors
/// An empty group; a score outside 0 to 100, a specialist's that is `NaN` or outside.
pub fn synergy(
    comprehension: &[AgainstBest],
    generation: &[AgainstBest],
    language: &[AgainstBest],
) -> Result<Synergy> {
    for group in [comprehension, generation, language] {
        if group.is_empty() {
            return Err(EvalError::Empty { what: WHAT });
        }
        let range = 0.0..=100.0;
        let fine = |t: &AgainstBest| {
            (t.score.is_nan() || range.contains(&t.score)) && range.contains(&t.best)
        };
        if let Some(bad) = group.iter().find(|t| !fine(t)) {
            let problem = format!("a score of {} against {} on 0 to 100", bad.score, bad.best);
            return Err(EvalError::invalid(WHAT, problem));
        }
    }
    let plain = |group: &[AgainstBest]| {
        let score = |t: &AgainstBest| if t.score.is_nan() { 0.0 } else { t.score };
        mean(group.iter().map(score))
    };
    let reached = |group: &[AgainstBest]| {
        let score = |t: &AgainstBest| if t.score >= t.best { t.score } else { 0.0 };
        mean(group.iter().map(score))
    };
    let (c, g, l) = (
        reached(comprehension),
        reached(generation),
        reached(language),
    );
    let level_4 = if c == 0.0 || g == 0.0 {
        0.0
    } else {
        2.0 * c * g / (c + g)
    };
    Ok(Synergy {
        level_2: f64::midpoint(plain(comprehension), plain(generation)),
        level_3: f64::midpoint(c, g),
        level_4,
        level_5: level_4 * l / 100.0,
    })
}

/// The levels of every system, the groups being the tasks whose `group` has the given names, the specialists the tasks'
/// experts. Scores must be 0 to 100, more is better.
///
/// A group may begin with a modality, `image/comprehension`: the levels are then those of every modality, averaged
/// ([`over_modalities`]). A group without a modality counts in each of them, as the language tasks of General-Level do.
///
/// # Errors
/// As [`synergy`], with the modality; a task of the groups without expert or where more is not better.
pub fn synergy_of_matrix(
    matrix: &ScoreMatrix,
    comprehension: &str,
    generation: &str,
    language: &str,
) -> Result<Vec<Synergy>> {
    let names = [comprehension, generation, language];
    let mut modalities = BTreeSet::new();
    for (modality, name) in matrix.tasks().iter().filter_map(parts) {
        if names.contains(&name) {
            modalities.extend(modality);
        }
    }
    let modalities: Vec<Option<&str>> = match modalities.is_empty() {
        true => vec![None],
        false => modalities.into_iter().map(Some).collect(),
    };
    let levels = modalities.iter().map(|modality| {
        let found = of_modality(matrix, *modality, names);
        found.map_err(|e| match modality {
            Some(modality) => EvalError::invalid(WHAT, format!("modality {modality:?}: {e}")),
            None => e,
        })
    });
    let levels: Vec<Vec<Synergy>> = levels.collect::<Result<_>>()?;
    let of = |system: usize| {
        let each: Vec<Synergy> = levels.iter().map(|l| l[system]).collect();
        over_modalities(&each)
    };
    (0..matrix.systems().len()).map(of).collect()
}

/// Modality and name of a task's group.
fn parts(task: &TaskColumn) -> Option<(Option<&str>, &str)> {
    let group = task.group.as_deref()?;
    Some(match group.rsplit_once('/') {
        Some((modality, name)) => (Some(modality), name),
        None => (None, group),
    })
}

fn of_modality(
    matrix: &ScoreMatrix,
    modality: Option<&str>,
    names: [&str; 3],
) -> Result<Vec<Synergy>> {
    let named = |name: &str| {
        let tasks = matrix.tasks().iter().enumerate();
        let tasks = tasks.filter(|(_, t)| {
            parts(t).is_some_and(|(m, n)| n == name && (m.is_none() || m == modality))
        });
        tasks
            .map(|(at, task)| match (task.expert, task.direction) {
                (Some(best), Some(Direction::Higher)) => Ok((at, best)),
                _ => {
                    let lacks = format!("task {:?} lacks an expert or a direction up", task.name);
                    Err(EvalError::invalid(WHAT, lacks))
                }
            })
            .collect::<Result<Vec<_>>>()
    };
    let [c, g, l] = names;
    let groups = [named(c)?, named(g)?, named(l)?];
    let of = |system: usize| {
        let row = matrix.row(system);
        let [c, g, l] = groups.each_ref().map(|tasks| {
            let scores = tasks.iter().map(|&(t, best)| AgainstBest {
                score: row[t],
                best,
            });
            scores.collect::<Vec<_>>()
        });
        synergy(&c, &g, &l)
    };
    (0..matrix.systems().len()).map(of).collect()
}

/// Mean of the levels over modalities.
///
/// # Errors
/// No modality.
pub fn over_modalities(modalities: &[Synergy]) -> Result<Synergy> {
    if modalities.is_empty() {
        return Err(EvalError::Empty { what: WHAT });
    }
    let of = |level: fn(&Synergy) -> f64| mean(modalities.iter().map(level));
    Ok(Synergy {
        level_2: of(|s| s.level_2),
        level_3: of(|s| s.level_3),
        level_4: of(|s| s.level_4),
        level_5: of(|s| s.level_5),
    })
}

#[cfg(test)]
mod tests {
    use super::super::matrix::tests::matrix;
    use super::*;

    fn group(scores: &[(f64, f64)]) -> Vec<AgainstBest> {
        let one = |&(score, best): &(f64, f64)| AgainstBest { score, best };
        scores.iter().map(one).collect()
    }

    #[test]
    fn by_hand() {
        let comprehension = group(&[(80.0, 70.0), (f64::NAN, 50.0)]);
        let generation = group(&[(60.0, 60.0), (60.0, 90.0)]);
        let language = group(&[(50.0, 40.0)]);
        let found = synergy(&comprehension, &generation, &language).unwrap();
        // Means 40 and 60; of what reaches the specialist 40 and 30.
        assert_eq!((found.level_2, found.level_3), (50.0, 35.0));
        assert!((found.level_4 - 2400.0 / 70.0).abs() < 1e-12);
        assert!((found.level_5 - 1200.0 / 70.0).abs() < 1e-12);
        let none = synergy(&group(&[(1.0, 2.0)]), &generation, &language).unwrap();
        assert_eq!((none.level_4, none.level_5), (0.0, 0.0));
        let both = over_modalities(&[found, none]).unwrap();
        assert_eq!(both.level_3, f64::midpoint(35.0, 15.0));
        assert!(over_modalities(&[]).is_err());
    }

    #[test]
    fn bad_groups_are_refused() {
        let fine = group(&[(1.0, 1.0)]);
        assert!(synergy(&fine, &[], &fine).is_err());
        assert!(synergy(&fine, &fine, &group(&[(101.0, 1.0)])).is_err());
        assert!(synergy(&fine, &fine, &group(&[(1.0, f64::NAN)])).is_err());
    }

    #[test]
    fn from_a_matrix() {
        let m = matrix(&[&[80.0, 60.0, 50.0], &[10.0, 60.0, 50.0]], &[]);
        let mut tasks = m.tasks().to_vec();
        for (task, (group, expert)) in tasks
            .iter_mut()
            .zip([("c", 70.0), ("g", 60.0), ("l", 40.0)])
        {
            (task.group, task.expert) = (Some(group.into()), Some(expert));
        }
        let cells = [m.row(0), m.row(1)].concat();
        let m = ScoreMatrix::new(m.systems().to_vec(), tasks, cells).unwrap();
        let found = synergy_of_matrix(&m, "c", "g", "l").unwrap();
        assert_eq!((found[0].level_3, found[1].level_3), (70.0, 30.0));
        assert!(synergy_of_matrix(&m, "c", "g", "x").is_err());
    }

    #[test]
    fn modalities_are_averaged_and_share_language() {
        let m = matrix(&[&[80.0, 60.0, 40.0, 20.0, 50.0]], &[]);
        let mut tasks = m.tasks().to_vec();
        let groups = ["image/c", "image/g", "video/c", "video/g", "l"];
        for (task, group) in tasks.iter_mut().zip(groups) {
            (task.group, task.expert) = (Some(group.into()), Some(40.0));
        }
        let m = ScoreMatrix::new(m.systems().to_vec(), tasks.clone(), m.row(0).to_vec()).unwrap();
        let found = synergy_of_matrix(&m, "c", "g", "l").unwrap()[0];
        // Image: 70, harmonic mean 480/7; video: 30, of what reaches its specialist 20 and nothing.
        assert_eq!(
            (found.level_2, found.level_3),
            (50.0, f64::midpoint(70.0, 20.0))
        );
        assert!((found.level_4 - 480.0 / 14.0).abs() < 1e-12);
        assert!((found.level_5 - 240.0 / 14.0).abs() < 1e-12);
        tasks[3].group = Some("l".into());
        let m = ScoreMatrix::new(m.systems().to_vec(), tasks, m.row(0).to_vec()).unwrap();
        let told = synergy_of_matrix(&m, "c", "g", "l")
            .unwrap_err()
            .to_string();
        assert!(told.contains("\"video\""), "{told}");
    }
}
