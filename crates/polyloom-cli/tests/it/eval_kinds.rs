//! Every kind of task that `polyloom eval` scores, on a few rows with answers worked out by hand.

use std::path::Path;

use serde_json::{Value, json};

use super::{polyloom, text};

/// A task over JSON lines.
pub fn task(
    dir: &Path,
    kind: &str,
    fields: &str,
    more: &str,
    metrics: &[&str],
    rows: &[Value],
) -> String {
    let lines: Vec<String> = rows.iter().map(ToString::to_string).collect();
    std::fs::write(dir.join("rows.jsonl"), lines.join("\n")).unwrap();
    let metrics: String = metrics
        .iter()
        .map(|m| format!("[[metrics]]\n{m}\n"))
        .collect();
    let spec = format!(
        "schema = \"polyloom.task/1\"\nid = \"kind\"\ntype = \"{kind}\"\n[source]\nkind = \"jsonl\"\nroot = \".\"\n\
         [splits]\ntest = {{ file = \"rows.jsonl\" }}\n[fields]\n{fields}\n{more}\n{metrics}"
    );
    let path = dir.join("kind.toml");
    std::fs::write(&path, spec).unwrap();
    path.display().to_string()
}

/// The values of the metrics, in order.
#[track_caller]
pub fn values(dir: &Path, task: &str, predictions: &[Value]) -> Vec<f64> {
    let lines: Vec<String> = predictions.iter().map(ToString::to_string).collect();
    let file = dir.join("said.jsonl");
    std::fs::write(&file, lines.join("\n")).unwrap();
    let out = polyloom(&[
        "eval",
        "--predictions",
        &file.display().to_string(),
        "--task",
        task,
        "--json",
    ]);
    assert_eq!(
        out.status.code(),
        Some(0),
        "{}{}",
        text(&out.stderr),
        text(&out.stdout)
    );
    let first: Value = serde_json::from_str(text(&out.stdout).lines().next().unwrap()).unwrap();
    let mut found = vec![first["value"].as_f64().unwrap_or(f64::NAN)];
    let others = first["metrics"].as_object().unwrap().values();
    found.extend(others.map(|m| m["value"].as_f64().unwrap_or(f64::NAN)));
    found
}

#[track_caller]
pub fn close(found: &[f64], wanted: &[f64]) {
    assert_eq!(found.len(), wanted.len(), "{found:?}");
    for (f, w) in found.iter().zip(wanted) {
        assert!((f - w).abs() < 1e-9, "{found:?}, wanted {wanted:?}");
    }
}

#[test]
fn multiple_choice() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let row = |q: &str, options: [&str; 2], answer: u32| json!({"q": q, "options": options, "answer": answer});
    let rows = [
        row("a", ["long choice", "b"], 0),
        row("b", ["x", "y"], 1),
        row("c", ["x", "y"], 1),
    ];
    let prompt =
        "[[prompts]]\ntemplate = \"{{q}}\"\nchoices = \"{{options}}\"\ntarget = \"{{answer}}\"";
    let metrics = [
        "name = \"acc\"",
        "name = \"acc_norm\"",
        "name = \"acc_bytes\"",
    ];
    let spec = task(
        dir,
        "multiple_choice",
        "input = \"q\"",
        prompt,
        &metrics,
        &rows,
    );
    let said = |logliks: [[f64; 2]; 3]| -> Vec<Value> {
        (0..3)
            .map(|i| json!({"doc_id": i, "loglik": logliks[i]}))
            .collect()
    };
    // -4 over 11 characters beats -1 over one.
    let found = values(
        dir,
        &spec,
        &said([[-4.0, -1.0], [-1.0, -2.0], [-3.0, -2.0]]),
    );
    close(&found, &[1.0 / 3.0, 2.0 / 3.0, 2.0 / 3.0]);

    let spec = task(
        dir,
        "multiple_choice",
        "input = \"q\"",
        prompt,
        &metrics[..1],
        &rows,
    );
    std::fs::remove_file(dir.join("said.results.json")).unwrap();
    let found = values(
        dir,
        &spec,
        &[
            json!({"prediction": "(A)"}),
            json!({"prediction": "y"}),
            json!({"prediction": "neither"}),
        ],
    );
    close(&found, &[2.0 / 3.0]);
}

#[test]
fn generation_and_attempts() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let rows = [
        json!({"id": "a", "answers": ["the cat", "a cat"]}),
        json!({"id": "b", "answers": ["blue sky today here"]}),
    ];
    let fields = "id = \"id\"\ntarget = \"answers\"";
    let prompt = "[[prompts]]\ntemplate = \"{{id}}\"";
    let metrics = [
        "name = \"exact_match\"",
        "name = \"squad_f1\"",
        "name = \"rouge1\"",
        "name = \"chrf\"",
        "name = \"chrf++\"",
    ];
    let spec = task(dir, "generation", fields, prompt, &metrics, &rows);
    let found = values(
        dir,
        &spec,
        &[
            json!({"id": "a", "output": "a cat"}),
            json!({"id": "b", "output": "blue sky"}),
        ],
    );
    // chrF and chrF++: sacrebleu 2.
    close(
        &found,
        &[
            0.5,
            250.0 / 3.0,
            2.5 / 3.0,
            43.317_496_895_522_76,
            48.572_571_447_764_77,
        ],
    );

    std::fs::remove_file(dir.join("said.results.json")).unwrap();
    let metrics = [
        "name = \"pass_at_k\"\nparams = { k = 2 }",
        "name = \"pass_hat_k\"\nparams = { k = 2 }",
    ];
    let spec = task(dir, "generation", fields, prompt, &metrics, &rows);
    let said = |id: &str, passed: bool| json!({"id": id, "output": "x", "passed": passed});
    let all = [
        said("a", true),
        said("a", false),
        said("a", true),
        said("b", false),
        said("b", true),
        said("b", false),
    ];
    // a: 1 - C(1,2)/C(3,2) = 1, C(2,2)/C(3,2) = 1/3; b: 1 - C(2,2)/C(3,2) = 2/3, 0.
    close(&values(dir, &spec, &all), &[5.0 / 6.0, 1.0 / 6.0]);
}

#[test]
fn survival_clusters_tags_and_likelihoods() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let fresh = || {
        let _ = std::fs::remove_file(dir.join("said.results.json"));
    };
    let rows = [(1, 1), (2, 0), (3, 1), (4, 1)].map(|(t, e)| json!({"id": t, "t": t, "e": e}));
    let spec = task(
        dir,
        "survival",
        "id = \"id\"\ntime = \"t\"\nevent = \"e\"",
        "",
        &["name = \"c_index\""],
        &rows,
    );
    // Of four comparable pairs (1,2), (1,3), (1,4), (3,4) two are in order.
    let said =
        [(1, 1.0), (2, 0.0), (3, 5.0), (4, 4.0)].map(|(id, p)| json!({"id": id, "prediction": p}));
    close(&values(dir, &spec, &said), &[0.5]);

    fresh();
    let rows = [0, 1, 2, 3].map(|i| json!({"id": i, "y": if i < 2 { "a" } else { "b" }}));
    let metrics = ["name = \"v_measure\"", "name = \"homogeneity\""];
    let spec = task(
        dir,
        "clustering",
        "id = \"id\"\ntarget = \"y\"",
        "",
        &metrics,
        &rows,
    );
    let said = [0, 1, 2, 3].map(|i| json!({"id": i, "cluster": format!("c{}", i / 2)}));
    close(&values(dir, &spec, &said), &[1.0, 1.0]);

    fresh();
    let rows = [
        json!({"id": 0, "tags": ["B-x", "I-x", "O"]}),
        json!({"id": 1, "tags": ["O", "B-y"]}),
    ];
    let metrics = [
        "name = \"span_f1\"",
        "name = \"token_f1\"",
        "name = \"accuracy\"",
    ];
    let spec = task(
        dir,
        "token_classification",
        "id = \"id\"\ntarget = \"tags\"",
        "",
        &metrics,
        &rows,
    );
    let said = [
        json!({"id": 0, "tags": "B-x O O"}),
        json!({"id": 1, "tags": ["O", "B-y"]}),
    ];
    close(&values(dir, &spec, &said), &[0.5, 0.8, 0.8]);

    fresh();
    let rows = [
        json!({"id": 0, "text": "ab cd"}),
        json!({"id": 1, "text": "ef"}),
    ];
    let metrics = [
        "name = \"word_perplexity\"",
        "name = \"byte_perplexity\"",
        "name = \"perplexity\"",
    ];
    let spec = task(
        dir,
        "perplexity",
        "id = \"id\"\ninput = \"text\"",
        "",
        &metrics,
        &rows,
    );
    let said = [
        json!({"id": 0, "loglik": -2.0}),
        json!({"id": 1, "loglik": -1.0}),
    ];
    let exp = |x: f64| x.exp();
    close(
        &values(dir, &spec, &said),
        &[exp(1.0), exp(3.0 / 7.0), exp(1.5)],
    );
}

#[test]
fn retrieval_by_labels_and_label_sets() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    // Every text is searched for those of its label; it is no answer to itself.
    let rows = ["a", "a", "b", "b"]
        .iter()
        .enumerate()
        .map(|(i, y)| json!({"id": format!("d{i}"), "text": i.to_string(), "y": y}));
    let rows: Vec<Value> = rows.collect();
    let spec = task(
        dir,
        "retrieval",
        "id = \"id\"\nquery = \"text\"\ndocument = \"text\"\ntarget = \"y\"",
        "",
        &[
            "name = \"mrr\"",
            "name = \"recall_at_k\"\nparams = { k = 1 }",
        ],
        &rows,
    );
    let with_rule = std::fs::read_to_string(&spec)
        .unwrap()
        .replace("[source]", "qrels = { same = \"y\" }\n[source]");
    std::fs::write(&spec, with_rule).unwrap();
    let said = [
        json!({"id": "d0", "ranking": ["d0", "d1", "d2"]}),
        json!({"id": "d1", "ranking": ["d2", "d0"]}),
        json!({"id": "d2", "ranking": [["d0", 0.1], ["d3", 0.9]]}),
        json!({"id": "d3", "ranking": {"d0": 2.0, "d1": 1.0}}),
    ];
    close(&values(dir, &spec, &said), &[(1.0 + 0.5 + 1.0) / 4.0, 0.5]);

    std::fs::remove_file(dir.join("said.results.json")).unwrap();
    let rows = [
        json!({"id": 0, "y": [0, 1]}),
        json!({"id": 1, "y": []}),
        json!({"id": 2, "y": [2]}),
    ];
    let spec = task(
        dir,
        "multilabel",
        "id = \"id\"\ntarget = \"y\"",
        "[labels]\nnames = [\"p\", \"q\", \"r\"]",
        &[
            "name = \"f1_micro\"",
            "name = \"subset_accuracy\"",
            "name = \"hamming_score\"",
        ],
        &rows,
    );
    let said = [
        json!({"id": 0, "prediction": "p"}),
        json!({"id": 1, "prediction": []}),
        json!({"id": 2, "prediction": "r|p"}),
    ];
    // 2 hits, 3 true, 3 predicted.
    close(
        &values(dir, &spec, &said),
        &[2.0 / 3.0, 1.0 / 3.0, (0.5 + 1.0 + 0.5) / 3.0],
    );
}

#[test]
fn several_targets_and_groups() {
    let dir = tempfile::tempdir().unwrap();
    let rows: Vec<String> = (0..12)
        .map(|i| {
            json!({"id": i, "city": if i < 6 { "x" } else { "y" }, "a": i % 2, "b": f64::from(i)})
                .to_string()
        })
        .collect();
    std::fs::write(dir.path().join("rows.jsonl"), rows.join("\n")).unwrap();
    let spec = r#"
schema = "polyloom.task/1"
id = "people"
[source]
kind = "jsonl"
root = "."
[splits]
test = { file = "rows.jsonl" }
[fields]
id = "id"
[table]
group = "city"
group_as = "task"
[[targets]]
name = "a"
column = "a"
type = "classification"
metrics = [{ name = "accuracy" }]
[[targets]]
name = "b"
column = "b"
type = "regression"
sample = "b > 3"
metrics = [{ name = "mae" }]
"#;
    let file = dir.path().join("people.toml");
    std::fs::write(&file, spec).unwrap();
    let said: Vec<String> = (0..12)
        .map(|i| {
            json!({"id": i, "prediction_a": 1, "prediction_b": f64::from(i) + 1.0}).to_string()
        })
        .collect();
    let said_file = dir.path().join("said.jsonl");
    std::fs::write(&said_file, said.join("\n")).unwrap();
    let out = polyloom(&[
        "eval",
        "--predictions",
        &said_file.display().to_string(),
        "--task",
        &file.display().to_string(),
        "--json",
    ]);
    assert_eq!(
        out.status.code(),
        Some(0),
        "{}{}",
        text(&out.stderr),
        text(&out.stdout)
    );
    let events: Vec<Value> = text(&out.stdout)
        .lines()
        .map(|l| serde_json::from_str(l).unwrap())
        .collect();
    let found: Vec<(String, f64, u64)> = events
        .iter()
        .filter(|e| e["type"] == "result")
        .map(|e| {
            (
                e["task"].as_str().unwrap().to_owned(),
                e["value"].as_f64().unwrap(),
                e["n"].as_u64().unwrap(),
            )
        })
        .collect();
    let wanted = [
        ("people/x/a", 0.5, 6),
        ("people/y/a", 0.5, 6),
        ("people/x/b", 1.0, 2),
        ("people/y/b", 1.0, 6),
    ];
    let wanted: Vec<(String, f64, u64)> = wanted.map(|(t, v, n)| (t.to_owned(), v, n)).into();
    assert_eq!(found, wanted);
}
