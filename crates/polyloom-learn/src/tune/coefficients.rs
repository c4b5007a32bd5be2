//! The numbers that are learned.

use serde_json::{Value as Json, json};

/// Coefficients `[rows, experts]`: row 0 for all tensors, or `groups` rows for every tensor.
#[derive(Debug, Clone, PartialEq)]
pub struct Coefficients {
    /// The numbers as they are learned, row by row.
    pub raw: Vec<f32>,
    /// Experts.
    pub experts: usize,
    /// They act as if they were in 0 to 1.
    pub clamp: bool,
}

impl Coefficients {
    /// `rows` rows of `init`.
    #[must_use]
    pub fn new(rows: usize, experts: usize, init: f32, clamp: bool) -> Self {
        Self {
            raw: vec![init; rows * experts],
            experts,
            clamp,
        }
    }

    /// Rows.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.raw.len() / self.experts.max(1)
    }

    /// The numbers as they act.
    #[must_use]
    pub fn acting(&self) -> Vec<f32> {
        let of = |x: &f32| if self.clamp { x.clamp(0.0, 1.0) } else { *x };
        self.raw.iter().map(of).collect()
    }

    /// Gradients of what is learned from those of what acts: 0 outside of 0 to 1 where it is clamped, as PyTorch's `clamp`
    /// has it.
    pub fn through(&self, gradients: &mut [f32]) {
        if self.clamp {
            for (g, x) in gradients.iter_mut().zip(&self.raw) {
                if !(0.0..=1.0).contains(x) {
                    *g = 0.0;
                }
            }
        }
    }

    /// `factor * mean over rows of |row|_p`, and its gradient added to `gradients`.
    pub fn penalty(&self, factor: f64, p: f64, gradients: &mut [f32]) -> f64 {
        if factor == 0.0 || self.raw.is_empty() {
            return 0.0;
        }
        let share = factor / self.rows() as f64;
        let acting = self.acting();
        let rows = acting.chunks_exact(self.experts);
        let mut total = 0.0;
        for (row, g) in rows.zip(gradients.chunks_exact_mut(self.experts)) {
            let powers: f64 = row.iter().map(|c| f64::from(c.abs()).powf(p)).sum();
            let norm = powers.powf(1.0 / p);
            total += norm;
            if norm > 0.0 {
                for (g, c) in g.iter_mut().zip(row).filter(|(_, c)| **c != 0.0) {
                    let c = f64::from(*c);
                    *g += (share * c.signum() * (c.abs() / norm).powf(p - 1.0)) as f32;
                }
            }
        }
        share * total
    }

    /// As `coefficients.json` holds them: for every expert its mean, and every row with the tensor it is for (`null`: all)
    /// and its group.
    #[must_use]
    pub fn json(&self, experts: &[String], tensors: &[&str], groups: usize) -> Json {
        let acting = self.acting();
        let rows: Vec<Json> = acting
            .chunks_exact(self.experts.max(1))
            .enumerate()
            .map(|(i, row)| {
                let tensor = tensors.get(i / groups.max(1));
                let mut line = json!({"tensor": tensor, "values": row});
                if groups > 1 {
                    line["group"] = json!(i % groups);
                }
                line
            })
            .collect();
        let means: serde_json::Map<String, Json> = experts
            .iter()
            .zip(self.means())
            .map(|(name, mean)| (name.clone(), json!(mean)))
            .collect();
        json!({"experts": experts, "means": means, "rows": rows})
    }

    /// Mean over rows of every expert's coefficients as they act.
    #[must_use]
    pub fn means(&self) -> Vec<f64> {
        let acting = self.acting();
        let rows = self.rows().max(1) as f64;
        let of = |e: usize| {
            let column = acting.iter().skip(e).step_by(self.experts);
            column.map(|c| f64::from(*c)).sum::<f64>() / rows
        };
        (0..self.experts).map(of).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clamped_numbers_act_inside_and_feel_nothing_outside() {
        let mut c = Coefficients::new(2, 2, 0.3, true);
        c.raw = vec![-0.5, 0.5, 1.0, 1.5];
        assert_eq!(c.acting(), [0.0, 0.5, 1.0, 1.0]);
        let mut g = [1.0; 4];
        c.through(&mut g);
        assert_eq!(g, [0.0, 1.0, 1.0, 0.0]);
        assert_eq!(c.means(), [0.5, 0.75]);
    }

    #[test]
    fn the_penalty_by_hand() {
        let mut c = Coefficients::new(2, 2, 0.0, false);
        c.raw = vec![3.0, -4.0, 0.0, 0.0];
        let mut g = [0.0; 4];
        // Two rows of lengths 5 and 0: 0.5 * 2.5.
        assert!((c.penalty(0.5, 2.0, &mut g) - 1.25).abs() < 1e-12);
        assert!((g[0] - 0.15).abs() < 1e-6 && (g[1] + 0.2).abs() < 1e-6 && g[2..] == [0.0, 0.0]);
        let mut g = [0.0; 4];
        assert!((c.penalty(0.5, 1.0, &mut g) - 1.75).abs() < 1e-12);
        assert_eq!(g, [0.25, -0.25, 0.0, 0.0]);
    }
}
