//! `polyloom tune` as a user meets it: two experts of a small perceptron on digits and clothes.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::{polyloom, text};

pub(super) fn data(task: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("quickstart/data");
    let file = folder.join(task).join("task.toml").canonicalize().unwrap();
    file.display().to_string()
}

/// A base, two experts with heads that were fitted to the base, and a recipe over them.
pub(super) fn family(dir: &Path) -> String {
    let at = |name: &str| dir.join(name).display().to_string();
    let run = |args: &[&str]| {
        let out = polyloom(args);
        assert!(out.status.success(), "{args:?}: {}", text(&out.stderr));
    };
    let begin = dir.join("begin.toml");
    let new = "[train.new]\nmodel_type = \"polyloom-mlp\"\nimage_size = 28\nnum_channels = 1\nhidden_sizes = [32, 16]\nhidden_act = \"relu\"\n";
    let (digits, clothes) = (data("digits"), data("fashion_mnist_900"));
    let head = format!(
        "seed = 3\n[train]\ntasks = [{digits:?}, {clothes:?}]\nlimit = 60\nsteps = 30\nrate = 1e-2\nbatch = 16\n{new}"
    );
    std::fs::write(&begin, head).unwrap();
    run(&["train", &begin.display().to_string(), "-o", &at("base")]);
    for (name, task) in [("x", &digits), ("y", &clothes)] {
        run(&[
            "train",
            "--base",
            &at("base"),
            "-t",
            task,
            "-L",
            "60",
            "--steps",
            "40",
            "--rate",
            "5e-3",
            "--batch",
            "16",
            "--set",
            "train.head.start=probe",
            "--set",
            "train.head.frozen=true",
            "-o",
            &at(name),
        ]);
    }
    let file = dir.join("loom.toml");
    let recipe = format!(
        "version = 1\nseed = 1\n[base]\npath = \"base\"\n[[expert]]\npath = \"x\"\ntask = {digits:?}\n[[expert]]\npath = \"y\"\ntask = {clothes:?}\n[tune]\nsteps = 30\nrate = 2e-2\nlimit = 40\n"
    );
    std::fs::write(&file, recipe).unwrap();
    file.display().to_string()
}

fn json(folder: &str, name: &str) -> Value {
    serde_json::from_slice(&std::fs::read(PathBuf::from(folder).join(name)).unwrap()).unwrap()
}

#[test]
fn coefficients_are_learned_and_the_model_is_whole() {
    let dir = tempfile::tempdir().unwrap();
    let recipe = family(dir.path());
    let at = |name: &str| dir.path().join(name).display().to_string();
    let out = at("ada");
    let done = polyloom(&["tune", &recipe, "-o", &out]);
    assert!(done.status.success(), "{}", text(&done.stderr));
    assert_eq!(text(&done.stdout).trim(), out);
    let told = json(&out, "polyloom.json");
    assert_eq!(
        (&told["kind"], &told["test_inputs_seen"]),
        (&"tune".into(), &false.into())
    );
    let losses = &told["losses"];
    assert!(
        losses["last"].as_f64().unwrap() < losses["first"].as_f64().unwrap(),
        "{losses}"
    );
    let learned = json(&out, "coefficients.json");
    let rows = learned["rows"].as_array().unwrap();
    // Two layers of weights and biases.
    assert_eq!(rows.len(), 4);
    let moved = rows.iter().flat_map(|r| r["values"].as_array().unwrap());
    assert!(
        moved
            .clone()
            .any(|v| (v.as_f64().unwrap() - 0.3).abs() > 0.05)
    );
    assert!(
        moved
            .clone()
            .all(|v| (0.0..=1.0).contains(&v.as_f64().unwrap()))
    );
    // Scored by its own heads, and the same bytes again and for another number of threads.
    let scored = polyloom(&[
        "eval",
        &out,
        "-t",
        &format!("{},{}", data("digits"), data("fashion_mnist_900")),
        "-L",
        "40",
        "-o",
        &at("r.json"),
    ]);
    assert!(scored.status.success(), "{}", text(&scored.stderr));
    let again = polyloom(&["tune", &recipe, "-o", &at("again"), "-j", "1"]);
    assert!(again.status.success(), "{}", text(&again.stderr));
    for name in [
        "model.safetensors",
        "coefficients.json",
        "heads/digits.safetensors",
    ] {
        let read = |folder: &str| std::fs::read(Path::new(folder).join(name)).unwrap();
        assert!(read(&out) == read(&at("again")), "{name}");
    }
    // Labels: the supervised loss falls, with groups of a tensor's numbers too.
    let atlas = [
        "tune",
        &recipe,
        "-o",
        &at("atlas"),
        "--method",
        "atlas",
        "--set",
        "tune.groups=3",
        "--steps",
        "40",
    ];
    let done = polyloom(&atlas);
    assert!(done.status.success(), "{}", text(&done.stderr));
    let losses = json(&at("atlas"), "polyloom.json")["losses"].clone();
    assert!(
        losses["last"].as_f64().unwrap() < losses["first"].as_f64().unwrap(),
        "{losses}"
    );
    assert_eq!(
        json(&at("atlas"), "coefficients.json")["rows"]
            .as_array()
            .unwrap()
            .len(),
        12
    );
}

#[test]
fn a_mask_is_learned_for_both_kinds_of_coefficients() {
    let dir = tempfile::tempdir().unwrap();
    let recipe = family(dir.path());
    let at = |name: &str| dir.path().join(name).display().to_string();
    let concrete = |name: &str, more: &[&str]| {
        let out = at(name);
        let mut args = vec![
            "tune",
            &recipe,
            "-o",
            &out,
            "--method",
            "concrete",
            "--set",
            "tune.mask_steps=40",
            "--set",
            "tune.mask_rate=0.1",
        ];
        args.extend(more);
        let done = polyloom(&args);
        assert!(done.status.success(), "{}", text(&done.stderr));
        json(&out, "polyloom.json")["losses"].clone()
    };
    let fall =
        |losses: &Value| losses["last"].as_f64().unwrap() < losses["first"].as_f64().unwrap();
    // The recipe's own steps are those of coefficients.
    let plain = std::fs::read_to_string(&recipe)
        .unwrap()
        .replace("steps = 30\n", "");
    std::fs::write(&recipe, plain).unwrap();
    let on_sum = concrete("sum", &[]);
    assert!(fall(&on_sum), "{on_sum}");
    let learned = json(&at("sum"), "coefficients.json");
    let of_mask = learned["rows"][0]["values"][0].as_f64().unwrap();
    assert!((of_mask - 0.3).abs() < 1e-6, "coefficients stay");
    let on_ada = concrete("ada", &["--set", "tune.on=adamerging", "--steps", "20"]);
    assert!(fall(&on_ada), "{on_ada}");
    let out = polyloom(&[
        "tune",
        &recipe,
        "-o",
        &at("no"),
        "--method",
        "concrete",
        "--steps",
        "9",
    ]);
    assert_eq!(out.status.code(), Some(2));
    assert!(
        text(&out.stderr).contains("mask_steps"),
        "{}",
        text(&out.stderr)
    );
}

#[test]
fn coefficients_that_do_not_move_are_task_arithmetic() {
    let dir = tempfile::tempdir().unwrap();
    let recipe = family(dir.path());
    let at = |name: &str| dir.path().join(name).display().to_string();
    let still = polyloom(&[
        "tune",
        &recipe,
        "-o",
        &at("still"),
        "--rate",
        "0",
        "--steps",
        "1",
        "--per",
        "task",
    ]);
    assert!(still.status.success(), "{}", text(&still.stderr));
    let merged = polyloom(&[
        "merge",
        "--base",
        &at("base"),
        &at("x"),
        &at("y"),
        "--method",
        "task_arithmetic",
        "--shared",
        "lambda=0.3",
        "-o",
        &at("sum"),
    ]);
    assert!(merged.status.success(), "{}", text(&merged.stderr));
    let numbers = |folder: &str| -> Vec<f32> {
        let open = polyloom_core::Checkpoint::open(PathBuf::from(folder)).unwrap();
        open.tensors()
            .values()
            .flat_map(|t| open.read_all(t).unwrap())
            .collect()
    };
    let (a, b) = (numbers(&at("still")), numbers(&at("sum")));
    assert!(
        a.len() == b.len()
            && a.iter()
                .zip(&b)
                .all(|(a, b)| (a - b).abs() <= 1e-6 * (1.0 + b.abs()))
    );
}

#[test]
fn what_cannot_be_tuned_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let recipe = family(dir.path());
    let at = |name: &str| dir.path().join(name).display().to_string();
    let refused = |args: &[&str], expected: &str| {
        let out = polyloom(args);
        let said = text(&out.stderr);
        assert_eq!(out.status.code(), Some(2), "{said}");
        assert!(said.contains(expected), "{said}");
        assert!(!dir.path().join("out").exists());
    };
    let out = at("out");
    refused(
        &["tune", &recipe, "-o", &out, "--split", "nowhere"],
        "nowhere",
    );
    refused(
        &["tune", &recipe, "-o", &out, "--heads", &at("nothing")],
        "no head for task `digits`",
    );
    refused(
        &["tune", &recipe, "-o", &out, "--set", "tune.stesp=3"],
        "stesp",
    );
    refused(&["tune", &recipe, "-o", &at("base")], "exists already");
    refused(
        &[
            "tune",
            &at("x"),
            &at("y"),
            "-t",
            &data("digits"),
            "-o",
            &out,
        ],
        "names no base",
    );
    refused(
        &[
            "tune",
            &recipe,
            "-o",
            &out,
            "--rate",
            "1e30",
            "--set",
            "tune.clamp=false",
        ],
        "a lower tune.rate",
    );
    refused(
        &[
            "merge",
            "--base",
            &at("base"),
            &at("x"),
            "--method",
            "adamerging",
            "-o",
            &out,
        ],
        "polyloom tune --base BASE",
    );
    let plan = polyloom(&["tune", &recipe, "-o", &out, "--dry-run"]);
    assert!(plan.status.success() && text(&plan.stdout).contains("coefficients of 2 experts"));
    assert!(!dir.path().join("out").exists());
}

/// Begins a run, lets it make some steps of a kind, and stops it as Ctrl-C does.
fn stopped(args: &[&str], out: &str, kind: &str) {
    let log = PathBuf::from(format!("{out}.tuning/train.jsonl"));
    let mut child = Command::new(env!("CARGO_BIN_EXE_polyloom"))
        .args(args)
        .args(["-o", out, "-q", "-j", "1"])
        .spawn()
        .unwrap();
    let began = Instant::now();
    let line = format!("\"type\":\"{kind}\"");
    while !std::fs::read_to_string(&log).is_ok_and(|t| t.matches(&line).count() > 2) {
        assert!(began.elapsed() < Duration::from_secs(120), "no steps");
        let ended = child.try_wait().unwrap();
        assert!(ended.is_none(), "the run ended before it was stopped");
        std::thread::sleep(Duration::from_millis(2));
    }
    let pid = child.id().to_string();
    assert!(
        Command::new("kill")
            .args(["-INT", &pid])
            .status()
            .unwrap()
            .success()
    );
    assert!(!child.wait().unwrap().success(), "was not stopped");
    assert!(!Path::new(out).exists());
}

#[cfg(unix)]
#[test]
fn a_run_that_was_stopped_goes_on_to_the_same_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let recipe = family(dir.path());
    let at = |name: &str| dir.path().join(name).display().to_string();
    let plain = ["tune", &recipe, "--steps", "1500"];
    let mask = [
        "tune",
        &recipe,
        "--method",
        "concrete",
        "--set",
        "tune.on=adamerging",
        "--set",
        "tune.mask_steps=150",
        "--steps",
        "600",
    ];
    let cases = [
        ("plain", &plain[..], &["step"][..]),
        ("mask", &mask, &["mask", "step"]),
    ];
    for (name, args, kinds) in cases {
        let (whole, cut) = (at(&format!("{name}-whole")), at(&format!("{name}-cut")));
        let with = |more: &[&str]| polyloom(&[args, &["-j", "1"][..], more].concat());
        assert!(with(&["-o", &whole]).status.success());
        assert!(!Path::new(&format!("{whole}.tuning")).exists());
        stopped(args, &cut, kinds[0]);
        let said = |more: &[&str], want: &str| {
            let out = with(more);
            assert!(!out.status.success());
            assert!(text(&out.stderr).contains(want), "{}", text(&out.stderr));
        };
        said(&["-o", &cut], "was interrupted");
        said(
            &["-o", &cut, "--resume", "--seed", "9"],
            "checkpoint of another run",
        );
        for kind in &kinds[1..] {
            stopped(&[args, &["--resume"]].concat(), &cut, kind);
        }
        let done = with(&["-o", &cut, "--resume"]);
        let shown = text(&done.stderr);
        assert!(
            done.status.success() && shown.contains("going on after step "),
            "{shown}"
        );
        for file in ["model.safetensors", "coefficients.json", "train.jsonl"] {
            let read = |folder: &str| std::fs::read(Path::new(folder).join(file)).unwrap();
            assert!(read(&cut) == read(&whole), "{name}: {file} differs");
        }
        assert!(!Path::new(&format!("{cut}.tuning")).exists());
        let again = with(&["-o", &cut, "--resume"]);
        assert!(again.status.success() && text(&again.stderr).contains("done already"));
    }
}
