//! `polyloom diag`: which columns a model of tables rests on, and what its experts are used for.

use std::fmt::Write as _;

use serde_json::Value;

use super::{done, failed, polyloom, shown, text};

/// 800 rows: `who` follows from `job`, `much` from `x` alone; every ninth `x` is missing, `noise` says nothing.
fn table(folder: &std::path::Path) -> String {
    let mut out = String::from("row,noise,x,job,who,much\n");
    for i in 0..800usize {
        let draw = |k: u64| {
            let x = (i as u64 * 8 + k + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
            let x = (x ^ (x >> 31)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            (x ^ (x >> 29)) % 1000
        };
        let job = ["cook", "clerk", "judge", "smith"][draw(1) as usize % 4];
        let x = draw(3) as f64 / 100.0;
        let cell = if i % 9 == 0 {
            String::new()
        } else {
            format!("{x}")
        };
        let who = ["no", "yes"][usize::from(job.starts_with('c'))];
        let much = if i % 9 == 0 { 5.0 } else { 3.0 * x };
        writeln!(out, "r{i},{},{cell},{job},{who},{much:.3}", draw(5)).unwrap();
    }
    let file = folder.join("rows.csv");
    std::fs::write(&file, out).unwrap();
    shown(&file)
}

/// Gates and experts of a model of tables, in words and in JSON; a tree has none.
#[test]
fn experts_are_shown_with_what_gates_give_them() {
    let dir = tempfile::tempdir().unwrap();
    let (file, out) = (table(dir.path()), shown(&dir.path().join("model")));
    let task = shown(&dir.path().join("rows.task.toml"));
    let train = |model: &str, more: &[&str]| {
        let args = ["train", &file, "--model", model, "-o", &out, "--force"];
        done(&[&args[..], more].concat());
    };
    let few = ["--targets", "who,much", "--drop", "row", "--epochs", "2"];
    let experts = [
        "--set",
        "train.new.shared_experts=3",
        "--set",
        "train.new.task_experts=1",
    ];
    train("ple", &[&few[..], &experts].concat());
    let ask = |more: &[&str]| {
        let all = [&["diag", "experts", &out, "-t", &task][..], more].concat();
        let said = polyloom(&all);
        assert!(said.status.success(), "{}", text(&said.stderr));
        text(&said.stdout)
    };
    let lines = ask(&["--json"]);
    let lines: Vec<Value> = lines
        .lines()
        .map(|l| serde_json::from_str(l).unwrap())
        .collect();
    let of = |kind: &str| {
        lines
            .iter()
            .filter(|l| l["type"] == kind)
            .collect::<Vec<_>>()
    };
    // Two levels: gates of both goals, and the shared one between them.
    assert_eq!((of("gate").len(), of("expert").len()), (5, 10), "{lines:?}");
    for gate in of("gate") {
        let weights = of("expert")
            .into_iter()
            .filter_map(|e| e["weights"][gate["gate"].as_str()?].as_f64());
        assert!((weights.sum::<f64>() - 1.0).abs() < 1e-4, "{gate}");
        for key in ["entropy", "spread"] {
            assert!(
                (0.0..=1.0001).contains(&gate[key].as_f64().unwrap()),
                "{gate}"
            );
        }
    }
    for expert in of("expert") {
        assert_eq!(
            expert["shared"],
            expert["block"].as_str().unwrap().ends_with("shared"),
            "{expert}"
        );
    }
    let words = ask(&[]);
    for part in [
        "80 rows of split test",
        "levels.1.shared, shared",
        "  expert  zeros  size",
        "who",
        "much",
    ] {
        assert!(words.contains(part), "{part}: {words}");
    }
    assert!(words.lines().all(|l| l.chars().count() <= 100), "{words}");
    for threads in ["1", "2"] {
        assert_eq!(ask(&["--threads", threads]), words);
    }
    train("shared_bottom", &["--epochs", "1"]);
    assert!(failed(&["diag", "experts", &out, "-t", &task]).contains("has no gates over experts"));
    train("gbdt", &["--set", "train.new.rounds=2"]);
    assert!(failed(&["diag", "experts", &out, "-t", &task]).contains("its trees are not weighed"));
}

#[test]
fn each_target_rests_on_its_own_columns() {
    let dir = tempfile::tempdir().unwrap();
    let (file, out) = (table(dir.path()), shown(&dir.path().join("model")));
    let task = shown(&dir.path().join("rows.task.toml"));
    for (model, more) in [
        ("gbdt", &["--set", "train.new.rounds=60"][..]),
        ("shared_bottom", &["--epochs", "30"]),
    ] {
        let mut args = vec!["train", &file, "--model", model, "-o", &out, "--force"];
        args.extend(more);
        if model == "gbdt" {
            args.extend(["--targets", "who,much", "--drop", "row"]);
        }
        done(&args);
        let ask = |more: &[&str]| {
            let all = [&["diag", "importance", &out, "-t", &task][..], more].concat();
            let said = polyloom(&all);
            assert!(said.status.success(), "{}", text(&said.stderr));
            text(&said.stdout)
        };
        let lines = ask(&["--json", "--repeats", "4"]);
        let lines = lines.lines().map(|l| serde_json::from_str(l).unwrap());
        let all: Vec<Value> = lines
            .filter(|l: &Value| l["type"] == "importance")
            .collect();
        assert_eq!(all.len(), 6, "{all:?}");
        for (target, first) in [("rows/who", "job"), ("rows/much", "x")] {
            let of: Vec<&Value> = all.iter().filter(|l| l["task"] == target).collect();
            assert_eq!(of[0]["column"], first, "{model}: {of:?}");
            let drop = |l: &Value| l["drop"].as_f64().unwrap();
            let scale = match target {
                "rows/who" => 0.3,
                _ => 3.0,
            };
            assert!(drop(of[0]) > scale, "{model}: {of:?}");
            for other in &of[1..] {
                assert!(drop(other).abs() < 0.1 * drop(of[0]), "{model}: {of:?}");
            }
            assert_eq!(of[0]["drops"].as_array().unwrap().len(), 4);
            assert!(of[0]["deviation"].as_f64().unwrap() > 0.0 && of[0]["n"] == 80);
        }
        // The same bytes for any number of threads; another seed is another order of rows.
        let plain = ask(&["-j", "1"]);
        assert_eq!(plain, ask(&["-j", "3"]), "{model}");
        assert_ne!(plain, ask(&["--seed", "5"]), "{model}");
        assert!(plain.lines().all(|l| l.chars().count() <= 80), "{plain}");
        let first = plain.lines().next().unwrap();
        assert!(first.starts_with("rows/who   roc_auc "), "{plain}");
        assert!(
            first.ends_with("80 rows of split test; it drops by"),
            "{plain}"
        );
        assert!(
            plain.contains("rmse") && plain.contains("it rises by"),
            "{plain}"
        );
        assert!(ask(&["--repeats", "1", "-L", "40"]).contains("40 rows"));
    }
    let no = |args: &[&str]| failed(&[&["diag", "importance"][..], args].concat());
    assert!(no(&[&out, "-t", &task, "--split", "tset"]).contains("tset"));
    assert!(no(&[&out, "-t", &task, "--repeats", "0"]).contains("--repeats"));
    assert!(no(&[&shown(&dir.path().join("none")), "-t", &task]).contains("none"));
}
