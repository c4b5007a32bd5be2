//! `models`, `slices`, `modules` and model references.

use serde_json::{Map, Value};

use super::Reader;
use crate::error::{MergeError, Result};
use crate::recipe::read::add_model;
use crate::recipe::{ModelRef, Module, Settings, Slice, Source};

impl Reader<'_> {
    pub(super) fn modules(&mut self, top: &Map<String, Value>) {
        let given: Vec<&str> = ["models", "slices", "modules"]
            .into_iter()
            .filter(|k| top.get(*k).is_some_and(|v| !v.is_null()))
            .collect();
        let [kind] = given[..] else {
            let what = if given.is_empty() {
                "none is given".to_owned()
            } else {
                format!("{} are given", given.join(" and "))
            };
            let text = format!(
                "exactly one of `models`, `slices` and `modules` says what is merged; {what}"
            );
            return self.push(MergeError::plan("inputs", text).at(self.line_of("models")));
        };
        if kind != "modules" {
            let slices = self.slices(top);
            self.recipe.modules = vec![Module {
                name: None,
                slices,
                settings: Settings::default(),
            }];
            return;
        }
        let Some(map) = top.get("modules").and_then(Value::as_object) else {
            return self.bad("modules", "`modules` is not a map of towers");
        };
        self.inside("modules", |this| {
            for (name, value) in map {
                let Some(table) = value.as_object() else {
                    this.bad(name, format!("module `{name}` is not a table"));
                    continue;
                };
                this.inside(name, |this| this.module(name, table));
            }
        });
    }

    fn module(&mut self, name: &str, table: &Map<String, Value>) {
        const KEYS: &[&str] = &["models", "slices", "parameters"];
        for key in table.keys().filter(|k| !KEYS.contains(&k.as_str())) {
            self.unknown(key, &format!("in module `{name}`"), KEYS);
        }
        let settings = self.settings(table, &format!("in module `{name}`"), false);
        let slices = self.slices(table);
        self.recipe.modules.push(Module {
            name: Some(name.to_owned()),
            slices,
            settings,
        });
    }

    /// A list that must not be empty.
    fn list<'v>(&mut self, table: &'v Map<String, Value>, key: &str, what: &str) -> &'v [Value] {
        match table.get(key).and_then(Value::as_array) {
            Some(list) if !list.is_empty() => list,
            _ => {
                self.bad(key, what);
                &[]
            }
        }
    }

    fn sources(&mut self, key: &str, list: &[Value], ranged: bool) -> Vec<Source> {
        self.inside(key, |this| {
            let mut out = Vec::new();
            for (i, value) in list.iter().enumerate() {
                let source = this.inside(&i.to_string(), |this| this.source(value, ranged));
                out.extend(this.good(source));
            }
            out
        })
    }

    fn slices(&mut self, table: &Map<String, Value>) -> Vec<Slice> {
        if table.contains_key("models") {
            let list = self.list(table, "models", "`models` is not a list of models");
            return vec![Slice {
                sources: self.sources("models", list, false),
                base: None,
                base_layers: None,
                settings: Settings::default(),
            }];
        }
        let list = self.list(table, "slices", "`slices` is not a list of slices");
        self.inside("slices", |this| {
            let mut slices = Vec::new();
            for (i, value) in list.iter().enumerate() {
                slices.extend(this.inside(&i.to_string(), |this| this.slice(value)));
            }
            slices
        })
    }

    fn slice(&mut self, value: &Value) -> Option<Slice> {
        const KEYS: &[&str] = &["sources", "base_model", "parameters", "residual_weight"];
        let Some(table) = value.as_object() else {
            self.bad("", "a slice is not a table with `sources`");
            return None;
        };
        for key in table.keys().filter(|k| !KEYS.contains(&k.as_str())) {
            self.unknown(key, "in a slice", KEYS);
        }
        let list = self.list(table, "sources", "a slice has no `sources`");
        let sources = self.sources("sources", list, true);
        let base = match table.get("base_model").filter(|v| !v.is_null()) {
            Some(base) => {
                let base = self.model(base, "base_model");
                self.good(base)
            }
            None => None,
        };
        Some(Slice {
            sources,
            base,
            base_layers: None,
            settings: self.settings(table, "in a slice", false),
        })
    }

    fn source(&mut self, value: &Value, ranged: bool) -> Result<Source> {
        const KEYS: &[&str] = &["model", "layer_range", "parameters"];
        if value.is_string() {
            let model = self.model(value, "model")?;
            return Ok(Source {
                model,
                layers: None,
                settings: Settings::default(),
            });
        }
        let table = value
            .as_object()
            .ok_or_else(|| self.wrong("", "a model is neither a name nor a table with `model`"))?;
        let reference = table
            .get("model")
            .ok_or_else(|| self.wrong("", "an input has no `model`"))?;
        for key in table.keys().filter(|k| !KEYS.contains(&k.as_str())) {
            self.unknown(key, "beside `model`", KEYS);
        }
        let model = self.model(reference, "model")?;
        let layers = match table.get("layer_range").filter(|v| !v.is_null()) {
            Some(range) if ranged => {
                let pair: Option<Vec<usize>> = range
                    .as_array()
                    .and_then(|a| a.iter().map(|v| v.as_u64().map(|v| v as usize)).collect());
                match pair.as_deref() {
                    Some([a, b]) => Some((*a, *b)),
                    _ => {
                        return Err(self.wrong(
                            "layer_range",
                            format!("`layer_range: {range}` is not a pair [first, end)"),
                        ));
                    }
                }
            }
            _ => None,
        };
        let name = self.recipe.models[model].name.clone();
        let settings = self.settings(table, &format!("of `{name}`"), false);
        Ok(Source {
            model,
            layers,
            settings,
        })
    }

    pub(super) fn model(&mut self, value: &Value, key: &str) -> Result<usize> {
        let reference = match value {
            Value::String(text) => ModelRef::parse(text).map_err(|e| self.wrong(key, e))?,
            Value::Object(table) => {
                let side = |value: &Value| -> Option<(String, Option<String>)> {
                    match value {
                        Value::String(text) => Some((text.clone(), None)),
                        Value::Object(t) => Some((
                            t.get("path")?.as_str()?.to_owned(),
                            t.get("revision").and_then(Value::as_str).map(str::to_owned),
                        )),
                        _ => None,
                    }
                };
                let model = table
                    .get("model")
                    .and_then(side)
                    .ok_or_else(|| self.wrong(key, format!("`{key}` has no `model`")))?;
                let adapter = table.get("lora").filter(|v| !v.is_null()).and_then(side);
                if table
                    .get("override_architecture")
                    .is_some_and(|v| !v.is_null())
                {
                    self.recipe.notes.push((
                        false,
                        "`override_architecture` has no effect: tensors are matched by name".into(),
                    ));
                }
                ModelRef {
                    path: model.0,
                    revision: model.1,
                    adapter,
                }
            }
            other => {
                return Err(self.wrong(key, format!("`{key}: {other}` is not a model reference")));
            }
        };
        Ok(add_model(&mut self.recipe, reference, None))
    }
}
