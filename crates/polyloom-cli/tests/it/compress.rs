//! `polyloom compress` as a user meets it, where models are looked at: two experts of a small perceptron.

use super::tune::{data, family};
use super::{polyloom, text};

/// The recipe of [`family`], for compression.
fn compressed(dir: &std::path::Path) -> String {
    let recipe = family(dir);
    let text = std::fs::read_to_string(&recipe).unwrap();
    std::fs::write(&recipe, text + "[compress]\n").unwrap();
    recipe
}

#[test]
fn every_method_makes_a_bundle_that_restores() {
    let dir = tempfile::tempdir().unwrap();
    let recipe = compressed(dir.path());
    let at = |name: &str| dir.path().join(name).display().to_string();
    let run = |args: &[&str]| {
        let out = polyloom(args);
        assert!(out.status.success(), "{args:?}: {}", text(&out.stderr));
        (text(&out.stdout), text(&out.stderr))
    };
    for (method, more) in [
        ("tall", &["--set", "compress.store=f16"][..]),
        ("lowrank", &["--budget", "20KB"]),
        ("bits", &["--set", "compress.scale=row"]),
        ("graft", &["--set", "compress.density=0.05"]),
        (
            "graft",
            &[
                "--set",
                "compress.learned=true",
                "--set",
                "compress.density=0.05",
                "--set",
                "compress.passes=2",
                "--set",
                "compress.limit=40",
            ],
        ),
    ] {
        let bundle = at("bundle");
        let mut args = vec![
            "compress", &recipe, "--method", method, "-o", &bundle, "--force",
        ];
        args.extend(more);
        let (_, said) = run(&args);
        assert!(said.contains("of the experts' size"), "{said}");
        if method == "tall" {
            assert!(
                said.contains("mask_lambda 0.2: mean") && said.contains("y: mask_lambda"),
                "{said}"
            );
        }
        if method == "lowrank" {
            let size: u64 = ["x", "y"]
                .map(|t| {
                    std::fs::metadata(dir.path().join(format!("bundle/deltas/{t}.safetensors")))
                        .unwrap()
                        .len()
                })
                .iter()
                .sum();
            assert!(size <= 20_000 && size > 15_000, "{size}");
        }
        if method == "graft" {
            assert!(
                said.contains("% of the weights; calibration error"),
                "{said}"
            );
        }
        run(&[
            "compress",
            "restore",
            &bundle,
            "--task",
            "y",
            "-o",
            &at("y-again"),
            "--force",
        ]);
        assert!(dir.path().join("y-again/model.safetensors").exists());
        let (said, _) = run(&["inspect", &bundle]);
        assert!(said.contains(&format!("bundle, {method}")), "{said}");
    }
    let out = polyloom(&[
        "compress",
        &recipe,
        "--method",
        "lowrank",
        "-o",
        &at("none"),
    ]);
    assert!(
        text(&out.stderr).contains("--budget 2MB"),
        "{}",
        text(&out.stderr)
    );
    assert_eq!(out.status.code(), Some(2));
}

#[test]
fn methods_are_compared_and_the_smallest_that_keeps_enough_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let recipe = compressed(dir.path());
    let bundle = dir.path().join("front").display().to_string();
    let out = polyloom(&["compress", &recipe, "--keep", "95%", "-o", &bundle]);
    assert!(out.status.success(), "{}", text(&out.stderr));
    let said = text(&out.stdout);
    assert!(
        said.lines()
            .all(|l| l.chars().count() <= 80 || l.contains('/')),
        "{said}"
    );
    assert!(said.contains("> ") && said.contains("lowrank"), "{said}");
    let record = std::fs::read_to_string(dir.path().join("front/front.json")).unwrap();
    let record: serde_json::Value = serde_json::from_str(&record).unwrap();
    assert_eq!(record["schema"], "polyloom.front/1");
    assert_eq!(record["split"], "validation");
    let chosen = &record["candidates"][record["chosen"].as_u64().unwrap() as usize];
    assert!(chosen["kept"]["share"].as_f64().unwrap() >= 0.95);
    for c in record["candidates"].as_array().unwrap() {
        let enough = c["kept"]["share"].as_f64().unwrap() >= 0.95;
        assert!(!enough || c["bytes"].as_u64() >= chosen["bytes"].as_u64());
    }
    let plot = std::fs::read_to_string(dir.path().join("front/front.svg")).unwrap();
    assert!(plot.starts_with("<svg xmlns"));
    let hidden = std::fs::read_dir(dir.path()).unwrap().flatten();
    let left: Vec<_> = hidden
        .filter(|e| e.file_name().to_string_lossy().contains("trials"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
    let out = polyloom(&[
        "compress",
        &recipe,
        "--budget",
        "100B",
        "-o",
        &format!("{bundle}2"),
    ]);
    assert!(
        text(&out.stderr).contains("nothing that was tried"),
        "{}",
        text(&out.stderr)
    );
}

#[test]
fn a_shared_model_is_pruned_within_the_bounds_of_its_tasks() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).display().to_string();
    let (digits, clothes) = (data("digits"), data("fashion_mnist_900"));
    let recipe = format!(
        "seed = 3\n[train]\ntasks = [{digits:?}, {clothes:?}]\nlimit = 60\nsteps = 20\nrate = 3e-3\nbatch = 16\n[train.new]\nmodel_type = \"vit\"\nimage_size = 28\npatch_size = 7\nnum_channels = 1\nhidden_size = 16\nnum_hidden_layers = 2\nnum_attention_heads = 4\nintermediate_size = 32\n"
    );
    std::fs::write(dir.path().join("joint.toml"), recipe).unwrap();
    let out = polyloom(&["train", &at("joint.toml"), "-o", &at("joint")]);
    assert!(out.status.success(), "{}", text(&out.stderr));
    let tasks = format!("{digits},{clothes}");
    let out = polyloom(&[
        "compress",
        "prune",
        &at("joint"),
        "-t",
        &tasks,
        "--bound",
        "5%",
        "-L",
        "40",
        "-o",
        &at("small"),
    ]);
    assert!(out.status.success(), "{}", text(&out.stderr));
    let told = std::fs::read_to_string(dir.path().join("small/polyloom.json")).unwrap();
    let told: serde_json::Value = serde_json::from_str(&told).unwrap();
    let list = |key: &str| -> Vec<f64> {
        let values = told["decided"][key].as_array().unwrap();
        values.iter().map(|x| x.as_f64().unwrap()).collect()
    };
    for (before, after) in list("before").iter().zip(list("after")) {
        assert!(after <= before * 1.05 + 1e-9, "{before} {after}");
    }
    assert!(list("gone").iter().sum::<f64>() > 0.0, "{told}");
    let config = std::fs::read_to_string(dir.path().join("small/config.json")).unwrap();
    assert!(config.contains("polyloom_pruned"), "{config}");
    // Another order of units, the same bounds.
    let out = polyloom(&[
        "compress",
        "prune",
        &at("joint"),
        "-t",
        &tasks,
        "--bound",
        "5%",
        "-L",
        "40",
        "--saliency",
        "taylor",
        "-o",
        &at("taylor"),
    ]);
    assert!(out.status.success(), "{}", text(&out.stderr));
    let other = std::fs::read_to_string(dir.path().join("taylor/polyloom.json")).unwrap();
    let other: serde_json::Value = serde_json::from_str(&other).unwrap();
    assert_eq!(other["settings"]["saliency"], "taylor");
    let weights = |name: &str| std::fs::read(dir.path().join(name).join("model.safetensors"));
    assert_ne!(weights("taylor").unwrap(), weights("small").unwrap());
    let losses = |when: &str| other["decided"][when].as_array().unwrap().clone();
    for (before, after) in losses("before").iter().zip(losses("after")) {
        let (before, after) = (before.as_f64().unwrap(), after.as_f64().unwrap());
        assert!(after <= before * 1.05 + 1e-9, "{before} {after}");
    }
    let size = |name: &str| {
        std::fs::metadata(dir.path().join(name).join("model.safetensors"))
            .unwrap()
            .len()
    };
    assert!(size("small") < size("joint"));
    let out = polyloom(&[
        "eval",
        &at("small"),
        "-t",
        &tasks,
        "-L",
        "20",
        "-o",
        &at("scores.json"),
    ]);
    assert!(out.status.success(), "{}", text(&out.stderr));
}
