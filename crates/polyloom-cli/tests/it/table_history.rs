//! Rows that see what was before them in their session: `polyloom train --session --history --model dtrn`.

use std::path::{Path, PathBuf};

use super::{done, failed, shown};

/// 300 sessions of five rows: whether one pays is whether the row before it was red and clicked; rows of a session stand apart
/// in the file.
fn log(folder: &Path) -> PathBuf {
    let mut rows = Vec::new();
    for visit in 0..300u32 {
        let (mut paid, mut state) = (false, visit);
        for at in 0..5 {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let colour = ["red", "green", "blue"][(state >> 16) as usize % 3];
            let click = (state >> 24) % 2;
            let price = (state >> 8) % 50;
            rows.push((
                at,
                format!("v{visit},{at},{colour},{price},{click},{}", u32::from(paid)),
            ));
            paid = colour == "red" && click == 1;
        }
    }
    // By the place in the session, so that rows of one are 300 apart.
    rows.sort_by_key(|(at, _)| *at);
    let rows: Vec<String> = rows.into_iter().map(|(_, row)| row).collect();
    let file = folder.join("log.csv");
    std::fs::write(
        &file,
        format!("visit,at,colour,price,click,paid\n{}\n", rows.join("\n")),
    )
    .unwrap();
    file
}

const COLUMNS: [&str; 10] = [
    "--session",
    "visit",
    "--order",
    "at",
    "--history",
    "colour",
    "--mark",
    "click == 1",
    "--targets",
    "paid",
];

fn train<'a>(table: &'a str, out: &'a str, model: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let mut args = vec!["train", table, "--model", model, "-o", out, "--force"];
    args.extend(["--set", "train.batch=32", "--set", "train.rate=3e-3"]);
    args.extend(more);
    args
}

fn auc(model: &str, spec: &str, to: &Path) -> f64 {
    done(&["eval", model, "-t", spec, "-o", &shown(to), "--force"]);
    let read: serde_json::Value = serde_json::from_slice(&std::fs::read(to).unwrap()).unwrap();
    let tasks = read["tasks"].as_object().unwrap();
    let task = tasks.values().next().unwrap_or_else(|| panic!("{read}"));
    task["value"].as_f64().unwrap()
}

#[test]
fn rows_see_what_was_before_them() {
    let dir = tempfile::tempdir().unwrap();
    let table = shown(&log(dir.path()));
    let (one, other) = (
        shown(&dir.path().join("one")),
        shown(&dir.path().join("other")),
    );
    let of = |more: &[&'static str]| [&COLUMNS[..], &["--drop", "click"], more].concat();
    let weights = |threads: &'static str| {
        done(&train(
            &table,
            &one,
            "dtrn",
            &of(&["--epochs", "1", "--threads", threads]),
        ));
        std::fs::read(Path::new(&one).join("model.safetensors")).unwrap()
    };
    assert!(
        weights("1") == weights("3"),
        "other bytes with other threads"
    );
    done(&train(
        &table,
        &one,
        "dtrn",
        &of(&["--epochs", "30", "--set", "train.patience=0"]),
    ));
    let spec = dir.path().join("log.task.toml");
    let said = std::fs::read_to_string(&spec).unwrap();
    assert!(
        said.contains("history = [\"colour\"]") && said.contains("mark = \"click == 1\""),
        "{said}"
    );
    assert!(
        said.contains("group = \"visit\"\ngroup_as = \"split\""),
        "{said}"
    );
    // What was before is all that there is to know.
    let results = dir.path().join("results.json");
    let with = auc(&one, &shown(&spec), &results);
    assert!(with > 0.95, "{with}");
    // New rows, in any order of the file: the row behind a red click pays, the one behind an unclicked red one does not.
    let new = dir.path().join("new.csv");
    let lines = [
        "a,1,red,10,1",
        "a,2,blue,10,0",
        "b,1,red,10,0",
        "b,2,blue,10,0",
    ];
    let answered = |order: &[usize]| {
        let rows: Vec<&str> = order.iter().map(|i| lines[*i]).collect();
        std::fs::write(
            &new,
            format!("visit,at,colour,price,click\n{}\n", rows.join("\n")),
        )
        .unwrap();
        let to = dir.path().join("said.jsonl");
        done(&["predict", &one, &shown(&new), "-o", &shown(&to), "--force"]);
        let text = std::fs::read_to_string(&to).unwrap();
        let found = text
            .lines()
            .map(|l| serde_json::from_str::<serde_json::Value>(l).unwrap());
        let mut found: Vec<(usize, String)> = order
            .iter()
            .copied()
            .zip(found.map(|a| a["prediction"].to_string()))
            .collect();
        found.sort();
        found
    };
    let straight = answered(&[0, 1, 2, 3]);
    assert_eq!(straight, answered(&[3, 1, 0, 2]));
    let paid: Vec<&str> = straight
        .iter()
        .map(|(_, said)| said.trim_matches('"'))
        .collect();
    assert_eq!(paid[1..], ["1", "0", "0"], "{straight:?}");
    // Without the column that marks rows there is no telling.
    std::fs::write(&new, "visit,at,colour,price\na,1,red,10\n").unwrap();
    let said = failed(&["predict", &one, &shown(&new)]);
    assert!(said.contains("no column `click`"), "{said}");
    // The spec is there; another history is another task, and other architectures read rows alone.
    let said = failed(&train(
        &table,
        &other,
        "dtrn",
        &["--session", "visit", "--history", "price"],
    ));
    assert!(said.contains("with the history `colour`"), "{said}");
    let said = failed(&train(&table, &other, "mmoe", &[]));
    assert!(
        said.contains("`table.history`") && said.contains("dtrn"),
        "{said}"
    );
    let said = failed(&train(&table, &other, "gbdt", &[]));
    assert!(said.contains("does not read"), "{said}");
    let said = failed(&["export", &one, "-o", &shown(&dir.path().join("one.onnx"))]);
    assert!(said.contains("before them"), "{said}");
}

#[test]
fn flags_that_do_not_go_together_say_so() {
    let dir = tempfile::tempdir().unwrap();
    let table = shown(&log(dir.path()));
    let out = shown(&dir.path().join("one"));
    let said = |columns: &[&str]| {
        let args = train(&table, &out, "dtrn", &[]);
        let all: Vec<&str> = args.into_iter().chain(columns.iter().copied()).collect();
        failed(&all)
    };
    let found = said(&["--session", "visit", "--targets", "paid"]);
    assert!(found.contains("--history"), "{found}");
    let found = said(&[
        "--session",
        "visit",
        "--item",
        "colour",
        "--history",
        "colour",
        "--targets",
        "paid",
    ]);
    assert!(found.contains("leave one out"), "{found}");
    let found = said(&[
        "--session",
        "visit",
        "--history",
        "paid",
        "--targets",
        "paid",
    ]);
    assert!(found.contains("something else"), "{found}");
    let found = said(&[
        "--session",
        "visit",
        "--history",
        "colour",
        "--mark",
        "click is",
        "--targets",
        "paid",
    ]);
    assert!(found.contains("--mark"), "{found}");
}
