//! Recipes as text: one reader for the tables of every command of this crate.

use std::path::Path;

use polyloom::MergeError;
use polyloom::recipe::environment::expand;
use polyloom::recipe::toml::position;
use polyloom_core::DType;
use serde::de::DeserializeOwned;

type Result<T> = std::result::Result<T, MergeError>;

/// Reads a `loom.toml` into `T`, with keys set from outside (`train.rate`, `1e-4`), which count more.
///
/// # Errors
/// No TOML, keys or words that are not known (with line and column and the nearest name).
pub(crate) fn read<T: DeserializeOwned>(
    text: &str,
    place: &str,
    set: &[(String, String)],
) -> Result<T> {
    let whole: std::result::Result<T, toml::de::Error> = toml::from_str(text);
    let found = whole.map_err(|e| located(&e, text, place))?;
    if set.is_empty() {
        return Ok(found);
    }
    let mut table: toml::Table = toml::from_str(text).map_err(|e| located(&e, text, place))?;
    for (key, value) in set {
        put(&mut table, key, value)?;
    }
    table.try_into().map_err(|e: toml::de::Error| {
        MergeError::plan("bad-recipe", e.message().to_owned()).at("--set")
    })
}

/// Refuses a version that is not ours.
///
/// # Errors
/// Another one than 1.
pub(crate) fn version(version: Option<i64>, place: &str) -> Result<()> {
    match version {
        Some(v) if v != 1 => Err(MergeError::plan("bad-recipe", "`version` must be 1").at(place)),
        _ => Ok(()),
    }
}

/// The type of weights that a key asks for.
///
/// # Errors
/// A word that is none.
pub(crate) fn dtype(word: Option<&str>, key: &str) -> Result<Option<DType>> {
    let Some(word) = word else {
        return Ok(None);
    };
    let found = DType::from_word(word).filter(|d| d.is_float() && !d.is_block());
    let found = found.ok_or_else(|| {
        let what = format!("`{key}`: `{word}` is no type of weights");
        MergeError::plan("bad-recipe", what).hint("one of f32, f16, bf16")
    })?;
    Ok(Some(found))
}

/// Refuses a temperature that divides by nothing.
///
/// # Errors
/// One that is not above 0.
pub(crate) fn temperature(x: f64, key: &str) -> Result<()> {
    match x > 0.0 && x.is_finite() {
        true => Ok(()),
        false => Err(MergeError::plan(
            "bad-recipe",
            format!("`{key}` is {x}; it must be above 0"),
        )),
    }
}

/// A path of a recipe as it is found: variables of the environment put in; beside the recipe first, then from the working
/// directory.
///
/// # Errors
/// A variable that is not set.
pub(crate) fn beside(recipe: &Path, given: &str) -> Result<String> {
    let given = expand(given)
        .map_err(|e| MergeError::plan("bad-recipe", e).at(recipe.display().to_string()))?;
    let near = recipe.parent().map(|p| p.join(&given));
    Ok(near
        .filter(|p| p.exists())
        .map_or(given, |p| p.display().to_string()))
}

/// Puts a value at a dotted key; what is no value of TOML is text.
fn put(table: &mut toml::Table, key: &str, value: &str) -> Result<()> {
    let parsed = toml::from_str::<toml::Table>(&format!("x = {value}"))
        .ok()
        .and_then(|mut t| t.remove("x"))
        .unwrap_or_else(|| toml::Value::String(value.to_owned()));
    let mut at = table;
    let mut parts: Vec<&str> = key.split('.').collect();
    let last = parts.pop().unwrap_or_default();
    for part in parts {
        let next = at
            .entry(part)
            .or_insert_with(|| toml::Value::Table(toml::Table::new()));
        at = next.as_table_mut().ok_or_else(|| {
            MergeError::plan(
                "unknown-key",
                format!("--set: `{part}` in `{key}` is no table"),
            )
        })?;
    }
    at.insert(last.to_owned(), parsed);
    Ok(())
}

/// An error of the parser with line and column, and the nearest name of a key that is not known.
fn located(error: &toml::de::Error, text: &str, place: &str) -> MergeError {
    let at = error.span().map_or_else(
        || place.to_owned(),
        |span| position(text, place, span.start),
    );
    let message = error.message().to_owned();
    let mut out = MergeError::plan("bad-recipe", message.clone()).at(at);
    let mut quoted = message.split('`').skip(1).step_by(2);
    if message.starts_with("unknown")
        && let Some(found) = quoted.next()
    {
        let names: Vec<&str> = quoted.collect();
        if let Some(near) = polyloom::suggest::nearest(found, &names, 1).first() {
            out = out.hint(format!("did you mean `{near}`?"));
        }
    }
    out
}
