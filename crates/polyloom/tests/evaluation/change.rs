//! Family `change_over_time`.

use polyloom::evaluate::change::continual::ContinualMatrix;
use polyloom::evaluate::change::flips::Flips;
use polyloom::evaluate::change::scores::ScoreChange;
use serde_json::{Map, Value, json};

use super::statistics::floats;
use super::{Case, Outcome};

pub fn solve(case: &Case) -> Outcome {
    let input = &case.input;
    Outcome::Values(match input["kind"].as_str().unwrap() {
        "labels" => labels(input),
        "scores" => scores(input),
        "continual" => continual(input),
        kind => unreachable!("kind {kind}"),
    })
}

/// Quantities by name; `null` where one is not defined.
fn quantities(found: &[(&str, f64)]) -> Map<String, Value> {
    let of = |&(name, x): &(&str, f64)| {
        let value = if x.is_nan() { Value::Null } else { json!(x) };
        (name.to_owned(), value)
    };
    found.iter().map(of).collect()
}

fn labels(input: &Value) -> Map<String, Value> {
    let [truth, old, new] = ["y", "old", "new"].map(|key| input[key].as_array().unwrap());
    let flips = Flips::of(truth, old, new).unwrap();
    quantities(&[
        ("nfr", flips.negative_rate()),
        ("pfr", flips.positive_rate()),
        ("accuracy_old", flips.accuracy_old()),
        ("accuracy_new", flips.accuracy_new()),
        ("relative_nfr", flips.relative_negative_rate()),
        ("backward_trust_compatibility", flips.trust_compatibility()),
        ("backward_error_compatibility", flips.error_compatibility()),
        ("both_wrong_changed_rate", flips.both_wrong_changed_rate()),
        ("inconsistency_rate", flips.inconsistency_rate()),
        ("churn", flips.churn()),
        ("good_churn", flips.good_churn()),
    ])
}

fn scores(input: &Value) -> Map<String, Value> {
    let (old, new) = (floats(&input["old"]), floats(&input["new"]));
    let change = ScoreChange::of(&old, &new, input["tolerance"].as_f64().unwrap()).unwrap();
    quantities(&[
        ("mean_change", change.mean_change()),
        ("mean_gain", change.mean_gain()),
        ("mean_loss", change.mean_loss()),
        ("negative_flip_rate", change.negative_rate()),
        ("positive_flip_rate", change.positive_rate()),
        ("worst_loss", change.worst_loss()),
    ])
}

fn continual(input: &Value) -> Map<String, Value> {
    let rows = input["R"].as_array().unwrap().iter().map(floats).collect();
    let matrix = ContinualMatrix::new(rows).unwrap();
    let untrained = floats(&input["random_init"]);
    let single = floats(&input["single_task"]);
    quantities(&[
        ("average_accuracy", matrix.average_accuracy()),
        (
            "average_incremental_accuracy",
            matrix.average_incremental_accuracy(),
        ),
        ("backward_transfer", matrix.backward_transfer()),
        ("forgetting", matrix.forgetting()),
        ("forgetting_from_learned", matrix.forgetting_from_learned()),
        ("bwt_plus", matrix.positive_backward_transfer()),
        ("remembering", matrix.remembering()),
        (
            "forward_transfer",
            matrix.forward_transfer(&untrained).unwrap(),
        ),
        ("intransigence", matrix.intransigence(&single).unwrap()),
        ("learning_accuracy", matrix.learning_accuracy()),
        ("triangular_accuracy", matrix.triangular_accuracy()),
    ])
}
