//! Mask bundles: what is restored is what the method writes, and damage is named.

use std::path::{Path, PathBuf};

use polyloom::compress::{self, RestoreOptions};
use polyloom::plan::{self, reference::Places};
use polyloom::recipe::{self, Recipe};
use polyloom_core::DType;

use crate::support::{merge, model_as, options};

/// A base and three experts; rows of 13 elements, so that bytes of bits span chunks.
fn models(dir: &Path) -> Vec<String> {
    let s = polyloom_core::rng::Stream::new(11, "bundle", 0);
    let mut names = Vec::new();
    for (k, name) in ["base", "a", "b", "c"].iter().enumerate() {
        let values = |n: usize, at: usize| -> Vec<f32> {
            let moved = |i| {
                if i % 3 == 0 {
                    0.0
                } else {
                    0.2 * k as f32 * s.normal(9000 * k as u64 + i)
                }
            };
            (0..n as u64)
                .map(|i| s.normal(i + at as u64) + moved(i + at as u64))
                .collect()
        };
        model_as(
            &dir.join(name),
            DType::BF16,
            &[
                ("embed.weight", &[701, 13], values(701 * 13, 0)),
                ("layers.0.w", &[13, 13], values(169, 40)),
                ("layers.0.b", &[13], values(13, 60)),
            ],
        );
        names.push(dir.join(name).display().to_string());
    }
    names
}

fn recipe_of(method: &str, names: &[String]) -> Recipe {
    recipe::from_models(method, Some(&names[0]), &names[1..]).unwrap()
}

fn bundle(recipe: Recipe, target: &Path, chunk: usize) -> polyloom::Result<compress::Accounting> {
    let plan = plan::build(recipe, &Places::default()).unwrap_or_else(|e| panic!("{e:?}"));
    let options = polyloom::plan::execute::RunOptions {
        chunk,
        ..options(target)
    };
    compress::write(&plan, &options).map(|r| r.1)
}

fn restore(bundle: &Path, task: &str, target: PathBuf) -> polyloom::Result<()> {
    compress::restore(&RestoreOptions {
        bundle: bundle.to_owned(),
        task: task.into(),
        base: None,
        target,
        shard_size: 5_000_000_000,
        force: false,
        no_sync: true,
        stop: None,
        progress: None,
    })
    .map(|_| ())
}

#[test]
fn a_restored_model_has_the_bytes_of_the_method() {
    let dir = tempfile::tempdir().unwrap();
    let names = models(dir.path());
    for (method, chunk) in [("tall", 4096), ("emr", 0), ("magnitude_mask", 4096)] {
        let folder = dir.path().join(format!("bundle-{method}"));
        let accounting = bundle(recipe_of(method, &names), &folder, chunk).unwrap();
        let elements = 701 * 13 + 169 + 13;
        assert_eq!(accounting.shared, elements * 4);
        assert_eq!(accounting.masks, 3 * (9113u64.div_ceil(8) + 22 + 2));
        for task in ["a", "b", "c"] {
            let mut recipe = recipe_of(method, &names);
            recipe.set("merge.shared.task", task).unwrap();
            let direct = dir.path().join(format!("{method}-{task}"));
            merge(recipe, &direct).unwrap_or_else(|e| panic!("{e:?}"));
            let restored = dir.path().join(format!("{method}-{task}-restored"));
            restore(&folder, task, restored.clone()).unwrap();
            let bytes = |d: &Path| std::fs::read(d.join("model.safetensors")).unwrap();
            assert_eq!(bytes(&direct), bytes(&restored), "{method} {task}");
        }
    }
}

#[test]
fn rows_that_end_inside_a_byte_are_packed_whole() {
    // `della` as the inner merge works on whole rows, and 13 is no multiple of eight.
    let dir = tempfile::tempdir().unwrap();
    let names = models(dir.path());
    let text = |extra: &str| {
        let experts: String = names[1..]
            .iter()
            .map(|n| format!("[[expert]]\npath = {n:?}\n"))
            .collect();
        format!(
            "version = 1\n[base]\npath = {:?}\n{experts}[merge]\nmethod = \"tall\"\non = {{ method = \"della\", density = 0.5 }}\n{extra}",
            names[0]
        )
    };
    let read = |extra: &str| {
        let file = dir.path().join("loom.toml");
        std::fs::write(&file, text(extra)).unwrap();
        recipe::read(&file).unwrap().remove(0)
    };
    let folder = dir.path().join("bundle");
    bundle(read(""), &folder, 4096).unwrap();
    let direct = dir.path().join("direct");
    merge(read("[merge.shared]\ntask = \"b\"\n"), &direct).unwrap();
    let restored = dir.path().join("restored");
    restore(&folder, "b", restored.clone()).unwrap();
    let bytes = |d: &Path| std::fs::read(d.join("model.safetensors")).unwrap();
    assert_eq!(bytes(&direct), bytes(&restored));
}

#[test]
fn damage_and_strangers_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let names = models(dir.path());
    let folder = dir.path().join("bundle");
    bundle(recipe_of("tall", &names), &folder, 0).unwrap();
    let fails = |task: &str| {
        let out = dir.path().join("out");
        let error = restore(&folder, task, out.clone()).unwrap_err();
        assert!(!out.exists());
        error
    };
    let error = fails("d");
    assert!(error.to_string().contains("has no task `d`"), "{error}");
    assert_eq!(error.hints(), ["the tasks are a, b, c"]);

    // The base was trained on: same shapes, other header.
    let other = dir.path().join("b/model.safetensors");
    std::fs::copy(&other, dir.path().join("base/model.safetensors")).unwrap();
    let stranger = dir.path().join("base");
    let config = std::fs::read(dir.path().join("bundle/polyloom.json")).unwrap();
    let broken = String::from_utf8(config.clone())
        .unwrap()
        .replace("xxh3-64-header:", "xxh3-64-header:0");
    std::fs::write(folder.join("polyloom.json"), broken).unwrap();
    let error = fails("a");
    assert!(error.to_string().contains("is not the base of"), "{error}");
    assert!(stranger.exists());
    std::fs::write(folder.join("polyloom.json"), config).unwrap();

    // A mask that lost its end, and one that is no mask.
    let mask = folder.join("masks/a.safetensors");
    let bytes = std::fs::read(&mask).unwrap();
    std::fs::write(&mask, &bytes[..bytes.len() - 5]).unwrap();
    assert!(fails("a").to_string().contains("masks/a.safetensors"));
    std::fs::copy(folder.join("shared.safetensors"), &mask).unwrap();
    assert!(fails("a").to_string().contains("has format `pt`"));
    std::fs::remove_file(folder.join("polyloom.json")).unwrap();
    assert!(fails("a").to_string().contains("polyloom.json"));
}

#[test]
fn a_method_without_masks_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let names = models(dir.path());
    let error = bundle(recipe_of("ties", &names), &dir.path().join("out"), 0).unwrap_err();
    assert_eq!(
        error.hints(),
        ["choose --method tall, emr or magnitude_mask"]
    );
    let mut recipe = recipe_of("tall", &names);
    recipe.add_post("scale:factor=2").unwrap();
    let error = bundle(recipe, &dir.path().join("out"), 0).unwrap_err();
    assert!(error.to_string().contains("post-steps"), "{error}");
    assert!(!dir.path().join("out").exists());
}
