//! Boosted trees on request, for bench/forest.py: reads a table (`case.json`, columns one after the other in `x_train` and
//! `x_test`, labels in `y_train`) from a folder once, then per line of standard input trains a forest, prints the seconds of
//! training and of answering the test rows, and writes their scores to `scores`.

#![allow(
    clippy::print_stdout,
    reason = "it talks to the script that started it"
)]

use std::error::Error;
use std::io::BufRead;
use std::path::{Path, PathBuf};
use std::time::Instant;

use polyloom_learn::forest::{Column, Labels, Params, Table, Target, Values, fit};
use serde::Deserialize;

type Any<T> = Result<T, Box<dyn Error>>;

/// `case.json`.
#[derive(Deserialize)]
struct Case {
    columns: usize,
    /// Classes; 0 of a number.
    classes: usize,
    params: Params,
}

fn table(file: &Path, columns: usize) -> Any<Table> {
    let bytes = std::fs::read(file)?;
    let values: Vec<f32> = bytes
        .as_chunks::<4>()
        .0
        .iter()
        .map(|b| f32::from_le_bytes(*b))
        .collect();
    let rows = values.len() / columns;
    let column = |(i, x): (usize, &[f32])| Column {
        name: format!("x{i}"),
        values: Values::Number(x.to_vec()),
    };
    Ok(Table {
        rows,
        columns: values.chunks_exact(rows).enumerate().map(column).collect(),
        weights: None,
    })
}

fn main() -> Any<()> {
    polyloom_core::memory::keep_large_buffers();
    let args: Vec<String> = std::env::args().filter(|a| a != "--bench").collect();
    let folder = PathBuf::from(&args[1]);
    rayon::ThreadPoolBuilder::new()
        .num_threads(args[2].parse()?)
        .build_global()?;
    let case: Case = serde_json::from_slice(&std::fs::read(folder.join("case.json"))?)?;
    let train = table(&folder.join("x_train"), case.columns)?;
    let test = table(&folder.join("x_test"), case.columns)?;
    let bytes = std::fs::read(folder.join("y_train"))?;
    let y: Vec<f64> = bytes
        .as_chunks::<8>()
        .0
        .iter()
        .map(|b| f64::from_le_bytes(*b))
        .collect();
    let target = Target {
        name: "y".into(),
        labels: match case.classes {
            0 => Labels::Regression(y),
            classes => Labels::Classification {
                classes,
                labels: y.iter().map(|y| *y as u32).collect(),
            },
        },
        weights: None,
    };
    println!("ready");
    for line in std::io::stdin().lock().lines() {
        line?;
        let start = Instant::now();
        let targets = std::slice::from_ref(&target);
        let forest = fit(&train, targets, None, &case.params, &mut |_| true)?;
        let trained = start.elapsed().as_secs_f64();
        let scores = forest.scores(&test)?;
        let answered = start.elapsed().as_secs_f64() - trained;
        let width = forest.width();
        let last = scores.chunks_exact(width).map(|row| row[width - 1]);
        let bytes: Vec<u8> = last.flat_map(f64::to_le_bytes).collect();
        std::fs::write(folder.join("scores"), bytes)?;
        println!("{trained} {answered}");
    }
    Ok(())
}
