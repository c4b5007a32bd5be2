//! `polyloom train` of decoders: texts, answers, tokenizers, and what other commands make of them.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::{polyloom, text};

pub fn done(args: &[&str]) -> String {
    let out = polyloom(args);
    let said = text(&out.stderr);
    assert_eq!(out.status.code(), Some(0), "{args:?}: {said}");
    text(&out.stdout)
}

fn refused(args: &[&str], expected: &str) {
    let out = polyloom(args);
    let said = text(&out.stderr);
    assert_eq!(out.status.code(), Some(2), "{args:?}: {said}");
    assert!(said.contains(expected), "{said}");
}

pub fn json(folder: &str, name: &str) -> Value {
    let file = Path::new(folder).join(name);
    serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap()
}

/// A task of made-up sentences: animals are soft or loud, with a prompt that asks which.
pub fn animals(dir: &Path) -> String {
    let (names, places) = (
        ["cat", "crow", "mouse", "donkey"],
        ["at home", "in a tree", "near the old mill"],
    );
    for (split, count) in [("train", 96), ("validation", 24), ("test", 24)] {
        let mut rows = "id,text,kind\n".to_owned();
        for i in 0..count {
            let (name, place) = (names[i % 4], places[i / 4 % 3]);
            let kind = ["soft", "loud"][i % 2];
            writeln!(rows, "{split}{i},the {name} sat {place},{kind}").unwrap();
        }
        std::fs::write(dir.join(format!("{split}.csv")), rows).unwrap();
    }
    let spec = "schema = \"polyloom.task/1\"\nid = \"animals\"\ntype = \"classification\"\n[source]\nkind = \"csv\"\nroot = \".\"\n\
        [splits]\ntrain = { file = \"train.csv\" }\nvalidation = { file = \"validation.csv\" }\ntest = { file = \"test.csv\" }\n\
        [fields]\nid = \"id\"\ninput = \"text\"\ntarget = \"kind\"\n[labels]\nnames = [\"soft\", \"loud\"]\n\
        [[prompts]]\ntemplate = \"{{input}}\\nKind:\"\nchoices = [\"soft\", \"loud\"]\ntarget = \"{{target}}\"\n\
        [[metrics]]\nname = \"accuracy\"\nprimary = true\n";
    let file = dir.join("animals.task.toml");
    std::fs::write(&file, spec).unwrap();
    file.display().to_string()
}

/// A recipe of a new decoder of some width, and more lines of `[train]`.
pub fn recipe(dir: &Path, name: &str, task: &str, width: usize, more: &str) -> String {
    let text = format!(
        "version = 1\nseed = 5\n[train]\ntasks = [{task:?}]\nbatch = 8\nrate = 1e-2\nmax_length = 40\n{more}\n\
         [train.new]\nmodel_type = \"llama\"\nhidden_size = {width}\nintermediate_size = {width}\nnum_hidden_layers = 1\n\
         num_attention_heads = 2\nvocab_size = 290\nmax_position_embeddings = 64\ntie_word_embeddings = true\ninitializer_range = 0.1\n"
    );
    let file = dir.join(format!("{name}.toml"));
    std::fs::write(&file, text).unwrap();
    file.display().to_string()
}

#[test]
fn a_new_decoder_learns_texts_then_answers() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).display().to_string();
    let task = animals(dir.path());
    let texts = recipe(
        dir.path(),
        "texts",
        &task,
        24,
        "steps = 120\n[train.language]",
    );
    let base = at("base");
    let plan = done(&["train", &texts, "-o", &base, "--dry-run"]);
    assert!(plan.contains("next tokens of texts"), "{plan}");
    done(&["train", &texts, "-o", &base]);
    let told = json(&base, "polyloom.json");
    let score = &told["scores"]["tasks"]["animals"];
    assert_eq!(score["metric"], "perplexity");
    assert!(score["value"].as_f64().unwrap() < 4.0, "{told}");
    assert_eq!(
        told["scores"]["mean"].as_f64().unwrap(),
        -score["value"].as_f64().unwrap()
    );
    let config = json(&base, "config.json");
    assert_eq!(config["architectures"][0], "LlamaForCausalLM");
    assert_eq!(
        (&config["eos_token_id"], &config["bos_token_id"]),
        (&0.into(), &0.into())
    );
    let entries = json(&base, "tokenizer.json")["model"]["vocab"]
        .as_object()
        .unwrap()
        .len();
    assert_eq!(config["vocab_size"], entries);
    assert_eq!(
        json(&base, "tokenizer_config.json")["eos_token"],
        "<|endoftext|>"
    );
    assert!(!Path::new(&base).join("heads").exists());
    // It goes on as its texts do, and ends.
    let said = done(&["run", &base, "the cat sat near", "--max-tokens", "30"]);
    assert_eq!(said.trim(), "the old mill", "{said}");

    // Answers to prompts: all weights, and low-rank parts.
    let expert = at("expert");
    let learn = [
        "train",
        "--base",
        &*base,
        "-t",
        &*task,
        "--language",
        "answers",
        "--steps",
        "100",
        "--rate",
        "1e-2",
    ];
    done(&[&learn[..], &["-o", &expert]].concat());
    let score = |model: &str, name: &str| {
        done(&["eval", model, "-t", &task, "-o", &at(name)]);
        json(&at(""), name)["tasks"]["animals"]["value"]
            .as_f64()
            .unwrap()
    };
    let (before, after) = (score(&base, "base.json"), score(&expert, "expert.json"));
    assert!(after > 0.95 && before < 0.8, "{before} {after}");
    let lora = at("lora");
    done(&[&learn[..], &["--method", "lora", "-o", &lora]].concat());
    assert_eq!(json(&lora, "adapter_config.json")["task_type"], "CAUSAL_LM");
    done(&[
        "run",
        &format!("{base}+{lora}"),
        "the cat sat at home\nKind:",
        "--max-tokens",
        "4",
    ]);
    // What was trained is merged as any other model, with the tokenizer.
    let merged = at("merged");
    done(&[
        "merge",
        "--base",
        &base,
        &expert,
        "--method",
        "task_arithmetic",
        "--shared",
        "lambda=1",
        "-o",
        &merged,
    ]);
    assert!((score(&merged, "merged.json") - after).abs() < 1e-9);
    // Another decoder with the tokenizer of the first, by its file.
    let other = at("other");
    let tokenizer = format!("train.new.tokenizer={:?}", format!("{base}/tokenizer.json"));
    done(&[
        "train",
        &texts,
        "-o",
        &other,
        "--steps",
        "2",
        "--set",
        &tokenizer,
        "--set",
        "train.new.hidden_size=16",
    ]);
    assert_eq!(
        json(&other, "tokenizer.json"),
        json(&base, "tokenizer.json")
    );
    refused(
        &[
            "train",
            &texts,
            "-o",
            &at("no"),
            "--set",
            &tokenizer,
            "--set",
            "train.new.vocab_size=9",
        ],
        "the tokenizer has",
    );
}

#[test]
fn a_run_of_language_that_was_killed_goes_on_to_the_same_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).display().to_string();
    let task = animals(dir.path());
    let more =
        "steps = 120\nsave_every = 5\nevaluate_every = 40\n[train.language]\nlearn = \"answers\"";
    let recipe = recipe(dir.path(), "answers", &task, 8, more);
    let (whole, cut) = (at("whole"), at("cut"));
    let mut child = Command::new(env!("CARGO_BIN_EXE_polyloom"))
        .args(["train", &recipe, "-o", &cut, "-q", "-j", "1"])
        .spawn()
        .unwrap();
    let checkpoint = dir.path().join("cut.training/checkpoint.safetensors");
    let began = Instant::now();
    while !checkpoint.exists() {
        assert!(began.elapsed() < Duration::from_secs(120), "no checkpoint");
        assert!(
            child.try_wait().unwrap().is_none(),
            "the run ended before it was killed"
        );
        std::thread::sleep(Duration::from_millis(2));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let other = "train.language.learn=texts";
    refused(
        &["train", &recipe, "-o", &cut, "--resume", "--set", other],
        "checkpoint of another run",
    );
    done(&["train", &recipe, "-o", &cut, "--resume", "-j", "1"]);
    done(&["train", &recipe, "-o", &whole, "-j", "1"]);
    for name in ["model.safetensors", "tokenizer.json", "config.json"] {
        let read = |folder: &str| std::fs::read(Path::new(folder).join(name)).unwrap();
        assert!(read(&cut) == read(&whole), "{name} differs");
    }
}

#[test]
fn what_is_no_language_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let task = animals(dir.path());
    let out = dir.path().join("out").display().to_string();
    let with = |more: &str| recipe(dir.path(), "odd", &task, 8, more);
    let told = |more: &str, expected: &str| refused(&["train", &with(more), "-o", &out], expected);
    told("method = \"head\"\n[train.language]", "without heads");
    told(
        "[train.language]\nlearn = \"answers\"\npack = true",
        "is for texts",
    );
    told(
        "[train.language]\nlearn = \"words\"",
        "unknown variant `words`",
    );
    let good = with("[train.language]");
    let set = |key: &str, expected: &str| {
        refused(&["train", &good, "-o", &out, "--set", key], expected);
    };
    set("train.new.vocab_size=100", "byte pairs need at least 257");
    set("train.split=nothing", "nothing");
    set("train.new.model_type=gpt9", "cannot be made from nothing");
    let digits = Path::new(env!("CARGO_MANIFEST_DIR")).join("quickstart/data/digits/task.toml");
    refused(
        &[
            "train",
            &good,
            "-o",
            &out,
            "-t",
            &digits.display().to_string(),
        ],
        "shows pictures",
    );
    let bert = Path::new(env!("CARGO_MANIFEST_DIR")).join("../polyloom-learn/tests/models/bert");
    refused(
        &[
            "train",
            "--base",
            &bert.display().to_string(),
            "-t",
            &task,
            "--language",
            "texts",
            "-o",
            &out,
        ],
        "is no decoder",
    );
    assert!(!Path::new(&out).exists());
}

/// Mixtures of gated experts in a decoder: from nothing, and in the place of what a dense one has.
#[test]
fn decoders_have_experts() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).display().to_string();
    let task = animals(dir.path());
    let new = recipe(
        dir.path(),
        "new",
        &task,
        24,
        "steps = 120\n[train.language]",
    );
    let with = |name: &str, more: &str| {
        let text = std::fs::read_to_string(&new).unwrap();
        std::fs::write(at(name), format!("{text}{more}")).unwrap();
        at(name)
    };
    let moe = "[train.new.moe]\nexperts = 4\nevery = 1\ntop_p = 0.4\nbalance = 0.0\nswitch = 0.01\nentropy = 1e-4\n";
    let mixed = with("mixed.toml", moe);
    for (out, threads) in [("one", "1"), ("three", "3")] {
        done(&["train", &mixed, "-o", &at(out), "-j", threads]);
    }
    let weights =
        |out: &str| std::fs::read(dir.path().join(out).join("model.safetensors")).unwrap();
    assert!(weights("one") == weights("three"));
    let config = json(&at("one"), "config.json");
    assert_eq!(config["moe"]["gate"], "shared");
    assert!(config["architectures"].is_null());
    let said = done(&["run", &at("one"), "the cat sat near", "--max-tokens", "30"]);
    assert_eq!(said.trim(), "the old mill", "{said}");
    let told = done(&["diag", "experts", &at("one"), "-t", &task]);
    assert!(told.contains("model.layers.0.moe"), "{told}");

    // A dense one becomes a mixture, and learns answers.
    done(&["train", &new, "-o", &at("dense")]);
    let answers = format!(
        "version = 1\n[base]\npath = {:?}\n[train]\ntasks = [{task:?}]\nsteps = 40\nbatch = 8\nrate = 1e-2\nmax_length = 40\n\
         [train.language]\nlearn = \"answers\"\n[train.moe]\nexperts = 3\ntop_k = 2\nevery = 1\n",
        at("dense")
    );
    std::fs::write(at("answers.toml"), &answers).unwrap();
    done(&["train", &at("answers.toml"), "-o", &at("answers")]);
    let results = at("answers.json");
    done(&["eval", &at("answers"), "-t", &task, "-o", &results]);
    let results: Value = serde_json::from_slice(&std::fs::read(&results).unwrap()).unwrap();
    assert_eq!(results["tasks"]["animals"]["value"], 1.0);

    let goal = with("goal.toml", "[train.new.moe]\ngate = \"goal\"\nevery = 1\n");
    refused(
        &["train", &goal, "-o", &at("no")],
        "moe.gate of a decoder is \"shared\"",
    );
    std::fs::write(at("twice.toml"), answers.replace("/dense\"", "/answers\"")).unwrap();
    refused(
        &["train", &at("twice.toml"), "-o", &at("no")],
        "the base has experts already",
    );
}
