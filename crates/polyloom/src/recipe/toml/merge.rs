//! `[merge]` and the parameters of its method.

use toml::de::{DeTable, DeValue};

use super::{Reader, each_params, json};
use crate::error::MergeError;
use crate::merge::method::Param;
use crate::recipe::{Heads, MissingPolicy, Origin, Part, Recipe, Settings, mergekit, setting};
use crate::suggest;

impl Reader<'_> {
    pub(super) fn merge(&mut self, merge: &DeTable, recipe: &mut Recipe) {
        const KEYS: &[&str] = &[
            "method",
            "dtype",
            "out_dtype",
            "heads",
            "missing",
            "truncate_embeddings",
            "on",
            "shared",
            "each",
            "pre",
            "post",
        ];
        self.check_keys(merge, KEYS, " in `[merge]`");
        if let Some(method) = self.text(merge, "method") {
            recipe.method = method.clone();
            if crate::merge::find(&method).is_none() {
                let names: Vec<&str> = crate::merge::methods().map(|m| m.spec().name).collect();
                let near = suggest::nearest(&method, &names, 3);
                let byte = merge
                    .get_key_value("method")
                    .map_or(0, |(k, _)| k.span().start);
                let mut error =
                    MergeError::plan("unknown-method", format!("unknown merge method `{method}`"))
                        .at(self.at(byte));
                if !near.is_empty() {
                    error = error.hint(format!(
                        "did you mean {}?",
                        near.iter()
                            .map(|n| format!("`{n}`"))
                            .collect::<Vec<_>>()
                            .join(", ")
                    ));
                }
                self.push(error.hint("`polyloom merge --list` shows all methods"));
            }
        }
        for key in ["dtype", "out_dtype"] {
            let Some(word) = self.text(merge, key) else {
                continue;
            };
            match polyloom_core::DType::from_word(&word).filter(|d| d.is_float()) {
                Some(dtype) if key == "dtype" => recipe.dtype = Some(dtype),
                Some(dtype) => recipe.out_dtype = Some(dtype),
                None => self.bad(
                    merge.get_key_value(key).map_or(0, |(k, _)| k.span().start),
                    format!("`{key} = \"{word}\"` is not a type; one of f32, bf16, f16, f64"),
                ),
            }
        }
        if let Some(word) = self.text(merge, "heads") {
            match word.as_str() {
                "merge" => recipe.heads = Heads::Merge,
                "separate" => recipe.heads = Heads::Separate,
                _ => self.bad(
                    merge
                        .get_key_value("heads")
                        .map_or(0, |(k, _)| k.span().start),
                    format!("`heads = \"{word}\"`: expected \"merge\" or \"separate\""),
                ),
            }
        }
        if let Some(word) = self.text(merge, "missing") {
            match word.as_str() {
                "error" => recipe.missing = MissingPolicy::Method,
                "base" => recipe.missing = MissingPolicy::Base,
                "intersection" => recipe.missing = MissingPolicy::Intersection,
                "union" => recipe.missing = MissingPolicy::Union,
                _ => self.bad(merge.get_key_value("missing").map_or(0, |(k, _)| k.span().start), format!("`missing = \"{word}\"`: expected \"error\", \"base\", \"intersection\" or \"union\"")),
            }
        }
        if let Some((key, value)) = merge.get_key_value("truncate_embeddings") {
            match value.get_ref() {
                DeValue::Boolean(b) => recipe.truncate_embeddings = *b,
                _ => self.bad(
                    key.span().start,
                    "`truncate_embeddings` is not true or false",
                ),
            }
        }
        for (key, each) in [("shared", false), ("each", true)] {
            let params = each_params(recipe, each);
            if let Some(table) = self.table(merge, key) {
                let found = self.settings(table, &params, recipe, &format!("[merge.{key}]"));
                recipe.settings.extend(found);
            }
        }
        if let Some((key, value)) = merge.get_key_value("on") {
            match self.on(value.get_ref(), recipe) {
                Ok(part) => recipe.on = Some(part),
                Err(message) => self.bad(key.span().start, format!("`on`: {message}")),
            }
        }
        for which in ["pre", "post"] {
            let Some((key, value)) = merge.get_key_value(which) else {
                continue;
            };
            let steps = match value.get_ref() {
                DeValue::Array(items) => items
                    .iter()
                    .map(|i| mergekit::part(&json(i.get_ref()), "step"))
                    .collect(),
                _ => Err(format!(
                    "`{which}` is written `[[merge.{which}]]`, once per step"
                )),
            };
            match steps {
                Ok(steps) if which == "pre" => recipe.pre = steps,
                Ok(steps) => recipe.post = steps,
                Err(message) => self.bad(key.span().start, message),
            }
        }
    }

    /// `on`: a whole inner merge, or (on the command line) new values of the one there is.
    fn on(&self, value: &DeValue, recipe: &Recipe) -> Result<Part, String> {
        let mut value = json(value);
        if let (true, Some(on), Some(table)) = (self.flag, &recipe.on, value.as_object_mut())
            && !table.contains_key("method")
        {
            table.insert("method".into(), on.name.clone().into());
            let new = mergekit::part(&value, "method")?;
            let mut part = on.clone();
            part.settings.extend(new.settings);
            if !new.pre.is_empty() {
                part.pre = new.pre;
            }
            return Ok(part);
        }
        mergekit::part(&value, "method")
    }

    pub(super) fn settings(
        &mut self,
        table: &DeTable,
        params: &[Param],
        recipe: &Recipe,
        scope: &str,
    ) -> Settings {
        let names: Vec<&str> = params.iter().map(|p| p.name).collect();
        let mut out = Settings::default();
        for (key, value) in table.iter() {
            let name = key.get_ref().as_ref();
            if !names.contains(&name) {
                // Without a known method its words cannot be judged.
                if crate::merge::find(&recipe.method).is_some() {
                    let elsewhere = crate::merge::find(&recipe.method)
                        .is_some_and(|m| m.spec().params.iter().any(|p| p.name == name));
                    let what = format!(
                        " for merge method `{}`{}",
                        recipe.method,
                        if elsewhere {
                            format!(" in `{scope}`")
                        } else {
                            String::new()
                        }
                    );
                    self.unknown(key, &what, &names);
                    if elsewhere
                        && let Some(MergeError::Plan { hints, .. }) = self.errors.last_mut()
                    {
                        let each = params.first().is_none_or(|p| p.each);
                        hints.insert(
                            0,
                            format!(
                                "`{name}` stands in `[merge.{}]`",
                                if each { "shared" } else { "each" }
                            ),
                        );
                    }
                }
                continue;
            }
            match setting::parse(&json(value.get_ref())) {
                Ok(Some(parsed)) => {
                    out.insert(
                        name.to_owned(),
                        (
                            parsed,
                            Origin {
                                text: if self.flag {
                                    "flag".into()
                                } else {
                                    self.at(key.span().start)
                                },
                            },
                        ),
                    );
                }
                Ok(None) => {}
                Err(message) => self.bad(key.span().start, format!("`{name}` {message}")),
            }
        }
        out
    }
}
