//! How tasks make a step: rows of all of them mixed, or one task a step.

use polyloom::MergeError;
use polyloom::tasks::sample::{Draw, Policy, shares};
use polyloom_core::rng::Stream;
use serde::{Deserialize, Serialize};

use super::mpts::Mpts;
use super::optimiser::{Apart, Tables, Turn};
use super::recipe::{OptimiserName, Recipe, Sampling, Train};
use super::sampler::shared_out;
use crate::error::Result;

/// How tasks make a step: the recipe's `mixing`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Mixing {
    /// Every row of a pass is of a task that is drawn for it.
    #[default]
    Batch,
    /// All rows of a step are of one task, drawn by `sampling`; one optimiser for all of them, no mixing of losses (IMP,
    /// Akbari et al., NeurIPS 2023).
    Alternate,
    /// The same, corrected so that the mean step is that of mixed training (unmixed sampling, Li et al., CVPR 2023; the rule
    /// is our own): the gradient counts `w_t / p_t`.
    Unmixed,
}

/// Whose moments Adam keeps where a step is of one task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Moments {
    /// One pair for all tasks.
    Shared,
    /// A pair for every task.
    PerTask,
}

impl Train {
    /// Whose moments are kept.
    #[must_use]
    pub fn moments(&self) -> Moments {
        self.moments.unwrap_or(match self.mixing {
            Mixing::Unmixed if self.is_adam() => Moments::PerTask,
            _ => Moments::Shared,
        })
    }

    fn is_adam(&self) -> bool {
        matches!(self.optimiser, OptimiserName::Adamw | OptimiserName::Adam)
    }
}

/// Some entries.
fn some<T: Copy>(all: &[T], of: &[usize]) -> Vec<T> {
    of.iter().map(|i| all[*i]).collect()
}

/// Shares of some tasks, 0 for the others.
fn among(
    here: &[bool],
    shares: impl FnOnce(&[usize]) -> std::result::Result<Vec<f64>, MergeError>,
) -> std::result::Result<Vec<f64>, MergeError> {
    let of: Vec<usize> = (0..here.len()).filter(|t| here[*t]).collect();
    let mut found = vec![0.0; here.len()];
    for (task, share) in of.iter().zip(shares(&of)?) {
        found[*task] = share;
    }
    Ok(found)
}

/// Whether the keys about mixing go together.
///
/// # Errors
/// The first that does not.
pub(super) fn check(t: &Train) -> std::result::Result<(), MergeError> {
    let bad = |what: &str, hint: &str| Err(MergeError::plan("bad-recipe", what).hint(hint));
    if t.mixing == Mixing::Batch && t.moments.is_some() {
        return bad(
            "`train.moments` is about steps of one task; the rows of a step are mixed",
            "train.mixing = \"alternate\" or \"unmixed\"",
        );
    }
    if t.mixing != Mixing::Batch && t.each {
        return bad(
            "`train.mixing` is about tasks that are learned together; `each` learns them apart",
            "leave out one of them",
        );
    }
    if t.moments() == Moments::PerTask {
        if !t.is_adam() {
            return bad(
                "`train.moments = \"per_task\"` keeps moments of Adam",
                "train.optimiser = \"adamw\" or \"adam\", or moments = \"shared\"",
            );
        }
        if t.embedding_update == Tables::Lazy {
            return bad(
                "`train.moments = \"per_task\"` moves all parameters at every step, `embedding_update = \"lazy\"` does not",
                "train.embedding_update = \"dense\", or moments = \"shared\"",
            );
        }
    }
    if t.balance.is_some() && (t.mixing != Mixing::Batch || t.sampling == Sampling::Mpts) {
        return bad(
            "`train.balance` needs rows of every task in every step; `train.mixing` and `sampling = \"mpts\"` choose some",
            "leave out [train.balance], or take mixing = \"batch\" and another sampling",
        );
    }
    if t.sampling == Sampling::Mpts {
        if t.mixing == Mixing::Unmixed {
            return bad(
                "`sampling = \"mpts\"` chooses tasks by their risk; `mixing = \"unmixed\"` divides by how likely a task is drawn, which is not known then",
                "train.mixing = \"batch\" or \"alternate\"",
            );
        }
        if t.each {
            return bad(
                "`sampling = \"mpts\"` chooses among tasks; `each` learns them apart",
                "leave out one of them",
            );
        }
    } else if t.mpts.is_some() {
        return bad(
            "`[train.mpts]` is about `sampling = \"mpts\"`",
            "train.sampling = \"mpts\", or leave the table out",
        );
    }
    t.mpts.as_ref().map_or(Ok(()), |m| m.check(t))
}

/// Which tasks a step is of.
pub(super) struct Mixer {
    /// Shares of the tasks' rows, of sum 1.
    pub shares: Vec<f64>,
    weights: Vec<f64>,
    mixing: Mixing,
    moments: Moments,
    batch: usize,
    turns: Draw,
    /// Chooses tasks by their risk.
    pub mpts: Option<Mpts>,
}

/// What a step draws.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Plan {
    /// Rows of every task in a pass; nothing where every row draws its task.
    pub quota: Option<Vec<usize>>,
    /// Whose step it is.
    pub turn: Turn,
}

impl Mixer {
    /// Of a run or a stage: `rows` of its tasks, `weights` those of their specs, and which of them it has.
    ///
    /// # Errors
    /// A task without rows, a weight that is not above 0, fewer rows in a pass than tasks that are chosen for it.
    pub(super) fn new(
        recipe: &Recipe,
        rows: &[u64],
        weights: &[f64],
        here: &[bool],
    ) -> Result<Self> {
        let t = &recipe.train;
        let ones = vec![1.0; weights.len()];
        // Unmixed, a task's weight is that of its loss, not of its turns.
        let drawn = match t.mixing {
            Mixing::Unmixed => &ones[..],
            _ => weights,
        };
        let found = among(here, |of| {
            shares(&some(rows, of), &some(drawn, of), t.cap, recipe.policy()?)
        })?;
        let mpts = match t.sampling {
            Sampling::Mpts if rows.len() > 1 => Some(Mpts::new(recipe, rows.len())?),
            Sampling::Mpts => {
                let what = "`sampling = \"mpts\"` chooses among tasks; there is one";
                return Err(MergeError::plan("bad-recipe", what)
                    .hint("name a second task, or another sampling")
                    .into());
            }
            _ => None,
        };
        let stream = Stream::new(recipe.seed, "train turns", 0);
        Ok(Self {
            turns: Draw::new(&found, stream),
            weights: among(here, |of| {
                shares(
                    &vec![1; of.len()],
                    &some(weights, of),
                    None,
                    Policy::Uniform,
                )
            })?,
            shares: found,
            mixing: t.mixing,
            moments: t.moments(),
            batch: t.batch,
            mpts,
        })
    }

    /// Moments by task, where they are kept so.
    pub(super) fn apart(&self) -> Option<Apart> {
        (self.moments == Moments::PerTask).then(|| Apart {
            weights: self.weights.clone(),
            shares: self.shares.clone(),
            all: self.mixing == Mixing::Unmixed,
            steps: vec![0; self.shares.len()],
        })
    }

    /// What a step draws, from 0.
    ///
    /// # Errors
    /// What the risk learner reports.
    pub(super) fn plan(&self, step: u32) -> Result<Plan> {
        let chosen = match (&self.mpts, self.mixing) {
            (Some(mpts), _) => mpts.choose(step, &self.shares)?,
            (None, Mixing::Batch) => {
                return Ok(Plan {
                    quota: None,
                    turn: Turn::default(),
                });
            }
            (None, _) => vec![self.turns.at(u64::from(step))],
        };
        let mut quota = vec![0; self.shares.len()];
        let even = vec![1.0; chosen.len()];
        let of_each = shared_out(self.batch, &even).unwrap_or_default();
        for (task, n) in chosen.iter().zip(of_each) {
            quota[*task] = n;
        }
        let task = chosen.first().copied().unwrap_or(0);
        let factor = match (self.mixing, self.moments) {
            (Mixing::Unmixed, Moments::Shared) => self.weights[task] / self.shares[task],
            _ => 1.0,
        };
        Ok(Plan {
            quota: Some(quota),
            turn: Turn {
                task,
                factor: factor as f32,
            },
        })
    }

    /// How often the rows of every task will be seen in some steps of so many passes, as far as it is known before:
    /// nothing where tasks are chosen by their risk. With a balancer a task has at least one row in every pass.
    pub(super) fn epochs(&self, recipe: &Recipe, rows: &[usize], steps: u32) -> Option<Vec<f64>> {
        if self.mpts.is_some() {
            return None;
        }
        let passes = f64::from(steps) * f64::from(recipe.train.accumulate);
        let quota = match recipe.train.balance {
            Some(_) => shared_out(self.batch, &self.shares),
            None => None,
        };
        let of = |(t, n): (usize, &usize)| {
            let drawn = match &quota {
                Some(quota) => quota[t] as f64,
                None => self.batch as f64 * self.shares[t],
            };
            passes * drawn / (*n).max(1) as f64
        };
        Some(rows.iter().enumerate().map(of).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recipe(more: &str) -> Recipe {
        let text = format!("[base]\npath = \"m\"\n[train]\ntasks = [\"a\"]\nbatch = 10\n{more}");
        Recipe::read(&text, "f", &[]).unwrap()
    }

    #[test]
    fn a_step_is_of_one_task_drawn_by_its_share() {
        let mixed = recipe("mixing = \"alternate\"\nsampling = \"square-root\"\n");
        let mixer = Mixer::new(&mixed, &[100, 900], &[1.0, 1.0], &[true; 2]).unwrap();
        assert_eq!(mixer.shares, [0.25, 0.75]);
        let plans: Vec<Plan> = (0..400).map(|s| mixer.plan(s).unwrap()).collect();
        let second = plans.iter().filter(|p| p.turn.task == 1).count();
        assert!((270..330).contains(&second), "{second}");
        for plan in &plans {
            let wanted = if plan.turn.task == 0 {
                [10, 0]
            } else {
                [0, 10]
            };
            assert_eq!(
                (plan.quota.as_deref(), plan.turn.factor),
                (Some(&wanted[..]), 1.0)
            );
        }
        // 200 steps of 10 rows: 500 of the first, 1500 of the second.
        let one = Mixer::new(&mixed, &[100, 900], &[1.0, 1.0], &[false, true]).unwrap();
        assert_eq!(
            (&one.shares[..], one.plan(7).unwrap().turn.task),
            (&[0.0, 1.0][..], 1)
        );
        let epochs = mixer.epochs(&mixed, &[100, 900], 200).unwrap();
        assert!((epochs[0] - 5.0).abs() < 1e-9 && (epochs[1] - 5.0 / 3.0).abs() < 1e-9);
        assert!(mixer.apart().is_none());
    }

    #[test]
    fn unmixed_gradients_count_weight_over_share() {
        // Shares are those of the rows, weights those of the losses: 3 to 1.
        let shared = recipe("mixing = \"unmixed\"\nmoments = \"shared\"\n");
        let mixer = Mixer::new(&shared, &[100, 300], &[3.0, 1.0], &[true; 2]).unwrap();
        assert_eq!(mixer.shares, [0.25, 0.75]);
        for step in 0..20 {
            let turn = mixer.plan(step).unwrap().turn;
            let wanted = if turn.task == 0 { 3.0 } else { 1.0 / 3.0 };
            assert!((turn.factor - wanted).abs() < 1e-6);
        }
        let own = Mixer::new(
            &recipe("mixing = \"unmixed\"\n"),
            &[100, 300],
            &[3.0, 1.0],
            &[true; 2],
        )
        .unwrap();
        let apart = own.apart().unwrap();
        assert!(apart.all && apart.weights == [0.75, 0.25] && apart.shares == [0.25, 0.75]);
        assert_eq!(own.plan(3).unwrap().turn.factor, 1.0);
    }

    #[test]
    fn keys_that_do_not_go_together_are_refused() {
        let told = |more: &str| {
            let text = format!("[base]\npath = \"m\"\n[train]\ntasks = [\"a\"]\n{more}");
            Recipe::read(&text, "f", &[]).unwrap_err().to_string()
        };
        assert!(told("moments = \"shared\"\n").contains("steps of one task"));
        let alone = "mixing = \"alternate\"\nmoments = \"per_task\"\n";
        assert!(told(&format!("{alone}optimiser = \"sgd\"\n")).contains("moments of Adam"));
        assert!(told(&format!("{alone}embedding_update = \"lazy\"\n")).contains("at every step"));
        assert!(told("mixing = \"unmixed\"\nsampling = \"mpts\"\n").contains("not known then"));
        assert!(told("mixing = \"alternate\"\neach = true\n").contains("learns them apart"));
        assert!(told("[train.mpts]\nselect = 2\n").contains("is about `sampling"));
        let balance = "mixing = \"alternate\"\n[train.balance]\nmethod = \"mgda\"\n";
        assert!(told(balance).contains("rows of every task"));
        // SGD, unmixed, has no moments to keep apart.
        let sgd = recipe("mixing = \"unmixed\"\noptimiser = \"sgd\"\n");
        assert_eq!(sgd.train.moments(), Moments::Shared);
    }
}
