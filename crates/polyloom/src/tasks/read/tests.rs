use super::*;
use crate::tasks::spec::{GroupAs, TaskType};

/// The example of the specification.
const TOY: &str = r#"
schema   = "polyloom.task/1"
id       = "nli/toy"
version  = "1.0"
type     = "multiple_choice"
title = ""
language = ["en"]
[modality]
input = ["text"]
output = "text"
[tags]
skills = ["reasoning"]
capability = ["English"]
[weights]
train = 1.0
eval  = 1.0
[source]
kind = "jsonl"
root = "data/toy"
sha256 = {}
[splits]
train = { file = "train.jsonl", slice = "[:90%]", seed = 0 }
validation = { file = "train.jsonl", slice = "[90%:]", seed = 0 }
test = { file = "test.jsonl" }
fewshot = "train"
[fields]
id = "id"
input = "premise"
input2 = "hypothesis"
target = "label"
cluster = "doc_id"
[labels]
names = ["entailment", "neutral", "contradiction"]
map = { "e" = 0 }
ignore = [-1]
[filter]
drop_if_missing = ["input", "target"]
dedupe_on = ["input", "input2"]
[[prompts]]
id = "default"
template = "{{input}}\nAnswer:"
choices = ["True", "False"]
target = "{{target}}"
[fewshot]
n = 0
sampler = "first"
[generation]
stop = ["\n\n"]
[[parse]]
name = "strict"
steps = [ { regex = "answer is (.+?)\\.", group = -1 }, { strip = true }, { lower = true } ]
[[metrics]]
name = "acc"
primary = true
params = {}
aggregate = "mean"
[score]
chance = 0.5
maximum = 1.0
human = 0.92
[expert]
score = 0.88
[table]
features = ["age", "job", "hours"]
categorical = ["job"]
group = "hospital"
group_as = "cluster"
"#;

fn task(text: &str) -> TaskSpec {
    match toml(text, "toy.toml").unwrap() {
        Document::Task(task) => *task,
        Document::Group(_) => panic!("a group"),
    }
}

fn told(text: &str) -> Vec<String> {
    let errors = toml(text, "toy.toml").unwrap_err();
    errors.iter().map(ToString::to_string).collect()
}

#[test]
fn the_example_is_read_and_written_back_equal() {
    let spec = task(TOY);
    assert_eq!(spec.kind, Some(TaskType::MultipleChoice));
    assert_eq!(spec.splits.fewshot.as_deref(), Some("train"));
    assert_eq!(spec.splits.named["validation"].seed, Some(0));
    assert_eq!(spec.table.as_ref().unwrap().group_as, GroupAs::Cluster);
    assert_eq!(spec.parse[0].steps[0].group, Some(-1));
    let written = ::toml::to_string(&spec).unwrap();
    assert_eq!(task(&written), spec, "{written}");
}

#[test]
fn json_and_yaml_have_the_same_keys() {
    let spec = task(TOY);
    let dir = tempfile::tempdir().unwrap();
    let json = serde_json::to_string(&spec).unwrap();
    for name in ["a.json", "a.yaml"] {
        let path = dir.path().join(name);
        std::fs::write(&path, &json).unwrap();
        assert_eq!(file(&path).unwrap(), Document::Task(Box::new(spec.clone())));
        std::fs::write(
            &path,
            json.replace("\"license\"", "\"licence\"")
                .replace("\"version\"", "\"vers\""),
        )
        .unwrap();
        assert!(
            file(&path).unwrap_err()[0].to_string().contains("vers"),
            "{name}"
        );
    }
}

#[test]
fn unknown_keys_are_all_reported_with_place_and_nearest() {
    let text = TOY
        .replace("language =", "langage =")
        .replace("fewshot_delim", "x")
        .replace("template =", "templte =");
    let errors = toml(&text, "toy.toml").unwrap_err();
    assert_eq!(errors.len(), 2);
    let first = errors[0].to_string();
    assert!(
        first.starts_with("toy.toml:7:1: unknown key `langage`\n   7 | langage"),
        "{first}"
    );
    assert_eq!(errors[0].hints(), ["did you mean `language`?"]);
    assert!(
        errors[1]
            .to_string()
            .contains("unknown key `templte` in `prompts`")
    );
    let split = TOY.replace("test = { file", "test = { fil");
    assert!(told(&split)[0].contains("unknown key `fil` in `splits`"));
}

#[test]
fn wrong_types_have_their_line() {
    assert!(told(&TOY.replace("version  = \"1.0\"", "version = 1"))[0].starts_with("toy.toml:4:"));
    assert!(told(&TOY.replace("\"multiple_choice\"", "\"quiz\""))[0].starts_with("toy.toml:5:"));
    assert!(told("id = \"x\"")[0].contains("`schema` must be"));
    assert!(told("schema = ")[0].contains("is not valid TOML"));
}

#[test]
fn bad_values_name_the_path_of_their_field() {
    for (from, to, path, line) in [
        ("\"nli/toy\"", "\"NLI toy\"", "id", "id  "),
        ("train = 1.0", "train = 0.0", "weights.train", "train = 0.0"),
        ("eval  = 1.0", "eval = -1.0", "weights.eval", "eval = -1.0"),
        (
            "name = \"acc\"",
            "name = \"acuracy\"",
            "metrics[0].name",
            "name = \"acuracy\"",
        ),
        (
            "choices = [\"True\", \"False\"]",
            "",
            "prompts[0].choices",
            "[[prompts]]",
        ),
        ("[90%:]", "[80%:]", "splits.validation", "validation ="),
        (
            "seed = 0 }\ntest",
            "seed = 1 }\ntest",
            "splits.validation.seed",
            "validation =",
        ),
        (
            "fewshot = \"train\"",
            "fewshot = \"shots\"",
            "splits.fewshot",
            "fewshot = ",
        ),
        ("(.+?)", "(.+?", "parse[0].steps[0].regex", "steps ="),
        ("\"e\" = 0", "\"e\" = 3", "labels.map", "map ="),
        (
            "maximum = 1.0",
            "maximum = 0.5",
            "score.maximum",
            "maximum =",
        ),
    ] {
        let text = TOY.replacen(from, to, 1);
        assert_ne!(text, TOY, "{from}");
        let errors = told(&text);
        assert_eq!(errors.len(), 1, "{errors:?}");
        let number = text.lines().position(|l| l.starts_with(line)).unwrap() + 1;
        let at = format!("toy.toml:{number}:");
        assert!(
            errors[0].starts_with(&at) && errors[0].contains(&format!("`{path}`: ")),
            "{errors:?}"
        );
    }
}

#[test]
fn the_hash_ignores_what_cannot_move_a_score() {
    use crate::tasks::hash::task_hash;
    let none = std::collections::BTreeMap::new();
    let hash = |text: &str| task_hash(&task(text), &none);
    let base = hash(TOY);
    assert_eq!(base.len(), 64);
    assert_eq!(base, hash(&TOY.replace("title = \"\"", "title = \"Toy\"")));
    assert_eq!(base, hash(&TOY.replace("train = 1.0", "train = 2.0")));
    assert_eq!(
        base,
        hash(&TOY.replace("[fewshot]\nn = 0\nsampler = \"first\"", ""))
    );
    assert_ne!(base, hash(&TOY.replace("Answer:", "Reply:")));
    let files = std::collections::BTreeMap::from([("test.jsonl".to_owned(), "00".to_owned())]);
    assert_ne!(base, task_hash(&task(TOY), &files));
}
