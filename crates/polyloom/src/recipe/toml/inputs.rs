//! `[base]`, `[[expert]]`, `[[model]]` and `[[slice]]`.

use toml::de::{DeTable, DeValue};

use super::{Key, Reader, each_params, json};
use crate::error::MergeError;
use crate::recipe::environment::expand;
use crate::recipe::read::add_model;
use crate::recipe::{Model, ModelRef, Module, Recipe, Settings, Slice, Source};
use crate::suggest;

const EXPERT: &[&str] = &[
    "name",
    "path",
    "task",
    "strip_prefix",
    "add_prefix",
    "stats",
    "layer_range",
    "merge",
];

impl Reader<'_> {
    /// All models and what is merged of them.
    pub(super) fn inputs(&mut self, top: &DeTable, recipe: &mut Recipe) {
        if let Some(base) = self.table(top, "base") {
            self.base(base, recipe);
        }
        for table in self.tables(top, "model") {
            self.check_keys(
                table,
                &["name", "path", "strip_prefix", "add_prefix"],
                " in `[[model]]`",
            );
            self.model(table, recipe, None);
        }
        let mut experts = Vec::new();
        for table in self.tables(top, "expert") {
            experts.extend(self.expert(table, recipe));
        }
        if experts.is_empty() && self.errors.is_empty() && top.contains_key("merge") {
            self.push(
                MergeError::plan("inputs", "names no expert")
                    .at(self.place.clone())
                    .hint("add `[[expert]]` with `path = \"…\"` for each model to merge"),
            );
        }
        let slices = match top.get_key_value("slice") {
            None => vec![Slice {
                sources: experts,
                base: None,
                base_layers: None,
                settings: Settings::default(),
            }],
            Some((key, _)) => self.slices(key, top, &experts, recipe),
        };
        recipe.modules = vec![Module {
            name: None,
            slices,
            settings: Settings::default(),
        }];
    }

    /// The entries of an array of tables.
    fn tables<'v, 'i>(&mut self, top: &'v DeTable<'i>, name: &str) -> Vec<&'v DeTable<'i>> {
        let Some((key, value)) = top.get_key_value(name) else {
            return Vec::new();
        };
        let DeValue::Array(list) = value.get_ref() else {
            self.bad(
                key.span().start,
                format!("`{name}` is written `[[{name}]]`, once per {name}"),
            );
            return Vec::new();
        };
        let mut out = Vec::new();
        for item in list.iter() {
            match item.get_ref() {
                DeValue::Table(table) => out.push(table),
                _ => self.bad(
                    item.span().start,
                    format!("an entry of `{name}` is not a table"),
                ),
            }
        }
        out
    }

    /// `[base]`: a new base, or new words about the base there is.
    pub(super) fn base(&mut self, table: &DeTable, recipe: &mut Recipe) {
        self.check_keys(
            table,
            &["name", "path", "strip_prefix", "add_prefix"],
            " in `[base]`",
        );
        match recipe.base {
            Some(base) => self.describe(table, &mut recipe.models[base]),
            None => recipe.base = self.model(table, recipe, Some("base")),
        }
    }

    fn model(&mut self, table: &DeTable, recipe: &mut Recipe, name: Option<&str>) -> Option<usize> {
        let Some(path) = self.text(table, "path") else {
            if !table.contains_key("path") {
                self.push(
                    MergeError::plan(
                        "no-path",
                        format!(
                            "a model has no `path`{}",
                            name.map(|n| format!(" (`{n}`)")).unwrap_or_default()
                        ),
                    )
                    .at(self.place.clone()),
                );
            }
            return None;
        };
        let reference = self.reference(table, &path)?;
        let named = self.text(table, "name").or_else(|| name.map(str::to_owned));
        let model = add_model(recipe, reference, named);
        self.describe(table, &mut recipe.models[model]);
        Some(model)
    }

    fn reference(&mut self, table: &DeTable, path: &str) -> Option<ModelRef> {
        match expand(path).and_then(|path| ModelRef::parse(&path)) {
            Ok(reference) => Some(reference),
            Err(message) => {
                self.bad(byte_of(table, "path"), message);
                None
            }
        }
    }

    /// What a table says about a model.
    fn describe(&mut self, table: &DeTable, model: &mut Model) {
        if let Some(path) = self.text(table, "path")
            && let Some(reference) = self.reference(table, &path)
        {
            model.reference = reference;
        }
        for (key, slot) in [
            ("strip_prefix", &mut model.strip_prefix),
            ("add_prefix", &mut model.add_prefix),
            ("task", &mut model.task),
            ("stats", &mut model.stats),
        ] {
            if let Some(text) = self.text(table, key) {
                let whole = if key == "stats" {
                    expand(&text)
                } else {
                    Ok(text)
                };
                match whole {
                    Ok(text) => *slot = Some(text),
                    Err(message) => self.bad(byte_of(table, key), message),
                }
            }
        }
    }

    fn range(&mut self, table: &DeTable) -> Option<(usize, usize)> {
        let (key, value) = table.get_key_value("layer_range")?;
        let range = json(value.get_ref());
        let pair: Option<Vec<usize>> = range
            .as_array()
            .and_then(|a| a.iter().map(|v| v.as_u64().map(|v| v as usize)).collect());
        match pair.as_deref() {
            Some([a, b]) => Some((*a, *b)),
            _ => {
                self.bad(key.span().start, "`layer_range` is not a pair [first, end)");
                None
            }
        }
    }

    fn own_settings(&mut self, table: &DeTable, recipe: &Recipe, scope: &str) -> Settings {
        match self.table(table, "merge") {
            Some(merge) => self.settings(merge, &each_params(recipe, true), recipe, scope),
            None => Settings::default(),
        }
    }

    fn expert(&mut self, table: &DeTable, recipe: &mut Recipe) -> Option<Source> {
        self.check_keys(table, EXPERT, " in `[[expert]]`");
        let model = self.model(table, recipe, None)?;
        let layers = self.range(table);
        let settings = self.own_settings(table, recipe, "[expert.merge]");
        Some(Source {
            model,
            layers,
            settings,
        })
    }

    /// Changes one expert of a recipe that was read before.
    pub(super) fn change_expert(&mut self, key: &Key, table: &DeTable, recipe: &mut Recipe) {
        self.check_keys(
            table,
            EXPERT.get(1..).unwrap_or_default(),
            " in `[[expert]]`",
        );
        let Some(model) = self.named(key.get_ref(), key.span().start, recipe) else {
            return;
        };
        self.describe(table, &mut recipe.models[model]);
        let layers = self.range(table);
        let settings = self.own_settings(table, recipe, "[expert.merge]");
        let mut sources: Vec<&mut Source> = recipe
            .modules
            .iter_mut()
            .flat_map(|m| &mut m.slices)
            .flat_map(|s| &mut s.sources)
            .filter(|s| s.model == model)
            .collect();
        if sources.is_empty() && (layers.is_some() || !settings.is_empty()) {
            self.bad(
                key.span().start,
                format!("`{}` is not merged as an expert", key.get_ref()),
            );
            return;
        }
        if layers.is_some() && sources.len() > 1 {
            self.bad(
                byte_of(table, "layer_range"),
                format!(
                    "`{}` stands in {} slices; one range cannot be meant for all",
                    key.get_ref(),
                    sources.len()
                ),
            );
            return;
        }
        for source in &mut sources {
            source.layers = layers.or(source.layers);
            source.settings.extend(settings.clone());
        }
    }

    /// A model by name; `base` is the base whatever it is called.
    pub(super) fn named(&mut self, name: &str, byte: usize, recipe: &Recipe) -> Option<usize> {
        let found = recipe
            .models
            .iter()
            .position(|m| m.name == name)
            .or(recipe.base.filter(|_| name == "base"));
        if found.is_none() {
            let names: Vec<&str> = recipe.models.iter().map(|m| m.name.as_str()).collect();
            let mut error = MergeError::plan(
                "unknown-model",
                format!(
                    "`{name}` names no model; expected one of: {}",
                    names.join(", ")
                ),
            )
            .at(self.at(byte));
            if let Some(near) = suggest::nearest(name, &names, 1).first() {
                error = error.hint(format!("did you mean `{near}`?"));
            }
            self.push(error);
        }
        found
    }

    /// `[[slice]]`: the output's layers in order, each run from layers of some experts.
    pub(super) fn slices(
        &mut self,
        key: &Key,
        top: &DeTable,
        experts: &[Source],
        recipe: &Recipe,
    ) -> Vec<Slice> {
        if let Some(expert) = experts.iter().find(|e| e.layers.is_some()) {
            let name = &recipe.models[expert.model].name;
            self.bad(
                key.span().start,
                format!("expert `{name}` has a `layer_range`; with `[[slice]]` ranges stand in the slices"),
            );
        }
        let mut slices = Vec::new();
        for table in self.tables(top, "slice") {
            slices.extend(self.slice(table, experts, recipe));
        }
        if slices.is_empty() && self.errors.is_empty() {
            self.bad(key.span().start, "`slice` is empty");
        }
        let used = |model: usize| {
            slices
                .iter()
                .any(|s| s.base == Some(model) || s.sources.iter().any(|x| x.model == model))
        };
        if self.errors.is_empty()
            && let Some(idle) = experts
                .iter()
                .find(|e| !used(e.model) && recipe.base != Some(e.model))
        {
            let name = &recipe.models[idle.model].name;
            let error =
                MergeError::plan("unused-expert", format!("expert `{name}` is in no slice"))
                    .at(self.at(key.span().start))
                    .hint("take it out, or write it as `[[model]]` if only the tokenizer needs it");
            self.push(error);
        }
        slices
    }

    fn slice(&mut self, table: &DeTable, experts: &[Source], recipe: &Recipe) -> Option<Slice> {
        self.check_keys(
            table,
            &["sources", "base", "shared", "each"],
            " in `[[slice]]`",
        );
        let mut settings = Settings::default();
        for (key, each) in [("shared", false), ("each", true)] {
            if let Some(table) = self.table(table, key) {
                let params = each_params(recipe, each);
                settings.extend(self.settings(table, &params, recipe, &format!("[slice.{key}]")));
            }
        }
        let base = match self.text(table, "base") {
            Some(name) => Some(self.named(&name, byte_of(table, "base"), recipe)?),
            None => None,
        };
        let mut sources = Vec::new();
        for table in self.tables(table, "sources") {
            self.check_keys(
                table,
                &["expert", "layer_range", "merge"],
                " in `sources` of a slice",
            );
            let Some(name) = self.text(table, "expert") else {
                if !table.contains_key("expert") {
                    self.push(
                        MergeError::plan("no-expert", "a source of a slice names no `expert`")
                            .at(self.place.clone()),
                    );
                }
                continue;
            };
            let Some(model) = self.named(&name, byte_of(table, "expert"), recipe) else {
                continue;
            };
            // What an expert says of itself holds wherever it is used.
            let mut settings = experts
                .iter()
                .find(|e| e.model == model)
                .map(|e| e.settings.clone())
                .unwrap_or_default();
            settings.extend(self.own_settings(table, recipe, "a slice's `merge`"));
            sources.push(Source {
                model,
                layers: self.range(table),
                settings,
            });
        }
        if sources.is_empty() {
            if self.errors.is_empty() {
                self.push(
                    MergeError::plan("inputs", "a slice has no `sources`")
                        .at(self.place.clone())
                        .hint("write `sources = [{ expert = \"…\", layer_range = [0, 8] }]`"),
                );
            }
            return None;
        }
        Some(Slice {
            sources,
            base,
            base_layers: None,
            settings,
        })
    }
}

/// Where a key stands; 0 if it does not.
pub(super) fn byte_of(table: &DeTable, key: &str) -> usize {
    table.get_key_value(key).map_or(0, |(k, _)| k.span().start)
}
