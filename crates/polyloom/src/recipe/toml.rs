//! `loom.toml`: our own recipe file. Unknown keys are errors with line, column and the valid names.

use std::path::Path;

use serde_json::{Map, Value};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::read::{add_model, check_inputs};
use super::{
    Dialect, Heads, MissingPolicy, Model, ModelRef, Module, Origin, Recipe, Setting, Settings,
    Slice, Source, Tokenizer, Vocabulary, mergekit, setting,
};
use crate::error::{MergeError, Result};
use crate::merge::method::Param;
use crate::suggest;

/// Reads a `loom.toml`. Tables of other commands (`eval`, `train`, `tune`, ...) are left to them.
///
/// # Errors
/// Every problem found, at most ten.
pub fn parse(text: &str, file: Option<&Path>) -> Result<Recipe, Vec<MergeError>> {
    let place = file.map_or_else(|| "loom.toml".to_owned(), |f| f.display().to_string());
    let document = DeTable::parse(text).map_err(|e| {
        let at = e
            .span()
            .map_or_else(|| place.clone(), |s| position(text, &place, s.start));
        vec![MergeError::plan("bad-toml", format!("is not valid TOML: {}", e.message())).at(at)]
    })?;
    let mut reader = Reader {
        text,
        place,
        errors: Vec::new(),
    };
    let mut recipe = reader.recipe(document.get_ref());
    recipe.file = file.map(Path::to_owned);
    recipe.text = Some(text.to_owned());
    if reader.errors.is_empty()
        && let Err(error) = check_inputs(&mut recipe)
    {
        reader.errors.push(error);
    }
    if reader.errors.is_empty() {
        Ok(recipe)
    } else {
        Err(reader.errors)
    }
}

/// `file:line:column` of a byte.
fn position(text: &str, place: &str, byte: usize) -> String {
    let before = &text[..text.floor_char_boundary(byte)];
    let line = before.matches('\n').count() + 1;
    let column = before.chars().rev().take_while(|c| *c != '\n').count() + 1;
    format!("{place}:{line}:{column}")
}

type Key<'a> = Spanned<std::borrow::Cow<'a, str>>;

struct Reader<'t> {
    text: &'t str,
    place: String,
    errors: Vec<MergeError>,
}

fn json(value: &DeValue) -> Value {
    match value {
        DeValue::String(s) => Value::String(s.to_string()),
        DeValue::Integer(i) => i64::from_str_radix(i.as_str(), i.radix())
            .map_or_else(|_| Value::String(i.as_str().to_owned()), Value::from),
        DeValue::Float(f) => f
            .as_str()
            .parse::<f64>()
            .ok()
            .and_then(serde_json::Number::from_f64)
            .map_or_else(|| Value::String(f.as_str().to_owned()), Value::Number),
        DeValue::Boolean(b) => Value::Bool(*b),
        DeValue::Datetime(d) => Value::String(d.to_string()),
        DeValue::Array(items) => items.iter().map(|i| json(i.get_ref())).collect(),
        DeValue::Table(table) => Value::Object(object(table)),
    }
}

fn object(table: &DeTable) -> Map<String, Value> {
    table
        .iter()
        .map(|(k, v)| (k.get_ref().to_string(), json(v.get_ref())))
        .collect()
}

impl Reader<'_> {
    fn at(&self, byte: usize) -> String {
        position(self.text, &self.place, byte)
    }

    fn bad(&mut self, byte: usize, message: impl Into<String>) {
        let error = MergeError::plan("bad-value", message.into()).at(self.at(byte));
        self.push(error);
    }

    fn push(&mut self, error: MergeError) {
        if self.errors.len() < 10 {
            self.errors.push(error);
        }
    }

    /// The excerpt with a caret, as compilers show it.
    fn excerpt(&self, key: &Key, note: &str) -> String {
        let start = key.span().start;
        let before = &self.text[..self.text.floor_char_boundary(start)];
        let line = before.matches('\n').count() + 1;
        let column = before.chars().rev().take_while(|c| *c != '\n').count();
        let source = self.text.lines().nth(line - 1).unwrap_or_default();
        let gutter = " ".repeat(line.to_string().len());
        let caret = "^".repeat(key.get_ref().chars().count().max(1));
        format!(
            "\n   {line} | {source}\n   {gutter} | {}{caret} {note}",
            " ".repeat(column)
        )
    }

    fn unknown(&mut self, key: &Key, what: &str, names: &[&str]) {
        let name = key.get_ref();
        let excerpt = self.excerpt(key, &format!("expected one of: {}", names.join(", ")));
        let mut error = MergeError::plan(
            "unknown-key",
            format!("unknown key `{name}`{what}{excerpt}"),
        )
        .at(self.at(key.span().start));
        if let Some(near) = suggest::nearest(name, names, 1).first() {
            error = error.hint(format!("did you mean `{near}`?"));
        }
        self.push(error);
    }

    fn check_keys(&mut self, table: &DeTable, names: &[&str], what: &str) {
        for (key, _) in table
            .iter()
            .filter(|(k, _)| !names.contains(&k.get_ref().as_ref()))
        {
            self.unknown(key, what, names);
        }
    }

    fn text(&mut self, table: &DeTable, key: &str) -> Option<String> {
        let (name, value) = table.get_key_value(key)?;
        match value.get_ref() {
            DeValue::String(s) => Some(s.to_string()),
            _ => {
                self.bad(name.span().start, format!("`{key}` is not text"));
                None
            }
        }
    }

    fn table<'v, 'i>(&mut self, table: &'v DeTable<'i>, key: &str) -> Option<&'v DeTable<'i>> {
        let (name, value) = table.get_key_value(key)?;
        match value.get_ref() {
            DeValue::Table(t) => Some(t),
            _ => {
                self.bad(name.span().start, format!("`{key}` is not a table"));
                None
            }
        }
    }

    fn recipe(&mut self, top: &DeTable) -> Recipe {
        // Tables after `tokenizer` belong to other commands.
        const TOP: &[&str] = &[
            "version",
            "name",
            "seed",
            "base",
            "expert",
            "merge",
            "tokenizer",
            "chat_template",
            "eval",
            "train",
            "tune",
            "compress",
            "route",
            "serve",
            "tasks",
        ];
        let mut recipe = Recipe {
            dialect: Dialect::Loom,
            ..Recipe::default()
        };
        self.check_keys(top, TOP, "");
        if let Some((key, value)) = top.get_key_value("version")
            && json(value.get_ref()) != 1
        {
            self.bad(
                key.span().start,
                "`version` must be 1; this Polyloom reads no other",
            );
        }
        recipe.name = self.text(top, "name");
        recipe.chat_template = self.text(top, "chat_template");
        if let Some((key, value)) = top.get_key_value("seed") {
            match json(value.get_ref()).as_u64() {
                Some(seed) => recipe.seed = seed,
                None => self.bad(
                    key.span().start,
                    "`seed` is not a whole number of at least 0",
                ),
            }
        }
        let merge = self.table(top, "merge");
        if let Some(merge) = merge {
            self.merge(merge, &mut recipe);
        } else if !top.contains_key("merge") {
            self.push(
                MergeError::plan("no-merge", "has no `[merge]` table")
                    .at(self.place.clone())
                    .hint("add `[merge]` with `method = \"…\"`"),
            );
        }
        if let Some(base) = self.table(top, "base") {
            self.check_keys(
                base,
                &["path", "strip_prefix", "add_prefix"],
                " in `[base]`",
            );
            if let Some(model) = self.model(base, &mut recipe, Some("base")) {
                recipe.base = Some(model);
            }
        }
        let mut sources = Vec::new();
        match top.get_key_value("expert").map(|(k, v)| (k, v.get_ref())) {
            Some((_, DeValue::Array(list))) => {
                for item in list.iter() {
                    match item.get_ref() {
                        DeValue::Table(table) => sources.extend(self.expert(table, &mut recipe)),
                        _ => self.bad(item.span().start, "an `expert` is not a table"),
                    }
                }
            }
            Some((key, _)) => self.bad(
                key.span().start,
                "`expert` is written `[[expert]]`, once per expert",
            ),
            None if merge.is_some() => {
                self.push(
                    MergeError::plan("inputs", "names no expert")
                        .at(self.place.clone())
                        .hint("add `[[expert]]` with `path = \"…\"` for each model to merge"),
                );
            }
            None => {}
        }
        recipe.modules = vec![Module {
            name: None,
            slices: vec![Slice {
                sources,
                base: None,
                settings: Settings::default(),
            }],
            settings: Settings::default(),
        }];
        if let Some(tokenizer) = self.table(top, "tokenizer") {
            self.tokenizer(tokenizer, &mut recipe);
        }
        recipe
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
        match ModelRef::parse(&path) {
            Ok(reference) => {
                let named = self.text(table, "name");
                let model = add_model(recipe, reference, named.or_else(|| name.map(str::to_owned)));
                let entry: &mut Model = &mut recipe.models[model];
                entry.strip_prefix = self.text(table, "strip_prefix");
                entry.add_prefix = self.text(table, "add_prefix");
                Some(model)
            }
            Err(message) => {
                self.bad(
                    table
                        .get_key_value("path")
                        .map_or(0, |(k, _)| k.span().start),
                    message,
                );
                None
            }
        }
    }

    fn expert(&mut self, table: &DeTable, recipe: &mut Recipe) -> Option<Source> {
        self.check_keys(
            table,
            &[
                "name",
                "path",
                "task",
                "strip_prefix",
                "add_prefix",
                "stats",
                "layer_range",
                "merge",
            ],
            " in `[[expert]]`",
        );
        let model = self.model(table, recipe, None)?;
        recipe.models[model].task = self.text(table, "task");
        recipe.models[model].stats = self.text(table, "stats");
        let layers = table.get_key_value("layer_range").and_then(|(key, value)| {
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
        });
        let params = each_params(recipe, true);
        let settings = match self.table(table, "merge") {
            Some(merge) => self.settings(merge, &params, recipe, "[expert.merge]"),
            None => Settings::default(),
        };
        Some(Source {
            model,
            layers,
            settings,
        })
    }

    fn merge(&mut self, merge: &DeTable, recipe: &mut Recipe) {
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
        match self.text(merge, "method") {
            Some(method) => {
                recipe.method = method.clone();
                if crate::merge::find(&method).is_none() {
                    let names: Vec<&str> = crate::merge::methods().map(|m| m.spec().name).collect();
                    let near = suggest::nearest(&method, &names, 3);
                    let byte = merge
                        .get_key_value("method")
                        .map_or(0, |(k, _)| k.span().start);
                    let mut error = MergeError::plan(
                        "unknown-method",
                        format!("unknown merge method `{method}`"),
                    )
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
            None if !merge.contains_key("method") => {
                self.push(
                    MergeError::plan("no-method", "`[merge]` has no `method`")
                        .at(self.place.clone())
                        .hint("`polyloom merge --list` shows all methods"),
                );
            }
            None => {}
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
            match mergekit::part(&json(value.get_ref()), "method") {
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

    fn settings(
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
                                text: self.at(key.span().start),
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

    fn tokenizer(&mut self, table: &DeTable, recipe: &mut Recipe) {
        self.check_keys(
            table,
            &["source", "pad_to_multiple_of"],
            " in `[tokenizer]`",
        );
        let source = match self.text(table, "source").as_deref() {
            None | Some("union") => Vocabulary::Union,
            Some("base") => Vocabulary::Base,
            Some(name) => match recipe.models.iter().position(|m| m.name == name) {
                Some(model) => Vocabulary::Model(model),
                None => {
                    let names: Vec<String> = recipe.models.iter().map(|m| m.name.clone()).collect();
                    let byte = table
                        .get_key_value("source")
                        .map_or(0, |(k, _)| k.span().start);
                    self.bad(byte, format!("`source = \"{name}\"` names no model; expected union, base or one of: {}", names.join(", ")));
                    return;
                }
            },
        };
        let pad = table
            .get_key_value("pad_to_multiple_of")
            .and_then(|(key, value)| {
                let pad = json(value.get_ref())
                    .as_u64()
                    .filter(|p| (1..=1 << 20).contains(p));
                if pad.is_none() {
                    self.bad(
                        key.span().start,
                        "`pad_to_multiple_of` is not a positive whole number",
                    );
                }
                pad.map(|p| p as usize)
            });
        recipe.tokenizer = Some(Tokenizer {
            source,
            tokens: Vec::new(),
            pad_to_multiple_of: pad,
        });
    }
}

fn each_params(recipe: &Recipe, each: bool) -> Vec<Param> {
    crate::merge::find(&recipe.method)
        .map(|m| {
            m.spec()
                .params
                .iter()
                .filter(|p| p.each == each)
                .copied()
                .collect()
        })
        .unwrap_or_default()
}

impl From<Setting> for Value {
    fn from(setting: Setting) -> Self {
        match setting {
            Setting::Value(v) => v,
            Setting::Gradient(items) => Self::Array(items),
            Setting::Filters(list) => list
                .into_iter()
                .map(|(filter, value)| match filter {
                    Some(filter) => {
                        serde_json::json!({"filter": filter, "value": Self::from(value)})
                    }
                    None => serde_json::json!({"value": Self::from(value)}),
                })
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
version = 1
seed = 7
[base]
path = "b"
[[expert]]
name = "x"
path = "models/x"
[expert.merge]
weight = 0.8
[[expert]]
path = "models/y"
[merge]
method = "ties"
out_dtype = "bf16"
[merge.shared]
lambda = 0.5
[merge.each]
density = [{ filter = "attention", value = 0.3 }, { value = 0.2 }]
[[merge.post]]
step = "lines"
alpha = "auto"
beta = 0.8
[eval]
tasks = ["anything"]
"#;

    #[test]
    fn a_recipe_is_read() {
        let recipe = parse(GOOD, None).unwrap();
        assert_eq!(
            (recipe.method.as_str(), recipe.seed, recipe.models.len()),
            ("ties", 7, 3)
        );
        assert_eq!(recipe.modules[0].slices[0].sources.len(), 2);
        assert_eq!(recipe.models[recipe.base.unwrap()].name, "base");
        assert_eq!(recipe.models[2].name, "y");
        assert_eq!(recipe.post[0].name, "lines");
        assert!(recipe.settings.contains_key("density") && recipe.settings.contains_key("lambda"));
    }

    #[test]
    fn typos_are_errors_with_their_place() {
        let errors = parse(
            &GOOD
                .replace("density =", "densty =")
                .replace("[eval]", "[evl]"),
            None,
        )
        .unwrap_err();
        let text = errors
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join("\n");
        assert!(
            text.contains("loom.toml:19:1: unknown key `densty` for merge method `ties`"),
            "{text}"
        );
        assert!(text.contains("   19 | densty"), "{text}");
        assert!(
            text.contains("^^^^^^ expected one of: weight, density"),
            "{text}"
        );
        assert!(text.contains("unknown key `evl`"), "{text}");
        assert!(
            errors
                .iter()
                .any(|e| e.hints().iter().any(|h| h == "did you mean `density`?"))
        );
    }

    #[test]
    fn a_missing_base_names_the_way_out() {
        let text = GOOD.replace("[base]\npath = \"b\"\n", "");
        let errors = parse(&text, None).unwrap_err();
        assert!(
            errors[0]
                .to_string()
                .contains("`ties` works on task vectors and needs a base"),
            "{}",
            errors[0]
        );
    }
}
