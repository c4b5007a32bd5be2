//! mergekit's YAML file, read unchanged (methods section 9).

use std::path::Path;

use serde_json::{Map, Value};

use super::read::{add_model, check_inputs};
use super::{
    Dialect, ModelRef, Module, Origin, Part, Recipe, Setting, Settings, Slice, Source, TokenName,
    TokenSource, Tokenizer, Vocabulary, setting, yaml,
};
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

/// Reads a file of one or more documents; several are put in the order in which they must run.
///
/// # Errors
/// Text that is not YAML (with line and column), values that cannot mean anything.
pub fn parse(text: &str, file: Option<&Path>) -> Result<Vec<Recipe>, Vec<MergeError>> {
    let place = file.map_or_else(|| "recipe".to_owned(), |f| f.display().to_string());
    let documents = yaml::documents(text, &place).map_err(|e| vec![e])?;
    let documents: Vec<Value> = documents.into_iter().filter(|d| !d.is_null()).collect();
    if documents.is_empty() {
        return Err(vec![MergeError::plan("empty", "holds no recipe").at(place)]);
    }
    let many = documents.len() > 1;
    let mut recipes = Vec::new();
    let mut errors = Vec::new();
    for document in &documents {
        let mut reader = Reader {
            text,
            place: place.clone(),
            recipe: Recipe::default(),
        };
        match reader.recipe(document, file) {
            Ok(()) => {
                let mut recipe = reader.recipe;
                recipe.text = Some(text.to_owned());
                if many && recipe.name.is_none() && recipes.len() + 1 < documents.len() {
                    errors.push(
                        MergeError::plan(
                            "no-name",
                            "a document of a multi-document file has no `name`",
                        )
                        .at(place.clone()),
                    );
                }
                recipes.push(recipe);
            }
            Err(error) => errors.push(error),
        }
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
    text: &'a str,
    place: String,
    recipe: Recipe,
}

impl Reader<'_> {
    /// `file:line` of the first line that sets a key (keys are rarely repeated across scopes with different meaning).
    fn line_of(&self, key: &str) -> String {
        let line = self.text.lines().position(|l| {
            let l = l
                .trim_start()
                .trim_start_matches("- ")
                .trim_start_matches(['"', '\'', '{', ' ']);
            l.strip_prefix(key).is_some_and(|r| {
                r.trim_start_matches(['"', '\''])
                    .trim_start()
                    .starts_with(':')
            })
        });
        match line {
            Some(n) => format!("{}:{}", self.place, n + 1),
            None => self.place.clone(),
        }
    }

    fn wrong(&self, key: &str, message: impl Into<String>) -> MergeError {
        MergeError::plan("bad-value", message.into()).at(self.line_of(key))
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

    fn recipe(&mut self, document: &Value, file: Option<&Path>) -> Result<()> {
        let top = document.as_object().ok_or_else(|| {
            MergeError::plan(
                "bad-yaml",
                "is not a mergekit file: expected keys such as `merge_method` and `models`",
            )
            .at(self.place.clone())
        })?;
        if top.contains_key("experts") && !top.contains_key("merge_method") {
            return Err(MergeError::plan(
                "moe-file",
                "assembles a mixture of experts, it does not merge",
            )
            .at(self.place.clone())
            .hint("run `polyloom adapt moe` with this file"));
        }
        self.recipe.dialect = Dialect::Mergekit;
        self.recipe.file = file.map(Path::to_owned);
        for key in top.keys().filter(|k| !TOP.contains(&k.as_str())) {
            self.unknown(key, "", TOP);
        }
        if let Some(name) = top.get("name") {
            let name = name
                .as_str()
                .ok_or_else(|| self.wrong("name", "`name` is not text"))?;
            if name.contains(['/', '\\']) || name.starts_with('.') {
                return Err(self.wrong("name", format!("`name: {name}` is not a folder name")));
            }
            self.recipe.name = Some(name.to_owned());
        }
        let method = top
            .get("merge_method")
            .and_then(Value::as_str)
            .ok_or_else(|| {
                self.wrong("merge_method", "`merge_method` is missing")
                    .hint("`polyloom merge --list` shows all methods")
            })?;
        self.recipe.method = method.to_owned();
        if crate::merge::find(method).is_none() {
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
            return Err(error.hint("`polyloom merge --list` shows all methods"));
        }
        for (key, slot) in [("dtype", 0), ("out_dtype", 1)] {
            let Some(word) = top.get(key).filter(|v| !v.is_null()) else {
                continue;
            };
            let dtype = word
                .as_str()
                .and_then(polyloom_core::DType::from_word)
                .filter(|d| d.is_float());
            let dtype = dtype.ok_or_else(|| {
                self.wrong(key, format!("`{key}: {word}` is not a type to merge in"))
                    .hint("one of float32, bfloat16, float16, float64")
            })?;
            if slot == 0 {
                self.recipe.dtype = Some(dtype);
            } else {
                self.recipe.out_dtype = Some(dtype);
            }
        }
        if let Some(base) = top.get("base_model").filter(|v| !v.is_null()) {
            self.recipe.base = Some(self.model(base, "base_model")?);
        }
        self.recipe.settings =
            self.settings(top.get("parameters"), "in top-level `parameters`", true)?;
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
            return Err(MergeError::plan(
                "inputs",
                format!(
                    "exactly one of `models`, `slices` and `modules` says what is merged; {what}"
                ),
            )
            .at(self.place.clone()));
        };
        self.recipe.modules = match kind {
            "models" | "slices" => {
                let slices = self.slices(top)?;
                vec![Module {
                    name: None,
                    slices,
                    settings: Settings::default(),
                }]
            }
            _ => {
                let map = top
                    .get("modules")
                    .and_then(Value::as_object)
                    .ok_or_else(|| self.wrong("modules", "`modules` is not a map of towers"))?;
                let mut modules = Vec::new();
                for (name, value) in map {
                    let table = value.as_object().ok_or_else(|| {
                        self.wrong(name, format!("module `{name}` is not a table"))
                    })?;
                    for key in table
                        .keys()
                        .filter(|k| !["models", "slices", "parameters"].contains(&k.as_str()))
                    {
                        self.unknown(
                            key,
                            &format!("in module `{name}`"),
                            &["models", "slices", "parameters"],
                        );
                    }
                    let settings = self.settings(
                        table.get("parameters"),
                        &format!("in module `{name}`"),
                        false,
                    )?;
                    modules.push(Module {
                        name: Some(name.clone()),
                        slices: self.slices(table)?,
                        settings,
                    });
                }
                modules
            }
        };
        self.tokenizer(top)?;
        if let Some(template) = top.get("chat_template").filter(|v| !v.is_null()) {
            let text = template
                .as_str()
                .ok_or_else(|| self.wrong("chat_template", "`chat_template` is not text"))?;
            self.recipe.chat_template = Some(text.to_owned());
        }
        check_inputs(&mut self.recipe)
    }

    fn slices(&mut self, table: &Map<String, Value>) -> Result<Vec<Slice>> {
        if let Some(models) = table.get("models") {
            let list = models
                .as_array()
                .filter(|l| !l.is_empty())
                .ok_or_else(|| self.wrong("models", "`models` is not a list of models"))?;
            let sources = list
                .iter()
                .map(|m| self.source(m, false))
                .collect::<Result<_>>()?;
            return Ok(vec![Slice {
                sources,
                base: None,
                settings: Settings::default(),
            }]);
        }
        let list = table
            .get("slices")
            .and_then(Value::as_array)
            .filter(|l| !l.is_empty());
        let list = list.ok_or_else(|| self.wrong("slices", "`slices` is not a list of slices"))?;
        let mut slices = Vec::new();
        for slice in list {
            const KEYS: &[&str] = &["sources", "base_model", "parameters", "residual_weight"];
            let table = slice
                .as_object()
                .ok_or_else(|| self.wrong("slices", "a slice is not a table with `sources`"))?;
            for key in table.keys().filter(|k| !KEYS.contains(&k.as_str())) {
                self.unknown(key, "in a slice", KEYS);
            }
            let sources = table
                .get("sources")
                .and_then(Value::as_array)
                .filter(|l| !l.is_empty());
            let sources =
                sources.ok_or_else(|| self.wrong("slices", "a slice has no `sources`"))?;
            let sources = sources
                .iter()
                .map(|s| self.source(s, true))
                .collect::<Result<_>>()?;
            let base = match table.get("base_model").filter(|v| !v.is_null()) {
                Some(base) => Some(self.model(base, "base_model")?),
                None => None,
            };
            let settings = self.settings(table.get("parameters"), "in a slice", false)?;
            slices.push(Slice {
                sources,
                base,
                settings,
            });
        }
        Ok(slices)
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
        let table = value.as_object().ok_or_else(|| {
            self.wrong(
                "models",
                "a model is neither a name nor a table with `model`",
            )
        })?;
        let reference = table
            .get("model")
            .ok_or_else(|| self.wrong("models", "an input has no `model`"))?;
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
        let settings = self.settings(table.get("parameters"), &format!("of `{name}`"), false)?;
        Ok(Source {
            model,
            layers,
            settings,
        })
    }

    fn model(&mut self, value: &Value, key: &str) -> Result<usize> {
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

    fn settings(&mut self, value: Option<&Value>, where_: &str, top: bool) -> Result<Settings> {
        let mut out = Settings::default();
        let Some(value) = value.filter(|v| !v.is_null()) else {
            return Ok(out);
        };
        let table = value.as_object().ok_or_else(|| {
            self.wrong(
                "parameters",
                format!("`parameters` {where_} is not a table"),
            )
        })?;
        let names: Vec<&str> = crate::merge::find(&self.recipe.method)
            .map(|m| m.spec().params.iter().map(|p| p.name).collect())
            .unwrap_or_default();
        for (key, value) in table {
            if top && matches!(key.as_str(), "post" | "pre" | "on") {
                self.ours(key, value)?;
                continue;
            }
            if !names.contains(&key.as_str()) {
                let method = self.recipe.method.clone();
                self.unknown(
                    key,
                    &format!("{where_} for merge method `{method}`"),
                    &names,
                );
                continue;
            }
            let parsed = setting::parse(value)
                .map_err(|e| self.wrong(key, format!("`{key}` {where_} {e}")))?;
            if let Some(parsed) = parsed {
                out.insert(
                    key.clone(),
                    (
                        parsed,
                        Origin {
                            text: self.line_of(key),
                        },
                    ),
                );
            }
        }
        Ok(out)
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

    fn tokenizer(&mut self, top: &Map<String, Value>) -> Result<()> {
        let short = top.get("tokenizer_source").filter(|v| !v.is_null());
        let long = top.get("tokenizer").filter(|v| !v.is_null());
        let mut out = Tokenizer {
            source: Vocabulary::Union,
            tokens: Vec::new(),
            pad_to_multiple_of: None,
        };
        match (short, long) {
            (None, None) => return Ok(()),
            (Some(_), Some(_)) => {
                return Err(self.wrong(
                    "tokenizer_source",
                    "`tokenizer_source` and `tokenizer` exclude each other",
                ));
            }
            (Some(source), None) => out.source = self.vocabulary(source, "tokenizer_source")?,
            (None, Some(value)) => {
                const KEYS: &[&str] = &["source", "tokens", "pad_to_multiple_of"];
                let table = value
                    .as_object()
                    .ok_or_else(|| self.wrong("tokenizer", "`tokenizer` is not a table"))?;
                for key in table.keys().filter(|k| !KEYS.contains(&k.as_str())) {
                    self.unknown(key, "in `tokenizer`", KEYS);
                }
                if let Some(source) = table.get("source").filter(|v| !v.is_null()) {
                    out.source = self.vocabulary(source, "source")?;
                }
                if let Some(pad) = table.get("pad_to_multiple_of").filter(|v| !v.is_null()) {
                    let pad = pad.as_u64().filter(|p| (1..=1 << 20).contains(p));
                    out.pad_to_multiple_of = Some(pad.ok_or_else(|| {
                        self.wrong(
                            "pad_to_multiple_of",
                            "`pad_to_multiple_of` is not a positive whole number",
                        )
                    })? as usize);
                }
                for (token, rule) in table
                    .get("tokens")
                    .and_then(Value::as_object)
                    .into_iter()
                    .flatten()
                {
                    let source = match rule.get("source").filter(|v| !v.is_null()) {
                        Some(source) => Some(self.token_source(token, source)?),
                        None => None,
                    };
                    let force = rule.get("force").and_then(Value::as_bool).unwrap_or(false);
                    out.tokens.push((token.clone(), source, force));
                }
            }
        }
        self.recipe.tokenizer = Some(out);
        Ok(())
    }

    fn vocabulary(&mut self, value: &Value, key: &str) -> Result<Vocabulary> {
        match value.as_str() {
            Some("union") => Ok(Vocabulary::Union),
            Some("base") => Ok(Vocabulary::Base),
            _ => Ok(Vocabulary::Model(self.model(value, key)?)),
        }
    }

    fn token_source(&mut self, token: &str, value: &Value) -> Result<TokenSource> {
        let kind = value.get("kind").and_then(Value::as_str);
        match kind {
            Some("zero") => Ok(TokenSource::Zero),
            Some("model_token") => {
                let model = value.get("model").ok_or_else(|| {
                    self.wrong(
                        token,
                        format!("token `{token}`: `model_token` needs a `model`"),
                    )
                })?;
                let model = self.model(model, token)?;
                let name =
                    match (value.get("token"), value.get("token_id")) {
                        (Some(Value::String(text)), None) => TokenName::Text(text.clone()),
                        (None, Some(id)) if id.is_u64() => {
                            TokenName::Id(id.as_u64().unwrap_or(0) as usize)
                        }
                        _ => return Err(self.wrong(
                            token,
                            format!(
                                "token `{token}`: `model_token` needs one of `token` and `token_id`"
                            ),
                        )),
                    };
                Ok(TokenSource::ModelToken { model, token: name })
            }
            Some(other) => Err(self.wrong(
                token,
                format!("token `{token}`: unknown kind `{other}`; expected zero or model_token"),
            )),
            None => Ok(TokenSource::Model(self.model(value, token)?)),
        }
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
