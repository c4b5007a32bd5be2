//! Adapters beside a base give what the folded model gives; what cannot stand beside is folded, never left out.

use std::path::{Path, PathBuf};

use polyloom_core::DType;
use polyloom_core::peft::{AdapterConfig, AdapterTensor, Names, write_adapter};
use polyloom_core::rng::Stream;
use polyloom_core::writer::FolderOptions;
use polyloom_learn::engine::{Value, slice, tensor};
use polyloom_learn::tasks::{Base, Opened, System};
use serde_json::{Value as Json, json};

fn vit() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/models/vit")
}

fn random(name: &str, shape: &[usize], scale: f32) -> AdapterTensor {
    let stream = Stream::new(3, name, 0);
    let n: usize = shape.iter().product();
    AdapterTensor {
        name: format!("base_model.model.{name}"),
        dtype: DType::F32,
        shape: shape.to_vec(),
        values: (0..n as u64).map(|i| scale * stream.normal(i)).collect(),
    }
}

/// An adapter of query and up-projections of both layers; the first layer's query has rank 3.
fn adapter(folder: &Path, change: &[(&str, Json)], more: Vec<AdapterTensor>) -> PathBuf {
    let base = json!(vit().display().to_string());
    let targets = Names::List(vec!["query".into(), "intermediate.dense".into()]);
    let mut config = AdapterConfig::lora(Some(&base), &targets, 2);
    config.insert("lora_alpha".into(), json!(5));
    for (key, value) in change {
        config.insert((*key).to_owned(), value.clone());
    }
    let ranked = |module: &str| {
        let pattern = config["rank_pattern"].as_object();
        let of = pattern.and_then(|p| p.iter().find(|(k, _)| module.contains(&***k)));
        of.map_or(2, |(_, r)| r.as_u64().unwrap() as usize)
    };
    let mut tensors = more;
    for layer in 0..2 {
        for (part, out) in [
            ("attention.attention.query", 24),
            ("intermediate.dense", 40),
        ] {
            let module = format!("encoder.layer.{layer}.{part}");
            let rank = ranked(&module);
            tensors.push(random(&format!("{module}.lora_A.weight"), &[rank, 24], 0.3));
            tensors.push(random(
                &format!("{module}.lora_B.weight"),
                &[out, rank],
                0.3,
            ));
            if config["use_dora"] == true {
                let mut lengths = random(&format!("{module}.lora_magnitude_vector"), &[out], 0.1);
                lengths.values.iter_mut().for_each(|x| *x += 0.7);
                tensors.push(lengths);
            }
        }
    }
    write_adapter(folder, &config, &tensors, "", FolderOptions::default()).unwrap()
}

fn seen(
    model: &polyloom_learn::models::open::Model,
    source: &dyn polyloom_learn::models::Source,
) -> Vec<f32> {
    let stream = Stream::new(1, "pixels", 0);
    let pixels = (0..3 * 2 * 12 * 12).map(|i| stream.normal(i)).collect();
    let pixels = Value::constant(tensor(pixels, vec![3, 2, 12, 12]).unwrap());
    slice(model.look(source, &pixels).unwrap().data())
        .unwrap()
        .to_vec()
}

/// Name, changed settings, further tensors, whether it is folded.
type Case<'a> = (&'a str, Vec<(&'a str, Json)>, Vec<AdapterTensor>, bool);

#[test]
fn beside_the_base_as_folded_in() {
    let dir = tempfile::tempdir().unwrap();
    let base = Base::open(&vit(), None).unwrap();
    let plain = seen(&base.opened.model, &base.opened.model.weights);
    let pattern = json!({"layer.0.attention.attention.query": 3});
    let whole = |name: &str, shape: &[usize]| random(name, shape, 0.2);
    let conv = "embeddings.patch_embeddings.projection";
    let cases: Vec<Case<'_>> = vec![
        ("lora", vec![], vec![], false),
        ("rslora", vec![("use_rslora", json!(true))], vec![], false),
        (
            "patterns",
            vec![
                ("rank_pattern", pattern.clone()),
                ("alpha_pattern", json!({"intermediate.dense": 1})),
            ],
            vec![],
            false,
        ),
        ("dora", vec![("use_dora", json!(true))], vec![], false),
        (
            "pissa",
            vec![("init_lora_weights", json!("pissa"))],
            vec![],
            true,
        ),
        (
            "whole",
            vec![("modules_to_save", json!(["layernorm"]))],
            vec![
                whole("layernorm.weight", &[24]),
                whole("layernorm.bias", &[24]),
            ],
            true,
        ),
        (
            "convolution",
            vec![(
                "target_modules",
                json!(["query", "intermediate.dense", "projection"]),
            )],
            vec![
                whole(&format!("{conv}.lora_A.weight"), &[2, 2, 4, 4]),
                whole(&format!("{conv}.lora_B.weight"), &[24, 2, 1, 1]),
            ],
            true,
        ),
    ];
    for (name, change, more, folds) in cases {
        let folder = adapter(&dir.path().join(name), &change, more);
        let system = System::find(&folder.display().to_string(), None, None).unwrap();
        let ready = base.ready(&system).unwrap();
        assert_eq!(ready.is_folded(), folds, "{name}");
        let found = ready
            .with(&[], |model, source| Ok(seen(model, source)))
            .unwrap();
        let folded = Opened::folded(&vit(), &folder).unwrap();
        let wanted = seen(&folded.model, &folded.model.weights);
        let apart = |a: &[f32], b: &[f32]| {
            a.iter()
                .zip(b)
                .map(|(x, y)| (x - y).abs())
                .fold(0.0, f32::max)
        };
        assert!(
            apart(&found, &wanted) < 1e-5,
            "{name}: {}",
            apart(&found, &wanted)
        );
        assert!(
            apart(&found, &plain) > 1e-2,
            "{name}: the adapter does nothing"
        );
    }
}

#[test]
fn an_adapter_of_another_base_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let base = Base::open(&vit(), None).unwrap();
    let more = vec![
        random(
            "encoder.layer.7.attention.attention.query.lora_A.weight",
            &[2, 24],
            0.1,
        ),
        random(
            "encoder.layer.7.attention.attention.query.lora_B.weight",
            &[24, 2],
            0.1,
        ),
    ];
    let folder = adapter(&dir.path().join("other"), &[], more);
    let system = System::find(&folder.display().to_string(), None, None).unwrap();
    let error = base.ready(&system).err().unwrap().to_string();
    assert!(
        error.contains("encoder.layer.7.attention.attention.query"),
        "{error}"
    );
    // A base that is nowhere is named with the file that names it.
    std::fs::write(
        folder.join("adapter_config.json"),
        r#"{"peft_type": "LORA", "r": 2, "base_model_name_or_path": "org/gone"}"#,
    )
    .unwrap();
    let error = System::find(&folder.display().to_string(), None, None)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("adapter_config.json") && error.contains("org/gone"),
        "{error}"
    );
}
