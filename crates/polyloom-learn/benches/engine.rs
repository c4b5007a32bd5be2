//! Steps on request, for bench/engine.py: reads a checkpoint and a batch (`ids` or `pixels`, and `labels`) from a folder once,
//! then per line of standard input (`train`, `infer`) does one step and prints the seconds it took and the loss.

#![allow(
    clippy::print_stdout,
    reason = "it talks to the script that started it"
)]

use std::error::Error;
use std::io::BufRead;
use std::path::PathBuf;
use std::time::Instant;

use polyloom_core::Checkpoint;
use polyloom_core::nn::optim::Adam;
use polyloom_learn::engine::{Parameters, Value, tensor};
use polyloom_learn::models::bert::Bert;
use polyloom_learn::models::vit::Vit;
use polyloom_learn::models::{Batch, Plain, Source, Trained, mean_weights};
use polyloom_learn::ops;

type Any<T> = Result<T, Box<dyn Error>>;

enum Model {
    Bert(Box<Bert>, Batch),
    Vit(Box<Vit>, Value),
}

fn loss(model: &Model, weights: &dyn Source, labels: &[u32]) -> Any<Value> {
    let pooled = match model {
        Model::Bert(model, batch) => {
            ops::pool(&model.forward(weights, batch)?, &mean_weights(batch)?)?
        }
        Model::Vit(model, pixels) => {
            let hidden = model.forward(weights, pixels)?;
            ops::reshape(
                &ops::narrow(&hidden, 1, 0, 1)?,
                &[labels.len(), model.config.hidden_size],
            )?
        }
    };
    Ok(ops::cross_entropy(
        &weights.linear("head", &pooled)?,
        labels,
        0.0,
    )?)
}

fn main() -> Any<()> {
    polyloom_core::memory::keep_large_buffers();
    let args: Vec<String> = std::env::args().filter(|a| a != "--bench").collect();
    let folder = PathBuf::from(&args[1]);
    let threads: usize = args[2].parse()?;
    rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .build_global()?;
    let numbers = |name: &str| -> Any<Vec<u32>> {
        let bytes = std::fs::read(folder.join(name))?;
        Ok(bytes
            .as_chunks::<4>()
            .0
            .iter()
            .map(|b| u32::from_le_bytes(*b))
            .collect())
    };
    let checkpoint = Checkpoint::open(&folder)?;
    let mut tensors = Vec::new();
    for (name, stored) in checkpoint.tensors() {
        tensors.push((
            name.clone(),
            tensor(checkpoint.read_all(stored)?, stored.shape.clone())?,
        ));
    }
    let labels = numbers("labels")?;
    let config = std::fs::read(folder.join("config.json"))?;
    let model = if folder.join("ids").exists() {
        let ids = numbers("ids")?;
        let batch = Batch {
            present: vec![true; ids.len()],
            types: Vec::new(),
            sequences: labels.len(),
            length: ids.len() / labels.len(),
            ids,
            goals: Vec::new(),
        };
        Model::Bert(
            Box::new(Bert::new(serde_json::from_slice(&config)?, "")?),
            batch,
        )
    } else {
        let vit = Vit::new(serde_json::from_slice(&config)?, "")?;
        let pixels = numbers("pixels")?.into_iter().map(f32::from_bits).collect();
        let (side, channels) = (vit.config.image_size, vit.config.num_channels);
        let pixels = tensor(pixels, vec![labels.len(), channels, side, side])?;
        Model::Vit(Box::new(vit), Value::constant(pixels))
    };
    let plain = Plain::new(tensors.clone());
    let parameters = Parameters::new(tensors)?;
    let (mut first, mut second) = (vec![0f32; parameters.len()], vec![0f32; parameters.len()]);
    let mut step = 0;
    println!("ready");
    for line in std::io::stdin().lock().lines() {
        let start = Instant::now();
        let value = if line?.trim() == "train" {
            step += 1;
            let weights = Trained {
                parameters: &parameters,
                frozen: &Plain::default(),
                seed: None,
            };
            let loss = loss(&model, &weights, &labels)?;
            let forward = start.elapsed().as_secs_f64();
            let mut gradients = parameters.gradients()?;
            loss.backward_into(&mut gradients)?;
            parameters.gathered(&gradients)?;
            let backward = start.elapsed().as_secs_f64() - forward;
            let adam = Adam {
                rate: 1e-4,
                betas: [0.9, 0.999],
                eps: 1e-8,
                decay: 0.01,
                coupled: false,
                step,
                scale: 1.0,
            };
            parameters.update(|w, g| adam.step(w, g, &mut first, &mut second))?;
            if std::env::var_os("PARTS").is_some() {
                println!(
                    "forward {forward:.4} backward {backward:.4} optimiser {:.4}",
                    start.elapsed().as_secs_f64() - forward - backward
                );
            }
            loss.number()?
        } else {
            loss(&model, &plain, &labels)?.number()?
        };
        println!("{} {value}", start.elapsed().as_secs_f64());
    }
    Ok(())
}
