//! Embedding models as a user meets them: experts of a small BERT for two searches and a similarity, Self Positioning between
//! them, a router that picks one for each query.

use std::fmt::Write as _;
use std::path::Path;

use serde_json::{Value, json};

use super::{polyloom, text};

fn done(args: &[&str]) -> String {
    let out = polyloom(args);
    assert!(out.status.success(), "{args:?}: {}", text(&out.stderr));
    text(&out.stdout)
}

fn refused(args: &[&str], expected: &str) {
    let out = polyloom(args);
    let said = text(&out.stderr);
    assert_eq!(out.status.code(), Some(2), "{args:?}: {said}");
    assert!(said.contains(expected), "{said}");
}

/// Words of a domain: four meanings of three words each.
fn words(domain: &str) -> Vec<String> {
    (0..12).map(|i| format!("{domain}{i}")).collect()
}

fn lines(folder: &Path, name: &str, rows: impl Iterator<Item = Value>) {
    let mut text = String::new();
    for row in rows {
        writeln!(text, "{row}").unwrap();
    }
    std::fs::write(folder.join(name), text).unwrap();
}

/// A search: a text is a word and something beside it, relevant is what has a word of the same meaning.
fn search(dir: &Path, domain: &str) -> String {
    let folder = dir.join(domain);
    std::fs::create_dir(&folder).unwrap();
    let all = words(domain);
    let rows = |from: usize, n: usize| {
        let all = &all;
        (from..from + n).map(move |i| {
            let word = i % 12;
            let beside = format!("z{} z{}", i * 7 % 5, i * 3 % 5);
            json!({"id": i, "text": format!("{} {beside}", all[word]), "label": word % 4})
        })
    };
    lines(&folder, "train.jsonl", rows(0, 96));
    lines(&folder, "validation.jsonl", rows(96, 24));
    lines(&folder, "test.jsonl", rows(120, 24));
    let spec = format!(
        "schema = \"polyloom.task/1\"\nid = \"search-{domain}\"\nversion = \"1\"\ntype = \"retrieval\"\nlicense = \"MIT\"\nqrels = {{ same = \"label\" }}\n\
         [modality]\ninput = [\"text\"]\noutput = \"ranking\"\n[source]\nkind = \"jsonl\"\nroot = \".\"\n\
         [splits]\ntrain = {{ file = \"train.jsonl\" }}\nvalidation = {{ file = \"validation.jsonl\" }}\ntest = {{ file = \"test.jsonl\" }}\ndocuments = {{ file = \"train.jsonl\" }}\n\
         [fields]\nid = \"id\"\nquery = \"text\"\ndocument = \"text\"\ntarget = \"label\"\n[[metrics]]\nname = \"ndcg\"\nprimary = true\nparams = {{ k = 10 }}\n"
    );
    let file = folder.join("task.toml");
    std::fs::write(&file, spec).unwrap();
    file.display().to_string()
}

/// A similarity: words of one meaning are alike.
fn similarity(dir: &Path, domain: &str) -> String {
    let folder = dir.join("alike");
    std::fs::create_dir(&folder).unwrap();
    let all = words(domain);
    let rows = |from: usize, n: usize| {
        let all = &all;
        (from..from + n).map(move |i| {
            let (a, b) = (i % 12, (i * 5 + i / 12) % 12);
            let score = if a % 4 == b % 4 { 5.0 } else { 1.0 };
            json!({"id": i, "text": all[a], "text_b": all[b], "label": score})
        })
    };
    lines(&folder, "train.jsonl", rows(0, 144));
    lines(&folder, "test.jsonl", rows(144, 48));
    let spec = "schema = \"polyloom.task/1\"\nid = \"alike\"\nversion = \"1\"\ntype = \"sts\"\nlicense = \"MIT\"\n\
         [modality]\ninput = [\"text\"]\noutput = \"number\"\n[source]\nkind = \"jsonl\"\nroot = \".\"\n\
         [splits]\ntrain = { file = \"train.jsonl\" }\ntest = { file = \"test.jsonl\" }\n\
         [fields]\nid = \"id\"\ninput = \"text\"\ninput2 = \"text_b\"\ntarget = \"label\"\n[[metrics]]\nname = \"pearson\"\nprimary = true\n";
    let file = folder.join("task.toml");
    std::fs::write(&file, spec).unwrap();
    file.display().to_string()
}

/// A small BERT that was trained on one domain's rows for a step: what the experts begin with.
fn base(dir: &Path, task: &str) -> String {
    let tokens = dir.join("words");
    std::fs::create_dir(&tokens).unwrap();
    let mut all: Vec<String> = ["[PAD]", "[UNK]"].map(str::to_owned).to_vec();
    all.extend(words("a").into_iter().chain(words("b")));
    all.extend((0..5).map(|i| format!("z{i}")));
    let vocabulary: serde_json::Map<String, Value> = all
        .iter()
        .enumerate()
        .map(|(i, word)| (word.clone(), i.into()))
        .collect();
    let tokenizer = json!({
        "version": "1.0", "added_tokens": [], "pre_tokenizer": {"type": "WhitespaceSplit"},
        "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "[UNK]"},
    });
    std::fs::write(tokens.join("tokenizer.json"), tokenizer.to_string()).unwrap();
    let config = json!({"pad_token": "[PAD]", "unk_token": "[UNK]"});
    std::fs::write(tokens.join("tokenizer_config.json"), config.to_string()).unwrap();
    let recipe = format!(
        "seed = 1\n[train]\ntasks = [{task:?}]\nsteps = 1\nbatch = 8\nrate = 1e-6\nvalidation = \"\"\n[train.new]\nmodel_type = \"bert\"\ntokenizer = {tokens:?}\n\
         vocab_size = {}\nhidden_size = 24\nnum_hidden_layers = 1\nnum_attention_heads = 2\nintermediate_size = 48\nmax_position_embeddings = 16\ntype_vocab_size = 2\nhidden_act = \"gelu\"\nlayer_norm_eps = 1e-12\npad_token_id = 0\ninitializer_range = 0.1\n",
        all.len()
    );
    let file = dir.join("base.toml");
    std::fs::write(&file, recipe).unwrap();
    let out = dir.join("base").display().to_string();
    done(&["train", &file.display().to_string(), "-o", &out]);
    out
}

fn value(file: &str, task: &str) -> f64 {
    let all: Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    all["tasks"][task]["value"].as_f64().unwrap()
}

#[test]
fn experts_a_position_between_them_and_a_router() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let at = |name: &str| dir.join(name).display().to_string();
    let (a, b) = (search(dir, "a"), search(dir, "b"));
    let alike = similarity(dir, "a");
    let base = base(dir, &a);
    let learn = |name: &str, task: &str, more: &[&str]| {
        let out = at(name);
        let fixed = ["train", "--base", &base, "-t", task, "-o", &out];
        let rest = ["--steps", "40", "--rate", "5e-3", "--batch", "24"];
        done(&[&fixed[..], &rest, more].concat());
        let told = std::fs::read(Path::new(&out).join("polyloom.json")).unwrap();
        let told: Value = serde_json::from_slice(&told).unwrap();
        // Vectors have no head.
        assert_eq!(told["tasks"][0]["head"], Value::Null);
        assert!(!Path::new(&out).join("heads").exists());
        out
    };
    let (x, y) = (learn("x", &a, &[]), learn("y", &b, &[]));
    let z = learn("z", &alike, &["--set", "train.objective=contrastive"]);
    // A folder without heads knows its own task.
    let here = [
        "--catalogue",
        &at("a"),
        "--catalogue",
        &at("b"),
        "--catalogue",
        &at("alike"),
    ];
    done(&[&["eval", &x, "-o", &at("own.json")][..], &here].concat());
    let both = format!("{a},{b}");
    let score = |model: &str, name: &str, split: &str| {
        let out = at(name);
        let args = ["eval", model, "-t", &both, "--split", split, "-o", &out];
        done(&args);
        out
    };
    let (of_base, of_x, of_y) = (
        score(&base, "base.json", "test"),
        score(&x, "x.json", "test"),
        score(&y, "y.json", "test"),
    );
    assert_eq!(value(&at("own.json"), "search-a"), value(&of_x, "search-a"));
    for (expert, task) in [(&of_x, "search-a"), (&of_y, "search-b")] {
        let (was, is) = (value(&of_base, task), value(expert, task));
        assert!(is > was + 0.1, "{task}: {was} to {is}");
    }
    for (model, name) in [(&base, "alike-base.json"), (&z, "alike-z.json")] {
        done(&["eval", model, "-t", &alike, "-o", &at(name)]);
    }
    let (was, is) = (
        value(&at("alike-base.json"), "alike"),
        value(&at("alike-z.json"), "alike"),
    );
    assert!(is > was + 0.2, "{was} to {is}");

    // Self Positioning over the three, on pairs of two tasks of search and one of similarity.
    let recipe = format!(
        "seed = 1\n[base]\npath = {base:?}\n[[expert]]\npath = {x:?}\ntask = {a:?}\n[[expert]]\npath = {y:?}\ntask = {b:?}\n[[expert]]\npath = {z:?}\ntask = {alike:?}\n\
         [tune]\nmethod = \"self_positioning\"\nsplit = \"train\"\nsteps = 40\nbatch = 24\nrate = 0.05\n"
    );
    let file = at("position.toml");
    std::fs::write(&file, recipe).unwrap();
    done(&["tune", &file, "-o", &at("position")]);
    let learned = std::fs::read(dir.join("position/coefficients.json")).unwrap();
    let learned: Value = serde_json::from_slice(&learned).unwrap();
    let row = &learned["rows"][0];
    let values = row["values"].as_array().unwrap();
    let sum: f64 = values.iter().map(|v| v.as_f64().unwrap()).sum();
    let mu = row["mu"].as_f64().unwrap();
    assert!(mu > 0.0 && (sum - mu).abs() < 1e-5, "{row}");
    let told = std::fs::read(dir.join("position/polyloom.json")).unwrap();
    let told: Value = serde_json::from_slice(&told).unwrap();
    let losses = &told["losses"];
    assert!(
        losses["last"].as_f64().unwrap() < losses["first"].as_f64().unwrap(),
        "{losses}"
    );
    let of_position = score(&at("position"), "position.json", "test");
    for task in ["search-a", "search-b"] {
        assert!(value(&of_position, task) > value(&of_base, task), "{task}");
    }
    // The same bytes for another number of threads.
    done(&["tune", &file, "-o", &at("again"), "-j", "1"]);
    let weights = |name: &str| std::fs::read(dir.join(name).join("model.safetensors")).unwrap();
    assert!(weights("position") == weights("again"));

    // A router over the two searches: pilots of validation queries, each embedded by the base.
    let named = |x: &str, y: &str| format!("x={x},y={y}");
    let seen = named(
        &score(&x, "x-validation.json", "validation"),
        &score(&y, "y-validation.json", "validation"),
    );
    let router = at("router.safetensors");
    let fit = [
        "route",
        "fit",
        "--model",
        &base,
        "--feature",
        "embedding",
        "-t",
        &both,
    ];
    let rest = [
        "--split",
        "validation",
        "--method",
        "pilots",
        "--similarity",
        "cosine",
    ];
    done(&[&fit[..], &rest, &["--results", &seen, "-o", &router]].concat());
    let results = named(&of_x, &of_y);
    let routed = at("routed.json");
    let ask = ["route", "eval", &router, "-t", &both];
    let ask = [&ask[..], &["--results", &results, "-o", &routed]].concat();
    let said = done(&ask);
    assert!(
        said.contains("search-a") && said.contains("best of each row"),
        "{said}"
    );
    // Choices score what the chosen experts do: the base has learned nothing that would tell the domains apart.
    for (own, other, task) in [(&of_x, &of_y, "search-a"), (&of_y, &of_x, "search-b")] {
        let (own, other, routed) = (value(own, task), value(other, task), value(&routed, task));
        let between = other - 1e-9 <= routed && routed <= own + 1e-9;
        assert!(own > other && between, "{task}: {own}, {other}, {routed}");
    }
    let paired = done(&["compare", &of_position, &routed]);
    assert!(paired.contains("search-b"), "{paired}");
    refused(&ask, "exists already");
}

#[test]
fn what_vectors_cannot_answer_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let at = |name: &str| dir.join(name).display().to_string();
    let a = search(dir, "a");
    let base = base(dir, &a);
    let digits = super::tune::data("digits");
    let train = |more: &[&str]| {
        let out = at("never");
        let fixed = ["train", "--base", &base, "-o", &out];
        let fixed: Vec<String> = [&fixed[..], more]
            .concat()
            .iter()
            .map(|s| (*s).to_owned())
            .collect();
        fixed
    };
    let refused_train = |more: &[&str], expected: &str| {
        let args = train(more);
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        refused(&args, expected);
        assert!(!dir.join("never").exists());
    };
    refused_train(
        &["-t", &digits, "--set", "train.objective=contrastive"],
        "is not learned by vectors of texts",
    );
    refused_train(
        &["-t", &a, "--set", "train.similarity_temperature=0"],
        "`train.similarity_temperature` is 0; it must be above 0",
    );
    refused_train(&["-t", &a, "--method", "head"], "nothing is left to train");
    let tune = |more: &[&str], expected: &str| {
        let fixed = [
            "tune",
            "--base",
            &base,
            &base,
            "--method",
            "self_positioning",
        ];
        refused(
            &[&fixed[..], &["-o", &at("never")], more].concat(),
            expected,
        );
        assert!(!dir.join("never").exists());
    };
    tune(&["-t", &digits], "is not learned by vectors of texts");
    tune(&["-t", &a, "--set", "tune.init=0"], "it must be above 0");
    tune(&["-t", &a, "--set", "tune.clamp=true"], "softmax");
    tune(&["-t", &a, "--set", "tune.loss=entropy"], "contrastive");
    tune(&["-t", &a, "--split", "nowhere"], "nowhere");
}
