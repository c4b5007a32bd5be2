//! The one place where parameters are checked: kinds, ranges, words, defaults.

use serde_json::{Map, Value};

use super::method::{Kind, Param, Unset, Values};
use crate::error::{MergeError, Result};
use crate::suggest;

/// Checks `given` against `params` and fills in defaults. `yaml` = mergekit's defaults (required stays required).
///
/// # Errors
/// Unknown names (with the nearest valid one), wrong kinds, values out of range, missing required parameters.
pub fn complete(params: &[Param], given: &Map<String, Value>, yaml: bool) -> Result<Values> {
    if let Some(unknown) = given.keys().find(|k| !params.iter().any(|p| p.name == *k)) {
        return Err(unknown_name(unknown, params));
    }
    let mut values = Values::default();
    for param in params {
        let value = match given.get(param.name) {
            Some(Value::Null) | None => default(param, yaml)?,
            Some(value) => Some(check(param, value)?),
        };
        if let Some(value) = value {
            values.set(param.name, value);
        }
    }
    Ok(values)
}

/// The error for a parameter that is not declared.
pub fn unknown_name(name: &str, params: &[Param]) -> MergeError {
    let names: Vec<&str> = params.iter().map(|p| p.name).collect();
    let mut error = MergeError::plan(
        "unknown-key",
        format!(
            "unknown parameter `{name}`; expected one of: {}",
            names.join(", ")
        ),
    );
    if let Some(near) = suggest::nearest(name, &names, 1).first() {
        error = error.hint(format!("did you mean `{near}`?"));
    }
    error
}

fn default(param: &Param, yaml: bool) -> Result<Option<Value>> {
    Ok(match param.unset {
        Unset::Required => return Err(missing(param)),
        Unset::RequiredInYaml(_) if yaml => return Err(missing(param)),
        Unset::RequiredInYaml(x) | Unset::Number(x) => Some(number(param, x)),
        Unset::Flag(b) => Some(Value::Bool(b)),
        Unset::Word(w) => Some(Value::String(w.to_owned())),
        Unset::Nothing => None,
    })
}

fn missing(param: &Param) -> MergeError {
    MergeError::plan(
        "missing-parameter",
        format!("required parameter `{}` is missing", param.name),
    )
    .hint(param.doc)
}

fn number(param: &Param, x: f64) -> Value {
    if matches!(param.kind, Kind::Integer(..)) {
        Value::from(x as i64)
    } else {
        Value::from(x)
    }
}

/// Checks one value and brings it to its canonical form.
///
/// # Errors
/// Wrong kind or out of range.
pub fn check(param: &Param, value: &Value) -> Result<Value> {
    let wrong = |what: String| {
        MergeError::plan(
            "bad-value",
            format!("`{}` is {}; {what}", param.name, shown(value)),
        )
    };
    let as_number = || match value {
        Value::Number(n) => n.as_f64(),
        // Files in the field hold numbers as strings ("1e-4").
        Value::String(s) => s.trim().parse::<f64>().ok(),
        _ => None,
    };
    match param.kind {
        Kind::Number(low, high) => {
            let x = as_number()
                .filter(|x| x.is_finite())
                .ok_or_else(|| wrong("expected a number".into()))?;
            if x < low || x > high {
                return Err(wrong(format!("expected a number {}", range(low, high))));
            }
            Ok(Value::from(x))
        }
        Kind::NumberOr(word) => {
            if value.as_str() == Some(word) {
                return Ok(value.clone());
            }
            let x = as_number().filter(|x| x.is_finite());
            x.map(Value::from)
                .ok_or_else(|| wrong(format!("expected a number or \"{word}\"")))
        }
        Kind::Integer(low, high) => {
            let x = as_number()
                .filter(|x| x.fract() == 0.0)
                .ok_or_else(|| wrong("expected a whole number".into()))?;
            if x < low as f64 || x > high as f64 {
                return Err(wrong(format!(
                    "expected a whole number {}",
                    range(low as f64, high as f64)
                )));
            }
            Ok(Value::from(x as i64))
        }
        Kind::Flag => match value {
            Value::Bool(_) => Ok(value.clone()),
            Value::Number(n) if n.as_f64() == Some(0.0) => Ok(Value::Bool(false)),
            Value::Number(n) if n.as_f64() == Some(1.0) => Ok(Value::Bool(true)),
            Value::String(s) if s.eq_ignore_ascii_case("true") => Ok(Value::Bool(true)),
            Value::String(s) if s.eq_ignore_ascii_case("false") => Ok(Value::Bool(false)),
            _ => Err(wrong("expected true or false".into())),
        },
        Kind::Word(words) => {
            let typed = value
                .as_str()
                .ok_or_else(|| wrong("expected a word".into()))?;
            words
                .iter()
                .find(|(spelling, _)| *spelling == typed)
                .map(|(_, word)| Value::from(*word))
                .ok_or_else(|| {
                    let mut all: Vec<&str> = Vec::new();
                    for (_, word) in words {
                        if !all.contains(word) {
                            all.push(word);
                        }
                    }
                    let error = wrong(format!("expected one of: {}", all.join(", ")));
                    match suggest::nearest(typed, &all, 1).first() {
                        Some(near) => error.hint(format!("did you mean `{near}`?")),
                        None => error,
                    }
                })
        }
        Kind::Rescale => match value {
            Value::Bool(true) => Ok(Value::from("l1")),
            Value::Bool(false) => Ok(Value::Bool(false)),
            Value::String(s) if s == "l1" || s == "inverse" => Ok(value.clone()),
            _ => Err(wrong("expected \"l1\", \"inverse\" or false".into())),
        },
        Kind::Text | Kind::File => match value {
            Value::String(_) => Ok(value.clone()),
            Value::Number(n) => Ok(Value::from(n.to_string())),
            _ => Err(wrong("expected text".into())),
        },
        Kind::Names => match value {
            Value::String(s) => Ok(Value::from(vec![s.clone()])),
            Value::Array(items) if items.iter().all(Value::is_string) => Ok(value.clone()),
            _ => Err(wrong("expected a list of names".into())),
        },
    }
}

fn range(low: f64, high: f64) -> String {
    match (
        low.is_finite() && low > i64::MIN as f64,
        high.is_finite() && high < i64::MAX as f64,
    ) {
        (true, true) => format!("from {low} to {high}"),
        (true, false) => format!("of at least {low}"),
        (false, true) => format!("of at most {high}"),
        (false, false) => String::new(),
    }
}

fn shown(value: &Value) -> String {
    match value {
        Value::String(s) => format!("\"{s}\""),
        Value::Array(_) => "a list".into(),
        Value::Object(_) => "a table".into(),
        other => other.to_string(),
    }
}

#[cfg(test)]
#[allow(
    clippy::needless_pass_by_value,
    reason = "calls read better with json! in place"
)]
mod tests {
    use serde_json::json;

    use super::*;

    const PARAMS: &[Param] = &[
        Param::each(
            "weight",
            Kind::Number(f64::NEG_INFINITY, f64::INFINITY),
            Unset::RequiredInYaml(1.0),
            "Weight.",
        ),
        Param::shared(
            "density",
            Kind::Number(0.0, 1.0),
            Unset::Number(0.2),
            "Density.",
        ),
        Param::shared(
            "reduce",
            Kind::Word(&[("mean", "mean"), ("dis-mean", "mean"), ("sum", "sum")]),
            Unset::Word("mean"),
            "Reduction.",
        ),
        Param::shared("rescale", Kind::Rescale, Unset::Word("l1"), "Rescaling."),
    ];

    fn given(value: Value) -> Map<String, Value> {
        value.as_object().cloned().unwrap_or_default()
    }

    #[test]
    fn defaults_spellings_and_strings() {
        let v = complete(
            PARAMS,
            &given(json!({"density": "5e-1", "reduce": "dis-mean", "rescale": true})),
            false,
        )
        .unwrap();
        assert_eq!(
            (
                v.number("weight"),
                v.number("density"),
                v.word("reduce"),
                v.word("rescale")
            ),
            (1.0, 0.5, "mean", "l1")
        );
        let error = complete(PARAMS, &Map::new(), true).unwrap_err();
        assert!(error.to_string().contains("`weight`"), "{error}");
    }

    #[test]
    fn mistakes_name_the_way_out() {
        let error = complete(PARAMS, &given(json!({"densty": 0.2})), false).unwrap_err();
        assert!(
            error.to_string().contains("unknown parameter `densty`")
                && error.hints()[0].contains("`density`"),
            "{error}"
        );
        let error = complete(PARAMS, &given(json!({"density": 1.5})), false).unwrap_err();
        assert!(error.to_string().contains("from 0 to 1"), "{error}");
        assert!(
            complete(PARAMS, &given(json!({"reduce": "maen"})), false)
                .unwrap_err()
                .hints()[0]
                .contains("mean")
        );
        assert!(complete(PARAMS, &given(json!({"rescale": 3})), false).is_err());
    }
}
