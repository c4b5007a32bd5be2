//! Sessions: `polyloom train --session --item --model m2trec` and what follows.

use std::path::{Path, PathBuf};

use super::{done, failed, shown};

/// 500 sessions of four to six rows over 24 items: all of a session are of one colour.
fn log(folder: &Path) -> PathBuf {
    let mut out = String::from("visit,at,what,colour,price,click\n");
    for session in 0..500u32 {
        let colour = session * 7 % 4;
        for at in 0..4 + session % 3 {
            let item = colour + 4 * ((session * 5 + at * 11) % 6);
            let name = ["red", "green", "blue", "grey"][colour as usize];
            let click = u32::from((session / 4 + at) % 2 == 0);
            out += &format!("s{session},{at},i{item},{name},{},{click}\n", item / 4 * 10);
        }
    }
    let file = folder.join("log.csv");
    std::fs::write(&file, out).unwrap();
    file
}

const COLUMNS: [&str; 10] = [
    "--session",
    "visit",
    "--order",
    "at",
    "--item",
    "what",
    "--sample",
    "click == 1",
    "--targets",
    "colour",
];

fn train<'a>(table: &'a str, out: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let mut args = vec!["train", table, "--model", "m2trec", "-o", out, "--force"];
    args.extend(["--drop", "click", "--set", "train.batch=32"]);
    args.extend(["--set", "train.new.width=16", "--set", "train.new.ff=32"]);
    args.extend(COLUMNS);
    args.extend(more);
    args
}

fn answers(file: &Path) -> Vec<serde_json::Value> {
    let text = std::fs::read_to_string(file).unwrap();
    text.lines()
        .map(|l| serde_json::from_str(l).unwrap())
        .collect()
}

#[test]
fn a_log_is_learned_scored_and_answered() {
    let dir = tempfile::tempdir().unwrap();
    let table = shown(&log(dir.path()));
    let one = dir.path().join("one");
    let weights = |threads: &'static str| {
        let few = ["--epochs", "2", "--threads", threads];
        done(&train(&table, &shown(&one), &few));
        std::fs::read(one.join("model.safetensors")).unwrap()
    };
    assert!(
        weights("1") == weights("3"),
        "other bytes with other threads"
    );
    // Whole sessions in one split.
    let spec = std::fs::read_to_string(dir.path().join("log.task.toml")).unwrap();
    assert!(
        spec.contains("group = \"visit\"\ngroup_as = \"split\""),
        "{spec}"
    );
    assert!(spec.contains("type = \"retrieval\""), "{spec}");
    let more = ["--epochs", "30", "--set", "train.patience=0"];
    done(&train(&table, &shown(&one), &more));
    let results = dir.path().join("results.json");
    let spec = shown(&dir.path().join("log.task.toml"));
    done(&["eval", &shown(&one), "-t", &spec, "-o", &shown(&results)]);
    let read: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&results).unwrap()).unwrap();
    let text = read.to_string();
    assert!(
        text.contains("log/next") && text.contains("log/colour"),
        "{text}"
    );
    // The next row of a session is of its colour: six of the 24 items, before all others. An item that training never had is
    // found by its description, and a session may be of one row.
    let new = dir.path().join("new.csv");
    let rows = "visit,at,what,colour,price,click\nx,2,i9,green,20,0\nx,1,i5,green,10,1\ny,1,new,blue,30,0\n";
    std::fs::write(&new, rows).unwrap();
    let said = dir.path().join("said.jsonl");
    done(&["predict", &shown(&one), &shown(&new), "-o", &shown(&said)]);
    let found = answers(&said);
    let ids: Vec<&str> = found.iter().map(|a| a["id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["x", "y"]);
    assert_eq!(found[0]["prediction_colour"], "green");
    assert_eq!(found[1]["prediction_colour"], "blue");
    let ranking = found[1]["prediction_next"].as_array().unwrap();
    // 24 items of the training rows, and the new one.
    assert_eq!(ranking.len(), 25);
    // Described as item 14 is, it has its score.
    let score = |name: &str| {
        let found = ranking.iter().find(|r| r[0] == name);
        found.unwrap()[1].as_f64().unwrap()
    };
    assert_eq!(score("new"), score("i14"));
    let first = ranking.iter().take(10);
    assert!(first.map(|r| &r[0]).any(|r| r == "new"), "{ranking:?}");
    // Later rows of the file have no part in a session before them, and neither has the order of the file.
    let turned = "visit,at,what,colour,price,click\ny,1,new,blue,30,0\nx,1,i5,green,10,1\nx,2,i9,green,20,0\n";
    std::fs::write(&new, turned).unwrap();
    done(&[
        "predict",
        &shown(&one),
        &shown(&new),
        "-o",
        &shown(&said),
        "--force",
    ]);
    let turned = answers(&said);
    assert_eq!(
        turned[1]["prediction_colour"],
        found[0]["prediction_colour"]
    );
    let names = |a: &serde_json::Value| {
        let list = a["prediction_next"].as_array().unwrap().iter();
        list.map(|r| r[0].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(names(&turned[1])[..6], names(&found[0])[..6]);
}

#[test]
fn logs_that_are_none_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let table = log(dir.path());
    let spec = dir.path().join("log.task.toml");
    let out = shown(&dir.path().join("model"));
    let whole = std::fs::read_to_string(&table).unwrap();
    let said = |more: &[&str]| {
        let _ = std::fs::remove_file(&spec);
        failed(&train(&shown(&table), &out, more))
    };
    // What is not the same in all rows of an item does not describe it.
    std::fs::write(&table, whole.replacen("i9,green,20", "i9,green,30", 1)).unwrap();
    assert!(said(&[]).contains("another `price`"), "{}", said(&[]));
    std::fs::write(&table, whole.replacen("s3,1,", "s3,soon,", 1)).unwrap();
    assert!(said(&[]).contains("no number and no date"));
    std::fs::write(&table, whole.replacen("s3,1,", ",1,", 1)).unwrap();
    assert!(said(&[]).contains("nothing in column `visit`"));
    // Nobody clicked: nothing to learn of.
    let none = whole.lines().map(|l| match l.strip_suffix(",1") {
        Some(row) => format!("{row},0\n"),
        None => format!("{l}\n"),
    });
    std::fs::write(&table, none.collect::<String>()).unwrap();
    assert!(said(&[]).contains("no training row"), "{}", said(&[]));
    std::fs::write(&table, &whole).unwrap();
    let table_of = shown(&table);
    let single = [
        "train", &table_of, "--model", "mmoe", "--drop", "click", "-o", &out,
    ];
    let mmoe = failed(&[&single[..], &COLUMNS[..]].concat());
    assert!(mmoe.contains("--model m2trec reads sessions"), "{mmoe}");
    // The latest rows are of sessions that began before.
    assert!(
        said(&["--time", "at"]).contains("has rows in the splits"),
        "{}",
        said(&["--time", "at"])
    );
    let _ = std::fs::remove_file(&spec);
    let lone = failed(&[
        "train",
        &shown(&table),
        "--targets",
        "colour",
        "--model",
        "m2trec",
        "-o",
        &out,
    ]);
    assert!(lone.contains("names no column of them"), "{lone}");
}
