//! How often a router is right, and what its mistakes cost.

use super::router::Decision;

/// Decisions beside the expert that each input belongs to.
#[derive(Debug, Clone, PartialEq)]
pub struct Assessed {
    /// How many inputs of each expert went to each; the last column counts those that went to none.
    pub confusion: Vec<Vec<u64>>,
}

impl Assessed {
    /// Counts decisions of inputs with labels.
    #[must_use]
    pub fn new(experts: usize, labels: &[u32], decided: &[Decision]) -> Self {
        let mut confusion = vec![vec![0; experts + 1]; experts];
        for (label, decision) in labels.iter().zip(decided) {
            if let Some(row) = confusion.get_mut(*label as usize) {
                row[decision.expert.unwrap_or(experts).min(experts)] += 1;
            }
        }
        Self { confusion }
    }

    /// Inputs in all.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.confusion.iter().flatten().sum()
    }

    /// Inputs of an expert, and those of them that went to it.
    #[must_use]
    pub fn of(&self, expert: usize) -> (u64, u64) {
        let row = &self.confusion[expert];
        (row.iter().sum(), row[expert])
    }

    /// Share of right choices over all inputs; none without inputs.
    #[must_use]
    pub fn accuracy(&self) -> Option<f64> {
        let right: u64 = (0..self.confusion.len()).map(|i| self.of(i).1).sum();
        (self.rows() > 0).then(|| right as f64 / self.rows() as f64)
    }

    /// Mean over experts of their shares of right choices: every task counts the same.
    #[must_use]
    pub fn mean(&self) -> Option<f64> {
        let shares: Vec<f64> = (0..self.confusion.len())
            .map(|i| self.of(i))
            .filter(|(n, _)| *n > 0)
            .map(|(n, right)| right as f64 / n as f64)
            .collect();
        (!shares.is_empty()).then(|| shares.iter().sum::<f64>() / shares.len() as f64)
    }
}

/// What the choices bring on one task, where the experts' scores on its examples are known.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Worth {
    /// Examples.
    pub rows: u64,
    /// Mean score of the experts that were chosen.
    pub chosen: f64,
    /// Mean score of the task's own expert.
    pub own: f64,
    /// Mean score of the best expert of each example.
    pub best: f64,
}

impl Worth {
    /// Of scores per example and expert, larger is better; an expert without one gets nothing (it has no head for the task,
    /// and a wrong head is a wrong answer), and so does a choice of none. `own` is the task's expert.
    #[must_use]
    pub fn new(scores: &[Vec<Option<f64>>], own: usize, decided: &[Decision]) -> Self {
        let mut made = Self::default();
        for (row, decision) in scores.iter().zip(decided) {
            let of = |i: usize| row.get(i).copied().flatten().unwrap_or(0.0);
            made.rows += 1;
            made.chosen += decision.expert.map_or(0.0, of);
            made.own += of(own);
            made.best += row.iter().flatten().copied().fold(of(own), f64::max);
        }
        let n = made.rows.max(1) as f64;
        made.chosen /= n;
        made.own /= n;
        made.best /= n;
        made
    }

    /// What is lost against the task's own expert.
    #[must_use]
    pub fn regret(&self) -> f64 {
        self.own - self.chosen
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_and_what_mistakes_cost() {
        let to = |i: Option<usize>| match i {
            Some(i) => Decision::of_weights((0..2).map(|e| f32::from(u8::from(e == i))).collect()),
            None => Decision::none(2),
        };
        let decided = [to(Some(0)), to(Some(1)), to(None), to(Some(1))];
        let found = Assessed::new(2, &[0, 0, 0, 1], &decided);
        assert_eq!(found.confusion, [vec![1, 1, 1], vec![0, 1, 0]]);
        assert_eq!(found.accuracy(), Some(0.5));
        assert!((found.mean().unwrap() - 2.0 / 3.0).abs() < 1e-12);
        assert_eq!(Assessed::new(2, &[], &[]).accuracy(), None);
        // The first goes to its own expert, the second to one that scores, the third to none, the fourth to one without a
        // score for the task.
        let scores = [
            vec![Some(1.0), Some(0.0)],
            vec![Some(0.0), Some(1.0)],
            vec![Some(1.0), Some(1.0)],
            vec![Some(1.0), None],
        ];
        let worth = Worth::new(&scores, 0, &decided);
        assert_eq!((worth.chosen, worth.own, worth.best), (0.5, 0.75, 1.0));
        assert_eq!(worth.regret(), 0.25);
    }
}
