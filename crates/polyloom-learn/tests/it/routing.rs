//! The vectors of golden/routing: every case is computed, or named as one that is not built.

use std::path::{Path, PathBuf};

use polyloom_core::{Checkpoint, DType};
use polyloom_learn::route::{
    Centroid, Decision, Expert, Hidden, Mlp, Pilots, Points, Reads, Reduce, Router, Rule,
    Similarity, Tap,
};
use serde_json::Value as Json;

/// A case with its tensors.
pub struct Case {
    pub told: Json,
    file: Option<Checkpoint>,
}

impl Case {
    pub fn name(&self) -> &str {
        self.told["name"].as_str().unwrap()
    }

    pub fn param(&self, name: &str) -> &Json {
        &self.told["params"][name]
    }

    /// A tensor as `f64` (its own numbers, of whatever type) with its shape.
    pub fn tensor(&self, key: &str) -> (Vec<usize>, Vec<f64>) {
        let file = self.file.as_ref().unwrap();
        let stored = file.get(key).unwrap_or_else(|| panic!("no {key}"));
        let n = stored.elements();
        let mut bytes = vec![0u8; stored.dtype.bytes_of(n).unwrap() as usize];
        let range = 0..bytes.len() as u64;
        file.read_bytes(stored, range, &mut bytes).unwrap();
        let values = match stored.dtype {
            DType::F64 => bytes
                .chunks(8)
                .map(|b| f64::from_le_bytes(b.try_into().unwrap()))
                .collect(),
            DType::F32 => bytes
                .chunks(4)
                .map(|b| f64::from(f32::from_le_bytes(b.try_into().unwrap())))
                .collect(),
            DType::I64 => bytes
                .chunks(8)
                .map(|b| i64::from_le_bytes(b.try_into().unwrap()) as f64)
                .collect(),
            DType::Bool => bytes.iter().map(|b| f64::from(*b)).collect(),
            other => panic!("{key} is of {other}"),
        };
        (stored.shape.clone(), values)
    }

    pub fn f64s(&self, key: &str) -> Vec<f64> {
        self.tensor(key).1
    }

    pub fn f32s(&self, key: &str) -> Vec<f32> {
        self.f64s(key).into_iter().map(|x| x as f32).collect()
    }

    pub fn points(&self, key: &str) -> Points {
        let (shape, _) = self.tensor(key);
        Points::new(self.f32s(key), shape[1]).unwrap()
    }

    pub fn words(&self, key: &str) -> Vec<String> {
        let list = self.told["expected"][key]["value"].as_array().unwrap();
        list.iter()
            .map(|w| w.as_str().unwrap().to_owned())
            .collect()
    }

    /// Compares numbers with `out.<key>` within the case's tolerance (`shift`: up to one constant).
    pub fn near(&self, key: &str, found: &[f64]) {
        let expected = self.f64s(&format!("out.{key}"));
        assert_eq!(found.len(), expected.len(), "{}: {key}", self.name());
        let tolerance = |what: &str| self.told["tolerance"][what].as_f64().unwrap();
        let exact = self.told["expected"][key]["compare"] == "exact";
        for (i, (a, b)) in found.iter().zip(&expected).enumerate() {
            let most = match exact {
                true => 0.0,
                false => tolerance("atol") + tolerance("rtol") * b.abs(),
            };
            let name = self.name();
            assert!(
                (a - b).abs() <= most,
                "{name}: {key}[{i}] is {a}, expected {b}"
            );
        }
    }
}

fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().map(|x| f64::from(*x)).collect()
}

fn router(rule: Rule, experts: usize) -> Router {
    let expert = |i: usize| Expert {
        name: format!("e{i}"),
        path: None,
        task: None,
    };
    Router {
        experts: (0..experts).map(expert).collect(),
        tap: "mean".parse::<Tap>().unwrap(),
        reads: Reads::default(),
        rule,
        fitted: serde_json::Map::new(),
    }
}

fn flat(all: &[Decision]) -> Vec<f64> {
    all.iter().flat_map(|d| wide(&d.weights)).collect()
}

fn mlp(case: &Case) {
    let hidden = |fc: &str, bn: &str| Hidden {
        weight: case.points(&format!("in.{fc}.weight")),
        bias: case.f32s(&format!("in.{fc}.bias")),
        gain: case.f32s(&format!("in.{bn}.weight")),
        shift: case.f32s(&format!("in.{bn}.bias")),
        mean: case.f32s(&format!("in.{bn}.running_mean")),
        variance: case.f32s(&format!("in.{bn}.running_var")),
    };
    let made = Mlp {
        hidden: [hidden("fc1", "bn1"), hidden("fc3", "bn3")],
        weight: case.points("in.fc4.weight"),
        bias: case.f32s("in.fc4.bias"),
        slope: case.param("leaky_relu_slope").as_f64().unwrap() as f32,
        eps: case.param("bn_eps").as_f64().unwrap() as f32,
    };
    let x = case.points("in.x");
    case.near("logits", &wide(&made.scores(&x)));
    let router = router(Rule::Mlp(Box::new(made)), 3);
    case.near("weights", &flat(&router.decide_all(&x).unwrap()));
}

fn centroid(case: &Case) {
    let vectors = case.points("in.expert_vectors");
    let made = Centroid {
        temperature: case.param("temperature").as_f64().unwrap() as f32,
        min_similarity: Some(case.param("min_similarity").as_f64().unwrap() as f32),
        vectors,
    };
    let x = case.points("in.hidden");
    case.near("cosine", &wide(&made.similarities(&x)));
    // Probabilities and the two nearest are given without the threshold.
    let free = Centroid {
        min_similarity: None,
        ..made.clone()
    };
    let free = router(Rule::Centroid(free), 5).decide_all(&x).unwrap();
    case.near("probabilities", &flat(&free));
    let two: Vec<f64> = free
        .iter()
        .flat_map(|d| d.top(2))
        .map(|i| i as f64)
        .collect();
    case.near("top2", &two);
    let bound = router(Rule::Centroid(made), 5).decide_all(&x).unwrap();
    let choice = bound.iter().map(|d| d.expert.map_or(-1.0, |i| i as f64));
    case.near("choice", &choice.collect::<Vec<_>>());
    assert!(
        bound
            .iter()
            .any(|d| d.expert.is_none() && d.top(2).is_empty())
    );
}

fn pilots(case: &Case) {
    let strings = |key: &str| -> Vec<String> {
        let list = case.param(key).as_array().unwrap();
        list.iter()
            .map(|w| w.as_str().unwrap().to_owned())
            .collect()
    };
    let (experts, datasets) = (strings("experts"), strings("datasets_of_training_queries"));
    let queries = case.points("in.train_query_embeddings");
    let scores = case.f32s("in.train_scores");
    let k = case.param("k").as_u64().unwrap() as usize;
    let made = Pilots::empty(queries.width)
        .of_scores(&queries, &datasets, &scores, experts.len(), k)
        .unwrap();
    let owners: Vec<String> = made
        .pilots
        .iter()
        .map(|p| experts[p.owner].clone())
        .collect();
    let sources: Vec<String> = made.pilots.iter().map(|p| p.source.clone()).collect();
    assert_eq!(owners, case.words("pilot_owner"));
    assert_eq!(sources, case.words("pilot_source_dataset"));
    case.near("pilot_embeddings", &wide(&made.vectors.values));
    let x = case.points("in.test_query_embeddings");
    case.near("similarity_dot", &wide(&made.similarities(&x)));
    for (key, reduce, similarity) in [
        ("choice_max_dot", Reduce::Max, Similarity::Dot),
        ("choice_mean_dot", Reduce::Mean, Similarity::Dot),
        ("choice_max_cosine", Reduce::Max, Similarity::Cosine),
    ] {
        let rule = Rule::Pilots(Pilots {
            reduce,
            similarity,
            ..made.clone()
        });
        let found = router(rule, experts.len()).decide_all(&x).unwrap();
        let chosen: Vec<String> = found
            .iter()
            .map(|d| experts[d.expert.unwrap()].clone())
            .collect();
        assert_eq!(chosen, case.words(key), "{key}");
    }
}

/// Cases whose method is not there yet.
const NOT_BUILT: [&str; 10] = [
    "logits_fusion_single",
    "logits_fusion_multi_one_active",
    "logits_fusion_multi_full_grid",
    "routellm_threshold",
    "routellm_mf",
    "routellm_elo",
    "routellm_tiers",
    "routellm_weighting",
    "tryage",
    "symbolic_moe_recruit",
];

#[test]
fn golden_routing() {
    let root: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/routing");
    let text = std::fs::read_to_string(root.join("manifest.json")).unwrap();
    let manifest: Json = serde_json::from_str(&text).unwrap();
    let (mut ran, mut missing) = (0, Vec::new());
    for told in manifest["cases"].as_array().unwrap() {
        let file = told["file"].as_str();
        let case = Case {
            told: told.clone(),
            file: file.map(|f| Checkpoint::open(root.join(f)).unwrap()),
        };
        let solve: fn(&Case) = match told["method"].as_str().unwrap() {
            "twin_merging.router" => mlp,
            "route.centroid" => centroid,
            "router_retriever.route" => pilots,
            _ => {
                missing.push(case.name().to_owned());
                continue;
            }
        };
        solve(&case);
        ran += 1;
    }
    assert_eq!((ran, missing), (3, NOT_BUILT.map(str::to_owned).to_vec()));
}
