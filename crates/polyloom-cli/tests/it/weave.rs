//! Woven models as a user meets them: two experts of a small vision transformer on digits and clothes.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::{polyloom, text};

fn data(task: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("quickstart/data");
    let file = folder.join(task).join("task.toml").canonicalize().unwrap();
    file.display().to_string()
}

fn run(args: &[&str]) -> String {
    let out = polyloom(args);
    assert!(out.status.success(), "{args:?}: {}", text(&out.stderr));
    text(&out.stdout)
}

fn refused(args: &[&str]) -> String {
    let out = polyloom(args);
    assert_eq!(
        out.status.code(),
        Some(2),
        "{args:?}: {}",
        text(&out.stdout)
    );
    text(&out.stderr)
}

fn json(file: &str) -> Value {
    serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap()
}

/// A base, two experts with heads that were fitted to the base, and a recipe over them.
fn family(dir: &Path) -> String {
    let at = |name: &str| dir.join(name).display().to_string();
    let begin = dir.join("begin.toml");
    let new = "[train.new]\nmodel_type = \"vit\"\nimage_size = 28\npatch_size = 7\nnum_channels = 1\nhidden_size = 16\nnum_hidden_layers = 2\nnum_attention_heads = 2\nintermediate_size = 32\n";
    let (digits, clothes) = (data("digits"), data("fashion_mnist_900"));
    let head = format!(
        "seed = 3\n[train]\ntasks = [{digits:?}, {clothes:?}]\nlimit = 60\nsteps = 40\nrate = 3e-3\nbatch = 16\n{new}"
    );
    std::fs::write(&begin, head).unwrap();
    run(&["train", &begin.display().to_string(), "-o", &at("base")]);
    for (name, task) in [("x", &digits), ("y", &clothes)] {
        run(&[
            "train",
            "--base",
            &at("base"),
            "-t",
            task,
            "-L",
            "60",
            "--steps",
            "30",
            "--rate",
            "3e-3",
            "--batch",
            "16",
            "--set",
            "train.head.start=probe",
            "--set",
            "train.head.frozen=true",
            "-o",
            &at(name),
        ]);
    }
    let file = dir.join("loom.toml");
    let recipe = format!(
        "version = 1\nseed = 1\n[base]\npath = \"base\"\n[[expert]]\nname = \"x\"\npath = \"x\"\ntask = {digits:?}\n[[expert]]\nname = \"y\"\npath = \"y\"\ntask = {clothes:?}\n[weave]\nrank = 4\n[weave.router]\nlimit = 60\nepochs = 20\nbatch = 16\n"
    );
    std::fs::write(&file, recipe).unwrap();
    file.display().to_string()
}

#[test]
fn woven_models_are_made_judged_and_checked() {
    let dir = tempfile::tempdir().unwrap();
    let recipe = family(dir.path());
    let at = |name: &str| dir.path().join(name).display().to_string();
    let tasks = format!("{},{}", data("digits"), data("fashion_mnist_900"));
    for method in ["twin", "smile", "wemoe"] {
        let out = at(method);
        let mut args = vec!["tune", &recipe, "-o", &out, "--method", method];
        let without_rank = std::fs::read_to_string(&recipe)
            .unwrap()
            .replace("rank = 4\n", "");
        let other = at("wemoe.toml");
        std::fs::write(&other, without_rank).unwrap();
        if method == "wemoe" {
            args[1] = &other;
            args.extend(["--steps", "3", "-L", "20", "--rate", "1e-3"]);
        }
        assert_eq!(run(&args).trim(), out);
        let again = at("again");
        let last = args.iter().position(|a| *a == out).unwrap();
        args[last] = &again;
        args.extend(["-j", "1", "--force"]);
        run(&args);
        let mut same = vec!["woven.json", "router.safetensors", "parts/x.safetensors"];
        same.extend((method == "twin").then_some("shared.safetensors"));
        same.extend((method == "wemoe").then_some("mixers.safetensors"));
        same.extend((method == "smile").then_some("gates.safetensors"));
        for file in same {
            let read = |folder: &str| std::fs::read(PathBuf::from(folder).join(file)).unwrap();
            assert!(read(&out) == read(&again), "{method}: {file}");
        }
        let shown = run(&["inspect", &out]);
        assert!(
            shown.contains(&format!("woven model, {method}, 2 experts")),
            "{shown}"
        );
        let scored = |more: &[&str]| {
            let file = at(&format!("{method}.json"));
            let mut args = vec![
                "eval", &out, "-t", &tasks, "-L", "40", "-o", &file, "--force",
            ];
            args.extend(more);
            let told = run(&args);
            (told, json(&file)["tasks"].clone())
        };
        let (told, found) = scored(&[]);
        assert!(
            told.contains("task unknown: the router chooses parts and head"),
            "{told}"
        );
        let number = |task: &Value, key: &str| task["woven"][key].as_f64().unwrap();
        for (name, task) in found.as_object().unwrap() {
            assert_eq!(task["value"], task["woven"]["task_unknown"], "{name}");
            let router = number(task, "router_accuracy");
            assert!((0.0..=1.0).contains(&router), "{method} {name}: {router}");
            // A wrong head answers nothing right.
            assert!(number(task, "task_unknown") <= number(task, "task_known").min(router) + 1e-9);
            let passes = number(task, "passes");
            assert_eq!(passes, if method == "twin" { 2.0 } else { 1.0 });
        }
        let (told, known) = scored(&["--task-known"]);
        assert!(
            told.contains("task known: the router chooses parts"),
            "{told}"
        );
        for (name, task) in known.as_object().unwrap() {
            assert_eq!(task["value"], found[name]["woven"]["task_known"], "{name}");
        }
        // A row alone comes out as it does in company.
        let (_, alone) = scored(&["--batch", "1"]);
        for (name, task) in alone.as_object().unwrap() {
            assert_eq!(task["value"], found[name]["value"], "{method} {name}");
        }
    }
}

#[test]
fn what_is_broken_or_cannot_be_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let recipe = family(dir.path());
    let at = |name: &str| dir.path().join(name).display().to_string();
    let out = at("twin");
    run(&["tune", &recipe, "-o", &out]);
    let eval = |more: &[&str]| {
        let mut args = vec!["eval", &out, "-L", "10", "-t"];
        let task = data("digits");
        args.push(&task);
        args.extend(more);
        refused(&args)
    };
    let changed = |file: &str, change: &dyn Fn(Vec<u8>) -> Vec<u8>| {
        let path = PathBuf::from(&out).join(file);
        let before = std::fs::read(&path).unwrap();
        std::fs::write(&path, change(before.clone())).unwrap();
        let told = eval(&[]);
        std::fs::write(&path, before).unwrap();
        told
    };
    let text_of = |from: &'static str, to: &'static str| {
        move |bytes: Vec<u8>| {
            String::from_utf8(bytes)
                .unwrap()
                .replacen(from, to, 1)
                .into_bytes()
        }
    };
    let told = changed(
        "woven.json",
        &text_of("polyloom.woven/1", "polyloom.woven/9"),
    );
    assert!(
        told.contains("polyloom.woven/9") && told.contains("newer"),
        "{told}"
    );
    let told = changed(
        "woven.json",
        &text_of("\"name\": \"x\"", "\"name\": \"../x\""),
    );
    assert!(told.contains("no name of a file"), "{told}");
    let told = changed("woven.json", &text_of("\"hash\": \"", "\"hash\": \"0"));
    assert!(told.contains("another base"), "{told}");
    let told = changed("parts/y.safetensors", &|b| b[..b.len() / 2].to_vec());
    assert!(told.contains("y.safetensors"), "{told}");
    let told = changed("router.safetensors", &|b| b[..20].to_vec());
    assert!(told.contains("router.safetensors"), "{told}");
    let parts = PathBuf::from(&out).join("parts/x.safetensors");
    let held = std::fs::read(&parts).unwrap();
    std::fs::remove_file(&parts).unwrap();
    let told = eval(&[]);
    assert!(
        told.contains("x.safetensors") && told.contains("copied incompletely"),
        "{told}"
    );
    std::fs::write(&parts, held).unwrap();
    // Another place of the same base is fine, another base is not.
    std::fs::rename(dir.path().join("base"), dir.path().join("moved")).unwrap();
    let told = eval(&[]);
    assert!(
        told.contains("woven.json") && told.contains("--base"),
        "{told}"
    );
    let task = data("digits");
    run(&[
        "eval",
        &out,
        "-L",
        "10",
        "-t",
        &task,
        "--base",
        &at("moved"),
        "-o",
        &at("r.json"),
    ]);
    assert!(eval(&["--base", &at("x")]).contains("another base"));
    // Recipes.
    let told = refused(&[
        "tune",
        &at("x"),
        "--base",
        &at("moved"),
        "-t",
        "a,b",
        "--method",
        "twin",
        "-o",
        &at("no"),
    ]);
    assert!(told.contains("1 experts and 2 tasks"), "{told}");
    let told = refused(&["tune", &recipe, "-o", &at("no"), "--set", "weave.densty=1"]);
    assert!(told.contains("densty"), "{told}");
    let told = refused(&["tune", &recipe, "-o", &at("no"), "--per", "tensor"]);
    assert!(told.contains("--per"), "{told}");
}
