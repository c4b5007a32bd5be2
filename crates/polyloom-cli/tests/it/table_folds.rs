//! Scores of small tables by cross-validation: `polyloom train TABLE --folds`.

use std::path::Path;

use super::tables::people;
use super::{column, done, failed, polyloom, shown, text};

/// Two targets of a small table by quick trees.
fn train(table: &str, out: &Path, more: &[&str]) -> std::process::Output {
    let out = shown(out);
    let mut args = vec!["train", table, "--targets", "rich,hours", "--model", "gbdt"];
    args.extend(["--set", "train.new.rounds=15", "--folds", "3", "-o", &out]);
    args.extend(more);
    polyloom(&args)
}

#[test]
fn folds_of_a_table() {
    let dir = tempfile::tempdir().unwrap();
    let table = shown(&people(dir.path()));
    let at = |name: &str| dir.path().join(name);
    let plan = train(&table, &at("a"), &["--repeats", "2", "--dry-run"]);
    let (said, answer) = (text(&plan.stderr), text(&plan.stdout));
    assert!(plan.status.success(), "{said}");
    assert!(
        answer.contains(
            "3 folds x 2 of 600 rows of people (train, validation, test), by classes: 6 models more"
        ),
        "{answer}"
    );
    assert!(!at("a.folds").exists());
    let run = train(&table, &at("a"), &["--repeats", "2", "-j", "1"]);
    let (said, answer) = (text(&run.stderr), text(&run.stdout));
    assert!(run.status.success(), "{said}");
    for part in [
        "people/rich",
        "roc_auc",
        "people/hours",
        "rmse",
        "95 % interval",
    ] {
        assert!(answer.contains(part), "{part}: {answer}");
    }
    // The model is that of a training without folds, but for the recipe that it names.
    let mut plain = vec!["train", &table, "--model", "gbdt", "-o"];
    let out = shown(&at("plain"));
    plain.extend([&*out, "--set", "train.new.rounds=15"]);
    done(&plain);
    let weights = |name: &str| std::fs::read(at(name).join("model.safetensors")).unwrap();
    assert!(weights("a") == weights("plain"));
    // Ids are those of the column; every row stands there once for each repeat.
    let mut ids = column(&at("a.folds/predictions.csv"), "repeat");
    assert_eq!(ids.len(), 1200);
    assert_eq!(ids.iter().filter(|(_, repeat)| *repeat == 2.0).count(), 600);
    ids.sort_by(|a, b| a.0.cmp(&b.0));
    ids.dedup_by(|a, b| a.0 == b.0);
    assert_eq!(ids.len(), 600);
    // The same bytes on other threads, and the results are those that `compare` reads.
    let run = train(&table, &at("b"), &["--repeats", "2", "-j", "3"]);
    assert!(run.status.success());
    for file in ["folds.json", "predictions.csv"] {
        let read = |name: &str| std::fs::read(at(name).join(file)).unwrap();
        assert!(read("a.folds") == read("b.folds"), "{file}");
    }
    let [a, b] = ["a.folds/results.json", "b.folds/results.json"].map(|f| shown(&at(f)));
    let same = polyloom(&["compare", &a, &b]);
    assert!(same.status.success(), "{}", text(&same.stderr));
    assert!(text(&same.stdout).contains("people/rich"));
    // What is there is not written over; a run that is done is done.
    let said = text(&train(&table, &at("a"), &["--repeats", "2"]).stderr);
    assert!(said.contains("a.folds: exists already"), "{said}");
    let again = train(&table, &at("a"), &["--repeats", "2", "--resume"]);
    assert_eq!(text(&again.stdout), answer);
    let said = text(&train(&table, &at("a"), &["--repeats", "3", "--resume"]).stderr);
    assert!(said.contains("of another recipe"), "{said}");
}

#[test]
fn twins_are_compared_fold_by_fold() {
    let dir = tempfile::tempdir().unwrap();
    let table = shown(&people(dir.path()));
    let out = shown(&dir.path().join("m"));
    let run = polyloom(&[
        "train",
        &table,
        "--targets",
        "rich,hours",
        "--model",
        "mmoe",
        "--steps",
        "20",
        "--folds",
        "2",
        "--twins",
        "-o",
        &out,
    ]);
    let (said, answer) = (text(&run.stderr), text(&run.stdout));
    assert!(run.status.success(), "{said}");
    for part in ["mmoe less single_task", "mmoe less gbdt"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert!(
        answer.contains("corrected resampled t over folds"),
        "{answer}"
    );
    let place = dir.path().join("m.twins");
    for name in [
        "report.html",
        "gbdt.folds/folds.json",
        "single_task.folds/results.json",
    ] {
        assert!(place.join(name).exists(), "{name}");
    }
    // The same by hand, as events, and as a gate.
    let folds = [shown(&place.join("gbdt.folds")), format!("{out}.folds")];
    let pair = ["--json", "compare", &folds[0], &folds[1]];
    let told = text(&polyloom(&pair).stdout);
    assert!(
        told.contains("\"test\":\"corrected-resampled-t\""),
        "{told}"
    );
    let gate = |old: &str, new: &str| {
        let run = polyloom(&["compare", old, new, "--alpha", "0.9", "--fail-if-worse"]);
        run.status.code()
    };
    let codes = [gate(&folds[0], &folds[1]), gate(&folds[1], &folds[0])];
    assert!(codes.contains(&Some(1)), "{codes:?}");
    let said = failed(&["compare", &folds[0], &folds[1], "--slice", "job"]);
    assert!(said.contains("--slice is for files"), "{said}");
    let other = shown(&dir.path().join("other"));
    done(&[
        "train",
        &table,
        "--model",
        "gbdt",
        "--set",
        "train.new.rounds=5",
        "--folds",
        "2",
        "--seed",
        "1",
        "-o",
        &other,
    ]);
    let said = failed(&["compare", &folds[0], &format!("{other}.folds")]);
    assert!(said.contains("in other folds"), "{said}");
}

#[test]
fn what_has_no_folds_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let table = shown(&people(dir.path()));
    let out = shown(&dir.path().join("x"));
    let mut args = vec![
        "train",
        &table,
        "--targets",
        "rich",
        "--model",
        "gbdt",
        "-o",
        &out,
    ];
    for (more, what) in [
        (&["--folds", "1"][..], "`train.folds` is 1"),
        (&["--repeats", "2"], "`train.folds` is not set"),
        (&["--folds", "900"], "600 rows cannot be put into 900 folds"),
    ] {
        args.extend(more);
        let said = failed(&args);
        assert!(said.contains(what), "{said}");
        args.truncate(8);
    }
    assert!(!dir.path().join("x").exists() && !dir.path().join("x.folds").exists());
    std::fs::remove_file(dir.path().join("people.task.toml")).unwrap();
    args.extend(["--time", "born", "--folds", "3", "--repeats", "2"]);
    let said = failed(&args);
    assert!(said.contains("splits by time"), "{said}");
    let spoiled = dir.path().join("odd.folds");
    std::fs::create_dir(&spoiled).unwrap();
    std::fs::write(
        spoiled.join("folds.json"),
        "{\"schema\": \"polyloom.folds/1\"}",
    )
    .unwrap();
    let spoiled = shown(&spoiled);
    let said = failed(&["compare", &spoiled, &spoiled]);
    assert!(said.contains("holds no scores of folds"), "{said}");
}
