//! `polyloom eval --predictions` as a user meets it: the guide docs/guides/score-predictions.md, run.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::{polyloom, text};

/// A task of 40 tickets of three classes, and what it needs; returns its spec.
fn tickets(dir: &Path) -> String {
    let mut rows = "id,text,intent\n".to_owned();
    for i in 0..40 {
        writeln!(
            rows,
            "t{i},ticket {i},{}",
            ["billing", "refund", "other"][i % 3]
        )
        .unwrap();
    }
    std::fs::write(dir.join("tickets.csv"), rows).unwrap();
    let spec = r#"
schema = "polyloom.task/1"
id = "support/intent"
type = "classification"
[source]
kind = "csv"
root = "."
[splits]
test = { file = "tickets.csv" }
[fields]
id = "id"
input = "text"
target = "intent"
[labels]
names = ["billing", "refund", "other"]
[[metrics]]
name = "accuracy"
primary = true
[[metrics]]
name = "f1_macro"
[[metrics]]
name = "log_loss"
"#;
    let path = dir.join("tickets.task.toml");
    std::fs::write(&path, spec).unwrap();
    path.display().to_string()
}

/// Right but for every fifth ticket.
fn predictions(dir: &Path, name: &str, rows: std::ops::Range<usize>) -> String {
    let mut out = "id,prediction\n".to_owned();
    for i in rows {
        let said = if i % 5 == 0 {
            "other"
        } else {
            ["billing", "refund", "other"][i % 3]
        };
        writeln!(out, "t{i},{said}").unwrap();
    }
    let path = dir.join(name);
    std::fs::write(&path, out).unwrap();
    path.display().to_string()
}

fn results(path: &Path) -> Value {
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

#[test]
fn a_table_of_predictions_becomes_results_and_records() {
    let dir = tempfile::tempdir().unwrap();
    let (task, preds) = (
        tickets(dir.path()),
        predictions(dir.path(), "mine.csv", 0..40),
    );
    let out = polyloom(&["eval", "--predictions", &preds, "--task", &task]);
    assert_eq!(out.status.code(), Some(0), "{}", text(&out.stderr));
    let shown = text(&out.stdout).replace(&dir.path().display().to_string(), "DIR");
    assert_eq!(shown, include_str!("eval.txt"));
    assert!(shown.lines().all(|l| l.chars().count() <= 80), "{shown}");
    assert!(
        text(&out.stderr).contains("log_loss is n/a"),
        "{}",
        text(&out.stderr)
    );
    let found = results(&dir.path().join("mine.results.json"));
    let entry = &found["tasks"]["support/intent"];
    // t0, t10, t15, t25, t30 are wrong; t5, t20 and t35 are "other" anyway.
    assert_eq!((&entry["value"], &entry["n"]), (&json!(0.875), &json!(40)));
    assert_eq!(
        (&entry["method"], &entry["split"]),
        (&json!("wilson"), &json!("test"))
    );
    assert_eq!(found["model"]["name"], "mine");
    assert!(entry["metrics"]["log_loss"]["value"].is_null());
    let samples = dir.path().join(entry["samples"].as_str().unwrap());
    assert!(samples.is_file());

    // The same again: nothing is computed. With other predictions: refused, unless forced.
    let again = polyloom(&["eval", "--predictions", &preds, "--task", &task]);
    assert!(
        text(&again.stderr).contains("nothing changed"),
        "{}",
        text(&again.stderr)
    );
    assert_eq!(text(&again.stdout), text(&out.stdout));
    let forced = polyloom(&["eval", "--predictions", &preds, "--task", &task, "--force"]);
    assert!(!text(&forced.stderr).contains("nothing changed"));
    assert_eq!(text(&forced.stdout), text(&out.stdout));
    let other = predictions(dir.path(), "other.csv", 0..20);
    let target = dir.path().join("mine.results.json").display().to_string();
    let args = [
        "eval",
        "--predictions",
        &other,
        "--task",
        &task,
        "--allow-partial",
        "-o",
        &target,
    ];
    let refused = polyloom(&args);
    assert_eq!(refused.status.code(), Some(2));
    assert!(
        text(&refused.stderr).contains("results of other predictions"),
        "{}",
        text(&refused.stderr)
    );
}

#[test]
fn ids_that_one_side_lacks_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let (task, preds) = (
        tickets(dir.path()),
        predictions(dir.path(), "half.csv", 30..45),
    );
    let out = polyloom(&["eval", "--predictions", &preds, "--task", &task]);
    assert_eq!(out.status.code(), Some(2));
    let said = text(&out.stderr);
    assert!(
        said.contains("lacks 30 of 40 examples (t0, t1, t2, t3, t4, ...)"),
        "{said}"
    );
    assert!(
        said.contains("has 5 ids that are not in it (t40, t41"),
        "{said}"
    );
    assert!(said.contains("hint: --allow-partial"), "{said}");
    let out = polyloom(&[
        "eval",
        "--predictions",
        &preds,
        "--task",
        &task,
        "--allow-partial",
        "--json",
    ]);
    let events: Vec<Value> = text(&out.stdout)
        .lines()
        .map(|l| serde_json::from_str(l).unwrap())
        .collect();
    assert_eq!(
        (&events[0]["type"], &events[0]["n"]),
        (&json!("result"), &json!(10))
    );
    assert_eq!(events[0]["missing"]["count"], 30);
    assert_eq!(events.last().unwrap()["type"], "done");
}

#[test]
fn what_cannot_be_scored_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let task = tickets(dir.path());
    let write = |name: &str, content: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, content).unwrap();
        path.display().to_string()
    };
    let says = |file: &str, more: &[&str], want: &str| {
        let mut args = vec![
            "eval",
            "--predictions",
            file,
            "--task",
            &task,
            "--allow-partial",
        ];
        args.extend(more);
        let out = polyloom(&args);
        let said = text(&out.stderr);
        assert_eq!(out.status.code(), Some(2), "{said}");
        assert!(said.contains(want), "{said}\nwanted {want}");
    };
    says(
        &write("a.csv", "id,prediction\nt0,bilings\n"),
        &[],
        "`bilings` is no class of the task; classes: billing, refund, other",
    );
    says(
        &write("b.csv", "id,guess\nt0,billing\n"),
        &[],
        "its columns: id, guess",
    );
    says(
        &write("c.csv", "id,prediction\nt0,billing\nt0,refund\n"),
        &[],
        "the example `t0` stands twice",
    );
    says(
        &write("d.csv", "prediction\nbilling\n"),
        &[],
        "has no ids and 1 rows, and split `test`",
    );
    says(
        &write("e.csv", "id,prediction\nx,billing\n"),
        &[],
        "ids of the task: t0, t1",
    );
    says(&write("f.xlsx", ""), &[], "is not a file of predictions");
    says(
        &write("g.csv", "id,prediction\nt0,billing\n"),
        &["--split", "train"],
        "has no split `train`",
    );
    says(
        &write("h.csv", "id,prediction\nt0,billing\n"),
        &["--metrics", "roc_auc"],
        "it is of two classes, and the task has 3",
    );
    says(
        &write("i.csv", "id,prediction\nt0,billing\n"),
        &["--metrics", "acuracy"],
        "did you mean accuracy",
    );
    says(
        &write("j.csv", "id,prediction\nt0,billing\n"),
        &["--extract", "stepwise"],
        "one of: direct, last-line, step-by-step",
    );
    says(
        &write(
            "k.csv",
            "id,score_billing,score_refund,score_other\nt0,a,b,c\n",
        ),
        &[],
        "`a` is no number",
    );
}

#[test]
fn answers_in_text_are_read_by_rules() {
    let dir = tempfile::tempdir().unwrap();
    let spec = r#"
schema = "polyloom.task/1"
id = "bool"
type = "generation"
[source]
kind = "json"
root = "."
[splits]
test = { file = "bool.json" }
[fields]
input = "input"
target = "target"
[[prompts]]
template = "Q: {{input}}\nA:"
target = "{{target}}"
[[parse]]
name = "marked"
steps = [{ regex = "==> (.+)", group = -1 }, { strip = true }]
[[metrics]]
name = "exact_match"
"#;
    let task = dir.path().join("bool.toml");
    std::fs::write(&task, spec).unwrap();
    let rows: Vec<Value> = (0..10).map(|i| json!({"input": format!("q{i}"), "target": if i % 2 == 0 { "True" } else { "False" }})).collect();
    std::fs::write(
        dir.path().join("bool.json"),
        json!({"canary": "x", "examples": rows}).to_string(),
    )
    .unwrap();
    let mut lines = String::new();
    for i in 0..10 {
        let right = if i % 2 == 0 { "True" } else { "False" };
        let answer = if i < 8 { right } else { "Maybe" };
        let thought = format!("not True is False.\nSo the answer is {answer}.\n==> {right}");
        writeln!(lines, "{}", json!({"id": i, "output": thought})).unwrap();
    }
    let file = dir.path().join("answers.jsonl");
    std::fs::write(&file, lines).unwrap();
    let (file, task) = (file.display().to_string(), task.display().to_string());
    let value = |rule: &[&str], name: &str| {
        let target = dir.path().join(name);
        let at = target.display().to_string();
        let mut args = vec!["eval", "--predictions", &file, "--task", &task, "-o", &at];
        args.extend(rule);
        let out = polyloom(&args);
        assert_eq!(out.status.code(), Some(0), "{}", text(&out.stderr));
        results(&target)["tasks"]["bool"]["value"].as_f64().unwrap()
    };
    assert_eq!(value(&[], "task.json"), 1.0, "the task's own rule");
    assert_eq!(value(&["--extract", "direct"], "direct.json"), 0.0);
    assert_eq!(
        value(&["--extract", "regex:answer is ([A-Za-z]+)"], "regex.json"),
        0.8
    );
    assert_eq!(
        value(&["--extract", "step-by-step"], "steps.json"),
        0.0,
        "the mark follows the answer"
    );
}

/// Two questions of an lm-eval run.
fn samples(dir: &Path) -> PathBuf {
    let row = |id: u32, target: u32, first: f64, second: f64| {
        let acc = f64::from(u8::from((target == 0) == (first > second)));
        json!({"doc_id": id, "doc": {"q": id}, "target": target.to_string(), "arguments": [],
            "resps": [[[first, false]], [[second, false]]], "filtered_resps": [[first, false], [second, false]],
            "acc": acc, "acc_norm": acc, "doc_hash": format!("h{id}")})
    };
    let rows = [
        row(0, 0, -1.0, -2.0),
        row(1, 1, -1.0, -2.0),
        row(2, 1, -3.0, -2.0),
        row(3, 0, -1.0, -4.0),
    ];
    let path = dir.join("samples_two_choices_2026-05-01T10-11-12.345678.jsonl");
    std::fs::write(&path, rows.map(|r| r.to_string()).join("\n")).unwrap();
    path
}

#[test]
fn samples_of_lm_eval_bring_their_scores() {
    let dir = tempfile::tempdir().unwrap();
    let file = samples(dir.path()).display().to_string();
    let target = dir.path().join("out.json");
    let out = polyloom(&[
        "eval",
        "--predictions",
        &file,
        "-o",
        &target.display().to_string(),
    ]);
    assert_eq!(out.status.code(), Some(0), "{}", text(&out.stderr));
    let entry = &results(&target)["tasks"]["two_choices"];
    assert_eq!(
        (&entry["metric"], &entry["value"]),
        (&json!("accuracy"), &json!(0.75))
    );
    assert_eq!(entry["metrics"]["acc_norm"]["value"], 0.75);
}

#[test]
fn a_column_of_scores_is_taken_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("scored.csv");
    std::fs::write(
        &file,
        "task,id,direct,steps\na,0,True,True\na,1,False,True\nb,0,False,False\n",
    )
    .unwrap();
    let target = dir.path().join("steps.json");
    let args = [
        "eval",
        "--predictions",
        &file.display().to_string(),
        "--values",
        "steps",
        "-o",
        &target.display().to_string(),
    ];
    let out = polyloom(&args);
    assert_eq!(out.status.code(), Some(0), "{}", text(&out.stderr));
    let tasks = &results(&target)["tasks"];
    assert_eq!(
        (&tasks["a"]["value"], &tasks["b"]["value"]),
        (&json!(1.0), &json!(0.0))
    );
    assert_eq!(tasks["a"]["metric"], "accuracy");
}

#[test]
fn metrics_are_listed_and_explained() {
    let out = polyloom(&["metrics"]);
    assert!(
        text(&out.stdout).contains("span_f1"),
        "{}",
        text(&out.stdout)
    );
    let out = polyloom(&["metrics", "macro_f1"]);
    assert!(text(&out.stdout).starts_with("f1_macro\n"));
    let out = polyloom(&["metrics", "macro_f2"]);
    assert_eq!(out.status.code(), Some(2));
    assert!(text(&out.stderr).contains("did you mean"));
}
