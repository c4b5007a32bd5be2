//! Experts in encoders of texts as a user meets them: new ones, and those of a base whose feed-forward parts became experts.

use std::fmt::Write as _;
use std::path::Path;

use serde_json::{Value, json};

use super::{done, failed, polyloom, shown, text};

const WORDS: [&str; 12] = [
    "[PAD]", "[UNK]", "the", "lies", "on", "ice", "sun", "leaf", "drum", "stone", "moon", "very",
];

/// A tokenizer of a dozen words.
fn words(dir: &Path) -> String {
    let folder = dir.join("words");
    std::fs::create_dir_all(&folder).unwrap();
    let vocabulary: serde_json::Map<String, Value> = WORDS
        .iter()
        .enumerate()
        .map(|(i, word)| ((*word).to_owned(), i.into()))
        .collect();
    let tokenizer = json!({
        "version": "1.0", "added_tokens": [], "pre_tokenizer": {"type": "WhitespaceSplit"},
        "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "[UNK]"},
    });
    std::fs::write(folder.join("tokenizer.json"), tokenizer.to_string()).unwrap();
    let config = json!({"pad_token": "[PAD]", "unk_token": "[UNK]"});
    std::fs::write(folder.join("tokenizer_config.json"), config.to_string()).unwrap();
    shown(&folder)
}

/// A task of one target: whether it is warm, or whether it is loud; sentences of several lengths.
fn task(dir: &Path, name: &str) -> String {
    let folder = dir.join(name);
    std::fs::create_dir_all(&folder).unwrap();
    for (split, count) in [("train", 64), ("validation", 16), ("test", 16)] {
        let mut rows = "id,text,kind\n".to_owned();
        for i in 0..count {
            let (warm, loud) = (i % 2, i / 2 % 2);
            let kind = if name == "warm" { warm } else { loud };
            let (place, noise) = (["ice", "sun"][warm], ["leaf", "drum"][loud]);
            let very = ["", "very "][i / 4 % 2];
            writeln!(rows, "{split}{i},the {noise} lies on {very}{place},{kind}").unwrap();
        }
        std::fs::write(folder.join(format!("{split}.csv")), rows).unwrap();
    }
    let spec = format!(
        "schema = \"polyloom.task/1\"\nid = \"{name}\"\ntype = \"classification\"\n[source]\nkind = \"csv\"\nroot = \".\"\n\
         [splits]\ntrain = {{ file = \"train.csv\" }}\nvalidation = {{ file = \"validation.csv\" }}\ntest = {{ file = \"test.csv\" }}\n\
         [fields]\nid = \"id\"\ninput = \"text\"\ntarget = \"kind\"\n[labels]\nnames = [\"no\", \"yes\"]\n\
         [[metrics]]\nname = \"accuracy\"\nprimary = true\n"
    );
    let file = folder.join("task.toml");
    std::fs::write(&file, spec).unwrap();
    shown(&file)
}

struct Case {
    dir: tempfile::TempDir,
    tasks: [String; 2],
}

impl Case {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let tasks = ["warm", "loud"].map(|name| task(dir.path(), name));
        words(dir.path());
        Self { dir, tasks }
    }

    fn at(&self, name: &str) -> String {
        shown(&self.dir.path().join(name))
    }

    /// A recipe with more lines of `[train]`, and what it begins with.
    fn recipe(&self, name: &str, more: &str, start: &str) -> String {
        let text = format!(
            "version = 1\nseed = 3\n[train]\ntasks = {:?}\nbatch = 8\nrate = 1e-2\n{more}\n{start}",
            self.tasks
        );
        let file = self.at(&format!("{name}.toml"));
        std::fs::write(&file, text).unwrap();
        file
    }

    /// A new small BERT, with more keys of `[train.new]`.
    fn new_bert(&self, more: &str) -> String {
        format!(
            "[train.new]\nmodel_type = \"bert\"\ntokenizer = {:?}\nvocab_size = 12\nhidden_size = 16\nnum_hidden_layers = 2\n\
             num_attention_heads = 2\nintermediate_size = 24\nmax_position_embeddings = 8\npad_token_id = 0\ninitializer_range = 0.1\n{more}",
            self.at("words")
        )
    }

    fn train(&self, recipe: &str, out: &str, more: &[&str]) -> String {
        let out = self.at(out);
        let args = [&["train", recipe, "-o", &out, "--no-sync"], more].concat();
        done(&args)
    }

    fn read(&self, out: &str, file: &str) -> Vec<u8> {
        std::fs::read(self.dir.path().join(out).join(file)).unwrap()
    }

    fn config(&self, out: &str) -> Value {
        serde_json::from_slice(&self.read(out, "config.json")).unwrap()
    }

    /// Scores of both tasks.
    fn scores(&self, out: &str) -> [f64; 2] {
        ["warm", "loud"].map(|name| {
            let at = usize::from(name == "loud");
            let to = self.at(&format!("{out}-{name}.json"));
            let args = [
                "eval",
                &self.at(out),
                "-t",
                &self.tasks[at],
                "-o",
                &to,
                "--force",
            ];
            done(&args);
            let all: Value = serde_json::from_slice(&std::fs::read(&to).unwrap()).unwrap();
            all["tasks"][name]["value"].as_f64().unwrap()
        })
    }
}

const MOE: &str = "[train.new.moe]\nexperts = 4\nevery = 1\n";

fn events(args: &[&str]) -> Vec<Value> {
    let out = polyloom(&[&["--json"], args].concat());
    assert!(out.status.success(), "{}", text(&out.stderr));
    let all = text(&out.stdout);
    all.lines()
        .map(|l| serde_json::from_str(l).unwrap())
        .collect()
}

/// Every gate learns both tasks, and its folder says what the run said.
#[test]
fn new_encoders_learn_with_every_gate() {
    let case = Case::new();
    for (name, gate) in [
        ("goal", "gate = \"goal\"\ntop_k = 2\nrenormalise = true"),
        ("conditioned", "gate = \"conditioned\"\ntop_k = 1"),
        ("shared", "gate = \"shared\"\ntop_k = 2"),
        (
            "top_p",
            "gate = \"shared\"\ntop_p = 0.4\nbalance = 0\nswitch = 1e-2\nentropy = 1e-4",
        ),
    ] {
        let start = case.new_bert(&format!("{MOE}{gate}"));
        let recipe = case.recipe(name, "epochs = 8", &start);
        case.train(&recipe, name, &[]);
        assert_eq!(case.config(name)["moe"]["goals"], json!(["warm", "loud"]));
        let [warm, loud] = case.scores(name);
        assert!(warm > 0.9 && loud > 0.9, "{name}: {warm} {loud}");
        let found = events(&["diag", "experts", &case.at(name), "-t", &case.tasks[1]]);
        let layers: Vec<&Value> = found.iter().filter(|e| e["type"] == "layer").collect();
        assert_eq!(layers.len(), 2, "{found:?}");
        for layer in layers {
            let goal = matches!(name, "goal" | "conditioned").then_some("loud");
            assert_eq!(layer["goal"].as_str(), goal, "{layer}");
            // Sixteen sentences of five or six words: filling is none of them.
            assert_eq!(layer["tokens"], 88, "{layer}");
            let shares = layer["shares"].as_array().unwrap();
            let sum: f64 = shares.iter().map(|s| s.as_f64().unwrap()).sum();
            let mean = layer["mean"].as_f64().unwrap();
            assert!((sum - mean).abs() < 1e-9 && (1.0..=4.0).contains(&mean));
            assert!(name == "top_p" || mean == [1.0, 2.0][usize::from(name != "conditioned")]);
        }
        let used = found.iter().find(|e| e["type"] == "activated").unwrap();
        let share = used["share"].as_f64().unwrap();
        assert!(share > 0.2 && share < 1.0, "{used}");
    }
    // One goal as a model of its own says the same.
    let args = [
        "compress",
        "goal",
        &case.at("goal"),
        "loud",
        "-o",
        &case.at("own"),
    ];
    done(&args);
    let rows = case.at("loud/test.csv");
    let answers = |model: &str| {
        let to = case.at(&format!("{model}-answers.csv"));
        let task = &case.tasks[1];
        done(&["predict", &case.at(model), &rows, "--task", task, "-o", &to]);
        std::fs::read_to_string(&to).unwrap()
    };
    let (whole, own) = (answers("goal"), answers("own"));
    assert!(whole.lines().count() == 17 && whole == own, "{whole} {own}");
    // What a shared gate makes of texts are vectors as ever; a gate of goals wants to know which.
    let sentence = "the drum lies on sun";
    done(&["run", &case.at("shared"), "--embed", sentence]);
    let told = failed(&["run", &case.at("goal"), "--embed", sentence]);
    assert!(told.contains("chosen by goal"), "{told}");
    done(&["run", &case.at("goal"), "--task", "loud", sentence]);
    done(&["inspect", &case.at("goal")]);
}

#[test]
fn same_bytes_for_any_number_of_threads_and_after_a_stop() {
    let case = Case::new();
    let gate = "gate = \"conditioned\"\ntop_k = 2\nmutual_information = 0.01\nentropy = 0.01";
    let start = case.new_bert(&format!("{MOE}{gate}"));
    let more = "steps = 12\nevaluate_every = 4\nsave_every = 4";
    let recipe = case.recipe("long", more, &start);
    case.train(&recipe, "one", &["--threads", "1"]);
    case.train(&recipe, "three", &["--threads", "3"]);
    let weights = |name: &str| case.read(name, "model.safetensors");
    assert!(weights("one") == weights("three"));
    // Cut short, the run goes on to the same bytes, and not with another number of experts.
    let more = "steps = 300\nevaluate_every = 10\nsave_every = 10";
    let recipe = case.recipe("longer", more, &start);
    case.train(&recipe, "whole", &["-j", "1"]);
    let cut = case.at("cut");
    let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_polyloom"))
        .args(["train", &recipe, "-o", &cut, "-q", "-j", "1"])
        .spawn()
        .unwrap();
    let checkpoint = case.dir.path().join("cut.training/checkpoint.safetensors");
    while !checkpoint.exists() {
        assert!(child.try_wait().unwrap().is_none(), "it ended before");
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(!Path::new(&cut).exists(), "the run was not cut short");
    let other = ["--resume", "-j", "1", "--set", "train.new.moe.top_k=1"];
    let told = failed(&[&["train", &recipe, "-o", &cut], &other[..]].concat());
    assert!(told.contains("checkpoint of another run"), "{told}");
    let told = case.train(&recipe, "cut", &["--resume", "-j", "1"]);
    assert!(told.contains("from step "), "{told}");
    assert!(weights("cut") == weights("whole"));
}

/// Experts that begin as copies: the first pass of the whole says what the base says.
#[test]
fn a_dense_base_becomes_a_mixture() {
    let case = Case::new();
    let base = case.recipe("base", "epochs = 6", &case.new_bert(""));
    case.train(&base, "base", &[]);
    let start = |more: &str| format!("[base]\npath = {:?}\n[train.moe]\n{more}", case.at("base"));
    // Nothing is learned, so that what is written is what the run began with.
    let still = "steps = 1\n[train.head]\nstart = \"zero\"";
    let recipe = case.recipe(
        "still",
        still,
        &start("experts = 3\ntop_k = 2\nlast = 1\ngate = \"shared\""),
    );
    case.train(&recipe, "still", &["--set", "train.rate=0.0"]);
    let config = case.config("still");
    assert_eq!(
        config["moe"],
        json!({
            "experts": 3, "top_k": 2, "last": 1, "gate": "shared", "inner": 24, "renormalise": true,
            "goals": ["warm", "loud"],
        })
    );
    assert!(text(&case.read("still", "README.md")).contains("library_name: \"polyloom\""));
    let vector = |model: &str| -> Vec<f64> {
        let found = events(&[
            "run",
            &case.at(model),
            "--embed",
            "the leaf lies on very sun",
        ]);
        let found = found.iter().find(|e| e["type"] == "embedding").unwrap();
        let list = found["vector"].as_array().unwrap();
        list.iter().map(|x| x.as_f64().unwrap()).collect()
    };
    let (before, after) = (vector("base"), vector("still"));
    let near = |(a, b): (&f64, &f64)| (a - b).abs() < 1e-5;
    assert!(before.iter().zip(&after).all(near), "{before:?} {after:?}");
    // Trained on, with gates that read the task.
    let more = "experts = 3\ntop_k = 2\nlast = 1\ngate = \"conditioned\"";
    let recipe = case.recipe("more", "epochs = 6", &start(more));
    case.train(&recipe, "more", &[]);
    let [warm, loud] = case.scores("more");
    assert!(warm > 0.9 && loud > 0.9, "{warm} {loud}");
    // It goes on as it is, and gets no experts again.
    let again = format!("[base]\npath = {:?}\n", case.at("more"));
    case.train(&case.recipe("on", "steps = 2", &again), "on", &[]);
    assert_eq!(case.config("on")["moe"], case.config("more")["moe"]);
    let no = |more: &str, start: &str, said: &str| {
        let recipe = case.recipe("no", more, start);
        let told = failed(&["train", &recipe, "-o", &case.at("no")]);
        assert!(told.contains(said), "{said}: {told}");
    };
    no(
        "steps = 1",
        &format!("{again}[train.moe]\n"),
        "has experts already",
    );
    no("steps = 1", &start("experts = 3"), "moe.top_k 4 of 3");
    no("steps = 1", &start("last = 3"), "moe.last 3 of 2 layers");
    no(
        "steps = 1",
        &start("inner = 8"),
        "inner follows from the base: 24",
    );
    no("steps = 1", &start("exprts = 8"), "exprts");
    no(
        "steps = 1",
        &start("goals = [\"a\"]"),
        "follows from the tasks",
    );
    no(
        "steps = 1\nmethod = \"lora\"",
        &start("experts = 4"),
        "method = \"full\"",
    );
    let new = format!("{}[train.moe]\n", case.new_bert(""));
    no("steps = 1", &new, "[train.new.moe] is for new models");
    let llama = case.new_bert("mlp_bias = true\n[train.new.moe]\n");
    let llama = llama.replace("\"bert\"", "\"llama\"");
    no("steps = 1", &llama, "experts of decoders have no biases");
    let memories = case.new_bert("[train.new.task_expert]\n");
    no("steps = 1", &memories, "has no experts");
    no(
        "steps = 1\n[train.balance]\nmethod = \"pcgrad\"",
        &start("mutual_information = 0.1"),
        "does not go with experts",
    );
    no(
        "steps = 1\n[train.head]\nstart = \"probe\"",
        &start("gate = \"goal\""),
        "does not go with experts",
    );
    // A decoder's layers with biases cannot become experts.
    let llama = "[train.new]\nmodel_type = \"llama\"\nhidden_size = 8\nintermediate_size = 8\nnum_hidden_layers = 1\n\
                 num_attention_heads = 1\nvocab_size = 260\nmax_position_embeddings = 32\nmlp_bias = true";
    case.train(&case.recipe("llama", "steps = 1", llama), "llama", &[]);
    let start = format!("[base]\npath = {:?}\n[train.moe]\n", case.at("llama"));
    no(
        "steps = 1",
        &format!("{start}experts = 4\nlast = 1"),
        "of the base has a bias",
    );
}
