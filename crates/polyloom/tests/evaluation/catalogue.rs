//! Templates and importers.

use std::sync::OnceLock;

use polyloom::tasks::prompt::{Record, Renderer};
use serde_json::{Map, Value};

use super::{Case, Outcome, golden};

/// `prompt_templates`: one template over one set of fields, which only the first case spells out.
pub fn templates(case: &Case) -> Outcome {
    static FIRST: OnceLock<Record> = OnceLock::new();
    let first = FIRST.get_or_init(|| {
        let file = golden("evaluation").join("prompt_templates.json");
        let value: Value = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
        value["cases"][0]["input"]["fields"]
            .as_object()
            .unwrap()
            .clone()
    });
    let fields = case.input["fields"].as_object().unwrap_or(first);
    let template = case.input["template"].as_str().unwrap();
    match Renderer::new().render(template, fields) {
        Ok(text) => Outcome::Values(Map::from_iter([("text".to_owned(), text.into())])),
        Err(error) => Outcome::Refused(error.to_string()),
    }
}
