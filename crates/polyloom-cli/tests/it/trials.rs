//! `polyloom tune --over`: points of a merge recipe, scored on the rows of two tasks.

use std::path::Path;
use std::process::Output;

use serde_json::Value;

use super::tune::{data, family};
use super::{polyloom, text};

/// A merge of the two experts of [`family`].
fn merge(dir: &Path, base: bool) -> String {
    family(dir);
    let file = dir.join("merge.toml");
    let (digits, clothes) = (data("digits"), data("fashion_mnist_900"));
    let base = match base {
        true => "[merge]\nmethod = \"task_arithmetic\"\n[merge.shared]\nlambda = 0.1\n",
        false => "[merge]\nmethod = \"task_arithmetic\"\n",
    };
    let recipe = format!(
        "version = 1\n[base]\npath = \"base\"\n[[expert]]\npath = \"x\"\ntask = {digits:?}\n[[expert]]\npath = \"y\"\ntask = {clothes:?}\n{base}[tune]\nlimit = 60\n"
    );
    std::fs::write(&file, recipe).unwrap();
    file.display().to_string()
}

fn events(out: &Output, kind: &str) -> Vec<Value> {
    let lines = text(&out.stdout);
    let all = lines
        .lines()
        .map(|l| serde_json::from_str::<Value>(l).unwrap());
    all.filter(|e| e["type"] == kind).collect()
}

#[test]
fn a_grid_finds_the_best_point_and_goes_on_where_it_stopped() {
    let dir = tempfile::tempdir().unwrap();
    let recipe = merge(dir.path(), true);
    let out = dir.path().join("best").display().to_string();
    let over = "merge.shared.lambda=0.3,0.5,-inf";
    let args = ["tune", &recipe, "--over", over, "-o", &out, "--json"];
    let done = polyloom(&args);
    assert!(done.status.success(), "{}", text(&done.stderr));
    let trials = events(&done, "trial");
    assert_eq!(trials.len(), 4, "the recipe as it stands, and three points");
    assert_eq!(trials[0]["values"], serde_json::json!({}));
    let refused = trials.iter().filter(|t| !t["refused"].is_null()).count();
    assert_eq!(refused, 1, "a factor that is not finite: {trials:?}");
    let last = &events(&done, "done")[0];
    let best = last["best"].as_u64().unwrap() as usize;
    // Scores of the board over the same files agree with what was chosen.
    let files: Vec<String> = trials
        .iter()
        .filter_map(|t| Some(format!("{out}.trials/{}", t["file"].as_str()?)))
        .collect();
    let mut board = vec!["board", "--json"];
    board.extend(files.iter().map(String::as_str));
    let board = polyloom(&board);
    assert!(board.status.success(), "{}", text(&board.stderr));
    let mean = |t: &Value| -> f64 {
        let file = format!("{out}.trials/{}", t["file"].as_str().unwrap());
        let told: Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
        let tasks = told["tasks"].as_object().unwrap().values();
        tasks.map(|t| t["value"].as_f64().unwrap()).sum::<f64>() / 2.0
    };
    let top = mean(&trials[best]);
    assert!((top - last["score"].as_f64().unwrap()).abs() < 1e-12);
    for trial in trials.iter().filter(|t| !t["file"].is_null()) {
        assert!(mean(trial) <= top);
    }
    // The folder is the merge with those values.
    let told: Value =
        serde_json::from_slice(&std::fs::read(format!("{out}/polyloom.json")).unwrap()).unwrap();
    assert_eq!(told["recipe"]["method"], "task_arithmetic", "{told}");
    let weights = std::fs::read(format!("{out}/model.safetensors")).unwrap();
    // Again: refused, then with everything found.
    let again = polyloom(&args);
    assert_eq!(again.status.code(), Some(2), "{}", text(&again.stderr));
    let more = [&args[..], &["--resume", "--force"]].concat();
    let again = polyloom(&more);
    assert!(again.status.success(), "{}", text(&again.stderr));
    assert!(events(&again, "trial").iter().all(|t| t["reused"] == true));
    assert!(weights == std::fs::read(format!("{out}/model.safetensors")).unwrap());
    // Other rows are another study.
    let other = [&more[..], &["-L", "20"]].concat();
    let other = polyloom(&other);
    assert_eq!(other.status.code(), Some(2));
    assert!(
        text(&other.stdout).contains("other tasks or of other rows"),
        "{}",
        text(&other.stdout)
    );
}

#[test]
fn each_expert_has_its_own_number_and_a_search_that_follows_scores_ends() {
    let dir = tempfile::tempdir().unwrap();
    let recipe = merge(dir.path(), false);
    let run = |name: &str, more: &[&str]| {
        let out = dir.path().join(name).display().to_string();
        let mut args = vec!["tune", &recipe, "--json", "-o", &out];
        args.extend(more);
        let done = polyloom(&args);
        assert!(
            done.status.success(),
            "{} {}",
            text(&done.stdout),
            text(&done.stderr)
        );
        done
    };
    let weight = "merge.each.weight@experts=0.05..1";
    let done = run(
        "cma",
        &[
            "--over",
            weight,
            "--search",
            "cma-es",
            "--trials",
            "13",
            "--patience",
            "0",
        ],
    );
    let trials = events(&done, "trial");
    // Two generations of 6, and the recipe as it stands.
    assert_eq!(trials.len(), 13);
    for trial in &trials[1..] {
        let values = trial["values"]["merge.each.weight"].as_str().unwrap();
        let numbers: Vec<f64> = values.split(',').map(|v| v.parse().unwrap()).collect();
        assert_eq!(numbers.len(), 2);
        assert!(numbers.iter().all(|v| (0.05..=1.0).contains(v)), "{values}");
    }
    assert_eq!(events(&done, "done")[0]["ended"], "tried");
    // A gradient over the layers, by halving: nine points on a third of the rows, three on all.
    let layers = "merge.each.weight@experts@layers:2=0.1..1";
    let done = run(
        "halving",
        &[
            "--over",
            layers,
            "--search",
            "halving",
            "--trials",
            "9",
            "--objective",
            "mean_rank",
        ],
    );
    let shares: Vec<f64> = events(&done, "trial")
        .iter()
        .map(|t| t["share"].as_f64().unwrap())
        .collect();
    assert_eq!(shares.iter().filter(|s| **s < 0.5).count(), 9);
    assert_eq!(shares.iter().filter(|s| **s == 1.0).count(), 4);
    // On sixty rows nothing is told apart for long.
    let done = run(
        "random",
        &[
            "--over",
            weight,
            "--search",
            "random",
            "--trials",
            "60",
            "--population",
            "4",
        ],
    );
    let end = &events(&done, "done")[0];
    assert_eq!(end["ended"], "not-resolved", "{end}");
    assert!(events(&done, "trial").len() < 60);
}

#[test]
fn learned_coefficients_and_training_are_searched_too() {
    let dir = tempfile::tempdir().unwrap();
    let recipe = family(dir.path());
    let out = dir.path().join("rates").display().to_string();
    let done = polyloom(&[
        "tune",
        &recipe,
        "--steps",
        "5",
        "--set",
        "tune.steps=5",
        "--over",
        "tune.rate=log:1e-3..1e-1/2",
        "-o",
        &out,
        "--json",
    ]);
    assert!(
        done.status.success(),
        "{} {}",
        text(&done.stdout),
        text(&done.stderr)
    );
    assert_eq!(events(&done, "trial").len(), 3);
    assert!(Path::new(&out).join("coefficients.json").exists());
    let begin = dir.path().join("begin.toml").display().to_string();
    let out = dir.path().join("trained").display().to_string();
    let done = polyloom(&[
        "tune",
        &begin,
        "--set",
        "train.steps=4",
        "--over",
        "train.rate=1e-3,1e-2",
        "-L",
        "20",
        "-o",
        &out,
        "--json",
    ]);
    assert!(
        done.status.success(),
        "{} {}",
        text(&done.stdout),
        text(&done.stderr)
    );
    assert_eq!(events(&done, "trial").len(), 3);
    assert!(Path::new(&out).join("train.jsonl").exists());
}

#[test]
fn what_cannot_be_searched_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let recipe = dir.path().join("merge.toml");
    let place = recipe.display().to_string();
    let whole = "version = 1\n[base]\npath = \"b\"\n[[expert]]\npath = \"x\"\n[merge]\nmethod = \"task_arithmetic\"\n";
    std::fs::write(&recipe, whole).unwrap();
    let lambda = "merge.shared.lambda=0..1";
    let digits = data("digits");
    let t = ["-t", &digits];
    for (args, why) in [
        (vec!["--over", lambda], "no task says which point is better"),
        (vec!["--trials", "9"], "nothing varies"),
        (vec!["--over", "merge.shared.lambda"], "expected KEY="),
        (vec!["--over", "tune.tasks=a,b", t[0], t[1]], "cannot vary"),
        (
            vec![
                "--over",
                "merge.shared.lambda=1,2",
                "--search",
                "cma-es",
                t[0],
                t[1],
            ],
            "follows directions",
        ),
        (
            vec![
                "--over",
                "merge.shared.lambda=0..1/50",
                "--search",
                "grid",
                "--trials",
                "9",
                t[0],
                t[1],
            ],
            "50 points",
        ),
        (
            vec!["--over", lambda, "--objective", "best", t[0], t[1]],
            "there are mean",
        ),
    ] {
        let out = dir.path().join("out").display().to_string();
        let mut all = vec!["tune", &place, "-o", &out];
        all.extend(args);
        let done = polyloom(&all);
        assert_eq!(
            done.status.code(),
            Some(2),
            "{all:?}: {}",
            text(&done.stderr)
        );
        assert!(
            text(&done.stderr).contains(why),
            "{why}: {}",
            text(&done.stderr)
        );
    }
}
