//! A recipe as text again: `loom.toml`, mergekit YAML, and the list of values with their origins.
//!
//! Every default is written out, so that the text says what would run without the reader knowing whose defaults hold.
//! What a format cannot hold is an error that names it, never left out.

mod loom;

use serde_json::{Map, Value, json};

use super::{
    Heads, MissingPolicy, Part, Recipe, Setting, Settings, Slice, TokenName, TokenSource,
    Vocabulary,
};
use crate::error::{MergeError, Result};
use crate::merge::method::{Kind, Param, Spec, Unset};

pub use loom::to_toml;

/// One value of a recipe, for `inspect --resolved`.
#[derive(Debug, Clone, PartialEq)]
pub struct Shown {
    /// Scope and name, such as `experts.a.weight`, `slices[1].t` or `density`.
    pub key: String,
    /// The value: a scalar, a gradient or a list of filters.
    pub value: Value,
    /// Where it was written, or `default`.
    pub origin: String,
}

/// All settings with their origins, narrowest scope last within a slice, then the defaults of what no scope sets for
/// the whole merge. A default also holds for tensors that no filter matches.
pub fn values(recipe: &Recipe) -> Vec<Shown> {
    let mut out = Vec::new();
    let mut add = |prefix: &str, settings: &Settings| {
        for (name, (setting, origin)) in settings {
            out.push(Shown {
                key: format!("{prefix}{name}"),
                value: setting.clone().into(),
                origin: origin.text.clone(),
            });
        }
    };
    add("", &recipe.settings);
    for module in &recipe.modules {
        let tower = module
            .name
            .as_ref()
            .map(|n| format!("modules.{n}."))
            .unwrap_or_default();
        add(&tower, &module.settings);
        for (i, slice) in module.slices.iter().enumerate() {
            let here = if module.slices.len() > 1 {
                format!("{tower}slices[{i}].")
            } else {
                tower.clone()
            };
            add(&here, &slice.settings);
            for source in &slice.sources {
                let model = &recipe.models[source.model].name;
                add(&format!("{here}experts.{model}."), &source.settings);
            }
        }
    }
    for (name, value) in defaults(recipe) {
        out.push(Shown {
            key: name,
            value,
            origin: "default".into(),
        });
    }
    out
}

fn spec(recipe: &Recipe) -> Option<&'static Spec> {
    crate::merge::find(&recipe.method).map(super::super::merge::method::Method::spec)
}

/// The defaults that hold in the recipe's dialect where the lowest scope sets nothing.
fn defaults(recipe: &Recipe) -> Vec<(String, Value)> {
    let yaml = recipe.dialect == super::Dialect::Mergekit;
    let params: &[Param] = spec(recipe).map_or(&[], |s| s.params);
    params
        .iter()
        .filter(|p| !recipe.settings.contains_key(p.name))
        .filter_map(|p| {
            let value = match p.unset {
                Unset::RequiredInYaml(_) if yaml => return None,
                Unset::Required | Unset::Nothing => return None,
                Unset::RequiredInYaml(x) | Unset::Number(x) => {
                    if matches!(p.kind, Kind::Integer(..)) {
                        json!(x as i64)
                    } else {
                        json!(x)
                    }
                }
                Unset::Flag(b) => json!(b),
                Unset::Word(w) => json!(w),
            };
            Some((p.name.to_owned(), value))
        })
        .collect()
}

fn plain(settings: &Settings) -> Map<String, Value> {
    settings
        .iter()
        .map(|(k, (s, _))| (k.clone(), Setting::into(s.clone())))
        .collect()
}

fn part(part: &Part, key: &str) -> Value {
    let mut out = Map::new();
    out.insert(key.to_owned(), json!(part.name));
    out.extend(plain(&part.settings));
    if !part.pre.is_empty() {
        out.insert("pre".into(), steps(&part.pre));
    }
    Value::Object(out)
}

fn steps(list: &[Part]) -> Value {
    list.iter().map(|p| self::part(p, "step")).collect()
}

fn cannot(what: &str, form: &str, other: &str) -> MergeError {
    MergeError::plan("not-expressible", format!("{form} cannot hold {what}"))
        .hint(format!("write it with --as {other}"))
}

fn names(recipe: &Recipe, each: bool) -> Vec<&'static str> {
    spec(recipe)
        .map(|s| {
            s.params
                .iter()
                .filter(|p| p.each == each)
                .map(|p| p.name)
                .collect()
        })
        .unwrap_or_default()
}

/// The recipe as a mergekit file.
///
/// # Errors
/// Tasks, prefixes, statistics, separate heads, rules for missing tensors, a seed: mergekit's file has no words for
/// them.
pub fn to_yaml(recipe: &Recipe) -> Result<String> {
    let no = |what: &str| Err(cannot(what, "a mergekit file", "toml"));
    if recipe.models.iter().any(|m| {
        m.task.is_some() || m.strip_prefix.is_some() || m.add_prefix.is_some() || m.stats.is_some()
    }) {
        return no("a model's task, prefixes or statistics");
    }
    if recipe.heads != Heads::Merge || recipe.missing != MissingPolicy::Method {
        return no("`heads` or `missing`");
    }
    if recipe.truncate_embeddings || recipe.allow_mixed || recipe.seed != 0 {
        return no("a seed, truncation or mixed architectures (flags there)");
    }
    let name = |index: usize| json!(recipe.models[index].reference.to_string());
    let mut top = Map::new();
    if let Some(title) = &recipe.name {
        top.insert("name".into(), json!(title));
    }
    top.insert("merge_method".into(), json!(recipe.method));
    if let Some(base) = recipe.base {
        top.insert("base_model".into(), name(base));
    }
    let mut parameters = plain(&recipe.settings);
    parameters.extend(defaults(recipe));
    if let Some(on) = &recipe.on {
        parameters.insert("on".into(), part(on, "method"));
    }
    for (key, list) in [("pre", &recipe.pre), ("post", &recipe.post)] {
        if !list.is_empty() {
            parameters.insert(key.into(), steps(list));
        }
    }
    insert_map(&mut top, "parameters", parameters);
    if let [module] = &recipe.modules[..]
        && module.name.is_none()
    {
        yaml_slices(&mut top, &module.slices, recipe.base, &name);
    } else {
        let mut modules = Map::new();
        for module in &recipe.modules {
            let mut table = Map::new();
            yaml_slices(&mut table, &module.slices, recipe.base, &name);
            insert_map(&mut table, "parameters", plain(&module.settings));
            modules.insert(
                module.name.clone().unwrap_or_default(),
                Value::Object(table),
            );
        }
        top.insert("modules".into(), Value::Object(modules));
    }
    for (key, dtype) in [("dtype", recipe.dtype), ("out_dtype", recipe.out_dtype)] {
        if let Some(dtype) = dtype {
            top.insert(key.into(), json!(dtype.torch_name()));
        }
    }
    if let Some(tokenizer) = &recipe.tokenizer {
        let mut table = Map::new();
        let source = match tokenizer.source {
            Vocabulary::Union => json!("union"),
            Vocabulary::Base => json!("base"),
            Vocabulary::Model(m) => name(m),
        };
        table.insert("source".into(), source);
        if let Some(pad) = tokenizer.pad_to_multiple_of {
            table.insert("pad_to_multiple_of".into(), json!(pad));
        }
        let mut tokens = Map::new();
        for (token, source, force) in &tokenizer.tokens {
            let mut rule = Map::new();
            match source {
                None => {}
                Some(TokenSource::Zero) => {
                    rule.insert("source".into(), json!({"kind": "zero"}));
                }
                Some(TokenSource::Model(m)) => {
                    rule.insert("source".into(), name(*m));
                }
                Some(TokenSource::ModelToken { model, token }) => {
                    let mut source = json!({"kind": "model_token", "model": name(*model)});
                    match token {
                        TokenName::Text(text) => source["token"] = json!(text),
                        TokenName::Id(id) => source["token_id"] = json!(id),
                    }
                    rule.insert("source".into(), source);
                }
            }
            rule.insert("force".into(), json!(force));
            tokens.insert(token.clone(), Value::Object(rule));
        }
        insert_map(&mut table, "tokens", tokens);
        top.insert("tokenizer".into(), Value::Object(table));
    }
    if let Some(template) = &recipe.chat_template {
        top.insert("chat_template".into(), json!(template));
    }
    let mut out = String::new();
    for (key, value) in &top {
        emit(&mut out, 0, &format!("{}:", scalar_key(key)), value);
    }
    Ok(out)
}

fn insert_map(into: &mut Map<String, Value>, key: &str, map: Map<String, Value>) {
    if !map.is_empty() {
        into.insert(key.to_owned(), Value::Object(map));
    }
}

/// `models:` if there is one slice of whole models, else `slices:`, where the base is listed with its layers.
fn yaml_slices(
    into: &mut Map<String, Value>,
    slices: &[Slice],
    base: Option<usize>,
    name: &dyn Fn(usize) -> Value,
) {
    let sources = |slice: &Slice| -> Value {
        let base = slice.base.or(base).filter(|_| slice.base_layers.is_some());
        let none = Settings::default();
        let inputs = slice
            .sources
            .iter()
            .map(|s| (s.model, s.layers, &s.settings));
        inputs
            .chain(base.map(|model| (model, slice.base_layers, &none)))
            .map(|(model, layers, settings)| {
                let mut table = Map::new();
                table.insert("model".into(), name(model));
                if let Some((a, b)) = layers {
                    table.insert("layer_range".into(), json!([a, b]));
                }
                insert_map(&mut table, "parameters", plain(settings));
                Value::Object(table)
            })
            .collect()
    };
    if let [one] = slices
        && one.base.is_none()
        && one.settings.is_empty()
        && one.sources.iter().all(|s| s.layers.is_none())
    {
        into.insert("models".into(), sources(one));
        return;
    }
    let list = slices
        .iter()
        .map(|slice| {
            let mut table = Map::new();
            table.insert("sources".into(), sources(slice));
            if let Some(base) = slice.base {
                table.insert("base_model".into(), name(base));
            }
            insert_map(&mut table, "parameters", plain(&slice.settings));
            Value::Object(table)
        })
        .collect();
    into.insert("slices".into(), Value::Array(list));
}

/// A key that YAML cannot take for anything but text.
fn scalar_key(key: &str) -> String {
    let simple = key.len() > 3
        && key.chars().all(|c| c.is_ascii_lowercase() || c == '_')
        && !["true", "false", "null"].contains(&key);
    if simple {
        key.to_owned()
    } else {
        json!(key).to_string()
    }
}

/// Block style for tables and lists of tables; everything else as JSON, which is YAML.
fn emit(out: &mut String, indent: usize, head: &str, value: &Value) {
    let pad = " ".repeat(indent);
    match value {
        Value::Object(map) if !map.is_empty() => {
            if head == "-" {
                for (i, (key, value)) in map.iter().enumerate() {
                    let dash = if i == 0 { "- " } else { "" };
                    let depth = if i == 0 { indent } else { indent + 2 };
                    if i == 0 && (value.is_object() || lists_tables(value)) {
                        // Nested blocks count their indent from the key, two to the right of the dash.
                        out.push_str(&format!("{pad}- {}:\n", scalar_key(key)));
                        nested(out, indent + 4, value);
                    } else {
                        emit(out, depth, &format!("{dash}{}:", scalar_key(key)), value);
                    }
                }
            } else {
                out.push_str(&format!("{pad}{head}\n"));
                nested(out, indent + 2, value);
            }
        }
        value if lists_tables(value) => {
            out.push_str(&format!("{pad}{head}\n"));
            nested(out, indent + 2, value);
        }
        other => out.push_str(&format!("{pad}{head} {other}\n")),
    }
}

fn nested(out: &mut String, indent: usize, value: &Value) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                emit(out, indent, &format!("{}:", scalar_key(key)), value);
            }
        }
        Value::Array(items) => {
            for item in items {
                emit(out, indent, "-", item);
            }
        }
        _ => {}
    }
}

fn lists_tables(value: &Value) -> bool {
    value.as_array().is_some_and(|a| {
        !a.is_empty()
            && a.iter()
                .all(|i| i.as_object().is_some_and(|o| !o.is_empty()))
    })
}

#[cfg(test)]
#[path = "show_tests.rs"]
mod tests;
