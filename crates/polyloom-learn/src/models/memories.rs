//! A memory of every goal, which it carries through the layers of a trunk that all goals share (TaskExpert, Ye and Xu, ICCV
//! 2023).
//!
//! Behind every so many layers, with their tokens `x` normed: experts `h_e = GELU(W_e x)`; of goal t
//! `f_t = sum_e g_t[e] h_e + g_t[E + 1] m_t`, `g_t` a softmax of a linear map of `x`; `m_t <- a f_t + (1 - a) m_t`,
//! `a = sigmoid(W f_t)`. `m_t` begins as one learned vector for all tokens; what a goal's head sees is its last `f_t`. The
//! definition is ours, as that of tables ([`task_expert`]); the paper's decoders put the features of all layers together.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::Source;
use super::table::task_expert;
use crate::engine::Value;
use crate::error::{Error, Result};
use crate::ops::{self, Activation};

/// What a configuration says of memories (`task_expert` in `config.json`).
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Experts of a layer that has them.
    pub experts: usize,
    /// Behind every so many layers stand experts.
    pub every: usize,
    /// Names of the goals, in the order of their memories.
    pub goals: Vec<String>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            experts: 4,
            every: 1,
            goals: Vec::new(),
        }
    }
}

/// Pictures that a goal is asked for: its number, and their places in the batch.
pub type Asked = (usize, Range<usize>);

/// What a tensor begins as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Begin {
    /// Ones, of a norm.
    Ones,
    /// Zeros.
    Zeros,
    /// A matrix of so many inputs and outputs.
    Matrix(usize, usize),
    /// A memory.
    Memory,
}

/// The memories of a model.
#[derive(Debug, Clone)]
pub struct Memories {
    /// What the configuration says.
    pub config: Config,
    width: usize,
    places: usize,
}

impl Memories {
    /// Of a configuration, for a stream of a width through so many layers.
    ///
    /// # Errors
    /// Numbers that make none; the error names the key.
    pub fn new(config: Config, width: usize, layers: usize) -> Result<Self> {
        let wrong = |what: String| Err(Error::Config { what });
        if !(1..=1024).contains(&config.experts) || config.goals.len() > 4096 {
            let (e, g) = (config.experts, config.goals.len());
            return wrong(format!("task_expert.experts {e} and {g} goals"));
        }
        if !(1..=layers).contains(&config.every) {
            let every = config.every;
            return wrong(format!("task_expert.every {every} of {layers} layers"));
        }
        Ok(Self {
            places: layers / config.every,
            config,
            width,
        })
    }

    /// The tensors behind the prefix of the model, `[out, in]` where they are matrices, and what they begin as.
    #[must_use]
    pub fn tensors(&self) -> Vec<(String, Vec<usize>, Begin)> {
        let (width, experts) = (self.width, self.config.experts);
        let mut all = Vec::new();
        let linear = |all: &mut Vec<_>, name: String, out: usize, outputs: usize| {
            let begin = Begin::Matrix(width, outputs);
            all.push((format!("{name}.weight"), vec![out, width], begin));
            all.push((format!("{name}.bias"), vec![out], Begin::Zeros));
        };
        for place in 0..self.places {
            let name = |part: &str| format!("task_expert.{part}.{place}");
            for (part, begin) in [("weight", Begin::Ones), ("bias", Begin::Zeros)] {
                all.push((format!("{}.{part}", name("norms")), vec![width], begin));
            }
            linear(&mut all, name("experts"), experts * width, width);
        }
        for goal in 0..self.config.goals.len() {
            let name = |part: &str| format!("{}{part}", of_goal(goal));
            all.push((name("memory"), vec![1, width], Begin::Memory));
            for place in 0..self.places {
                let gate = name(&format!("gates.{place}"));
                linear(&mut all, gate, experts + 1, experts + 1);
                if place + 1 < self.places {
                    linear(&mut all, name(&format!("updates.{place}")), width, width);
                }
            }
        }
        all
    }

    /// What a tensor is called where one goal alone stays; `None` for what belongs to another goal.
    #[must_use]
    pub fn alone(&self, goal: usize, tensor: &str) -> Option<String> {
        match tensor.split_once("task_expert.goals.") {
            None => Some(tensor.to_owned()),
            Some((before, rest)) => {
                let (of, part) = rest.split_once('.')?;
                let own = of.parse() == Ok(goal);
                own.then(|| format!("{before}{}{part}", of_goal(0)))
            }
        }
    }

    /// Begins a pass: `tokens` of every picture.
    ///
    /// # Errors
    /// A goal that is none, tensors that are absent or of another shape.
    pub fn begin<'a>(
        &'a self,
        source: &'a dyn Source,
        prefix: &'a str,
        asked: &'a [Asked],
        tokens: usize,
    ) -> Result<Carried<'a>> {
        let goals = self.config.goals.len();
        let one = |(goal, pictures): &Asked| {
            if *goal >= goals {
                let what = format!("goal {goal} of {goals}");
                return Err(Error::shape("task_expert", what));
            }
            let memory = source.tensor(&format!("{prefix}{}memory", of_goal(*goal)))?;
            ops::rows(&memory, &vec![0; pictures.len() * tokens])
        };
        Ok(Carried {
            memories: self,
            source,
            prefix,
            asked,
            tokens,
            state: asked.iter().map(one).collect::<Result<_>>()?,
        })
    }
}

fn of_goal(goal: usize) -> String {
    format!("task_expert.goals.{goal}.")
}

/// Memories on their way through the layers of a pass.
pub struct Carried<'a> {
    memories: &'a Memories,
    source: &'a dyn Source,
    prefix: &'a str,
    asked: &'a [Asked],
    tokens: usize,
    state: Vec<Value>,
}

impl Carried<'_> {
    /// Behind a layer, with its output `[pictures, tokens, width]`.
    ///
    /// # Errors
    /// Pictures that are not in the batch, tensors that are absent or of another shape.
    pub fn behind(&mut self, layer: usize, x: &Value, eps: f32) -> Result<()> {
        let Memories { config, places, .. } = self.memories;
        if !(layer + 1).is_multiple_of(config.every) {
            return Ok(());
        }
        let place = (layer + 1) / config.every - 1;
        let name = |part: &str| format!("{}task_expert.{part}.{place}", self.prefix);
        let x = self.source.layer_norm(&name("norms"), x, eps)?;
        let rows = x.dims()[0] * self.tokens;
        let x = ops::reshape(&x, &[rows, self.memories.width])?;
        let experts = self.source.linear(&name("experts"), &x)?;
        let experts = ops::activate(&experts, Activation::Gelu)?;
        for ((goal, pictures), memory) in self.asked.iter().zip(&mut self.state) {
            let own = |all: &Value| {
                let (first, count) = (pictures.start * self.tokens, pictures.len() * self.tokens);
                match count == rows {
                    true => Ok(all.clone()),
                    false => ops::narrow(all, 0, first, count),
                }
            };
            let name = |part: &str| format!("{}{}{part}.{place}", self.prefix, of_goal(*goal));
            let scores = self.source.linear(&name("gates"), &own(&x)?)?;
            let found = task_expert::feature(&scores, &own(&experts)?, memory)?;
            *memory = if place + 1 == *places {
                found
            } else {
                let scores = self.source.linear(&name("updates"), &found)?;
                task_expert::remembered(&scores, &found, memory)?
            };
        }
        Ok(())
    }

    /// What the goals that were asked have in the end: `[pictures, tokens, width]` each.
    ///
    /// # Errors
    /// A model without a layer that has experts.
    pub fn end(self) -> Result<Vec<Value>> {
        let width = self.memories.width;
        let all = self.asked.iter().zip(&self.state);
        all.map(|((_, pictures), found)| ops::reshape(found, &[pictures.len(), self.tokens, width]))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{slice, tensor};
    use crate::models::Plain;

    fn memories() -> Memories {
        let config = Config {
            experts: 1,
            every: 2,
            goals: ["a", "b"].map(str::to_owned).to_vec(),
        };
        Memories::new(config, 2, 5).unwrap()
    }

    /// Weights of 0 but for a memory, biases of gates and of updates.
    fn source(of: &Memories) -> Plain {
        let one = |(name, shape, _): (String, Vec<usize>, Begin)| {
            let mut values = vec![0.0; shape.iter().product()];
            match &*name {
                "task_expert.goals.1.memory" => values = vec![8.0, 4.0],
                // Three parts of four for the memory.
                "task_expert.goals.1.gates.0.bias" | "task_expert.goals.1.gates.1.bias" => {
                    values = vec![0.0, 3f32.ln()];
                }
                // A quarter of what is new.
                "task_expert.goals.1.updates.0.bias" => values = vec![-(3f32.ln()); 2],
                _ => {}
            }
            (name, tensor(values, shape).unwrap())
        };
        Plain::new(of.tensors().into_iter().map(one))
    }

    #[test]
    fn by_hand() {
        let of = memories();
        // Places behind layers 1 and 3 of 0 to 4.
        assert_eq!(of.places, 2);
        let names: Vec<String> = of.tensors().into_iter().map(|t| t.0).collect();
        assert!(names.contains(&"task_expert.experts.1.bias".to_owned()));
        assert!(!names.contains(&"task_expert.goals.0.updates.1.weight".to_owned()));
        let source = source(&of);
        let asked = [(1, 0..1), (0, 1..3), (1, 2..3)];
        let mut carried = of.begin(&source, "", &asked, 2).unwrap();
        let x = Value::constant(tensor(vec![1.0; 12], (3, 2, 2)).unwrap());
        for layer in 0..5 {
            carried.behind(layer, &x, 1e-6).unwrap();
        }
        let found = carried.end().unwrap();
        // The experts say 0: f = 3/4 m, m <- 1/4 f + 3/4 m = 15/16 m, f = 45/64 m.
        let (a, b) = (8.0 * 45.0 / 64.0, 4.0 * 45.0 / 64.0);
        assert_eq!(found[0].dims(), [1, 2, 2]);
        for (place, pictures) in [(0, 1), (2, 1)] {
            let said = slice(found[place].data()).unwrap().to_vec();
            for (said, right) in said.iter().zip([a, b].repeat(2 * pictures)) {
                assert!((said - right).abs() < 1e-5, "{said} {right}");
            }
        }
        assert_eq!(found[1].dims(), [2, 2, 2]);
        assert!(slice(found[1].data()).unwrap().iter().all(|x| *x == 0.0));
        assert!(of.begin(&source, "", &[(2, 0..1)], 2).is_err());
    }

    #[test]
    fn one_goal_alone() {
        let of = memories();
        let kept = |name: &str| of.alone(1, name);
        let name = "vit.task_expert.goals.1.gates.0.bias";
        let new = "vit.task_expert.goals.0.gates.0.bias";
        assert_eq!(kept(name).as_deref(), Some(new));
        assert_eq!(kept(new), None);
        assert_eq!(kept("task_expert.goals.12.memory"), None);
        assert_eq!(kept("layernorm.bias").as_deref(), Some("layernorm.bias"));
    }

    #[test]
    fn odd_configurations() {
        let with = |experts, every| {
            let goals = Vec::new();
            Memories::new(
                Config {
                    experts,
                    every,
                    goals,
                },
                2,
                3,
            )
        };
        assert!(with(0, 1).is_err() && with(1, 0).is_err() && with(1, 4).is_err());
        assert!(with(4, 3).is_ok());
    }
}
