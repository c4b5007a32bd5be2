//! Folding: complete folders, and single layers written to disk as a base and an adapter.

use std::path::Path;
use std::sync::Arc;

use polyloom_core::checkpoint::{Checkpoint, Scratch};
use polyloom_core::linalg::Matrix;
use polyloom_core::peft::config::lora_defaults;
use polyloom_core::peft::init::start_factors;
use polyloom_core::peft::{AdapterFolder, AdapterTensor, BaseChange, Folded, write_adapter};
use polyloom_core::writer::{FolderOptions, OutTensor, safetensors_bytes};
use polyloom_core::{DType, dtype};
use serde_json::{Value, json};

use super::Outcome;
use super::cases::{Case, Tensor, linear, transpose};

/// Reads a tensor of the view in chunks that cut rows apart.
pub(crate) fn read(folded: &Folded, name: &str) -> Vec<f32> {
    let shapes = folded.tensors();
    let (_, _, shape) = shapes
        .iter()
        .find(|(n, _, _)| n == name)
        .unwrap_or_else(|| panic!("no tensor {name}"));
    let mut out = vec![0.0; shape.iter().product()];
    let mut scratch = Scratch::default();
    for (i, chunk) in out.chunks_mut(7).enumerate() {
        let range = i * 7..i * 7 + chunk.len();
        folded.read_f32(name, range, chunk, &mut scratch).unwrap();
    }
    out
}

pub(crate) fn directory(case: &Case) -> Outcome {
    let folder = case.folder.join(&case.name);
    let base = case.folder.join(case.params["base"].as_str().unwrap());
    let base = Arc::new(Checkpoint::open(base).unwrap());
    let adapter = AdapterFolder::open(&folder).unwrap();
    let mut keys: Vec<&String> = adapter.tensors.tensors().keys().collect();
    keys.sort();
    assert_eq!(json!(keys), *case.value("adapter_keys"), "{}", case.name);
    if let Some(ranks) = case.value("rank_of_module").as_object() {
        for (module, rank) in ranks {
            assert_eq!(json!(adapter.config.rank_of(module).unwrap()), *rank);
            let factors = adapter.factors(module).unwrap();
            assert_eq!(json!(factors.rank), *rank, "{module}");
            assert_eq!(
                json!(factors.scaling),
                case.value("scaling_of_module")[module],
                "{module}"
            );
        }
    }
    let folded = Folded::open(base, adapter).unwrap();
    assert!(
        folded.warnings().is_empty(),
        "{}: {:?}",
        case.name,
        folded.warnings()
    );
    let merged = Checkpoint::open(folder.join("merged.safetensors")).unwrap();
    assert_eq!(
        merged.tensors().len(),
        folded.tensors().len(),
        "{}",
        case.name
    );
    for tensor in merged.tensors().values() {
        let wanted = merged.read_all(tensor).unwrap();
        case.close(&tensor.name, &read(&folded, &tensor.name), &wanted);
    }
    Ok(vec!["outputs of the whole network not yet built"])
}

/// Writes tensors as a safetensors file.
pub(crate) fn write_base(path: &Path, tensors: &[(&str, &Tensor)]) {
    let stored: Vec<_> = tensors
        .iter()
        .map(|(name, t)| {
            let out = OutTensor {
                name: (*name).to_owned(),
                dtype: DType::F32,
                shape: t.shape.clone(),
            };
            let mut bytes = vec![0; 4 * t.values.len()];
            dtype::narrow(&t.values, DType::F32, &mut bytes);
            (out, bytes)
        })
        .collect();
    let bytes = safetensors_bytes(&stored, &Default::default());
    std::fs::write(path, bytes).unwrap();
}

/// Writes an adapter folder with `changes` to PEFT's default configuration.
pub(crate) fn write_folder(path: &Path, changes: &Value, tensors: &[(&str, &Tensor)]) {
    let mut config = lora_defaults();
    for (key, value) in changes.as_object().unwrap() {
        config.insert(key.clone(), value.clone());
    }
    let tensors: Vec<AdapterTensor> = tensors
        .iter()
        .map(|(name, t)| AdapterTensor {
            name: format!("base_model.model.{name}"),
            dtype: DType::F32,
            shape: t.shape.clone(),
            values: t.values.clone(),
        })
        .collect();
    let options = FolderOptions {
        no_sync: true,
        ..FolderOptions::default()
    };
    write_adapter(path, &config, &tensors, "", options).unwrap();
}

pub(crate) fn layer(case: &Case) -> Outcome {
    let temp = tempfile::tempdir().unwrap();
    let weight = case.input("weight").unwrap();
    let bias = case.input("bias");
    let mut base = vec![("m.weight", &weight)];
    base.extend(bias.as_ref().map(|b| ("m.bias", b)));
    write_base(&temp.path().join("base.safetensors"), &base);
    let inputs: Vec<(&str, Tensor)> = [
        ("lora_A", "m.lora_A.weight"),
        ("lora_B", "m.lora_B.weight"),
        ("lora_B_bias", "m.lora_B.bias"),
        ("lora_embedding_A", "m.lora_embedding_A"),
        ("lora_embedding_B", "m.lora_embedding_B"),
        ("lora_magnitude_vector", "m.lora_magnitude_vector"),
        ("ia3_l", "m.ia3_l"),
    ]
    .into_iter()
    .filter_map(|(input, name)| Some((name, case.input(input)?)))
    .collect();
    let tensors: Vec<(&str, &Tensor)> = inputs.iter().map(|(n, t)| (*n, t)).collect();
    let ia3 = case.method.starts_with("ia3");
    let mut config = json!({"target_modules": ["m"]});
    for key in [
        "r",
        "lora_alpha",
        "use_rslora",
        "fan_in_fan_out",
        "lora_bias",
    ] {
        if !case.params[key].is_null() {
            config[key] = case.params[key].clone();
        }
    }
    config["use_dora"] = json!(case.method.starts_with("dora"));
    if ia3 {
        config["peft_type"] = json!("IA3");
    }
    write_folder(&temp.path().join("adapter"), &config, &tensors);
    let base = Arc::new(Checkpoint::open(temp.path().join("base.safetensors")).unwrap());
    let adapter = AdapterFolder::open(temp.path().join("adapter")).unwrap();
    let groups = case.method.ends_with("groups");
    if let Some(scaling) = case.value("scaling").as_f64()
        && !groups
    {
        let got = adapter.factors("m").unwrap().scaling as f32;
        case.close("scaling", &[got], &[scaling as f32]);
    }
    if groups {
        let error = Folded::open(base, adapter).unwrap_err().to_string();
        assert!(error.contains("groups"), "{error}");
        return Ok(vec!["refused to merge as PEFT does"]);
    }
    let folded = Folded::open(base, adapter).unwrap();
    let merged = read(&folded, "m.weight");
    case.check("merged_weight", &merged);
    let delta: Vec<f32> = merged
        .iter()
        .zip(&weight.values)
        .map(|(a, b)| a - b)
        .collect();
    case.check("delta_weight", &delta);
    let merged_bias = bias.is_some().then(|| read(&folded, "m.bias"));
    if let Some(bias) = &merged_bias {
        case.check("merged_bias", bias);
    }
    let y = case.expected("y").unwrap();
    if let Some(ids) = case.input("ids") {
        let d = weight.shape[1];
        let rows: Vec<f32> = ids
            .values
            .iter()
            .flat_map(|&id| merged[id as usize * d..][..d].to_vec())
            .collect();
        case.close("y", &rows, &y.values);
        return Ok(Vec::new());
    }
    if weight.shape.len() > 2 {
        return Ok(vec!["y of a convolution not yet built (weights compared)"]);
    }
    let x = case.input("x").unwrap();
    let flat = if config["fan_in_fan_out"] == json!(true) {
        transpose(&merged, weight.shape[0])
    } else {
        merged
    };
    let inputs = *x.shape.last().unwrap();
    let got = linear(&x.values, &flat, merged_bias.as_deref(), inputs);
    case.close("y", &got, &y.values);
    Ok(Vec::new())
}

pub(crate) fn init(case: &Case) -> Outcome {
    let weight = case.input("weight").unwrap();
    let (rows, cols) = (weight.shape[0], weight.shape[1]);
    let (name, change) = if case.method.ends_with("pissa") {
        ("pissa", BaseChange::Pissa)
    } else {
        ("olora", BaseChange::Olora)
    };
    let rank = case.number("r").unwrap() as usize;
    let scaling = case.number("scaling").unwrap();
    let w = Matrix::from_f32(rows, cols, &weight.values);
    let (b0, a0) = start_factors(change, &w, rank, scaling).unwrap();
    let mut delta = b0.times(&a0);
    for v in &mut delta.data {
        *v *= scaling;
    }
    case.check("delta_weight", &delta.to_f32());
    let mut residual = w.clone();
    residual.add(-1.0, &delta);
    case.check("residual_weight", &residual.to_f32());
    // The factors themselves, each pair up to one sign.
    let (wanted_a, wanted_b) = (
        case.expected("lora_A").unwrap(),
        case.expected("lora_B").unwrap(),
    );
    sign_free(
        case,
        &a0.to_f32(),
        &b0.to_f32(),
        &wanted_a.values,
        &wanted_b.values,
        rank,
    );
    // An adapter with another B on the same start folds to residual + s B A.
    let temp = tempfile::tempdir().unwrap();
    write_base(
        &temp.path().join("base.safetensors"),
        &[("m.weight", &weight)],
    );
    let b = Tensor {
        shape: vec![rows, rank],
        values: b0.to_f32().iter().map(|v| 1.5 * v + 0.01).collect(),
    };
    let a = Tensor {
        shape: vec![rank, cols],
        values: a0.to_f32(),
    };
    let alpha = case.number("lora_alpha").unwrap();
    write_folder(
        &temp.path().join("adapter"),
        &json!({"r": rank, "lora_alpha": alpha, "init_lora_weights": name, "target_modules": ["m"]}),
        &[("m.lora_A.weight", &a), ("m.lora_B.weight", &b)],
    );
    let base = Arc::new(Checkpoint::open(temp.path().join("base.safetensors")).unwrap());
    let folded = Folded::open(
        base,
        AdapterFolder::open(temp.path().join("adapter")).unwrap(),
    )
    .unwrap();
    let mut wanted = residual;
    let product =
        Matrix::from_f32(rows, rank, &b.values).times(&Matrix::from_f32(rank, cols, &a.values));
    wanted.add(scaling, &product);
    case.close("folded", &read(&folded, "m.weight"), &wanted.to_f32());
    Ok(Vec::new())
}

/// Compares A `[r, in]` and B `[out, r]` pair by pair, each up to one common sign.
pub(crate) fn sign_free(
    case: &Case,
    a: &[f32],
    b: &[f32],
    wanted_a: &[f32],
    wanted_b: &[f32],
    rank: usize,
) {
    assert_eq!(
        (a.len(), b.len()),
        (wanted_a.len(), wanted_b.len()),
        "{}",
        case.name
    );
    let inputs = a.len() / rank;
    for k in 0..rank {
        let column = |m: &[f32]| -> Vec<f32> { m.iter().skip(k).step_by(rank).copied().collect() };
        let mut got = a[k * inputs..][..inputs].to_vec();
        got.extend(column(b));
        let mut wanted = wanted_a[k * inputs..][..inputs].to_vec();
        wanted.extend(column(wanted_b));
        let dot: f32 = got.iter().zip(&wanted).map(|(x, y)| x * y).sum();
        if dot < 0.0 {
            for v in &mut got {
                *v = -*v;
            }
        }
        case.close(&format!("pair {k}"), &got, &wanted);
    }
}
