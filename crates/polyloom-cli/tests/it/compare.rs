//! `polyloom compare` as a user meets it: the guide docs/guides/which-is-better.md, run.

use std::fmt::Write as _;
use std::path::Path;

use super::{polyloom, text};

/// 400 examples of two tasks: the new system mends 40 and breaks 12 of the first, and changes one of the second.
fn files(dir: &Path) -> (String, String) {
    let mut old = "id,task,target,prediction\n".to_owned();
    let mut new = old.clone();
    for i in 0..300 {
        let (was, is) = (i >= 60, !(40..72).contains(&i));
        let word = |right: bool| if right { "yes" } else { "no" };
        writeln!(old, "q{i},intents,yes,{}", word(was)).unwrap();
        writeln!(new, "q{i},intents,yes,{}", word(is)).unwrap();
    }
    for i in 0..100 {
        writeln!(old, "q{i},topics,a,{}", if i < 80 { "a" } else { "b" }).unwrap();
        writeln!(new, "q{i},topics,a,{}", if i < 79 { "a" } else { "b" }).unwrap();
    }
    let (a, b) = (dir.join("old.csv"), dir.join("new.csv"));
    std::fs::write(&a, old).unwrap();
    std::fs::write(&b, new).unwrap();
    (a.display().to_string(), b.display().to_string())
}

#[test]
fn the_table_of_two_tasks() {
    let dir = tempfile::tempdir().unwrap();
    let (old, new) = files(dir.path());
    let out = polyloom(&["compare", &old, &new, "--flips", "2"]);
    assert_eq!(out.status.code(), Some(0), "{}", text(&out.stderr));
    let shown = text(&out.stdout);
    assert_eq!(shown, include_str!("compare.txt"));
    assert!(shown.lines().all(|l| l.chars().count() <= 80), "{shown}");
}

/// Every command of the guide, as it stands there.
#[test]
fn the_commands_of_the_guide_run() {
    let guide = include_str!("../../../../docs/guides/which-is-better.md");
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: String| std::fs::write(dir.path().join(name), text).unwrap();
    let table = |shift: usize| {
        let row = |i: usize| {
            let (task, language) = (["intents", "topics"][i % 2], ["de", "en"][i / 2 % 2]);
            let prediction = ["a", "b", "c"][if (i + shift).is_multiple_of(7) {
                (i + 1) % 3
            } else {
                i % 3
            }];
            format!(
                "q{i},{task},{language},{},{prediction}\n",
                ["a", "b", "c"][i % 3]
            )
        };
        let rows: String = (0..200).map(row).collect();
        format!("id,task,language,target,prediction\n{rows}")
    };
    for (name, shift) in [
        ("old.csv", 0),
        ("new.csv", 1),
        ("a.csv", 0),
        ("b.csv", 2),
        ("c.csv", 3),
    ] {
        write(name, table(shift));
    }
    for (name, shift) in [("old.jsonl", 0), ("new.jsonl", 1)] {
        let row = |i: usize| {
            format!(
                "{{\"id\": {i}, \"rouge_l\": 0.{}, \"seconds\": {}}}\n",
                (i + shift) % 9,
                1 + (i * 7 + shift) % 5
            )
        };
        write(name, (0..50).map(row).collect());
    }
    write("allowances.toml", "intents = 0.02\n".into());
    let mut ran = 0;
    let lines = guide.lines().filter(|l| l.starts_with("polyloom "));
    for line in lines {
        let command = line
            .split(" || ")
            .next()
            .unwrap()
            .split("  ")
            .next()
            .unwrap();
        let args: Vec<&str> = command.split_whitespace().skip(1).collect();
        let out = std::process::Command::new(env!("CARGO_BIN_EXE_polyloom"))
            .current_dir(dir.path())
            .args(&args)
            .env("NO_COLOR", "1")
            .output()
            .unwrap();
        let code = out.status.code();
        assert!(
            code == Some(0) || code == Some(1) && line.contains("--fail-if-worse"),
            "{line}: {}",
            text(&out.stderr)
        );
        let shown = text(&out.stdout);
        assert!(
            shown.lines().all(|l| l.chars().count() <= 80),
            "{line}\n{shown}"
        );
        ran += 1;
    }
    assert_eq!(ran, 16);
}

#[test]
fn slices_are_rows_of_their_task_and_pass_the_gate_too() {
    let dir = tempfile::tempdir().unwrap();
    let rows = |new: bool| -> String {
        let row = |i: usize| {
            let language = ["de", "en"][i % 2];
            // The new system breaks a third of the German examples and mends as many English ones.
            let right = match (new, language) {
                (false, "de") => true,
                (false, _) => i % 6 != 1,
                (true, "de") => !i.is_multiple_of(6),
                (true, _) => true,
            };
            format!("{i},{language},x,{}\n", if right { "x" } else { "y" })
        };
        let rows: String = (0..180).map(row).collect();
        format!("id,language,target,prediction\n{rows}")
    };
    let path = |name: &str, new: bool| {
        let path = dir.path().join(name);
        std::fs::write(&path, rows(new)).unwrap();
        path.display().to_string()
    };
    let (old, new) = (path("old.csv", false), path("new.csv", true));
    let out = polyloom(&["compare", &old, &new, "--slice", "language"]);
    let shown = text(&out.stdout);
    assert!(shown.contains("\n  language=de"), "{shown}");
    assert!(
        shown.contains("corrected for tasks and slices (Holm)"),
        "{shown}"
    );
    assert!(shown.ends_with("verdict: no clear change\n"), "{shown}");
    let out = polyloom(&[
        "compare",
        &old,
        &new,
        "--slice",
        "language",
        "--fail-if-worse",
        "0.05",
    ]);
    assert_eq!(out.status.code(), Some(1));
    assert_eq!(
        text(&out.stderr),
        "all, language=de: worse by 0.3333, allowed 0.05\n"
    );
    assert_eq!(
        polyloom(&["compare", &old, &new, "--fail-if-worse"])
            .status
            .code(),
        Some(0)
    );
    let out = polyloom(&["compare", &old, &new, "--max-flips", "0.1"]);
    assert_eq!(out.status.code(), Some(1));
    assert_eq!(
        text(&out.stderr),
        "all: 30 of 180 examples got worse, allowed 10.0 %\n"
    );
    let out = polyloom(&["compare", &old, &new, "--slice", "language", "--json"]);
    let events: Vec<serde_json::Value> = text(&out.stdout)
        .lines()
        .map(|l| serde_json::from_str(l).unwrap())
        .collect();
    assert_eq!(events.len(), 4);
    assert_eq!(events[1]["slice"]["value"], "de");
    assert_eq!(events[1]["verdict"], "worse");
    let out = polyloom(&["compare", &old, &new, "--slice", "langage"]);
    assert!(
        text(&out.stderr).contains("has no column `langage`"),
        "{}",
        text(&out.stderr)
    );
}

#[test]
fn scores_without_examples_are_compared_with_a_warning() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, value: f64| {
        let folder = dir.path().join(name);
        std::fs::create_dir(&folder).unwrap();
        let t = |v: f64| {
            format!(
                "{{\"metric\": \"accuracy\", \"value\": {v}, \"stderr\": 0.01, \"higher_is_better\": true}}"
            )
        };
        let json = format!(
            "{{\"schema\": \"polyloom.results/1\", \"model\": {{\"name\": \"m\"}}, \"tasks\": {{\"mpqa\": {}, \"subj\": {}}}}}",
            t(value),
            t(0.7)
        );
        let path = folder.join("results.json");
        std::fs::write(&path, json).unwrap();
        path.display().to_string()
    };
    let (old, new) = (write("ties", 0.9), write("new", 0.8));
    let out = polyloom(&["compare", &old, &new]);
    assert_eq!(out.status.code(), Some(0), "{}", text(&out.stderr));
    assert!(text(&out.stderr).contains("overlapping intervals do not mean"));
    let shown = text(&out.stdout);
    assert!(
        shown.contains("mpqa") && shown.contains("-0.1000  -0.128 .. -0.072"),
        "{shown}"
    );
    assert!(shown.lines().all(|l| l.chars().count() <= 80), "{shown}");
    let out = polyloom(&["compare", &old, &new, "--fail-if-worse", "0.01"]);
    assert_eq!(out.status.code(), Some(1), "{}", text(&out.stderr));
    assert!(text(&out.stderr).contains("mpqa: worse by 0.1000, allowed 0.01"));
    let code = |args: &[&str]| {
        polyloom(&[&["compare", &old, &new][..], args].concat())
            .status
            .code()
    };
    assert_eq!(
        code(&["--fail-if-worse", "0.01", "--allow", "mpqa=0.2"]),
        Some(0)
    );
    assert_eq!(code(&["--slice", "x"]), Some(2));
    let out = polyloom(&["compare", &old, &new, "--json"]);
    let events: Vec<serde_json::Value> = text(&out.stdout)
        .lines()
        .map(|l| serde_json::from_str(l).unwrap())
        .collect();
    assert_eq!(events[0]["type"], "warning");
    assert_eq!(
        (&events[1]["type"], &events[1]["test"]),
        (&"unpaired".into(), &"unpaired-z".into())
    );
    assert_eq!(events.last().unwrap()["verdict"], "not paired");
}

#[test]
fn allowances_are_by_task() {
    let dir = tempfile::tempdir().unwrap();
    let (old, new) = files(dir.path());
    // From new to old the first task falls by 28 of 300.
    let code = |args: &[&str]| {
        let all = [&["compare", &new, &old], args].concat();
        polyloom(&all).status.code()
    };
    assert_eq!(
        code(&["--fail-if-worse", "0", "--allow", "intents=0.1"]),
        Some(0)
    );
    assert_eq!(
        code(&["--fail-if-worse", "0.1", "--allow", "intents=0.05"]),
        Some(1)
    );
    let file = dir.path().join("a.json");
    std::fs::write(&file, "{\"intents\": 0.1}").unwrap();
    let file = file.display().to_string();
    assert_eq!(code(&["--fail-if-worse", "--allow-file", &file]), Some(0));
    assert_eq!(
        code(&[
            "--fail-if-worse",
            "--allow-file",
            &file,
            "--allow",
            "intents=0"
        ]),
        Some(1)
    );
    assert_eq!(code(&["--allow", "intents=0.1"]), Some(2));
    let out = polyloom(&[
        "compare",
        &old,
        &new,
        "--fail-if-worse",
        "0",
        "--allow",
        "intent=0.1",
    ]);
    assert_eq!(out.status.code(), Some(2));
    assert!(
        text(&out.stderr).contains("did you mean `intents`?"),
        "{}",
        text(&out.stderr)
    );
}

#[test]
fn a_gate_for_scripts() {
    let dir = tempfile::tempdir().unwrap();
    let (old, new) = files(dir.path());
    let code = |args: &[&str]| polyloom(args).status.code();
    // From new to old the first task falls by 28 of 300.
    assert_eq!(code(&["compare", &new, &old]), Some(0));
    assert_eq!(code(&["compare", &new, &old, "--fail-if-worse"]), Some(1));
    assert_eq!(
        code(&["compare", &new, &old, "--fail-if-worse", "0.05", "-q"]),
        Some(1)
    );
    assert_eq!(
        code(&["compare", &new, &old, "--fail-if-worse", "0.1"]),
        Some(0)
    );
    assert_eq!(code(&["compare", &old, &new, "--fail-if-worse"]), Some(0));
    assert_eq!(code(&["compare", &old, "nowhere.csv"]), Some(2));
}

#[test]
fn events_hold_what_the_table_shows() {
    let dir = tempfile::tempdir().unwrap();
    let (old, new) = files(dir.path());
    let out = polyloom(&["compare", &old, &new, "--json", "--flips", "3"]);
    let events: Vec<serde_json::Value> = text(&out.stdout)
        .lines()
        .map(|l| serde_json::from_str(l).unwrap())
        .collect();
    assert_eq!(events.len(), 4);
    assert_eq!(events[0]["task"], "intents");
    assert_eq!(
        (&events[0]["worse"], &events[0]["better"]),
        (&12.into(), &40.into())
    );
    assert_eq!(events[0]["flips"][0]["id"], "q60");
    assert_eq!(events[0]["flips"].as_array().unwrap().len(), 3);
    assert_eq!(events[1]["verdict"], "no clear change");
    assert_eq!(
        (&events[2]["type"], &events[2]["tasks"]),
        (&"overall".into(), &2.into())
    );
    let gap = (0.28 / 3.0 - 0.01) / 2.0;
    assert!((events[2]["difference"].as_f64().unwrap() - gap).abs() < 1e-9);
    assert_eq!(
        events[3]["verdict"],
        "better on 1 of 2, no clear change on 1 of 2"
    );
}

#[test]
fn what_cannot_be_compared_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let (old, _) = files(dir.path());
    let other = dir.path().join("other.csv");
    std::fs::write(
        &other,
        "id,task,target,prediction\nq0,intents,no,yes\nz,intents,no,yes\n",
    )
    .unwrap();
    let other = other.display().to_string();
    let said = |args: &[&str]| {
        let out = polyloom(args);
        assert_eq!(out.status.code(), Some(2));
        text(&out.stderr).replace(&dir.path().display().to_string(), "DIR")
    };
    let shown = said(&["compare", &old, &other]);
    assert!(
        shown.contains("lacks 400 examples") && shown.contains("--allow-partial"),
        "{shown}"
    );
    let shown = said(&["compare", &old, &other, "--allow-partial"]);
    assert!(
        shown.contains("disagree on what is right for example `q0`"),
        "{shown}"
    );
    let shown = said(&["compare", &old, &old, "--id", "nr"]);
    assert!(
        shown.contains("DIR/old.csv:2: has no column `nr`"),
        "{shown}"
    );
    assert!(shown.contains("id, task, target, prediction"), "{shown}");
}
