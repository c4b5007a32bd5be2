//! What is trained: parameters, what stays, and how the two make a source of weights.

use std::cell::RefCell;

use super::lowrank::LowRankSet;
use super::recipe::{Method, Recipe};
use crate::engine::{Parameters, Tensor, Value};
use crate::error::Result;
use crate::models::lora::Lora;
use crate::models::{Plain, Source, Trained};
use crate::tasks::Head;

/// Parameters of a run over weights that stay.
pub struct Trainee {
    /// Weights that stay, and first values of those that do not.
    pub base: Plain,
    /// What changes.
    pub parameters: Parameters,
    /// Low-rank parts among the parameters.
    pub low_rank: Option<LowRankSet>,
}

/// Names of what a model uses.
#[derive(Debug, Clone, Default)]
pub struct Used {
    /// Tensors, in the order of first use.
    pub tensors: Vec<String>,
    /// Linear layers, in the order of first use.
    pub linear: Vec<String>,
}

/// Writes down what is asked for.
pub struct Watched<'a> {
    base: &'a Plain,
    used: RefCell<Used>,
}

impl<'a> Watched<'a> {
    /// Over weights.
    #[must_use]
    pub fn new(base: &'a Plain) -> Self {
        Self {
            base,
            used: RefCell::default(),
        }
    }

    /// What was asked for and there.
    #[must_use]
    pub fn used(self) -> Used {
        self.used.into_inner()
    }
}

impl Source for Watched<'_> {
    fn find(&self, name: &str) -> Result<Option<Value>> {
        let found = self.base.find(name)?;
        if found.is_some() {
            let mut used = self.used.borrow_mut();
            if !used.tensors.iter().any(|n| n == name) {
                used.tensors.push(name.to_owned());
            }
        }
        Ok(found)
    }

    fn linear(&self, name: &str, x: &Value) -> Result<Value> {
        let mut used = self.used.borrow_mut();
        if !used.linear.iter().any(|n| n == name) {
            used.linear.push(name.to_owned());
        }
        drop(used);
        let bias = self.find(&format!("{name}.bias"))?;
        crate::ops::linear(x, &self.tensor(&format!("{name}.weight"))?, bias.as_ref())
    }
}

impl Trainee {
    /// Of a recipe, weights (heads among them) and what the trunk uses of them.
    ///
    /// # Errors
    /// Low-rank parts for layers that are not there.
    pub fn new(recipe: &Recipe, base: Plain, used: &Used, heads: &[Head]) -> Result<Self> {
        let t = &recipe.train;
        let mut tensors: Vec<(String, Tensor)> = Vec::new();
        let mut low_rank = None;
        match t.method {
            Method::Head => {}
            Method::Full => {
                for name in &used.tensors {
                    let stays = t.freeze.iter().any(|f| name.starts_with(f.as_str()));
                    if !stays && !name.starts_with("heads/") {
                        tensors.push((name.clone(), base.tensor(name)?.data().clone()));
                    }
                }
            }
            Method::Lora => {
                let linear: Vec<String> = used
                    .linear
                    .iter()
                    .filter(|n| {
                        let stays = t.freeze.iter().any(|f| n.starts_with(f.as_str()));
                        !stays && !n.starts_with("heads/")
                    })
                    .cloned()
                    .collect();
                let set = LowRankSet::choose(&t.lora, &linear)?;
                tensors.extend(set.begin(&base, recipe.seed)?);
                low_rank = Some(set);
            }
        }
        if !t.head.frozen {
            tensors.extend(heads.iter().flat_map(Head::tensors));
        }
        Ok(Self {
            base,
            parameters: Parameters::new(tensors)?,
            low_rank,
        })
    }

    /// Runs `f` over the weights as they stand. `seed`: a step of training, with gradients and dropout; none: no graph.
    ///
    /// # Errors
    /// What `f` reports.
    pub fn with<R>(
        &self,
        seed: Option<u64>,
        f: impl FnOnce(&dyn Source) -> Result<R>,
    ) -> Result<R> {
        if seed.is_none() {
            let now = self.parameters.iter();
            let now = now.map(|p| (p.name.clone(), p.value.data().clone()));
            return self.over(&self.base.with(now), f);
        }
        let trained = Trained {
            parameters: &self.parameters,
            frozen: &self.base,
            seed,
        };
        self.over(&trained, f)
    }

    fn over<R>(&self, source: &dyn Source, f: impl FnOnce(&dyn Source) -> Result<R>) -> Result<R> {
        let Some(set) = &self.low_rank else {
            return f(source);
        };
        f(&Lora {
            base: source,
            modules: set.parts(source)?,
            dropout: set.recipe.dropout as f32,
        })
    }
}
