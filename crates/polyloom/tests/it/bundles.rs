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
    compress::write(&plan, &options, &[]).map(|r| r.1)
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
        let size = |name: &str| std::fs::metadata(folder.join(name)).unwrap().len();
        assert_eq!(accounting.shared, size("shared.safetensors"));
        assert!(accounting.shared > elements * 4);
        let masks = ["a", "b", "c"].map(|t| size(&format!("masks/{t}.safetensors")));
        assert_eq!(accounting.masks, masks.iter().sum::<u64>());
        let raw = 3 * (9113u64.div_ceil(8) + 22 + 2);
        assert_eq!(accounting.coding.raw, raw);
        // A third of the entries did not move, and the shared vector says which.
        assert!(accounting.coding.stored < raw && accounting.coding.entropy < raw as f64);
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
fn a_shared_vector_of_few_bits_restores_what_the_method_writes() {
    let dir = tempfile::tempdir().unwrap();
    let names = models(dir.path());
    for (method, store) in [("tall", "f16"), ("emr", "bf16"), ("magnitude_mask", "f16")] {
        let recipe = |task: Option<&str>| {
            let mut recipe = recipe_of(method, &names);
            recipe.set("merge.shared.store", store).unwrap();
            if let Some(task) = task {
                recipe.set("merge.shared.task", task).unwrap();
            }
            recipe
        };
        let folder = dir.path().join(format!("bundle-{method}"));
        let accounting = bundle(recipe(None), &folder, 0).unwrap();
        assert!(accounting.shared < 3 * (701 * 13 + 169 + 13));
        let direct = dir.path().join(format!("{method}-direct"));
        merge(recipe(Some("b")), &direct).unwrap_or_else(|e| panic!("{e:?}"));
        let restored = dir.path().join(format!("{method}-restored"));
        restore(&folder, "b", restored.clone()).unwrap();
        let bytes = |d: &Path| std::fs::read(d.join("model.safetensors")).unwrap();
        assert_eq!(bytes(&direct), bytes(&restored), "{method}");
    }
}

#[test]
fn deltas_of_every_kind_come_back() {
    use polyloom::compress::delta::Stored;
    use polyloom::compress::{Deltas, lowrank, write_deltas};
    use polyloom_core::linalg::Matrix;

    let dir = tempfile::tempdir().unwrap();
    let names = models(dir.path());
    let folder = dir.path().join("bundle");
    let mut plan = plan::build(recipe_of("task_arithmetic", &names), &Places::default()).unwrap();
    let deltas = Deltas::new(&plan).unwrap();
    let at = |name: &str| {
        deltas
            .tensors()
            .iter()
            .position(|t| t.name == name)
            .unwrap()
    };
    let (embed, w, b) = (at("embed.weight"), at("layers.0.w"), at("layers.0.b"));
    let mut parts = vec![vec![None; 3]; 3];
    // a: the expert itself; b: one of each; c: nothing.
    for (i, part) in parts[0].iter_mut().enumerate() {
        *part = Some(Stored::Own(deltas.expert(0, i).unwrap()));
    }
    let moved = deltas.delta(1, embed).unwrap();
    let d = lowrank::decompose(&Matrix::from_f32(701, 13, &moved), None).unwrap();
    let (left, right) = lowrank::factors(&d, 13);
    parts[1][embed] = Some(Stored::LowRank {
        rank: 13,
        left,
        right,
    });
    let (bits, scales) = lowrank::signs(&deltas.delta(1, w).unwrap(), Some(13)).unwrap();
    parts[1][w] = Some(Stored::Signs {
        bits,
        scales: scales.clone(),
    });
    parts[1][b] = Some(Stored::Graft {
        at: vec![1, 12],
        values: vec![0.5, -2.0],
    });
    let wanted = [
        deltas.expert(1, embed).unwrap(),
        deltas.base(w).unwrap(),
        deltas.base(b).unwrap(),
    ];
    let target = options(&folder);
    let (_, accounting) = write_deltas(
        &mut plan,
        &target,
        ("lowrank", DType::F32),
        &Default::default(),
        &parts,
        &[("heads/a.safetensors".into(), vec![0; 8])],
    )
    .unwrap();
    let size = |t: &str| {
        std::fs::metadata(folder.join(format!("deltas/{t}.safetensors")))
            .unwrap()
            .len()
    };
    assert_eq!(accounting.deltas, size("a") + size("b") + size("c"));
    for task in ["a", "b", "c"] {
        restore(&folder, task, dir.path().join(format!("out-{task}"))).unwrap();
    }
    let tensors = |d: &str| {
        let file = polyloom_core::Checkpoint::open(dir.path().join(d)).unwrap();
        let read = |name: &str| file.read_all(file.get(name).unwrap()).unwrap();
        ["embed.weight", "layers.0.w", "layers.0.b"].map(read)
    };
    assert!(tensors("out-a") == tensors("a"), "the expert itself");
    assert!(tensors("out-c") == tensors("base"));
    assert!(dir.path().join("out-a/heads/a.safetensors").exists());
    let restorer = compress::Restorer::open(&folder, "b", None).unwrap();
    let values = |name: &str| {
        let i = restorer
            .outputs()
            .iter()
            .position(|o| o.name == name)
            .unwrap();
        restorer.values(i).unwrap()
    };
    // A full rank is the expert, up to one rounding of its type.
    for (x, y) in values("embed.weight").iter().zip(&wanted[0]) {
        assert!((x - y).abs() <= y.abs() / 128.0, "{x} {y}");
    }
    for (i, x) in values("layers.0.w").iter().enumerate() {
        let moved = (x - wanted[1][i]).abs();
        assert!((moved - scales[i / 13]).abs() < 0.02 + wanted[1][i].abs() / 128.0);
    }
    let mut vector = wanted[2].clone();
    (vector[1], vector[12]) = (0.5, -2.0);
    assert_eq!(values("layers.0.b"), vector);

    // Damage has a name, and no folder is left behind.
    let path = folder.join("deltas/b.safetensors");
    let good = std::fs::read(&path).unwrap();
    let fails = |bytes: &[u8]| {
        std::fs::write(&path, bytes).unwrap();
        let out = dir.path().join("broken");
        let error = restore(&folder, "b", out.clone()).unwrap_err();
        assert!(!out.exists());
        error.to_string()
    };
    assert!(fails(&good[..good.len() - 3]).contains("deltas/b.safetensors"));
    let text = String::from_utf8_lossy(&good[8..600]).into_owned();
    assert!(text.contains("l13"), "{text}");
    let put = |from: &str, to: &str| {
        let mut bytes = good.clone();
        let at = good
            .windows(from.len())
            .position(|w| w == from.as_bytes())
            .unwrap();
        bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
        bytes
    };
    assert!(fails(&put("l13", "l99")).contains("no way to store"));
    assert!(fails(&put("l13", "l12")).contains("`kinds` asks for"));
    assert!(fails(&put("delta/1", "delta/9")).contains("delta/9"));
    let mut gaps = good.clone();
    let places = good.windows(2).rposition(|w| w == [1, 10]).unwrap();
    gaps[places + 1] = 0x7F;
    assert!(fails(&gaps).contains("places of the entries"));
    let record = folder.join("polyloom.json");
    let text = std::fs::read_to_string(&record).unwrap();
    std::fs::write(&record, text.replace("\"id\": \"b\"", "\"id\": \"../b\"")).unwrap();
    let error = restore(&folder, "a", dir.path().join("x")).unwrap_err();
    assert!(error.to_string().contains("is no name"), "{error}");
}

#[test]
fn coded_masks_that_are_damaged_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let names = models(dir.path());
    let folder = dir.path().join("bundle");
    bundle(recipe_of("tall", &names), &folder, 0).unwrap();
    let path = folder.join("masks/a.safetensors");
    let good = std::fs::read(&path).unwrap();
    let at = good.windows(6).position(|w| w == b"mask/2").expect("coded");
    let fails = |bytes: &[u8]| {
        std::fs::write(&path, bytes).unwrap();
        restore(&folder, "a", dir.path().join("x"))
            .unwrap_err()
            .to_string()
    };
    let mut version = good.clone();
    version[at + 5] = b'7';
    assert!(fails(&version).contains("mask/7"));
    // The length of the only block, in front of the bits.
    let length = u64::from_le_bytes(good[..8].try_into().unwrap()) as usize + 8;
    for new in [[0xFF; 4], [0, 0, 0, 0]] {
        let mut bytes = good.clone();
        bytes[length..length + 4].copy_from_slice(&new);
        assert!(fails(&bytes).contains("its blocks take"));
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
