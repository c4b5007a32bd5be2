//! `loom.toml`: our own recipe file. Unknown keys are errors with line, column and the valid names.

mod inputs;
mod merge;
mod tokenizer;

use std::path::Path;

use serde_json::{Map, Value};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::read::check_inputs;
use super::{Dialect, Recipe, Setting, Source};
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
        flag: false,
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

/// Changes a recipe by one key of `loom.toml` (`merge.dtype`, `tokenizer.source`, `expert.NAME.task`, ...), as if the
/// file had it.
///
/// # Errors
/// What a file with this key would report.
pub(super) fn set(recipe: &mut Recipe, key: &str, value: &str) -> Result<(), MergeError> {
    let line = |value: &str| format!("{key} = {value}");
    let quoted = || line(&Value::from(value).to_string());
    // A value that is none in TOML is text: `--set merge.dtype=bf16`.
    let text = if value.contains('\n') || DeTable::parse(&line(value)).is_err() {
        quoted()
    } else {
        line(value)
    };
    let place = format!("--set {key}");
    let document = DeTable::parse(&text).map_err(|_| {
        MergeError::plan("unknown-key", format!("--set: `{key}` is not a key"))
            .hint("write it as in a loom.toml: merge.dtype, tokenizer.source, expert.NAME.task")
    })?;
    let mut reader = Reader {
        text: &text,
        place,
        flag: true,
        errors: Vec::new(),
    };
    reader.change(document.get_ref(), recipe);
    match reader.errors.into_iter().next() {
        Some(error) => Err(error),
        None => check_inputs(recipe),
    }
}

/// `file:line:column` of a byte.
#[must_use]
pub fn position(text: &str, place: &str, byte: usize) -> String {
    let before = &text[..text.floor_char_boundary(byte)];
    let line = before.matches('\n').count() + 1;
    let column = before.chars().rev().take_while(|c| *c != '\n').count() + 1;
    format!("{place}:{line}:{column}")
}

type Key<'a> = Spanned<std::borrow::Cow<'a, str>>;

/// Reads one document, or one `--set`.
struct Reader<'t> {
    text: &'t str,
    place: String,
    /// The text was typed on the command line: places are flags, and the recipe is there already.
    flag: bool,
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
        if self.flag {
            return self.place.clone();
        }
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
            // A name that looks like a number is a name: what is typed has no quotes.
            DeValue::Integer(_) | DeValue::Float(_) | DeValue::Boolean(_) if self.flag => {
                let typed = self.text.split_once('=').map_or("", |(_, v)| v);
                Some(typed.trim().to_owned())
            }
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

    /// The keys and tables that a recipe has. Tables after `tokenizer` belong to other commands.
    const TOP: &'static [&'static str] = &[
        "version",
        "name",
        "seed",
        "base",
        "expert",
        "model",
        "slice",
        "merge",
        "tokenizer",
        "chat_template",
        "eval",
        "train",
        "tune",
        "compress",
        "route",
        "weave",
        "serve",
        "tasks",
    ];

    fn recipe(&mut self, top: &DeTable) -> Recipe {
        let mut recipe = Recipe {
            dialect: Dialect::Loom,
            ..Recipe::default()
        };
        self.check_keys(top, Self::TOP, "");
        self.header(top, &mut recipe);
        match self.table(top, "merge") {
            Some(merge) => {
                self.merge(merge, &mut recipe);
                if !merge.contains_key("method") {
                    self.push(
                        MergeError::plan("no-method", "`[merge]` has no `method`")
                            .at(self.place.clone())
                            .hint("`polyloom merge --list` shows all methods"),
                    );
                }
            }
            // What is only compressed needs no method of merging: masks have their own, deltas of every task none.
            None if top.contains_key("compress") && !top.contains_key("merge") => {
                let asked = self
                    .table(top, "compress")
                    .and_then(|t| self.text(t, "method"));
                let masks = asked.filter(|m| crate::compress::METHODS.contains(&&**m));
                recipe.method = masks.unwrap_or_else(|| "task_arithmetic".into());
            }
            None if !top.contains_key("merge") => {
                self.push(
                    MergeError::plan("no-merge", "has no `[merge]` table")
                        .at(self.place.clone())
                        .hint("add `[merge]` with `method = \"…\"`, or `[compress]` where it is only compressed"),
                );
            }
            None => {}
        }
        self.inputs(top, &mut recipe);
        if let Some(tokenizer) = self.table(top, "tokenizer") {
            self.tokenizer(tokenizer, &mut recipe);
        }
        recipe
    }

    /// Version, title, seed and chat template.
    fn header(&mut self, top: &DeTable, recipe: &mut Recipe) {
        if let Some((key, value)) = top.get_key_value("version")
            && json(value.get_ref()) != 1
        {
            self.bad(
                key.span().start,
                "`version` must be 1; this Polyloom reads no other",
            );
        }
        if let Some(name) = self.text(top, "name") {
            recipe.name = Some(name);
        }
        if let Some(template) = self.text(top, "chat_template") {
            recipe.chat_template = Some(template);
        }
        if let Some((key, value)) = top.get_key_value("seed") {
            match json(value.get_ref()).as_u64() {
                Some(seed) => recipe.seed = seed,
                None => self.bad(
                    key.span().start,
                    "`seed` is not a whole number of at least 0",
                ),
            }
        }
    }

    /// Applies the one key of `--set` to a recipe.
    fn change(&mut self, top: &DeTable, recipe: &mut Recipe) {
        const ELSEWHERE: [&str; 8] = [
            "eval", "train", "tune", "compress", "route", "weave", "serve", "tasks",
        ];
        self.check_keys(top, Self::TOP, "");
        for (key, _) in top.iter() {
            if ELSEWHERE.contains(&key.get_ref().as_ref()) {
                let what = format!("`{}` belongs to another command", key.get_ref());
                self.bad(key.span().start, what);
            }
            if key.get_ref() == "model" {
                self.bad(
                    key.span().start,
                    "models are listed in the recipe; change one with base.KEY or expert.NAME.KEY",
                );
            }
        }
        self.header(top, recipe);
        if let Some(merge) = self.table(top, "merge") {
            self.merge(merge, recipe);
            if merge.contains_key("method") && self.errors.is_empty() {
                self.left_over(recipe);
            }
        }
        if let Some(base) = self.table(top, "base") {
            self.base(base, recipe);
        }
        if let Some(experts) = self.table(top, "expert") {
            for (name, table) in experts.iter() {
                match table.get_ref() {
                    DeValue::Table(table) => self.change_expert(name, table, recipe),
                    _ => self.bad(
                        name.span().start,
                        "an expert is changed by expert.NAME.KEY=VALUE",
                    ),
                }
            }
        }
        if let Some((key, _)) = top.get_key_value("slice") {
            match &recipe.modules[..] {
                [module] if module.name.is_none() => {
                    let experts: Vec<Source> = match &module.slices[..] {
                        [one] => one.sources.iter().cloned().map(Source::whole).collect(),
                        _ => Vec::new(),
                    };
                    let slices = self.slices(key, top, &experts, recipe);
                    recipe.modules[0].slices = slices;
                }
                _ => self.bad(
                    key.span().start,
                    "a recipe of several towers has no `slice`",
                ),
            }
        }
        if let Some(tokenizer) = self.table(top, "tokenizer") {
            self.tokenizer(tokenizer, recipe);
        }
    }

    /// Parameters in the recipe that a newly set method does not have.
    fn left_over(&mut self, recipe: &Recipe) {
        let known = |name: &str| {
            crate::merge::find(&recipe.method)
                .is_none_or(|m| m.spec().params.iter().any(|p| p.name == name))
        };
        let scopes = std::iter::once(&recipe.settings).chain(recipe.modules.iter().flat_map(|m| {
            std::iter::once(&m.settings).chain(m.slices.iter().flat_map(|s| {
                std::iter::once(&s.settings).chain(s.sources.iter().map(|x| &x.settings))
            }))
        }));
        let mut odd: Vec<&str> = scopes
            .flat_map(|s| s.keys())
            .map(String::as_str)
            .filter(|n| !known(n))
            .collect();
        odd.dedup();
        if let Some(name) = odd.first() {
            let text = format!(
                "the recipe sets `{name}`, which is no parameter of merge method `{}`",
                recipe.method
            );
            self.push(MergeError::plan("unknown-key", text).at(self.place.clone()));
        }
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
#[path = "toml_tests.rs"]
mod tests;
