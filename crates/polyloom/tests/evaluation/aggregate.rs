//! Glue of the families on aggregation.

use polyloom::evaluate::aggregate::consensus::{borda_count, instance_consensus};
use polyloom::evaluate::aggregate::cross::{CrossKind, cross};
use polyloom::evaluate::aggregate::downsample::{Downsample, Prediction, predictions};
use polyloom::evaluate::aggregate::instruction::InstructionTable;
use polyloom::evaluate::aggregate::kemeny::kemeny;
use polyloom::evaluate::aggregate::mean::{self, Missing};
use polyloom::evaluate::aggregate::ranking::{self, Borda, Middle, Preferences};
use polyloom::evaluate::aggregate::relative::{normalised, relative};
use polyloom::evaluate::aggregate::reliability::{SeedSpread, item_statistics, monotonicity};
use polyloom::evaluate::aggregate::synergy::{AgainstBest, synergy};
use polyloom::evaluate::aggregate::{Direction, ScoreMatrix, TaskColumn};
use polyloom::evaluate::statistics::friedman::{friedman, nemenyi_critical_difference};
use serde_json::{Map, Value, json};

use super::{Case, Outcome, float, number};

/// Numbers of an array; null and "NaN" are NaN.
pub fn floats(value: &Value) -> Vec<f64> {
    let array = value.as_array().unwrap();
    array.iter().map(|x| float(x).unwrap_or(f64::NAN)).collect()
}

pub fn rows(value: &Value) -> Vec<Vec<f64>> {
    value.as_array().unwrap().iter().map(floats).collect()
}

pub fn numbers(values: &[f64]) -> Value {
    values.iter().map(|&x| number(x)).collect()
}

pub fn table(rows: &[Vec<f64>]) -> Value {
    rows.iter().map(|r| numbers(r)).collect()
}

/// Numbers whose NaN the vectors write as null.
fn or_null(values: &[f64]) -> Value {
    let one = |x: &f64| if x.is_nan() { Value::Null } else { (*x).into() };
    values.iter().map(one).collect()
}

pub fn object(value: Value) -> Map<String, Value> {
    let Value::Object(map) = value else {
        panic!("not an object")
    };
    map
}

fn transposed(rows: &[Vec<f64>]) -> Vec<Vec<f64>> {
    let column = |i| rows.iter().map(|r| r[i]).collect();
    (0..rows[0].len()).map(column).collect()
}

/// A matrix of rows; `lower` by task: true, false, or null for no direction.
fn matrix(rows: &[Vec<f64>], lower: &Value) -> ScoreMatrix {
    let tasks = lower.as_array().unwrap().iter().enumerate();
    let tasks = tasks.map(|(t, lower)| {
        TaskColumn::new(t.to_string()).with_direction(lower.as_bool().map(|lower| {
            if lower {
                Direction::Lower
            } else {
                Direction::Higher
            }
        }))
    });
    let systems = (0..rows.len()).map(|s| s.to_string()).collect();
    ScoreMatrix::new(systems, tasks.collect(), rows.concat()).unwrap()
}

pub fn aggregation(case: &Case) -> Outcome {
    let kind = case.id.split('-').next().unwrap();
    Outcome::Values(match kind {
        "relative" => against_references(&case.input),
        "group" => groups(&case.input),
        "instruction" => instructions(&case.input),
        "cross" => crossed(&case.input),
        "synergy" => synergies(&case.input),
        "variance" => variances(&case.input),
        "item" => items(&case.input),
        "downsample" => downsampled(&case.input),
        _ => standings(&case.input),
    })
}

fn standings(input: &Value) -> Map<String, Value> {
    let m = matrix(&rows(&input["scores"]), &input["lower"]);
    let tasks = 0..m.tasks().len();
    let ranks: Vec<Vec<f64>> = tasks.map(|t| m.ranks(t)).collect();
    let preferences = Preferences::of_matrix(&m);
    let mteb = ranking::borda(&m, Borda::AllSystems);
    let consensus = kemeny(&preferences, 5040);
    assert!(consensus.exact && consensus.complete);
    let n = m.systems().len();
    let preferred: Vec<Vec<f64>> = (0..n)
        .map(|a| (0..n).map(|b| preferences.of(a, b)).collect())
        .collect();
    let mut found = object(json!({
        "mean": numbers(&mean::task_mean(&m, Missing::Strict).value),
        "mean_skip_missing": numbers(&mean::task_mean(&m, Missing::Skip).value),
        "ranks": table(&transposed(&ranks)),
        "mean_rank": numbers(&ranking::mean_rank(&m).value),
        "borda_points": numbers(&ranking::borda(&m, Borda::Beaten).value),
        "mteb_borda": {"points": numbers(&mteb.value), "rank": mteb.rank},
        "mean_win_rate": or_null(&ranking::win_rate(&m, Middle::Mean).value),
        "copeland": numbers(&ranking::copeland(&m).value),
        "condorcet_winner": preferences.condorcet_winner(),
        "kemeny": {
            "disagreements": number(consensus.disagreements),
            "optimal_orders": consensus.orders,
            "pairwise_preferences": table(&preferred),
        },
    }));
    // The vectors test full tables of at least three systems and two tasks.
    let full = (0..n).all(|s| m.row(s).iter().all(|x| !x.is_nan()));
    if full && n >= 3 && m.tasks().len() >= 2 {
        let tasks = m.tasks().len();
        let scores: Vec<Vec<f64>> = (0..tasks).map(|t| m.oriented(t).unwrap()).collect();
        let test = friedman(&scores).unwrap();
        let distance = nemenyi_critical_difference(n, tasks, 0.95).unwrap();
        found.insert(
            "friedman".into(),
            json!({"chi2": number(test.chi2), "p": number(test.p)}),
        );
        found.insert("nemenyi_cd_0.05".into(), number(distance));
    }
    found
}

fn against_references(input: &Value) -> Map<String, Value> {
    let multi = floats(&input["multi"]);
    let m = matrix(std::slice::from_ref(&multi), &input["lower"]);
    let experts = floats(&input["single"]);
    let (chance, maximum) = (floats(&input["random_baseline"]), floats(&input["maximum"]));
    let mut tasks = m.tasks().to_vec();
    for (task, &expert) in tasks.iter_mut().zip(&experts) {
        task.expert = Some(expert);
    }
    let m = ScoreMatrix::new(m.systems().to_vec(), tasks, multi.clone()).unwrap();
    let found = relative(&m, 0);
    let scale = |clip| {
        let bounds = chance.iter().zip(&maximum);
        let cells = multi.iter().zip(bounds);
        let scaled: Vec<f64> = cells
            .map(|(&x, (&c, &top))| normalised(x, c, top, clip))
            .collect();
        numbers(&scaled)
    };
    object(json!({
        "per_task": numbers(&found.per_task),
        "delta_m": number(found.delta_m),
        "delta_m_percent": number(100.0 * found.delta_m),
        "normalised": scale(true),
        "normalised_unclipped": scale(false),
        "normalised_accuracy_ratio": number(found.ratio),
        "win_fraction": number(found.win_fraction),
        "worst_task": number(found.worst.unwrap().1),
        "geometric_mean_ratio": number(found.geometric_ratio),
    }))
}

fn groups(input: &Value) -> Map<String, Value> {
    let (scores, stderrs) = (floats(&input["score"]), floats(&input["stderr"]));
    let sizes: Vec<u64> = serde_json::from_value(input["size"].clone()).unwrap();
    let mut tasks: Vec<TaskColumn> = (0..scores.len())
        .map(|t| TaskColumn::new(t.to_string()))
        .collect();
    for (task, &n) in tasks.iter_mut().zip(&sizes) {
        task.size = Some(n);
    }
    let m = ScoreMatrix::new(vec!["s".into()], tasks, scores).unwrap();
    let micro = mean::size_weighted_mean(&m, Missing::Strict).unwrap();
    object(json!({
        "micro_mean": numbers(&micro.value)[0],
        "macro_mean": numbers(&mean::task_mean(&m, Missing::Strict).value)[0],
        "pooled_stderr": number(mean::pooled_stderr(&sizes, &stderrs).unwrap()),
        "macro_stderr": number(mean::macro_stderr(&stderrs).unwrap()),
    }))
}

fn instructions(input: &Value) -> Map<String, Value> {
    let scores = &input["accuracy_model_dataset_instruction"];
    let models: Vec<Vec<Vec<f64>>> = scores.as_array().unwrap().iter().map(rows).collect();
    let shape = [models.len(), models[0].len(), models[0][0].len()];
    let cells = models.concat().concat();
    let top = input["top_k"].as_u64().unwrap() as usize;
    let found = InstructionTable::new(shape, cells)
        .unwrap()
        .report(top)
        .unwrap();
    object(json!({
        "best_per_model_dataset": table(&found.best),
        "mrg_model": numbers(&found.gain_model),
        "mrg_instruction": numbers(&found.gain_instruction),
        "stability_model": numbers(&found.spread_model),
        "stability_instruction": numbers(&found.spread_instruction),
        "hit_ratio_model_instruction": table(&found.hits),
        "hit_ratio_instruction": numbers(&found.hits_all),
    }))
}

fn crossed(input: &Value) -> Map<String, Value> {
    let at = |key: &str| float(&input[key]).unwrap();
    let found = cross(at("capability_a"), at("capability_b"), at("cross")).unwrap();
    let kind = match found.kind {
        CrossKind::BelowBoth => "below_both",
        CrossKind::NearWeaker => "between_near_weaker",
        CrossKind::NearStronger => "between_near_stronger",
        CrossKind::AboveBoth => "above_both",
    };
    object(json!({
        "kind": kind,
        "gap_to_weaker": number(found.gap_to_weaker),
        "position": or_null(&[found.position])[0],
    }))
}

fn synergies(input: &Value) -> Map<String, Value> {
    let group = |key: &str| -> Vec<AgainstBest> {
        let best = floats(&input[format!("{key}_best")]);
        let scores = floats(&input[key]).into_iter().zip(best);
        scores
            .map(|(score, best)| AgainstBest { score, best })
            .collect()
    };
    let groups = ["comprehension", "generation", "language"].map(group);
    let found = synergy(&groups[0], &groups[1], &groups[2]).unwrap();
    object(json!({
        "level_2": number(found.level_2),
        "level_3": number(found.level_3),
        "level_4": number(found.level_4),
        "level_5": number(found.level_5),
    }))
}

fn variances(input: &Value) -> Map<String, Value> {
    let spread = SeedSpread::of(&floats(&input["seed_scores"])).unwrap();
    let rising = monotonicity(&floats(&input["checkpoint_scores"])).unwrap();
    object(json!({
        "seed_mean": number(spread.mean),
        "seed_std": number(spread.deviation),
        "snr": number(spread.signal_to_noise()),
        "monotonicity": number(rising),
    }))
}

fn items(input: &Value) -> Map<String, Value> {
    let found = item_statistics(&rows(&input["correct_model_item"])).unwrap();
    object(json!({
        "difficulty": numbers(&found.difficulty),
        "item_total": numbers(&found.item_total),
        "item_rest": numbers(&found.item_rest),
    }))
}

fn downsampled(input: &Value) -> Map<String, Value> {
    let scores = rows(&input["scores"]);
    let lower: Value = vec![false; scores[0].len()].into();
    let m = matrix(&scores, &lower);
    let found = predictions(&m).unwrap();
    let of = |value: fn(&Prediction) -> f64| -> Value {
        found.iter().map(|p| number(value(p))).collect()
    };
    let rules = Downsample {
        least: None,
        ..Downsample::default()
    };
    let removed = rules.run(&m).unwrap().removed.into_iter();
    let removed: Value = removed
        .map(|(task, pearson)| json!({"task": task, "pearson": number(pearson)}))
        .collect();
    let predicted: Vec<Vec<f64>> = found.iter().map(|p| p.predicted.clone()).collect();
    object(json!({
        "leave_one_model_out_prediction": table(&predicted),
        "pearson": of(|p| p.pearson),
        "spearman": of(|p| p.spearman),
        "mse_zscore": of(|p| p.mse_zscore),
        "greedy_removal_by_pearson_to_2": removed,
    }))
}

pub fn borda_consensus(case: &Case) -> Outcome {
    let input = &case.input;
    if input["level"] == "task" {
        let scores = rows(&input["scores_system_task"]);
        let lower: Value = vec![false; scores[0].len()].into();
        let m = matrix(&scores, &lower);
        return Outcome::Values(object(json!({
            "borda_count": numbers(&borda_count(&transposed(&scores)).unwrap()),
            "mean": numbers(&mean::task_mean(&m, Missing::Strict).value),
        })));
    }
    let scores: Vec<Vec<Vec<f64>>> = {
        let systems = input["scores_system_instance_metric"].as_array().unwrap();
        systems.iter().map(rows).collect()
    };
    let (instances, metrics) = (scores[0].len(), scores[0][0].len());
    let list = |m: usize, i: usize| scores.iter().map(|s| s[i][m]).collect();
    let tasks: Vec<Vec<Vec<f64>>> = (0..metrics)
        .map(|m| (0..instances).map(|i| list(m, i)).collect())
        .collect();
    let found = instance_consensus(&tasks).unwrap();
    // With a tie at level one the reference goes by the order of the array, and the vectors give null.
    let tied = found.per_task.iter().any(|points| {
        let mut sorted = points.clone();
        sorted.sort_by(f64::total_cmp);
        sorted.windows(2).any(|w| w[0] == w[1])
    });
    Outcome::Values(object(json!({
        "one_level_count": numbers(&found.one_level),
        "first_level_counts_per_metric": table(&found.per_task),
        "two_level_count": if tied { Value::Null } else { numbers(&found.two_level) },
    })))
}

pub fn win_rate(case: &Case) -> Outcome {
    let m = matrix(&rows(&case.input["table"]), &case.input["lower_is_better"]);
    Outcome::Values(object(json!({
        "mean": or_null(&ranking::win_rate(&m, Middle::Mean).value),
        "median": or_null(&ranking::win_rate(&m, Middle::Median).value),
    })))
}
