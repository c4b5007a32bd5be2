use proptest::prelude::*;

use super::*;

fn write_files(files: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = dir.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    dir
}

const TASK: &str = "task: Toy\ntag: [nli]\ndataset_path: json\ndataset_kwargs: {data_files: {validation: toy.jsonl}}\n\
    output_type: multiple_choice\nvalidation_split: validation\ndoc_to_text: \"{{premise}}?\"\n\
    doc_to_choice: [\"yes\", \"no\"]\ndoc_to_target: label\nmetric_list:\n  - metric: acc\n";

fn told(text: &str) -> String {
    lm_eval::task(text).unwrap_err().to_string()
}

#[test]
fn what_needs_code_is_refused_by_name() {
    let with = |line: &str| told(&format!("{TASK}{line}\n"));
    assert!(with("process_docs: !function utils.process_docs").contains("`utils.process_docs`"));
    assert!(with("custom_dataset: x").contains("`custom_dataset` is not read"));
    assert!(
        with("filter_list: [{name: a, filter: [{function: majority_vote}]}]")
            .contains("majority_vote")
    );
    assert!(told(&TASK.replace("acc", "acuracy")).contains("unknown metric `acuracy`"));
    assert!(told(&TASK.replace("{{premise}}?", "{{premise")).contains("`doc_to_text`"));
    assert!(told(&TASK.replace("multiple_choice", "loglikelihood")).contains("`loglikelihood`"));
    assert!(told("- a\n").contains("no table of keys"));
    assert!(lm_eval::task(&format!("{TASK}# !function in a comment is none\n")).is_ok());
}

#[test]
fn includes_groups_and_hub_data_are_followed() {
    let dir = write_files(&[
        ("_base.yaml", TASK),
        (
            "a.yaml",
            "include: _base.yaml\ntask: toy_a\nnum_fewshot: 2\nfewshot_split: validation\n",
        ),
        ("b.yaml", "include: _code.yaml\ntask: toy_b\n"),
        ("_code.yaml", "doc_to_text: !function utils.text\n"),
        (
            "c.yaml",
            "task: toy_c\ndataset_path: org/set\ntest_split: test\ndoc_to_text: q\ndoc_to_target: a\noutput_type: generate_until\n",
        ),
        ("org/set/test-00000.jsonl", "{\"q\": \"x\", \"a\": \"y\"}\n"),
        ("loop.yaml", "include: loop.yaml\n"),
        (
            "group.yaml",
            "group: toys\ntask: [toy_a, {group: inner, task: [toy_c]}]\naggregate_metric_list: [{metric: acc, weight_by_size: false}]\n",
        ),
        ("other.json", "{\"a\": 1}"),
    ]);
    let found = import(dir.path(), None, &[]).unwrap();
    let ids: Vec<&str> = found.tasks.iter().map(|t| &*t.spec.id).collect();
    assert_eq!(ids, ["toy_a", "toy_c"]);
    let a = &found.tasks[0].spec;
    assert_eq!(
        (a.fewshot.n, a.splits.fewshot.as_deref()),
        (2, Some("validation"))
    );
    assert_eq!(
        found.tasks[1].spec.splits.named["test"].file,
        "org/set/test-*.jsonl"
    );
    let groups: Vec<&str> = found.groups.iter().map(|(g, _)| &*g.id).collect();
    assert_eq!(groups, ["inner", "toys"]);
    assert_eq!(found.groups[1].0.tasks, ["toy_a", "inner"]);
    let why: Vec<&str> = found.refused.iter().map(|r| &*r.why).collect();
    assert_eq!(why.len(), 2, "{why:?}");
    assert!(
        why[0].contains("`include: _code.yaml`") && why[0].contains("`utils.text`"),
        "{why:?}"
    );
    assert!(why[1].contains("circle"), "{why:?}");

    let out = dir.path().join("out");
    let written = write(&found, &out, false).unwrap();
    assert_eq!(written.len(), 4);
    assert!(
        write(&found, &out, false)
            .unwrap_err()
            .to_string()
            .contains("exists already")
    );
    let mut catalogue = crate::tasks::Catalogue::default();
    catalogue.add_path(&out).unwrap();
    assert_eq!(catalogue.members("toys").unwrap(), ["toy_a", "toy_c"]);
    let entry = catalogue.task("toy_c").unwrap();
    let folder = crate::tasks::Roots::default().folder(entry).unwrap();
    let mut rows = 0;
    let loader = crate::tasks::load::Loader::new(&entry.spec, folder, Limits::default());
    loader
        .rows("test", &mut |t| {
            rows += t.rows();
            Ok(())
        })
        .unwrap();
    assert_eq!(rows, 1);
}

#[test]
fn cards_mappings_and_metadata_find_their_files() {
    let card = "---\nlicense: mit\ntask_categories: [summarization]\n---\n# x\n";
    let dir = write_files(&[
        ("set/README.md", card),
        ("set/train.csv", "document,summary\na,b\n"),
        (
            "map.json",
            r#"{"type": "Classification", "dataset": "nli", "sentence1": "p", "labels": "y", "splits": ["train", null, null]}"#,
        ),
        (
            "nli/train.jsonl",
            "{\"p\": \"a\", \"y\": \"no\"}\n{\"p\": \"b\", \"y\": \"maybe\"}\n",
        ),
        (
            "sts.json",
            r#"{"name": "STSBenchmark", "type": "STS", "main_score": "cosine_spearman", "eval_splits": ["test"], "dataset": {"path": "mteb/sts", "revision": "r"}, "eval_langs": ["eng-Latn"]}"#,
        ),
    ]);
    let found = import(dir.path(), None, &[]).unwrap();
    assert_eq!(found.refused, []);
    let by = |id: &str| &found.tasks.iter().find(|t| t.spec.id == id).unwrap().spec;
    assert_eq!(by("map").labels.names, ["maybe", "no"]);
    let set = by("set");
    assert_eq!(
        (set.kind, &*set.fields.target),
        (Some(TaskType::Generation), "summary")
    );
    assert_eq!(set.splits.named["train"].file, "train.csv");
    let sts = by("mteb/stsbenchmark");
    assert_eq!(
        (&*sts.metrics[0].name, &*sts.language[0]),
        ("spearman", "eng")
    );
    assert!(
        found
            .notes
            .iter()
            .any(|(_, n)| n.contains("mteb/sts/test.jsonl"))
    );
}

/// The benchmark files that come with the data, or `None` (said) where they are absent.
fn benchmarks() -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/benchmarks");
    if path.is_dir() {
        return Some(path);
    }
    let mut err = std::io::stderr().lock();
    let _ = std::io::Write::write_all(&mut err, b"skipped: no ../shared/data/benchmarks\n");
    None
}

#[test]
fn real_benchmark_files_are_imported() {
    let Some(path) = benchmarks() else { return };
    let found = import(&path, None, &[]).unwrap();
    assert_eq!(found.refused, []);
    let count = |f: Format| found.tasks.iter().filter(|t| t.format == f).count();
    assert_eq!(count(Format::Bbh), 27);
    assert_eq!(count(Format::TaskBench), 3);
    assert_eq!(
        (count(Format::Bfcl), count(Format::NaturalInstructions)),
        (1, 1)
    );
    let by = |id: &str| &found.tasks.iter().find(|t| t.spec.id == id).unwrap().spec;
    let snarks = by("bbh/snarks");
    assert_eq!(snarks.source.rows.len(), 178);
    // Two options each; one question is cut to one.
    assert!((snarks.score.chance.unwrap() - 0.5).abs() < 0.005);
    let renderer = crate::tasks::prompt::Renderer::new();
    for made in &found.tasks {
        let prompt = &made.spec.prompts[0];
        for row in &made.spec.source.rows {
            renderer.context(prompt, &[], row).unwrap();
        }
    }
    let bfcl = by("bfcl/bfcl_v4_simple_javascript");
    assert!(bfcl.source.rows.iter().all(|r| r.contains_key("target")));
}

fn texts() -> impl Strategy<Value = String> {
    "[ -z{}%|äß漢\n\"'\\\\]{0,20}".prop_filter("no Jinja", |s| {
        !s.contains("{{") && !s.contains("{%") && !s.contains("{#")
    })
}

prop_compose! {
    fn documents()(
        name in "[a-z][a-z0-9_]{0,8}", tags in proptest::collection::vec("[a-z]{1,6}", 0..3),
        kind in 0usize..3, text in texts(), description in texts(), delimiter in texts(),
        choices in proptest::collection::vec("[a-zA-Z ]{1,5}", 1..4), template_choices in any::<bool>(),
        splits in 1u8..8, shots in proptest::option::of(0u32..4), sampler in 0usize..3,
        metric in proptest::sample::select(vec!["acc", "exact_match", "bleu", "rouge1", "word_perplexity", "mcc"]),
        stop in proptest::collection::vec(texts(), 0..3), temperature in proptest::option::of(0u8..20),
        filters in proptest::option::of(-1i64..2), version in proptest::option::of(0u8..9), other_fewshot in any::<bool>(),
    ) -> Value {
        let kinds = ["multiple_choice", "generate_until", "loglikelihood_rolling"];
        let mut files = serde_json::Map::new();
        let mut out = serde_json::json!({
            "task": name, "dataset_path": "json", "output_type": kinds[kind], "metric_list": [{"metric": metric}],
        });
        for (i, (key, split)) in [("training_split", "train"), ("validation_split", "val"), ("test_split", "test")].into_iter().enumerate() {
            if splits >> i & 1 == 1 {
                files.insert(split.into(), format!("d/{split}.jsonl").into());
                out[key] = split.into();
            }
        }
        if !tags.is_empty() { out["tag"] = tags.into(); }
        if kind == 2 {
            out["doc_to_target"] = "page".into();
        } else {
            out["doc_to_text"] = format!("{{{{question}}}} {text}").into();
            out["doc_to_target"] = if kind == 0 { "label".into() } else { "{{answer}}".into() };
            out["description"] = description.into();
            out["target_delimiter"] = delimiter.into();
            if kind == 0 {
                out["doc_to_choice"] = if template_choices { "{{[a, b]}}".into() } else { choices.into() };
            }
        }
        if let Some(n) = shots {
            out["num_fewshot"] = n.into();
            match sampler {
                0 => out["fewshot_config"] = serde_json::json!({"sampler": "first_n"}),
                1 => out["fewshot_config"] = serde_json::json!({"fewshot_indices": [3, 1, 4, 5]}),
                _ => {}
            }
            if other_fewshot {
                files.insert("dev".into(), "d/dev.jsonl".into());
                out["fewshot_split"] = "dev".into();
            }
        }
        out["dataset_kwargs"] = serde_json::json!({"data_files": files});
        if let Some(t) = temperature {
            out["generation_kwargs"] = serde_json::json!({"until": stop, "max_gen_toks": 32, "temperature": f64::from(t) / 10.0});
        }
        if let Some(group) = filters {
            out["filter_list"] = serde_json::json!([{"name": "strict", "filter": [
                {"function": "regex", "regex_pattern": "is (.+)", "group_select": group},
                {"function": "lowercase"}, {"function": "remove_whitespace"}, {"function": "take_first"}]}]);
        }
        if let Some(v) = version { out["metadata"] = serde_json::json!({"version": v}); }
        out
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]
    #[test]
    fn import_export_import_gives_an_equal_spec(document in documents()) {
        let first = lm_eval::task(&document.to_string()).unwrap();
        let text = export::lm_eval(&first, "", "").unwrap();
        let second = lm_eval::task(&text).unwrap();
        prop_assert_eq!(&first, &second, "{}", text);
        prop_assert_eq!(export::lm_eval(&second, "", "").unwrap(), text);
    }

    #[test]
    fn no_text_makes_the_importers_panic(text in "\\PC{0,80}", cut in 0usize..300) {
        let _ = lm_eval::task(&text);
        let _ = big_bench::task(&text);
        let _ = big_bench::hard(&text, "x");
        let _ = natural::task(&text, "x");
        let _ = card::card(&format!("---\n{text}\n---\n"), "x", None, &mut Vec::new());
        let short: String = TASK.chars().take(cut).collect();
        let _ = lm_eval::task(&short);
    }
}
