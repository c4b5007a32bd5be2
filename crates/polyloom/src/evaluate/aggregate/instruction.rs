//! Robustness to instructions: models x datasets x instructions (MM-BigBench; methods/evaluation.md 3.6).

use crate::evaluate::sum::mean;
use crate::evaluate::{EvalError, Result};

/// Scores of models on datasets under several instructions, more is better.
#[derive(Debug, Clone, PartialEq)]
pub struct InstructionTable {
    models: usize,
    datasets: usize,
    instructions: usize,
    /// Model, then dataset, then instruction.
    scores: Vec<f64>,
}

/// What the table says of models and instructions.
#[derive(Debug, Clone, PartialEq)]
pub struct InstructionReport {
    /// Best score over the instructions, `[model][dataset]`.
    pub best: Vec<Vec<f64>>,
    /// Mean relative gain of a model over the mean of all models, percent, over datasets and instructions.
    pub gain_model: Vec<f64>,
    /// Mean relative gain of an instruction over the mean of all instructions, percent, over models and datasets.
    pub gain_instruction: Vec<f64>,
    /// Mean over datasets of the standard deviation (population form) over instructions; less is steadier.
    pub spread_model: Vec<f64>,
    /// Mean over datasets of the standard deviation over models.
    pub spread_instruction: Vec<f64>,
    /// Share of datasets on which an instruction is among the model's best `top`, `[model][instruction]`.
    pub hits: Vec<Vec<f64>>,
    /// The same over all models: an instruction that suits everybody is near 1.
    pub hits_all: Vec<f64>,
}

const WHAT: &str = "instruction table";

impl InstructionTable {
    /// `scores` by model, then dataset, then instruction.
    ///
    /// # Errors
    /// A dimension of 0, a wrong number of scores, or one that is not finite.
    pub fn new(shape: [usize; 3], scores: Vec<f64>) -> Result<Self> {
        let [models, datasets, instructions] = shape;
        if shape.contains(&0) {
            return Err(EvalError::Empty { what: WHAT });
        }
        let cells = shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d));
        if cells != Some(scores.len()) {
            return Err(EvalError::Lengths {
                what: WHAT,
                left: scores.len(),
                right: cells.unwrap_or(usize::MAX),
            });
        }
        if let Some(at) = scores.iter().position(|x| !x.is_finite()) {
            return Err(EvalError::invalid(
                WHAT,
                format!("score {at} is {}", scores[at]),
            ));
        }
        Ok(Self {
            models,
            datasets,
            instructions,
            scores,
        })
    }

    fn at(&self, model: usize, dataset: usize, instruction: usize) -> f64 {
        self.scores[(model * self.datasets + dataset) * self.instructions + instruction]
    }

    fn row(&self, model: usize, dataset: usize) -> &[f64] {
        &self.scores[(model * self.datasets + dataset) * self.instructions..][..self.instructions]
    }

    /// Gains, spreads and hits. `top` is the K of the hit ratio (3 in the paper); equal scores hit by the lower number of
    /// the instruction. A gain is `NaN` or infinite where the mean it is taken over is 0.
    ///
    /// # Errors
    /// `top` of 0 or more than the number of instructions.
    pub fn report(&self, top: usize) -> Result<InstructionReport> {
        if top == 0 || top > self.instructions {
            let problem = format!("the best {top} of {} instructions", self.instructions);
            return Err(EvalError::invalid(WHAT, problem));
        }
        let (models, datasets, instructions) =
            (0..self.models, 0..self.datasets, 0..self.instructions);
        let column = |d, i| models.clone().map(move |m| self.at(m, d, i));
        let gain = |x: f64, of: f64| 100.0 * (x - of) / of;
        let mean_of_models: Vec<Vec<f64>> = datasets
            .clone()
            .map(|d| instructions.clone().map(|i| mean(column(d, i))).collect())
            .collect();
        let gain_model = models.clone().map(|m| {
            let cells = datasets
                .clone()
                .flat_map(|d| instructions.clone().map(move |i| (d, i)));
            mean(cells.map(|(d, i)| gain(self.at(m, d, i), mean_of_models[d][i])))
        });
        let rows = || {
            models
                .clone()
                .flat_map(|m| datasets.clone().map(move |d| (m, d)))
        };
        let mean_of_row: Vec<f64> = rows()
            .map(|(m, d)| mean(self.row(m, d).iter().copied()))
            .collect();
        let gain_instruction = instructions.clone().map(|i| {
            let cells = rows().zip(&mean_of_row);
            mean(cells.map(|((m, d), &of)| gain(self.at(m, d, i), of)))
        });
        let spread_model = models.clone().map(|m| {
            let all = datasets.clone().map(|d| deviation(self.row(m, d)));
            mean(all)
        });
        let spread_instruction = instructions.clone().map(|i| {
            mean(
                datasets
                    .clone()
                    .map(|d| deviation(&column(d, i).collect::<Vec<_>>())),
            )
        });
        let hits: Vec<Vec<f64>> = models.clone().map(|m| self.hits(m, top)).collect();
        let hits_all = instructions
            .clone()
            .map(|i| mean(hits.iter().map(|h| h[i])));
        Ok(InstructionReport {
            best: models
                .clone()
                .map(|m| {
                    let best = |d| self.row(m, d).iter().copied().fold(f64::MIN, f64::max);
                    datasets.clone().map(best).collect()
                })
                .collect(),
            gain_model: gain_model.collect(),
            gain_instruction: gain_instruction.collect(),
            spread_model: spread_model.collect(),
            spread_instruction: spread_instruction.collect(),
            hits_all: hits_all.collect(),
            hits,
        })
    }

    fn hits(&self, model: usize, top: usize) -> Vec<f64> {
        let mut counts = vec![0usize; self.instructions];
        for dataset in 0..self.datasets {
            let row = self.row(model, dataset);
            let mut order: Vec<usize> = (0..row.len()).collect();
            order.sort_by(|&a, &b| row[b].total_cmp(&row[a]).then(a.cmp(&b)));
            order[..top].iter().for_each(|&i| counts[i] += 1);
        }
        let share = |c| c as f64 / self.datasets as f64;
        counts.into_iter().map(share).collect()
    }
}

/// Standard deviation, divided by n.
fn deviation(values: &[f64]) -> f64 {
    let centre = mean(values.iter().copied());
    mean(values.iter().map(|x| (x - centre).powi(2))).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_hand() {
        // Two models, one dataset, two instructions.
        let table = InstructionTable::new([2, 1, 2], vec![60.0, 40.0, 20.0, 40.0]).unwrap();
        let report = table.report(1).unwrap();
        assert_eq!(report.best, [[60.0], [40.0]]);
        // Means over models 40 and 40: (60 − 40) / 40 = 50 %, 0 % -> 25 %.
        assert_eq!(report.gain_model, [25.0, -25.0]);
        // Means over instructions 50 and 30: +20 % and −33.3 %.
        assert!((report.gain_instruction[0] - (20.0 - 100.0 / 3.0) / 2.0).abs() < 1e-12);
        assert_eq!(report.spread_model, [10.0, 10.0]);
        assert_eq!(report.spread_instruction, [20.0, 0.0]);
        assert_eq!(report.hits, [[1.0, 0.0], [0.0, 1.0]]);
        assert_eq!(report.hits_all, [0.5, 0.5]);
    }

    #[test]
    fn bad_tables_are_refused() {
        assert!(InstructionTable::new([0, 1, 1], vec![]).is_err());
        assert!(InstructionTable::new([1, 1, 2], vec![1.0]).is_err());
        assert!(InstructionTable::new([1, 1, 1], vec![f64::NAN]).is_err());
        let table = InstructionTable::new([1, 1, 1], vec![1.0]).unwrap();
        assert!(table.report(2).is_err() && table.report(0).is_err());
    }
}
