//! BIG-bench JSON and BIG-Bench Hard.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::{bad, checked, id, raw, words};
use crate::error::Result;
use crate::tasks::spec::{Choices, Metric, Prompt, Source, SourceKind, Split, TaskSpec, TaskType};

/// A BIG-bench JSON task: `examples` with `target_scores` are multiple choice, with `target` free text. Rows are kept in the
/// spec as `input`, `choices`, `target` (the first right answer), `best` (all right answers), `targets` (accepted texts as
/// given).
///
/// # Errors
/// JSON that is none, no examples, an example without target, a metric that no spec has.
pub fn task(source: &str) -> Result<TaskSpec> {
    let value: Value =
        serde_json::from_str(source).map_err(|e| bad(format!("is not valid JSON: {e}")))?;
    let name = value["name"]
        .as_str()
        .ok_or_else(|| bad("`name` is missing"))?;
    let examples = value["examples"]
        .as_array()
        .ok_or_else(|| bad("`examples` is missing"))?;
    let choice = examples.iter().any(|e| e["target_scores"].is_object());
    let mut spec = TaskSpec::new(id(name), Source::new(SourceKind::Inline, ""));
    spec.title = name.to_owned();
    spec.description = value["description"].as_str().unwrap_or_default().to_owned();
    spec.canary = value["canary"].as_str().unwrap_or_default().to_owned();
    spec.tags.skills = words(&value["keywords"]);
    spec.kind = Some(if choice {
        TaskType::MultipleChoice
    } else {
        TaskType::Generation
    });
    for (i, example) in examples.iter().enumerate() {
        let mut row = Map::new();
        row.insert("id".into(), i.to_string().into());
        row.insert("input".into(), example["input"].clone());
        let targets = words(&example["target"]);
        let mut best = targets.clone();
        if let Some(scores) = example["target_scores"].as_object() {
            let top = scores
                .values()
                .filter_map(Value::as_f64)
                .fold(f64::MIN, f64::max);
            let right = scores.iter().filter(|(_, s)| s.as_f64() == Some(top));
            best = right.map(|(c, _)| c.clone()).collect();
            row.insert("choices".into(), scores.keys().cloned().collect());
        }
        let first = best
            .first()
            .ok_or_else(|| bad(format!("example {i} has no target")))?;
        row.insert("target".into(), first.clone().into());
        row.insert("best".into(), best.into());
        if !targets.is_empty() {
            row.insert("targets".into(), targets.into());
        }
        spec.source.rows.push(row);
    }
    spec.splits.named.insert("test".into(), Split::default());
    spec.fields.id = "id".into();
    spec.fields.input = "input".into();
    spec.fields.target = if choice { "target" } else { "best" }.into();
    let prefix = |key: &str, default: &str| value[key].as_str().unwrap_or(default).to_owned();
    let (before, after) = (
        prefix("example_input_prefix", "\nQ: "),
        prefix("example_output_prefix", "\nA: "),
    );
    let mark = prefix("choice_prefix", "\n  choice: ");
    let shown = value["append_choices_to_input"].as_bool().unwrap_or(true) && choice;
    let list = if shown {
        format!(
            "{{% for c in choices %}}{}{{{{c}}}}{{% endfor %}}",
            raw(&mark)
        )
    } else {
        String::new()
    };
    spec.prompts.push(Prompt {
        instruction: raw(&prefix("task_prefix", "")),
        template: format!("{}{{{{input}}}}{list}{}", raw(&before), raw(&after)),
        choices: choice.then(|| Choices::Template("{{choices}}".into())),
        target: "{{target}}".into(),
        target_delimiter: String::new(),
        fewshot_delimiter: prefix("few_shot_example_separator", "\n"),
        ..Prompt::default()
    });
    let preferred = value["preferred_score"].as_str().unwrap_or_default();
    for metric in words(&value["metrics"]) {
        let primary = metric == preferred;
        spec.metrics.push(Metric::named(metric, primary));
    }
    checked(spec)
}

/// A BIG-Bench Hard file (`canary`, `examples` of `input` and `target`): free answers by exact match, asked without worked
/// steps. `score.chance` is 1 over the number of listed options, averaged over rows, or over the number of different
/// answers where there are at most three.
///
/// # Errors
/// JSON that is none, no examples, an example without `input` or `target`.
pub fn hard(source: &str, name: &str) -> Result<TaskSpec> {
    let value: Value =
        serde_json::from_str(source).map_err(|e| bad(format!("is not valid JSON: {e}")))?;
    let examples = value["examples"]
        .as_array()
        .ok_or_else(|| bad("`examples` is missing"))?;
    let mut spec = TaskSpec::new(
        id(&format!("bbh/{name}")),
        Source::new(SourceKind::Inline, ""),
    );
    spec.kind = Some(TaskType::Generation);
    spec.title = name.replace('_', " ");
    spec.canary = value["canary"].as_str().unwrap_or_default().to_owned();
    spec.tags.tags = vec!["bbh".into()];
    spec.language = vec!["en".into()];
    let mut answers = BTreeSet::new();
    let mut guess = Vec::new();
    for (i, example) in examples.iter().enumerate() {
        let part = |key: &str| {
            example[key]
                .as_str()
                .ok_or_else(|| bad(format!("example {i} has no `{key}`")))
        };
        let (input, target) = (part("input")?, part("target")?);
        let options = options(input);
        if options.iter().any(|o| o == target) {
            guess.push(1.0 / options.len() as f64);
        }
        answers.insert(target.to_owned());
        let row = [
            ("id", i.to_string()),
            ("input", input.into()),
            ("target", target.into()),
        ];
        let row = row.into_iter().map(|(k, v)| (k.to_owned(), Value::from(v)));
        spec.source.rows.push(row.collect());
    }
    if guess.len() == examples.len() {
        spec.score.chance = Some(crate::evaluate::sum::mean(guess.iter().copied()));
    } else if (2..=3).contains(&answers.len()) {
        spec.score.chance = Some(1.0 / answers.len() as f64);
    }
    spec.splits.named.insert("test".into(), Split::default());
    spec.fields.id = "id".into();
    spec.fields.input = "input".into();
    spec.fields.target = "target".into();
    spec.prompts.push(Prompt {
        template: "Q: {{input}}\nA:".into(),
        target: "{{target}}".into(),
        ..Prompt::default()
    });
    spec.generation.stop = vec!["</s>".into(), "Q:".into(), "\n\n".into()];
    spec.metrics = vec![Metric::named("exact_match", true)];
    checked(spec)
}

/// The options that a question lists, `(A)` to `(Z)`, each at the start of a line.
fn options(input: &str) -> Vec<String> {
    let listed = |line: &str| {
        let mut chars = line.chars();
        let (open, letter, close) = (chars.next()?, chars.next()?, chars.next()?);
        (open == '(' && letter.is_ascii_uppercase() && close == ')').then(|| line[..3].to_owned())
    };
    input.lines().filter_map(listed).collect()
}
