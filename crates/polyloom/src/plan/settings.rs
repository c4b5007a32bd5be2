//! Every parameter resolved for every tensor, by scope and depth.

use serde_json::Map;

use crate::error::{MergeError, Result};
use crate::merge::method::{Kind, Param, Values};
use crate::merge::params::complete;
use crate::recipe::setting::resolve;
use crate::recipe::{Dialect, Recipe, Settings};

/// Looks `params` up in `scopes` (highest precedence first) for a tensor at depth `t` in [0, 1].
///
/// # Errors
/// A value of the wrong kind or a missing required parameter, naming tensor and model.
pub(super) fn values(
    params: &[Param],
    scopes: &[&Settings],
    tensor: &str,
    t: f64,
    recipe: &Recipe,
    model: Option<&str>,
) -> Result<Values> {
    let mut given = Map::new();
    for param in params {
        for scope in scopes {
            let Some((setting, origin)) = scope.get(param.name) else {
                continue;
            };
            let place = &origin.text;
            if !param.per_tensor
                && !matches!(setting, crate::recipe::Setting::Value(_))
                && !matches!(param.kind, crate::merge::method::Kind::Names)
            {
                return Err(MergeError::plan(
                    "not-per-tensor",
                    format!(
                        "`{}` is cut over the whole model and takes one value, not a list",
                        param.name
                    ),
                )
                .at(place.clone()));
            }
            let found = resolve(setting, tensor, t).map_err(|e| {
                MergeError::plan(
                    "bad-value",
                    format!("`{}` for tensor `{tensor}`: {e}", param.name),
                )
                .at(place.clone())
            })?;
            if let Some(value) = found {
                given.insert(param.name.to_owned(), value);
                break;
            }
        }
    }
    let mut values =
        complete(params, &given, recipe.dialect == Dialect::Mergekit).map_err(|e| match model {
            Some(model) => name_model(e, model, tensor),
            None => e,
        })?;
    for param in params.iter().filter(|p| matches!(p.kind, Kind::File)) {
        if let Some(near) = beside(recipe, values.word(param.name)) {
            values.set(param.name, near.into());
        }
    }
    Ok(values)
}

/// A relative path that exists beside the recipe file.
pub(super) fn beside(recipe: &Recipe, path: &str) -> Option<String> {
    let folder = recipe.file.as_ref()?.parent()?;
    let near = folder.join(path);
    (!path.is_empty() && near.exists()).then(|| near.display().to_string())
}

fn name_model(error: MergeError, model: &str, tensor: &str) -> MergeError {
    match error {
        MergeError::Plan {
            code,
            place,
            message,
            hints,
        } => MergeError::Plan {
            code,
            place,
            message: format!("{message} (model `{model}`, tensor `{tensor}`)"),
            hints,
        },
        other => other,
    }
}
