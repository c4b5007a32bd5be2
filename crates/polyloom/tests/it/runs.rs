//! Behaviour of whole runs: refusals, resumption, sameness.

use polyloom::recipe::{self, Heads, MissingPolicy};
use polyloom_core::DType;

use crate::support::{merge, model, model_as, options, read};

fn three(dir: &std::path::Path) -> Vec<String> {
    let s = polyloom_core::rng::Stream::new(5, "toy", 0);
    let mut names = Vec::new();
    for (k, name) in ["base", "a", "b"].iter().enumerate() {
        let values = |n: usize, at: usize| {
            (0..n)
                .map(|i| {
                    s.normal((i + at) as u64)
                        + 0.1 * k as f32 * s.normal((i + at + 1000 * k) as u64)
                })
                .collect()
        };
        model(
            &dir.join(name),
            &[
                ("embed.weight", &[7, 4], values(28, 0)),
                ("layers.0.w", &[4, 4], values(16, 40)),
                ("layers.0.b", &[4], values(4, 60)),
                ("layers.1.w", &[4, 4], values(16, 70)),
                ("layers.1.b", &[4], values(4, 90)),
            ],
        );
        names.push(dir.join(name).display().to_string());
    }
    names
}

#[test]
fn linear_is_the_average() {
    let dir = tempfile::tempdir().unwrap();
    let names = three(dir.path());
    let recipe = recipe::from_models("linear", None, &names[1..]).unwrap();
    merge(recipe, &dir.path().join("out")).unwrap();
    let (a, b, out) = (
        read(&dir.path().join("a")),
        read(&dir.path().join("b")),
        read(&dir.path().join("out")),
    );
    for (name, values) in &out {
        for (i, v) in values.iter().enumerate() {
            assert!((v - 0.5 * (a[name][i] + b[name][i])).abs() < 1e-6);
        }
    }
    assert_eq!(out.len(), 5);
}

#[test]
fn a_wrong_shape_names_file_tensor_and_fix() {
    let dir = tempfile::tempdir().unwrap();
    model(
        &dir.path().join("c"),
        &[
            ("embed.weight", &[7, 4], vec![0.0; 28]),
            ("classifier.weight", &[2, 4], vec![0.0; 8]),
        ],
    );
    model(
        &dir.path().join("d"),
        &[
            ("embed.weight", &[7, 4], vec![0.0; 28]),
            ("classifier.weight", &[3, 4], vec![0.0; 12]),
        ],
    );
    let names = vec![
        dir.path().join("c").display().to_string(),
        dir.path().join("d").display().to_string(),
    ];
    let recipe = recipe::from_models("linear", None, &names).unwrap();
    let errors = merge(recipe, &dir.path().join("out")).unwrap_err();
    assert_eq!(errors.len(), 1);
    let text = errors[0].to_string();
    assert!(
        text.contains("d/model.safetensors: tensor `classifier.weight` has shape [3, 4]"),
        "{text}"
    );
    assert!(
        errors[0].hints()[0].contains("heads"),
        "{:?}",
        errors[0].hints()
    );
    assert!(!dir.path().join("out").exists());
}

#[test]
fn a_wrong_prefix_is_one_message_with_the_fix() {
    let dir = tempfile::tempdir().unwrap();
    let names = three(dir.path());
    model(
        &dir.path().join("p"),
        &[
            ("toy.embed.weight", &[7, 4], vec![0.5; 28]),
            ("toy.layers.0.w", &[4, 4], vec![0.5; 16]),
            ("toy.layers.0.b", &[4], vec![0.5; 4]),
            ("toy.layers.1.w", &[4, 4], vec![0.5; 16]),
            ("toy.layers.1.b", &[4], vec![0.5; 4]),
        ],
    );
    let p = dir.path().join("p").display().to_string();
    let mut recipe = recipe::from_models("task_arithmetic", Some(&names[0]), &[p]).unwrap();
    let errors = merge(recipe.clone(), &dir.path().join("out")).unwrap_err();
    assert_eq!(errors.len(), 1, "{errors:?}");
    assert!(
        errors[0]
            .to_string()
            .contains("5 tensors have no counterpart in base"),
        "{}",
        errors[0]
    );
    assert!(
        errors[0].hints()[0].contains("strip_prefix = \"toy.\""),
        "{:?}",
        errors[0].hints()
    );
    recipe.models[0].strip_prefix = Some("toy.".into());
    merge(recipe, &dir.path().join("out")).unwrap();
    assert!(
        read(&dir.path().join("out"))["layers.0.w"]
            .iter()
            .all(|v| (v - 0.5).abs() < 1e-6)
    );
}

#[test]
fn missing_tensors_follow_the_policy() {
    let dir = tempfile::tempdir().unwrap();
    let names = three(dir.path());
    model(
        &dir.path().join("e"),
        &[("embed.weight", &[7, 4], vec![1.0; 28])],
    );
    let e = dir.path().join("e").display().to_string();
    let recipe =
        recipe::from_models("task_arithmetic", Some(&names[0]), &[names[1].clone(), e]).unwrap();
    let errors = merge(recipe.clone(), &dir.path().join("out")).unwrap_err();
    assert!(
        errors[0].to_string().contains("lacks 4 tensors"),
        "{}",
        errors[0]
    );
    let with = |policy, out: &str| {
        let recipe = recipe::Recipe {
            missing: policy,
            ..recipe.clone()
        };
        merge(recipe, &dir.path().join(out)).unwrap();
        read(&dir.path().join(out))
    };
    assert_eq!(with(MissingPolicy::Intersection, "i").len(), 1);
    let a = read(&dir.path().join("a"));
    for out in [
        with(MissingPolicy::Base, "b2"),
        with(MissingPolicy::Union, "u"),
    ] {
        assert_eq!(out.len(), 5);
        for (x, y) in out["layers.1.w"].iter().zip(&a["layers.1.w"]) {
            assert!((x - y).abs() < 1e-6, "only `a` changed it");
        }
    }
}

#[test]
fn nan_stops_the_run_and_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let names = three(dir.path());
    let mut values = vec![0.25; 28];
    values[9] = f32::NAN;
    let mut tensors: Vec<(&str, &[usize], Vec<f32>)> = vec![("embed.weight", &[7, 4], values)];
    tensors.extend([
        ("layers.0.w", &[4, 4][..], vec![0.0; 16]),
        ("layers.0.b", &[4], vec![0.0; 4]),
        ("layers.1.w", &[4, 4], vec![0.0; 16]),
        ("layers.1.b", &[4], vec![0.0; 4]),
    ]);
    model(&dir.path().join("n"), &tensors);
    let n = dir.path().join("n").display().to_string();
    let recipe = recipe::from_models("linear", None, &[names[1].clone(), n]).unwrap();
    let errors = merge(recipe, &dir.path().join("out")).unwrap_err();
    let text = errors[0].to_string();
    assert!(
        text.contains("n/model.safetensors: tensor `embed.weight`: NaN at element 9"),
        "{text}"
    );
    let left: Vec<_> = std::fs::read_dir(dir.path())
        .unwrap()
        .flatten()
        .filter(|e| e.file_name().to_string_lossy().contains("out"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn heads_can_be_kept_apart() {
    let dir = tempfile::tempdir().unwrap();
    for (name, classes) in [("base", 0usize), ("x", 2), ("y", 3)] {
        let mut tensors: Vec<(&str, &[usize], Vec<f32>)> = vec![
            ("encoder.layer.0.w", &[2, 2], vec![classes as f32; 4]),
            ("encoder.layer.0.b", &[2], vec![0.0; 2]),
        ];
        let shapes = [[2usize, 2], [3, 2]];
        if classes > 0 {
            tensors.push((
                "classifier.weight",
                &shapes[classes - 2],
                vec![classes as f32; classes * 2],
            ));
            tensors.push((
                "classifier.bias",
                &shapes[classes - 2][..1],
                vec![0.5; classes],
            ));
        }
        model(&dir.path().join(name), &tensors);
    }
    let path = |n: &str| dir.path().join(n).display().to_string();
    let mut recipe = recipe::from_models(
        "task_arithmetic",
        Some(&path("base")),
        &[path("x"), path("y")],
    )
    .unwrap();
    recipe.heads = Heads::Separate;
    merge(recipe, &dir.path().join("out")).unwrap();
    let out = dir.path().join("out");
    assert_eq!(
        read(&out).keys().collect::<Vec<_>>(),
        ["encoder.layer.0.b", "encoder.layer.0.w"]
    );
    let head = polyloom_core::Checkpoint::open(out.join("heads/y.safetensors")).unwrap();
    assert_eq!(head.get("weight").unwrap().shape, [3, 2]);
    assert_eq!(head.metadata()["task"], "y");
    assert!(out.join("heads/x.safetensors").exists());
}

#[test]
fn same_bytes_for_any_thread_count_chunk_and_sharding() {
    let dir = tempfile::tempdir().unwrap();
    let s = polyloom_core::rng::Stream::new(9, "big", 0);
    for (k, name) in ["base", "a", "b"].iter().enumerate() {
        let values = |n: usize, at: u64| {
            (0..n as u64)
                .map(|i| s.normal(i + at) + 0.05 * k as f32 * s.normal(i + at + 77_777 * k as u64))
                .collect()
        };
        model_as(
            &dir.path().join(name),
            DType::BF16,
            &[
                ("layers.0.w", &[150, 100], values(15_000, 0)),
                ("layers.0.b", &[100], values(100, 20_000)),
                ("layers.1.w", &[90, 64], values(5760, 30_000)),
                ("layers.1.b", &[64], values(64, 40_000)),
            ],
        );
    }
    let path = |n: &str| dir.path().join(n).display().to_string();
    // What methods find in files: scores, Fisher values, and a Gram matrix of one layer (the other is averaged).
    std::fs::write(dir.path().join("scores"), "a,2\nb,1\na+b,2\n").unwrap();
    for (k, name) in ["a.stats", "b.stats"].iter().enumerate() {
        let s = polyloom_core::rng::Stream::new(9, "statistics", k as u64);
        let squares = |n: u64| (0..n).map(|i| s.normal(i).powi(2)).collect::<Vec<f32>>();
        let gram: Vec<f32> = (0..64 * 64u64)
            .map(|i| s.normal(i / 64) * s.normal(i % 64) + f32::from(u8::from(i % 65 == 0)))
            .collect();
        crate::statistics::tensors(
            &dir.path().join(name),
            &[
                ("layers.0.w.fisher", &[150, 100], &squares(15_000)),
                ("layers.0.b.fisher", &[100], &squares(100)),
                ("layers.1.w.fisher", &[90, 64], &squares(5760)),
                ("layers.1.b.fisher", &[64], &squares(64)),
                ("layers.1.w.gram", &[64, 64], &gram),
            ],
        );
    }
    let (scores, stats) = (
        path("scores"),
        format!("{},{}", path("a.stats"), path("b.stats")),
    );
    let mut tried = 0;
    for method in polyloom::merge::methods().map(|m| m.spec().name) {
        let spec = polyloom::merge::find(method).unwrap().spec();
        let experts: Vec<String> = if spec.experts.1 == 1 {
            vec![path("a")]
        } else {
            vec![path("a"), path("b")]
        };
        let base = (spec.base != polyloom::merge::method::Base::Ignored).then(|| path("base"));
        let Ok(mut recipe) = recipe::from_models(method, base.as_deref(), &experts) else {
            continue;
        };
        for (key, value) in [
            ("merge.each.density", "0.4"),
            ("merge.shared.t", "0.3"),
            ("merge.shared.density", "0.3"),
            ("merge.shared.task", "a"),
            ("merge.shared.steps", "5"),
            ("merge.shared.beta", "0.5"),
            ("merge.shared.scores", scores.as_str()),
            ("merge.each.stats", stats.as_str()),
        ] {
            let _ = recipe.set(key, value);
        }
        recipe.seed = 3;
        let mut first: Option<Vec<u8>> = None;
        for (i, (threads, chunk)) in [(1, 0), (2, 4096), (3, 8192), (7, 1 << 20)]
            .into_iter()
            .enumerate()
        {
            let pool = rayon::ThreadPoolBuilder::new()
                .num_threads(threads)
                .build()
                .unwrap();
            let out = dir.path().join(format!("{method}-{i}"));
            let Ok(plan) = polyloom::plan::build(
                recipe.clone(),
                &polyloom::plan::reference::Places::default(),
            ) else {
                break;
            };
            let mut options = options(&out);
            options.chunk = chunk;
            if let Err(error) = pool.install(|| polyloom::plan::execute::execute(&plan, &options)) {
                assert!(
                    i == 0 && matches!(error, polyloom::MergeError::Plan { .. }),
                    "{method}: {error}"
                );
                break;
            }
            let bytes = std::fs::read(out.join("model.safetensors")).unwrap();
            match &first {
                None => first = Some(bytes),
                Some(first) => assert!(
                    *first == bytes,
                    "{method}: {threads} threads, chunk {chunk} give other bytes"
                ),
            }
        }
        tried += usize::from(first.is_some());
    }
    println!("{tried} methods give the same bytes for 1, 2, 3 and 7 threads");
    assert!(tried >= 40, "{tried}");
}

#[test]
fn shards_hold_what_one_file_holds_and_resume_keeps_the_finished() {
    let dir = tempfile::tempdir().unwrap();
    let names = three(dir.path());
    let recipe = recipe::from_models("task_arithmetic", Some(&names[0]), &names[1..]).unwrap();
    merge(recipe.clone(), &dir.path().join("one")).unwrap();
    let plan =
        polyloom::plan::build(recipe, &polyloom::plan::reference::Places::default()).unwrap();
    let target = dir.path().join("many");
    let stop = std::sync::atomic::AtomicBool::new(false);
    let hear = |done: u64, _: &str| stop.store(done >= 130, std::sync::atomic::Ordering::Relaxed);
    let mut o = options(&target);
    o.shard_size = 100;
    let interrupted = polyloom::plan::execute::RunOptions {
        stop: Some(&stop),
        progress: Some(&hear),
        target: target.clone(),
        ..options(&target)
    };
    let interrupted = polyloom::plan::execute::RunOptions {
        shard_size: 100,
        ..interrupted
    };
    assert!(polyloom::plan::execute::execute(&plan, &interrupted).is_err());
    assert!(!target.exists());
    o.resume = true;
    polyloom::plan::execute::execute(&plan, &o).unwrap();
    assert!(target.join("model.safetensors.index.json").exists());
    assert_eq!(read(&target), read(&dir.path().join("one")));
}

#[test]
fn architectures_are_mixed_only_on_request() {
    let dir = tempfile::tempdir().unwrap();
    let names = three(dir.path());
    std::fs::write(
        dir.path().join("b/config.json"),
        r#"{"model_type":"other"}"#,
    )
    .unwrap();
    let mut recipe = recipe::from_models("linear", None, &names[1..]).unwrap();
    let errors = merge(recipe.clone(), &dir.path().join("out")).unwrap_err();
    assert_eq!(errors.len(), 1, "{errors:?}");
    assert!(
        errors[0].to_string().contains("is a `other` model"),
        "{}",
        errors[0]
    );
    assert!(errors[0].hints()[0].contains("--allow-crimes"));
    recipe.allow_mixed = true;
    merge(recipe, &dir.path().join("out")).unwrap();
}

#[test]
fn float64_is_merged_in_f32_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let paths = ["a", "b"].map(|n| dir.path().join(n));
    for (path, x) in paths.iter().zip([1.0, 2.0]) {
        model_as(path, polyloom_core::DType::F64, &[("w", &[2], vec![x, -x])]);
    }
    let experts = paths.each_ref().map(|p| p.display().to_string());
    let recipe = recipe::from_models("linear", None, &experts).unwrap();
    let plan = polyloom::plan::build(recipe.clone(), &Default::default()).unwrap();
    assert!(
        plan.notes
            .iter()
            .any(|n| n.warning && n.text.contains("float64 is merged in f32")),
        "{:?}",
        plan.notes
    );
    assert_eq!(plan.check_strict().unwrap_err().code(), "strict");
    let out = dir.path().join("out");
    merge(recipe, &out).unwrap();
    assert_eq!(read(&out)["w"], [1.5, -1.5]);
}

#[test]
fn the_base_of_a_slice_has_layers_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let path = |n: &str| dir.path().join(n).display().to_string();
    for (name, scale) in [("base", 1.0f32), ("a", 10.0)] {
        // Two tensors make a layer.
        let names: Vec<String> = (0..8)
            .map(|i| format!("model.layers.{}.{}", i / 2, ["w", "b"][i % 2]))
            .collect();
        let tensors: Vec<(&str, &[usize], Vec<f32>)> = names
            .iter()
            .enumerate()
            .map(|(i, n)| (n.as_str(), &[1usize][..], vec![scale * (i / 2 + 1) as f32]))
            .collect();
        model(&dir.path().join(name), &tensors);
    }
    // Output layer 0: base layer 2 is 3, layer 1 of a is 20: 3 + 0.5 (20 - 3); layer 1: 4 + 0.5 (30 - 4).
    let toml = format!(
        "[base]\npath = {:?}\n[[expert]]\nname = \"a\"\npath = {:?}\n[merge]\nmethod = \"task_arithmetic\"\n\
         [[slice]]\nsources = [{{expert = \"a\", layer_range = [1, 3], merge = {{weight = 0.5}}}}, \
         {{expert = \"base\", layer_range = [2, 4]}}]\n",
        path("base"),
        path("a")
    );
    let yaml = format!(
        "merge_method: task_arithmetic\nbase_model: {0:?}\nslices:\n  - sources:\n      - {{model: {0:?}, layer_range: [2, 4]}}\n      \
         - {{model: {1:?}, layer_range: [1, 3], parameters: {{weight: 0.5}}}}\n",
        path("base"),
        path("a")
    );
    let recipes = [
        recipe::toml::parse(&toml, None).unwrap(),
        recipe::mergekit::parse(&yaml, None).unwrap().remove(0),
    ];
    for (i, recipe) in recipes.into_iter().enumerate() {
        let out = dir.path().join(format!("out{i}"));
        merge(recipe, &out).unwrap();
        let got = read(&out);
        assert_eq!(got.len(), 4);
        assert_eq!(got["model.layers.0.w"], [11.5]);
        assert_eq!(got["model.layers.1.b"], [17.0]);
    }
}
