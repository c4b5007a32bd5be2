//! Templates and importers.

use std::sync::OnceLock;

use polyloom::tasks::prompt::{Record, Renderer};
use polyloom::tasks::spec::{Split, TaskSpec};
use polyloom::tasks::{import, read};
use serde_json::{Map, Value, json};

use super::{Case, Outcome, golden};

/// `prompt_templates`: one template over one set of fields, which only the first case spells out.
pub fn templates(case: &Case) -> Outcome {
    static FIRST: OnceLock<Record> = OnceLock::new();
    let first = FIRST.get_or_init(|| {
        let file = golden("evaluation").join("prompt_templates.json");
        let value: Value = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
        value["cases"][0]["input"]["fields"]
            .as_object()
            .unwrap()
            .clone()
    });
    let fields = case.input["fields"].as_object().unwrap_or(first);
    let template = case.input["template"].as_str().unwrap();
    match Renderer::new().render(template, fields) {
        Ok(text) => Outcome::Values(Map::from_iter([("text".to_owned(), text.into())])),
        Err(error) => Outcome::Refused(error.to_string()),
    }
}

/// `task_catalogue`: foreign files as specs and as they are asked.
pub fn imports(case: &Case) -> Outcome {
    let source = case.input["source"].as_str().unwrap_or_default();
    let mut out = Map::new();
    match case.input["format"].as_str().unwrap() {
        "lm-eval-yaml" => {
            let spec = import::lm_eval::task(source).unwrap();
            let records: Vec<Record> = case.input["records"]
                .as_array()
                .unwrap()
                .iter()
                .map(|r| r.as_object().unwrap().clone())
                .collect();
            let prompt = &spec.prompts[0];
            let renderer = Renderer::new();
            let question = renderer.question(prompt, &records[1]).unwrap();
            let context = |shots| renderer.context(prompt, shots, &records[1]).unwrap();
            let rendered = json!([{
                "context_zero_shot": context(&[]),
                "context_one_shot_from_record_0": context(&records[..1]),
                "continuations": question.continuations(&prompt.target_delimiter),
                "gold": question.gold,
            }]);
            let splits = files(&spec);
            out.insert("rendered".into(), rendered);
            out.insert("spec".into(), json!({
                "id": spec.id, "type": spec.kind, "tags": spec.tags.tags, "splits": splits,
                "fewshot_split": spec.splits.fewshot, "num_fewshot": spec.fewshot.n, "version": spec.version,
                "metrics": names(&spec), "primary_metric": spec.primary_metric().unwrap().name,
                "target_delimiter": prompt.target_delimiter, "fewshot_delimiter": prompt.fewshot_delimiter,
            }));
        }
        "big-bench-json" => {
            let spec = import::big_bench::task(source).unwrap();
            let renderer = Renderer::new();
            let rendered = spec.source.rows.iter().map(|row| {
                let question = renderer.question(&spec.prompts[0], row).unwrap();
                assert_eq!(
                    row["best"][0].as_str(),
                    question.targets.first().map(String::as_str)
                );
                json!({
                    "context_zero_shot": renderer.context(&spec.prompts[0], &[], row).unwrap(),
                    "choices": question.choices, "gold": row["best"], "targets": row.get("targets"),
                })
            });
            out.insert("rendered".into(), rendered.collect());
            out.insert("spec".into(), json!({
                "id": spec.id, "type": spec.kind, "skills": spec.tags.skills, "metrics": names(&spec),
                "primary_metric": spec.primary_metric().unwrap().name,
            }));
        }
        "natural-instructions-json" => {
            let spec = import::natural::task(source, "toy").unwrap();
            let renderer = Renderer::new();
            let rendered = spec.source.rows.iter().map(|row| {
                json!({
                    "context": renderer.context(&spec.prompts[0], &[], row).unwrap(),
                    "targets": renderer.question(&spec.prompts[0], row).unwrap().targets,
                })
            });
            out.insert("rendered".into(), rendered.collect());
            out.insert("spec".into(), json!({
                "type": spec.kind, "skills": spec.tags.skills, "domains": spec.tags.domains,
                "language": spec.language, "license": spec.license, "instruction": spec.description,
                "metrics": names(&spec), "primary_metric": spec.primary_metric().unwrap().name,
            }));
        }
        "tasksource" => {
            let value: Value = serde_json::from_str(source).unwrap();
            let mut file = |_: &str, split: &str| Split {
                file: split.to_owned(),
                ..Split::default()
            };
            let spec = import::hub::tasksource_columns(&value, "toy", &mut file).unwrap();
            let records = case.input["records"].as_array().unwrap();
            let labels: Vec<Value> = records
                .iter()
                .map(|r| r[&spec.fields.target].clone())
                .collect();
            let names = import::hub::label_names(&labels);
            let class = |v: &Value| names.iter().position(|n| v.as_str() == Some(n));
            let ids: Vec<Option<usize>> = labels.iter().map(class).collect();
            let f = &spec.fields;
            out.insert("label_ids".into(), json!(ids));
            out.insert(
                "spec".into(),
                json!({
                    "type": spec.kind,
                    "fields": {"sentence1": f.input, "sentence2": f.input2, "label": f.target},
                    "splits": files(&spec), "labels": names,
                }),
            );
        }
        "hf-dataset-card" => {
            let specs = import::card::card(source, "toy", None, &mut Vec::new()).unwrap();
            assert_eq!(specs.len(), 1);
            let spec = &specs[0];
            let f = &spec.fields;
            out.insert(
                "spec".into(),
                json!({
                    "type": spec.kind, "language": spec.language, "license": spec.license,
                    "skills": spec.tags.skills, "splits": files(spec),
                    "fields": {&f.input: f.input, &f.target: f.target}, "labels": spec.labels.names,
                }),
            );
        }
        "polyloom" => {
            let problems = case.input["problems"].as_array().unwrap();
            let fields = problems
                .iter()
                .map(|p| Value::from(lint(p.as_str().unwrap())));
            out.insert("error_field".into(), fields.collect());
        }
        _ => return Outcome::NotBuilt,
    }
    Outcome::Values(out)
}

fn files(spec: &TaskSpec) -> Map<String, Value> {
    let splits = spec.splits.named.iter();
    splits
        .map(|(n, s)| (n.clone(), s.file.clone().into()))
        .collect()
}

fn names(spec: &TaskSpec) -> Vec<&str> {
    spec.metrics.iter().map(|m| &*m.name).collect()
}

/// The field that a task with one planted problem is refused for, in the words of the vectors.
fn lint(problem: &str) -> String {
    let good = "schema = \"polyloom.task/1\"\nid = \"toy\"\ntype = \"multiple_choice\"\n[weights]\ntrain = 1.0\n\
        [source]\nkind = \"jsonl\"\n[splits]\ntrain = { file = \"a.jsonl\", slice = \"[:90%]\" }\n\
        test = { file = \"a.jsonl\", slice = \"[90%:]\" }\n[[prompts]]\ntemplate = \"{{q}}\"\nchoices = [\"a\"]\n\
        [[metrics]]\nname = \"acc\"\n";
    assert!(read::toml(good, "toy.toml").is_ok());
    let (from, to) = match problem {
        "unknown-metric" => ("\"acc\"", "\"acuracy\""),
        "choices-missing" => ("choices = [\"a\"]\n", ""),
        "weight-negative" => ("train = 1.0", "train = -1.0"),
        "split-overlap" => ("[90%:]", "[80%:]"),
        other => panic!("unknown problem {other}"),
    };
    let errors = read::toml(&good.replace(from, to), "toy.toml").unwrap_err();
    assert_eq!(errors.len(), 1);
    let message = errors[0].to_string();
    let path = message.split('`').nth(1).unwrap();
    // The vectors name the kind of field; ours is the place in the file.
    match path {
        "metrics[0].name" => "metric",
        "prompts[0].choices" => "prompt.choices",
        "weights.train" => "weight",
        "splits.test" => "splits",
        other => other,
    }
    .to_owned()
}
