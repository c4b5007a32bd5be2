//! Choosing among saved systems by the loss that is predicted for each (Tryage, Hari and Thomson 2023), under constraints.

use indexmap::IndexMap;
use polyloom::MergeError;
use serde::{Deserialize, Serialize};

use super::points::Points;
use super::router::Decision;
use crate::error::Result;
use crate::tasks::HeadKind;
use crate::train::probe::{self, Seen, Target};

/// What systems cost: a value of each, in a unit of its own. Costs are divided by the largest before they are weighed.
pub type Costs = IndexMap<String, Vec<f64>>;

/// What a choice weighs beside the loss, and what it may not exceed.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Limits {
    /// Weights of costs: how much loss the largest cost is worth.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub weights: IndexMap<String, f64>,
    /// Costs that none may exceed, in their own units.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub most: IndexMap<String, f64>,
    /// Names of the systems that may be chosen; empty for all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allowed: Vec<String>,
}

/// `argmin loss + cost` over the systems that are `open`, for each row of losses; of equal ones the first. `costs` are the
/// weighed sums of each system. Gives the objectives of all systems too.
#[must_use]
pub fn choose(
    losses: &[f32],
    systems: usize,
    costs: &[f64],
    open: &[bool],
) -> (Vec<f64>, Vec<Option<usize>>) {
    let mut objectives = Vec::with_capacity(losses.len());
    let mut chosen = Vec::new();
    for row in losses.chunks_exact(systems.max(1)) {
        let mut best: Option<(f64, usize)> = None;
        for (i, loss) in row.iter().enumerate() {
            let value = f64::from(*loss) + costs[i];
            objectives.push(value);
            if open[i] && best.is_none_or(|(least, _)| value < least) {
                best = Some((value, i));
            }
        }
        chosen.push(best.map(|(_, i)| i));
    }
    (objectives, chosen)
}

/// Systems that no other one beats in loss and cost at once (at least as good in both, better in one), in their order.
#[must_use]
pub fn front(losses: &[f32], costs: &[f64]) -> Vec<usize> {
    let beats = |a: usize, b: usize| {
        let (loss, cost) = (losses[a] <= losses[b], costs[a] <= costs[b]);
        loss && cost && (losses[a] < losses[b] || costs[a] < costs[b])
    };
    let n = losses.len();
    (0..n).filter(|&i| !(0..n).any(|j| beats(j, i))).collect()
}

/// Ridge regression of every system's loss on the features.
#[derive(Debug, Clone, PartialEq)]
pub struct Predicted {
    /// A vector for each system.
    pub weight: Points,
    /// A number for each system.
    pub bias: Vec<f32>,
    /// What the systems cost.
    pub costs: Costs,
    /// What counts where nothing else is asked.
    pub limits: Limits,
}

impl Predicted {
    /// Fits it on losses `[rows, systems]`; the penalty of every system is the one that does best on the held-out rows.
    #[must_use]
    pub fn fit(
        train: (&Points, &[f32]),
        held: Option<(&Points, &[f32])>,
        systems: usize,
        costs: Costs,
    ) -> Self {
        let width = train.0.width;
        let mut made = Self {
            weight: Points {
                values: Vec::with_capacity(systems * width),
                width,
            },
            bias: Vec::with_capacity(systems),
            costs,
            limits: Limits::default(),
        };
        let held = held.filter(|(points, _)| !points.is_empty());
        for system in 0..systems {
            let of = |losses: &[f32]| -> Vec<Target> {
                let own = losses.iter().skip(system).step_by(systems);
                own.map(|l| Target::Number(f64::from(*l))).collect()
            };
            let wanted = of(train.1);
            let beside = held.map(|(points, losses)| (points, of(losses)));
            let seen = Seen {
                features: &train.0.values,
                wanted: &wanted,
            };
            let beside = beside.as_ref().map(|(points, wanted)| Seen {
                features: &points.values,
                wanted,
            });
            let found = probe::fit(HeadKind::Regression, 1, &seen, beside.as_ref());
            made.weight.values.extend(found.weight);
            made.bias.extend(found.bias);
        }
        made
    }

    /// Predicted losses, `[points, systems]`.
    #[must_use]
    pub fn losses(&self, points: &Points) -> Vec<f32> {
        let mut found = points.products(&self.weight);
        for row in found.chunks_exact_mut(self.bias.len().max(1)) {
            row.iter_mut().zip(&self.bias).for_each(|(l, b)| *l += b);
        }
        found
    }

    /// Costs of the systems under weights, and which of them may be chosen; `names` are those of the systems.
    ///
    /// # Errors
    /// Costs or systems that are not known, limits that leave none, weights that are not finite.
    pub fn under(&self, limits: &Limits, names: &[&str]) -> Result<(Vec<f64>, Vec<bool>)> {
        let systems = self.bias.len();
        let wrong = |what: String| MergeError::plan("bad-limit", what);
        let cost = |name: &str| {
            self.costs.get(name).ok_or_else(|| {
                let known: Vec<&str> = self.costs.keys().map(String::as_str).collect();
                let error = wrong(format!("the router knows no cost `{name}`"));
                error.hint(match known.is_empty() {
                    true => "it was fitted without --cost".to_owned(),
                    false => format!("it knows {}", known.join(", ")),
                })
            })
        };
        let mut weighed = vec![0.0; systems];
        for (name, weight) in &limits.weights {
            if !weight.is_finite() {
                return Err(wrong(format!("the weight of `{name}` is {weight}")).into());
            }
            let values = cost(name)?;
            let most = values.iter().copied().fold(0.0, f64::max);
            for (w, value) in weighed.iter_mut().zip(values) {
                *w += weight * if most > 0.0 { value / most } else { 0.0 };
            }
        }
        let mut open = vec![true; systems];
        for (name, most) in &limits.most {
            for (open, value) in open.iter_mut().zip(cost(name)?) {
                *open &= value <= most;
            }
        }
        if let Some(name) = limits.allowed.iter().find(|a| !names.contains(&&***a)) {
            let error = wrong(format!("the router knows no system `{name}`"));
            return Err(error.hint(format!("it knows {}", names.join(", "))).into());
        }
        if !limits.allowed.is_empty() {
            for (open, name) in open.iter_mut().zip(names) {
                *open &= limits.allowed.iter().any(|a| a == name);
            }
        }
        if !open.contains(&true) {
            return Err(wrong("the limits leave no system to choose".into()).into());
        }
        Ok((weighed, open))
    }

    /// Weighs a cost so that choices on these points cost at most `budget` of it on average, in its own unit: the least such
    /// weight, found by halving (a larger weight never costs more). It is kept among the limits. Gives the weight.
    ///
    /// # Errors
    /// A cost that is not known, no points, a budget below what the cheapest choices cost.
    pub fn calibrate(
        &mut self,
        points: &Points,
        cost: &str,
        budget: f64,
        names: &[&str],
    ) -> Result<f64> {
        let losses = self.losses(points);
        let systems = self.bias.len();
        let mean = |made: &Self, weight: f64| -> Result<f64> {
            let mut limits = made.limits.clone();
            limits.weights.insert(cost.to_owned(), weight);
            let (costs, open) = made.under(&limits, names)?;
            let (_, chosen) = choose(&losses, systems, &costs, &open);
            let values = &made.costs[cost];
            let sum: f64 = chosen.iter().flatten().map(|i| values[*i]).sum();
            Ok(sum / chosen.len().max(1) as f64)
        };
        let (mut low, mut high) = (0.0, 1.0);
        if mean(self, low)? > budget {
            while mean(self, high)? > budget {
                low = high;
                high *= 2.0;
                if high > 1e12 {
                    let what = format!("no choice keeps to {budget} of `{cost}` on average");
                    return Err(MergeError::plan("bad-limit", what).into());
                }
            }
            for _ in 0..60 {
                let middle = f64::midpoint(low, high);
                match mean(self, middle)? > budget {
                    true => low = middle,
                    false => high = middle,
                }
            }
            low = high;
        }
        self.limits.weights.insert(cost.to_owned(), low);
        Ok(low)
    }

    pub(super) fn decide(&self, points: &Points, names: &[&str]) -> Result<Vec<Decision>> {
        let systems = self.bias.len();
        let (costs, open) = self.under(&self.limits, names)?;
        let (_, chosen) = choose(&self.losses(points), systems, &costs, &open);
        let one = |choice: Option<usize>| match choice {
            None => Decision::none(systems),
            Some(i) => {
                let mut weights = vec![0.0; systems];
                weights[i] = 1.0;
                Decision::of_weights(weights)
            }
        };
        Ok(chosen.into_iter().map(one).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made() -> Predicted {
        // The first system fails where the number is large, the second where it is small.
        let x: Vec<f32> = (0..40).map(|i| i as f32 / 40.0).collect();
        let losses: Vec<f32> = x.iter().flat_map(|x| [*x, 0.8 - x]).collect();
        let points = Points::new(x, 1).unwrap();
        let costs = Costs::from([("bytes".to_owned(), vec![100.0, 25.0])]);
        Predicted::fit((&points, &losses), Some((&points, &losses)), 2, costs)
    }

    #[test]
    fn losses_are_learned_and_costs_weigh() {
        let mut made = made();
        let x = Points::new(vec![0.1, 0.45, 0.9], 1).unwrap();
        for (found, expected) in made
            .losses(&x)
            .iter()
            .zip([0.1, 0.7, 0.45, 0.35, 0.9, -0.1])
        {
            assert!((found - expected).abs() < 0.02, "{found} {expected}");
        }
        let names = ["a", "b"];
        let chosen = |made: &Predicted| -> Vec<Option<usize>> {
            let found = made.decide(&x, &names).unwrap();
            found.iter().map(|d| d.expert).collect()
        };
        assert_eq!(chosen(&made), [Some(0), Some(1), Some(1)]);
        made.limits.weights.insert("bytes".into(), 2.0);
        assert_eq!(chosen(&made), [Some(1); 3]);
        made.limits.weights.clear();
        made.limits.most.insert("bytes".into(), 50.0);
        assert_eq!(chosen(&made), [Some(1); 3]);
        made.limits = Limits::default();
        for (budget, cost) in [(200.0, 50.0), (26.0, 25.0), (60.0, 50.0)] {
            let weight = made.calibrate(&x, "bytes", budget, &names).unwrap();
            assert_eq!(weight > 0.0, budget < 50.0);
            let sum: f64 = chosen(&made)
                .iter()
                .flatten()
                .map(|i| [100.0, 25.0][*i])
                .sum();
            assert_eq!(sum / 3.0, cost);
        }
        assert!(made.calibrate(&x, "bytes", 1.0, &names).is_err());
        made.limits = Limits::default();
        made.limits.most.insert("bytes".into(), 50.0);
        made.limits.allowed = vec!["a".into()];
        assert!(made.decide(&x, &names).is_err());
        made.limits = Limits::default();
        made.limits.weights.insert("seconds".into(), 1.0);
        assert!(made.decide(&x, &names).is_err());
    }

    #[test]
    fn the_front_holds_what_nothing_beats() {
        let losses = [0.5, 0.4, 0.4, 0.9, 0.1];
        assert_eq!(front(&losses, &[1.0, 2.0, 3.0, 1.0, 9.0]), [0, 1, 4]);
    }
}
