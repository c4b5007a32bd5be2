//! `POLYLOOM_*`: above the recipe, below `--set` and flags.

use std::path::Path;
use std::process::{Command, Output};

use crate::{recipe, text};

fn run(args: &[&str], vars: &[(&str, &str)]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_polyloom"))
        .args(args)
        .env("NO_COLOR", "1")
        .envs(vars.iter().copied())
        .output()
        .unwrap()
}

fn provenance(folder: &Path) -> serde_json::Value {
    serde_json::from_slice(&std::fs::read(folder.join("polyloom.json")).unwrap()).unwrap()
}

#[test]
fn a_variable_stands_between_the_recipe_and_the_command_line() {
    let dir = tempfile::tempdir().unwrap();
    let file = recipe(dir.path(), |t| format!("seed = 1\n{t}"));
    let target = dir.path().join("out");
    let shown = target.display().to_string();
    let seed = |more: &[&str], vars: &[(&str, &str)]| {
        let mut args = vec!["merge", &file, "-o", &shown, "--force"];
        args.extend(more);
        let out = run(&args, vars);
        assert!(out.status.success(), "{}", text(&out.stderr));
        provenance(&target)["recipe"]["seed"].clone()
    };
    let two = ("POLYLOOM_SEED", "2");
    assert_eq!(seed(&[], &[]), 1);
    assert_eq!(seed(&[], &[two]), 2);
    assert_eq!(seed(&["--set", "seed=3"], &[two]), 3);
    assert_eq!(seed(&["--set", "seed=3", "--seed", "4"], &[two]), 4);
}

#[test]
fn variables_do_what_their_flags_do() {
    let dir = tempfile::tempdir().unwrap();
    let file = recipe(dir.path(), |t| t);
    let target = dir.path().join("out");
    let vars = [
        ("POLYLOOM_SHARD_SIZE", "400KB"),
        ("POLYLOOM_NO_SYNC", "1"),
        ("POLYLOOM_OUT_DTYPE", "f32"),
        ("POLYLOOM_THREADS", "1"),
    ];
    let out = run(
        &["merge", &file, "-o", &target.display().to_string()],
        &vars,
    );
    assert!(out.status.success(), "{}", text(&out.stderr));
    assert!(
        text(&out.stderr).contains("not synced to disk"),
        "{}",
        text(&out.stderr)
    );
    assert!(target.join("model.safetensors.index.json").exists());
    let length: u64 = std::fs::read_dir(&target)
        .unwrap()
        .flatten()
        .filter(|e| e.path().extension().is_some_and(|x| x == "safetensors"))
        .map(|e| e.metadata().unwrap().len())
        .sum();
    assert!(length > 2_400_000, "f32 beats the recipe's f16: {length}");
}

#[test]
fn a_variable_that_means_nothing_is_an_error_that_names_its_flag() {
    for (name, value, flag) in [
        ("POLYLOOM_NO_SYNC", "perhaps", "--no-sync"),
        ("POLYLOOM_THREADS", "many", "--threads"),
        ("POLYLOOM_SHARD_SIZE", "big", "--shard-size"),
    ] {
        let out = run(&["merge", "x.toml", "-o", "never"], &[(name, value)]);
        assert_eq!(out.status.code(), Some(2), "{name}");
        assert!(text(&out.stderr).contains(flag), "{}", text(&out.stderr));
    }
}

#[test]
fn the_help_names_the_variables() {
    let out = run(&["merge", "--help"], &[]);
    for name in [
        "THREADS",
        "COLOR",
        "NO_PROGRESS",
        "SHARD_SIZE",
        "NO_SYNC",
        "SEED",
        "DTYPE",
        "OUT_DTYPE",
        "CACHE",
        "MEMORY",
    ] {
        assert!(
            text(&out.stdout).contains(&format!("[env: POLYLOOM_{name}=]")),
            "{name}"
        );
    }
}
