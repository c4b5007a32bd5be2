//! The vectors of golden/routing: every vendored case is computed, the others are named.

#![allow(clippy::print_stdout, reason = "tests say what they leave out")]

use std::path::{Path, PathBuf};

use polyloom_core::{Checkpoint, DType};
use polyloom_learn::models::fusion::{Fusion, Search};
use polyloom_learn::route::predicted::{choose, front};
use polyloom_learn::route::skills::{self, Profiles};
use polyloom_learn::route::win_rate::{self, Factorised, Outcome};
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

fn thresholds(case: &Case) {
    let rates = case.f64s("in.win_rates");
    let shares = case.param("strong_model_pct").as_array().unwrap();
    let found: Vec<f64> = shares
        .iter()
        .map(|p| win_rate::threshold(&rates, p.as_f64().unwrap()).unwrap())
        .collect();
    case.near("thresholds", &found);
    let new = case.f64s("in.new_win_rates");
    let strong = found
        .iter()
        .flat_map(|t| new.iter().map(move |w| f64::from(u8::from(w >= t))));
    case.near("routes_strong", &strong.collect::<Vec<_>>());
}

fn factorised(case: &Case) {
    let id = |key: &str| case.param(key).as_u64().unwrap() as usize;
    let made = Factorised {
        models: case.points("in.P"),
        projection: case.points("in.text_proj"),
        classifier: case.f32s("in.classifier"),
    };
    let prompts = case.points("in.prompt_embeddings");
    let found = made.win_rates(&prompts, id("strong_id"), id("weak_id"));
    case.near("win_rate", &found.unwrap());
}

fn ratings(case: &Case) {
    let (a, b) = (case.f64s("in.model_a"), case.f64s("in.model_b"));
    let outcome = case.f64s("in.winner").into_iter().map(|w| match w as i64 {
        2 => Outcome::First,
        0 => Outcome::Second,
        _ => Outcome::Tie,
    });
    let battles: Vec<(usize, usize, Outcome)> = outcome
        .enumerate()
        .map(|(i, o)| (a[i] as usize, b[i] as usize, o))
        .collect();
    let ones = vec![1.0; battles.len()];
    for (key, weights) in [("elo", ones), ("elo_weighted", case.f64s("in.weights"))] {
        let found = win_rate::ratings(4, &battles, &weights).unwrap();
        // Up to a constant: moved to the mean of the expected ones.
        let expected = case.f64s(&format!("out.{key}"));
        let mean = |x: &[f64]| x.iter().sum::<f64>() / x.len() as f64;
        let shift = mean(&expected) - mean(&found);
        let moved: Vec<f64> = found.iter().map(|r| r + shift).collect();
        case.near(key, &moved);
    }
}

fn tiers(case: &Case) {
    let count = case.param("num_tiers").as_u64().unwrap() as usize;
    let found = win_rate::tiers(&case.f64s("in.ratings"), count).unwrap();
    case.near("tier", &found.iter().map(|t| *t as f64).collect::<Vec<_>>());
}

fn weighting(case: &Case) {
    let found = win_rate::weighting(&case.f64s("in.similarities"));
    case.near("weights", &found.unwrap());
}

fn tryage(case: &Case) {
    let losses = case.f32s("in.predicted_loss");
    let constraints = [case.f64s("in.size"), case.f64s("in.recency")];
    let models = constraints[0].len();
    let (mut objectives, mut choices) = (Vec::new(), Vec::new());
    for lambdas in case.param("lambdas").as_array().unwrap() {
        let costs: Vec<f64> = (0..models)
            .map(|m| {
                let one = |(i, c): (usize, &Vec<f64>)| lambdas[i].as_f64().unwrap() * c[m];
                constraints.iter().enumerate().map(one).sum()
            })
            .collect();
        let (objective, chosen) = choose(&losses, models, &costs, &vec![true; models]);
        objectives.extend(objective);
        choices.extend(chosen.into_iter().map(|c| c.unwrap() as f64));
    }
    case.near("objective", &objectives);
    case.near("choice", &choices);
    let fronts = &case.told["expected"]["pareto_size_vs_loss"]["value"];
    for (row, expected) in losses.chunks(models).zip(fronts.as_array().unwrap()) {
        assert_eq!(serde_json::json!(front(row, &constraints[0])), *expected);
    }
}

fn recruit(case: &Case) {
    let text = case.param("profiles").to_string();
    let profiles = Profiles {
        schema: skills::SCHEMA.to_owned(),
        models: serde_json::from_str(&text).unwrap(),
    };
    let temperature = case.param("temperature").as_f64().unwrap();
    let names: Vec<&String> = profiles.models.keys().collect();
    let expected = &case.told["expected"];
    let close = |a: f64, b: &Json| assert!((a - b.as_f64().unwrap()).abs() < 1e-9, "{a} {b}");
    for (name, found) in names.iter().zip(profiles.strength(temperature)) {
        close(found, &expected["global_strength"]["value"][name.as_str()]);
    }
    for query in expected["queries"]["value"].as_array().unwrap() {
        let words: Vec<String> = serde_json::from_value(query["keywords"].clone()).unwrap();
        let found = profiles.candidates(&words, temperature);
        assert_eq!(found.len(), query["local_score"].as_object().unwrap().len());
        for candidate in found {
            let name = names[candidate.model].as_str();
            assert_eq!(
                candidate.local,
                query["local_score"][name].as_i64().unwrap()
            );
            match &query["probability"][name] {
                Json::Null => assert_eq!(candidate.probability, 0.0),
                expected => close(candidate.probability, expected),
            }
        }
    }
}

fn fused(case: &Case) {
    let (shape, large) = case.tensor("in.large");
    let width = shape[1];
    let base = case.f64s("in.small_base");
    let single = case.told["method"] == "logits_fusion.single";
    let experts: Vec<Vec<f64>> = match single {
        true => vec![case.f64s("in.small_expert")],
        false => (0..)
            .map(|t| format!("in.small_expert.{t}"))
            .take_while(|k| !case.told["inputs"][&k[3..]].is_null())
            .map(|k| case.f64s(&k))
            .collect(),
    };
    let grid = case.param("grid").as_array().unwrap();
    let fusion = Fusion {
        grid: grid.iter().map(|a| a.as_f64().unwrap()).collect(),
        search: match case.told["canonical"]["params"]["mode"].as_str().unwrap() {
            "one_active" => Search::OneActive,
            _ => Search::FullGrid,
        },
    };
    let (mut weights, mut objective, mut logits, mut next) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for row in 0..shape[0] {
        let of = |x: &[f64]| x[row * width..(row + 1) * width].to_vec();
        let own: Vec<Vec<f64>> = experts.iter().map(|e| of(e)).collect();
        let refs: Vec<&[f64]> = own.iter().map(Vec::as_slice).collect();
        let found = fusion.step(&of(&large), &of(&base), &refs).unwrap();
        match single {
            true => objective.extend(fusion.objectives(&of(&large), &of(&base), refs[0]).unwrap()),
            false => objective.push(found.objective),
        }
        let top = (0..width).fold(0, |b, i| {
            if found.logits[i] > found.logits[b] {
                i
            } else {
                b
            }
        });
        next.push(top as f64);
        weights.extend(found.weights);
        logits.extend(found.logits);
    }
    case.near("alpha", &weights);
    case.near("objective", &objective);
    for (key, found) in [("fused_logits", &logits), ("next_token", &next)] {
        if !case.told["expected"][key].is_null() {
            case.near(key, found);
        }
    }
}

#[test]
fn golden_routing() {
    let root: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/routing");
    let text = std::fs::read_to_string(root.join("manifest.json")).unwrap();
    let manifest: Json = serde_json::from_str(&text).unwrap();
    let mut ran = 0;
    for told in manifest["cases"].as_array().unwrap() {
        let file = told["file"].as_str();
        let case = Case {
            told: told.clone(),
            file: file.map(|f| Checkpoint::open(root.join(f)).unwrap()),
        };
        let solve: fn(&Case) = match told["method"].as_str().unwrap() {
            "twin_merging.router" => mlp,
            "twin_merging.exclusive" => super::weave::twin,
            "route.centroid" => centroid,
            "router_retriever.route" => pilots,
            "routellm.calibrate" => thresholds,
            "routellm.matrix_factorization" => factorised,
            "routellm.similarity_weighted" => ratings,
            "routellm.tiers" => tiers,
            "routellm.weighting" => weighting,
            "tryage.route" => tryage,
            "symbolic_moe.recruit" => recruit,
            "logits_fusion.single" | "logits_fusion.multi" => fused,
            other => panic!("no one solves {other}"),
        };
        solve(&case);
        ran += 1;
    }
    assert_eq!(ran, 17);
    // What is left out belongs to other parts (serving, continual learning, adapters, merges) or is not built.
    let left: Vec<&str> = manifest["left_out"]
        .as_array()
        .unwrap()
        .iter()
        .map(|n| n.as_str().unwrap())
        .collect();
    println!("not here: {}", left.join(", "));
}
