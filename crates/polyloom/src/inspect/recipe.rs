//! What a recipe asks for: every value with its origin, every model with the place it was found at.

use serde::Serialize;
use serde_json::Value;

use crate::plan::reference::{Places, locate};
use crate::recipe::{Recipe, show};

/// A model of a recipe.
#[derive(Debug, Clone, Serialize)]
pub struct Used {
    /// Name in messages, heads and masks.
    pub name: String,
    /// As written.
    pub reference: String,
    /// Where it was found; `None`: nowhere.
    pub found: Option<String>,
    /// True for the base.
    pub base: bool,
}

/// A recipe, looked at.
#[derive(Debug, Clone, Serialize)]
pub struct RecipeInfo {
    /// Its name, if it has one.
    pub name: Option<String>,
    /// Merge method.
    pub method: String,
    /// Inner merge, steps.
    pub parts: Vec<String>,
    /// Models in recipe order.
    pub models: Vec<Used>,
    /// Values with origins: (key, value, origin).
    pub values: Vec<(String, Value, String)>,
}

/// Looks at a recipe; models are looked up, not opened.
pub fn describe(recipe: &Recipe, places: &Places) -> RecipeInfo {
    let places = Places {
        recipe_folder: recipe
            .file
            .as_ref()
            .and_then(|f| f.parent())
            .map(std::path::Path::to_owned)
            .or_else(|| places.recipe_folder.clone()),
        ..places.clone()
    };
    let models = recipe
        .models
        .iter()
        .enumerate()
        .map(|(i, m)| Used {
            name: m.name.clone(),
            reference: m.reference.to_string(),
            found: locate(
                &m.reference.path,
                m.reference.revision.as_deref(),
                recipe.dialect,
                &places,
            )
            .ok()
            .map(|p| p.display().to_string()),
            base: recipe.base == Some(i),
        })
        .collect();
    let mut parts = Vec::new();
    parts.extend(recipe.on.iter().map(|p| format!("on {}", p.name)));
    parts.extend(recipe.pre.iter().map(|p| format!("pre {}", p.name)));
    parts.extend(recipe.post.iter().map(|p| format!("post {}", p.name)));
    RecipeInfo {
        name: recipe.name.clone(),
        method: recipe.method.clone(),
        parts,
        models,
        values: show::values(recipe)
            .into_iter()
            .map(|s| (s.key, s.value, s.origin))
            .collect(),
    }
}

impl RecipeInfo {
    /// For people: models, and with `resolved` every value with its origin.
    pub fn text(&self, resolved: bool) -> String {
        let mut out = format!(
            "{}   recipe, {}{}, {} model{}\n",
            self.name.as_deref().unwrap_or("(no name)"),
            self.method,
            self.parts
                .iter()
                .map(|p| format!(", {p}"))
                .collect::<String>(),
            self.models.len(),
            if self.models.len() == 1 { "" } else { "s" },
        );
        for model in &self.models {
            let role = if model.base { "base  " } else { "expert" };
            let found = match &model.found {
                Some(path) if *path == model.reference => String::new(),
                Some(path) => format!("   found at {path}"),
                None => "   not found".into(),
            };
            let named = if model.name == model.reference {
                String::new()
            } else {
                format!("   {}", model.reference)
            };
            out += &format!("  {role} {}{named}{found}\n", model.name);
        }
        if resolved {
            let width = self.values.iter().map(|v| v.0.len()).max().unwrap_or(0);
            for (key, value, origin) in &self.values {
                let origin = if origin.is_empty() { "recipe" } else { origin };
                out += &format!("  {key:width$}  {value}   ({origin})\n");
            }
        }
        out
    }
}
