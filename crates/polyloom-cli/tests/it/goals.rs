//! Models whose goals have experts or memories of their own, as a user meets them.

use serde_json::Value;

use super::dense::{VIT, given, moved, weights};
use super::{done, failed, polyloom, shown};

const MOE: &str = "\n[train.new.moe]\nexperts = 4\ntop_k = 2\nmutual_information = 0.01";

/// Experts chosen by goal: pictures pass once for every target, and the folder answers as the run did.
#[test]
fn experts_by_goal() {
    let dir = tempfile::tempdir().unwrap();
    let model = format!("{VIT}{MOE}");
    let (recipe, spec) = given(dir.path(), "steps = 8\nevaluate_every = 4", &model);
    let out = |name: &str| dir.path().join(name);
    for (name, threads) in [("one", "1"), ("three", "3")] {
        let to = shown(&out(name));
        done(&["train", &recipe, "--threads", threads, "-o", &to]);
    }
    assert!(weights(&out("one")) == weights(&out("three")));
    let config: Value =
        serde_json::from_slice(&std::fs::read(out("one").join("config.json")).unwrap()).unwrap();
    let goals = config["moe"]["goals"].as_array().unwrap();
    assert_eq!(
        (goals.len(), &goals[1]),
        (5, &Value::from("synth/shapes/depth"))
    );
    done(&["eval", &shown(&out("one")), "-t", &spec]);
    let to = shown(&out("no"));
    for (model, more, said) in [
        (
            &*model,
            "steps = 2\n[train.balance]\nmethod = \"pcgrad\"",
            "[train.balance] with `moe.mutual_information` does not go with experts",
        ),
        (
            &*model,
            "steps = 2\noptimiser = \"sophia_h\"",
            "does not go with experts",
        ),
        (
            &*format!("{model}\ngoals = [\"a\"]"),
            "steps = 2",
            "follows from the tasks",
        ),
        (&*format!("{model}\ntop_p = 3.0"), "steps = 2", "moe.top_p"),
        (&*format!("{model}\nexprts = 3"), "steps = 2", "exprts"),
    ] {
        let (recipe, _) = given(dir.path(), more, model);
        let told = failed(&["train", &recipe, "-o", &to]);
        assert!(told.contains(said), "{told}");
    }
}

/// Balanced, a goal's rows pass alone and what keeps its experts in use goes back with its loss: as a whole the same step.
#[test]
fn experts_are_balanced() {
    let dir = tempfile::tempdir().unwrap();
    let model = format!("{VIT}{MOE}").replace("mutual_information = 0.01", "balance = 0.5");
    let at = |name: &str| dir.path().join(name);
    for (name, more, threads) in [
        ("plain", "", "1"),
        ("equal", "[train.balance]\nmethod = \"equal\"", "1"),
        ("nash", "[train.balance]\nmethod = \"nash\"", "1"),
        ("three", "[train.balance]\nmethod = \"nash\"", "3"),
    ] {
        let more = format!("steps = 3\n{more}");
        let (recipe, _) = given(dir.path(), &more, &model);
        let to = shown(&at(name));
        done(&["train", &recipe, "--threads", threads, "-o", &to]);
    }
    assert!(weights(&at("nash")) == weights(&at("three")));
    // Three steps of Adam move a number by up to 6e-3; rounding turns few of them round.
    let apart = |name: &str| moved(&at(name), &at("plain"));
    assert!(apart("equal") < 2e-5, "{}", apart("equal"));
    assert!(apart("nash") > 2e-4, "{}", apart("nash"));
}

/// Goals with memories: pictures pass once, alone or balanced.
#[test]
fn memories_of_goals() {
    let dir = tempfile::tempdir().unwrap();
    let model = format!("{VIT}{MEMORIES}");
    let out = |name: &str| dir.path().join(name);
    for (name, more) in [("sum", ""), ("nash", "[train.balance]\nmethod = \"nash\"")] {
        let more = format!("steps = 4\nevaluate_every = 2\n{more}");
        let (recipe, _) = given(dir.path(), &more, &model);
        for (threads, to) in [("1", name.to_owned()), ("3", format!("{name}-three"))] {
            done(&[
                "train",
                &recipe,
                "--threads",
                threads,
                "-o",
                &shown(&out(&to)),
            ]);
        }
        assert!(weights(&out(name)) == weights(&out(&format!("{name}-three"))));
    }
    assert!(weights(&out("sum")) != weights(&out("nash")));
    for (more, said) in [
        ("every = 3", "task_expert.every 3 of 2 layers"),
        (
            "every = 1\n[train.new.moe]",
            "moe and task_expert: one of them",
        ),
        ("goals = [\"a\"]", "`train.new.task_expert.goals` follows"),
    ] {
        let (recipe, _) = given(dir.path(), "steps = 2", &format!("{model}\n{more}"));
        let told = failed(&["train", &recipe, "-o", &shown(&out("no"))]);
        assert!(told.contains(said), "{told}");
    }
}

/// Scores and intervals by task.
pub fn values(results: &Value) -> Vec<(String, Value, Value)> {
    let tasks = results["tasks"].as_object().unwrap().iter();
    let one =
        |(name, t): (&String, &Value)| (name.clone(), t["value"].clone(), t["interval"].clone());
    tasks.map(one).collect()
}

/// Goals that are added leave what the others answer as it was, and stand beside them.
#[test]
fn goals_are_added() {
    let windows = MOE.replace("mutual_information = 0.01", "gate = \"window\"");
    for (model, add) in [(&*windows, "experts = 2"), (MEMORIES, "")] {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| shown(&dir.path().join(name));
        let (recipe, spec) = given(dir.path(), "steps = 4", &format!("{VIT}{model}"));
        let whole = std::fs::read_to_string(&spec).unwrap();
        let mut parts = whole.split("[[targets]]\n");
        let head = parts.next().unwrap();
        let targets: Vec<&str> = parts.collect();
        let of = |id: &str, targets: &[&str]| {
            let head = head.replace("id = \"synth/shapes\"", &format!("id = \"{id}\""));
            let file = dir.path().join(format!("{id}.task.toml"));
            std::fs::write(
                &file,
                format!("{head}[[targets]]\n{}", targets.join("[[targets]]\n")),
            )
            .unwrap();
            shown(&file)
        };
        let (first, second) = (of("first", &targets[..3]), of("second", &targets[3..]));
        done(&["train", &recipe, "-t", &first, "-o", &at("old")]);
        let loom = dir.path().join("add.toml");
        let text = format!(
            "version = 1\nseed = 4\n[base]\npath = {:?}\n[train]\ntasks = [{second:?}]\nsteps = 4\nbatch = 10\nrate = 2e-3\n[train.add]\n{add}\n",
            at("old")
        );
        std::fs::write(&loom, &text).unwrap();
        done(&["train", &shown(&loom), "-o", &at("new")]);
        for task in [&first, &second] {
            done(&["eval", &at("new"), "-t", task]);
        }
        for target in ["segmentation", "depth", "normals"] {
            let head = |name: &str| {
                let file = format!("{name}/heads/first/{target}.safetensors");
                std::fs::read(dir.path().join(file)).unwrap()
            };
            assert!(head("old") == head("new"));
        }
        let score = |model: &str| {
            let file = at(&format!("{model}.json"));
            done(&["eval", &at(model), "-t", &first, "--force", "-o", &file]);
            let found: Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
            values(&found)
        };
        assert_eq!(score("old"), score("new"));
        // One goal of either kind alone.
        for (goal, task) in [("depth", &first), ("edges", &second)] {
            let out = at(goal);
            done(&["compress", "goal", &at("new"), goal, "-o", &out]);
            let file = at(&format!("{goal}.json"));
            let one = format!("{task}.one.toml");
            let text = std::fs::read_to_string(task).unwrap();
            let mut parts = text.split("[[targets]]\n");
            let before = parts.next().unwrap();
            let own = parts
                .find(|p| p.starts_with(&format!("name = \"{goal}\"")))
                .unwrap();
            std::fs::write(&one, format!("{before}[[targets]]\n{own}")).unwrap();
            let mut found = Vec::new();
            for model in [&out, &at("new")] {
                done(&["eval", model, "-t", &one, "--force", "-o", &file]);
                let text = std::fs::read(&file).unwrap();
                let read: Value = serde_json::from_slice(&text).unwrap();
                found.push(values(&read));
            }
            assert!(!found[0].is_empty() && found[0] == found[1], "{found:?}");
        }
        let again = failed(&["train", &shown(&loom), "-t", &first, "-o", &at("no")]);
        assert!(
            again.contains("has learned `first/segmentation` already"),
            "{again}"
        );
        let odd = text.replace("[train.add]", "method = \"head\"\n[train.add]");
        std::fs::write(&loom, odd).unwrap();
        let told = failed(&["train", &shown(&loom), "-o", &at("no")]);
        assert!(
            told.contains("`[train.add]` adds goals to a base"),
            "{told}"
        );
    }
}

/// A goal taken out answers as the whole model does.
#[test]
fn a_goal_can_be_taken_out() {
    let windows = MOE.replace("mutual_information = 0.01", "gate = \"window\"");
    taken_out(&windows);
}

pub const MEMORIES: &str = "\n[train.new.task_expert]\nexperts = 3";

#[test]
fn a_goal_with_a_memory_can_be_taken_out() {
    taken_out(MEMORIES);
}

fn taken_out(more: &str) {
    let dir = tempfile::tempdir().unwrap();
    let model = format!("{VIT}{more}");
    let (recipe, spec) = given(dir.path(), "steps = 6\nevaluate_every = 3", &model);
    let at = |name: &str| shown(&dir.path().join(name));
    done(&["train", &recipe, "-o", &at("whole")]);
    let told = done(&[
        "compress",
        "goal",
        &at("whole"),
        "depth",
        "-o",
        &at("depth"),
    ]);
    assert!(told.contains("synth/shapes/depth: "), "{told}");
    // The same task without its other targets.
    let all = std::fs::read_to_string(&spec).unwrap();
    let mut parts = all.split("[[targets]]\n");
    let (head, depth) = (parts.next().unwrap(), parts.nth(1).unwrap());
    let one = dir.path().join("one.task.toml");
    std::fs::write(&one, format!("{head}[[targets]]\n{depth}")).unwrap();
    let mut values = Vec::new();
    for model in ["whole", "depth"] {
        let results = dir.path().join(format!("{model}.json"));
        let args = [
            "eval",
            &at(model),
            "-t",
            &shown(&one),
            "-o",
            &shown(&results),
        ];
        done(&args);
        let results: Value = serde_json::from_slice(&std::fs::read(&results).unwrap()).unwrap();
        values.push(results["tasks"]["synth/shapes/depth"]["value"].clone());
    }
    assert!(
        values[0].is_number() && values[0] == values[1],
        "{values:?}"
    );
    let size = |name: &str| std::fs::metadata(dir.path().join(name).join("model.safetensors"));
    assert!(size("depth").unwrap().len() < size("whole").unwrap().len());
    let told = failed(&["compress", "goal", &at("whole"), "deep", "-o", &at("no")]);
    assert!(
        told.contains("its goals: synth/shapes/segmentation"),
        "{told}"
    );
}

/// A short step along the gradient raises a loss by its length times the gradient's.
#[test]
fn sharpness_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let out = shown(&dir.path().join("out"));
    for model in [VIT.to_owned(), format!("{VIT}{MEMORIES}")] {
        let (recipe, spec) = given(dir.path(), "steps = 3", &model);
        done(&["train", &recipe, "--force", "-o", &out]);
        let at = |rho: &str| {
            let args = [
                "diag",
                "sharpness",
                &out,
                "-t",
                &spec,
                "--rho",
                rho,
                "--json",
            ];
            let told = polyloom(&args);
            let lines = String::from_utf8(told.stdout).unwrap();
            let all = lines
                .lines()
                .filter_map(|l| serde_json::from_str::<Value>(l).ok());
            all.filter(|l| l["type"] == "sharpness")
                .map(|l| l["found"].clone())
                .collect::<Vec<_>>()
        };
        let (near, far) = (at("0.001"), at("0.1"));
        assert_eq!((near.len(), far.len()), (5, 5));
        for (near, far) in near.iter().zip(&far) {
            let rise = |found: &Value| found["rise"].as_f64().unwrap();
            let first = 0.001 * near["gradient"].as_f64().unwrap();
            assert!((rise(near) - first).abs() < 0.1 * first, "{near}");
            assert!(rise(far) > 10.0 * rise(near), "{far}");
        }
        let told = failed(&["diag", "sharpness", &out, "-t", &spec, "--rho", "0"]);
        assert!(told.contains("must be above 0"), "{told}");
    }
}
