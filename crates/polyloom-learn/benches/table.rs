//! Steps of models over tables, on the work that bench/joint_pytorch.py of the peers does (protocol joint-tabular-v1): two
//! binary goals, 26 categories of 10,000 codes, 13 numbers, batches of 4096, Adam. Prints one line of JSON.
//!
//! `table MODEL [dense|lazy|forward] [threads] [steps]`, with `shared`, `mmoe` or `ple`; `forward` answers rows (scores of both
//! goals, no gradients, no optimiser) in place of training on them.

#![allow(clippy::print_stdout, reason = "what it measured is its answer")]

use std::error::Error;
use std::time::Instant;

use polyloom_learn::engine::{Parameters, Value, slice, tensor};
use polyloom_learn::models::fresh::fresh;
use polyloom_learn::models::table::{Config, TableBatch, TableModel};
use polyloom_learn::models::{Plain, Source, Trained};
use polyloom_learn::ops;
use polyloom_learn::train::optimiser::Tables;
use polyloom_learn::train::{Optimiser, Rule};
use serde_json::{Value as Json, json};

type Any<T> = Result<T, Box<dyn Error>>;

const FIELDS: usize = 26;
const CODES: usize = 10_000;
const NUMBERS: usize = 13;
const ROWS: usize = 65_536;
const BATCH: usize = 4096;
const SEED: u64 = 7;
const WARM: usize = 5;

/// The finaliser of splitmix64: all that is random in the data.
fn splitmix(x: u64) -> u64 {
    let z = x.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// `n * k` numbers in 0 to below 1.
fn unit(stream: u64, n: usize, k: usize) -> Vec<f64> {
    let base = (SEED << 48) + (stream << 40);
    let one = |i: u64| (splitmix(base.wrapping_add(i)) >> 11) as f64 / (1u64 << 53) as f64;
    (0..(n * k) as u64).map(one).collect()
}

struct Data {
    codes: Vec<u32>,
    numbers: Vec<f32>,
    labels: Vec<u32>,
}

fn data() -> Data {
    let code = |u: f64| ((u * u * CODES as f64) as u32).min(CODES as u32 - 1);
    let codes: Vec<u32> = unit(1, ROWS, FIELDS).into_iter().map(code).collect();
    let signed = |u: f64| u * 2.0 - 1.0;
    let numbers: Vec<f32> = unit(2, ROWS, NUMBERS)
        .into_iter()
        .map(|u| signed(u) as f32)
        .collect();
    let weights: Vec<f64> = unit(3, NUMBERS, 2).into_iter().map(signed).collect();
    let effects: Vec<f64> = unit(4, FIELDS * 64, 2).into_iter().map(signed).collect();
    let chance = unit(5, ROWS, 2);
    let mut labels = Vec::with_capacity(ROWS * 2);
    for row in 0..ROWS {
        for goal in 0..2 {
            let mut z = -[1.0, 2.5][goal];
            for j in 0..NUMBERS {
                z += f64::from(numbers[row * NUMBERS + j]) * weights[j * 2 + goal];
            }
            for j in 0..FIELDS {
                let code = codes[row * FIELDS + j] as usize % 64;
                z += 0.3 * effects[(j * 64 + code) * 2 + goal];
            }
            let p = 1.0 / (1.0 + (-z).exp());
            labels.push(u32::from(chance[row * 2 + goal] < p));
        }
    }
    Data {
        codes,
        numbers,
        labels,
    }
}

fn config(model: &str) -> Any<Json> {
    let mut config = json!({
        "model_type": "polyloom-table", "goals": ["a", "b"], "numeric": NUMBERS, "categories": vec![CODES; FIELDS],
        "hidden": [256, 128], "tower": [64],
    });
    let rest = match model {
        "shared" => json!({"architecture": "shared_bottom"}),
        "mmoe" => json!({"architecture": "mmoe", "experts": 8}),
        "ple" => json!({"architecture": "ple", "shared_experts": 4, "task_experts": 2}),
        other => return Err(format!("no model `{other}`: shared, mmoe, ple").into()),
    };
    for (key, value) in rest.as_object().into_iter().flatten() {
        config[key] = value.clone();
    }
    Ok(config)
}

/// The mean of both goals' mean cross-entropies.
fn loss(
    model: &TableModel,
    weights: &dyn Source,
    batch: &TableBatch,
    labels: &[u32],
) -> Any<Value> {
    let no = Value::constant(tensor(vec![0.0; batch.rows], (batch.rows, 1))?);
    let mut total: Option<Value> = None;
    for (g, feature) in model.forward(weights, batch, 0..2)?.iter().enumerate() {
        let scores = weights.linear(&format!("heads.{g}"), feature)?;
        let labels: Vec<u32> = labels.iter().skip(g).step_by(2).copied().collect();
        let one = ops::cross_entropy(&ops::concat(&[&no, &scores], 1)?, &labels, 0.0)?;
        total = Some(match total {
            Some(sum) => ops::add(&sum, &one)?,
            None => one,
        });
    }
    Ok(ops::scale(&total.ok_or("no goals")?, 0.5)?)
}

/// Median of times, and the shortest, in seconds.
fn ranked(mut times: Vec<f64>) -> (f64, f64) {
    times.sort_by(f64::total_cmp);
    (times[times.len() / 2], times[0])
}

fn batch(data: &Data, first: usize) -> Any<TableBatch> {
    let numbers = data.numbers[first * NUMBERS..][..BATCH * NUMBERS].to_vec();
    Ok(TableBatch {
        before: Vec::new(),
        rows: BATCH,
        numbers: Value::constant(tensor(numbers, (BATCH, NUMBERS))?),
        codes: data.codes[first * FIELDS..][..BATCH * FIELDS].to_vec(),
    })
}

/// Passes forward alone: scores of both goals, as `predict` asks for them.
fn answer(model: &TableModel, weights: &Plain, data: &Data, steps: usize) -> Any<Vec<f64>> {
    let mut times = Vec::new();
    for step in 0..WARM + steps {
        let start = Instant::now();
        let batch = batch(data, step % (ROWS / BATCH) * BATCH)?;
        for (g, feature) in model.forward(weights, &batch, 0..2)?.iter().enumerate() {
            let scores = weights.linear(&format!("heads.{g}"), feature)?;
            assert_eq!(slice(scores.data())?.len(), BATCH);
        }
        if step >= WARM {
            times.push(start.elapsed().as_secs_f64());
        }
    }
    Ok(times)
}

fn main() -> Any<()> {
    polyloom_core::memory::keep_large_buffers();
    let args: Vec<String> = std::env::args().filter(|a| a != "--bench").collect();
    let word = |i: usize, unset: &str| args.get(i).map_or(unset, String::as_str).to_owned();
    let (name, tables) = (word(1, "mmoe"), word(2, "dense"));
    let (threads, steps) = (word(3, "2").parse()?, word(4, "30").parse::<usize>()?);
    rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .build_global()?;
    let data = data();
    let config = config(&name)?;
    let model = TableModel::new(serde_json::from_value::<Config>(config.clone())?)?;
    let mut tensors = Vec::new();
    for (name, shape, values) in fresh(&config, SEED)? {
        tensors.push((name, tensor(values, shape)?));
    }
    for g in 0..2 {
        let weight = tensor(vec![0.05; model.width()], (1, model.width()))?;
        tensors.push((format!("heads.{g}.weight"), weight));
        tensors.push((format!("heads.{g}.bias"), tensor(vec![0.0], 1)?));
    }
    if tables == "forward" {
        let times = answer(&model, &Plain::new(tensors), &data, steps)?;
        let (median, best) = ranked(times);
        println!(
            "{}",
            json!({
                "protocol": "joint-tabular-v1", "model": name, "tables": tables, "threads": threads, "batch": BATCH,
                "steps": steps, "samples_per_s": (BATCH as f64 / median).round(),
                "samples_per_s_best": (BATCH as f64 / best).round(), "step_ms_median": median * 1e3,
            })
        );
        return Ok(());
    }
    let parameters = Parameters::new(tensors)?;
    let nothing = Plain::default();
    let mut optimiser = Optimiser::new(Rule::adamw(0.0), &parameters);
    if tables == "lazy" {
        optimiser.tables = Tables::Lazy;
    }
    let (mut times, mut losses, mut parts) = (Vec::new(), Vec::new(), [0f64; 3]);
    for step in 0..WARM + steps {
        let first = step % (ROWS / BATCH) * BATCH;
        let start = Instant::now();
        let batch = batch(&data, first)?;
        let source = Trained {
            parameters: &parameters,
            frozen: &nothing,
            seed: None,
        };
        let loss = loss(
            &model,
            &source,
            &batch,
            &data.labels[first * 2..][..BATCH * 2],
        )?;
        let forward = start.elapsed().as_secs_f64();
        let mut gradients = optimiser.gradients(&parameters)?;
        loss.backward_into(&mut gradients)?;
        let backward = start.elapsed().as_secs_f64();
        optimiser.step(&parameters, &gradients, 1e-3)?;
        let all = start.elapsed().as_secs_f64();
        losses.push(loss.number()?);
        if step >= WARM {
            times.push(all);
            for (sum, part) in parts
                .iter_mut()
                .zip([forward, backward - forward, all - backward])
            {
                *sum += part / steps as f64;
            }
        }
    }
    let (median, best) = ranked(times);
    println!(
        "{}",
        json!({
            "protocol": "joint-tabular-v1", "model": name, "tables": tables, "threads": threads, "batch": BATCH,
            "steps": steps, "samples_per_s": (BATCH as f64 / median).round(),
            "samples_per_s_best": (BATCH as f64 / best).round(), "step_ms_median": median * 1e3,
            "forward_ms": parts[0] * 1e3, "backward_ms": parts[1] * 1e3, "optimiser_ms": parts[2] * 1e3,
            "first_loss": losses[0], "last_loss": losses[losses.len() - 1],
        })
    );
    Ok(())
}
