//! `polyloom train` as a user meets it: small models on the quickstart's digits.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::{polyloom, text};

fn data(task: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("quickstart/data");
    folder
        .join(task)
        .canonicalize()
        .unwrap()
        .display()
        .to_string()
}

/// A recipe of a small perceptron made from nothing, and more lines of `[train]`.
fn recipe(folder: &Path, more: &str) -> String {
    let text = format!(
        "version = 1\nseed = 3\n[train]\ntasks = [{:?}]\nlimit = 80\nvalidation_limit = 40\nbatch = 16\n{more}\n\
         [train.new]\nmodel_type = \"polyloom-mlp\"\nimage_size = 28\nnum_channels = 1\nhidden_sizes = [32, 16]\nhidden_act = \"relu\"\n",
        data("digits/task.toml"),
    );
    let file = folder.join("loom.toml");
    std::fs::write(&file, text).unwrap();
    file.display().to_string()
}

fn at(folder: &Path, name: &str) -> String {
    folder.join(name).display().to_string()
}

fn read(folder: &str, name: &str) -> Vec<u8> {
    let file = PathBuf::from(folder).join(name);
    std::fs::read(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display()))
}

fn json(folder: &str) -> Value {
    serde_json::from_slice(&read(folder, "polyloom.json")).unwrap()
}

fn refused(args: &[&str], expected: &str) {
    let out = polyloom(args);
    let said = text(&out.stderr);
    assert_eq!(out.status.code(), Some(2), "{said}");
    assert!(said.contains(expected), "{said}");
}

#[test]
fn a_new_model_learns_and_its_folder_is_whole() {
    let dir = tempfile::tempdir().unwrap();
    let recipe = recipe(dir.path(), "steps = 60\nrate = 1e-2\nevaluate_every = 20");
    let out = at(dir.path(), "out");
    let done = polyloom(&["train", &recipe, "-o", &out]);
    assert!(done.status.success(), "{}", text(&done.stderr));
    assert_eq!(text(&done.stdout).trim(), out);
    let provenance = json(&out);
    let score = provenance["scores"]["tasks"]["digits"]["value"]
        .as_f64()
        .unwrap();
    // Ten digits: one tenth is chance.
    assert!(score > 0.5, "{provenance}");
    assert_eq!(provenance["tasks"][0]["feature"], "cls");
    for name in [
        "config.json",
        "model.safetensors",
        "heads/digits.safetensors",
        "README.md",
        "events.out.tfevents.polyloom",
    ] {
        assert!(!read(&out, name).is_empty());
    }
    let log = String::from_utf8(read(&out, "train.jsonl")).unwrap();
    let lines: Vec<Value> = log
        .lines()
        .map(|l| serde_json::from_str(l).unwrap())
        .collect();
    let steps = lines.iter().filter(|l| l["type"] == "step").count();
    let looked = lines.iter().filter(|l| l["type"] == "evaluation").count();
    assert_eq!((steps, looked), (60, 3));
    assert!(!Path::new(&format!("{out}.training")).exists());
    refused(&["train", &recipe, "-o", &out], "exists already");
    let plan = polyloom(&[
        "train",
        &recipe,
        "-o",
        &at(dir.path(), "other"),
        "--dry-run",
    ]);
    assert!(text(&plan.stdout).contains("60 steps, batch 16 x 1, rate 0.01, seed 3"));
    assert!(!dir.path().join("other").exists());

    // A head alone, and low-rank parts, over what came out.
    let task = data("omniglot_greek/task.toml");
    let head = at(dir.path(), "head");
    let args = [
        "train", "--base", &out, "-t", &task, "-L", "60", "--steps", "4", "-o",
    ];
    let run = |more: &[&str], to: &str| {
        let args: Vec<&str> = args
            .iter()
            .copied()
            .chain([to])
            .chain(more.iter().copied())
            .collect();
        let done = polyloom(&args);
        assert!(done.status.success(), "{}", text(&done.stderr));
    };
    run(
        &["--method", "head", "--set", "train.head.start=probe"],
        &head,
    );
    assert!(!Path::new(&head).join("model.safetensors").exists());
    assert_eq!(json(&head)["base"], Value::from(out.clone()));
    let lora = at(dir.path(), "lora");
    run(
        &[
            "--method",
            "lora",
            "--rank",
            "2",
            "--set",
            "train.lora.dora=true",
        ],
        &lora,
    );
    let config: Value = serde_json::from_slice(&read(&lora, "adapter_config.json")).unwrap();
    assert_eq!(
        (&config["r"], &config["lora_alpha"], &config["use_dora"]),
        (&2.into(), &4.into(), &true.into())
    );
    let folded = at(dir.path(), "folded");
    let done = polyloom(&["adapt", "fold", &lora, "--base", &out, "-o", &folded]);
    assert!(done.status.success(), "{}", text(&done.stderr));
    assert_ne!(
        read(&folded, "model.safetensors"),
        read(&out, "model.safetensors")
    );
}

#[test]
fn one_expert_a_task_and_all_tasks_together() {
    let dir = tempfile::tempdir().unwrap();
    let recipe = recipe(dir.path(), "steps = 4");
    let tasks = format!(
        "{},{}",
        data("digits/task.toml"),
        data("omniglot_latin/task.toml")
    );
    let (each, joint) = (at(dir.path(), "each"), at(dir.path(), "joint"));
    let done = polyloom(&["train", &recipe, "-t", &tasks, "--each", "-o", &each]);
    assert!(done.status.success(), "{}", text(&done.stderr));
    for task in ["digits", "omniglot_latin"] {
        assert!(!read(&each, &format!("{task}/heads/{task}.safetensors")).is_empty());
    }
    let again = polyloom(&[
        "train", &recipe, "-t", &tasks, "--each", "-o", &each, "--resume",
    ]);
    assert!(
        text(&again.stderr).contains("is there already and is left"),
        "{}",
        text(&again.stderr)
    );
    let done = polyloom(&[
        "train",
        &recipe,
        "-t",
        &tasks,
        "-o",
        &joint,
        "--set",
        "train.sampling=uniform",
        "--json",
    ]);
    let events: Vec<Value> = text(&done.stdout)
        .lines()
        .map(|l| serde_json::from_str(l).unwrap())
        .collect();
    assert!(
        events
            .iter()
            .any(|e| e["type"] == "begin" && e["rows"]["omniglot_latin"] == 80)
    );
    assert_eq!(events.last().unwrap()["type"], "done");
    assert_eq!(json(&joint)["tasks"].as_array().unwrap().len(), 2);
}

#[test]
fn a_run_that_was_killed_goes_on_to_the_same_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let recipe = recipe(
        dir.path(),
        "steps = 400\naugment = 1.0\nevaluate_every = 10\nsave_every = 10",
    );
    let (whole, cut) = (at(dir.path(), "whole"), at(dir.path(), "cut"));
    let program = env!("CARGO_BIN_EXE_polyloom");
    let mut child = Command::new(program)
        .args(["train", &recipe, "-o", &cut, "-q", "-j", "1"])
        .spawn()
        .unwrap();
    let checkpoint = dir.path().join("cut.training/checkpoint.safetensors");
    let began = Instant::now();
    while !checkpoint.exists() {
        assert!(began.elapsed() < Duration::from_secs(120), "no checkpoint");
        assert!(
            child.try_wait().unwrap().is_none(),
            "the run ended before it was killed"
        );
        std::thread::sleep(Duration::from_millis(2));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(!Path::new(&cut).exists(), "the run was not cut short");
    refused(&["train", &recipe, "-o", &cut], "was interrupted");
    refused(
        &["train", &recipe, "-o", &cut, "--resume", "--seed", "4"],
        "checkpoint of another run",
    );
    for (out, resume) in [(&cut, true), (&whole, false)] {
        let mut args = vec!["train", &recipe, "-o", out, "-j", "1"];
        args.extend(resume.then_some("--resume"));
        let done = polyloom(&args);
        assert!(done.status.success(), "{}", text(&done.stderr));
        if resume {
            assert!(
                text(&done.stderr).contains("from step "),
                "{}",
                text(&done.stderr)
            );
        }
    }
    for name in ["model.safetensors", "heads/digits.safetensors"] {
        assert!(read(&cut, name) == read(&whole, name), "{name} differs");
    }
    let steps = |folder: &str| {
        let log = String::from_utf8(read(folder, "train.jsonl")).unwrap();
        let line = |l: &str| {
            let mut l: Value = serde_json::from_str(l).unwrap();
            l.as_object_mut().unwrap().remove("time");
            l
        };
        log.lines().map(line).collect::<Vec<Value>>()
    };
    assert_eq!(steps(&cut), steps(&whole));
}

#[test]
fn what_cannot_be_trained_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let out = at(dir.path(), "out");
    let odd = recipe(dir.path(), "epoch = 3");
    refused(&["train", &odd, "-o", &out], "unknown field `epoch`");
    refused(&["train", &odd, "-o", &out], "hint: did you mean `epochs`?");
    let good = recipe(dir.path(), "steps = 30\nsave_every = 2\nevaluate_every = 0");
    refused(
        &["train", &good, "-o", &out, "-t", "text/nothing"],
        "text/nothing",
    );
    refused(
        &["train", &good, "-o", &out, "--set", "train.split=other"],
        "has no split `other`",
    );
    refused(
        &[
            "train",
            &good,
            "-o",
            &out,
            "--set",
            "train.new.model_type=\"cnn\"",
        ],
        "cnn",
    );
    // One class is left.
    let spec = std::fs::read_to_string(data("digits/task.toml")).unwrap();
    let spec = spec
        .replace(
            "[labels]\n",
            "[labels]\nignore = [0, 1, 2, 3, 4, 5, 6, 7, 8]\n",
        )
        .replace("root = \".\"", &format!("root = {:?}", data("digits")));
    let one = at(dir.path(), "one.toml");
    std::fs::write(&one, &spec).unwrap();
    refused(
        &["train", &good, "-o", &out, "-t", &one],
        "have the class `nine`",
    );
    let none = at(dir.path(), "none.toml");
    std::fs::write(&none, spec.replace("7, 8]", "7, 8, 9]")).unwrap();
    refused(
        &["train", &good, "-o", &out, "-t", &none],
        "has no rows in split `train`",
    );
    assert!(!Path::new(&out).exists() && !Path::new(&format!("{out}.training")).exists());
    // A folder that cannot be written costs no training.
    let (late, block) = (
        at(dir.path(), "late"),
        dir.path().join(".late.polyloom-partial"),
    );
    std::fs::write(&block, "in the way").unwrap();
    let failed = polyloom(&["train", &good, "-o", &late]);
    assert_eq!(failed.status.code(), Some(2), "{}", text(&failed.stderr));
    std::fs::remove_file(&block).unwrap();
    let done = polyloom(&["train", &good, "-o", &late, "--resume"]);
    assert!(done.status.success(), "{}", text(&done.stderr));
    assert!(
        text(&done.stderr).contains("from step 30"),
        "{}",
        text(&done.stderr)
    );
    refused(
        &["train", &good, "-o", &out, "--set", "train.dtype=int4"],
        "`int4` is no type of weights",
    );
    // Numbers that leave the range: the last checkpoint stays, and a lower rate goes on from it.
    let wild = [
        "train",
        &good,
        "-o",
        &out,
        "--set",
        "train.optimiser=sgd",
        "--set",
        "train.clip=0",
        "--set",
        "train.warmup=3",
        "--rate",
    ];
    let with = |more: &[&str]| {
        polyloom(
            &wild
                .iter()
                .copied()
                .chain(more.iter().copied())
                .collect::<Vec<_>>(),
        )
    };
    let done = with(&["1e18"]);
    let said = text(&done.stderr);
    assert_eq!(done.status.code(), Some(2), "{said}");
    assert!(
        said.contains("finite") || said.contains("the loss of task `digits` is"),
        "{said}"
    );
    assert!(said.contains("a lower train.rate"), "{said}");
}

#[test]
fn help() {
    let short = polyloom(&["train", "-h"]);
    let shown = text(&short.stdout);
    assert!(
        shown.contains("Train one task") && shown.contains("--resume"),
        "{shown}"
    );
    assert!(shown.lines().all(|l| l.chars().count() <= 120));
}

/// docs/guides/train.md: its commands, up to what needs other data, on a folder of digits and a table made here.
#[test]
fn the_guide() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let page = std::fs::read_to_string(root.join("docs/guides/train.md")).unwrap();
    let dir = tempfile::tempdir().unwrap();
    pictures(&dir.path().join("pictures"));
    mails(&dir.path().join("mails.csv"));
    let blocks = |language: &str| -> Vec<&str> {
        let mark = format!("```{language}\n");
        page.split(&mark)
            .skip(1)
            .filter_map(|b| b.split("```").next())
            .collect()
    };
    std::fs::write(dir.path().join("pictures.toml"), blocks("toml")[0]).unwrap();
    let minilm = root.join("../shared/models/all-MiniLM-L6-v2");
    if let Ok(model) = minilm.canonicalize() {
        let models = dir.path().join("models");
        std::fs::create_dir(&models).unwrap();
        #[cfg(unix)]
        std::os::unix::fs::symlink(model, models.join("all-MiniLM-L6-v2")).unwrap();
    }
    let mut ran = 0;
    for line in blocks("sh")[..3].iter().flat_map(|b| b.lines()) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (Some(&"polyloom"), Some(verb)) = (words.first(), words.get(1)) else {
            panic!("`{line}` is no command");
        };
        let texts = line.contains("out/mails");
        if texts && !dir.path().join("models/all-MiniLM-L6-v2").exists() {
            eprintln!("left out, without ../shared/models: {line}");
            continue;
        }
        let out = Command::new(env!("CARGO_BIN_EXE_polyloom"))
            .args(&words[1..])
            .current_dir(dir.path())
            .env("NO_COLOR", "1")
            .output()
            .unwrap();
        assert!(
            out.status.success(),
            "{line}\n{}{}",
            text(&out.stdout),
            text(&out.stderr)
        );
        if *verb == "eval" && !texts {
            assert!(
                text(&out.stdout).contains("accuracy"),
                "{}",
                text(&out.stdout)
            );
        }
        ran += 1;
    }
    assert!(ran >= 6);
    let score = json(&at(dir.path(), "out/pictures"))["scores"]["tasks"]["pictures"]["value"]
        .as_f64()
        .unwrap();
    assert!(score > 0.5, "{score}");
}

/// Ten folders of bitmaps: a bright bar at a height that is the class, with noise.
fn pictures(root: &Path) {
    for class in 0..5usize {
        let folder = root.join(format!("bar{class}"));
        std::fs::create_dir_all(&folder).unwrap();
        for n in 0..24usize {
            let mut bytes = b"BM".to_vec();
            bytes.extend((54u32 + 28 * 28 * 3).to_le_bytes());
            for x in [0u32, 54, 40, 28, 28] {
                bytes.extend(x.to_le_bytes());
            }
            bytes.extend([1, 0, 24, 0]);
            bytes.extend([0; 24]);
            for y in 0..28usize {
                for x in 0..28usize {
                    let bar = y / 4 == class + 1 && x > n % 6 && x < 20 + n % 7;
                    let noise = (x * 31 + y * 17 + n * 57 + class * 7) % 40;
                    bytes.extend([noise as u8 + if bar { 200 } else { 0 }; 3]);
                }
            }
            std::fs::write(folder.join(format!("{n}.bmp")), bytes).unwrap();
        }
    }
}

/// 160 short mails with a topic and whether they are urgent.
fn mails(file: &Path) {
    let topics = [
        (
            "money",
            [
                "my card was charged twice for one order",
                "please refund the fee on my account",
                "the transfer has not arrived yet",
                "i was billed for a plan i left",
            ],
        ),
        (
            "travel",
            [
                "my flight was moved to monday",
                "the hotel has lost my booking",
                "which train goes to the airport",
                "i missed my bus connection home",
            ],
        ),
        (
            "food",
            [
                "the soup was cold and far too salty",
                "can i order the cake without nuts",
                "the pizza came an hour late",
                "where is my dinner order now",
            ],
        ),
        (
            "garden",
            [
                "the roses have lost all leaves",
                "when should i plant the onions",
                "the hedge needs cutting again",
                "there are snails on the lettuce",
            ],
        ),
    ];
    let ends = [
        ("answer right now", "yes"),
        ("as soon as you can", "yes"),
        ("this cannot wait", "yes"),
        ("when you have time", "no"),
        ("next week is fine", "no"),
    ];
    let greetings = ["hello", "dear team"];
    let mut rows = vec!["text,topic,urgent".to_owned()];
    for (topic, texts) in topics {
        for text in texts {
            for (end, urgent) in ends {
                for hello in greetings {
                    rows.push(format!("\"{hello}, {text}, {end}\",{topic},{urgent}"));
                }
            }
        }
    }
    std::fs::write(file, rows.join("\n") + "\n").unwrap();
}

#[test]
fn a_smaller_model_learns_what_another_says_without_labels() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).display().to_string();
    super::tune::family(dir.path());
    let digits = super::tune::data("digits");
    let recipe = |name: &str, fuse: &str| {
        let text = format!(
            "seed = 5\n[train]\ntasks = [{digits:?}]\nlimit = 60\nsteps = 120\nrate = 1e-2\nbatch = 60\nkeep = \"last\"\nevaluate_every = 0\n[train.new]\nmodel_type = \"polyloom-mlp\"\nimage_size = 28\nnum_channels = 1\nhidden_sizes = [24]\nhidden_act = \"relu\"\n[train.fuse]\n{fuse}"
        );
        let file = dir.path().join(format!("{name}.toml"));
        std::fs::write(&file, text).unwrap();
        file.display().to_string()
    };
    // `x` was tuned on digits: its answers alone teach another architecture.
    let plain = recipe("plain", "sources = [\"x\"]\nlabels = false\nlambda = 0.0\n");
    let done = polyloom(&["train", &plain, "-o", &at("small")]);
    assert!(done.status.success(), "{}", text(&done.stderr));
    let log = std::fs::read_to_string(dir.path().join("small/train.jsonl")).unwrap();
    let steps: Vec<f64> = log
        .lines()
        .filter_map(|l| serde_json::from_str::<serde_json::Value>(l).unwrap()["loss"].as_f64())
        .collect();
    let (first, last) = (steps[0], steps[steps.len() - 1]);
    assert!(
        last < 0.1 * first && last >= -1e-6,
        "the divergence falls: {first} to {last}"
    );
    // Two sources and labels.
    let both = recipe("both", "sources = [\"x\", \"y+nothing\"]\n");
    let out = polyloom(&["train", &both, "-o", &at("no")]);
    assert_eq!(out.status.code(), Some(2), "{}", text(&out.stderr));
    // `y` knows clothes, not digits.
    let other = recipe("other", "sources = [\"x\", \"y\"]\n");
    let out = polyloom(&["train", &other, "-o", &at("other")]);
    assert_eq!(out.status.code(), Some(2));
    assert!(
        text(&out.stderr).contains("no head for"),
        "{}",
        text(&out.stderr)
    );
    for (fuse, why) in [
        ("sources = []\n", "names no sources"),
        (
            "sources = [\"x\"]\nlabels = false\n",
            "share of the loss on labels",
        ),
        ("sources = [\"x\"]\nlambda = 2.0\n", "in 0 to 1"),
        ("sources = [\"x\"]\nrule = \"best\"\n", "unknown variant"),
    ] {
        let out = polyloom(&["train", &recipe("bad", fuse), "-o", &at("bad")]);
        assert_eq!(out.status.code(), Some(2));
        assert!(text(&out.stderr).contains(why), "{}", text(&out.stderr));
    }
}
