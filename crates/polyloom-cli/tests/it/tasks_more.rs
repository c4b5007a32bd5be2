//! Tasks made small, and levels held out over several tasks.

use serde_json::{Value, json};

use super::{polyloom, text};

fn lines(rows: &[Value]) -> String {
    rows.iter().map(|r| format!("{r}\n")).collect()
}

#[test]
fn a_retrieval_task_keeps_what_is_relevant_and_what_is_hard() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).display().to_string();
    let queries = [json!({"id": "q0", "t": "x"}), json!({"id": "q1", "t": "y"})];
    let documents: Vec<Value> = (0..8)
        .map(|i| json!({"id": format!("d{i}"), "t": i.to_string()}))
        .collect();
    std::fs::write(at("q.jsonl"), lines(&queries)).unwrap();
    std::fs::write(at("d.jsonl"), lines(&documents)).unwrap();
    std::fs::write(at("qrels.txt"), "q0 d0 1\nq1 d1 2\nq1 d7 0\n").unwrap();
    let spec = "schema = \"polyloom.task/1\"\nid = \"find\"\ntype = \"retrieval\"\nqrels = \"qrels.txt\"\n\
        [source]\nkind = \"jsonl\"\nroot = \".\"\n\
        [splits]\ntest = { file = \"q.jsonl\" }\ndocuments = { file = \"d.jsonl\" }\n\
        [fields]\nid = \"id\"\nquery = \"t\"\ndocument = \"t\"\n[[metrics]]\nname = \"ndcg\"\n";
    std::fs::write(at("find.toml"), spec).unwrap();
    let one = [
        json!({"id": "q0", "ranking": ["d2", "d0", "d3"]}),
        json!({"id": "q1", "ranking": ["d1", "d4"]}),
    ];
    let two = [
        json!({"id": "q0", "ranking": ["d5", "d2", "d0"]}),
        json!({"id": "q1", "ranking": ["d6", "d4", "d1"]}),
    ];
    std::fs::write(at("one.jsonl"), lines(&one)).unwrap();
    std::fs::write(at("two.jsonl"), lines(&two)).unwrap();
    let run = |more: &[&str]| {
        let (task, out) = (at("find.toml"), at("small"));
        let mut args = vec!["tasks", "pool", &task];
        let files = [at("one.jsonl"), at("two.jsonl")];
        args.extend(files.iter().map(|f| &**f));
        args.extend(["-o", &out, "--json"]);
        args.extend(more);
        polyloom(&args)
    };
    let out = run(&["--negatives", "1"]);
    assert_eq!(out.status.code(), Some(0), "{}", text(&out.stderr));
    let kept = std::fs::read_to_string(at("small/documents.jsonl")).unwrap();
    // Relevant: d0, d1. Hardest of q0: d2 of the first system; of q1: the first system's first is relevant, then d6.
    for (id, there) in [
        ("d0", true),
        ("d1", true),
        ("d2", true),
        ("d6", true),
        ("d5", false),
        ("d7", false),
    ] {
        assert_eq!(kept.contains(&format!("\"{id}\"")), there, "{id} {kept}");
    }
    let last: Value = serde_json::from_str(text(&out.stdout).lines().last().unwrap()).unwrap();
    assert_eq!(
        (&last["documents"], &last["documents_before"]),
        (&json!(4), &json!(8))
    );
    assert_eq!(
        std::fs::read_to_string(at("small/qrels.tsv")).unwrap(),
        "query\tdocument\trelevance\nq0\td0\t1\nq1\td1\t2\n"
    );
    // The small task is a task: it is checked and scored.
    let task = at("small/task.toml");
    let out = polyloom(&["tasks", "check", &task]);
    assert_eq!(
        out.status.code(),
        Some(0),
        "{}{}",
        text(&out.stdout),
        text(&out.stderr)
    );
    let out = polyloom(&[
        "eval",
        "--predictions",
        &at("one.jsonl"),
        "--task",
        &task,
        "--json",
    ]);
    assert_eq!(out.status.code(), Some(0), "{}", text(&out.stderr));
    assert_eq!(run(&[]).status.code(), Some(2));
    let out = run(&["--queries", "1", "--negatives", "0", "--force"]);
    assert_eq!(out.status.code(), Some(0), "{}", text(&out.stderr));
    assert_eq!(
        std::fs::read_to_string(at("small/queries.jsonl"))
            .unwrap()
            .lines()
            .count(),
        1
    );
    assert_eq!(
        std::fs::read_to_string(at("small/documents.jsonl"))
            .unwrap()
            .lines()
            .count(),
        1
    );
}

#[test]
fn levels_over_tasks_of_a_catalogue() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).display().to_string();
    // Three skills with two tasks each; the last task has a text of the first.
    for (i, skill) in ["a", "a", "b", "b", "c", "c"].iter().enumerate() {
        let rows: Vec<Value> = (0..10)
            .map(|r| json!({"text": if i == 5 && r == 0 { "0 0".to_owned() } else { format!("{i} {r}") }, "y": "no"}))
            .collect();
        std::fs::write(at(&format!("t{i}.jsonl")), lines(&rows)).unwrap();
        let spec = format!(
            "schema = \"polyloom.task/1\"\nid = \"t{i}\"\ntype = \"classification\"\n[tags]\nskills = [\"{skill}\"]\n\
             [source]\nkind = \"jsonl\"\nroot = \".\"\n[splits]\ntrain = {{ file = \"t{i}.jsonl\" }}\n\
             [fields]\ninput = \"text\"\ntarget = \"y\"\n[labels]\nnames = [\"no\", \"yes\"]\n"
        );
        std::fs::write(at(&format!("t{i}.toml")), spec).unwrap();
    }
    let tasks: Vec<String> = (0..6).map(|i| at(&format!("t{i}.toml"))).collect();
    let mut leaks = Vec::new();
    for seed in ["0", "1", "2", "3"] {
        let out_dir = at(&format!("levels{seed}"));
        let mut args = vec!["tasks", "split"];
        args.extend(tasks.iter().map(|t| &**t));
        args.extend([
            "--levels", "skill", "--seed", seed, "-o", &out_dir, "--json",
        ]);
        let out = polyloom(&args);
        let read = |level: &str| -> Vec<Value> {
            let text = std::fs::read_to_string(format!("{out_dir}/{level}.jsonl")).unwrap();
            text.lines()
                .map(|l| serde_json::from_str(l).unwrap())
                .collect()
        };
        let set = |rows: &[Value], key: &str| -> std::collections::BTreeSet<String> {
            rows.iter()
                .map(|r| r[key].as_str().unwrap().to_owned())
                .collect()
        };
        let [train, instance, task, category] = [
            "train",
            "held_out_instance",
            "held_out_task",
            "held_out_category",
        ]
        .map(read);
        assert_eq!(
            train.len() + instance.len() + task.len() + category.len(),
            60
        );
        assert!(set(&train, "category").is_disjoint(&set(&category, "category")));
        assert!(set(&train, "task").is_disjoint(&set(&task, "task")));
        assert_eq!(set(&train, "task"), set(&instance, "task"));
        assert!(
            train[0]["input"].is_string() && train[0]["target"] == "no" && train[0]["row"].is_u64()
        );
        let last: Value = serde_json::from_str(text(&out.stdout).lines().last().unwrap()).unwrap();
        let leaked = last["leaked"].as_u64().unwrap();
        assert_eq!(
            out.status.code(),
            Some(i32::from(leaked > 0)),
            "{}",
            text(&out.stderr)
        );
        leaks.push(leaked);
    }
    assert!(
        leaks.contains(&1) && leaks.iter().all(|l| *l <= 1),
        "{leaks:?}"
    );
    let out = polyloom(&[
        "tasks",
        "split",
        &tasks[0],
        "--levels",
        "colour",
        "-o",
        &at("x"),
    ]);
    assert_eq!(out.status.code(), Some(2));
    assert!(
        text(&out.stderr).contains("type, skill, domain"),
        "{}",
        text(&out.stderr)
    );
}

#[test]
fn combined_skills_make_a_task() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).display().to_string();
    std::fs::write(at("skills.txt"), "irony\nmetaphor\n\nmodus ponens\n").unwrap();
    std::fs::write(at("topics.txt"), "chess\ngardens\n").unwrap();
    let (skills, topics, mix) = (at("skills.txt"), at("topics.txt"), at("mix.task.toml"));
    let args = |count: &'static str| {
        let mut args = vec![
            "tasks",
            "skill-mix",
            "--skills",
            &*skills,
            "--topics",
            &*topics,
        ];
        args.extend(["-k", "2", "--count", count, "-o", &*mix]);
        args.into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    let run = |count| polyloom(&args(count).iter().map(|a| &**a).collect::<Vec<_>>());
    let out = run("6");
    assert_eq!(out.status.code(), Some(0), "{}", text(&out.stderr));
    let out = polyloom(&["tasks", "show", &mix, "--example", "1"]);
    assert!(
        text(&out.stdout).contains("at most 3 sentences about"),
        "{}",
        text(&out.stdout)
    );
    std::fs::remove_file(&mix).unwrap();
    let out = run("7");
    assert_eq!(out.status.code(), Some(2));
    assert!(
        text(&out.stderr).contains("7 combinations of 6"),
        "{}",
        text(&out.stderr)
    );
}
