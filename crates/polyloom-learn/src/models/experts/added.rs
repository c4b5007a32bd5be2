//! Goals that were added to a mixture that had learned others: each has a gate over all first experts and experts of its own
//! (`added.<i>.`), so that nothing of the others changes.

use super::{Config, Experts, Gate, Part};
use crate::engine::Tensor;
use crate::error::{Error, In, Result};

impl Experts {
    /// How many goals the mixture began with.
    pub(super) fn first_goals(&self) -> usize {
        self.config.goals.len() - self.config.added.len()
    }

    /// Which of the added goals a goal is.
    pub(super) fn added(&self, goal: usize) -> Option<usize> {
        let place = goal.checked_sub(self.first_goals());
        place.filter(|i| *i < self.config.added.len())
    }

    /// Experts of a layer, those of added goals among them.
    #[must_use]
    pub fn all(&self) -> usize {
        self.config.experts + self.config.added.iter().sum::<usize>()
    }

    /// The experts that tokens of a goal can reach, in the order of its gate. Those of added goals are counted behind the first
    /// ones.
    #[must_use]
    pub fn reached(&self, goal: usize) -> Vec<usize> {
        let first = self.config.experts;
        match self.added(goal) {
            None => self.of_goal(goal).collect(),
            Some(i) => {
                let start = first + self.config.added[..i].iter().sum::<usize>();
                (0..first)
                    .chain(start..start + self.config.added[i])
                    .collect()
            }
        }
    }

    /// What stands before the tensors of an expert, and its place in them.
    pub(super) fn place(&self, expert: usize) -> (String, usize) {
        let Some(mut at) = expert.checked_sub(self.config.experts) else {
            return (String::new(), expert);
        };
        for (i, own) in self.config.added.iter().enumerate() {
            match at.checked_sub(*own) {
                None => return (prefix(i), at),
                Some(rest) => at = rest,
            }
        }
        (prefix(self.config.added.len()), at)
    }

    /// The tensors of the added goals.
    pub(super) fn added_tensors(&self, inner: usize) -> Vec<Part> {
        let (width, first) = (self.width, self.config.experts);
        let mut all = Vec::new();
        for (i, own) in self.config.added.iter().enumerate() {
            let name = |part: &str| format!("{}{part}", prefix(i));
            let seen = first + own;
            all.push((name("gate.weight"), vec![seen, width], Some([width, seen])));
            if *own == 0 {
                continue;
            }
            let sides = [
                ("up.weight", vec![*own, inner, width], Some([width, inner])),
                ("up.bias", vec![*own, inner], None),
                (
                    "down.weight",
                    vec![*own, width, inner],
                    Some([inner, width]),
                ),
                ("down.bias", vec![*own, width], None),
            ];
            all.extend(sides.map(|(part, shape, sides)| (name(part), shape, sides)));
        }
        all
    }

    /// The configuration with more goals, each with so many experts of its own.
    ///
    /// # Errors
    /// A goal that is there already.
    pub fn grown(&self, goals: &[String], experts: usize) -> Result<Config> {
        let mut config = self.config.clone();
        for goal in goals {
            if config.goals.contains(goal) {
                return Err(Error::Config {
                    what: format!("goal `{goal}` is there already"),
                });
            }
            config.goals.push(goal.clone());
            config.added.push(experts);
        }
        Ok(config)
    }

    /// What is left to say where one goal alone stays: its gate over the experts that it can reach.
    ///
    /// # Errors
    /// A goal that is none.
    pub fn alone(&self, goal: usize) -> Result<Config> {
        let c = &self.config;
        let none = || Error::shape("experts", format!("goal {goal} of {}", c.goals.len()));
        let name = c.goals.get(goal).ok_or_else(none)?;
        Ok(Config {
            experts: self.reached(goal).len(),
            gate: match c.gate {
                Gate::Window => Gate::Goal,
                _ if self.added(goal).is_some() => Gate::Goal,
                other => other,
            },
            window: 0,
            noise: Some(c.noise.unwrap_or(1.0 / c.experts as f32)),
            mutual_information: 0.0,
            goals: vec![name.clone()],
            added: Vec::new(),
            ..c.clone()
        })
    }

    /// What stays of a tensor ([`Self::tensors`]) then, of the tensors by name; `None` for one that goes.
    ///
    /// # Errors
    /// Tensors that are absent or of another shape.
    pub fn part(
        &self,
        goal: usize,
        part: &str,
        tensor: &dyn Fn(&str) -> Result<Tensor>,
    ) -> Result<Option<Tensor>> {
        if part.starts_with("added.") {
            return Ok(None);
        }
        if let Some(i) = self.added(goal) {
            let own = |part: &str| tensor(&format!("{}{part}", prefix(i)));
            return match part {
                "gate.goals" => Ok(None),
                "gate.weight" => own(part)?.unsqueeze(0).during("experts").map(Some),
                _ if self.config.added[i] == 0 => tensor(part).map(Some),
                _ => {
                    let both = [tensor(part)?, own(part)?];
                    Tensor::cat(&both, 0).during("experts").map(Some)
                }
            };
        }
        let own = self.of_goal(goal);
        let (start, length) = match (part, self.config.gate) {
            ("gate.weight", Gate::Goal | Gate::Window) | ("gate.goals", _) => (goal, 1),
            ("gate.weight", _) => return tensor(part).map(Some),
            _ => (own.start, own.len()),
        };
        let kept = tensor(part)?.narrow(0, start, length);
        let kept = kept.and_then(|t| t.contiguous()).during("experts")?;
        Ok(Some(kept))
    }
}

/// What stands before the tensors of an added goal.
pub(super) fn prefix(i: usize) -> String {
    format!("added.{i}.")
}
