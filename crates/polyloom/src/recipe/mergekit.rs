//! mergekit's YAML file, read unchanged (methods section 9).

mod inputs;
mod tokenizer;
mod tree;

use std::path::Path;

use serde_json::{Map, Value};

use super::read::check_inputs;
use super::{Dialect, Origin, Part, Recipe, Setting, Settings, setting};
use crate::error::{MergeError, Result};
use crate::suggest;

const TOP: &[&str] = &[
    "merge_method",
    "models",
    "slices",
    "modules",
    "base_model",
    "parameters",
    "dtype",
    "out_dtype",
    "tokenizer_source",
    "tokenizer",
    "chat_template",
    "name",
];

/// Most problems that are reported of one document.
const MOST: usize = 10;

/// Reads a file of one or more documents; several are put in the order in which they must run.
///
/// # Errors
/// Text that is not YAML (with line and column), values that cannot mean anything; of each document up to ten.
pub fn parse(text: &str, file: Option<&Path>) -> Result<Vec<Recipe>, Vec<MergeError>> {
    let place = file.map_or_else(|| "recipe".to_owned(), |f| f.display().to_string());
    let documents = tree::documents(text, &place).map_err(|e| vec![e])?;
    let documents: Vec<tree::Tree> = documents
        .into_iter()
        .filter(|d| !d.value.is_null())
        .collect();
    if documents.is_empty() {
        return Err(vec![MergeError::plan("empty", "holds no recipe").at(place)]);
    }
    let mut recipes: Vec<Recipe> = Vec::new();
    let mut errors = Vec::new();
    for (i, document) in documents.iter().enumerate() {
        let mut reader = Reader {
            tree: document,
            path: String::new(),
            place: place.clone(),
            recipe: Recipe::default(),
            errors: Vec::new(),
        };
        reader.recipe(file);
        let name = reader.recipe.name.clone();
        if name.is_none() && i + 1 < documents.len() && reader.errors.is_empty() {
            let what = "a document of a multi-document file has no `name`";
            reader.push(MergeError::plan("no-name", what).at(reader.line_of("")));
        }
        if let Some(name) = name
            && recipes.iter().any(|r| r.name.as_deref() == Some(&name))
        {
            let what = format!("`name: {name}` names two documents");
            reader.push(
                MergeError::plan("duplicate-name", what)
                    .at(reader.line_of("name"))
                    .hint("each stage is a folder of its own; give it another name"),
            );
        }
        errors.append(&mut reader.errors);
        let mut recipe = reader.recipe;
        recipe.text = Some(text.to_owned());
        recipes.push(recipe);
    }
    if !errors.is_empty() {
        return Err(errors);
    }
    order(recipes).map_err(|e| vec![e.at(place)])
}

/// Sorts stages so that each comes after those it names.
fn order(mut recipes: Vec<Recipe>) -> Result<Vec<Recipe>> {
    let mut done: Vec<Recipe> = Vec::new();
    while !recipes.is_empty() {
        let waiting: Vec<Option<String>> = recipes.iter().map(|r| r.name.clone()).collect();
        let ready = recipes.iter().position(|r| {
            r.models.iter().all(|m| {
                !waiting
                    .iter()
                    .any(|w| w.as_deref() == Some(&m.reference.path) && w.is_some() && w != &r.name)
            })
        });
        match ready {
            Some(at) => done.push(recipes.remove(at)),
            None => {
                let names: Vec<String> = waiting.into_iter().flatten().collect();
                return Err(MergeError::plan(
                    "cycle",
                    format!(
                        "the documents {} need each other's results",
                        names.join(", ")
                    ),
                ));
            }
        }
    }
    Ok(done)
}

struct Reader<'a> {
    tree: &'a tree::Tree,
    /// Where in the document the reader is.
    path: String,
    place: String,
    recipe: Recipe,
    errors: Vec<MergeError>,
}

impl Reader<'_> {
    /// `file:line` of a key of the table the reader is in; of the table if it has no such key.
    fn line_of(&self, key: &str) -> String {
        let lines = &self.tree.lines;
        let line = lines
            .get(&tree::join(&self.path, key))
            .or_else(|| lines.get(&self.path));
        match line {
            Some(line) => format!("{}:{line}", self.place),
            None => self.place.clone(),
        }
    }

    /// Does something one step further inside the document.
    fn inside<T>(&mut self, key: &str, f: impl FnOnce(&mut Self) -> T) -> T {
        let deeper = tree::join(&self.path, key);
        let before = std::mem::replace(&mut self.path, deeper);
        let out = f(self);
        self.path = before;
        out
    }

    fn wrong(&self, key: &str, message: impl Into<String>) -> MergeError {
        MergeError::plan("bad-value", message.into()).at(self.line_of(key))
    }

    fn push(&mut self, error: MergeError) {
        if self.errors.len() < MOST {
            self.errors.push(error);
        }
    }

    fn bad(&mut self, key: &str, message: impl Into<String>) {
        let error = self.wrong(key, message);
        self.push(error);
    }

    /// The value, or its problem noted.
    fn good<T>(&mut self, result: Result<T>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(error) => {
                self.push(error);
                None
            }
        }
    }

    fn warn(&mut self, text: String) {
        if !self.recipe.notes.iter().any(|(_, t)| *t == text) {
            self.recipe.notes.push((true, text));
        }
    }

    fn unknown(&mut self, key: &str, where_: &str, names: &[&str]) {
        let near = suggest::nearest(key, names, 1);
        let hint = near
            .first()
            .map(|n| format!("; did you mean `{n}`?"))
            .unwrap_or_default();
        let text = format!(
            "{}: unknown key `{key}` {where_} is ignored{hint}",
            self.line_of(key)
        );
        self.warn(text);
    }

    fn recipe(&mut self, file: Option<&Path>) {
        let Some(top) = self.tree.value.as_object() else {
            let what = "is not a mergekit file: expected keys such as `merge_method` and `models`";
            return self.push(MergeError::plan("bad-yaml", what).at(self.place.clone()));
        };
        if top.contains_key("experts") && !top.contains_key("merge_method") {
            let what = "assembles a mixture of experts, it does not merge";
            return self.push(
                MergeError::plan("moe-file", what)
                    .at(self.place.clone())
                    .hint("run `polyloom adapt moe` with this file"),
            );
        }
        self.recipe.dialect = Dialect::Mergekit;
        self.recipe.file = file.map(Path::to_owned);
        for key in top.keys().filter(|k| !TOP.contains(&k.as_str())) {
            self.unknown(key, "", TOP);
        }
        match top.get("name").map(|n| (n, n.as_str())) {
            None => {}
            Some((_, Some(name))) if name.contains(['/', '\\']) || name.starts_with('.') => {
                self.bad("name", format!("`name: {name}` is not a folder name"));
            }
            Some((_, Some(name))) => self.recipe.name = Some(name.to_owned()),
            Some(_) => self.bad("name", "`name` is not text"),
        }
        self.method(top);
        for key in ["dtype", "out_dtype"] {
            let Some(word) = top.get(key).filter(|v| !v.is_null()) else {
                continue;
            };
            let dtype = word
                .as_str()
                .and_then(polyloom_core::DType::from_word)
                .filter(|d| d.is_float());
            if dtype.is_none() {
                let error = self
                    .wrong(key, format!("`{key}: {word}` is not a type to merge in"))
                    .hint("one of float32, bfloat16, float16, float64");
                self.push(error);
            } else if key == "dtype" {
                self.recipe.dtype = dtype;
            } else {
                self.recipe.out_dtype = dtype;
            }
        }
        if let Some(base) = top.get("base_model").filter(|v| !v.is_null()) {
            let base = self.model(base, "base_model");
            self.recipe.base = self.good(base);
        }
        self.recipe.settings = self.settings(top, "in top-level `parameters`", true);
        self.modules(top);
        self.tokenizer(top);
        if let Some(template) = top.get("chat_template").filter(|v| !v.is_null()) {
            match template.as_str() {
                Some(text) => self.recipe.chat_template = Some(text.to_owned()),
                None => self.bad("chat_template", "`chat_template` is not text"),
            }
        }
        if self.errors.is_empty() {
            let checked = check_inputs(&mut self.recipe);
            self.good(checked);
        }
    }

    fn method(&mut self, top: &Map<String, Value>) {
        let Some(method) = top.get("merge_method").and_then(Value::as_str) else {
            let error = self
                .wrong("merge_method", "`merge_method` is missing")
                .hint("`polyloom merge --list` shows all methods");
            return self.push(error);
        };
        self.recipe.method = method.to_owned();
        if crate::merge::find(method).is_some() {
            return;
        }
        let names: Vec<&str> = crate::merge::methods().map(|m| m.spec().name).collect();
        let near = suggest::nearest(method, &names, 3);
        let mut error =
            MergeError::plan("unknown-method", format!("unknown merge method `{method}`"))
                .at(self.line_of("merge_method"));
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

    /// `parameters` of a table.
    fn settings(&mut self, owner: &Map<String, Value>, where_: &str, top: bool) -> Settings {
        let mut out = Settings::default();
        let Some(value) = owner.get("parameters").filter(|v| !v.is_null()) else {
            return out;
        };
        let Some(table) = value.as_object() else {
            self.bad(
                "parameters",
                format!("`parameters` {where_} is not a table"),
            );
            return out;
        };
        // Without a known method its words cannot be judged.
        let Some(method) = crate::merge::find(&self.recipe.method) else {
            return out;
        };
        let names: Vec<&str> = method.spec().params.iter().map(|p| p.name).collect();
        self.inside("parameters", |this| {
            for (key, value) in table {
                if top && matches!(key.as_str(), "post" | "pre" | "on") {
                    let read = this.ours(key, value);
                    this.good(read);
                    continue;
                }
                if !names.contains(&key.as_str()) {
                    let what = format!("{where_} for merge method `{}`", method.spec().name);
                    this.unknown(key, &what, &names);
                    continue;
                }
                match setting::parse(value) {
                    Ok(None) => {}
                    Ok(Some(parsed)) => {
                        let text = this.line_of(key);
                        out.insert(key.clone(), (parsed, Origin { text }));
                    }
                    Err(e) => this.bad(key, format!("`{key}` {where_} {e}")),
                }
            }
        });
        out
    }

    /// `post`, `pre` and `on`: ours, read from top-level parameters.
    fn ours(&mut self, key: &str, value: &Value) -> Result<()> {
        self.warn(format!(
            "{}: `{key}` is Polyloom's; mergekit ignores it and writes another result",
            self.line_of(key)
        ));
        if key == "on" {
            self.recipe.on = Some(part(value, "method").map_err(|e| self.wrong(key, e))?);
            return Ok(());
        }
        let list = value
            .as_array()
            .ok_or_else(|| self.wrong(key, format!("`{key}` is not a list of steps")))?;
        for item in list {
            let part = part(item, "step").map_err(|e| self.wrong(key, e))?;
            if key == "post" {
                self.recipe.post.push(part);
            } else {
                self.recipe.pre.push(part);
            }
        }
        Ok(())
    }
}

/// `{method|step: NAME, key: value, ...}`.
pub(super) fn part(value: &Value, name_key: &str) -> Result<Part, String> {
    let table = value
        .as_object()
        .ok_or_else(|| format!("expected a table with `{name_key}`"))?;
    let name = table
        .get(name_key)
        .and_then(Value::as_str)
        .ok_or_else(|| format!("a table lacks `{name_key}`"))?;
    let mut part = Part {
        name: name.to_owned(),
        settings: Settings::default(),
        pre: Vec::new(),
    };
    for (key, value) in table.iter().filter(|(k, _)| *k != name_key) {
        if key == "pre" && name_key == "method" {
            let list = value.as_array().ok_or("`pre` is not a list of steps")?;
            part.pre = list
                .iter()
                .map(|v| self::part(v, "step"))
                .collect::<Result<_, _>>()?;
        } else if value.is_array() {
            // Lists stay lists here: names, or one value per expert.
            part.settings.insert(
                key.clone(),
                (Setting::Value(value.clone()), Origin::default()),
            );
        } else if let Some(parsed) = setting::parse(value).map_err(|e| format!("`{key}` {e}"))? {
            part.settings
                .insert(key.clone(), (parsed, Origin::default()));
        }
    }
    Ok(part)
}

#[cfg(test)]
#[path = "mergekit_tests.rs"]
mod tests;
