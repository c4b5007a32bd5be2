//! `polyloom eval MODEL...` as a user meets it: a tiny model on a task of pictures; real models where they are there.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use polyloom_core::DType;
use polyloom_core::writer::{OutTensor, safetensors_bytes};
use serde_json::{Value, json};

use super::{polyloom, text};

/// Ten bright pictures and six dark ones, and the spec of the task.
fn task(dir: &Path, labels: &str) -> String {
    for (class, n, grey) in [("bright", 10, 200u8), ("dark", 6, 20)] {
        let folder = dir.join("pictures").join(class);
        std::fs::create_dir_all(&folder).unwrap();
        for i in 0..n {
            std::fs::write(folder.join(format!("{i}.raw")), [grey + i; 144]).unwrap();
        }
    }
    let spec = format!(
        r#"
schema = "polyloom.task/1"
id = "light/level"
type = "classification"
[modality]
input = ["image"]
[source]
kind = "image_folder"
root = "pictures"
size = [12, 12, 1]
[splits]
test = {{}}
[fields]
id = "file"
input = "image"
target = "label"
{labels}
[[metrics]]
name = "accuracy"
primary = true
"#
    );
    let path = dir.join("light.task.toml");
    std::fs::write(&path, spec).unwrap();
    path.display().to_string()
}

const LABELS: &str = "[labels]\nnames = [\"bright\", \"dark\"]";

/// Writes a head that says its bias, whatever it sees.
pub fn head(file: &Path, bias: &[f32], labels: Option<&[&str]>, width: usize) {
    let tensors: Vec<(OutTensor, Vec<u8>)> = [
        (
            "weight",
            vec![bias.len(), width],
            vec![0.0; bias.len() * width],
        ),
        ("bias", vec![bias.len()], bias.to_vec()),
    ]
    .into_iter()
    .map(|(name, shape, values)| {
        let out = OutTensor {
            name: name.to_owned(),
            dtype: DType::F32,
            shape,
        };
        let bytes = values.iter().flat_map(|x: &f32| x.to_le_bytes()).collect();
        (out, bytes)
    })
    .collect();
    let mut metadata = BTreeMap::new();
    if let Some(labels) = labels {
        metadata.insert("labels".to_owned(), json!(labels).to_string());
    }
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    std::fs::write(file, safetensors_bytes(&tensors, &metadata)).unwrap();
}

/// A copy of the tiny ViT.
pub fn model(dir: &Path, name: &str) -> PathBuf {
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("../polyloom-learn/tests/models/vit");
    let folder = dir.join(name);
    std::fs::create_dir_all(&folder).unwrap();
    for file in ["config.json", "model.safetensors"] {
        std::fs::copy(from.join(file), folder.join(file)).unwrap();
    }
    folder
}

fn results(path: &Path) -> Value {
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn done(args: &[&str]) -> (String, String) {
    let out = polyloom(args);
    assert_eq!(
        out.status.code(),
        Some(0),
        "{args:?}: {}",
        text(&out.stderr)
    );
    (text(&out.stdout), text(&out.stderr))
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

#[test]
fn a_folder_is_scored_on_the_tasks_of_its_heads() {
    let dir = tempfile::tempdir().unwrap();
    let (spec, folder) = (task(dir.path(), LABELS), model(dir.path(), "mine"));
    let root = folder.display().to_string();
    // Labels in another order: outputs follow the task.
    head(
        &folder.join("heads/level.safetensors"),
        &[1.0, 2.0],
        Some(&["dark", "bright"]),
        24,
    );
    std::fs::write(
        folder.join("polyloom.json"),
        r#"{"tasks": [{"id": "level"}]}"#,
    )
    .unwrap();
    let catalogue = ["--catalogue", &spec];
    let args = [&["eval", &*root][..], &catalogue].concat();
    let (shown, _) = done(&args);
    let shown = shown.replace(&root, "mine");
    assert_eq!(shown, include_str!("eval_models.txt"));
    assert!(shown.lines().all(|l| l.chars().count() <= 80), "{shown}");
    let file = folder.join("results.json");
    let entry = &results(&file)["tasks"]["light/level"];
    assert_eq!((&entry["value"], &entry["n"]), (&json!(0.625), &json!(16)));
    assert!(folder.join(entry["samples"].as_str().unwrap()).is_file());
    let first = std::fs::read(&file).unwrap();

    // The same again is not run; another head is, and replaces what the file held.
    let (again, told) = done(&args);
    assert!(told.contains("light/level: nothing changed"), "{told}");
    assert_eq!(again.replace(&root, "mine"), shown);
    assert_eq!(std::fs::read(&file).unwrap(), first);
    head(
        &folder.join("heads/level.safetensors"),
        &[2.0, 1.0],
        Some(&["dark", "bright"]),
        24,
    );
    let (_, told) = done(&args);
    assert!(
        told.contains("they are replaced") && !told.contains("nothing changed"),
        "{told}"
    );
    assert_eq!(results(&file)["tasks"]["light/level"]["value"], 0.375);

    // Fewer rows are spread over the split: half of each class.
    let target = dir.path().join("some.json").display().to_string();
    done(&[&args[..], &["-L", "8", "-o", &target]].concat());
    let entry = results(Path::new(&target))["tasks"]["light/level"].clone();
    assert_eq!((&entry["value"], &entry["n"]), (&json!(0.375), &json!(8)));

    // A head without labels takes those of the task; classes that the task does not name are those of the rows.
    head(
        &folder.join("heads/level.safetensors"),
        &[2.0, 1.0],
        None,
        24,
    );
    for labels in [LABELS, ""] {
        let spec = task(dir.path(), labels);
        let target = dir
            .path()
            .join(format!("{}.json", labels.len()))
            .display()
            .to_string();
        done(&["eval", &root, "-t", &spec, "-o", &target]);
        assert_eq!(
            results(Path::new(&target))["tasks"]["light/level"]["value"],
            0.625
        );
    }
}

#[test]
fn a_classifier_that_came_with_the_model_is_taken_by_name_or_by_number() {
    let dir = tempfile::tempdir().unwrap();
    let from =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../polyloom-learn/tests/models/vit-classes");
    let folder = dir.path().join("classes");
    std::fs::create_dir(&folder).unwrap();
    std::fs::copy(
        from.join("model.safetensors"),
        folder.join("model.safetensors"),
    )
    .unwrap();
    let config = results(&from.join("config.json"));
    let size = config["image_size"].as_u64().unwrap() as usize;
    let mut spec = std::fs::read_to_string(task(dir.path(), LABELS)).unwrap();
    spec = spec.replace("[12, 12, 1]", &format!("[{size}, {size}, 1]"));
    spec = spec.replace("[\"bright\", \"dark\"]", "[\"a\", \"b\", \"c\", \"d\"]");
    std::fs::remove_dir_all(dir.path().join("pictures")).unwrap();
    for (i, class) in ["a", "b", "c", "d"].iter().enumerate() {
        let folder = dir.path().join("pictures").join(class);
        std::fs::create_dir_all(&folder).unwrap();
        let pixel = |k: usize| (k * (i + 3) * 37 % 251) as u8;
        std::fs::write(
            folder.join("x.raw"),
            (0..size * size).map(pixel).collect::<Vec<u8>>(),
        )
        .unwrap();
    }
    let file = dir.path().join("four.task.toml").display().to_string();
    std::fs::write(&file, spec).unwrap();
    let root = folder.display().to_string();
    // The class that the model says of every picture, under names of the task in another order, others, none.
    let said = |names: [&str; 4], target: &str| {
        let mut config = config.clone();
        config["id2label"] = json!({"0": names[0], "1": names[1], "2": names[2], "3": names[3]});
        std::fs::write(folder.join("config.json"), config.to_string()).unwrap();
        let target = dir.path().join(target).display().to_string();
        let (_, told) = done(&["eval", &root, "-t", &file, "-o", &target]);
        (
            results(Path::new(&target))["tasks"]["light/level"]["value"]
                .as_f64()
                .unwrap(),
            told,
        )
    };
    let (plain, told) = said(["a", "b", "c", "d"], "1.json");
    assert!(!told.contains("order"), "{told}");
    let (others, told) = said(["cat", "dog", "cow", "hen"], "2.json");
    assert!(
        told.contains("(cat, dog, cow, hen) have other names") && told.contains("(a, b, c, d)"),
        "{told}"
    );
    let (none, told) = said(["LABEL_0", "LABEL_1", "LABEL_2", "LABEL_3"], "3.json");
    assert!(told.contains("its classes have no names"), "{told}");
    assert_eq!((others, none), (plain, plain));
    // Turned by one, what was right is wrong: four pictures, each turn is right about its share.
    let turned: f64 = [
        ["b", "c", "d", "a"],
        ["c", "d", "a", "b"],
        ["d", "a", "b", "c"],
    ]
    .iter()
    .enumerate()
    .map(|(i, names)| said(*names, &format!("t{i}.json")).0)
    .sum();
    assert_eq!(plain + turned, 1.0);
}

#[test]
fn the_help_says_what_can_be_scored() {
    let (shown, _) = done(&["eval", "--help"]);
    for words in [
        "polyloom eval [OPTIONS] <MODEL>...",
        "--predictions <FILE>",
        "--endpoint <URL> --model <NAME>",
    ] {
        assert!(shown.contains(words), "{shown}");
    }
    assert!(
        shown.contains("Asking a server:") && shown.contains("--api-key-env"),
        "{shown}"
    );
    assert!(shown.lines().all(|l| l.chars().count() <= 100), "{shown}");
}

#[test]
fn what_does_not_fit_is_said_with_both_sides() {
    let dir = tempfile::tempdir().unwrap();
    let (spec, folder) = (task(dir.path(), LABELS), model(dir.path(), "mine"));
    let root = folder.display().to_string();
    let target = dir.path().join("r.json").display().to_string();
    let args = ["eval", &*root, "-t", &*spec, "-o", &*target];
    let said = refused(&args);
    assert!(
        said.contains("has no head for `light/level`") && said.contains("--heads DIR"),
        "{said}"
    );
    let said = refused(&["eval", &root]);
    assert!(
        said.contains("none was given") && said.contains("-t TASK"),
        "{said}"
    );
    let file = folder.join("heads/level.safetensors");
    head(&file, &[1.0, 2.0], Some(&["cat", "dog"]), 24);
    let said = refused(&args);
    assert!(
        said.contains("2 classes (cat, dog)") && said.contains("2 (bright, dark)"),
        "{said}"
    );
    head(&file, &[1.0, 2.0, 3.0], None, 24);
    let said = refused(&args);
    assert!(
        said.contains("3 classes without names") && said.contains("2 (bright, dark)"),
        "{said}"
    );
    head(&file, &[1.0, 2.0], None, 32);
    let said = refused(&args);
    assert!(
        said.contains("takes 32 numbers") && said.contains("has 24"),
        "{said}"
    );
    head(&file, &[1.0], None, 24);
    let said = refused(&args);
    assert!(
        said.contains("head of regression") && said.contains("asks for classification"),
        "{said}"
    );
    let said = refused(&["eval", &root, &root, "-t", &spec, "-o", &target]);
    assert!(
        said.contains("several systems") && said.contains("-o DIR/"),
        "{said}"
    );
    let said = refused(&["eval"]);
    assert!(said.contains("nothing to score"), "{said}");
    // Nothing was written.
    assert!(!Path::new(&target).exists());
    let preds = dir.path().join("p.csv");
    std::fs::write(&preds, "id,prediction\n").unwrap();
    let said = refused(&[
        "eval",
        "--predictions",
        &preds.display().to_string(),
        "-L",
        "3",
    ]);
    assert!(said.contains("--limit"), "{said}");
}

#[test]
fn several_systems_make_a_table_and_a_file_each() {
    let dir = tempfile::tempdir().unwrap();
    let spec = task(dir.path(), LABELS);
    let base = model(dir.path(), "base");
    // Heads alone stand on a base, which is opened once for both and for itself.
    for (name, bias) in [("a", [2.0, 1.0]), ("b", [1.0, 2.0])] {
        let folder = dir.path().join(name);
        head(
            &folder.join("heads/light/level.safetensors"),
            &bias,
            Some(&["bright", "dark"]),
            24,
        );
        std::fs::write(folder.join("polyloom.json"), r#"{"base": "../base"}"#).unwrap();
    }
    head(&base.join("heads/level.safetensors"), &[1.0, 2.0], None, 24);
    let path = |name: &str| dir.path().join(name).display().to_string();
    let runs = path("runs");
    let args = [
        "eval",
        &path("a"),
        &path("b"),
        &path("base"),
        "-t",
        &spec,
        "-o",
        &runs,
    ];
    let (shown, _) = done(&args);
    let shown = shown.replace(&runs, "runs");
    assert_eq!(
        shown,
        "system   level\na        0.625\nb        0.375\nbase     0.375\nresults: runs\n"
    );
    let values: Vec<f64> = ["a", "b", "base"]
        .iter()
        .map(|n| results(&dir.path().join(format!("runs/{n}.json"))))
        .map(|r| r["tasks"]["light/level"]["value"].as_f64().unwrap())
        .collect();
    assert_eq!(values, [0.625, 0.375, 0.375]);
    let out = polyloom(&[&args[..], &["--json", "--force"]].concat());
    let events: Vec<Value> = text(&out.stdout)
        .lines()
        .map(|l| serde_json::from_str(l).unwrap())
        .collect();
    let opened: Vec<&Value> = events.iter().filter(|e| e["type"] == "model").collect();
    assert!(opened.len() == 1 && opened[0]["systems"] == 3, "{opened:?}");
    assert_eq!(events[0]["type"], "plan");
    // The board reads what was written.
    let (board, _) = done(&["board", &path("runs/a.json"), &path("runs/b.json")]);
    assert!(board.contains('a') && board.contains("0.6"), "{board}");
}

#[cfg(unix)]
#[test]
fn a_killed_run_leaves_the_tasks_it_finished() {
    let dir = tempfile::tempdir().unwrap();
    let spec = task(dir.path(), LABELS);
    let folder = model(dir.path(), "mine");
    head(
        &folder.join("heads/level.safetensors"),
        &[2.0, 1.0],
        None,
        24,
    );
    let text_of = std::fs::read_to_string(&spec).unwrap();
    let mut args = vec!["eval".to_owned(), folder.display().to_string(), "-o".into()];
    let target = dir.path().join("r.json");
    args.extend([target.display().to_string(), "--force".into()]);
    for i in 0..6 {
        let spec = dir.path().join(format!("{i}.task.toml"));
        std::fs::write(
            &spec,
            text_of.replace("light/level", &format!("t{i}/level")),
        )
        .unwrap();
        args.extend(["-t".into(), spec.display().to_string()]);
    }
    for wait in [5, 30, 60, 90, 140] {
        let _ = std::fs::remove_file(&target);
        let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_polyloom"))
            .args(&args)
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(std::time::Duration::from_millis(wait));
        let _ = child.kill();
        let _ = child.wait();
        if target.exists() {
            for (task, entry) in results(&target)["tasks"].as_object().unwrap() {
                assert_eq!(entry["value"], 0.625, "{task}");
                assert!(
                    dir.path()
                        .join(entry["samples"].as_str().unwrap())
                        .is_file(),
                    "{task}"
                );
            }
        }
    }
    let args: Vec<&str> = args
        .iter()
        .map(|a| &**a)
        .filter(|a| *a != "--force")
        .collect();
    done(&args);
    assert_eq!(results(&target)["tasks"].as_object().unwrap().len(), 6);
}

fn shared() -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared");
    if root.join("models").exists() {
        return root.canonicalize().ok();
    }
    println!("skipped: no ../shared/models");
    None
}

#[test]
fn golden_accuracies_of_real_pictures() {
    let Some(shared) = shared() else { return };
    let dir = tempfile::tempdir().unwrap();
    let from = shared.join("models/vision-eight");
    let told = results(&from.join("accuracies.json"));
    let heads = from.join("heads").display().to_string();
    let data = shared.join("data").display().to_string();
    let (tasks, mut folders) = (
        ["omniglot_balinese", "omniglot_greek", "omniglot_latin"],
        Vec::new(),
    );
    for name in ["base", "experts/omniglot_greek"] {
        let folder = dir.path().join(name);
        std::fs::create_dir_all(&folder).unwrap();
        for file in ["config.json", "model.safetensors"] {
            std::fs::copy(from.join(name).join(file), folder.join(file)).unwrap();
        }
        let preparation =
            r#"{"do_resize": false, "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}"#;
        std::fs::write(folder.join("preprocessor_config.json"), preparation).unwrap();
        folders.push(folder.display().to_string());
    }
    let runs = dir.path().join("runs").display().to_string();
    let tasks_given = tasks.join(",");
    let args = [
        "eval",
        &*folders[0],
        &*folders[1],
        "--heads",
        &*heads,
        "--data",
        &*data,
        "-t",
        &*tasks_given,
        "-o",
        &*runs,
    ];
    done(&args);
    let mut cases = 0;
    for (name, wanted) in [
        ("base", &told["base"]),
        ("omniglot_greek", &told["matrix"]["omniglot_greek"]),
    ] {
        let found = results(&dir.path().join(format!("runs/{name}.json")));
        for task in tasks {
            let entry = &found["tasks"][format!("vision/{task}")];
            let n = entry["n"].as_f64().unwrap();
            let apart =
                (entry["value"].as_f64().unwrap() - wanted[task].as_f64().unwrap()).abs() * n;
            assert!(apart < 1.5, "{name} on {task}: {apart} images apart");
            cases += 1;
        }
    }
    println!("{cases} accuracies of pictures");
}

#[test]
fn golden_thirty_adapters_open_their_base_once() {
    let Some(shared) = shared() else { return };
    let dir = tempfile::tempdir().unwrap();
    let from = shared.join("models/text-adapters");
    let base = shared.join("models/all-MiniLM-L6-v2").display().to_string();
    let names = [
        "sst2",
        "subj",
        "trec6",
        "mpqa",
        "tweet_emotion",
        "banking77",
        "msrp",
        "sick_entailment",
    ];
    let mut args = vec!["eval".to_owned()];
    for i in 0..30 {
        let (name, folder) = (names[i % 8], dir.path().join(format!("{i:02}")));
        std::fs::create_dir(&folder).unwrap();
        for file in ["adapter_config.json", "adapter_model.safetensors"] {
            std::fs::copy(
                from.join("adapters").join(name).join(file),
                folder.join(file),
            )
            .unwrap();
        }
        args.push(folder.display().to_string());
    }
    // A model with the adapter folded in says the same.
    let folded = format!("{base}+{}", from.join("adapters/msrp").display());
    let data = shared.join("data").display().to_string();
    let (heads, runs) = (
        from.join("heads").display().to_string(),
        dir.path().join("runs").display().to_string(),
    );
    let more = [
        "--base",
        &base,
        "--heads",
        &heads,
        "--data",
        &data,
        "-t",
        "trec6",
        "-L",
        "8",
        "--max-length",
        "64",
        "-o",
        &runs,
        "--json",
    ];
    args.extend([folded]);
    args.extend(more.map(str::to_owned));
    let out = polyloom(&args.iter().map(|a| &**a).collect::<Vec<_>>());
    assert!(out.status.success(), "{}", text(&out.stderr));
    let events: Vec<Value> = text(&out.stdout)
        .lines()
        .map(|l| serde_json::from_str(l).unwrap())
        .collect();
    let opened: Vec<&Value> = events.iter().filter(|e| e["type"] == "model").collect();
    assert!(
        opened.len() == 1 && opened[0]["systems"] == 31,
        "{opened:?}"
    );
    let value = |name: &str, task: &str| {
        let found = results(&dir.path().join(format!("runs/{name}.json")));
        let entry = &found["tasks"][task];
        assert_eq!(entry["n"], 8);
        entry["value"].as_f64().unwrap()
    };
    {
        let task = "text/trec6";
        for i in 8..30 {
            assert_eq!(
                value(&format!("{i:02}"), task),
                value(&format!("{:02}", i % 8), task)
            );
        }
        assert_eq!(value("06", task), value("msrp", task));
    }
    println!("30 adapters");
}
