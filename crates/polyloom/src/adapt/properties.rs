//! Laws that hold for any adapter, on random small ones.

use std::sync::Arc;

use polyloom_core::checkpoint::Scratch;
use polyloom_core::linalg::Matrix;
use polyloom_core::peft::{AdapterFolder, Folded, LayerKind, Names};
use polyloom_core::rng::Stream;
use polyloom_core::writer::{FolderOptions, OutTensor, safetensors_bytes};
use polyloom_core::{Checkpoint, DType, dtype};
use proptest::prelude::*;
use serde_json::json;

use super::*;

const OUT: usize = 6;
const IN: usize = 5;

fn random(rows: usize, cols: usize, seed: u64, name: &str) -> Matrix {
    let stream = Stream::new(seed, name, 0);
    let values: Vec<f32> = (0..rows * cols).map(|i| stream.normal(i as u64)).collect();
    Matrix::from_f32(rows, cols, &values)
}

fn pair(rank: usize, seed: u64) -> Pair {
    Pair {
        a: random(rank, IN, seed, "a"),
        b: random(OUT, rank, seed, "b"),
        kind: LayerKind::Linear,
    }
}

/// An adapter folder with the given modules, written and opened again.
fn folder(
    path: &std::path::Path,
    modules: &[(&str, usize, u64)],
    extra: &serde_json::Value,
) -> AdapterFolder {
    let list = modules
        .iter()
        .map(|(name, rank, seed)| ((*name).to_owned(), pair(*rank, *seed), DType::F32))
        .collect();
    let targets = Names::List(modules.iter().map(|m| m.0.to_owned()).collect());
    let mut set = AdapterSet::unscaled(&serde_json::Map::new(), &targets, modules[0].1, list);
    for (key, value) in extra.as_object().unwrap() {
        set.config.insert(key.clone(), value.clone());
    }
    set.write(
        path,
        "",
        FolderOptions {
            no_sync: true,
            ..FolderOptions::default()
        },
    )
    .unwrap();
    AdapterFolder::open(path).unwrap()
}

fn delta(pair: &Pair) -> Matrix {
    pair.b.times(&pair.a)
}

fn distance(mut a: Matrix, b: &Matrix) -> f64 {
    a.add(-1.0, b);
    a.norm()
}

fn shares(ranks: &[usize], weights: &[f64], seed: u64) -> Vec<Share> {
    ranks
        .iter()
        .zip(weights)
        .enumerate()
        .map(|(i, (&rank, &weight))| Share {
            adapter: i,
            pair: pair(rank, seed + i as u64),
            scaling: 0.5 + i as f64,
            weight,
        })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// `cat`, and `svd` at full rank, are the weighted sum of deltas; `svd` at a lower rank is off by the error it says.
    #[test]
    fn cat_and_full_svd_are_the_weighted_sum(
        ranks in proptest::collection::vec(1usize..5, 1..4),
        seed in 0u64..1000,
        rank in 1usize..6,
    ) {
        let weights: Vec<f64> = (0..ranks.len()).map(|i| 0.7 - 0.6 * i as f64).collect();
        let shares = shares(&ranks, &weights, seed);
        let mut sum = Matrix::zeros(OUT, IN);
        for s in &shares {
            sum.add(s.weight * s.scaling, &delta(&s.pair));
        }
        let with = |combination, rank| {
            let options = CombineOptions::new(combination, weights.clone());
            combine_factors("m", &shares, &options, rank, Masks::Seed(0)).unwrap()
        };
        let (cat, _) = with(Combination::Cat, 0);
        prop_assert!(distance(delta(&cat), &sum) < 1e-9);
        let (full, _) = with(Combination::Svd, OUT);
        prop_assert!(distance(delta(&full), &sum) < 1e-9);
        let (cut, error) = with(Combination::Svd, rank);
        let off = distance(delta(&cut), &sum) / sum.norm();
        prop_assert!((off - error.unwrap()).abs() < 1e-6, "{off} {error:?}");
    }

    /// Density 1 prunes nothing: the sparse types are then their dense ones.
    #[test]
    fn density_one_is_linear(seed in 0u64..1000) {
        let shares = shares(&[3, 3], &[0.4, -0.9], seed);
        let run = |combination, density| {
            let mut options = CombineOptions::new(combination, vec![0.4, -0.9]);
            options.density = density;
            delta(&combine_factors("m", &shares, &options, 3, Masks::Seed(1)).unwrap().0)
        };
        let linear = run(Combination::Linear, None);
        prop_assert!(distance(run(Combination::MagnitudePrune, Some(1.0)), &linear) < 1e-12);
        prop_assert!(distance(run(Combination::DareLinear, Some(1.0)), &linear) < 1e-12);
    }

    /// A folded tensor is base plus scaling times B A, however the reads are cut.
    #[test]
    fn folding_adds_the_product(rank in 1usize..4, seed in 0u64..1000, step in 1usize..31) {
        let temp = tempfile::tempdir().unwrap();
        let extra = json!({"lora_alpha": 3, "use_rslora": true});
        let adapter = folder(&temp.path().join("a"), &[("m", rank, seed)], &extra);
        let base = random(OUT, IN, seed, "base");
        let mut bytes = vec![0; OUT * IN * 4];
        dtype::narrow(&base.to_f32(), DType::F32, &mut bytes);
        let out = OutTensor { name: "m.weight".into(), dtype: DType::F32, shape: vec![OUT, IN] };
        let path = temp.path().join("base.safetensors");
        std::fs::write(&path, safetensors_bytes(&[(out, bytes)], &Default::default())).unwrap();
        let folded = Folded::open(Arc::new(Checkpoint::open(&path).unwrap()), adapter).unwrap();
        let mut wanted = base;
        wanted.add(3.0 / (rank as f64).sqrt(), &delta(&pair(rank, seed)));
        let mut got = [0.0; OUT * IN];
        for (i, chunk) in got.chunks_mut(step).enumerate() {
            let range = i * step..i * step + chunk.len();
            folded.read_f32("m.weight", range, chunk, &mut Scratch::default()).unwrap();
        }
        for (x, y) in got.iter().zip(&wanted.data) {
            prop_assert!((f64::from(*x) - y).abs() < 1e-5);
        }
    }
}

#[test]
fn thirty_adapters_combine_to_the_same_bytes_on_any_number_of_threads() {
    let temp = tempfile::tempdir().unwrap();
    let adapters: Vec<AdapterFolder> = (0..30)
        .map(|i| {
            // Every other adapter lacks one module.
            let modules = [("x.q", 2, i), ("x.v", 2, i + 100)];
            let n = if i % 2 == 0 { 2 } else { 1 };
            folder(
                &temp.path().join(i.to_string()),
                &modules[..n as usize],
                &json!({}),
            )
        })
        .collect();
    for (combination, density) in [
        (Combination::DareTies, Some(0.5)),
        (Combination::DareLinearSvd, Some(0.5)),
        (Combination::Cat, None),
    ] {
        let mut options = CombineOptions::new(combination, vec![1.0 / 30.0; 30]);
        options.density = density;
        options.seed = 9;
        let run = |threads| {
            let pool = rayon::ThreadPoolBuilder::new()
                .num_threads(threads)
                .build()
                .unwrap();
            pool.install(|| combine(&adapters, &options).unwrap().tensors())
        };
        let (one, four) = (run(1), run(4));
        assert_eq!(one.len(), 4);
        assert_eq!(one, four, "{combination:?}");
    }
    // Cat leaves zero rows where adapters lack the module, as PEFT does.
    let cat = combine(
        &adapters,
        &CombineOptions::new(Combination::Cat, vec![1.0; 30]),
    )
    .unwrap();
    assert!(cat.modules.iter().all(|m| m.1.rank() == 60));
}

#[test]
fn dare_keeps_its_density_and_its_mean() {
    let shares = shares(&[5], &[1.0], 3);
    let mut options = CombineOptions::new(Combination::DareLinear, vec![1.0]);
    options.density = Some(0.25);
    let (mut kept, mut sum, mut all) = (0usize, 0.0, 0usize);
    for seed in 0..400 {
        let (pair, _) = combine_factors("m", &shares, &options, 5, Masks::Seed(seed)).unwrap();
        kept += pair.a.data.iter().filter(|v| **v != 0.0).count();
        all += pair.a.data.len();
        sum += pair.a.data[0];
    }
    let share = kept as f64 / all as f64;
    assert!((share - 0.25).abs() < 0.02, "{share}");
    let dense = shares[0].pair.a.data[0] * (shares[0].scaling).sqrt();
    assert!(
        (sum / 400.0 - dense).abs() < 0.35 * dense.abs(),
        "{sum} {dense}"
    );
}

#[test]
fn a_new_rank_and_plain_scaling_keep_what_they_can() {
    let temp = tempfile::tempdir().unwrap();
    let extra = json!({"lora_alpha": 7, "use_rslora": true});
    let adapter = folder(&temp.path().join("a"), &[("m", 3, 1)], &extra);
    let mut wanted = Matrix::zeros(OUT, IN);
    wanted.add(7.0 / 3f64.sqrt(), &delta(&pair(3, 1)));
    let plain = to_plain_lora(&adapter, None).unwrap();
    assert!(distance(delta(&plain.modules[0].1), &wanted) < 1e-9);
    assert_eq!(
        (&plain.config["r"], &plain.config["lora_alpha"]),
        (&json!(3), &json!(3))
    );
    assert_eq!(plain.config["use_rslora"], json!(false));
    let wide = resize(&adapter, 4).unwrap();
    let (wide, factors) = (&wide.modules[0].1, pair(3, 1));
    assert_eq!(wide.b.data[..3], factors.b.data[..3], "the factors stay");
    assert_eq!((wide.rank(), wide.b.data[3]), (4, 0.0));
    let wide = resize(&adapter, 100).unwrap();
    assert_eq!(wide.modules[0].1.rank(), IN);
    assert!(distance(delta(&wide.modules[0].1), &wanted) < 1e-9);
    let narrow = resize(&adapter, 2).unwrap();
    let off = distance(delta(&narrow.modules[0].1), &wanted) / wanted.norm();
    assert!((off - narrow.report[0].relative_error.unwrap()).abs() < 1e-9 && off > 0.0);
}

#[test]
fn a_changed_base_is_unfolded_into_twice_the_rank() {
    for init in ["pissa", "olora"] {
        let temp = tempfile::tempdir().unwrap();
        let extra = json!({"init_lora_weights": init, "lora_alpha": 4});
        let adapter = folder(&temp.path().join("a"), &[("m", 2, 5)], &extra);
        let mut bytes = vec![0; OUT * IN * 4];
        let weight = random(OUT, IN, 8, "w");
        dtype::narrow(&weight.to_f32(), DType::F32, &mut bytes);
        let out = OutTensor {
            name: "m.weight".into(),
            dtype: DType::F32,
            shape: vec![OUT, IN],
        };
        let path = temp.path().join("base.safetensors");
        std::fs::write(
            &path,
            safetensors_bytes(&[(out, bytes)], &Default::default()),
        )
        .unwrap();
        let base = Arc::new(Checkpoint::open(&path).unwrap());
        assert!(
            combine(
                std::slice::from_ref(&adapter),
                &CombineOptions::new(Combination::Linear, vec![1.0])
            )
            .is_err()
        );
        assert!(to_plain_lora(&adapter, None).is_err());
        let plain = to_plain_lora(&adapter, Some(&base)).unwrap();
        let plain_path = temp.path().join("plain");
        plain
            .write(&plain_path, "", FolderOptions::default())
            .unwrap();
        let plain = AdapterFolder::open(&plain_path).unwrap();
        assert_eq!(plain.config.rank, 4);
        let read = |adapter| {
            let folded = Folded::open(base.clone(), adapter).unwrap();
            let mut out = vec![0.0; OUT * IN];
            folded
                .read_f32("m.weight", 0..OUT * IN, &mut out, &mut Scratch::default())
                .unwrap();
            out
        };
        for (x, y) in read(adapter).iter().zip(&read(plain)) {
            assert!((x - y).abs() < 1e-4, "{init}: {x} {y}");
        }
    }
}

#[test]
fn sizes_in_a_configuration_are_held_against_the_file() {
    let temp = tempfile::tempdir().unwrap();
    let huge = json!({"r": 1u64 << 60, "lora_alpha": 1});
    let lora = folder(&temp.path().join("a"), &[("m", 2, 1)], &huge);
    assert!(
        lora.warnings[0].contains("the file is used"),
        "{:?}",
        lora.warnings
    );
    let set = combine(&[lora], &CombineOptions::new(Combination::Cat, vec![1.0])).unwrap();
    assert_eq!(set.config["r"], json!(2));
    let file = temp.path().join("a/adapter_model.safetensors");
    let zeros = |shape: Vec<usize>, name: &str| {
        let n: usize = shape.iter().product();
        let name = format!("base_model.model.m.{name}");
        (
            OutTensor {
                name,
                dtype: DType::F32,
                shape,
            },
            vec![0; 4 * n],
        )
    };
    let tensors = [
        zeros(vec![1, 2, 4, 3], "poly_lora_A"),
        zeros(vec![1, 2, 3, 4], "poly_lora_B"),
        zeros(vec![5, 2], "poly_router.module_logits"),
    ];
    std::fs::write(&file, safetensors_bytes(&tensors, &Default::default())).unwrap();
    for (skills, tasks, works) in [(2u64, 5u64, true), (1 << 62, 5, false), (2, 1 << 62, false)] {
        let config = json!({"peft_type": "POLY", "r": 3, "n_tasks": tasks, "n_skills": skills, "n_splits": 1});
        std::fs::write(
            temp.path().join("a/adapter_config.json"),
            config.to_string(),
        )
        .unwrap();
        let poly = AdapterFolder::open(temp.path().join("a")).unwrap();
        let last = PolyTask::Task(tasks as usize - 1);
        assert_eq!(poly_to_lora(&poly, last).is_ok(), works);
    }
}
