//! What is trained: parameters, what stays, and how the two make a source of weights.

use std::cell::RefCell;

use super::lowrank::LowRankSet;
use super::recipe::{Method, Recipe};
use crate::engine::{Parameters, Tensor, Value};
use crate::error::Result;
use crate::models::lora::Lora;
use crate::models::table::TableModel;
use crate::models::{Noted, Noting, Plain, Source, Trained, is_statistic};
use crate::tasks::Head;

/// Parameters of a run over weights that stay.
pub struct Trainee {
    /// Weights that stay, and first values of those that do not.
    pub base: Plain,
    /// What changes.
    pub parameters: Parameters,
    /// Low-rank parts among the parameters.
    pub low_rank: Option<LowRankSet>,
    /// Values of the running statistics among the parameters: no optimiser moves them.
    noted: Noted,
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
    /// Of a recipe, weights (heads among them), what the trunk uses of them, and the tensors that `train.add` makes.
    ///
    /// # Errors
    /// Low-rank parts for layers that are not there.
    pub fn new(
        recipe: &Recipe,
        base: Plain,
        used: &Used,
        heads: &[Head],
        added: &[String],
    ) -> Result<Self> {
        let t = &recipe.train;
        let mut tensors: Vec<(String, Tensor)> = Vec::new();
        let mut low_rank = None;
        match t.method {
            Method::Head => {}
            Method::Full => {
                for name in &used.tensors {
                    let stays = t.freeze.iter().any(|f| name.starts_with(f.as_str()))
                        || (t.add.is_some() && !added.contains(name));
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
        // What one goal alone uses stands beside its head, behind all that is shared: balancers take the two apart.
        let (mut own, mut tensors): (Vec<_>, Vec<_>) = tensors
            .into_iter()
            .partition(|(name, _)| TableModel::is_own(name));
        for head in heads {
            tensors.extend(own.extract_if(.., |(name, _)| head.is_own_part(name)));
            if !t.head.frozen {
                tensors.extend(head.tensors());
            }
        }
        tensors.splice(0..0, own);
        Self::over_weights(base, Parameters::new(tensors)?, low_rank)
    }

    /// Of parameters over weights that stay.
    ///
    /// # Errors
    /// Never in practice: a buffer of the processor.
    pub fn over_weights(
        base: Plain,
        parameters: Parameters,
        low_rank: Option<LowRankSet>,
    ) -> Result<Self> {
        let made = Self {
            base,
            parameters,
            low_rank,
            noted: Noted::default(),
        };
        made.recall()?;
        Ok(made)
    }

    /// Takes running statistics as the weights have them: at the start, and where a checkpoint was read into the weights.
    ///
    /// # Errors
    /// Never in practice: a buffer of the processor.
    pub fn recall(&self) -> Result<()> {
        let weights = self.parameters.weights()?;
        let statistics = self.parameters.iter().filter(|p| is_statistic(&p.name));
        let values = statistics.map(|p| (p.name.clone(), weights[p.at.clone()].to_vec()));
        *self.noted.borrow_mut() = values.collect();
        Ok(())
    }

    /// Writes running statistics as the passes of a step left them into the weights. After the optimiser: what it did to them
    /// (decay) does not count.
    ///
    /// # Errors
    /// Never in practice: a buffer of the processor.
    pub fn settle(&self) -> Result<()> {
        self.settle_behind(0)
    }

    /// The same for parameters that lie behind so many numbers.
    ///
    /// # Errors
    /// As [`Self::settle`].
    pub fn settle_behind(&self, still: usize) -> Result<()> {
        let noted = self.noted.borrow();
        if noted.is_empty() {
            return Ok(());
        }
        self.parameters.update(|weights, _| {
            for (name, values) in noted.iter() {
                if let Some(p) = self.parameters.get(name)
                    && p.at.start >= still
                {
                    weights[p.at.clone()].copy_from_slice(values);
                }
            }
        })
    }

    /// Runs passes that are no step: running statistics are as before in the end.
    ///
    /// # Errors
    /// What `f` reports.
    pub fn aside<R>(&self, f: impl FnOnce() -> Result<R>) -> Result<R> {
        let before = self.noted.borrow().clone();
        let found = f();
        *self.noted.borrow_mut() = before;
        found
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
        if self.noted.borrow().is_empty() {
            return self.over(&trained, f);
        }
        let noting = Noting {
            trained,
            noted: &self.noted,
        };
        self.over(&noting, f)
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
