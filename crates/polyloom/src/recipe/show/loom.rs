//! A recipe as `loom.toml`.

use serde_json::{Map, Value, json};

use super::{cannot, defaults, insert_map, names, part, plain, steps};
use crate::error::{MergeError, Result};
use crate::recipe::{
    Heads, MissingPolicy, Recipe, Setting, Settings, Slice, Source, TokenName, TokenSource,
    Tokenizer, Vocabulary,
};

fn no(what: &str) -> MergeError {
    cannot(what, "loom.toml", "yaml")
}

/// The recipe as a `loom.toml`.
///
/// # Errors
/// Several towers, or a per-merge parameter set on one input: `loom.toml` has no words for them.
pub fn to_toml(recipe: &Recipe) -> Result<String> {
    let [module] = &recipe.modules[..] else {
        return Err(no("several towers (`modules`)"));
    };
    if module.name.is_some() {
        return Err(no("a tower"));
    }
    let mut top = Map::new();
    top.insert("version".into(), json!(1));
    if let Some(name) = &recipe.name {
        top.insert("name".into(), json!(name));
    }
    top.insert("seed".into(), json!(recipe.seed));
    if let Some(template) = &recipe.chat_template {
        top.insert("chat_template".into(), json!(template));
    }
    // One slice of whole models needs no `[[slice]]`; nor does one of equal ranges, base included.
    let simple = match &module.slices[..] {
        [one] if one.base.is_none() && !one.sources.is_empty() => {
            let first = one.sources[0].layers;
            one.sources.iter().all(|s| s.layers == first)
                && one.base_layers.is_none_or(|b| Some(b) == first)
        }
        _ => false,
    };
    let used: Vec<&Source> = module.slices.iter().flat_map(|s| &s.sources).collect();
    let is_input = |model: usize| used.iter().any(|s| s.model == model);
    if let Some(base) = recipe.base {
        let mut table = model(recipe, base);
        let task = table.remove("task").is_some() | table.remove("stats").is_some();
        if task && !is_input(base) {
            return Err(no("a task or statistics of the base"));
        }
        top.insert("base".into(), Value::Object(table));
    }
    let others: Vec<Value> = (0..recipe.models.len())
        .filter(|m| recipe.base != Some(*m) && !is_input(*m))
        .map(|m| {
            let mut table = model(recipe, m);
            if table.remove("task").is_some() | table.remove("stats").is_some() {
                return Err(no("a task or statistics of a model that is not merged"));
            }
            Ok(Value::Object(table))
        })
        .collect::<Result<_>>()?;
    if !others.is_empty() {
        top.insert("model".into(), Value::Array(others));
    }
    let mut experts = Vec::new();
    for (i, source) in used.iter().enumerate() {
        if !simple && used[..i].iter().any(|s| s.model == source.model) {
            continue;
        }
        let mut table = model(recipe, source.model);
        if recipe.base == Some(source.model) {
            table.remove("name"); // The same path without a name is the same model.
        }
        if simple {
            source_words(recipe, source, &mut table)?;
        }
        experts.push(Value::Object(table));
    }
    top.insert("expert".into(), Value::Array(experts));
    let scopes = [
        &recipe.settings,
        &module.settings,
        &module.slices[0].settings,
    ];
    let scopes = if simple { &scopes[..] } else { &scopes[..2] };
    top.insert("merge".into(), merge_table(recipe, scopes)?);
    if !simple {
        let slices = module
            .slices
            .iter()
            .map(|s| slice(recipe, s))
            .collect::<Result<_>>()?;
        top.insert("slice".into(), Value::Array(slices));
    }
    if let Some(tokens) = &recipe.tokenizer {
        top.insert("tokenizer".into(), tokenizer(recipe, tokens)?);
    }
    toml::to_string(&Value::Object(top))
        .map_err(|e| MergeError::plan("not-expressible", format!("loom.toml cannot hold it: {e}")))
}

fn model(recipe: &Recipe, index: usize) -> Map<String, Value> {
    let model = &recipe.models[index];
    let mut out = Map::new();
    out.insert("name".into(), json!(model.name));
    out.insert("path".into(), json!(model.reference.to_string()));
    for (key, value) in [
        ("strip_prefix", &model.strip_prefix),
        ("add_prefix", &model.add_prefix),
        ("task", &model.task),
        ("stats", &model.stats),
    ] {
        if let Some(value) = value {
            out.insert(key.into(), json!(value));
        }
    }
    out
}

/// Range and settings of one input.
fn source_words(recipe: &Recipe, source: &Source, table: &mut Map<String, Value>) -> Result<()> {
    if let Some((a, b)) = source.layers {
        table.insert("layer_range".into(), json!([a, b]));
    }
    let own = names(recipe, true);
    if let Some(name) = source.settings.keys().find(|k| !own.contains(&k.as_str())) {
        return Err(no(&format!("`{name}` of a single input")));
    }
    insert_map(table, "merge", plain(&source.settings));
    Ok(())
}

fn slice(recipe: &Recipe, slice: &Slice) -> Result<Value> {
    let mut out = Map::new();
    if let Some(base) = slice.base {
        out.insert("base".into(), json!(recipe.models[base].name));
    }
    let base = slice.base.or(recipe.base).map(|model| Source {
        model,
        layers: slice.base_layers,
        settings: Settings::default(),
    });
    let mut sources = Vec::new();
    for source in slice
        .sources
        .iter()
        .chain(base.iter().filter(|_| slice.base_layers.is_some()))
    {
        let mut table = Map::new();
        table.insert("expert".into(), json!(recipe.models[source.model].name));
        source_words(recipe, source, &mut table)?;
        sources.push(Value::Object(table));
    }
    out.insert("sources".into(), Value::Array(sources));
    by_kind(recipe, &plain(&slice.settings), &mut out);
    Ok(Value::Object(out))
}

/// Settings as `shared` and `each`.
fn by_kind(recipe: &Recipe, all: &Map<String, Value>, into: &mut Map<String, Value>) {
    for (key, each) in [("shared", false), ("each", true)] {
        let own = names(recipe, each);
        let table: Map<String, Value> = all
            .iter()
            .filter(|(k, _)| own.contains(&k.as_str()))
            .map(|(k, v)| (k.clone(), v.clone()))
            .collect();
        insert_map(into, key, table);
    }
}

fn tokenizer(recipe: &Recipe, tokens: &Tokenizer) -> Result<Value> {
    let mut table = Map::new();
    let source = match tokens.source {
        Vocabulary::Union => "union",
        Vocabulary::Base => "base",
        Vocabulary::Model(m) => match recipe.models[m].name.as_str() {
            "base" if recipe.base == Some(m) => "base",
            "base" | "union" => {
                return Err(no("a tokenizer from a model named `base` or `union`"));
            }
            name => name,
        },
    };
    table.insert("source".into(), json!(source));
    if let Some(pad) = tokens.pad_to_multiple_of {
        table.insert("pad_to_multiple_of".into(), json!(pad));
    }
    let mut rules = Map::new();
    for (token, source, force) in &tokens.tokens {
        let name = |m: usize| json!(recipe.models[m].name);
        let mut rule = Map::new();
        let source = match source {
            None => None,
            Some(TokenSource::Zero) => Some(json!({"kind": "zero"})),
            Some(TokenSource::Model(m)) => Some(name(*m)),
            Some(TokenSource::ModelToken { model, token }) => {
                let mut source = json!({"kind": "model_token", "model": name(*model)});
                match token {
                    TokenName::Text(text) => source["token"] = json!(text),
                    TokenName::Id(id) => source["token_id"] = json!(id),
                }
                Some(source)
            }
        };
        if let Some(source) = source {
            rule.insert("source".into(), source);
        }
        rule.insert("force".into(), json!(force));
        rules.insert(token.clone(), Value::Object(rule));
    }
    insert_map(&mut table, "tokens", rules);
    Ok(Value::Object(table))
}

/// `[merge]`, with these scopes folded into one, from wide to narrow.
fn merge_table(recipe: &Recipe, scopes: &[&Settings]) -> Result<Value> {
    if recipe.allow_mixed {
        return Err(MergeError::plan(
            "not-expressible",
            "mixing architectures is a flag, not a word of loom.toml",
        ));
    }
    let mut merge = Map::new();
    merge.insert("method".into(), json!(recipe.method));
    for (key, dtype) in [("dtype", recipe.dtype), ("out_dtype", recipe.out_dtype)] {
        if let Some(dtype) = dtype {
            merge.insert(key.into(), json!(dtype.torch_name()));
        }
    }
    let heads = match recipe.heads {
        Heads::Merge => "merge",
        Heads::Separate => "separate",
    };
    merge.insert("heads".into(), json!(heads));
    let missing = match recipe.missing {
        MissingPolicy::Method => "error",
        MissingPolicy::Base => "base",
        MissingPolicy::Intersection => "intersection",
        MissingPolicy::Union => "union",
    };
    merge.insert("missing".into(), json!(missing));
    if recipe.truncate_embeddings {
        merge.insert("truncate_embeddings".into(), json!(true));
    }
    if let Some(on) = &recipe.on {
        merge.insert("on".into(), part(on, "method"));
    }
    // The narrower scope stands in front; its filters may fall through.
    let mut all: Map<String, Value> = defaults(recipe).into_iter().collect();
    for scope in scopes {
        for (name, value) in plain(scope) {
            let value = match (&scope[&name].0, all.get(&name)) {
                (Setting::Filters(_), Some(wider)) => followed_by(value, wider),
                _ => value,
            };
            all.insert(name, value);
        }
    }
    by_kind(recipe, &all, &mut merge);
    for (key, list) in [("pre", &recipe.pre), ("post", &recipe.post)] {
        if !list.is_empty() {
            merge.insert(key.into(), steps(list));
        }
    }
    Ok(Value::Object(merge))
}

/// Filters with the wider scope's value behind them, for tensors that none matches.
fn followed_by(filters: Value, wider: &Value) -> Value {
    let Value::Array(mut list) = filters else {
        return filters;
    };
    match wider {
        Value::Array(more) if more.iter().all(Value::is_object) => {
            list.extend(more.iter().cloned());
        }
        other => list.push(json!({"value": other})),
    }
    Value::Array(list)
}
