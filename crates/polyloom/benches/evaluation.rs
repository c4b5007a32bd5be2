//! Metrics on request, for bench/evaluation.py: reads its arrays and texts from a folder once, then per line of standard
//! input (the name of a metric) computes it and prints the seconds it took and its value.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "it talks to the script that started it"
)]

use std::error::Error;
use std::io::BufRead;
use std::path::PathBuf;
use std::time::Instant;

use polyloom::evaluate::aggregate::{
    ScoreMatrix, TaskColumn, kemeny::kemeny, ranking::Preferences,
};
use polyloom::evaluate::metric::{
    bleu, chrf, classification, concordance, correlation, curve, prf, rouge,
};
use polyloom::evaluate::statistics::{bootstrap::Bootstrap, draw::Seed};

type Any<T> = Result<T, Box<dyn Error>>;

struct Folder(PathBuf);

impl Folder {
    fn array<const N: usize, T>(&self, name: &str, of: fn([u8; N]) -> T) -> Any<Vec<T>> {
        let bytes = std::fs::read(self.0.join(name))?;
        Ok(bytes.as_chunks::<N>().0.iter().map(|b| of(*b)).collect())
    }

    fn labels(&self, name: &str) -> Any<Vec<u32>> {
        self.array(name, u32::from_le_bytes)
    }

    fn numbers(&self, name: &str) -> Any<Vec<f64>> {
        self.array(name, f64::from_le_bytes)
    }

    fn lines(&self, name: &str) -> Any<Vec<String>> {
        let text = std::fs::read_to_string(self.0.join(name))?;
        Ok(text.lines().map(str::to_owned).collect())
    }
}

/// Macro-F1 of a confusion matrix of `k` classes, row by row.
fn macro_f1(counts: &[u64], k: usize) -> f64 {
    let f = |c: usize| {
        let hits = counts[c * k + c] as f64;
        let truth: u64 = counts[c * k..][..k].iter().sum();
        let predicted: u64 = counts.iter().skip(c).step_by(k).sum();
        let all = (truth + predicted) as f64;
        if all > 0.0 { 2.0 * hits / all } else { 0.0 }
    };
    (0..k).map(f).sum::<f64>() / k as f64
}

/// Matthews' correlation of a 2 x 2 table.
fn mcc(c: &[u64]) -> f64 {
    let [a, b, c, d] = [c[0] as f64, c[1] as f64, c[2] as f64, c[3] as f64];
    (a * d - b * c) / ((a + b) * (a + c) * (b + d) * (c + d)).sqrt()
}

/// A metric with its data.
type Run<'a> = Box<dyn Fn() -> Any<f64> + 'a>;

fn main() -> Any<()> {
    let Some(folder) = std::env::args().nth(1).filter(|a| !a.starts_with('-')) else {
        eprintln!("for bench/evaluation.py: needs the folder that it writes");
        return Ok(());
    };
    let at = Folder(folder.into());
    let (truth, predicted) = (at.labels("truth")?, at.labels("predicted")?);
    let (many, many_predicted) = (at.labels("many_truth")?, at.labels("many_predicted")?);
    let positive: Vec<bool> = at.labels("positive")?.iter().map(|x| *x == 1).collect();
    let (scores, x, y) = (at.numbers("scores")?, at.numbers("x")?, at.numbers("y")?);
    let (times, risks) = (at.numbers("times")?, at.numbers("risks")?);
    let events: Vec<bool> = at.labels("events")?.iter().map(|x| *x == 1).collect();
    let (system, reference) = (at.lines("system.txt")?, at.lines("reference.txt")?);
    let system: Vec<&str> = system.iter().map(String::as_str).collect();
    let references: Vec<Vec<&str>> = reference.iter().map(|r| vec![r.as_str()]).collect();
    let matrix = at.numbers("matrix")?;
    let systems: Vec<String> = (0..20).map(|i| i.to_string()).collect();
    let tasks = (0..matrix.len() / 20)
        .map(|i| TaskColumn::new(i.to_string()))
        .collect();
    let matrix = ScoreMatrix::new(systems, tasks, matrix)?;
    let seed = Seed::of("bench", "bootstrap");
    let kinds = [
        rouge::RougeKind::N(1),
        rouge::RougeKind::N(2),
        rouge::RougeKind::L,
    ];
    let rouge_of = |stem: bool| -> Any<f64> {
        let all = rouge::rouge(&system[..2000], &references[..2000], &kinds, stem)?;
        Ok(all.iter().flatten().map(|o| o.f1).sum::<f64>() / 6000.0)
    };
    let cells = |n: usize, k: u32| -> Vec<u32> {
        let pairs = truth.iter().zip(&predicted);
        pairs.take(n).map(|(t, p)| t % k * k + p % k).collect()
    };
    let (ten, two) = (cells(10_000, 10), cells(2_000, 2));
    let runs: Vec<(&str, Run)> = vec![
        (
            "macro_f1",
            Box::new(|| Ok(classification::f1(&truth, &predicted, prf::Average::Macro)?)),
        ),
        (
            "macro_f1_1000",
            Box::new(|| {
                Ok(classification::f1(
                    &many,
                    &many_predicted,
                    prf::Average::Macro,
                )?)
            }),
        ),
        (
            "roc_auc",
            Box::new(|| Ok(curve::roc_auc(&positive, &scores)?)),
        ),
        (
            "spearman",
            Box::new(|| Ok(correlation::spearman(&x, &y)?.r)),
        ),
        (
            "bleu",
            Box::new(|| {
                Ok(
                    bleu::bleu(&system, &references, bleu::BleuOptions::default())?
                        .0
                        .score,
                )
            }),
        ),
        (
            "chrf++",
            Box::new(|| {
                let options = chrf::ChrfOptions {
                    words: 2,
                    ..chrf::ChrfOptions::default()
                };
                Ok(chrf::chrf(&system, &references, options)?.0)
            }),
        ),
        ("rouge", Box::new(|| rouge_of(false))),
        ("rouge_stem", Box::new(|| rouge_of(true))),
        (
            "c_index",
            Box::new(|| Ok(concordance::c_index(&times, &risks, Some(&events))?)),
        ),
        (
            "bootstrap_f1",
            Box::new(|| {
                let draws = Bootstrap::new(seed.clone()).counts(&ten, 100, |c| macro_f1(c, 10))?;
                Ok(draws.percentile(0.95)?.low)
            }),
        ),
        (
            "bootstrap_mcc",
            Box::new(|| {
                let draws = Bootstrap::new(seed.clone()).with_draws(100_000);
                Ok(draws.counts(&two, 4, mcc)?.percentile(0.95)?.low)
            }),
        ),
        (
            "kemeny",
            Box::new(|| Ok(kemeny(&Preferences::of_matrix(&matrix), 1).disagreements)),
        ),
    ];
    println!("ready");
    for line in std::io::stdin().lock().lines() {
        let name = line?;
        let Some((_, run)) = runs.iter().find(|(n, _)| *n == name) else {
            return Err(format!("no metric `{name}`").into());
        };
        let start = Instant::now();
        let value = run()?;
        println!("{} {value}", start.elapsed().as_secs_f64());
    }
    Ok(())
}
