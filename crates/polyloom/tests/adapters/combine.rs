//! `awa_*`, `flora_stacking`, `fedit_zero_padding`, and `add_weighted_adapter` of golden/merging.

use polyloom::adapt::{
    Combination, CombineOptions, Masks, Pair, Share, SignRule, clamp_factors, combine,
    combine_factors, stack,
};
use polyloom_core::Checkpoint;
use polyloom_core::linalg::Matrix;
use polyloom_core::peft::{AdapterFolder, LayerKind};
use serde_json::{Value, json};

use super::Outcome;
use super::cases::{Case, Tensor, transpose};
use super::fold::{sign_free, write_folder};

fn options(canonical: &Value) -> CombineOptions {
    let params = &canonical["params"];
    let weights = serde_json::from_value(canonical["each"]["weight"].clone()).unwrap();
    let word = params["combination"].as_str().unwrap();
    let mut options = CombineOptions::new(Combination::from_word(word).unwrap(), weights);
    options.rank = params["rank"].as_u64().map(|r| r as usize);
    options.clamp = params["clamp"].as_f64();
    options.density = params["density"].as_f64();
    if let Some(sign) = params["sign"].as_str() {
        options.sign = SignRule::from_word(sign).unwrap();
    }
    options
}

fn matrix(t: &Tensor) -> Matrix {
    let rows = t.shape[0];
    Matrix::from_f32(rows, t.values.len() / rows, &t.values)
}

fn pairs(case: &Case, kind: &LayerKind) -> Vec<Pair> {
    (0..)
        .map_while(|i| {
            Some(Pair {
                a: matrix(&case.input(&format!("A.{i}"))?),
                b: matrix(&case.input(&format!("B.{i}"))?),
                kind: kind.clone(),
            })
        })
        .collect()
}

pub(crate) fn factors(case: &Case) -> Outcome {
    let kind = match case.params["layer"].as_str().unwrap() {
        "conv" => LayerKind::Conv(case.input("A.0").unwrap().shape[1..].to_vec()),
        "emb" => LayerKind::Embedding,
        _ => LayerKind::Linear,
    };
    let options = options(&case.canonical);
    let ranks: Vec<usize> = serde_json::from_value(case.params["ranks"].clone()).unwrap();
    let alphas: Vec<f64> = serde_json::from_value(case.params["lora_alphas"].clone()).unwrap();
    let single = ranks.len() == 1;
    let shares: Vec<Share> = pairs(case, &kind)
        .into_iter()
        .enumerate()
        .map(|(i, pair)| Share {
            adapter: i,
            pair,
            scaling: alphas[i] / ranks[i] as f64,
            weight: options.weights[i],
        })
        .collect();
    let masks: Vec<Vec<bool>> = (0..)
        .map_while(|i| case.input(&format!("mask.{i}")))
        .map(|t| t.values.iter().map(|v| *v != 0.0).collect())
        .collect();
    let rank = case.value("r").as_u64().unwrap() as usize;
    let mut used = options.clone();
    if single {
        used.combination = Combination::Linear;
    }
    if let Some(quantile) = used.clamp {
        return clamped(case, &shares, used, rank, quantile);
    }
    let (pair, _) = combine_factors("m", &shares, &used, rank, Masks::Recorded(&masks)).unwrap();
    compare(case, &pair, rank);
    if !masks.is_empty() {
        return Ok(vec!["recorded masks"]);
    }
    // The same through folders on disk.
    let temp = tempfile::tempdir().unwrap();
    let (suffix_a, suffix_b) = match kind {
        LayerKind::Embedding => ("m.lora_embedding_A", "m.lora_embedding_B"),
        _ => ("m.lora_A.weight", "m.lora_B.weight"),
    };
    let folders: Vec<AdapterFolder> = (0..ranks.len())
        .map(|i| {
            let (a, b) = (format!("A.{i}"), format!("B.{i}"));
            let (a, b) = (case.input(&a).unwrap(), case.input(&b).unwrap());
            let path = temp.path().join(i.to_string());
            let config = json!({"r": ranks[i], "lora_alpha": alphas[i], "target_modules": ["m"]});
            write_folder(&path, &config, &[(suffix_a, &a), (suffix_b, &b)]);
            AdapterFolder::open(path).unwrap()
        })
        .collect();
    let set = combine(&folders, &options).unwrap();
    assert_eq!(set.config["r"], *case.value("r"), "{}", case.name);
    assert_eq!(
        set.config["lora_alpha"],
        *case.value("lora_alpha"),
        "{}",
        case.name
    );
    compare(case, &set.modules[0].1, rank);
    let out = temp.path().join("out");
    set.write(&out, "", Default::default()).unwrap();
    let back = AdapterFolder::open(&out).unwrap().factors("m").unwrap();
    assert_eq!(back.scaling, 1.0);
    assert_eq!(back.kind, kind);
    Ok(Vec::new())
}

fn compare(case: &Case, pair: &Pair, rank: usize) {
    let (a, b) = (pair.a.to_f32(), pair.b.to_f32());
    let (wanted_a, wanted_b) = (case.expected("A").unwrap(), case.expected("B").unwrap());
    if case.json["expected"]["A"]["compare"] == json!("sign_free") {
        sign_free(case, &a, &b, &wanted_a.values, &wanted_b.values, rank);
    } else {
        case.close("A", &a, &wanted_a.values);
        case.close("B", &b, &wanted_b.values);
    }
    let mut delta = pair.b.times(&pair.a).to_f32();
    if pair.kind == LayerKind::Embedding {
        delta = transpose(&delta, pair.b.rows);
    }
    case.check("delta_weight", &delta);
}

pub(crate) fn flora(case: &Case) -> Outcome {
    let sizes: Vec<f64> = serde_json::from_value(case.params["client_sizes"].clone()).unwrap();
    let ranks: Vec<usize> = serde_json::from_value(case.params["ranks"].clone()).unwrap();
    if case.method == "flora.zero_padding_baseline" {
        // The baseline FLoRA argues against, built here only to check the vectors.
        let widest = *ranks.iter().max().unwrap();
        let total: f64 = sizes.iter().sum();
        let padded: Vec<Pair> = pairs(case, &LayerKind::Linear)
            .into_iter()
            .map(|p| p.padded(widest))
            .collect();
        let mut a = Matrix::zeros(widest, padded[0].a.cols);
        let mut b = Matrix::zeros(padded[0].b.rows, widest);
        for (pair, size) in padded.iter().zip(&sizes) {
            a.add(size / total, &pair.a);
            b.add(size / total, &pair.b);
        }
        case.close("A", &a.to_f32(), &case.expected("A").unwrap().values);
        case.close("B", &b.to_f32(), &case.expected("B").unwrap().values);
        return Ok(Vec::new());
    }
    let temp = tempfile::tempdir().unwrap();
    let folders: Vec<AdapterFolder> = (0..ranks.len())
        .map(|i| {
            let a = case.input(&format!("A.{i}")).unwrap();
            let b = case.input(&format!("B.{i}")).unwrap();
            let path = temp.path().join(i.to_string());
            let config = json!({"r": ranks[i], "lora_alpha": ranks[i], "target_modules": ["m"]});
            write_folder(
                &path,
                &config,
                &[("m.lora_A.weight", &a), ("m.lora_B.weight", &b)],
            );
            AdapterFolder::open(path).unwrap()
        })
        .collect();
    let set = stack(&folders, &sizes, None).unwrap();
    let pair = &set.modules[0].1;
    case.close("A", &pair.a.to_f32(), &case.expected("A").unwrap().values);
    case.close("B", &pair.b.to_f32(), &case.expected("B").unwrap().values);
    case.check("delta", &pair.b.times(&pair.a).to_f32());
    Ok(Vec::new())
}

/// A case of golden/merging: adapter folders in, delta and singular values per module out.
pub(crate) fn merging(case: &Case) -> Outcome {
    let models = case
        .folder
        .join("models")
        .join(case.json["set"].as_str().unwrap());
    let folders: Vec<AdapterFolder> = case.json["inputs"]
        .as_array()
        .unwrap()
        .iter()
        .map(|n| AdapterFolder::open(models.join(n.as_str().unwrap())).unwrap())
        .collect();
    let set = combine(&folders, &options(&case.canonical)).unwrap();
    let wanted =
        Checkpoint::open(case.folder.join(case.json["expected"].as_str().unwrap())).unwrap();
    let mut outliers = 0;
    let mut seen = 0;
    let mut compare = |name: String, got: &[f32]| {
        let stored = wanted.get(&name)?;
        outliers += case.outliers(got, &wanted.read_all(stored).unwrap());
        seen += 1;
        Some(())
    };
    for (module, pair, _) in &set.modules {
        compare(format!("{module}.lora_A"), &pair.a.to_f32());
        compare(format!("{module}.lora_B"), &pair.b.to_f32());
        compare(format!("{module}.delta"), &pair.b.times(&pair.a).to_f32());
        // The columns of B carry the singular values.
        let norms: Vec<f32> = (0..pair.rank())
            .map(|k| {
                let column = pair.b.data.iter().skip(k).step_by(pair.rank());
                column.map(|v| v * v).sum::<f64>().sqrt() as f32
            })
            .collect();
        compare(format!("{module}.singular_values"), &norms);
    }
    assert_eq!(seen, wanted.tensors().len(), "{}", case.name);
    let allowed = case.json["tolerance"]["max_outliers"].as_u64().unwrap_or(0);
    assert!(
        outliers as u64 <= allowed,
        "{}: {outliers} outliers",
        case.name
    );
    Ok(Vec::new())
}

/// PEFT's clamp is a quantile of signed values, so it depends on the signs the SVD happens to give; one choice of
/// signs per pair must reproduce the vector.
fn clamped(
    case: &Case,
    shares: &[Share],
    mut options: CombineOptions,
    rank: usize,
    quantile: f64,
) -> Outcome {
    options.clamp = None;
    let (free, _) = combine_factors("m", shares, &options, rank, Masks::Seed(0)).unwrap();
    let wanted = case.expected("delta_weight").unwrap();
    let mut fitting = 0;
    for signs in 0..1u32 << rank {
        let signs: Vec<f64> = (0..rank)
            .map(|k| if signs >> k & 1 == 1 { -1.0 } else { 1.0 })
            .collect();
        let (mut a, mut b) = (
            free.a.clone().scale_rows(&signs),
            free.b.clone().scale_columns(&signs),
        );
        clamp_factors(&mut a, &mut b, quantile);
        if case.outliers(&b.times(&a).to_f32(), &wanted.values) == 0 {
            let kind = LayerKind::Linear;
            compare(case, &Pair { a, b, kind }, rank);
            fitting += 1;
        }
    }
    assert!(fitting > 0, "{}: no signs give the vector", case.name);
    Ok(vec!["compared over all signs of the SVD"])
}
