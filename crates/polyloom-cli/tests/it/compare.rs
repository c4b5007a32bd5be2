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
    assert_eq!(events.len(), 3);
    assert_eq!(events[0]["task"], "intents");
    assert_eq!(
        (&events[0]["worse"], &events[0]["better"]),
        (&12.into(), &40.into())
    );
    assert_eq!(events[0]["flips"][0]["id"], "q60");
    assert_eq!(events[0]["flips"].as_array().unwrap().len(), 3);
    assert_eq!(events[1]["verdict"], "no clear change");
    assert_eq!(
        events[2]["verdict"],
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
