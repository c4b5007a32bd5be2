//! Glue of the families on strengths and abilities.

use polyloom::evaluate::EvalError;
use polyloom::evaluate::aggregate::comparisons::Comparisons;
use polyloom::evaluate::aggregate::elo::Elo;
use polyloom::evaluate::aggregate::irt::{Item, Items, Marginal, Model};
use polyloom::evaluate::aggregate::pairwise::{Estimator, fit};
use polyloom::evaluate::aggregate::{ScoreMatrix, TaskColumn};
use serde_json::{Map, Value, json};

use super::aggregate::{floats, numbers, object, rows, table};
use super::{Case, Outcome, float, number};

pub fn pairwise_ranking(case: &Case) -> Outcome {
    let input = &case.input;
    let n = input["n"].as_u64().unwrap_or_default() as usize;
    let alpha = float(&input["alpha"]).unwrap_or_default();
    let list = |key: &str| input[key].clone();
    let data = match input["kind"].as_str().unwrap() {
        "bt" => {
            let pairs: Vec<(usize, usize)> = serde_json::from_value(list("pairs")).unwrap();
            Comparisons::of_pairs(n, &pairs).unwrap()
        }
        "plackett_luce" => {
            let rankings: Vec<Vec<usize>> = serde_json::from_value(list("rankings")).unwrap();
            Comparisons::of_rankings(n, &rankings).unwrap()
        }
        "top1" => {
            let choices: Vec<(usize, Vec<usize>)> =
                serde_json::from_value(list("choices")).unwrap();
            let mut data = Comparisons::new(n).unwrap();
            for (winner, losers) in choices {
                data.add_choice(winner, &losers, 1.0).unwrap();
            }
            data
        }
        "measurements" => {
            let scores = rows(&input["scores"]);
            let systems = (0..scores.len()).map(|s| s.to_string()).collect();
            let tasks = (0..scores[0].len()).map(|t| TaskColumn::new(t.to_string()));
            let m = ScoreMatrix::new(systems, tasks.collect(), scores.concat()).unwrap();
            Comparisons::of_matrix(&m)
        }
        "elo" => return Outcome::Values(elo(input, n)),
        kind => panic!("{kind}"),
    };
    Outcome::Values(fits(input["kind"].as_str().unwrap(), &data, alpha))
}

fn fits(kind: &str, data: &Comparisons, alpha: f64) -> Map<String, Value> {
    let name = match kind {
        "plackett_luce" => "rankings",
        "top1" => "top1",
        _ => "pairwise",
    };
    let mut found = Map::new();
    let estimators = [
        ("ilsr", Estimator::Ilsr),
        ("mm", Estimator::Mm),
        ("opt", Estimator::Ridge),
    ];
    for (prefix, estimator) in estimators {
        match fit(data, estimator, alpha) {
            // The vectors of "measurements" have no mm.
            Ok(_) if kind == "measurements" && prefix == "mm" => {}
            Ok(strengths) => {
                if (kind, prefix) == ("bt", "opt") {
                    let likelihood = number(strengths.log_likelihood);
                    found.insert("log_likelihood_at_opt".into(), likelihood);
                }
                found.insert(format!("{prefix}_{name}"), numbers(&strengths.theta));
            }
            Err(EvalError::NotIdentifiable { components, .. }) => {
                assert!(components.len() > 1);
                let reason = "comparison graph is not strongly connected";
                return object(json!({"identifiable": false, "reason": reason}));
            }
            Err(other) => panic!("{other}"),
        }
    }
    if kind == "measurements" {
        found.insert("pairs".into(), number(data.weight()));
    }
    found
}

fn elo(input: &Value, n: usize) -> Map<String, Value> {
    let at = |key: &str| float(&input[key]).unwrap();
    let mut elo = Elo::with(n, at("k"), at("scale"), at("base"), at("initial")).unwrap();
    let games: Vec<(usize, usize, f64)> =
        serde_json::from_value(input["games_a_b_score"].clone()).unwrap();
    for (a, b, score) in games {
        elo.add(a, b, score).unwrap();
    }
    object(json!({"rating": numbers(elo.rating())}))
}

pub fn irt(case: &Case) -> Outcome {
    let input = &case.input;
    if case.id.starts_with("mml") {
        return Outcome::Values(marginal(&input["response_bits_person_major"]));
    }
    let at = |key: &str| floats(&input[key]);
    let items = at("a").into_iter().zip(at("b"));
    let items = items.map(|(discrimination, difficulty)| Item {
        discrimination,
        difficulty,
    });
    let items = Items::new(items.collect()).unwrap();
    let answers: Vec<Vec<Option<bool>>> = rows(&input["response"])
        .iter()
        .map(|row| {
            row.iter()
                .map(|&x| (!x.is_nan()).then_some(x == 1.0))
                .collect()
        })
        .collect();
    let systems: Vec<(f64, &Vec<Option<bool>>)> = at("theta").into_iter().zip(&answers).collect();
    let each = |value: &dyn Fn(f64, &[Option<bool>]) -> f64| -> Value {
        systems
            .iter()
            .map(|(t, row)| number(value(*t, row)))
            .collect()
    };
    let probability: Vec<Vec<f64>> = systems
        .iter()
        .map(|(t, _)| items.items().iter().map(|i| i.probability(*t)).collect())
        .collect();
    let likelihood = |(t, row): &(f64, &Vec<Option<bool>>)| items.log_likelihood(*t, row).unwrap();
    Outcome::Values(object(json!({
        "probability": table(&probability),
        "log_likelihood": number(systems.iter().map(likelihood).sum()),
        "gradient_theta": each(&|t, row| items.gradient(t, row).unwrap()),
        "map_theta": each(&|_, row| items.ability_map(row).unwrap()),
        "eap_theta_normal_prior": each(&|_, row| items.ability_eap(row).unwrap().0),
        "test_information": each(&|t, _| items.information(t)),
    })))
}

/// Without a prior, as girth; the vectors' tolerance covers the points of the mean.
fn marginal(bits: &Value) -> Map<String, Value> {
    let answers: Vec<Vec<Option<bool>>> = {
        let people = bits.as_array().unwrap().iter();
        let person = |p: &str| p.bytes().map(|b| Some(b == b'1')).collect();
        people.map(|p| person(p.as_str().unwrap())).collect()
    };
    let fit = |model| {
        let settings = Marginal {
            model,
            prior: None,
            ..Marginal::default()
        };
        let fitted = settings.fit(&answers).unwrap();
        assert!(fitted.converged);
        fitted.items.items().to_vec()
    };
    let (rasch, two) = (fit(Model::Rasch), fit(Model::PerItem));
    let of = |items: &[Item], value: fn(&Item) -> f64| -> Value {
        items.iter().map(|i| number(value(i))).collect()
    };
    object(json!({
        "rasch_difficulty": of(&rasch, |i| i.difficulty),
        "twopl_difficulty": of(&two, |i| i.difficulty),
        "twopl_discrimination": of(&two, |i| i.discrimination),
    }))
}
