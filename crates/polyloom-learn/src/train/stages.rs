//! Stages of a run: which tasks learn when, from how many of their rows, at which rate, all weights or the heads alone.
//!
//! Dual-stage mixed fine-tuning (DMT, Dong et al., ACL 2024) is two of them: special tasks, then general ones with a share of the
//! special rows. A curriculum (CPF, of VTDNet) is one for every task that comes in, and a last one for the heads alone. Each stage
//! has a schedule of its own and begins with an optimiser that remembers nothing, as the runs do that the papers chain.

use polyloom::MergeError;
use polyloom_core::rng::Stream;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::mixing::Mixer;
use super::recipe::{Method, Recipe, Sampling, Train};
use super::sampler::{Sampler, order};
use super::schedule::Schedule;
use super::told::Told;
use crate::error::Result;

/// `[[train.stage]]`.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct StageRecipe {
    /// Ids of its tasks, among `train.tasks`; all of them where none is named.
    pub tasks: Vec<String>,
    /// Share of the rows of those tasks that an earlier stage had.
    pub again: f64,
    /// Times that its rows are seen; those of the run where neither this nor `steps` is given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub epochs: Option<f64>,
    /// Steps.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub steps: Option<u32>,
    /// Highest learning rate; that of the run where nothing is said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate: Option<f64>,
    /// What all goals share stays; the heads learn.
    pub heads: bool,
}

impl Default for StageRecipe {
    fn default() -> Self {
        Self {
            tasks: Vec::new(),
            again: 1.0,
            epochs: None,
            steps: None,
            rate: None,
            heads: false,
        }
    }
}

/// Whether the keys about stages go together.
///
/// # Errors
/// The first that does not.
pub(super) fn check(t: &Train) -> std::result::Result<(), MergeError> {
    let bad = |what: String, hint: &str| Err(MergeError::plan("bad-recipe", what).hint(hint));
    if t.stage.is_empty() {
        return Ok(());
    }
    let others = [
        ("each", t.each),
        ("patience", t.patience > 0),
        ("steps", t.steps.is_some()),
        ("[train.balance]", t.balance.is_some()),
        ("sampling = \"mpts\"", t.sampling == Sampling::Mpts),
    ];
    if let Some((name, _)) = others.iter().find(|(_, said)| *said) {
        return bad(
            format!("`[[train.stage]]` does not go with `{name}`"),
            "stages have steps, epochs and a rate of their own, and several tasks",
        );
    }
    for (i, s) in t.stage.iter().enumerate() {
        let at = format!("`train.stage` {}", i + 1);
        if !(s.again > 0.0 && s.again <= 1.0) {
            let what = format!(
                "{at}: `again` is {}; it must be above 0 and at most 1",
                s.again
            );
            return bad(what, "1 for all rows");
        }
        if s.epochs.is_some() && s.steps.is_some() {
            return bad(
                format!("{at} has both `epochs` and `steps`"),
                "give one of them",
            );
        }
        let positive = |x: Option<f64>| x.is_none_or(|x| x > 0.0 && x.is_finite());
        if s.steps == Some(0) || !positive(s.epochs) || !positive(s.rate) {
            return bad(
                format!("{at}: `steps`, `epochs` and `rate` must be above 0"),
                "",
            );
        }
        if s.heads && (t.head.frozen || t.language.is_some() || t.method == Method::Head) {
            return bad(
                format!(
                    "{at}: `heads` lets the heads alone learn; they stay, are all that learns, or are not there"
                ),
                "leave out `heads`, or head.frozen, method = \"head\" or [train.language]",
            );
        }
    }
    Ok(())
}

/// A stage of a run, or the whole of one without stages.
pub(super) struct Stage {
    /// Its steps: from, to.
    pub steps: [u32; 2],
    /// Whether each task is in it.
    pub here: Vec<bool>,
    /// The heads alone learn.
    pub heads: bool,
    /// Learning rates, by step of the stage.
    pub schedule: Schedule,
    /// Rows that it has of each task, where not all.
    chosen: Vec<Option<Vec<u32>>>,
    sizes: Vec<usize>,
    seed: u64,
    /// Steps in which its rows are seen once.
    pub per_epoch: f64,
}

impl Stage {
    /// Its tasks, and the rows of them.
    pub(super) fn mixer(&self, recipe: &Recipe, weights: &[f64]) -> Result<Mixer> {
        let sizes: Vec<u64> = self.sizes.iter().map(|n| *n as u64).collect();
        Mixer::new(recipe, &sizes, weights, &self.here)
    }

    /// A sampler of its rows, before the first of them is drawn.
    pub(super) fn sampler(&self, mixer: &Mixer) -> Sampler {
        Sampler::new(self.sizes.clone(), &mixer.shares, self.seed)
    }

    /// The rows of the tasks that drawn places stand for.
    pub(super) fn rows(&self, mut drawn: Vec<Vec<u32>>) -> Vec<Vec<u32>> {
        for (places, chosen) in drawn.iter_mut().zip(&self.chosen) {
            if let Some(chosen) = chosen {
                places.iter_mut().for_each(|p| *p = chosen[*p as usize]);
            }
        }
        drawn
    }

    /// What is told when it begins: its number, from 1, of so many.
    pub(super) fn told(&self, number: usize, count: usize, ids: &[String]) -> Told {
        let here = ids.iter().zip(&self.here).filter(|(_, h)| **h);
        Told::Stage {
            number: (number, count),
            tasks: here.map(|(id, _)| id.clone()).collect(),
            steps: self.schedule.steps,
            heads: self.heads,
        }
    }

    /// The same as a line of the log, which belongs to its first step.
    pub(super) fn line(&self, told: &Told, step: u32, time: f64) -> serde_json::Value {
        let Told::Stage { number, tasks, .. } = told else {
            return serde_json::Value::Null;
        };
        json!({"type": "stage", "step": step, "stage": number.0, "tasks": tasks, "steps": self.schedule.steps, "heads": self.heads, "time": time})
    }

    /// How often the rows of each task, `rows` in all, will be seen in it on average.
    pub(super) fn epochs(
        &self,
        recipe: &Recipe,
        mixer: &Mixer,
        rows: &[usize],
    ) -> Option<Vec<f64>> {
        let [from, to] = self.steps;
        mixer.epochs(recipe, rows, to - from)
    }
}

/// The stages of a run: `ids` and `rows` of its tasks.
///
/// # Errors
/// A task that is not one of the run's, tasks that no stage has.
pub(super) fn stages(recipe: &Recipe, ids: &[String], rows: &[usize]) -> Result<Vec<Stage>> {
    let t = &recipe.train;
    let whole = [StageRecipe {
        steps: t.steps,
        ..StageRecipe::default()
    }];
    let all = match t.stage.is_empty() {
        true => &whole[..],
        false => &t.stage[..],
    };
    let bad =
        |what: String, hint: String| Err(MergeError::plan("bad-recipe", what).hint(hint).into());
    let mut seen = vec![false; ids.len()];
    let mut found: Vec<Stage> = Vec::new();
    for (number, stage) in all.iter().enumerate() {
        if let Some(other) = stage.tasks.iter().find(|n| !ids.contains(n)) {
            return bad(
                format!(
                    "`train.stage` {}: `{other}` is none of the run's tasks",
                    number + 1
                ),
                format!("its tasks: {}", ids.join(", ")),
            );
        }
        let here: Vec<bool> = ids
            .iter()
            .map(|id| stage.tasks.is_empty() || stage.tasks.contains(id))
            .collect();
        let seed = match number {
            0 => recipe.seed,
            n => Stream::new(recipe.seed, "train stage", n as u64).bits(0),
        };
        let part = |(task, n): (usize, &usize)| {
            let again = here[task] && seen[task] && stage.again < 1.0;
            again.then(|| {
                let count = ((*n as f64 * stage.again).round() as usize).clamp(1, *n);
                let mut of = order(*n, seed, task, u64::from(u32::MAX));
                of.truncate(count);
                of.sort_unstable();
                of
            })
        };
        let chosen: Vec<Option<Vec<u32>>> = rows.iter().enumerate().map(part).collect();
        let sizes: Vec<usize> = chosen
            .iter()
            .zip(rows)
            .map(|(chosen, n)| chosen.as_ref().map_or(*n, Vec::len))
            .collect();
        let of_here = sizes.iter().zip(&here).filter(|(_, here)| **here);
        let total: usize = of_here.map(|(n, _)| *n).sum();
        let per_epoch = (total.div_ceil(t.batch) as f64 / f64::from(t.accumulate)).max(1.0);
        let steps = stage.steps.unwrap_or_else(|| {
            let epochs = stage.epochs.or(t.epochs).unwrap_or(3.0);
            (epochs * per_epoch).ceil().clamp(1.0, f64::from(u32::MAX)) as u32
        });
        let from = found.last().map_or(0, |s| s.steps[1]);
        let warm = match t.warmup {
            w if w < 1.0 => (w * f64::from(steps)).round() as u32,
            w => w as u32,
        };
        seen.iter_mut().zip(&here).for_each(|(s, h)| *s |= h);
        found.push(Stage {
            steps: [from, from.saturating_add(steps)],
            here,
            heads: stage.heads,
            schedule: Schedule {
                rate: stage.rate.unwrap_or_else(|| recipe.rate()) as f32,
                warm,
                steps,
                shape: t.schedule,
            },
            chosen,
            sizes,
            seed,
            per_epoch,
        });
    }
    if let Some(id) = ids.iter().zip(&seen).find(|(_, s)| !**s).map(|(id, _)| id) {
        return bad(
            format!("no `[[train.stage]]` has the task `{id}`"),
            "name it in a stage, or leave it out of train.tasks".into(),
        );
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recipe(more: &str) -> Recipe {
        let text = format!(
            "seed = 2\n[base]\npath = \"m\"\n[train]\ntasks = [\"a\", \"b\"]\nbatch = 10\n{more}"
        );
        Recipe::read(&text, "f", &[]).unwrap()
    }

    fn ids() -> Vec<String> {
        vec!["a".into(), "b".into()]
    }

    #[test]
    fn a_run_without_stages_is_one() {
        let all = stages(&recipe("epochs = 2\naccumulate = 2\n"), &ids(), &[55, 20]).unwrap();
        assert_eq!(all.len(), 1);
        // 75 rows are 8 passes, 4 steps an epoch.
        assert_eq!(
            (all[0].steps, all[0].per_epoch, all[0].seed),
            ([0, 8], 4.0, 2)
        );
        assert_eq!(all[0].here, [true, true]);
    }

    #[test]
    fn a_later_stage_has_a_share_of_the_rows_again() {
        let text = "[[train.stage]]\ntasks = [\"a\"]\nsteps = 5\nrate = 0.5\n\
                    [[train.stage]]\nagain = 0.25\nepochs = 1\n\
                    [[train.stage]]\ntasks = [\"b\"]\nheads = true\nsteps = 3\n";
        let all = stages(&recipe(text), &ids(), &[40, 20]).unwrap();
        let steps: Vec<[u32; 2]> = all.iter().map(|s| s.steps).collect();
        // 10 of the rows of `a` and 20 of `b`.
        assert_eq!(steps, [[0, 5], [5, 8], [8, 11]]);
        assert_eq!(all[1].sizes, [10, 20]);
        let chosen = all[1].chosen[0].as_ref().unwrap();
        assert!(chosen.is_sorted_by(|a, b| a < b) && chosen.iter().all(|r| *r < 40));
        assert!(all[1].chosen[1].is_none() && all[2].heads);
        assert_eq!(
            all[1].rows(vec![vec![0, 9], vec![7]]),
            [vec![chosen[0], chosen[9]], vec![7]]
        );
        assert_eq!(all[0].schedule.rate, 0.5);
        let first = all[0].mixer(&recipe(text), &[1.0, 1.0]).unwrap();
        assert_eq!(first.shares, [1.0, 0.0]);
        let mut sampler = all[0].sampler(&first);
        for _ in 0..5 {
            let drawn = sampler.next(10);
            assert_eq!((drawn[0].len(), drawn[1].len()), (10, 0));
        }
        let told = |text: &str| {
            stages(&recipe(text), &ids(), &[4, 4])
                .err()
                .unwrap()
                .to_string()
        };
        assert!(told("[[train.stage]]\ntasks = [\"c\"]\n").contains("none of the run's tasks"));
        assert!(told("[[train.stage]]\ntasks = [\"a\"]\n").contains("has the task `b`"));
    }

    #[test]
    fn keys_that_do_not_go_together_are_refused() {
        let told = |more: &str, stage: &str| {
            let text = format!(
                "[base]\npath = \"m\"\n[train]\ntasks = [\"a\"]\n{more}[[train.stage]]\n{stage}"
            );
            Recipe::read(&text, "f", &[]).unwrap_err().to_string()
        };
        assert!(told("", "again = 0.0\n").contains("`again` is 0"));
        assert!(told("", "epochs = 1\nsteps = 2\n").contains("both `epochs` and `steps`"));
        assert!(told("", "steps = 0\n").contains("must be above 0"));
        assert!(told("patience = 2\n", "").contains("`patience`"));
        assert!(told("method = \"head\"\n", "heads = true\n").contains("are all that learns"));
        assert!(told("", "task = [\"a\"]\n").contains("unknown field `task`"));
    }
}
