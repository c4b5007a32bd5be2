//! `[train.balance]` as a user meets it: two tasks of small pictures on one perceptron.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::language::json;
use super::{polyloom, text};

pub fn data(task: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("quickstart/data");
    folder
        .join(task)
        .canonicalize()
        .unwrap()
        .display()
        .to_string()
}

/// A recipe of two tasks, with more lines of `[train]` and the lines of `[train.balance]`.
fn recipe(folder: &Path, more: &str, balance: &str) -> String {
    two_tasks(folder, more, &format!("[train.balance]\n{balance}"))
}

/// The same with other tables.
pub fn two_tasks(folder: &Path, more: &str, tables: &str) -> String {
    let text = format!(
        "version = 1\nseed = 3\n[train]\ntasks = [{:?}, {:?}]\nlimit = 60\nvalidation_limit = 20\nbatch = 12\nrate = 1e-2\n{more}\n\
         [train.new]\nmodel_type = \"polyloom-mlp\"\nimage_size = 28\nnum_channels = 1\nhidden_sizes = [24, 16]\nhidden_act = \"relu\"\n\
         {tables}\n",
        data("digits/task.toml"),
        data("fashion_mnist_900/task.toml"),
    );
    let file = folder.join("loom.toml");
    std::fs::write(&file, text).unwrap();
    file.display().to_string()
}

pub fn read(folder: &Path, name: &str) -> Vec<u8> {
    let file = folder.join(name);
    std::fs::read(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display()))
}

pub fn lines(folder: &Path, kind: &str) -> Vec<Value> {
    let log = String::from_utf8(read(folder, "train.jsonl")).unwrap();
    let all = log
        .lines()
        .map(|l| serde_json::from_str::<Value>(l).unwrap());
    all.filter(|l| l["type"] == kind).collect()
}

pub fn trained(recipe: &str, out: &Path, more: &[&str]) -> String {
    let out = out.display().to_string();
    let mut args = vec!["train", recipe, "-o", &out];
    args.extend(more);
    let done = polyloom(&args);
    assert!(done.status.success(), "{}", text(&done.stderr));
    text(&done.stderr)
}

#[test]
fn conflicts_are_in_log_and_report() {
    let dir = tempfile::tempdir().unwrap();
    let recipe = recipe(
        dir.path(),
        "steps = 24",
        "method = \"cagrad\"\nc = 0.5\nreport_every = 10",
    );
    let out = dir.path().join("out");
    let plan = polyloom(&[
        "train",
        &recipe,
        "-o",
        &out.display().to_string(),
        "--dry-run",
    ]);
    let plan = text(&plan.stdout);
    assert!(plan.contains("balanced by cagrad: "), "{plan}");
    let said = trained(&recipe, &out, &[]);
    assert!(said.contains("cagrad over 24 steps"), "{said}");
    let found = lines(&out, "balance");
    let at: Vec<u64> = found.iter().map(|l| l["step"].as_u64().unwrap()).collect();
    assert_eq!(at, [1, 10, 20, 24]);
    for line in &found {
        let cosine = line["cosines"]["digits | fashion_mnist_900"]
            .as_f64()
            .unwrap();
        assert!((-1.0..=1.0).contains(&cosine));
        for key in ["weights", "lengths", "progress", "alignment"] {
            assert!(
                line[key]["digits"].is_number() && line[key]["fashion_mnist_900"].is_number(),
                "{line}"
            );
        }
        assert!(line["condition"].as_f64().unwrap() >= 1.0 && line["hurt"].is_array());
    }
    let provenance: Value = serde_json::from_slice(&read(&out, "polyloom.json")).unwrap();
    let balance = &provenance["balance"];
    assert_eq!(
        (&balance["method"], &balance["steps"]),
        (&"cagrad".into(), &24.into())
    );
    assert!(
        balance["goals"]["fashion_mnist_900"]["mean_weight"]
            .as_f64()
            .unwrap()
            > 0.0
    );
    assert_eq!(provenance["recipe"]["train"]["balance"]["c"], 0.5);
    // Every step has rows of both tasks, and both are learned.
    for line in lines(&out, "step") {
        assert!(
            line["losses"]["digits"].is_number() && line["losses"]["fashion_mnist_900"].is_number()
        );
    }
    let score = |task: &str| {
        provenance["scores"]["tasks"][task]["value"]
            .as_f64()
            .unwrap()
    };
    assert!(
        score("digits") > 0.15 && score("fashion_mnist_900") > 0.15,
        "{provenance}"
    );
}

#[test]
fn every_method_trains_and_lowers_the_loss() {
    let dir = tempfile::tempdir().unwrap();
    for method in polyloom_learn::balance::methods() {
        let name = method.name;
        let more = match name {
            "coba" => "\nwarmup = 5\nhistory = 10",
            "stch" => "\nwarmup = 1",
            _ => "",
        };
        let balance = format!("method = \"{name}\"\nreport_every = 0{more}");
        let recipe = recipe(dir.path(), "steps = 40\naccumulate = 2", &balance);
        let out = dir.path().join(name);
        trained(&recipe, &out, &[]);
        let losses: Vec<f64> = lines(&out, "step")
            .iter()
            .map(|l| l["loss"].as_f64().unwrap())
            .collect();
        let mean = |part: &[f64]| part.iter().sum::<f64>() / part.len() as f64;
        assert!(
            mean(&losses[30..]) < 0.9 * mean(&losses[..5]),
            "{name}: {losses:?}"
        );
        assert!(lines(&out, "balance").is_empty());
    }
}

#[test]
fn one_way_back_does_where_losses_say_the_weights() {
    let dir = tempfile::tempdir().unwrap();
    let mut seen = 0;
    for method in polyloom_learn::balance::methods() {
        if method.looks != polyloom_learn::balance::Looks::Losses {
            continue;
        }
        seen += 1;
        let name = method.name;
        let more = match name {
            "coba" => "\nwarmup = 3\nhistory = 5",
            "stch" => "\nwarmup = 1",
            _ => "",
        };
        // Every goal on its own at every step, at every fifth, never.
        let run = |every: u32| -> (Vec<f64>, Value) {
            let balance = format!("method = \"{name}\"\nreport_every = {every}{more}");
            let recipe = recipe(dir.path(), "steps = 12", &balance);
            let out = dir.path().join(format!("{name}-{every}"));
            trained(&recipe, &out, &[]);
            let losses = lines(&out, "step");
            let losses = losses.iter().map(|l| l["loss"].as_f64().unwrap()).collect();
            (losses, json(&out.display().to_string(), "polyloom.json"))
        };
        let (apart, _) = run(1);
        for every in [5, 0] {
            let (found, told) = run(every);
            for (a, b) in apart.iter().zip(&found) {
                assert!(
                    (a - b).abs() < 1e-4 * a.abs(),
                    "{name}: {apart:?} {found:?}"
                );
            }
            let balance = &told["balance"];
            assert_eq!(balance["steps"], 12);
            // The first, the fifth, the tenth and the last.
            assert_eq!(balance["looked"], if every == 5 { 4 } else { 0 });
        }
    }
    assert!(seen >= 8, "{seen}");
}

/// A recipe run twice, once as a whole and once killed after its first checkpoint and gone on with: the weights are the same.
pub fn killed(dir: &Path, recipe: &str, what: &str) -> (PathBuf, PathBuf) {
    let (whole, cut) = (dir.join("whole"), dir.join("cut"));
    let mut child = Command::new(env!("CARGO_BIN_EXE_polyloom"))
        .args(["train", recipe, "-o"])
        .arg(&cut)
        .args(["-q", "-j", "1"])
        .spawn()
        .unwrap();
    let checkpoint: PathBuf = dir.join("cut.training/checkpoint.safetensors");
    let began = Instant::now();
    while !checkpoint.exists() {
        assert!(began.elapsed() < Duration::from_secs(120), "no checkpoint");
        assert!(
            child.try_wait().unwrap().is_none(),
            "{what}: it ended before it was killed"
        );
        std::thread::sleep(Duration::from_millis(2));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let said = trained(recipe, &cut, &["--resume", "-j", "1"]);
    assert!(said.contains("from step "), "{said}");
    trained(recipe, &whole, &["-j", "1"]);
    for name in [
        "model.safetensors",
        "heads/digits.safetensors",
        "heads/fashion_mnist_900.safetensors",
    ] {
        assert!(
            read(&cut, name) == read(&whole, name),
            "{what}: {name} differs"
        );
    }
    (whole, cut)
}

#[test]
fn a_balanced_run_that_was_killed_goes_on_to_the_same_bytes() {
    for method in ["moco", "famo", "gradnorm"] {
        let dir = tempfile::tempdir().unwrap();
        let more = "steps = 300\nevaluate_every = 10\nsave_every = 10";
        let recipe = recipe(dir.path(), more, &format!("method = \"{method}\""));
        let (whole, cut) = killed(dir.path(), &recipe, method);
        let counts = |folder: &Path| -> Value {
            let all: Value = serde_json::from_slice(&read(folder, "polyloom.json")).unwrap();
            all["balance"].clone()
        };
        assert_eq!(counts(&cut), counts(&whole), "{method}");
    }
}

#[test]
fn what_cannot_be_balanced_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out").display().to_string();
    let refused = |recipe: &str, more: &[&str], expected: &str| {
        let mut args = vec!["train", recipe, "-o", &out];
        args.extend(more);
        let done = polyloom(&args);
        let said = text(&done.stderr);
        assert_eq!(done.status.code(), Some(2), "{said}");
        assert!(said.contains(expected), "{said}");
    };
    let good = recipe(dir.path(), "steps = 2", "method = \"mgda\"");
    refused(&good, &["--balancer", "nahs"], "did you mean `nash`?");
    refused(
        &good,
        &["--set", "train.balance.normalise=l3"],
        "expected one of: none, l2, loss, loss+",
    );
    refused(
        &good,
        &["-t", &data("digits/task.toml")],
        "there is one, `digits`",
    );
    refused(
        &good,
        &["--batch", "1"],
        "a row of each of 2 tasks; `train.batch` is 1",
    );
    refused(
        &good,
        &["--set", "train.validation=", "--balancer", "coba"],
        "looks at validation rows",
    );
}
