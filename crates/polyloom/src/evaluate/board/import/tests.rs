//! One small file per format.

use std::path::Path;

use super::*;
use crate::evaluate::aggregate::Direction;

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

fn write(dir: &Path, name: &str, content: &str) -> Source {
    let path = dir.join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, content).unwrap();
    Source { name: None, path }
}

fn value(found: &Imported, system: &str, task: &str) -> Option<f64> {
    let r = &found.results;
    let s = r.systems.iter().position(|s| s.name == system)?;
    let t = r.tasks.iter().position(|t| t.column.name == task)?;
    r.cell(s, t).map(|c| c.value)
}

fn code(sources: &[Source], options: &Options) -> &'static str {
    import(sources, options).unwrap_err().code()
}

#[test]
fn results_of_this_project() {
    let dir = folder();
    let file = write(
        dir.path(),
        "results.json",
        r#"{"schema": "polyloom.results/1", "model": {"name": "m"}, "tasks": {"t": {"metric": "accuracy", "value": 0.5,
        "n": 10, "interval": [0.2, 0.8], "higher_is_better": true, "chance": 0.25, "task_hash": "h",
        "tags": {"skill": ["maths"]}, "metrics": {"f1": {"value": 0.4, "higher_is_better": true}}, "samples": "s.parquet"}}}"#,
    );
    let found = import(std::slice::from_ref(&file), &Options::default()).unwrap();
    let cell = found.results.cell(0, 0).unwrap();
    assert_eq!(
        (cell.value, cell.n, cell.interval),
        (0.5, Some(10), Some((0.2, 0.8)))
    );
    assert_eq!(cell.record, Some(dir.path().join("s.parquet")));
    assert_eq!(found.results.tasks[0].column.chance, Some(0.25));
    assert!(found.notes[0].contains("f1"), "{:?}", found.notes);
    let f1 = Options {
        metrics: vec!["f1".into()],
        ..Options::default()
    };
    assert_eq!(value(&import(&[file], &f1).unwrap(), "m", "t"), Some(0.4));
    let newer = write(dir.path(), "n.json", r#"{"schema": "polyloom.results/9"}"#);
    assert_eq!(code(&[newer], &Options::default()), "bad-results");
}

const LM_EVAL: &str = r#"{"results": {"a": {"alias": "a", "acc,none": 0.5, "acc_stderr,none": 0.1, "acc_norm,none": 0.6},
    "p": {"perplexity,none": 9.0, "perplexity_stderr,none": "N/A"}, "g": {"acc,none": 0.5}},
    "groups": {"g": {"acc,none": 0.5}}, "group_subtasks": {"g": ["a"], "p": []},
    "higher_is_better": {"a": {"acc": true}, "p": {"perplexity": false}}, "n-samples": {"a": {"original": 50, "effective": 20}},
    "n-shot": {"a": 5}, "versions": {"a": 1.0}, "config": {"model_args": "pretrained=org/m,dtype=auto"},
    "total_evaluation_time_seconds": "12.5"}"#;

#[test]
fn lm_eval_results_and_samples() {
    let dir = folder();
    write(
        dir.path(),
        "org__m/results_2024-01-01T00-00-00.json",
        LM_EVAL,
    );
    let samples = "{\"doc_id\": 0, \"target\": 1, \"filtered_resps\": [], \"filter\": \"none\", \"metrics\": [\"acc\"], \"acc\": 1.0}\n\
                   {\"doc_id\": 1, \"target\": 1, \"filtered_resps\": [], \"filter\": \"none\", \"metrics\": [\"acc\"], \"acc\": 0.0}\n";
    write(
        dir.path(),
        "org__m/samples_a_2024-01-01T00-00-00.jsonl",
        samples,
    );
    let all = Source {
        name: None,
        path: dir.path().to_path_buf(),
    };
    let found = import(std::slice::from_ref(&all), &Options::default()).unwrap();
    let r = &found.results;
    assert_eq!((r.systems.len(), r.tasks.len()), (1, 2), "{r:?}");
    let cell = r.cell(0, 0).unwrap();
    assert_eq!(
        (cell.value, cell.stderr, cell.n),
        (0.5, Some(0.1), Some(20))
    );
    assert_eq!(r.tasks[0].column.group.as_deref(), Some("g"));
    assert_eq!(r.tasks[1].column.direction, Some(Direction::Lower));
    assert_eq!(r.cell(0, 1).unwrap().stderr, None);
    assert_eq!(
        (&r.systems[0].name[..], r.systems[0].costs["seconds"]),
        ("org/m", 12.5)
    );
    // The samples' folder name is the model's name with __: they belong together.
    assert_eq!((found.answers.len(), found.answers[0].ids.len()), (1, 2));
    let grouped = Options {
        groups: true,
        ..Options::default()
    };
    let found = import(&[all], &grouped).unwrap();
    // The samples of `a` lie in the same folder: its group stands for it all the same.
    let names: Vec<&str> = found
        .results
        .tasks
        .iter()
        .map(|t| t.column.name.as_str())
        .collect();
    assert_eq!(names, ["p", "g"]);
    assert!(found.answers.is_empty());
    let says = found
        .notes
        .iter()
        .any(|n| n == "groups count, their tasks do not: a");
    assert!(says, "{:?}", found.notes);
}

#[test]
fn groups_of_groups_and_groups_without_a_score() {
    let dir = folder();
    let nested = r#"{"results": {"a": {"acc,none": 0.1}, "b": {"acc,none": 0.2}, "in": {"acc,none": 0.15},
        "out": {"acc,none": 0.3}, "c": {"acc,none": 0.4}, "bare": {"alias": "bare"}},
        "group_subtasks": {"out": ["in", "b"], "in": ["a"], "bare": ["c"]}, "n-shot": {}}"#;
    let file = write(dir.path(), "m/results_2024-01-01.json", nested);
    let options = Options {
        groups: true,
        ..Options::default()
    };
    let found = import(&[file], &options).unwrap();
    let names = found.results.tasks.iter().map(|t| t.column.name.as_str());
    // The outermost group counts; a group that has no score of its own stands for nothing.
    let names: Vec<&str> = names.collect();
    assert_eq!(names, ["out", "c"]);
}

#[test]
fn mteb_and_helm() {
    let dir = folder();
    write(
        dir.path(),
        "org__m/0123456789012345678901234567890123456789/T.json",
        r#"{"task_name": "T", "scores": {"test": [{"main_score": 0.4, "accuracy": 0.4, "hf_subset": "default",
        "scores_per_experiment": [{"accuracy": 0.3}, {"accuracy": 0.5}]}]}, "evaluation_time": 3.0}"#,
    );
    let all = Source {
        name: None,
        path: dir.path().to_path_buf(),
    };
    let found = import(&[all], &Options::default()).unwrap();
    assert_eq!(value(&found, "org/m", "T"), Some(0.4));
    assert_eq!(found.results.cell(0, 0).unwrap().replicates, [0.3, 0.5]);
    assert_eq!(found.replicate.as_deref(), Some("run"));
    let helm = write(
        dir.path(),
        "helm.json",
        r#"{"title": "x", "header": [{"value": "Model"}, {"value": "Mean win rate"}, {"value": "QA - F1"},
        {"value": "B - bits", "lower_is_better": true}], "rows": [[{"value": "m"}, {"value": 1}, {"value": 0.5}, {"value": 2}]]}"#,
    );
    let found = import(&[helm], &Options::default()).unwrap();
    assert_eq!(
        (value(&found, "m", "QA"), found.results.tasks.len()),
        (Some(0.5), 2)
    );
    assert_eq!(
        found.results.tasks[1].column.direction,
        Some(Direction::Lower)
    );
}

#[test]
fn tables_long_and_wide() {
    let dir = folder();
    let none = Options::default();
    let long = write(
        dir.path(),
        "long.csv",
        "\u{feff}model,task,metric,value,seed,skill,params\nx,t,accuracy,0.5,1,maths,7\nx,t,accuracy,0.7,2,maths,7\ny,t,accuracy,0.4,1,maths,8\ny,u,rmse,3,1,code,8\n",
    );
    let found = import(std::slice::from_ref(&long), &none).unwrap();
    assert!((value(&found, "x", "t").unwrap() - 0.6).abs() < 1e-12);
    assert_eq!(found.results.cell(0, 0).unwrap().replicates, [0.5, 0.7]);
    assert_eq!(
        found.results.tasks[1].column.direction,
        Some(Direction::Lower)
    );
    assert_eq!(found.results.systems[1].costs["params"], 8.0);
    let maths = Options {
        conditions: vec!["skill=maths".parse().unwrap()],
        ..none.clone()
    };
    assert_eq!(import(&[long], &maths).unwrap().results.tasks.len(), 1);
    let wide = write(
        dir.path(),
        "wide.tsv",
        "name\tt\tu\nx\t0.5\tn/a\ny\t0.25\t1\n",
    );
    let found = import(std::slice::from_ref(&wide), &none).unwrap();
    assert_eq!(
        (value(&found, "y", "u"), value(&found, "x", "u")),
        (Some(1.0), None)
    );
    let examples = write(
        dir.path(),
        "e.csv",
        "task,id,old,new\nt,1,true,false\nt,2,true,true\n",
    );
    let found = import(&[examples], &none).unwrap();
    assert_eq!(
        (value(&found, "old", "t"), value(&found, "new", "t")),
        (Some(1.0), Some(0.5))
    );
    assert_eq!(found.answers[0].ids.len(), 2);
    let attempts = write(
        dir.path(),
        "p.csv",
        "system,id,samples,passes\nx,1,10,4\nx,2,10,0\n",
    );
    let found = import(&[attempts], &none).unwrap();
    assert_eq!(
        found.answers[0].answers[0][0],
        Some(Answer {
            trials: 10,
            sum: 4.0
        })
    );
    assert!((value(&found, "x", "p").unwrap() - 0.2).abs() < 1e-12);
}

#[test]
fn what_is_wrong_is_named() {
    let dir = folder();
    let none = Options::default();
    for (name, content, want) in [
        (
            "a.csv",
            "system,task,value\nx,t,0.5\nx,t,0.6\n",
            "two-scores",
        ),
        ("b.csv", "system,task,value\nx,t,good\n", "bad-score"),
        ("c.csv", "system,task,value\n", "empty"),
        ("d.csv", "1,2\n3,4\n", "missing-column"),
        ("e.csv", "system,id,score\nx,1,1\nx,1,0\n", "duplicate-id"),
        ("f.json", "{\"a\": 1}", "unknown-format"),
        ("g.json", "{\"a\"", "bad-json"),
        ("h.xlsx", "", "unknown-format"),
        (
            "i.json",
            "{\"schema\": \"polyloom.results/1\", \"tasks\": {\"t\": {\"value\": null}}}",
            "bad-results",
        ),
        ("j.csv", "system,task,value\nx,t,\n", "empty"),
        (
            "k.jsonl",
            "{\"doc_id\": 1, \"filtered_resps\": []}\n",
            "bad-results",
        ),
    ] {
        let error = import(&[write(dir.path(), name, content)], &none).unwrap_err();
        assert_eq!(error.code(), want, "{name}: {error}");
        assert!(
            error.to_string().contains(name) || name == "h.xlsx",
            "{name}: {error}"
        );
    }
    let two = |a: &str, b: &str| [write(dir.path(), "1.csv", a), write(dir.path(), "2.csv", b)];
    let both = two(
        "system,task,value\nx,t,0.5\n",
        "system,task,value\nx,t,0.6\n",
    );
    assert_eq!(code(&both, &none), "two-scores");
    let absent = Options {
        system: vec!["who".into()],
        ..none.clone()
    };
    assert_eq!(code(&both[..1], &absent), "missing-column");
    let unknown = Options {
        conditions: vec!["colour=red".parse().unwrap()],
        ..none
    };
    assert_eq!(code(&both[..1], &unknown), "unknown-tag");
}
