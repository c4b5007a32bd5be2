//! `polyloom eval` of a decoder: the likelihood of choices, texts that it goes on with.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use polyloom_learn::models::generate::log_likelihood;
use polyloom_learn::models::open::{Model, Trunk};
use serde_json::{Value, json};

use super::{polyloom, text};

/// The words of the tokenizer, by id.
const WORDS: [&str; 12] = [
    "[UNK]", "review", "is", "fine", "awful", "Mood", ":", "bad", "good", "not", "0", "1",
];

/// A tiny Llama with a tokenizer of a dozen words.
pub fn model(dir: &Path) -> PathBuf {
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("../polyloom-learn/tests/models/llama");
    let folder = dir.join("speaker");
    std::fs::create_dir_all(&folder).unwrap();
    for file in ["config.json", "model.safetensors"] {
        std::fs::copy(from.join(file), folder.join(file)).unwrap();
    }
    let vocab: serde_json::Map<String, Value> = WORDS
        .iter()
        .enumerate()
        .map(|(i, w)| ((*w).to_owned(), json!(i)))
        .collect();
    let tokenizer = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
        "pre_tokenizer": {"type": "Whitespace"}, "post_processor": null, "decoder": null,
        "model": {"type": "WordLevel", "vocab": vocab, "unk_token": "[UNK]"},
    });
    std::fs::write(folder.join("tokenizer.json"), tokenizer.to_string()).unwrap();
    folder
}

pub fn task(dir: &Path, name: &str, kind: &str, prompts: &str, metric: &str) -> String {
    let mut rows = "id,text,mood\n".to_owned();
    for i in 0..10 {
        let (word, mood) = if i % 2 == 0 {
            ("fine", "good")
        } else {
            ("awful", "not bad")
        };
        writeln!(rows, "r{i},review {} is {word},{mood}", i % 2).unwrap();
    }
    std::fs::write(dir.join("rows.csv"), rows).unwrap();
    let labels = match kind {
        "classification" => "[labels]\nnames = [\"good\", \"not bad\"]",
        _ => "",
    };
    let spec = format!(
        "schema = \"polyloom.task/1\"\nid = \"mine/{name}\"\ntype = \"{kind}\"\n[source]\nkind = \"csv\"\nroot = \".\"\n\
         [splits]\ntest = {{ file = \"rows.csv\" }}\n[fields]\nid = \"id\"\ninput = \"text\"\ntarget = \"mood\"\n{labels}\n\
         {prompts}\n[[metrics]]\nname = \"{metric}\"\nprimary = true\n"
    );
    let path = dir.join(format!("{name}.task.toml"));
    std::fs::write(&path, spec).unwrap();
    path.display().to_string()
}

#[test]
fn a_decoder_takes_the_likeliest_choice_or_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let folder = model(dir.path());
    let choices = "[[prompts]]\ntemplate = \"{{input}}\\nMood: \"\nchoices = [\"good\", \"not bad\"]\ntarget = \"{{target}}\"";
    let free = "[[prompts]]\ntemplate = \"{{input}}\\nMood:\"\ntarget = \"{{target}}\"";
    let specs = [
        task(dir.path(), "class", "classification", choices, "accuracy"),
        task(dir.path(), "choice", "multiple_choice", choices, "acc"),
        task(dir.path(), "free", "generation", free, "exact_match"),
    ];
    let target = dir.path().join("r.json");
    let (root, shown) = (folder.display().to_string(), target.display().to_string());
    let tasks = specs.join(",");
    let args = [
        "eval",
        &*root,
        "-t",
        &*tasks,
        "-o",
        &*shown,
        "--max-tokens",
        "3",
    ];
    let out = polyloom(&args);
    assert!(out.status.success(), "{}", text(&out.stderr));
    let found: Value = serde_json::from_str(&std::fs::read_to_string(&target).unwrap()).unwrap();

    // The same by hand: tokens of both choices after the prompt's.
    let model = Model::open(&folder).unwrap();
    let Trunk::Decoder(decoder) = &model.trunk else {
        panic!()
    };
    let ids = |words: &str| -> Vec<u32> {
        let place = |w| WORDS.iter().position(|x| *x == w).unwrap() as u32;
        words.split(' ').map(place).collect()
    };
    let mut right = 0;
    for i in 0..10 {
        let word = if i % 2 == 0 { "fine" } else { "awful" };
        let context = ids(&format!("review {} is {word} Mood :", i % 2));
        let of = |words: &str| {
            log_likelihood(decoder, &model.weights, &context, &ids(words))
                .unwrap()
                .0
        };
        let chosen = usize::from(of("not bad") > of("good"));
        right += usize::from(chosen == i % 2);
    }
    let wanted = right as f64 / 10.0;
    for name in ["mine/class", "mine/choice"] {
        assert_eq!(
            found["tasks"][name]["value"].as_f64().unwrap(),
            wanted,
            "{name}"
        );
    }
    assert_eq!(found["tasks"]["mine/free"]["n"], 10);

    // Examples in the prompt change the question; a model without room for any says so.
    let fewer = dir.path().join("few.json").display().to_string();
    let out = polyloom(&[
        "eval",
        &root,
        "-t",
        &specs[0],
        "-o",
        &fewer,
        "--fewshot",
        "2",
        "--max-length",
        "9",
    ]);
    assert!(out.status.success(), "{}", text(&out.stderr));
    assert!(
        text(&out.stderr).contains("their beginning was cut off"),
        "{}",
        text(&out.stderr)
    );
    let out = polyloom(&[
        "eval",
        &root,
        "-t",
        &specs[0],
        "-o",
        &fewer,
        "--max-length",
        "1",
        "--force",
    ]);
    assert_eq!(out.status.code(), Some(2));
    assert!(
        text(&out.stderr).contains("example `r0`"),
        "{}",
        text(&out.stderr)
    );
}
