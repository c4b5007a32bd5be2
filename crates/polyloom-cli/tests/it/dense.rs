//! Maps as a user meets them: generated scenes learned by a vision transformer.

use std::path::Path;

use serde_json::Value;

use super::goals::MEMORIES;
use super::{done, failed, polyloom, shown};

/// A spec of few small scenes, with targets withheld, and a recipe of a small transformer with more lines of `[train]`.
pub fn given(folder: &Path, more: &str, model: &str) -> (String, String) {
    let args = [
        "tasks",
        "synth",
        "shapes",
        "--count",
        "60",
        "--missing",
        "0.3",
    ];
    let spec = folder.join("shapes.task.toml");
    std::fs::write(&spec, polyloom(&args).stdout).unwrap();
    let text = format!(
        "version = 1\nseed = 3\n[train]\ntasks = [\"shapes.task.toml\"]\nbatch = 10\nrate = 2e-3\n{more}\n\
         [train.new]\nimage_size = 48\nnum_channels = 3\n{model}\n"
    );
    let file = folder.join("loom.toml");
    std::fs::write(&file, text).unwrap();
    (shown(&file), shown(&spec))
}

pub const VIT: &str = "model_type = \"vit\"\npatch_size = 12\nhidden_size = 16\nnum_hidden_layers = 2\n\
                   num_attention_heads = 2\nintermediate_size = 32";

pub fn weights(folder: &Path) -> Vec<u8> {
    std::fs::read(folder.join("model.safetensors")).unwrap()
}

#[test]
fn scenes_are_learned_and_scored() {
    let dir = tempfile::tempdir().unwrap();
    let (recipe, spec) = given(dir.path(), "steps = 30\nevaluate_every = 10", VIT);
    let out = dir.path().join("out");
    done(&["train", &recipe, "-o", &shown(&out)]);
    for target in ["segmentation", "depth", "normals", "edges", "label"] {
        let head = out.join(format!("heads/synth/shapes/{target}.safetensors"));
        assert!(head.exists(), "{}", head.display());
    }
    let results = dir.path().join("results.json");
    done(&["eval", &shown(&out), "-t", &spec, "-o", &shown(&results)]);
    let results: Value = serde_json::from_slice(&std::fs::read(&results).unwrap()).unwrap();
    let of = |target: &str| {
        let task = &results["tasks"][format!("synth/shapes/{target}")];
        assert_eq!(task["n"], 5, "{task}");
        task["value"].as_f64().unwrap()
    };
    // Better than a depth of 0 (14 off) and a normal in the plane (90 degrees); classes of the background at least.
    assert!(of("segmentation") > 0.08 && of("depth") < 5.0 && of("normals") < 45.0);
    assert!((0.0..=1.0).contains(&of("edges")) && (0.0..=1.0).contains(&of("label")));
}

#[test]
fn same_bytes_for_any_number_of_threads() {
    let dir = tempfile::tempdir().unwrap();
    let (recipe, _) = given(
        dir.path(),
        "steps = 6\nevaluate_every = 3\nsave_every = 3",
        VIT,
    );
    let out = |name: &str| dir.path().join(name);
    done(&[
        "train",
        &recipe,
        "--threads",
        "1",
        "-o",
        &shown(&out("one")),
    ]);
    done(&[
        "train",
        &recipe,
        "--threads",
        "3",
        "-o",
        &shown(&out("three")),
    ]);
    assert!(weights(&out("one")) == weights(&out("three")));
    let head = |name: &str| std::fs::read(out(name).join("heads/synth/shapes/depth.safetensors"));
    assert!(head("one").unwrap() == head("three").unwrap());
}

/// Balanced by features, the trunk gets the gradient of the losses weighted as found.
#[test]
fn balanced_by_features() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let by = "steps = 1\n[train.balance]\nmethod = \"nash\"\ngradients = \"features\"";
    let (recipe, spec) = given(dir.path(), by, VIT);
    for (name, threads) in [("one", "1"), ("three", "3")] {
        done(&[
            "train",
            &recipe,
            "--threads",
            threads,
            "-o",
            &shown(&at(name)),
        ]);
    }
    assert!(weights(&at("one")) == weights(&at("three")));
    let found = &super::balance::lines(&at("one"), "balance")[0]["weights"];
    assert_eq!(found.as_object().unwrap().len(), 5);
    // The same step by weights that the task gives.
    let task = std::fs::read_to_string(&spec).unwrap();
    let mut weighted = String::new();
    for line in task.lines() {
        weighted += &format!("{line}\n");
        let named = line
            .strip_prefix("name = \"")
            .map(|n| n.trim_end_matches('"'));
        if let Some(weight) = named.and_then(|n| found.get(format!("synth/shapes/{n}"))) {
            weighted += &format!("weight = {weight}\n");
        }
    }
    let (recipe, spec) = given(dir.path(), "steps = 1", VIT);
    std::fs::write(spec, weighted).unwrap();
    done(&["train", &recipe, "-o", &shown(&at("weighted"))]);
    let apart = moved(&at("one"), &at("weighted"));
    // A step of Adam moves a number by 2e-3; rounding turns few of them round.
    assert!(apart < 1e-5, "{apart}");
    let no = shown(&at("no"));
    let memories = format!("{VIT}{MEMORIES}");
    for (model, more, said) in [
        (VIT, by.replace("nash", "famo"), "looks at losses alone"),
        (
            VIT,
            by.replace("nash", "moco"),
            "looks at more than the dot products",
        ),
        (
            VIT,
            by.replace("nash", "flat_mtl"),
            "looks at more than the dot products",
        ),
        (VIT, format!("accumulate = 2\n{by}"), "a step has several"),
        (&memories, by.to_owned(), "sees features of its own"),
    ] {
        let (recipe, _) = given(dir.path(), &more, model);
        let told = failed(&["train", &recipe, "-o", &no]);
        assert!(told.contains(said), "{told}");
    }
}

/// How far numbers of two models lie apart, the mean.
pub fn moved(one: &Path, other: &Path) -> f32 {
    // Numbers lie behind the header, whose length stands in front.
    let numbers = |folder: &Path| {
        let all = weights(folder);
        let from = 8 + u64::from_le_bytes(all[..8].try_into().unwrap()) as usize;
        let four = all[from..].chunks_exact(4);
        four.map(|b| f32::from_le_bytes(b.try_into().unwrap()))
            .collect::<Vec<_>>()
    };
    let (one, other) = (numbers(one), numbers(other));
    let sum: f32 = one.iter().zip(&other).map(|(a, b)| (a - b).abs()).sum();
    sum / one.len() as f32
}

/// Feed-forward parts of a trained transformer become experts chosen by target.
#[test]
fn a_dense_transformer_becomes_a_mixture() {
    let dir = tempfile::tempdir().unwrap();
    let (recipe, spec) = given(dir.path(), "steps = 4", VIT);
    let at = |name: &str| shown(&dir.path().join(name));
    done(&["train", &recipe, "-o", &at("base")]);
    let text = format!(
        "version = 1\n[train]\ntasks = [\"shapes.task.toml\"]\nbatch = 10\nsteps = 4\n[base]\npath = {:?}\n\
         [train.moe]\nexperts = 4\ntop_k = 2\nlast = 1\n",
        at("base")
    );
    std::fs::write(dir.path().join("more.toml"), text).unwrap();
    done(&["train", &at("more.toml"), "-o", &at("more")]);
    done(&["eval", &at("more"), "-t", &spec]);
    let told = polyloom(&["diag", "experts", &at("more"), "-t", &spec, "--batch", "5"]);
    let told = String::from_utf8_lossy(&told.stdout).into_owned();
    let line = "encoder.layer.1.moe for synth/shapes/edges: 2.00 of 4 experts a token, 85 tokens";
    assert!(told.contains(line), "{told}");
}

#[test]
fn what_does_not_go_with_maps_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let out = shown(&dir.path().join("out"));
    let mlp = "model_type = \"polyloom-mlp\"\nhidden_sizes = [8]\nhidden_act = \"relu\"";
    let odd = VIT.replace("patch_size = 12", "patch_size = 10");
    let probe = "steps = 2\n[train.head]\nstart = \"probe\"";
    let cases = [
        ("steps = 2\naugment = 1", VIT, "turns and shifts pictures"),
        ("steps = 2", mlp, "has no patches"),
        ("steps = 2", &*odd, "some pixels are in none"),
        (
            "steps = 2\nloss = \"case2\"",
            VIT,
            "a loss of all its pixels",
        ),
        (
            "steps = 2\noptimiser = \"sophia_g\"",
            VIT,
            "no labels are drawn",
        ),
        (probe, VIT, "fits heads of classes and numbers"),
        (
            "steps = 2\n[train.head]\nfeature = \"mean\"",
            VIT,
            "maps are learned from patches",
        ),
        (
            "steps = 2\n[train.representation]\nmethod = \"graddrop\"",
            VIT,
            "does not see what the others see",
        ),
    ];
    for (more, model, said) in cases {
        let (recipe, _) = given(dir.path(), more, model);
        let told = failed(&["train", &recipe, "-o", &out]);
        assert!(told.contains(said), "{told}");
    }
    let small = VIT.replace("patch_size = 12", "patch_size = 8");
    let (recipe, spec) = given(dir.path(), "steps = 2", &small);
    let spec_text = std::fs::read_to_string(&spec).unwrap();
    let smaller = std::fs::read_to_string(&recipe).unwrap();
    std::fs::write(
        &recipe,
        smaller.replace("image_size = 48", "image_size = 32"),
    )
    .unwrap();
    let told = failed(&["train", &recipe, "-o", &out]);
    assert!(told.contains("pictures of 32 x 32 have 1024"), "{told}");
    // Heads for other classes than those that are asked for.
    let (recipe, _) = given(dir.path(), "steps = 2", VIT);
    done(&["train", &recipe, "-o", &out]);
    std::fs::write(&spec, spec_text.replace("\"background\", ", "\"ground\", ")).unwrap();
    let told = failed(&["eval", &out, "-t", &spec]);
    assert!(told.contains("in this order"), "{told}");
}

/// What `eval` reads as pixels, `predict` does: raw bytes of a column, of the size that the task, the file or the model says.
#[test]
fn raw_pixels_are_answered() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("made/scenes");
    std::fs::create_dir(dir.path().join("made")).unwrap();
    done(&[
        "tasks",
        "synth",
        "shapes",
        "--count",
        "60",
        "-o",
        &shown(&data),
    ]);
    let recipe = dir.path().join("loom.toml");
    let text = format!(
        "version = 1\nseed = 3\n[train]\ntasks = [\"made/scenes\"]\nbatch = 10\nsteps = 4\nlimit = 20\n[train.new]\n\
         image_size = 48\nnum_channels = 3\n{VIT}\n"
    );
    std::fs::write(&recipe, text).unwrap();
    let out = shown(&dir.path().join("out"));
    done(&["train", &shown(&recipe), "-o", &out]);
    let rows = shown(&data.join("test.parquet"));
    let to = shown(&dir.path().join("said.jsonl"));
    // The size is the model's own where no task says it, the column that of the usual name.
    let plain = [
        "predict",
        &out,
        &rows,
        "--task",
        "made/shapes/label",
        "-o",
        &to,
        "--force",
    ];
    done(&plain);
    let text = std::fs::read_to_string(&to).unwrap();
    assert_eq!(text.lines().count(), 5, "{text}");
    assert!(text.contains("\"prediction\""), "{text}");
    let other: Vec<&str> = plain.into_iter().chain(["--column", "depth"]).collect();
    let said = failed(&other);
    assert!(
        said.contains("column `depth` has 4608 bytes for 48 x 48 x 3") && said.contains("row 1"),
        "{said}"
    );
}
