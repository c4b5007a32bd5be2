//! What an input costs in woven models beside one model: `cargo bench -p polyloom-learn --bench woven -- [ROUNDS] WOVEN...`
//!
//! Every round times one model (the base with the first head) and then every folder on the same inputs, router and all, with
//! batches of 32; the ratio is taken within the round, and the median over rounds is printed with the quartiles. Bars: a
//! top-1 router on early layers at most 1.3 of one model, Twin-Merging with its router on the last layer at most 2.4.

#![allow(clippy::print_stdout, reason = "a benchmark says what it measured")]

use std::error::Error;
use std::path::Path;
use std::time::Instant;

use polyloom_core::rng::Stream;
use polyloom_learn::models::Tokens;
use polyloom_learn::tasks::forward::outputs;
use polyloom_learn::tasks::{Base, Reader, Shown, System};
use polyloom_learn::weave::Choice;

const INPUTS: u64 = 128;
const BATCH: usize = 32;
/// Tokens of a text.
const LENGTH: u64 = 48;

fn inputs(reader: &Reader) -> Vec<Shown> {
    let draws = |i: u64| Stream::new(7, "inputs", i);
    let one = |i: u64| match reader {
        Reader::Pictures(p) => {
            let n = (p.channels * p.size * p.size) as u64;
            Shown::Planes((0..n).map(|j| (draws(i).bits(j) >> 56) as u8).collect())
        }
        // The models here are of pictures of one size, and of texts.
        Reader::Tables(_) | Reader::Sensors(_) => Shown::Row(Box::default()),
        Reader::Texts(_) => Shown::One(Tokens {
            ids: (0..LENGTH)
                .map(|j| 5 + (draws(i).bits(j) % 900) as u32)
                .collect(),
            types: vec![0; LENGTH as usize],
        }),
    };
    (0..INPUTS).map(one).collect()
}

fn main() -> Result<(), Box<dyn Error>> {
    polyloom_core::memory::keep_large_buffers();
    let mut args: Vec<String> = std::env::args()
        .skip(1)
        .filter(|a| a != "--bench")
        .collect();
    let rounds = match args.first().and_then(|a| a.parse::<usize>().ok()) {
        Some(n) => {
            args.remove(0);
            n
        }
        None => 15,
    };
    for folder in &args {
        let system = System::find(folder, None, None)?;
        let pictures = system.preprocessor();
        let base = Base::prepared(&system.base, system.max_length()?, pictures.as_deref())?;
        let ready = base.ready(&system)?;
        let woven = ready
            .woven()
            .ok_or_else(|| format!("{folder} is no woven model"))?;
        let shown = inputs(&base.reader);
        let head = &woven.experts[0].heads[0];
        let model = &base.opened.model;
        let plain = model.weights.with(head.tensors());
        let mut ratios = Vec::new();
        for round in 0..=rounds {
            let start = Instant::now();
            outputs(model, &plain, &base.reader, &[head], &shown, BATCH)?;
            let one = start.elapsed().as_secs_f64();
            let start = Instant::now();
            woven.run(model, &base.reader, &[head], &shown, BATCH, Choice::Router)?;
            let all = start.elapsed().as_secs_f64();
            // The first round warms caches.
            if round > 0 {
                ratios.push(all / one);
            }
        }
        ratios.sort_by(f64::total_cmp);
        let at = |q: f64| ratios[((ratios.len() - 1) as f64 * q).round() as usize];
        let name = Path::new(folder).file_name().unwrap_or_default();
        println!(
            "{:<24} {:.2} of one model (quartiles {:.2} to {:.2}, {rounds} rounds of {INPUTS} inputs)",
            name.to_string_lossy(),
            at(0.5),
            at(0.25),
            at(0.75)
        );
    }
    Ok(())
}
