//! Dynamic logits fusion by `eval` and `run`: classes and texts.

use std::path::Path;

use serde_json::Value;

use super::eval_speak::{model, task};
use super::{polyloom, text};

fn done(args: &[&str]) -> String {
    let out = polyloom(args);
    assert_eq!(
        out.status.code(),
        Some(0),
        "{args:?}: {}",
        text(&out.stderr)
    );
    text(&out.stdout)
}

fn refused(args: &[&str], expected: &str) {
    let out = polyloom(args);
    let said = text(&out.stderr);
    assert_eq!(out.status.code(), Some(2), "{args:?}: {said}");
    assert!(said.contains(expected), "{said}");
}

fn value(file: &str, task: &str) -> f64 {
    let found: Value = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    found["tasks"][task]["value"].as_f64().unwrap()
}

#[test]
fn classes_of_a_large_model_move_with_a_small_expert() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).display().to_string();
    let spec = Path::new(env!("CARGO_MANIFEST_DIR")).join("quickstart/data/digits/task.toml");
    let spec = spec.canonicalize().unwrap().display().to_string();
    let new = |name: &str, sizes: &str, steps: u32| {
        let recipe = format!(
            "version = 1\nseed = 3\n[train]\ntasks = [{spec:?}]\nlimit = 200\nbatch = 16\nsteps = {steps}\nrate = 1e-2\nvalidation_limit = 10\n\
             [train.new]\nmodel_type = \"polyloom-mlp\"\nimage_size = 28\nnum_channels = 1\nhidden_sizes = {sizes}\n"
        );
        let file = at(&format!("{name}.toml"));
        std::fs::write(&file, recipe).unwrap();
        done(&["train", &file, "-o", &at(name)]);
    };
    new("large", "[48, 32]", 6);
    new("small", "[16, 8]", 4);
    let (small, expert, large) = (at("small"), at("expert"), at("large"));
    done(&[
        "train",
        "--base",
        &small,
        "-t",
        &spec,
        "--steps",
        "60",
        "-L",
        "200",
        "--rate",
        "1e-2",
        "--set",
        "train.validation_limit=10",
        "-o",
        &expert,
    ]);
    let score = |model: &str, more: &[&str], name: &str| {
        let file = at(name);
        done(
            &[
                &["eval", model, "-t", &spec, "-L", "200", "-o", &file][..],
                more,
            ]
            .concat(),
        );
        value(&file, "digits")
    };
    let fuse = ["--fuse-base", &*small, "--fuse", &*expert];
    let alone = score(&large, &[], "large.json");
    let tuned = score(&expert, &[], "expert.json");
    assert!(tuned > alone + 0.05, "{tuned} {alone}");
    let fused = score(&large, &fuse, "fused.json");
    assert!(fused > alone, "{fused} {alone}");
    // The small base with what its own expert learned is that expert.
    assert!((score(&small, &fuse, "self.json") - tuned).abs() < 0.011);
    // An expert that learned nothing changes nothing; two experts in every combination of weights.
    let nothing = ["--fuse-base", &*small, "--fuse", &*small];
    assert_eq!(score(&large, &nothing, "nothing.json"), alone);
    let both = format!("{small},{expert}");
    let full = ["--fuse-base", &*small, "--fuse", &*both, "--fuse-full"];
    score(&large, &full, "full.json");
    // What is the same is not run again, and what was run alone is no result of the fused one.
    let again = [
        "eval",
        &*large,
        "-t",
        &*spec,
        "-L",
        "200",
        "-o",
        &at("fused.json"),
    ];
    let out = polyloom(&[&again[..], &fuse].concat());
    assert!(
        text(&out.stderr).contains("nothing changed"),
        "{}",
        text(&out.stderr)
    );
    let out = polyloom(&again);
    assert!(
        text(&out.stderr).contains("they are replaced"),
        "{}",
        text(&out.stderr)
    );
    refused(
        &[&["eval", &*large, "-t", &*spec][..], &fuse].concat(),
        "--fuse needs -o",
    );
    refused(
        &["eval", &large, "-t", &spec, "--fuse", &expert],
        "--fuse-base",
    );
    refused(
        &[&["run", &*large, "x"][..], &fuse].concat(),
        "generates no text",
    );
}

#[test]
fn texts_of_a_decoder_that_learned_nothing_stay() {
    let dir = tempfile::tempdir().unwrap();
    let speaker = model(dir.path()).display().to_string();
    let fuse = ["--fuse-base", &*speaker, "--fuse", &*speaker];
    let ask = ["run", &*speaker, "review 0 is fine", "--max-tokens", "6"];
    let alone = done(&ask);
    assert_eq!(done(&[&ask[..], &fuse].concat()), alone);
    refused(
        &[&ask[..], &fuse, &["--embed"]].concat(),
        "--fuse is about text",
    );
    let prompt = "[[prompts]]\ntemplate = \"{{input}}\\nMood: \"\nchoices = [\"good\", \"not bad\"]\ntarget = \"{{target}}\"";
    let spec = task(dir.path(), "class", "classification", prompt, "accuracy");
    let at = |name: &str| dir.path().join(name).display().to_string();
    done(&["eval", &speaker, "-t", &spec, "-o", &at("a.json")]);
    done(
        &[
            &["eval", &*speaker, "-t", &*spec, "-o", &*at("b.json")][..],
            &fuse,
        ]
        .concat(),
    );
    assert_eq!(
        value(&at("a.json"), "mine/class"),
        value(&at("b.json"), "mine/class")
    );
}
