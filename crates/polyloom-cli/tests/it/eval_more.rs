//! Rankings of candidates, changed instructions, tokens, maps and graphs of tools, scored by hand.

use serde_json::{Value, json};

use super::eval_kinds::{close, task, values};
use super::{polyloom, text};

#[test]
fn candidates_in_a_new_order() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let rows = [
        json!({"id": "q0", "query": "x", "texts": ["a", "b", "c"], "good": [0, 1, 0]}),
        json!({"id": "q1", "query": "y", "texts": ["d", "e"], "good": ["d"]}),
    ];
    let spec = task(
        dir,
        "reranking",
        "id = \"id\"\nquery = \"query\"\ndocument = \"texts\"\ntarget = \"good\"",
        "",
        &["name = \"map\"", "name = \"mrr\"", "name = \"ndcg\""],
        &rows,
    );
    let lg = |x: f64| 1.0 / x.log2();
    // Scores in the order of the candidates; places from 0.
    let said = [
        json!({"id": "q0", "scores": [0.9, 0.5, 0.1]}),
        json!({"id": "q1", "scores": [0.2, 0.1]}),
    ];
    close(
        &values(dir, &spec, &said),
        &[0.75, 0.75, (lg(3.0) + 1.0) / 2.0],
    );
    std::fs::remove_file(dir.join("said.results.json")).unwrap();
    let said = [
        json!({"id": "q0", "ranking": [2, 0, 1]}),
        json!({"id": "q1", "ranking": ["e", "d"]}),
    ];
    let third = (1.0 / 3.0 + 0.5) / 2.0;
    close(
        &values(dir, &spec, &said),
        &[third, third, (0.5 + lg(3.0)) / 2.0],
    );

    let file = dir.join("said.jsonl");
    std::fs::write(&file, "{\"id\": \"q0\", \"ranking\": [\"z\"]}\n").unwrap();
    let file = file.display().to_string();
    let out = polyloom(&["eval", "--predictions", &file, "--task", &spec, "--force"]);
    assert_eq!(out.status.code(), Some(2));
    assert!(
        text(&out.stderr).contains("`z` is neither a candidate"),
        "{}",
        text(&out.stderr)
    );
}

#[test]
fn documents_that_an_instruction_excludes() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let rows = [
        json!({"id": "q0", "query": "x"}),
        json!({"id": "q1", "query": "y"}),
    ];
    let spec = task(
        dir,
        "retrieval",
        "id = \"id\"\nquery = \"query\"",
        "",
        &["name = \"p_mrr\""],
        &rows,
    );
    let with = std::fs::read_to_string(&spec).unwrap();
    let with = with.replace("[source]", "qrels = \"qrels.txt\"\n[source]");
    std::fs::write(&spec, with).unwrap();
    std::fs::write(dir.join("qrels.txt"), "q0 a -1\nq0 b -1\nq0 c 1\nq1 a 1\n").unwrap();
    let said = [
        json!({"id": "q0", "ranking": ["c", "b", "d", "a"], "ranking_before": ["a", "b", "c", "d"]}),
        json!({"id": "q1", "ranking": ["a"], "ranking_before": ["a"]}),
    ];
    // a fell from 1 to 4: 1 - 1/4; b stayed: 0. q1 excludes nothing.
    close(&values(dir, &spec, &said), &[0.375]);
}

#[test]
fn choices_per_token() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let rows = [
        json!({"id": 0, "q": "2+2", "a": 1}),
        json!({"id": 1, "q": "2+3", "a": 1}),
    ];
    let spec = task(
        dir,
        "multiple_choice",
        "id = \"id\"\ninput = \"q\"\ntarget = \"a\"",
        "[[prompts]]\ntemplate = \"{{q}}\"\nchoices = [\"three\", \"four\"]\ntarget = \"{{a}}\"",
        &["name = \"acc_token\"", "name = \"accuracy\""],
        &rows,
    );
    let said = [
        json!({"id": 0, "loglik": [-2.0, -3.0], "tokens": [1, 2]}),
        json!({"id": 1, "loglik": [-2.0, -5.0], "tokens": [1, 2]}),
    ];
    close(&values(dir, &spec, &said), &[0.5, 0.0]);
}

#[test]
fn a_value_per_pixel() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let rows = [
        json!({"id": 0, "classes": [[0, 1], [1, 255]], "depth": [1.0, 2.0, 0.0, 4.0]}),
        json!({"id": 1, "classes": [[0, 0], [0, 0]], "depth": [2.0, 2.0, 2.0, 2.0]}),
    ];
    let spec = task(
        dir,
        "dense",
        "id = \"id\"\nmap = \"classes\"",
        "",
        &["name = \"miou\"", "name = \"pixel_acc\""],
        &rows,
    );
    // As raw bytes in hexadecimal, and as a list.
    let said = [
        json!({"id": 0, "prediction": "hex:00010000"}),
        json!({"id": 1, "prediction": [0, 0, 0, 1]}),
    ];
    // Class 0: 4 of 6; class 1: 1 of 3; 5 of 7 pixels.
    close(&values(dir, &spec, &said), &[0.5, 5.0 / 7.0]);

    std::fs::remove_file(dir.join("said.results.json")).unwrap();
    let spec = task(
        dir,
        "dense",
        "id = \"id\"\nmap = \"depth\"",
        "",
        &["name = \"abs_err\"\nparams = { mask = \"classes\" }"],
        &rows[..1],
    );
    // Two pixels of a class other than 0 have a depth: off by 1 and by 2.
    let said = [json!({"id": 0, "prediction": [9, 3, 9, 6]})];
    close(&values(dir, &spec, &said), &[1.5]);
    std::fs::write(
        dir.join("said.jsonl"),
        "{\"id\": 0, \"prediction\": [1, 2]}\n",
    )
    .unwrap();
    let file = dir.join("said.jsonl").display().to_string();
    let out = polyloom(&["eval", "--predictions", &file, "--task", &spec, "--force"]);
    assert_eq!(out.status.code(), Some(2));
    assert!(
        text(&out.stderr).contains("a map has 2 values, the true one 4"),
        "{}",
        text(&out.stderr)
    );
}

#[test]
fn generated_scenes_against_themselves() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).display().to_string();
    let out = polyloom(&["tasks", "synth", "shapes", "--count", "24"]);
    assert_eq!(out.status.code(), Some(0), "{}", text(&out.stderr));
    std::fs::write(at("shapes.task.toml"), &out.stdout).unwrap();
    let made = at("made");
    let out = polyloom(&["tasks", "synth", "shapes", "--count", "24", "-o", &made]);
    assert_eq!(out.status.code(), Some(0), "{}", text(&out.stderr));
    let files: Vec<String> = std::fs::read_dir(&made)
        .unwrap()
        .map(|e| e.unwrap().path().display().to_string())
        .collect();
    let test = files.iter().find(|f| f.ends_with("test.parquet"));
    let test = test.unwrap_or_else(|| panic!("{files:?}"));
    let task = at("shapes.task.toml");
    let out = polyloom(&["eval", "--predictions", test, "--task", &task, "--json"]);
    assert_eq!(
        out.status.code(),
        Some(0),
        "{}{}",
        text(&out.stderr),
        text(&out.stdout)
    );
    let wanted = [
        ("segmentation", 1.0),
        ("depth", 0.0),
        ("normals", 0.0),
        ("edges", 1.0),
        ("label", 1.0),
    ];
    let mut seen = 0;
    for line in text(&out.stdout).lines() {
        let event: Value = serde_json::from_str(line).unwrap();
        let task = event["task"].as_str().unwrap_or_default();
        let wanted = wanted
            .iter()
            .find(|(name, _)| task.ends_with(&format!("/{name}")));
        if let Some((_, value)) = wanted {
            assert!(
                (event["value"].as_f64().unwrap() - value).abs() < 1e-4,
                "{line}"
            );
            seen += 1;
        }
    }
    assert_eq!(seen, 5, "{}", text(&out.stdout));
}

#[test]
fn clusters_of_embeddings_holes_and_marks() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let rows: Vec<Value> = (0..6).map(|i| json!({"id": i, "y": i / 3})).collect();
    let spec = task(
        dir,
        "clustering",
        "id = \"id\"\ntarget = \"y\"",
        "",
        &["name = \"v_measure\"", "name = \"ari\""],
        &rows,
    );
    let far = |i: i32| f64::from(i) + if i < 3 { 0.0 } else { 50.0 };
    let said: Vec<Value> = (0..6)
        .map(|i| json!({"id": i, "embedding": [far(i), 1.0]}))
        .collect();
    close(&values(dir, &spec, &said), &[1.0, 1.0]);

    std::fs::remove_file(dir.join("said.results.json")).unwrap();
    let rows = [json!({"id": "q0", "q": "x"}), json!({"id": "q1", "q": "y"})];
    let spec = task(
        dir,
        "retrieval",
        "id = \"id\"\nquery = \"q\"",
        "",
        &["name = \"hole_at_k\"\nparams = { k = 2 }"],
        &rows,
    );
    let with = std::fs::read_to_string(&spec).unwrap();
    std::fs::write(
        &spec,
        with.replace("[source]", "qrels = \"q.txt\"\n[source]"),
    )
    .unwrap();
    std::fs::write(dir.join("q.txt"), "q0 a 1\nq1 b 0\n").unwrap();
    // b is judged for the other query; c and d for none.
    let said = [
        json!({"id": "q0", "ranking": ["b", "c", "d"]}),
        json!({"id": "q1", "ranking": ["c", "d"]}),
    ];
    close(&values(dir, &spec, &said), &[0.75]);

    std::fs::remove_file(dir.join("said.results.json")).unwrap();
    let rows = [json!({"id": 0, "t": ""}), json!({"id": 1, "t": ""})];
    let spec = task(
        dir,
        "generation",
        "id = \"id\"\ntarget = \"t\"",
        "[[prompts]]\ntemplate = \"{{t}}\"\ntarget = \"{{t}}\"",
        &[
            "name = \"skill_mix_full\"",
            "name = \"skill_mix_all\"",
            "name = \"skill_mix_fraction\"",
        ],
        &rows,
    );
    let said = [
        json!({"id": 0, "output": "x", "skills": [1, 1], "topic": true, "sense": true, "length": false}),
        json!({"id": 1, "output": "y", "skills": [1, 0], "topic": 1, "sense": 1, "length": 1}),
    ];
    close(&values(dir, &spec, &said), &[0.0, 0.5, 0.25]);
}

#[test]
fn graphs_of_tools() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let graph = |nodes: &[&str], links: &[[&str; 2]]| json!({"nodes": nodes, "links": links});
    let rows = [
        json!({"id": 0, "ask": "x", "plan": graph(&["a", "b"], &[["a", "b"]])}),
        json!({"id": 1, "ask": "y", "plan": graph(&["c"], &[])}),
    ];
    let spec = task(
        dir,
        "tool_graph",
        "id = \"id\"\ninput = \"ask\"\ntarget = \"plan\"",
        "",
        &["name = \"node_f1\"", "name = \"edge_match_f1\""],
        &rows,
    );
    let said = [
        json!({"id": 0, "prediction": graph(&["a", "c"], &[["a", "b"], ["a", "c"]])}),
        json!({"id": 1, "prediction": [{"name": "c"}]}),
    ];
    close(&values(dir, &spec, &said), &[4.0 / 6.0, 2.0 / 3.0]);
    std::fs::remove_file(dir.join("said.results.json")).unwrap();
    // An output that is no graph names nothing.
    let said = [
        json!({"id": 0, "output": "{\"nodes\": [\"a\", \"b\"], \"links\": [[\"a\", \"b\"]]}"}),
        json!({"id": 1, "output": "I cannot"}),
    ];
    close(&values(dir, &spec, &said), &[0.8, 1.0]);
}

#[test]
fn a_group_says_its_mean_and_the_weight() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).display().to_string();
    for (id, n, weight) in [("a", 4, 3.0), ("b", 1, 1.0)] {
        let rows: Vec<String> = (0..n)
            .map(|i| format!("{{\"id\": {i}, \"y\": \"p\"}}"))
            .collect();
        std::fs::write(at(&format!("{id}.jsonl")), rows.join("\n")).unwrap();
        let spec = format!(
            "schema = \"polyloom.task/1\"\nid = \"{id}\"\ntype = \"classification\"\n[weights]\neval = {weight}\n\
             [source]\nkind = \"jsonl\"\nroot = \".\"\n[splits]\ntest = {{ file = \"{id}.jsonl\" }}\n\
             [fields]\nid = \"id\"\ntarget = \"y\"\n[labels]\nnames = [\"p\", \"q\"]\n[[metrics]]\nname = \"accuracy\"\n"
        );
        std::fs::write(at(&format!("{id}.toml")), spec).unwrap();
    }
    let group = "schema = \"polyloom.group/1\"\nid = \"both\"\ntasks = [\"a\", \"b\"]\n\
        aggregate = [{ metric = \"accuracy\" }, { metric = \"acc\", weight = \"equal\" }, { metric = \"acc\", weight = \"eval\" }]\n";
    std::fs::write(at("both.toml"), group).unwrap();
    // 1 of 4 right, 1 of 1.
    let said = "task,id,prediction\na,0,p\na,1,q\na,2,q\na,3,q\nb,0,p\n";
    std::fs::write(at("said.csv"), said).unwrap();
    let folder = dir.path().display().to_string();
    let out = polyloom(&[
        "eval",
        "--predictions",
        &at("said.csv"),
        "--catalogue",
        &folder,
        "--task",
        "both",
    ]);
    assert_eq!(out.status.code(), Some(0), "{}", text(&out.stderr));
    let out = text(&out.stdout);
    for wanted in [
        "both: accuracy 0.4000",
        "weight: size",
        "both: accuracy 0.6250",
        "weight: equal",
        "both: accuracy 0.4375",
        "weight: eval",
    ] {
        assert!(out.contains(wanted), "{out}");
    }
}
