//! Low-rank parts in training: where they go, how they begin, the PEFT folder they become.

use std::collections::HashMap;

use polyloom::MergeError;
use polyloom_core::DType;
use polyloom_core::peft::{AdapterConfig, AdapterTensor, Names};
use polyloom_core::rng::Stream;
use serde_json::{Map, Value as Json, json};

use super::recipe::LoraRecipe;
use crate::engine::{Parameters, Tensor, slice, tensor};
use crate::error::{Error, Result};
use crate::models::lora::{LowRank, row_lengths};
use crate::models::{Plain, Source};

/// The linear layers that get low-rank parts.
#[derive(Debug, Clone)]
pub struct LowRankSet {
    /// Names of the modules, in the order in which the model uses them.
    pub modules: Vec<String>,
    /// What the recipe says.
    pub recipe: LoraRecipe,
}

impl LowRankSet {
    /// Those of a model's linear layers that the recipe names; all of them where it names none.
    ///
    /// # Errors
    /// Targets that no linear layer has.
    pub fn choose(recipe: &LoraRecipe, linear: &[String]) -> Result<Self> {
        let all = recipe.targets.is_empty() || recipe.targets == ["all-linear"];
        let names = Names::List(recipe.targets.clone());
        let fits = |name: &&String| all || names.matches(name).unwrap_or(false);
        let modules: Vec<String> = linear.iter().filter(fits).cloned().collect();
        let unused = recipe.targets.iter().find(|target| {
            let one = Names::List(vec![(*target).clone()]);
            !all && !modules.iter().any(|m| one.matches(m).unwrap_or(false))
        });
        if let Some(target) = unused {
            let mut last: Vec<&str> = linear
                .iter()
                .map(|n| n.rsplit('.').next().unwrap_or(n))
                .collect();
            last.sort_unstable();
            last.dedup();
            return Err(MergeError::plan(
                "bad-recipe",
                format!("`train.lora.targets`: no linear layer of the model ends with `{target}`"),
            )
            .hint(format!("its layers end with: {}", last.join(", ")))
            .into());
        }
        Ok(Self {
            modules,
            recipe: recipe.clone(),
        })
    }

    fn alpha(&self) -> f64 {
        self.recipe.alpha.unwrap_or(2.0 * self.recipe.rank as f64)
    }

    /// What the products count.
    #[must_use]
    pub fn scale(&self) -> f32 {
        let rank = self.recipe.rank as f64;
        let below = if self.recipe.rslora {
            rank.sqrt()
        } else {
            rank
        };
        (self.alpha() / below) as f32
    }

    /// The parts before the first step: `A` uniform within `1/√in` (PEFT's Kaiming), `B` zero, DoRA's magnitudes the
    /// lengths of the base's rows.
    ///
    /// # Errors
    /// A module whose weight is absent or no matrix.
    pub fn begin(&self, base: &Plain, seed: u64) -> Result<Vec<(String, Tensor)>> {
        let mut out = Vec::new();
        for module in &self.modules {
            let weight = base.tensor(&format!("{module}.weight"))?;
            let &[outputs, inputs] = weight.dims() else {
                return Err(Error::shape("low rank", format!("`{module}` is no matrix")));
            };
            let rank = self.recipe.rank;
            let stream = Stream::new(seed, &format!("{module}.lora_A"), 0);
            let bound = 1.0 / (inputs as f32).sqrt();
            let a = (0..(rank * inputs) as u64)
                .map(|i| (2.0 * stream.uniform(i) - 1.0) * bound)
                .collect();
            let a = tensor(a, (rank, inputs))?;
            let b = tensor(vec![0.0; outputs * rank], (outputs, rank))?;
            if self.recipe.dora {
                let part = LowRank {
                    a: crate::engine::Value::constant(a.clone()),
                    b: crate::engine::Value::constant(b.clone()),
                    scale: self.scale(),
                    magnitude: None,
                };
                let lengths = row_lengths(weight.data(), &part)?;
                out.push((format!("{module}.lora_magnitude_vector"), lengths));
            }
            out.push((format!("{module}.lora_A.weight"), a));
            out.push((format!("{module}.lora_B.weight"), b));
        }
        Ok(out)
    }

    /// The parts as they stand in a source, by module.
    ///
    /// # Errors
    /// A part that is absent.
    pub fn parts(&self, source: &dyn Source) -> Result<HashMap<String, LowRank>> {
        let one = |module: &String| {
            let part = |suffix: &str| source.tensor(&format!("{module}.{suffix}"));
            let magnitude = match self.recipe.dora {
                true => Some(part("lora_magnitude_vector")?),
                false => None,
            };
            let found = LowRank {
                a: part("lora_A.weight")?,
                b: part("lora_B.weight")?,
                scale: self.scale(),
                magnitude,
            };
            Ok((module.clone(), found))
        };
        self.modules.iter().map(one).collect()
    }

    /// `adapter_config.json`. PEFT finds modules by the ends of their names, so the shortest ends are written that mean
    /// these modules and no others of `all` that the base has.
    #[must_use]
    pub fn config(&self, base: Option<&str>, all: &[String]) -> Map<String, Json> {
        let targets = Names::List(shortest(&self.modules, all));
        let base = base.map(|b| Json::from(b.to_owned()));
        let mut map = AdapterConfig::lora(base.as_ref(), &targets, self.recipe.rank);
        let alpha = self.alpha();
        let whole = alpha.fract() == 0.0;
        let alpha = if whole {
            json!(alpha as i64)
        } else {
            json!(alpha)
        };
        map.insert("lora_alpha".into(), alpha);
        map.insert("lora_dropout".into(), json!(self.recipe.dropout));
        map.insert("use_rslora".into(), json!(self.recipe.rslora));
        map.insert("use_dora".into(), json!(self.recipe.dora));
        map.insert("task_type".into(), json!("FEATURE_EXTRACTION"));
        map
    }

    /// The tensors of `adapter_model.safetensors`.
    ///
    /// # Errors
    /// Never in practice: tensors of the processor.
    pub fn tensors(&self, parameters: &Parameters, dtype: DType) -> Result<Vec<AdapterTensor>> {
        let mut out = Vec::new();
        for p in parameters.iter().filter(|p| p.name.contains(".lora_")) {
            out.push(AdapterTensor {
                name: format!("base_model.model.{}", p.name),
                dtype,
                shape: p.value.dims().to_vec(),
                values: slice(p.value.data())?.to_vec(),
            });
        }
        Ok(out)
    }
}

/// Ends of names that mean all of `chosen` and none of the others of `all`.
fn shortest(chosen: &[String], all: &[String]) -> Vec<String> {
    let mut ends: Vec<String> = Vec::new();
    for name in chosen {
        let parts: Vec<&str> = name.split('.').collect();
        let end = (1..=parts.len())
            .map(|n| parts[parts.len() - n..].join("."))
            .find(|end| {
                let one = Names::List(vec![end.clone()]);
                all.iter()
                    .filter(|m| one.matches(m).unwrap_or(false))
                    .all(|m| chosen.contains(m))
            });
        let end = end.unwrap_or_else(|| name.clone());
        if !ends.contains(&end) {
            ends.push(end);
        }
    }
    ends
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(list: &[&str]) -> Vec<String> {
        list.iter().map(|n| (*n).to_owned()).collect()
    }

    #[test]
    fn targets_are_chosen_as_peft_does_and_written_short() {
        let linear = names(&[
            "l.0.attention.query",
            "l.0.attention.output.dense",
            "l.0.output.dense",
            "pooler.dense",
        ]);
        let recipe = |targets: &[&str]| LoraRecipe {
            targets: names(targets),
            ..LoraRecipe::default()
        };
        let of = |targets: &[&str]| LowRankSet::choose(&recipe(targets), &linear);
        assert_eq!(of(&[]).unwrap().modules, linear);
        let some = of(&["query", "output.dense"]).unwrap();
        assert_eq!(some.modules, linear[..3]);
        let written = some.config(None, &linear);
        assert_eq!(written["target_modules"], json!(["query", "output.dense"]));
        assert_eq!((some.scale(), &written["lora_alpha"]), (2.0, &json!(16)));
        let error = of(&["q_proj"]).unwrap_err().to_string();
        assert!(error.contains("ends with `q_proj`"), "{error}");
        assert_eq!(shortest(&linear[1..2], &linear), ["attention.output.dense"]);
    }
}
