//! Dynamic logits fusion by `eval` and `run`: classes and texts.

use std::fmt::Write as _;
use std::path::Path;

use serde_json::Value;

use super::eval_speak::{model, task};
use super::language::{animals, json, recipe};
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

fn metric(folder: &str, file: &str, task: &str) -> f64 {
    json(folder, file)["tasks"][task]["value"].as_f64().unwrap()
}

#[test]
fn a_large_decoder_answers_better_with_a_small_expert() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).display().to_string();
    let spec = animals(dir.path());
    // Bases that know the texts, of the same byte pairs; an expert of the small one that knows the answers.
    for (name, width) in [("large", 32), ("small", 16)] {
        let more = "steps = 80\nvalidation = \"\"\n[train.language]";
        done(&[
            "train",
            &recipe(dir.path(), name, &spec, width, more),
            "-o",
            &at(name),
        ]);
    }
    let (large, small, expert) = (at("large"), at("small"), at("expert"));
    let learn = [
        "train",
        "--base",
        &*small,
        "-t",
        &*spec,
        "--language",
        "answers",
        "--steps",
        "120",
        "--rate",
        "1e-2",
    ];
    done(&[&learn[..], &["-o", &expert]].concat());
    let score = |model: &str, more: &[&str], name: &str| {
        done(&[&["eval", model, "-t", &spec, "-o", &at(name)][..], more].concat());
        metric(&at(""), name, "animals")
    };
    let fuse = ["--fuse-base", &*small, "--fuse", &*expert];
    let (alone, fused) = (score(&large, &[], "a.json"), score(&large, &fuse, "b.json"));
    assert!(fused > alone + 0.2, "{alone} {fused}");
    // The small base with its own expert is the expert.
    let own = score(&small, &fuse, "c.json");
    assert!((own - score(&expert, &[], "d.json")).abs() < 1e-9, "{own}");
}

/// Words of two letters alone, as a tokenizer of a folder.
fn two_letters(folder: &Path) {
    std::fs::create_dir_all(folder).unwrap();
    let tokenizer = serde_json::json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
        "pre_tokenizer": {"type": "Whitespace"}, "post_processor": null, "decoder": null,
        "model": {"type": "WordLevel", "vocab": {"a": 0, "b": 1}, "unk_token": "a"},
    });
    std::fs::write(folder.join("tokenizer.json"), tokenizer.to_string()).unwrap();
}

#[test]
fn one_source_without_labels_is_learned_until_nothing_tells_them_apart() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).display().to_string();
    two_letters(&dir.path().join("letters"));
    let mut rows = "id,text,kind\n".to_owned();
    for i in 0..64u32 {
        let letter = |j: u32| {
            if (i * 37 + j * j * 11 + i * j).is_multiple_of(4) {
                "b"
            } else {
                "a"
            }
        };
        let words: Vec<&str> = (0..8).map(letter).collect();
        writeln!(rows, "r{i},{},soft", words.join(" ")).unwrap();
    }
    let spec = animals(dir.path());
    std::fs::write(dir.path().join("train.csv"), rows).unwrap();
    let new = |name: &str, more: &str| {
        let file = recipe(dir.path(), name, &spec, 8, more);
        let tokenizer = format!("train.new.tokenizer={:?}", at("letters"));
        let set = ["--set", &*tokenizer, "--set", "train.new.vocab_size=2"];
        let seed = ["--seed", if name == "source" { "1" } else { "2" }];
        done(&[&["train", &file, "-o", &at(name)][..], &set, &seed].concat());
    };
    let short = "validation = \"\"\nlimit = 64";
    new(
        "source",
        &format!("steps = 60\n{short}\n[train.language]\npack = false"),
    );
    let fuse = format!(
        "[train.fuse]\nsources = [{:?}]\nlambda = 0\nlabels = false",
        at("source")
    );
    new(
        "student",
        &format!("steps = 600\n{short}\n[train.language]\n{fuse}"),
    );
    let log = std::fs::read_to_string(dir.path().join("student/train.jsonl")).unwrap();
    let losses: Vec<f64> = log
        .lines()
        .filter_map(|l| serde_json::from_str::<Value>(l).unwrap()["loss"].as_f64())
        .collect();
    let last = losses[losses.len() - 8..].iter().sum::<f64>() / 8.0;
    assert!(losses[0] > 1e-2 && last < 1e-4, "{} to {last}", losses[0]);
}

#[test]
fn a_decoder_learns_from_one_of_another_vocabulary() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).display().to_string();
    let spec = animals(dir.path());
    let new = |name: &str, entries: u32, more: &str| {
        let more = format!("validation = \"\"\n[train.language]\nlearn = \"answers\"\n{more}");
        let file = recipe(dir.path(), name, &spec, 24, &more);
        let entries = format!("train.new.vocab_size={entries}");
        let steps = ["--steps", "150", "--set", &*entries];
        done(&[&["train", &file, "-o", &at(name)][..], &steps].concat());
        done(&[
            "eval",
            &at(name),
            "-t",
            &spec,
            "-o",
            &at(&format!("{name}.json")),
        ]);
        metric(&at(""), &format!("{name}.json"), "animals")
    };
    let source = new("source", 262, "");
    assert!(source > 0.95, "{source}");
    let entries = |name: &str| {
        json(&at(name), "config.json")["vocab_size"]
            .as_u64()
            .unwrap()
    };
    for rule in ["min_ce", "avg_ce"] {
        let fuse = format!(
            "[train.fuse]\nsources = [{:?}]\nlambda = 0\nrule = \"{rule}\"",
            at("source")
        );
        let student = new(rule, 290, &fuse);
        assert!(student > 0.95, "{rule}: {student}");
        assert!(entries("source") < entries(rule));
    }
    let bert = Path::new(env!("CARGO_MANIFEST_DIR")).join("../polyloom-learn/tests/models/bert");
    let odd = format!(
        "[train.language]\n[train.fuse]\nsources = [{:?}]",
        bert.display().to_string()
    );
    refused(
        &[
            "train",
            &recipe(dir.path(), "odd", &spec, 8, &odd),
            "-o",
            &at("odd"),
        ],
        "tokenizer.json",
    );
    let answers = "[train.language]\nlearn = \"answers\"\n[train.fuse]\nsources = [\"x\"]\nlambda = 0\nlabels = false";
    refused(
        &[
            "train",
            &recipe(dir.path(), "odd", &spec, 8, answers),
            "-o",
            &at("odd"),
        ],
        "are the right answers",
    );
    let packed = "[train.language]\npack = true\n[train.fuse]\nsources = [\"x\"]";
    refused(
        &[
            "train",
            &recipe(dir.path(), "odd", &spec, 8, packed),
            "-o",
            &at("odd"),
        ],
        "text by text",
    );
}
