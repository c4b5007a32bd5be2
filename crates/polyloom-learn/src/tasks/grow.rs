//! Goals added to a model that has learned others.

use std::collections::HashSet;

use polyloom::MergeError;
use polyloom_core::DType;
use serde_json::json;

use super::Opened;
use super::fresh::goals;
use crate::engine::tensor;
use crate::error::{Error, Result};
use crate::models::fresh::fresh;
use crate::models::open::{Model, Trunk};
use crate::train::recipe::{AddRecipe, Method};
use crate::train::{Given, Recipe};

/// Where `config.json` says which widths were learned.
pub const SLIM: &str = "polyloom_slim";

impl Opened {
    /// Says in the configuration which widths a recipe learns; training by the whole one alone unlearns the others.
    pub(super) fn say_widths(&mut self, recipe: &Recipe) {
        let Some(config) = self.config.as_object_mut() else {
            return;
        };
        match &recipe.train.slim {
            Some(slim) => {
                let said = json!({"widths": slim.widths, "heads": slim.heads});
                config.insert(SLIM.into(), said);
            }
            None if recipe.train.method == Method::Full => {
                config.remove(SLIM);
            }
            None => {}
        }
    }

    /// Adds the goals of tasks to a model whose goals have gates or memories of their own. An added goal has a gate over the
    /// experts that are there and, of a mixture, `add.experts` of its own in every layer that has experts; or a memory, its
    /// gates and updates. Their tensors are named in [`Model::added`] and begin as those of a new model. The others stay as
    /// they are, and so does what the model answers for its other goals, to the bit.
    ///
    /// # Errors
    /// A model without such goals, a goal that is there already, experts of their own for goals with memories.
    pub fn grow(&mut self, add: AddRecipe, tasks: &[Given], seed: u64) -> Result<()> {
        let place = self.model.folder.display().to_string();
        let bad = |code, what: String| MergeError::plan(code, what).at(place.clone());
        let none = || {
            bad("no-experts", "has no goals of its own to which others could be added".into()).hint(
                "[train.add] is for models whose experts are chosen by goal ([train.new.moe], [train.moe]) or whose goals have memories ([train.new.task_expert])",
            )
        };
        let names = goals(tasks, None)?;
        let known = self.model.goals().ok_or_else(none)?;
        if let Some(name) = names.iter().find(|n| known.contains(n)) {
            return Err(bad("bad-recipe", format!("has learned `{name}` already"))
                .hint("[train.add] adds tasks; leave it out to go on with those that are there")
                .into());
        }
        let (prefix, memories) = match &self.model.trunk {
            Trunk::Vit(vit) => (vit.prefix.clone(), vit.memories.as_ref()),
            Trunk::Bert(bert) => (bert.prefix.clone(), None),
            _ => return Err(none().into()),
        };
        let (key, value) = match (self.model.experts(), memories) {
            (Some(experts), _) => (
                "moe",
                serde_json::to_value(experts.grown(&names, add.experts)?),
            ),
            (None, Some(memories)) if add.experts == 0 => {
                let mut config = memories.config.clone();
                config.goals.extend(names);
                ("task_expert", serde_json::to_value(config))
            }
            (None, Some(_)) => {
                let what = "`train.add.experts`: goals with memories share their experts";
                return Err(MergeError::plan("bad-recipe", what)
                    .hint("leave it out")
                    .into());
            }
            (None, None) => return Err(none().into()),
        };
        let mut config = self.config.clone();
        config[key] = value.map_err(|e| Error::file(&self.model.folder, e.to_string()))?;
        let there: HashSet<&str> = self.stored.iter().map(|(name, ..)| &**name).collect();
        let (mut new, mut stored) = (Vec::new(), Vec::new());
        for (name, shape, values) in fresh(&config, seed)? {
            let name = format!("{prefix}{name}");
            if !there.contains(&*name) && is_of_goals(&name) {
                stored.push((name.clone(), DType::F32, shape.clone()));
                new.push((name, tensor(values, shape)?));
            }
        }
        let weights = self.model.weights.with(new);
        self.model = Model::of(&self.model.folder, &config, weights)?;
        self.model.added = stored.iter().map(|(name, ..)| name.clone()).collect();
        self.stored.extend(stored);
        self.config = config;
        Ok(())
    }
}

/// Whether a tensor belongs to goals, not to what they share.
fn is_of_goals(name: &str) -> bool {
    name.contains(".moe.added.") || name.contains("task_expert.goals.")
}
