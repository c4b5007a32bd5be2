//! Extraction, intruder dimensions, routed layers with fixed routing.

use polyloom::adapt::{
    ExtractOptions, Pair, PolyTask, SkillLayout, Skills, Split, energy_rank, extract, intruders,
    mixing_weights, poly_to_lora, scale_intruders, smora_fixed_mask,
};
use polyloom_core::Checkpoint;
use polyloom_core::linalg::{Matrix, svd};
use polyloom_core::peft::{AdapterFolder, LayerKind};
use serde_json::json;

use super::Outcome;
use super::cases::{Case, Tensor, linear};
use super::fold::{sign_free, write_base, write_folder};

fn matrix(t: &Tensor) -> Matrix {
    let rows = t.shape[0];
    Matrix::from_f32(rows, t.values.len() / rows, &t.values)
}

pub(crate) fn extraction(case: &Case) -> Outcome {
    if case.method.ends_with("energy") {
        let values: Vec<f64> = case
            .input("singular_values")
            .unwrap()
            .values
            .iter()
            .map(|&v| f64::from(v))
            .collect();
        let shares: Vec<f64> = serde_json::from_value(case.params["thresholds"].clone()).unwrap();
        let ranks: Vec<usize> = shares.iter().map(|&t| energy_rank(&values, t)).collect();
        assert_eq!(json!(ranks), *case.value("ranks"));
        return Ok(Vec::new());
    }
    let (base, tuned) = (
        case.input("base_weight").unwrap(),
        case.input("tuned_weight").unwrap(),
    );
    let temp = tempfile::tempdir().unwrap();
    let open = |name: &str, t: &Tensor| {
        let path = temp.path().join(name);
        write_base(&path, &[("m.weight", t)]);
        Checkpoint::open(path).unwrap()
    };
    let rank = case.number("rank").unwrap() as usize;
    let options = ExtractOptions {
        rank,
        split: Split::OnB,
        ..ExtractOptions::default()
    };
    let (before, after) = (open("b.safetensors", &base), open("t.safetensors", &tuned));
    let set = extract(&before, &after, &options).unwrap();
    let (_, pair, _) = &set.modules[0];
    let (a, b) = (pair.a.to_f32(), pair.b.to_f32());
    let wanted = (
        case.expected("lora_A").unwrap(),
        case.expected("lora_B").unwrap(),
    );
    sign_free(case, &a, &b, &wanted.0.values, &wanted.1.values, rank);
    case.check("delta_weight", &pair.b.times(&pair.a).to_f32());
    let mut delta = matrix(&tuned);
    delta.add(-1.0, &matrix(&base));
    let all = svd(&delta).unwrap();
    let values: Vec<f32> = all.s.iter().map(|&s| s as f32).collect();
    case.check("singular_values", &values);
    // The error that is reported is the share of the singular values left out.
    let lost: f64 = all.s[rank..].iter().map(|s| s * s).sum();
    let wanted = lost.sqrt() / delta.norm();
    assert!((set.report[0].relative_error.unwrap() - wanted).abs() < 1e-9);
    Ok(Vec::new())
}

/// `extract_lora` of golden/merging.
pub(crate) fn extract_model(case: &Case) -> Outcome {
    let models = case
        .folder
        .join("models")
        .join(case.json["set"].as_str().unwrap());
    let base = Checkpoint::open(models.join("base")).unwrap();
    let tuned = models.join(case.json["inputs"][0].as_str().unwrap());
    let params = &case.canonical["params"];
    let text = |key: &str| params[key].as_str().map(str::to_owned);
    let options = ExtractOptions {
        rank: params["rank"].as_u64().unwrap() as usize,
        sv_epsilon: params["sv_epsilon"].as_f64().unwrap(),
        split: if params["distribute_scale"] == json!(true) {
            Split::Balanced
        } else {
            Split::OnA
        },
        include: text("include"),
        exclude: text("exclude"),
        ..ExtractOptions::default()
    };
    let set = extract(&base, &Checkpoint::open(tuned).unwrap(), &options).unwrap();
    let wanted =
        Checkpoint::open(case.folder.join(case.json["expected"].as_str().unwrap())).unwrap();
    let mut outliers = 0;
    let mut seen = 0;
    let mut compare = |name: String, got: &[f32]| {
        let Some(stored) = wanted.get(&name) else {
            panic!("unexpected {name}")
        };
        seen += 1;
        // mergekit writes rank 0 where nothing is above the cut; we write one rank of zeros.
        if stored.elements() == 0 {
            assert!(got.iter().all(|v| *v == 0.0), "{name}");
            return;
        }
        outliers += case.outliers(got, &wanted.read_all(stored).unwrap());
    };
    for (module, pair, _) in &set.modules {
        compare(format!("{module}.delta"), &pair.b.times(&pair.a).to_f32());
        let norms: Vec<f32> = (0..pair.rank())
            .map(|k| {
                let column = pair.b.data.iter().skip(k).step_by(pair.rank());
                column.map(|v| v * v).sum::<f64>().sqrt() as f32
            })
            .collect();
        compare(format!("{module}.col_norm_B"), &norms);
    }
    for tensor in &set.whole {
        compare(format!("full.{}", tensor.name), &tensor.values);
    }
    assert_eq!(seen, wanted.tensors().len(), "{}", case.name);
    assert_eq!(outliers, 0, "{}", case.name);
    let config = &case.json["adapter_config"];
    for key in ["r", "lora_alpha", "target_modules"] {
        assert_eq!(set.config[key], config[key], "{}: {key}", case.name);
    }
    let save = if set.config["modules_to_save"].is_null() {
        json!([])
    } else {
        set.config["modules_to_save"].clone()
    };
    assert_eq!(save, config["modules_to_save"], "{}", case.name);
    let mut pattern = config["rank_pattern"].clone();
    for rank in pattern.as_object_mut().unwrap().values_mut() {
        if *rank == json!(0) {
            *rank = json!(1);
        }
    }
    assert_eq!(set.config["rank_pattern"], pattern, "{}", case.name);
    Ok(Vec::new())
}

pub(crate) fn intruder(case: &Case) -> Outcome {
    let (w, a, b) = (
        case.input("weight").unwrap(),
        case.input("lora_A").unwrap(),
        case.input("lora_B").unwrap(),
    );
    let (rank, alpha) = (
        case.number("r").unwrap(),
        case.number("lora_alpha").unwrap(),
    );
    let (k, epsilon) = (
        case.number("top_k").unwrap() as usize,
        case.number("epsilon").unwrap(),
    );
    let mut tuned = matrix(&w);
    tuned.add(alpha / rank, &matrix(&b).times(&matrix(&a)));
    let (found, _) = intruders(&matrix(&w), &tuned, k, epsilon).unwrap();
    let narrow = |v: &[f64]| -> Vec<f32> { v.iter().map(|&x| x as f32).collect() };
    case.check("max_cosine", &narrow(&found.max_cosine));
    case.check("merged_singular_values", &narrow(&found.singular_values));
    assert_eq!(json!(found.indices), *case.value("intruder_indices"));
    let temp = tempfile::tempdir().unwrap();
    write_base(&temp.path().join("base.safetensors"), &[("m.weight", &w)]);
    let config = json!({"r": rank as usize, "lora_alpha": alpha, "target_modules": ["m"]});
    write_folder(
        &temp.path().join("a"),
        &config,
        &[("m.lora_A.weight", &a), ("m.lora_B.weight", &b)],
    );
    let base = Checkpoint::open(temp.path().join("base.safetensors")).unwrap();
    let adapter = AdapterFolder::open(temp.path().join("a")).unwrap();
    let lambda = case.number("mitigation_lambda").unwrap();
    let (set, counts) = scale_intruders(&adapter, &base, k, epsilon, lambda).unwrap();
    assert_eq!(json!(counts[0].1), *case.value("count"));
    let pair = &set.modules[0].1;
    assert!(case.check("mitigated_delta_weight", &pair.b.times(&pair.a).to_f32()));
    Ok(Vec::new())
}

pub(crate) fn poly(case: &Case) -> Outcome {
    let (w, bias, x) = (
        case.input("weight").unwrap(),
        case.input("bias").unwrap(),
        case.input("x").unwrap(),
    );
    let number = |key: &str| case.number(key).unwrap() as usize;
    let (rank, skills, splits) = (number("r"), number("n_skills"), number("n_splits"));
    let mttl = case.method == "poly.mttl";
    let (a, b) = if mttl {
        (case.input("lora_a").unwrap(), case.input("lora_b").unwrap())
    } else {
        (
            case.input("poly_lora_A").unwrap(),
            case.input("poly_lora_B").unwrap(),
        )
    };
    let layer = Skills {
        a: &a.values,
        b: &b.values,
        splits,
        skills,
        rank,
        layout: if mttl {
            SkillLayout::Mttl
        } else {
            SkillLayout::Peft
        },
    };
    let scaling = if mttl {
        case.number("lora_alpha").unwrap() / rank as f64
    } else {
        1.0 / rank as f64
    };
    let per = splits * skills;
    let mut weights: Vec<Vec<f64>> = Vec::new();
    let mut tasks = Vec::new();
    if mttl {
        for row in case.input("weights").unwrap().values.chunks(per) {
            weights.push(row.iter().map(|&v| f64::from(v)).collect());
        }
    } else {
        let logits = case.input("module_logits").unwrap();
        for id in case.input("task_ids").unwrap().values {
            let row = &logits.values[id as usize * per..][..per];
            weights.push(mixing_weights(row, skills, 1e-12));
            tasks.push(id as usize);
        }
        let flat: Vec<f32> = weights.iter().flatten().map(|&v| v as f32).collect();
        case.check("mixing_weights", &flat);
    }
    let (inputs, each) = (w.shape[1], x.values.len() / weights.len());
    let output = |pair: &Pair, scaling: f64, x: &[f32]| {
        let mut merged = matrix(&w);
        merged.add(scaling, &pair.b.times(&pair.a));
        linear(x, &merged.to_f32(), Some(&bias.values), inputs)
    };
    let mut y = Vec::new();
    for (weights, x) in weights.iter().zip(x.values.chunks(each)) {
        let pair = if case.params["merge_after"] == json!(true) {
            layer.mixed_after(weights).unwrap()
        } else {
            layer.mixed(weights).unwrap()
        };
        y.extend(output(&pair, scaling, x));
    }
    assert!(case.check("y", &y));
    if mttl {
        return Ok(Vec::new());
    }
    // The same through a Poly folder, exported per task.
    let temp = tempfile::tempdir().unwrap();
    let logits = case.input("module_logits").unwrap();
    write_folder(
        &temp.path().join("poly"),
        &json!({"peft_type": "POLY", "r": rank, "n_tasks": number("n_tasks"),
                "n_skills": skills, "n_splits": splits, "target_modules": ["m"]}),
        &[
            ("m.poly_lora_A", &a),
            ("m.poly_lora_B", &b),
            ("m.poly_router.module_logits", &logits),
        ],
    );
    let folder = AdapterFolder::open(temp.path().join("poly")).unwrap();
    let mut y = Vec::new();
    for (&task, x) in tasks.iter().zip(x.values.chunks(each)) {
        let set = poly_to_lora(&folder, PolyTask::Task(task)).unwrap();
        let out = temp.path().join(format!("lora{}", y.len()));
        set.write(&out, "", Default::default()).unwrap();
        let factors = AdapterFolder::open(&out).unwrap().factors("m").unwrap();
        y.extend(output(&Pair::from_factors(&factors), factors.scaling, x));
    }
    assert!(case.check("y", &y));
    Ok(Vec::new())
}

pub(crate) fn smora(case: &Case) -> Outcome {
    let (w, x) = (case.input("weight").unwrap(), case.input("x").unwrap());
    let pair = Pair {
        a: matrix(&case.input("lora_A").unwrap()),
        b: matrix(&case.input("lora_B").unwrap()),
        kind: LayerKind::Linear,
    };
    let mask: Vec<f64> = case
        .input("mask")
        .unwrap()
        .values
        .iter()
        .map(|&v| f64::from(v))
        .collect();
    let plain = smora_fixed_mask(&pair, &mask, case.number("scaling").unwrap()).unwrap();
    assert_eq!(plain.rank(), mask.iter().filter(|m| **m != 0.0).count());
    let mut merged = matrix(&w);
    merged.add(1.0, &plain.b.times(&plain.a));
    let merged = merged.to_f32();
    assert!(case.check("merged_weight", &merged));
    assert!(case.check("y", &linear(&x.values, &merged, None, w.shape[1])));
    Ok(Vec::new())
}
