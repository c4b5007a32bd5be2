//! The binary as a user meets it: answers on stdout, messages on stderr, exit codes.

#![allow(
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "tests say what they skip"
)]

mod adapt_moe;
mod balance;
mod board;
mod cocktail;
mod compare;
mod compress;
mod dense;
mod diff;
#[cfg(feature = "hub")]
mod download;
mod embedding;
mod eval;
mod eval_endpoint;
mod eval_kinds;
mod eval_models;
mod eval_more;
mod eval_speak;
mod experts;
#[cfg(feature = "hub")]
mod hub_server;

mod environment;
mod export;
mod fuse;
mod goals;
mod hostile;
mod importance;
mod joint_text;
mod language;
mod messages;
mod mixing;
mod openai_server;
mod operators;
mod predict;
mod quickstart;
mod report;
mod route;
mod run;
mod same_order;
mod sensors;
mod slim;
mod stats;
mod synth;
mod table_calibration;
mod table_chains;
mod table_folds;
mod table_groups;
mod table_history;
mod table_modalities;
mod table_sessions;
mod table_texts;
mod table_weights;
mod tables;
mod tables_odd;
mod tasks;
mod tasks_more;
mod train;
mod trials;
mod tune;
mod tune_tables;
mod weave;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn polyloom(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_polyloom"));
    command
        .args(args)
        .env_remove("RUST_BACKTRACE")
        .env("NO_COLOR", "1");
    command.output().expect("the binary starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

/// What a command says on stderr that has to go well.
fn done(args: &[&str]) -> String {
    let done = polyloom(args);
    assert!(done.status.success(), "{args:?}: {}", text(&done.stderr));
    text(&done.stderr)
}

/// What a command says on stderr that has to fail.
fn failed(args: &[&str]) -> String {
    let done = polyloom(args);
    assert!(!done.status.success(), "{args:?}: {}", text(&done.stdout));
    text(&done.stderr)
}

/// Numbers of a column of a CSV, with what stands in the first column.
fn column(file: &Path, name: &str) -> Vec<(String, f64)> {
    let all = std::fs::read_to_string(file).unwrap();
    let mut lines = all.lines();
    let names: Vec<&str> = lines.next().unwrap().split(',').collect();
    let at = names
        .iter()
        .position(|n| *n == name)
        .unwrap_or_else(|| panic!("{names:?}"));
    lines
        .map(|l| l.split(',').collect::<Vec<_>>())
        .map(|f| (f[0].to_owned(), f[at].parse().unwrap()))
        .collect()
}

fn letters() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/letters")
}

/// A recipe beside links to the example's models.
fn recipe(dir: &Path, change: impl Fn(String) -> String) -> String {
    let folder = letters().canonicalize().unwrap();
    let mut content = std::fs::read_to_string(folder.join("loom.toml")).unwrap();
    for name in ["base", "greek", "latin"] {
        content = content.replace(
            &format!("path = \"{name}\""),
            &format!("path = \"{}\"", folder.join(name).display()),
        );
    }
    let path = dir.join("loom.toml");
    std::fs::write(&path, change(content)).unwrap();
    path.display().to_string()
}

#[test]
fn the_version_is_an_answer() {
    let out = polyloom(&["--version"]);
    assert!(out.status.success());
    assert_eq!(
        text(&out.stdout),
        format!("polyloom {}\n", env!("CARGO_PKG_VERSION"))
    );
}

#[test]
fn the_example_merges_and_prints_its_folder() {
    let dir = tempfile::tempdir().unwrap();
    let target = dir.path().join("out").display().to_string();
    let out = polyloom(&["merge", &recipe(dir.path(), |t| t), "-o", &target]);
    assert!(out.status.success(), "{}", text(&out.stderr));
    assert_eq!(text(&out.stdout).trim(), target);
    for file in [
        "model.safetensors",
        "config.json",
        "polyloom.json",
        "README.md",
    ] {
        assert!(dir.path().join("out").join(file).exists(), "{file}");
    }
    let again = polyloom(&["merge", &recipe(dir.path(), |t| t), "-o", &target]);
    assert_eq!(again.status.code(), Some(2));
    assert!(
        text(&again.stderr).contains("exists already") && text(&again.stderr).contains("--force")
    );
}

#[test]
fn a_typo_shows_its_line_the_valid_names_and_the_nearest() {
    let dir = tempfile::tempdir().unwrap();
    let file = recipe(dir.path(), |t| t.replace("density = 0.4", "densty = 0.4"));
    let out = polyloom(&["merge", &file, "-o", "never"]);
    assert_eq!(out.status.code(), Some(2));
    let message = text(&out.stderr).replace(&file, "loom.toml");
    assert_eq!(
        message,
        "error: loom.toml:26:1: unknown key `densty` for merge method `ties`\n   \
         26 | densty = 0.4\n      | ^^^^^^ expected one of: weight, density\n\
         hint: did you mean `density`?\n"
    );
}

#[test]
fn an_unknown_method_lists_the_nearest() {
    let base = letters().join("base").display().to_string();
    let out = polyloom(&[
        "merge", "--base", &base, &base, "--method", "tise", "-o", "never",
    ]);
    assert_eq!(out.status.code(), Some(2));
    assert!(
        text(&out.stderr).contains("unknown merge method `tise`\nhint: did you mean `ties`"),
        "{}",
        text(&out.stderr)
    );
}

#[test]
fn json_events_are_lines() {
    let dir = tempfile::tempdir().unwrap();
    let target = dir.path().join("out").display().to_string();
    let out = polyloom(&["merge", &recipe(dir.path(), |t| t), "-o", &target, "--json"]);
    let events: Vec<serde_json::Value> = text(&out.stdout)
        .lines()
        .map(|l| serde_json::from_str(l).unwrap())
        .collect();
    let kinds: Vec<&str> = events.iter().filter_map(|e| e["type"].as_str()).collect();
    assert_eq!(
        (kinds.first(), kinds.last()),
        (Some(&"plan"), Some(&"done")),
        "{kinds:?}"
    );
    let missing = polyloom(&[
        "merge", "nowhere", "--method", "linear", "-o", &target, "--json",
    ]);
    let event: serde_json::Value =
        serde_json::from_str(text(&missing.stdout).lines().next().unwrap()).unwrap();
    assert_eq!(
        (&event["type"], &event["code"]),
        (&"error".into(), &"model-not-found".into())
    );
}

#[test]
fn flags_of_the_peer_get_one_note() {
    let dir = tempfile::tempdir().unwrap();
    let target = dir.path().join("out").display().to_string();
    let out = polyloom(&[
        "merge",
        &recipe(dir.path(), |t| t),
        &target,
        "--cuda",
        "--lazy-unpickle",
        "--no-copy-tokenizer",
        "--trust-remote-code",
    ]);
    assert!(out.status.success(), "{}", text(&out.stderr));
    assert!(text(&out.stderr).contains("note: no effect here: --cuda --lazy-unpickle --trust-remote-code (no remote code is ever run)"));
}

#[cfg(unix)]
#[test]
fn a_killed_run_leaves_the_target_absent_and_the_next_one_works() {
    let dir = tempfile::tempdir().unwrap();
    let file = recipe(dir.path(), |t| t);
    let target = dir.path().join("out");
    // Killed at several moments; a run that was faster has finished its work.
    for wait in [0, 2, 5, 10, 20] {
        let _ = std::fs::remove_dir_all(&target);
        let mut child = Command::new(env!("CARGO_BIN_EXE_polyloom"))
            .args(["merge", &file, "-q", "--shard-size", "100KB", "-o"])
            .arg(&target)
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(std::time::Duration::from_millis(wait));
        let _ = child.kill();
        let _ = child.wait();
        if target.exists() {
            assert!(
                target.join("polyloom.json").exists()
                    && target.join("model.safetensors.index.json").exists()
            );
        }
    }
    let _ = std::fs::remove_dir_all(&target);
    let shown = target.display().to_string();
    let out = polyloom(&[
        "merge",
        &file,
        "--shard-size",
        "100KB",
        "--resume",
        "-o",
        &shown,
    ]);
    assert!(out.status.success(), "{}", text(&out.stderr));
    let left: Vec<_> = std::fs::read_dir(dir.path())
        .unwrap()
        .flatten()
        .map(|e| e.file_name())
        .filter(|n| n.to_string_lossy().starts_with('.'))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn inspect_shows_models_adapters_and_recipes() {
    let folder = letters();
    let item = |name: &str| folder.join(name).display().to_string();
    let out = polyloom(&["inspect", &item("greek"), "--base", &item("base")]);
    assert!(out.status.success(), "{}", text(&out.stderr));
    let shown = text(&out.stdout);
    assert!(shown.contains("full checkpoint"), "{shown}");
    assert!(shown.contains("tensors shared"), "{shown}");
    assert!(shown.contains("of the base norm; largest in"), "{shown}");

    let out = polyloom(&["inspect", &item("loom.toml"), "--resolved"]);
    let shown = text(&out.stdout);
    assert!(shown.contains("found at"), "{shown}");
    assert!(shown.contains("(default)"), "{shown}");

    let out = polyloom(&["inspect", &item("nowhere")]);
    assert_eq!(out.status.code(), Some(2));
    assert!(text(&out.stderr).contains("nowhere"));
}

#[test]
fn doctor_checks_files_and_says_no_with_one() {
    let dir = tempfile::tempdir().unwrap();
    let target = dir.path().join("out").display().to_string();
    let recipe = recipe(dir.path(), |t| t);
    assert!(
        polyloom(&["merge", &recipe, "-o", &target])
            .status
            .success()
    );
    let out = polyloom(&["doctor", &recipe, &target, "--full", "-o", &target]);
    let shown = text(&out.stdout);
    assert_eq!(out.status.code(), Some(0), "{shown}");
    for words in [
        "ok    cpu",
        "ok    recipe",
        "hashes match polyloom.json, all numbers finite",
    ] {
        assert!(shown.contains(words), "{shown}");
    }
    // One byte of the header changed: the file still opens, but it is not the one that was written.
    let file = dir.path().join("out/model.safetensors");
    let mut bytes = std::fs::read(&file).unwrap();
    let at = bytes.windows(7).position(|w| w == b"\"shape\"").unwrap();
    let letter = bytes[..at]
        .iter()
        .rposition(u8::is_ascii_lowercase)
        .unwrap();
    bytes[letter] ^= 1;
    std::fs::write(&file, &bytes).unwrap();
    let out = polyloom(&["doctor", &target]);
    assert_eq!(out.status.code(), Some(1), "{}", text(&out.stdout));
    assert!(
        text(&out.stdout).contains("fail  files"),
        "{}",
        text(&out.stdout)
    );
}

#[test]
fn compress_and_restore_round_trip() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    let recipe = recipe(dir.path(), |t| t);
    let out = polyloom(&[
        "compress",
        &recipe,
        "--method",
        "emr",
        "--heads",
        "separate",
        "-o",
        &path("bundle"),
    ]);
    assert!(out.status.success(), "{}", text(&out.stderr));
    assert!(
        text(&out.stderr).contains("deltas only"),
        "{}",
        text(&out.stderr)
    );
    let out = polyloom(&["inspect", &path("bundle")]);
    assert!(
        text(&out.stdout).contains("mask bundle, emr"),
        "{}",
        text(&out.stdout)
    );
    let out = polyloom(&[
        "compress",
        "restore",
        &path("bundle"),
        "--task",
        "greek",
        "-o",
        &path("greek"),
    ]);
    assert!(out.status.success(), "{}", text(&out.stderr));
    let merged = polyloom(&[
        "merge",
        &recipe,
        "--method",
        "emr",
        "--shared",
        "task=greek",
        "--heads",
        "separate",
        "-o",
        &path("direct"),
    ]);
    assert!(merged.status.success(), "{}", text(&merged.stderr));
    let bytes =
        |name: &str| std::fs::read(dir.path().join(name).join("model.safetensors")).unwrap();
    assert!(bytes("greek") == bytes("direct"));
}
