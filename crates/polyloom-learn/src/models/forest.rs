//! Gradient-boosted trees as a model of tables: beside networks under the same commands.
//!
//! `config.json` has `"model_type": "polyloom-forest"` and the keys of [`Config`]; `model.safetensors` is the file of a
//! [`Forest`]. The scores of every goal stand in a slot of [`Config::width`], filled up with zeros, where the goal's head
//! reads them: heads of forests take scores as they are.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json};

use crate::engine::{Value, slice, tensor};
use crate::error::{Error, Result};
use crate::forest::{Column, Forest, Method, Params, Table, Values};
use crate::table::Row;

/// The word of this family in `config.json`.
pub const MODEL_TYPE: &str = "polyloom-forest";

/// Names of the methods.
pub const ARCHITECTURES: [&str; 3] = ["gbdt", "gbdt_shared", "r_mtgb"];

/// What `config.json` says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Config {
    /// [`MODEL_TYPE`].
    pub model_type: String,
    /// `gbdt`, `gbdt_shared` or `r_mtgb`.
    pub architecture: String,
    /// Ids of the goals, in order: a task, or a task and one of its targets.
    pub goals: Vec<String>,
    /// Scores of the goal that has most: its classes, or 1.
    pub width: usize,
    /// Names of the numbers of a row.
    pub numbers: Vec<String>,
    /// Names of the fields of words.
    pub words: Vec<String>,
    /// Codes of every field of words.
    pub categories: Vec<usize>,
    /// Parameters of the method.
    #[serde(flatten)]
    pub options: Map<String, Json>,
}

/// Trees of one configuration; none before training.
#[derive(Debug, Clone)]
pub struct ForestModel {
    /// The configuration.
    pub config: Config,
    /// The method with its parameters.
    pub method: Method,
    /// The trees.
    pub forest: Option<Arc<Forest>>,
}

impl ForestModel {
    /// Of a configuration, and of trees where they are there.
    ///
    /// # Errors
    /// A method that there is not, parameters that it does not have, trees for other goals.
    pub fn new(config: Config, forest: Option<Forest>) -> Result<Self> {
        let wrong = |what: String| Error::Config { what };
        let name = &*config.architecture;
        if !ARCHITECTURES.contains(&name) {
            return Err(wrong(format!(
                "no forest `{name}`; there are: {}",
                ARCHITECTURES.join(", ")
            )));
        }
        let mut given = config.options.clone();
        given.insert("name".into(), name.into());
        let method = serde_json::from_value(Json::Object(given))
            .map_err(|e| wrong(format!("forest `{name}`: {e}")))?;
        if config.goals.is_empty() || config.width == 0 {
            return Err(wrong("a forest has at least one goal and one score".into()));
        }
        if let Some(forest) = &forest {
            let names: Vec<&str> = forest.outputs.iter().map(|o| &*o.name).collect();
            if names != config.goals {
                return Err(wrong(format!(
                    "its goals are {}, and its trees answer {}",
                    config.goals.join(", "),
                    names.join(", ")
                )));
            }
            let widest = forest
                .outputs
                .iter()
                .map(crate::forest::Output::columns)
                .max();
            if widest != Some(config.width) {
                return Err(wrong(format!(
                    "width {}, and its trees have up to {} scores",
                    config.width,
                    widest.unwrap_or(0)
                )));
            }
        }
        Ok(Self {
            config,
            method,
            forest: forest.map(Arc::new),
        })
    }

    /// How it is trained.
    #[must_use]
    pub fn params(&self, seed: u64) -> Params {
        Params {
            method: self.method.clone(),
            seed,
        }
    }

    /// Rows as trees read them.
    ///
    /// # Errors
    /// Rows of another table.
    pub fn table(&self, rows: &[&Row]) -> Result<Table> {
        let c = &self.config;
        if let Some(row) = rows
            .iter()
            .find(|r| r.numbers.len() != c.numbers.len() || r.codes.len() != c.words.len())
        {
            return Err(Error::shape(
                "forest",
                format!(
                    "a row of {} numbers and {} words; the trees read {} and {}",
                    row.numbers.len(),
                    row.codes.len(),
                    c.numbers.len(),
                    c.words.len()
                ),
            ));
        }
        let mut columns = Vec::with_capacity(c.numbers.len() + c.words.len());
        for (i, name) in c.numbers.iter().enumerate() {
            columns.push(Column {
                name: name.clone(),
                values: Values::Number(rows.iter().map(|r| r.numbers[i]).collect()),
            });
        }
        for (i, name) in c.words.iter().enumerate() {
            let cardinality = c.categories.get(i).copied().unwrap_or(1);
            columns.push(Column {
                name: name.clone(),
                values: Values::Category {
                    codes: rows.iter().map(|r| r.codes[i]).collect(),
                    cardinality: u32::try_from(cardinality).unwrap_or(u32::MAX),
                },
            });
        }
        Ok(Table {
            rows: rows.len(),
            columns,
            weights: None,
        })
    }

    /// Scores `[rows, goals * width]`.
    ///
    /// # Errors
    /// Rows of another table, a forest without trees.
    pub fn forward(&self, rows: &[&Row]) -> Result<Value> {
        let Some(forest) = &self.forest else {
            return Err(Error::shape("forest", "has no trees yet"));
        };
        self.slots(rows, forest, &|_| true)
    }

    /// Scores `[rows, targets * width]` where each group of rows has goals of its own: those of goal `target * groups +
    /// of[row]` for each row. Rows of a group are answered together, by the trees that matter to its goals.
    ///
    /// # Errors
    /// As [`Self::forward`]; a row of a group that there is not, goals that are no multiple of the groups.
    pub fn forward_own(&self, rows: &[&Row], of: &[u32], groups: usize) -> Result<Value> {
        let Some(forest) = &self.forest else {
            return Err(Error::shape("forest", "has no trees yet"));
        };
        let (goals, slot) = (self.config.goals.len(), self.config.width);
        let in_range = of.iter().all(|g| (*g as usize) < groups);
        if !in_range || of.len() != rows.len() || !goals.is_multiple_of(groups) {
            let what = format!("rows of {groups} groups, with {goals} goals");
            return Err(Error::shape("forest", what));
        }
        let targets = goals / groups;
        let mut found = vec![0f32; rows.len() * targets * slot];
        for group in 0..groups {
            let own: Vec<usize> = (0..rows.len())
                .filter(|i| of[*i] as usize == group)
                .collect();
            if own.is_empty() {
                continue;
            }
            let some: Vec<&Row> = own.iter().map(|i| rows[*i]).collect();
            let slots = self.slots(&some, forest, &|goal| goal % groups == group)?;
            let slots = slice(slots.data())?;
            for (&row, of) in own.iter().zip(slots.chunks_exact(goals * slot)) {
                for target in 0..targets {
                    found[(row * targets + target) * slot..][..slot]
                        .copy_from_slice(&of[(target * groups + group) * slot..][..slot]);
                }
            }
        }
        Ok(Value::constant(tensor(
            found,
            (rows.len(), targets * slot),
        )?))
    }

    /// Scores `[rows, goals * width]` of those goals that matter; the others' slots mean nothing.
    fn slots(
        &self,
        rows: &[&Row],
        forest: &Forest,
        matters: &(dyn Fn(usize) -> bool + Sync),
    ) -> Result<Value> {
        let scores = forest.scores_of(&self.table(rows)?, matters)?;
        let (from, goals, slot) = (forest.width(), self.config.goals.len(), self.config.width);
        let mut slots = vec![0f32; rows.len() * goals * slot];
        for (of, to) in scores
            .chunks_exact(from.max(1))
            .zip(slots.chunks_exact_mut(goals * slot))
        {
            for (goal, to) in to.chunks_exact_mut(slot).enumerate() {
                for (score, to) in of[forest.columns(goal)].iter().zip(to) {
                    *to = *score as f32;
                }
            }
        }
        Ok(Value::constant(tensor(slots, (rows.len(), goals * slot))?))
    }
}
