//! `polyloom diag cocktail`, and prompts that are chosen by their ids.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use super::language::{animals, done, json, recipe};
use super::{polyloom, text};

/// The animals again under another id, with another prompt first.
fn again(dir: &Path, task: &str, id: &str, label: &str) -> String {
    let spec = std::fs::read_to_string(task).unwrap();
    let spec = spec
        .replace("id = \"animals\"", &format!("id = \"{id}\""))
        .replace("Kind:", label);
    let file = dir.join(format!("{id}.task.toml"));
    std::fs::write(&file, spec).unwrap();
    file.display().to_string()
}

fn refused(args: &[&str], expected: &str) {
    let out = polyloom(args);
    let said = text(&out.stderr);
    assert_eq!(out.status.code(), Some(2), "{args:?}: {said}");
    assert!(said.contains(expected), "{said}");
}

#[test]
fn tasks_are_mixed_for_a_target() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).display().to_string();
    let animals = animals(dir.path());
    let noise = again(dir.path(), &animals, "noise", "Sound:");
    let more = again(dir.path(), &animals, "more", "Which:");
    let recipe = recipe(
        dir.path(),
        "mixed",
        &animals,
        16,
        "steps = 12\nkeep = \"last\"\n[train.language]\nlearn = \"answers\"",
    );
    let tasks = format!("{animals},{noise},{more}");
    let out = at("out");
    let base = [
        "diag", "cocktail", &recipe, "-t", &tasks, "--target", "animals", "-o", &out,
    ];
    let said = done(&base);
    for line in [
        "animals   accuracy on 24 rows of split validation",
        "nothing else",
        "noise",
        "more",
        "all tasks",
    ] {
        assert!(said.contains(line), "{said}");
    }
    assert!(
        said.lines()
            .all(|l| l.chars().count() <= 80 || l.contains("cocktail.json")),
        "{said}"
    );
    let found = json(&out, "cocktail.json");
    let target = &found["targets"][0];
    let names: Vec<&str> = target["mixtures"]
        .as_array()
        .unwrap()
        .iter()
        .map(|m| m["mixture"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["animals+noise", "animals+more", "all"]);
    // Values and differences are those of the results.
    let score = |name: &str, split: &str| -> f64 {
        json(&out, &format!("{name}{split}.json"))["tasks"]["animals"]["value"]
            .as_f64()
            .unwrap()
    };
    let alone = target["alone"].as_f64().unwrap();
    assert!((alone - score("animals", "")).abs() < 1e-12);
    let mut best: (Option<&Value>, f64) = (None, alone);
    for mixture in target["mixtures"].as_array().unwrap() {
        let value = mixture["value"].as_f64().unwrap();
        assert!((value - score(mixture["mixture"].as_str().unwrap(), "")).abs() < 1e-12);
        assert!((mixture["difference"].as_f64().unwrap() - (value - alone)).abs() < 1e-12);
        if value > best.1 {
            best = (Some(mixture), value);
        }
    }
    match best.0 {
        None => assert!(target["best"].is_null() && target["confirmed"].is_null()),
        Some(mixture) => {
            assert_eq!(&target["best"], mixture);
            let name = mixture["mixture"].as_str().unwrap();
            let confirmed = &target["confirmed"];
            let told = confirmed["value"].as_f64().unwrap();
            assert!((told - score(name, ".test")).abs() < 1e-12);
            assert!(
                (confirmed["alone"].as_f64().unwrap() - score("animals", ".test")).abs() < 1e-12
            );
        }
    }
    // What is there is not trained again, a mixture that is lacking is; the numbers are the same.
    refused(&base, "--resume goes on");
    std::fs::remove_dir_all(dir.path().join("out/models/all")).unwrap();
    let before = std::fs::read(dir.path().join("out/models/animals/model.safetensors")).unwrap();
    // The commands that it types have the threads of this one, wherever their number comes from.
    let again = Command::new(env!("CARGO_BIN_EXE_polyloom"))
        .args(base)
        .arg("--resume")
        .env("POLYLOOM_THREADS", "1")
        .output()
        .unwrap();
    assert!(again.status.success(), "{}", text(&again.stderr));
    assert_eq!(json(&out, "cocktail.json"), found);
    let after = std::fs::read(dir.path().join("out/models/animals/model.safetensors")).unwrap();
    assert!(before == after);

    // Models of another seed are not taken for those that are asked for.
    refused(
        &[&base[..], &["--resume", "--seed", "6"]].concat(),
        "another recipe, base, seed",
    );

    let one = ["diag", "cocktail", &recipe, "-o", &at("one")];
    refused(&one, "one task alone has no other to learn with");
    let odd = [
        "diag",
        "cocktail",
        &recipe,
        "-t",
        &tasks,
        "--target",
        "animal",
        "-o",
        &at("odd"),
    ];
    refused(&odd, "did you mean `animals`?");
    let split = [
        "diag",
        "cocktail",
        &recipe,
        "-t",
        &tasks,
        "--confirm",
        "tset",
        "-o",
        &at("odd"),
    ];
    refused(&split, "tset");
    assert!(!dir.path().join("odd").exists());
}

#[test]
fn a_prompt_is_chosen_by_its_id() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).display().to_string();
    let task = animals(dir.path());
    let spec = std::fs::read_to_string(&task).unwrap();
    let spec = spec.replace(
        "[[metrics]]",
        "[[prompts]]\nid = \"asked\"\ntemplate = \"Loud or soft?\\n{{input}}\\nKind:\"\nchoices = [\"soft\", \"loud\"]\ntarget = \"{{target}}\"\n[[metrics]]",
    );
    std::fs::write(&task, spec).unwrap();
    let learned = |name: &str, more: &str| {
        let more =
            format!("steps = 60\nkeep = \"last\"\n[train.language]\nlearn = \"answers\"\n{more}");
        let recipe = recipe(dir.path(), name, &task, 24, &more);
        done(&["train", &recipe, "-o", &at(name)]);
    };
    learned("plain", "");
    learned("asked", "prompt = \"asked\"");
    let accuracy = |model: &str, prompt: &[&str], name: &str| -> f64 {
        let file = at(name);
        done(&[&["eval", &at(model), "-t", &task, "-o", &file], prompt].concat());
        json(dir.path().to_str().unwrap(), name)["tasks"]["animals"]["value"]
            .as_f64()
            .unwrap()
    };
    let asked = ["--prompt", "asked"];
    assert!(accuracy("asked", &asked, "a.json") > 0.9);
    assert!(accuracy("plain", &[], "b.json") > 0.9);
    // The prompt is part of what makes results the same: they are scored again, not taken.
    let before = std::fs::read(dir.path().join("b.json")).unwrap();
    accuracy("plain", &asked, "b.json");
    assert!(before != std::fs::read(dir.path().join("b.json")).unwrap());
    let unknown = [
        "eval",
        &at("plain"),
        "-t",
        &task,
        "-o",
        &at("c.json"),
        "--prompt",
        "askd",
    ];
    refused(&unknown, "its prompts: default, asked");
    let texts = recipe(
        dir.path(),
        "texts",
        &task,
        24,
        "[train.language]\nprompt = \"asked\"",
    );
    refused(&["train", &texts, "-o", &at("texts")], "texts have none");
}
