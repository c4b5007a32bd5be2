//! Which tensor of a base an adapter's name means, when one of the two was saved with the model's prefix and the
//! other without.

use std::collections::BTreeSet;

use super::folder::AdapterFolder;
use super::matching::Names;
use crate::checkpoint::Checkpoint;
use crate::error::{Error, Result};

/// How names of the adapter become names of the base.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Rule {
    Same,
    /// The adapter was made on a model with a head, the base is its trunk: `bert.encoder` means `encoder`.
    Strip(String),
    /// The other way round: `layers` means `model.layers`.
    Add(String),
}

impl Rule {
    fn apply(&self, name: &str) -> Option<String> {
        match self {
            Self::Same => Some(name.to_owned()),
            Self::Strip(p) => Some(name.strip_prefix(p.as_str())?.to_owned()),
            Self::Add(p) => Some(format!("{p}{name}")),
        }
    }
}

/// The mapping of one adapter to one base.
#[derive(Debug)]
pub struct BaseNames<'a> {
    base: &'a Checkpoint,
    rule: Rule,
}

impl<'a> BaseNames<'a> {
    /// Finds the one rule under which every adapted module has a weight in the base.
    ///
    /// # Errors
    /// A module that the base lacks, or more than one prefix that would name it.
    pub fn new(base: &'a Checkpoint, adapter: &AdapterFolder) -> Result<Self> {
        let first = |n: &str| n.find('.').map(|i| n[..=i].to_owned());
        let found = |rule: &Rule| {
            adapter
                .modules
                .keys()
                .filter(|m| Self::resolve(base, rule, &format!("{m}.weight")).is_some())
                .count()
        };
        let all = adapter.modules.len();
        if found(&Rule::Same) == all {
            return Ok(Self {
                base,
                rule: Rule::Same,
            });
        }
        let strip: BTreeSet<String> = adapter.modules.keys().filter_map(|m| first(m)).collect();
        let add: BTreeSet<String> = base.tensors().keys().filter_map(|t| first(t)).collect();
        let rules: Vec<Rule> = strip
            .into_iter()
            .map(Rule::Strip)
            .chain(add.into_iter().map(Rule::Add))
            .filter(|rule| found(rule) == all)
            .collect();
        match <[Rule; 1]>::try_from(rules) {
            Ok([rule]) => Ok(Self { base, rule }),
            Err(rules) => {
                let names = Self {
                    base,
                    rule: Rule::Same,
                };
                let lost = adapter
                    .modules
                    .keys()
                    .find(|m| Self::resolve(base, &Rule::Same, &format!("{m}.weight")).is_none());
                let lost = lost.map_or("", String::as_str);
                Err(if rules.is_empty() {
                    names.missing(lost)
                } else {
                    Error::tensor(
                        base.origin(),
                        format!("{lost}.weight"),
                        "is not in the base, and more than one prefix would name it",
                    )
                })
            }
        }
    }

    fn resolve(base: &Checkpoint, rule: &Rule, name: &str) -> Option<String> {
        if base.get(name).is_some() {
            return Some(name.to_owned());
        }
        rule.apply(name).filter(|n| base.get(n).is_some())
    }

    /// The base's name for an adapter's tensor; its own name if the base has no such tensor (a new head).
    #[must_use]
    pub fn of(&self, name: &str) -> String {
        Self::resolve(self.base, &self.rule, name).unwrap_or_else(|| name.to_owned())
    }

    /// The error about a module that the base lacks.
    pub fn missing(&self, module: &str) -> Error {
        let error = Error::tensor(
            self.base.origin(),
            format!("{module}.weight"),
            format!("is missing, but the adapter changes module `{module}`"),
        );
        if module.ends_with("lm_head") {
            return error.with_hint(
                "the base ties its head to the embedding; save it untied (both tensors) to give the head an adapter",
            );
        }
        error.with_hint("the adapter belongs to another base; its adapter_config.json names one in `base_model_name_or_path`")
    }

    /// Matrices of the base that `target_modules` means but the file has no tensors for; PEFT would leave them at a
    /// zero delta.
    ///
    /// # Errors
    /// Patterns of the configuration that cannot be used.
    pub fn notes(&self, base: &Checkpoint, adapter: &AdapterFolder) -> Result<Vec<String>> {
        let config = &adapter.config;
        if matches!(&config.targets.target, Some(Names::Pattern(p)) if p == "all-linear") {
            return Ok(Vec::new());
        }
        let adapted: BTreeSet<String> = adapter
            .modules
            .keys()
            .map(|m| self.of(&format!("{m}.weight")))
            .collect();
        let mut lacking = Vec::new();
        for tensor in base.tensors().values() {
            let Some(module) = tensor.name.strip_suffix(".weight") else {
                continue;
            };
            if tensor.shape.len() < 2 || adapted.contains(&tensor.name) {
                continue;
            }
            // The configuration speaks of the names of the model it was trained on.
            let trained = match &self.rule {
                Rule::Same => module.to_owned(),
                Rule::Strip(p) => format!("{p}{module}"),
                Rule::Add(p) => module.strip_prefix(p.as_str()).unwrap_or(module).to_owned(),
            };
            let hit = config
                .targets
                .matches(&trained)
                .map_err(|e| config.bad_pattern("target_modules", &e))?;
            if hit {
                lacking.push(trained);
            }
        }
        let Some(first) = lacking.first() else {
            return Ok(Vec::new());
        };
        Ok(vec![format!(
            "`target_modules` means {} module(s) without tensors in the file, first `{first}`; they stay as in the base",
            lacking.len()
        )])
    }
}
