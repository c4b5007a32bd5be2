//! What the experts of a model of tables are used for, by its gates, over rows.
//!
//! The anomalies are those of Wang et al. 2024 (HoME, section 1): an expert that *collapses* gives zeros nearly always; a shared
//! expert *degrades* to one that a single goal uses; a goal *underfits* its own experts where it listens to shared ones
//! instead. Where each begins is ours ([`Limits`]), and so is *unused*.

use std::cell::RefCell;

use indexmap::IndexMap;
use polyloom::MergeError;
use polyloom::tasks::load::Loader;
use polyloom::tasks::spec::TaskSpec;

use super::evaluate::{Found, Run, Shelf};
use super::forward;
use super::head::Head;
use super::rows::{Reader, Shown};
use crate::engine::{Value, slice};
use crate::error::{Error, In, Result};
use crate::models::open::Trunk;
use crate::models::table::Watch;

/// Where an expert is called what.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limits {
    /// Share of zeros from which an expert is collapsed, 0 to 1.
    pub zeros: f64,
    /// Share of a shared expert's use by one of several goals from which it is degraded, 0 to 1.
    pub alone: f64,
    /// A goal's own experts are underfitted where they have less than this of the weight that they had if experts had equal
    /// ones.
    pub own: f64,
    /// An expert is unused where every gate gives it less than this of an equal weight.
    pub used: f64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            zeros: 0.9,
            alone: 0.8,
            own: 0.2,
            used: 0.1,
        }
    }
}

/// What is wrong with an expert, or with how a goal uses its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Anomaly {
    /// It gives zeros nearly always.
    Collapsed,
    /// It is shared, and one goal alone uses it.
    Degraded,
    /// It is a goal's own, which listens to shared ones instead.
    Underfitted,
    /// No gate listens to it.
    Unused,
}

/// An expert.
#[derive(Debug, Clone, PartialEq)]
pub struct Expert {
    /// Its place among those of its block.
    pub place: usize,
    /// Share of its outputs that are exactly zero, as ReLU makes them; 0 to 1.
    pub zeros: f64,
    /// Root of the mean square of its outputs.
    pub size: f64,
    /// Mean weight that each gate gives it, in the order of [`Block::gates`].
    pub weights: Vec<f64>,
    /// What is wrong with it.
    pub anomalies: Vec<Anomaly>,
}

/// Experts that stand side by side in a model.
#[derive(Debug, Clone, PartialEq)]
pub struct Block {
    /// The name of their tensors.
    pub name: String,
    /// Gates that weigh them, by name, with the goal whose gate it is.
    pub gates: Vec<(String, Option<usize>)>,
    /// The experts.
    pub experts: Vec<Expert>,
}

impl Block {
    /// Whether gates of several goals weigh it.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        let mut goals: Vec<usize> = self.gates.iter().filter_map(|g| g.1).collect();
        goals.sort_unstable();
        goals.dedup();
        goals.len() > 1
    }
}

/// A gate.
#[derive(Debug, Clone, PartialEq)]
pub struct Gate {
    /// Its name.
    pub name: String,
    /// The goal whose gate it is, if it is of one.
    pub goal: Option<usize>,
    /// Rows that it was asked for.
    pub rows: u64,
    /// Experts that it weighs.
    pub experts: usize,
    /// Mean over rows of the entropy of its weights, over that of equal ones: 0 where each row has one expert, 1 where all
    /// count alike.
    pub entropy: f64,
    /// The same of its mean weights: 0 where all rows have the same expert.
    pub spread: f64,
}

/// What was found.
#[derive(Debug, Clone, PartialEq)]
pub struct Experts {
    /// Rows that were looked at.
    pub rows: usize,
    /// The model's goals.
    pub goals: Vec<String>,
    /// Gates, in the order in which a pass meets them.
    pub gates: Vec<Gate>,
    /// Experts, in the order in which a pass meets them.
    pub blocks: Vec<Block>,
}

/// Sums of a gate.
#[derive(Default)]
struct Sums {
    rows: u64,
    weights: Vec<f64>,
    entropy: f64,
    /// Of each part: its name and its experts.
    parts: Vec<(String, usize)>,
}

/// Sums of the outputs of experts.
#[derive(Default)]
struct Outputs {
    numbers: u64,
    zeros: Vec<u64>,
    squares: Vec<f64>,
}

/// Sums what gates and experts do.
#[derive(Default)]
struct Seen {
    gates: RefCell<IndexMap<String, Sums>>,
    blocks: RefCell<IndexMap<String, Outputs>>,
}

impl Watch for Seen {
    fn mixed(&self, gate: &str, weights: &Value, parts: &[(&str, &Value)]) -> Result<()> {
        let [rows, experts] = *weights.dims() else {
            return Err(Error::shape("experts", "weights that are no matrix"));
        };
        let total: usize = parts.iter().map(|(_, x)| x.dims()[1]).sum();
        if experts == 0 || !total.is_multiple_of(experts) {
            return Err(Error::shape("experts", "experts of unequal width"));
        }
        let width = total / experts;
        let mut gates = self.gates.borrow_mut();
        let sums = gates.entry(gate.to_owned()).or_default();
        if sums.weights.is_empty() {
            sums.weights = vec![0.0; experts];
            let part = |(name, x): &(&str, &Value)| ((*name).to_owned(), x.dims()[1] / width);
            sums.parts = parts.iter().map(part).collect();
        }
        let data = weights.data().contiguous().during("experts")?;
        let list = slice(&data)?;
        for row in list.chunks(experts) {
            let whole: f64 = row.iter().map(|w| f64::from(*w)).sum();
            for (sum, w) in sums.weights.iter_mut().zip(row) {
                let w = f64::from(*w);
                *sum += w;
                // Gates of one expert are no distribution: its weight is as it is.
                if w > 0.0 && experts > 1 {
                    sums.entropy -= w / whole * (w / whole).ln();
                }
            }
        }
        sums.rows += rows as u64;
        let mut blocks = self.blocks.borrow_mut();
        for (name, x) in parts {
            let own = x.dims()[1] / width;
            let block = blocks.entry((*name).to_owned()).or_default();
            block.zeros.resize(own, 0);
            block.squares.resize(own, 0.0);
            block.numbers += (rows * width) as u64;
            let data = x.data().contiguous().during("experts")?;
            let list = slice(&data)?;
            for (i, values) in list.chunks(width).enumerate() {
                let expert = i % own;
                block.zeros[expert] += values.iter().filter(|x| **x == 0.0).count() as u64;
                let squares = values.iter().map(|x| f64::from(*x).powi(2));
                block.squares[expert] += squares.sum::<f64>();
            }
        }
        Ok(())
    }
}

/// The goal in the name of a gate: `goals.3.gate`, `levels.0.tasks.3.gate`.
fn goal_of(name: &str) -> Option<usize> {
    let parts: Vec<&str> = name.split('.').collect();
    let mut pairs = parts.windows(2);
    pairs.find_map(|pair| match pair {
        ["goals" | "tasks", number] => number.parse().ok(),
        _ => None,
    })
}

impl Seen {
    /// What the sums come to.
    fn told(self, rows: usize, goals: Vec<String>, limits: Limits) -> Experts {
        let sums = self.gates.into_inner();
        let entropy = |weights: &[f64]| {
            let whole: f64 = weights.iter().sum();
            let part = |w: &f64| match *w > 0.0 {
                true => -(w / whole) * (w / whole).ln(),
                false => 0.0,
            };
            weights.iter().map(part).sum::<f64>()
        };
        let gate = |(name, sums): (&String, &Sums)| {
            let most = (sums.weights.len() as f64).ln();
            let of_most = |x: f64| if most > 0.0 { x / most } else { 1.0 };
            Gate {
                name: name.clone(),
                goal: goal_of(name),
                rows: sums.rows,
                experts: sums.weights.len(),
                entropy: of_most(sums.entropy / sums.rows as f64),
                spread: of_most(entropy(&sums.weights)),
            }
        };
        let gates = sums.iter().map(gate).collect();
        let block = |(name, outputs): (String, Outputs)| {
            // Of every gate that weighs it: the gate, the mean weights of its experts, and how many experts the gate has.
            let mut of = Vec::new();
            for (gate, sums) in &sums {
                let mut at = 0;
                for (part, count) in &sums.parts {
                    if *part == name {
                        let means = &sums.weights[at..at + count];
                        let means: Vec<f64> = means.iter().map(|w| w / sums.rows as f64).collect();
                        of.push((gate, means, sums.weights.len()));
                    }
                    at += count;
                }
            }
            let expert = |place: usize| Expert {
                place,
                zeros: outputs.zeros[place] as f64 / outputs.numbers as f64,
                size: (outputs.squares[place] / outputs.numbers as f64).sqrt(),
                weights: of.iter().map(|(_, means, _)| means[place]).collect(),
                anomalies: Vec::new(),
            };
            let mut block = Block {
                gates: of
                    .iter()
                    .map(|(g, ..)| ((*g).clone(), goal_of(g)))
                    .collect(),
                experts: (0..outputs.zeros.len()).map(expert).collect(),
                name,
            };
            let sizes: Vec<usize> = of.iter().map(|(.., experts)| *experts).collect();
            judge(&mut block, &sizes, limits);
            block
        };
        let blocks = self.blocks.into_inner().into_iter().map(block).collect();
        Experts {
            rows,
            goals,
            gates,
            blocks,
        }
    }
}

/// Says what is wrong with the experts of a block, of whose gates each has so many experts.
fn judge(block: &mut Block, sizes: &[usize], limits: Limits) {
    let shared = block.is_shared();
    let goals: Vec<Option<usize>> = block.gates.iter().map(|g| g.1).collect();
    let own = block.experts.len();
    // The weight that a goal gives its own experts together, where its gate has others too.
    let together = |gate: usize| block.experts.iter().map(|e| e.weights[gate]).sum::<f64>();
    let underfitted = !shared
        && goals.iter().enumerate().any(|(gate, goal)| {
            let fair = own as f64 / sizes[gate] as f64;
            goal.is_some() && sizes[gate] > own && together(gate) < limits.own * fair
        });
    for expert in &mut block.experts {
        if expert.zeros > limits.zeros {
            expert.anomalies.push(Anomaly::Collapsed);
        }
        let listens = |(w, size): (&f64, &usize)| *w >= limits.used / *size as f64;
        let used = expert.weights.iter().zip(sizes).any(listens);
        if !used {
            expert.anomalies.push(Anomaly::Unused);
        } else if shared {
            let mut by_goal = std::collections::BTreeMap::new();
            for (goal, weight) in goals.iter().zip(&expert.weights) {
                if let Some(goal) = goal {
                    *by_goal.entry(goal).or_insert(0.0) += weight;
                }
            }
            let whole: f64 = by_goal.values().sum();
            let most = by_goal.values().copied().fold(0.0, f64::max);
            if most > limits.alone * whole {
                expert.anomalies.push(Anomaly::Degraded);
            }
        }
        if underfitted {
            expert.anomalies.push(Anomaly::Underfitted);
        }
    }
}

impl Run<'_> {
    /// How the gates of a model of tables use its experts over the rows of a split. One pass over the rows; the same for any
    /// number of threads.
    ///
    /// # Errors
    /// A model of another kind, one without gates over experts, and as [`Run::predict`].
    pub fn experts(
        &self,
        spec: &TaskSpec,
        loader: &Loader<'_>,
        (found, shelf): (&[Found], &mut Shelf),
        limits: Limits,
    ) -> Result<(Experts, Vec<String>)> {
        let no = |what: &str| {
            MergeError::plan("no-experts", what.to_owned())
                .at(self.model.0.display().to_string())
                .hint("architectures with gates over experts: mmoe, omoe, ple, home, dselect_k, dtrn, task_expert")
        };
        let Reader::Tables(preparation) = self.reader else {
            return Err(no("is no model of tables, and its layers have no experts").into());
        };
        let groups = preparation.groups().map(|g| g.values.len());
        let asked = self.ask(spec, loader, found, shelf)?;
        let Some(rows) = asked.rows.first() else {
            return Err(no("has no head for the task").into());
        };
        // Rows of a group that training did not have are of no goal.
        let shown: Vec<&Shown> = match groups {
            Some(_) => rows.shown.iter().filter(|s| s.has_goal()).collect(),
            None => rows.shown.iter().collect(),
        };
        let heads: Vec<&Head> = asked.heads.iter().collect();
        let (seen, goals) = self.ready.with(&heads, |model, source| {
            let Trunk::Table(table) = &model.trunk else {
                return Err(no("has no gates: its trees are not weighed").into());
            };
            if table.reads_sessions() {
                return Err(no("has no gates over experts").into());
            }
            let seen = Seen::default();
            for part in shown.chunks(self.batch.max(1)) {
                let of: Vec<u32> = part.iter().filter_map(|s| s.group()).collect();
                let own = groups.map(|n| (&*of, n));
                table.watched(source, &forward::rows(part)?, own, &seen)?;
            }
            Ok((seen, table.config.goals.clone()))
        })?;
        if seen.gates.borrow().is_empty() {
            return Err(no("has no gates over experts").into());
        }
        Ok((seen.told(shown.len(), goals, limits), asked.notes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::tensor;

    fn value(list: &[f32], shape: [usize; 2]) -> Value {
        Value::constant(tensor(list.to_vec(), (shape[0], shape[1])).unwrap())
    }

    /// Two rows, two shared experts of width 2 and one of each goal's own.
    fn seen(first: [&[f32]; 2]) -> Experts {
        let shared = value(&[1.0, 1.0, 0.0, 0.0, 3.0, 1.0, 0.0, 0.0], [2, 4]);
        let own = value(&[2.0, 0.0, 2.0, 0.0], [2, 2]);
        let seen = Seen::default();
        for (goal, weights) in first.into_iter().enumerate() {
            let name = format!("goals.{goal}.own");
            let parts = [("shared", &shared), (&*name, &own)];
            let gate = format!("goals.{goal}.gate");
            seen.mixed(&gate, &value(weights, [2, 3]), &parts).unwrap();
        }
        let goals = vec!["a".into(), "b".into()];
        seen.told(2, goals, Limits::default())
    }

    #[test]
    fn weights_zeros_and_sizes_by_hand() {
        let found = seen([
            &[0.5, 0.25, 0.25, 0.1, 0.4, 0.5],
            &[0.0, 0.0, 1.0, 0.0, 0.0, 1.0],
        ]);
        let [shared, first, second] = &found.blocks[..] else {
            panic!("{found:?}")
        };
        assert!(shared.is_shared() && !first.is_shared());
        let weights: Vec<f64> = shared.experts.iter().map(|e| e.weights[0]).collect();
        assert!((weights[0] - 0.3).abs() < 1e-7 && (weights[1] - 0.325).abs() < 1e-7);
        assert_eq!(
            (shared.experts[0].zeros, shared.experts[1].zeros),
            (0.0, 1.0)
        );
        assert!((shared.experts[0].size - 3f64.sqrt()).abs() < 1e-12);
        assert_eq!(
            (first.experts[0].zeros, first.experts[0].size),
            (0.5, 2f64.sqrt())
        );
        // The first is used by one goal alone, the second gives zeros beside that.
        use Anomaly::{Collapsed, Degraded};
        assert_eq!(shared.experts[0].anomalies, [Degraded]);
        assert_eq!(shared.experts[1].anomalies, [Collapsed, Degraded]);
        assert!(second.experts[0].anomalies.is_empty());
        let [a, b] = &found.gates[..] else {
            panic!("{found:?}")
        };
        let entropy = |w: [f64; 3]| w.iter().map(|w| -w * w.ln()).sum::<f64>() / 3f64.ln();
        let mean = f64::midpoint(entropy([0.5, 0.25, 0.25]), entropy([0.1, 0.4, 0.5]));
        assert!((a.entropy - mean).abs() < 1e-6);
        assert!((a.spread - entropy([0.3, 0.325, 0.375])).abs() < 1e-6);
        assert_eq!((b.entropy, b.spread, b.goal), (0.0, 0.0, Some(1)));
    }

    #[test]
    fn own_experts_that_nobody_hears_are_underfitted_and_unused() {
        let even = &[0.5, 0.47, 0.03, 0.5, 0.47, 0.03][..];
        let found = seen([even, even]);
        use Anomaly::{Collapsed, Underfitted, Unused};
        assert!(found.blocks[0].experts[0].anomalies.is_empty());
        assert_eq!(found.blocks[0].experts[1].anomalies, [Collapsed]);
        assert_eq!(found.blocks[1].experts[0].anomalies, [Unused, Underfitted]);
        let little = &[0.5, 0.45, 0.05, 0.5, 0.45, 0.05][..];
        assert_eq!(
            seen([little, even]).blocks[1].experts[0].anomalies,
            [Underfitted]
        );
    }

    #[test]
    fn goals_are_read_from_names() {
        assert_eq!(goal_of("levels.0.tasks.12.gate"), Some(12));
        assert_eq!(goal_of("goals.3.gates.1"), Some(3));
        assert_eq!(goal_of("meta.shared.gate"), None);
    }
}
