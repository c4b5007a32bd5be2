//! Trials of trainings over tables: `polyloom tune TABLE --model NAME --over KEY=VALUES`.

use std::path::Path;
use std::process::Output;

use serde_json::Value;

use super::tables::people;
use super::{done, failed, polyloom, shown, text};

fn events(out: &Output, kind: &str) -> Vec<Value> {
    let lines = text(&out.stdout);
    let all = lines
        .lines()
        .map(|l| serde_json::from_str::<Value>(l).unwrap());
    all.filter(|e| e["type"] == kind).collect()
}

fn json(file: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap()
}

#[test]
fn trees_of_a_table() {
    let dir = tempfile::tempdir().unwrap();
    let table = shown(&people(dir.path()));
    let out = dir.path().join("best");
    let folder = shown(&out);
    let mut args = vec!["tune", &table, "--targets", "rich", "--model", "gbdt"];
    args.extend([
        "--over",
        "train.new.rounds=2,20",
        "--over",
        "train.new.lr=log:0.05..0.3/2",
    ]);
    args.extend(["--set", "train.new.patience=0", "-o", &folder, "--json"]);
    let mut plan = args.clone();
    plan.push("--dry-run");
    let told = polyloom(&plan);
    assert!(told.status.success(), "{}", text(&told.stderr));
    assert!(!dir.path().join("people.task.toml").exists() && !out.exists());
    let run = polyloom(&args);
    assert!(run.status.success(), "{}", text(&run.stderr));
    let trials = events(&run, "trial");
    // The defaults, and a grid of two by two; scored on validation rows.
    assert_eq!(trials.len(), 5);
    let done_events = events(&run, "done");
    let last = done_events.last().unwrap();
    let best = &last["values"];
    let file = dir.path().join("best.trials/000.json");
    assert_eq!(json(&file)["tasks"]["people/rich"]["split"], "validation");
    // OUT is the best point, as `train` makes it; `eval` and `predict` take it.
    let said = json(&out.join("config.json"));
    if let Some(rounds) = best["train.new.rounds"].as_str() {
        assert_eq!(said["rounds"].to_string(), rounds, "{best} {said}");
    }
    let spec = shown(&dir.path().join("people.task.toml"));
    done(&["eval", &folder, "-t", &spec]);
    done(&[
        "predict",
        &folder,
        &table,
        "-o",
        &shown(&dir.path().join("y.csv")),
    ]);
    let set: Vec<String> = best
        .as_object()
        .unwrap()
        .iter()
        .map(|(k, v)| format!("{k}={}", v.as_str().unwrap()))
        .collect();
    let other = shown(&dir.path().join("other"));
    let mut train = vec!["train", &table, "--model", "gbdt", "-o", &other];
    train.extend(["--set", "train.new.patience=0"]);
    set.iter().for_each(|s| train.extend(["--set", s]));
    done(&train);
    let weights =
        |folder: &str| std::fs::read(Path::new(folder).join("model.safetensors")).unwrap();
    assert!(weights(&folder) == weights(&other));
    // What was tried is found again.
    let mut again = args.clone();
    again.extend(["--resume", "--force"]);
    let again = polyloom(&again);
    assert!(events(&again, "trial").iter().all(|t| t["reused"] == true));
}

#[test]
fn networks_and_a_recipe() {
    let dir = tempfile::tempdir().unwrap();
    let table = shown(&people(dir.path()));
    let spec = shown(&dir.path().join("people.task.toml"));
    let out = shown(&dir.path().join("a"));
    // Lists as values, architectures with their own defaults, trees among them; a point that cannot be is told.
    let args = [
        "tune",
        &table,
        "--targets",
        "rich,hours",
        "--over",
        "train.new.architecture=mmoe,gbdt",
        "--over",
        "train.new.tower=[8],[16, 8]",
        "--objective",
        "borda",
        "-o",
        &out,
        "--json",
    ];
    let run = polyloom(&args);
    assert!(run.status.success(), "{}", text(&run.stderr));
    let trials = events(&run, "trial");
    let refused: Vec<&Value> = trials.iter().filter(|t| !t["refused"].is_null()).collect();
    assert_eq!((trials.len(), refused.len()), (5, 2), "{trials:?}");
    assert!(
        refused
            .iter()
            .all(|t| t["values"]["train.new.architecture"] == "gbdt")
    );
    // The same words over a recipe with [train].
    let recipe = dir.path().join("loom.toml");
    let text_of = format!(
        "version = 1\n[train]\ntasks = [{spec:?}]\nsteps = 20\nbatch = 32\n[train.new]\nmodel_type = \"polyloom-table\"\narchitecture = \"mmoe\"\nhidden = [16]\ntower = [8]\n"
    );
    std::fs::write(&recipe, text_of).unwrap();
    let out = shown(&dir.path().join("b"));
    let args = [
        "tune",
        &shown(&recipe),
        "--over",
        "train.rate=log:1e-3..1e-2",
        "--over",
        "train.new.dropout=0..0.3",
        "--search",
        "cma-es",
        "--trials",
        "6",
        "--population",
        "4",
        "--patience",
        "0",
        "--objective",
        "borda",
        "-o",
        &out,
        "--json",
    ];
    let run = polyloom(&args);
    assert!(run.status.success(), "{}", text(&run.stderr));
    assert!(events(&run, "trial").len() >= 5);
    assert!(Path::new(&out).join("table.json").exists());
}

#[test]
fn folds_score_the_points() {
    let dir = tempfile::tempdir().unwrap();
    let table = shown(&people(dir.path()));
    let out = shown(&dir.path().join("best"));
    let args = [
        "tune",
        &table,
        "--targets",
        "hours",
        "--model",
        "gbdt",
        "--over",
        "train.new.rounds=2,15",
        "--set",
        "train.new.patience=0",
        "--set",
        "train.new.rounds=1",
        "--folds",
        "3",
        "-o",
        &out,
        "--json",
    ];
    let run = polyloom(&args);
    assert!(run.status.success(), "{}", text(&run.stderr));
    let done_events = events(&run, "done");
    let last = done_events.last().unwrap();
    let trials = dir.path().join("best.trials");
    // Test rows have no part in it, and the score is the mean over folds.
    let folds = json(&trials.join("001.folds/folds.json"));
    assert_eq!(
        folds["tasks"]["people"]["splits"],
        serde_json::json!(["train", "validation"])
    );
    let mean = |trial: u64| {
        let file = trials.join(format!("{trial:03}.folds/folds.json"));
        json(&file)["scores"][0]["mean"].as_f64().unwrap()
    };
    let best = last["best"].as_u64().unwrap();
    assert!((mean(best) - last["score"].as_f64().unwrap()).abs() < 1e-12);
    assert!((0..3).all(|t| mean(best) <= mean(t)));
    assert_eq!(last["gain"]["paired"], true);
    let gain = last["gain"]["value"].as_f64().unwrap();
    assert!((gain - (mean(best) - mean(0))).abs() < 1e-12);
    assert!(Path::new(&out).join("table.json").exists());
    done(&[
        "compare",
        &shown(&trials.join("001.folds")),
        &shown(&trials.join("002.folds")),
    ]);
}

#[test]
fn what_cannot_be_tried_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let table = shown(&people(dir.path()));
    let out = shown(&dir.path().join("x"));
    let over = ["--over", "train.new.rounds=2,4"];
    let trees = ["--targets", "rich", "--model", "gbdt"];
    let said = |inputs: &[&str], more: &[&str]| {
        let mut args = vec!["tune"];
        args.extend(inputs);
        args.extend(more);
        args.extend(["-o", &out]);
        failed(&args)
    };
    let told = said(&[&table], &trees);
    assert!(told.contains("nothing varies"), "{told}");
    let told = said(&[&table], &over);
    assert!(told.contains("what is to be learned of"), "{told}");
    let told = said(&[], &[&over[..], &["--model", "gbdt"]].concat());
    assert!(told.contains("no table is named"), "{told}");
    let told = said(&["a.toml"], &[&over[..], &["--model", "gbdt"]].concat());
    assert!(told.contains("a.toml is neither"), "{told}");
    let told = said(&[&table], &[&over[..], &trees, &["--rate", "0.1"]].concat());
    assert!(told.contains("--rate is about merged models"), "{told}");
    let told = said(
        &[&table],
        &[&over[..], &trees, &["--over", "train.folds=2,3"]].concat(),
    );
    assert!(told.contains("`train.folds` cannot vary"), "{told}");
    let told = said(
        &[&table],
        &[&over[..], &trees, &["--folds", "3", "--search", "halving"]].concat(),
    );
    assert!(told.contains("folds are all rows"), "{told}");
    let told = said(
        &[&table],
        &[
            &over[..],
            &trees,
            &["--folds", "3", "--set", "train.fold_splits=[\"test\"]"],
        ]
        .concat(),
    );
    assert!(told.contains("has the test rows"), "{told}");
    assert!(!Path::new(&out).exists());
}
