//! Families of text, retrieval, answer choices and repeated sampling.

use polyloom::evaluate::metric::answer_match::squad;
use polyloom::evaluate::metric::rouge::{Overlap, Rouge as Scorer, RougeKind};
use polyloom::evaluate::text::porter;
use serde_json::{Map, Value, json};

use crate::{Case, Outcome, number};

/// The strings of a list.
fn strings(value: &Value) -> Vec<&str> {
    let list = value.as_array().map(Vec::as_slice).unwrap_or_default();
    list.iter().map(|v| v.as_str().unwrap()).collect()
}

/// Quantities, or the reason why there are none.
fn outcome(values: polyloom::evaluate::Result<Value>) -> Outcome {
    match values {
        Ok(Value::Object(values)) => Outcome::Values(values),
        Ok(other) => panic!("not an object: {other}"),
        Err(problem) => Outcome::Refused(problem.to_string()),
    }
}

pub fn rouge(case: &Case) -> Outcome {
    let input = &case.input;
    if let Some(words) = input.get("words") {
        let stems: Vec<String> = strings(words).into_iter().map(porter::stem).collect();
        return outcome(Ok(json!({ "stems": stems })));
    }
    let kinds = [
        ("rouge1", RougeKind::N(1)),
        ("rouge2", RougeKind::N(2)),
        ("rouge3", RougeKind::N(3)),
        ("rougeL", RougeKind::L),
        ("rougeLsum", RougeKind::Lsum),
    ];
    let mut scorer = Scorer::new(
        &kinds.map(|k| k.1),
        case.params["use_stemmer"].as_bool().unwrap(),
    )
    .unwrap();
    let prediction = input["prediction"].as_str().unwrap();
    let found = match input.get("targets") {
        Some(targets) => scorer.score_best(prediction, &strings(targets)).unwrap(),
        None => scorer.score(prediction, input["target"].as_str().unwrap()),
    };
    let shown = |o: &Overlap| {
        json!({
            "precision": number(o.precision), "recall": number(o.recall), "f1": number(o.f1),
        })
    };
    let values: Map<String, Value> = kinds
        .iter()
        .zip(&found)
        .map(|((name, _), overlap)| ((*name).to_owned(), shown(overlap)))
        .collect();
    Outcome::Values(values)
}

pub fn answer_match(case: &Case) -> Outcome {
    let accepted = strings(&case.input["references"]);
    let found = squad(case.input["prediction"].as_str().unwrap(), &accepted);
    outcome(found.map(|s| json!({ "exact_match": s.exact_match, "f1": s.f1 })))
}
