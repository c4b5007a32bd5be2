//! Parameter values as written: scalars, gradients over depth, lists of filters (methods section 9.3).

use serde_json::{Number, Value};

use super::Setting;

/// Reads a value. An empty list counts as unset.
///
/// # Errors
/// A list entry that is neither a scalar nor `{filter?, value}`.
pub fn parse(value: &Value) -> Result<Option<Setting>, String> {
    match value {
        Value::Null => Ok(None),
        Value::Array(items) if items.is_empty() => Ok(None),
        Value::Array(items) if items.iter().all(Value::is_object) => {
            let mut filters = Vec::new();
            for item in items {
                let Some(table) = item.as_object() else {
                    continue;
                };
                if let Some(key) = table.keys().find(|k| *k != "filter" && *k != "value") {
                    return Err(format!(
                        "has the unknown key `{key}`; a list of filters has `filter` and `value`"
                    ));
                }
                let filter = match table.get("filter") {
                    None | Some(Value::Null) => None,
                    Some(Value::String(text)) => Some(text.clone()),
                    Some(_) => return Err("has a `filter` that is not text".into()),
                };
                let inner = table.get("value").ok_or("has a filter without `value`")?;
                match parse(inner)? {
                    Some(Setting::Filters(_)) => {
                        return Err("nests filters; a `value` is a scalar or a gradient".into());
                    }
                    Some(setting) => filters.push((filter, setting)),
                    None => {}
                }
            }
            Ok(Some(Setting::Filters(filters)))
        }
        Value::Array(items) if items.iter().any(|i| i.is_object() || i.is_array()) => Err(
            "mixes scalars and tables; write numbers, or tables with `filter` and `value`".into(),
        ),
        Value::Array(items) => Ok(Some(Setting::Gradient(items.clone()))),
        Value::Object(table) if table.contains_key("value") => {
            parse(&Value::Array(vec![value.clone()]))
        }
        Value::Object(_) => Err(
            "is a table; expected a value, a list of numbers, or a list of `{filter, value}`"
                .into(),
        ),
        scalar => Ok(Some(Setting::Value(scalar.clone()))),
    }
}

/// The value for a tensor at depth `t` in [0, 1]; `None` if no filter matches (the next scope decides).
///
/// Gradients interpolate linearly between neighbours at `t (k-1)`; words and flags take entry `int(t (k-1))`.
///
/// # Errors
/// A gradient that mixes numbers and words.
pub fn resolve(setting: &Setting, tensor: &str, t: f64) -> Result<Option<Value>, String> {
    match setting {
        Setting::Value(value) => Ok(Some(value.clone())),
        Setting::Gradient(items) => gradient(items, t).map(Some),
        Setting::Filters(entries) => {
            for (filter, value) in entries {
                let fits = filter
                    .as_ref()
                    .is_none_or(|f| f == "*" || tensor.contains(f.as_str()));
                if fits {
                    return resolve(value, tensor, t);
                }
            }
            Ok(None)
        }
    }
}

fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Number(n) => n.as_f64(),
        Value::String(s) => s.trim().parse().ok(),
        _ => None,
    }
}

fn gradient(items: &[Value], t: f64) -> Result<Value, String> {
    let x = t.clamp(0.0, 1.0) * (items.len() - 1) as f64;
    let low = x as usize;
    let numbers: Option<Vec<f64>> = items.iter().map(number).collect();
    let Some(numbers) = numbers else {
        if items.iter().any(Value::is_number) {
            return Err("a gradient of numbers and words cannot be interpolated".into());
        }
        return Ok(items[low].clone());
    };
    let high = (low + 1).min(numbers.len() - 1);
    let share = x - low as f64;
    let value = numbers[low] * (1.0 - share) + numbers[high] * share;
    if value.fract() == 0.0 && items.iter().all(|i| i.is_i64() || i.is_u64()) && value.abs() < 9e15
    {
        return Ok(Value::from(value as i64));
    }
    Number::from_f64(value)
        .map(Value::Number)
        .ok_or_else(|| "is not a finite number".into())
}

#[cfg(test)]
#[allow(
    clippy::needless_pass_by_value,
    reason = "calls read better with json! in place"
)]
mod tests {
    use serde_json::json;

    use super::*;

    fn at(value: Value, tensor: &str, t: f64) -> Option<Value> {
        resolve(&parse(&value).unwrap().unwrap(), tensor, t).unwrap()
    }

    #[test]
    fn gradients_interpolate_between_neighbours() {
        let g = json!([0.0, 0.5, 0.3]);
        assert_eq!(at(g.clone(), "x", 0.0), Some(json!(0.0)));
        assert_eq!(at(g.clone(), "x", 0.25), Some(json!(0.25)));
        assert_eq!(at(g.clone(), "x", 0.5), Some(json!(0.5)));
        assert_eq!(at(g, "x", 1.0), Some(json!(0.3)));
        assert_eq!(at(json!([1, 3]), "x", 0.5), Some(json!(2)));
        assert_eq!(
            at(json!([1, 2]), "x", 0.5),
            Some(json!(1.5)),
            "an integer parameter will refuse it"
        );
        assert_eq!(
            at(json!([true, false]), "x", 0.9),
            Some(json!(true)),
            "flags take entry int(t (k-1))"
        );
        assert_eq!(at(json!([0.7]), "x", 0.6), Some(json!(0.7)));
    }

    #[test]
    fn the_first_filter_that_fits_wins_and_none_falls_through() {
        let f = json!([{"filter": "self_attn", "value": [0, 1]}, {"filter": "mlp", "value": 0.25}]);
        assert_eq!(at(f.clone(), "layers.0.self_attn.q", 1.0), Some(json!(1)));
        assert_eq!(at(f.clone(), "layers.0.mlp.up", 1.0), Some(json!(0.25)));
        assert_eq!(at(f, "norm", 1.0), None);
        assert_eq!(
            at(
                json!([{"filter": "*", "value": 2}, {"value": 3}]),
                "norm",
                0.0
            ),
            Some(json!(2))
        );
    }

    #[test]
    fn nonsense_is_refused() {
        assert_eq!(parse(&json!([])).unwrap(), None);
        assert!(parse(&json!([1, {"value": 2}])).is_err());
        assert!(parse(&json!([{"filtr": "a", "value": 2}])).is_err());
        assert!(resolve(&parse(&json!([1, "a"])).unwrap().unwrap(), "x", 0.5).is_err());
    }
}
