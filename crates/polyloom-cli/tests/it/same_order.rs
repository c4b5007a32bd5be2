//! `polyloom board` and `polyloom report` give one table the same places, intervals and marks.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::{polyloom, text};

/// Systems by rows, tasks of two directions and scales by columns, some gaps; a system that was hardly measured.
fn table(dir: &Path) -> String {
    let mut out = "system,task,metric,value,stderr,n,chance,maximum\n".to_owned();
    for s in 0..6 {
        for t in 0..9 {
            let hardly = s == 5 && t > 2;
            if hardly || (s * 5 + t * 7) % 13 == 4 {
                continue;
            }
            let ripple = ((s * 7 + t * 11) % 9) as f64 / 40.0;
            let x = 0.4 + 0.05 * s as f64 + ripple;
            if t % 4 == 3 {
                writeln!(out, "m{s},t{t},rmse,{:.3},0.2,,,", 9.0 - 3.0 * x).unwrap();
            } else {
                writeln!(out, "m{s},t{t},accuracy,{x:.3},0.03,200,0.25,1").unwrap();
            }
        }
    }
    file(dir, "scores.csv", &out)
}

fn file(dir: &Path, name: &str, content: &str) -> String {
    let path = dir.join(name);
    std::fs::write(&path, content).unwrap();
    path.display().to_string()
}

/// By system, what the board says of it.
fn of_board(args: &[&str]) -> Value {
    let out = polyloom(&[&["board", "--json"], args].concat());
    assert_eq!(out.status.code(), Some(0), "{}", text(&out.stderr));
    let events = text(&out.stdout);
    let events = events
        .lines()
        .map(|l| serde_json::from_str::<Value>(l).unwrap());
    let systems = events.filter(|e| e["type"] == "system").map(|e| {
        let draws = match &e["over_tasks"] {
            Value::Null => &e["over_examples"],
            tasks => tasks,
        };
        let second = match &e["over_tasks"] {
            Value::Null => &Value::Null,
            _ => &e["over_examples"],
        };
        let values = e["values"].as_object().unwrap();
        json!({
            "name": e["name"], "place": e["place"], "value": values.values().next().unwrap()["value"],
            "places": draws["places"], "interval": draws["interval"], "first": draws["first"],
            "second": second["places"], "open": e["resolved_from_above"] == false, "missing": e["missing"],
        })
    });
    systems.collect()
}

fn of_report(dir: &Path, args: &[&str]) -> Value {
    let path: PathBuf = dir.join("r.json");
    let shown = path.display().to_string();
    let out = polyloom(&[&["report", "--force", "-o", &shown], args].concat());
    assert_eq!(out.status.code(), Some(0), "{}", text(&out.stderr));
    let report: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let systems = report["systems"].as_array().unwrap().iter().map(|s| {
        json!({
            "name": s["name"], "place": s["rank"], "value": s["value"], "places": s["rank_interval"],
            "interval": s["interval"], "first": s["first"], "second": s["second_rank_interval"],
            "open": s["resolved_from_above"] == false, "missing": s["missing"],
        })
    });
    systems.collect()
}

fn same(dir: &Path, way: &str, args: &[&str]) -> Value {
    let board = of_board(&[args, &["--aggregate", way]].concat());
    let report = of_report(dir, &[args, &["--rank-by", way]].concat());
    assert_eq!(board, report, "{way} {args:?}");
    board
}

#[test]
fn every_way_of_counting_agrees() {
    let dir = tempfile::tempdir().unwrap();
    let scores = table(dir.path());
    for way in [
        "borda",
        "borda_mteb",
        "mean_rank",
        "win-rate",
        "copeland",
        "kemeny",
        "bt",
        "pl",
    ] {
        for rule in ["strict", "skip"] {
            let args = [
                &scores[..],
                "--missing",
                rule,
                "--draws",
                "200",
                "--seed",
                "7",
            ];
            let found = same(dir.path(), way, &args);
            let last = found.as_array().unwrap().iter().find(|s| s["name"] == "m5");
            let placed = !last.unwrap()["place"].is_null();
            // Three tasks of nine: a mean of ranks or wins over them is none of the system's, unless asked for.
            let covered = rule == "skip" || !matches!(way, "mean_rank" | "win-rate");
            assert_eq!(placed, covered, "{way} {rule}");
        }
    }
    let accuracy = [&scores[..], "--where", "metric=accuracy", "--expert", "m0"];
    for way in ["mean", "size_mean", "above_chance", "normalised", "delta-m"] {
        for rule in ["strict", "skip"] {
            same(
                dir.path(),
                way,
                &[&accuracy[..], &["--missing", rule]].concat(),
            );
        }
    }
    // Another seed, other draws.
    let of = |seed| same(dir.path(), "borda", &[&scores, "--seed", seed]);
    assert_ne!(of("0"), of("1"));
}

#[test]
fn few_tasks_are_drawn_by_their_examples() {
    let dir = tempfile::tempdir().unwrap();
    let mut rows = "system,task,id,correct\n".to_owned();
    for (system, every) in [("a", 3), ("b", 4), ("c", 9)] {
        for task in ["x", "y"] {
            for i in 0..60 {
                writeln!(rows, "{system},{task},{i},{}", u8::from(i % every != 0)).unwrap();
            }
        }
    }
    let rows = file(dir.path(), "answers.csv", &rows);
    let found = same(dir.path(), "mean", &[&rows]);
    assert_eq!(found[0]["name"], "c");
    assert!(found[0]["places"].is_array() && found[0]["second"].is_null());
    let bare = "system,a,b\nx,0.5,0.6\ny,0.4,0.5\n";
    let bare = file(dir.path(), "bare.csv", bare);
    assert!(same(dir.path(), "mean", &[&bare])[0]["places"].is_null());
    let out = polyloom(&["board", &bare]);
    let shown = text(&out.stdout);
    assert!(
        shown.contains("2 tasks are too few to draw them again"),
        "{shown}"
    );
}

#[test]
fn the_first_way_is_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let scores = table(dir.path());
    let defaults = [&scores[..]];
    assert_eq!(of_board(&defaults), of_report(dir.path(), &defaults));
    for (args, part) in [
        (
            &["board", &scores, "-a", "mean"][..],
            "is better when lower",
        ),
        (
            &["report", &scores, "--rank-by", "mean", "-o", "r.json"],
            "is better when lower",
        ),
        (
            &["report", &scores, "--rank-by", "irt", "-o", "r.json"],
            "board --aggregate irt",
        ),
    ] {
        let out = polyloom(args);
        assert_eq!(out.status.code(), Some(2), "{args:?}");
        assert!(text(&out.stderr).contains(part), "{}", text(&out.stderr));
    }
}
