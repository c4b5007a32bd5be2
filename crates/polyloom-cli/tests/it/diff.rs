//! `polyloom diff` as a user meets it.

use std::path::Path;
use std::process::{Command, Output};

use super::{letters, text};

fn diff(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_polyloom"));
    command
        .current_dir(letters())
        .arg("diff")
        .args(args)
        .env_remove("RUST_BACKTRACE")
        .env("NO_COLOR", "1");
    command.output().expect("the binary starts")
}

fn folder(dir: &tempfile::TempDir, name: &str) -> String {
    dir.path().join(name).display().to_string()
}

/// The whole table of the example's experts; after a wanted change copy what the command prints there.
#[test]
fn the_table_of_the_example() {
    let out = diff(&["--base", "base", "greek", "latin"]);
    assert!(out.status.success(), "{}", text(&out.stderr));
    let shown = text(&out.stdout);
    assert_eq!(shown, include_str!("diff.txt"));
    assert!(shown.lines().all(|l| l.chars().count() <= 80));
    for threads in ["1", "3"] {
        let again = diff(&["--base", "base", "greek", "latin", "-j", threads]);
        assert_eq!(text(&again.stdout), shown, "{threads}");
    }
}

#[test]
fn events_hold_what_the_table_shows() {
    let out = diff(&[
        "--base", "base", "greek", "latin", "--json", "--top-k", "0.1",
    ]);
    let events: Vec<serde_json::Value> = text(&out.stdout)
        .lines()
        .map(|l| serde_json::from_str(l).unwrap())
        .collect();
    let count = |kind: &str| events.iter().filter(|e| e["type"] == kind).count();
    assert_eq!(
        (
            count("diff"),
            count("tensor"),
            count("layer"),
            count("model"),
            count("clusters")
        ),
        (1, 102, 8, 1, 1)
    );
    assert_eq!(events[0]["top_k"], 0.1);
    let model = events.iter().find(|e| e["type"] == "model").unwrap();
    let cosine = model["cosine"][0][1].as_f64().unwrap();
    let shown = format!("{cosine:.3}");
    assert!(include_str!("diff.txt").contains(&shown), "{shown}");
    assert_eq!(events.last().unwrap()["type"], "done");
}

#[test]
fn the_page_stands_alone_and_is_not_overwritten() {
    let dir = tempfile::tempdir().unwrap();
    let page = folder(&dir, "diff.html");
    let args = [
        "--base",
        "base",
        "greek",
        "latin",
        "--spectral",
        "--html",
        &page,
    ];
    let out = diff(&args);
    assert!(out.status.success(), "{}", text(&out.stderr));
    let html = std::fs::read_to_string(&page).unwrap();
    assert!(html.starts_with("<!DOCTYPE html>") && html.ends_with("</html>\n"));
    for foreign in ["<script", "<link", "src=", "url(", "http:", "https:"] {
        assert!(!html.contains(foreign), "{foreign}");
    }
    let again = diff(&args);
    assert_eq!(again.status.code(), Some(2));
    assert!(text(&again.stderr).contains("--force"));
}

#[test]
fn adapters_need_no_base_and_models_do() {
    let dir = tempfile::tempdir().unwrap();
    let extract = |name: &str| {
        let target = folder(&dir, name);
        let out = Command::new(env!("CARGO_BIN_EXE_polyloom"))
            .current_dir(letters())
            .args([
                "adapt", "extract", "--base", "base", "--model", name, "--rank", "4",
            ])
            .args([
                "--include",
                "attention.attention",
                "--skip-undecomposable",
                "-o",
                &target,
            ])
            .output()
            .unwrap();
        assert!(out.status.success(), "{}", text(&out.stderr));
        target
    };
    let (greek, latin) = (extract("greek"), extract("latin"));
    let alone = diff(&[&greek, &latin, "--per", "model"]);
    assert!(alone.status.success(), "{}", text(&alone.stderr));
    assert!(
        text(&alone.stdout).starts_with("2 adapters without a base"),
        "{}",
        text(&alone.stdout)
    );
    let folded = diff(&["--base", "base", &greek, &latin, "--per", "tensor"]);
    assert!(folded.status.success(), "{}", text(&folded.stderr));
    assert!(text(&folded.stdout).starts_with("2 experts against base"));

    let models = diff(&["greek", "latin"]);
    assert_eq!(models.status.code(), Some(2));
    let message = text(&models.stderr);
    assert_eq!(
        message,
        "error: greek: is a model, and what it changed can only be seen against its base\n\
         hint: pass --base MODEL; only adapters (PEFT folders) are compared without one\n\
         error: latin: is a model, and what it changed can only be seen against its base\n\
         hint: pass --base MODEL; only adapters (PEFT folders) are compared without one\n"
    );
    assert!(Path::new(&greek).exists());
}
