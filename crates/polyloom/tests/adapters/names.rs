//! Name matching: `target_matching*` and `pattern_matching`.

use std::path::Path;

use polyloom_core::peft::AdapterConfig;
use polyloom_core::peft::matching::pattern_key;
use serde_json::{Value, json};

use super::Outcome;
use super::cases::Case;

fn modules(case: &Case) -> Vec<String> {
    serde_json::from_value(case.params["module_names"].clone()).unwrap()
}

pub(crate) fn targets(case: &Case) -> Outcome {
    for result in case.value("results").as_array().unwrap() {
        let Value::Object(mut map) = result["config"].clone() else {
            panic!("config")
        };
        map.insert("peft_type".into(), json!("LORA"));
        let config = AdapterConfig::from_map(Path::new("adapter_config.json"), map).unwrap();
        let matched: Vec<String> = modules(case)
            .into_iter()
            .filter(|m| config.targets.matches(m).unwrap())
            .collect();
        assert_eq!(json!(matched), result["matched"], "{}: {result}", case.name);
    }
    Ok(Vec::new())
}

pub(crate) fn patterns(case: &Case) -> Outcome {
    let keys: Vec<String> =
        serde_json::from_value(case.params["patterns_in_order"].clone()).unwrap();
    for module in modules(case) {
        let found = pattern_key(keys.iter().map(String::as_str), &module).unwrap();
        assert_eq!(
            json!(found),
            case.value("matched_pattern")[&module],
            "{module}"
        );
    }
    Ok(Vec::new())
}
