//! Specs as lm-evaluation-harness YAML.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::bad;
use crate::error::Result;
use crate::tasks::prompt::mentions;
use crate::tasks::spec::{
    Choices, Fields, Filter, Generation, Labels, Metric, Prompt, Sampler, SamplerName, SourceKind,
    TaskSpec, TaskType,
};

/// A task as lm-evaluation-harness YAML that its importer reads back equal. `folder` stands before relative files (empty
/// leaves them as they are); rows of an inline task are expected in `rows_file`.
///
/// Canonical fields that a prompt uses become `{% set ... %}` at its front. Titles, tags, descriptions of data and weights
/// that the format has no key for are left out: they move no score.
///
/// # Errors
/// What the format cannot say, by key: another type than multiple choice, generation or perplexity, several prompts or
/// none, tables, slices of files, filters, label maps, shown choices, a balanced sampler.
pub fn lm_eval(spec: &TaskSpec, folder: &str, rows_file: &str) -> Result<String> {
    let no = |key: &str, why: &str| Err(bad(format!("`{key}` has no form in lm-eval YAML: {why}")));
    let output = match spec.kind {
        Some(TaskType::MultipleChoice) => "multiple_choice",
        Some(TaskType::Generation) => "generate_until",
        Some(TaskType::Perplexity) => "loglikelihood_rolling",
        Some(other) => return no("type", other.name()),
        None => return no("targets", "it is several tasks"),
    };
    if spec.table.is_some() {
        return no("table", "it is made of columns");
    }
    if spec.filter != Filter::default() {
        return no("filter", "rows cannot be left out without code");
    }
    if spec.labels != Labels::default() {
        return no("labels", "put the names into the choices");
    }
    if spec.qrels.is_some() {
        return no("qrels", "it is a ranking");
    }
    let mut out = String::new();
    let mut put = |key: &str, value: &Value| {
        let _ = writeln!(out, "{key}: {value}");
    };
    put("task", &json!(spec.id));
    if !spec.title.is_empty() {
        put("task_alias", &json!(spec.title));
    }
    if !spec.tags.tags.is_empty() {
        put("tag", &json!(spec.tags.tags));
    }
    let path = match spec.source.kind {
        SourceKind::Json | SourceKind::Jsonl | SourceKind::Inline => "json",
        SourceKind::Csv | SourceKind::Tsv => "csv",
        SourceKind::Parquet => "parquet",
        _ => return no("source.kind", "not a table of rows"),
    };
    put("dataset_path", &json!(path));
    let mut files = serde_json::Map::new();
    for (name, split) in &spec.splits.named {
        if !split.slice.is_empty() || split.seed.is_some() {
            return no(
                &format!("splits.{name}.slice"),
                "write the parts with `tasks split`",
            );
        }
        let file = if spec.source.kind == SourceKind::Inline {
            rows_file
        } else {
            &split.file
        };
        let absolute = std::path::Path::new(file).is_absolute();
        let file = if folder.is_empty() || absolute || spec.source.kind == SourceKind::Inline {
            file.to_owned()
        } else {
            format!("{}/{file}", folder.trim_end_matches('/'))
        };
        files.insert(name.clone(), file.into());
    }
    put("dataset_kwargs", &json!({"data_files": files}));
    put("output_type", &json!(output));
    for name in spec.splits.named.keys() {
        match &**name {
            "train" => put("training_split", &json!("train")),
            "validation" | "test" => put(&format!("{name}_split"), &json!(name)),
            other if spec.splits.fewshot.as_deref() == Some(other) => {}
            other => {
                return no(
                    &format!("splits.{other}"),
                    "only train, validation, test and the few-shot split",
                );
            }
        }
    }
    if let Some(name) = &spec.splits.fewshot {
        put("fewshot_split", &json!(name));
    }
    put("num_fewshot", &json!(spec.fewshot.n));
    match &spec.fewshot.sampler {
        Sampler::Named(SamplerName::Seeded) => {
            put("fewshot_config", &json!({"sampler": "default"}));
        }
        Sampler::Named(SamplerName::First) => {
            put("fewshot_config", &json!({"sampler": "first_n"}));
        }
        Sampler::Named(SamplerName::Balanced) => return no("fewshot.sampler", "balanced"),
        Sampler::Fixed(fixed) => {
            let indices: Option<Vec<u64>> = fixed.fixed.iter().map(|f| f.parse().ok()).collect();
            let Some(indices) = indices else {
                return no("fewshot.sampler", "its rows are named by id, not by number");
            };
            put("fewshot_config", &json!({"fewshot_indices": indices}));
        }
    }
    match (&spec.prompts[..], spec.kind) {
        (_, Some(TaskType::Perplexity)) => {
            put("doc_to_text", &json!(""));
            put("doc_to_target", &json!(spec.fields.input));
        }
        ([prompt], _) => asked(prompt, &spec.fields, &mut put)?,
        (list, _) => return no("prompts", &format!("{} of them, it has one", list.len())),
    }
    let g = &spec.generation;
    if *g != Generation::default() {
        put(
            "generation_kwargs",
            &json!({
                "until": g.stop, "max_gen_toks": g.max_tokens, "temperature": g.temperature,
                "do_sample": g.temperature > 0.0,
            }),
        );
        put("repeats", &json!(g.repeats));
    }
    let mut chains = Vec::new();
    for chain in &spec.parse {
        let mut steps: Vec<Value> = chain.steps.iter().map(|s| match &s.regex {
            Some(pattern) => json!({"function": "regex", "regex_pattern": pattern, "group_select": s.group.unwrap_or(0)}),
            None if s.strip => json!({"function": "remove_whitespace"}),
            None => json!({"function": "lowercase"}),
        }).collect();
        steps.push(json!({"function": "take_first"}));
        chains.push(json!({"name": chain.name, "filter": steps}));
    }
    if !chains.is_empty() {
        put("filter_list", &Value::from(chains));
    }
    let (primary, others): (Vec<&Metric>, Vec<&Metric>) =
        spec.metrics.iter().partition(|m| m.primary);
    let metrics: Vec<Value> = primary.into_iter().chain(others).map(metric).collect();
    if !metrics.is_empty() {
        put("metric_list", &Value::from(metrics));
    }
    put("metadata", &json!({"version": spec.version}));
    Ok(out)
}

fn metric(metric: &Metric) -> Value {
    let mut entry = json!({"metric": metric.name});
    if let Some(map) = entry.as_object_mut() {
        // Their corpus metrics are aggregated by a function of the same name.
        let corpus = ["bleu", "chrf", "ter", "f1", "mcc"].contains(&&*metric.name);
        let perplexity = match &*metric.name {
            "word_perplexity" | "byte_perplexity" => Some("weighted_perplexity"),
            "perplexity" => Some("perplexity"),
            "bits_per_byte" => Some("bits_per_byte"),
            _ => None,
        };
        let plain = metric.aggregate == "mean";
        let how = match perplexity {
            Some(how) if plain => how,
            _ if corpus && plain => &metric.name,
            _ => &metric.aggregate,
        };
        map.insert("aggregation".into(), how.into());
        if let Some(known) = crate::tasks::metrics::find(&metric.name) {
            map.insert("higher_is_better".into(), known.higher_is_better.into());
        }
        map.extend(metric.params.clone());
    }
    entry
}

fn asked(prompt: &Prompt, fields: &Fields, put: &mut impl FnMut(&str, &Value)) -> Result<()> {
    if !prompt.choice_format.is_empty() {
        return Err(bad(
            "`prompts[0].choice_format` has no form in lm-eval YAML: write the choices into the template",
        ));
    }
    let with_fields = |template: &str| {
        let mut front = String::new();
        for (name, column) in fields.given() {
            if name != column && mentions(template, name) {
                let value = column
                    .trim()
                    .trim_start_matches("{{")
                    .trim_end_matches("}}")
                    .trim();
                let _ = write!(front, "{{% set {name} = {value} %}}");
            }
        }
        front + template
    };
    put("description", &json!(with_fields(&prompt.instruction)));
    put("doc_to_text", &json!(with_fields(&prompt.template)));
    match &prompt.choices {
        Some(Choices::List(list)) => put("doc_to_choice", &json!(list)),
        Some(Choices::Template(t)) => put("doc_to_choice", &json!(with_fields(t))),
        None => {}
    }
    if !prompt.target.is_empty() {
        put("doc_to_target", &json!(with_fields(&prompt.target)));
    }
    put("target_delimiter", &json!(prompt.target_delimiter));
    put("fewshot_delimiter", &json!(prompt.fewshot_delimiter));
    Ok(())
}
