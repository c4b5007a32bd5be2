//! The numbers that are learned, and the coefficients that they make.

use serde_json::{Value as Json, json};

/// How learned numbers become coefficients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Each is a coefficient.
    Free,
    /// Each is a coefficient, which acts as if it were in 0 to 1.
    Clamped,
    /// A position between the experts (Self Positioning, Li et al. 2024): a row of learned numbers is `z` of every expert,
    /// then `log mu`, and the coefficients are `mu softmax(z)`: a direction inside of the experts' hull, and a length that
    /// stays positive. The paper's own parametrisation could not be read; the logarithm is our choice.
    Position,
}

/// Coefficients `[rows, experts]`: row 0 for all tensors, or `groups` rows for every tensor.
#[derive(Debug, Clone, PartialEq)]
pub struct Coefficients {
    /// The numbers as they are learned, row by row ([`Coefficients::width`] each).
    pub raw: Vec<f32>,
    /// Experts.
    pub experts: usize,
    /// How they become coefficients.
    pub form: Form,
}

impl Coefficients {
    /// `rows` rows that begin with `init`: the value of every coefficient, of a position `mu` (with equal shares). Above 0 for a
    /// position.
    #[must_use]
    pub fn new(rows: usize, experts: usize, init: f32, form: Form) -> Self {
        let row = match form {
            Form::Free | Form::Clamped => vec![init; experts],
            Form::Position => {
                let mut row = vec![0.0; experts];
                row.push(init.ln());
                row
            }
        };
        Self {
            raw: row.repeat(rows),
            experts,
            form,
        }
    }

    /// Learned numbers of a row.
    #[must_use]
    pub fn width(&self) -> usize {
        self.experts + usize::from(self.form == Form::Position)
    }

    /// Rows.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.raw.len() / self.width().max(1)
    }

    /// The numbers as they act, `[rows, experts]`.
    #[must_use]
    pub fn acting(&self) -> Vec<f32> {
        match self.form {
            Form::Free => self.raw.clone(),
            Form::Clamped => self.raw.iter().map(|x| x.clamp(0.0, 1.0)).collect(),
            Form::Position => {
                let rows = self.raw.chunks_exact(self.width());
                rows.flat_map(|row| {
                    let (mu, shares) = position(row);
                    shares.into_iter().map(move |p| (mu * p) as f32)
                })
                .collect()
            }
        }
    }

    /// Gradients of what is learned from those of what acts.
    ///
    /// - Clamped: 0 outside of 0 to 1, as PyTorch's `clamp` has it.
    /// - A position with the shares p: `dz_i = mu p_i (g_i - sum_j p_j g_j)`, `dlog mu = mu sum_j p_j g_j`.
    #[must_use]
    pub fn through(&self, gradients: &[f32]) -> Vec<f32> {
        match self.form {
            Form::Free => gradients.to_vec(),
            Form::Clamped => {
                let both = gradients.iter().zip(&self.raw);
                both.map(|(g, x)| if (0.0..=1.0).contains(x) { *g } else { 0.0 })
                    .collect()
            }
            Form::Position => {
                let rows = self.raw.chunks_exact(self.width());
                let mut found = Vec::with_capacity(self.raw.len());
                for (row, g) in rows.zip(gradients.chunks_exact(self.experts.max(1))) {
                    let (mu, shares) = position(row);
                    let mean: f64 = shares.iter().zip(g).map(|(p, g)| p * f64::from(*g)).sum();
                    let each = shares.iter().zip(g);
                    found.extend(each.map(|(p, g)| (mu * p * (f64::from(*g) - mean)) as f32));
                    found.push((mu * mean) as f32);
                }
                found
            }
        }
    }

    /// `factor * mean over rows of |row|_p` of what acts, and its gradient added to `gradients`.
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
    /// and its group; of a position its `mu` too.
    #[must_use]
    pub fn json(&self, experts: &[String], tensors: &[&str], groups: usize) -> Json {
        let acting = self.acting();
        let learned = self.raw.chunks_exact(self.width().max(1));
        let rows: Vec<Json> = acting
            .chunks_exact(self.experts.max(1))
            .zip(learned)
            .enumerate()
            .map(|(i, (row, learned))| {
                let tensor = tensors.get(i / groups.max(1));
                let mut line = json!({"tensor": tensor, "values": row});
                if groups > 1 {
                    line["group"] = json!(i % groups);
                }
                if self.form == Form::Position {
                    line["mu"] = json!(position(learned).0);
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

/// `mu` and the shares of a row of learned numbers.
fn position(row: &[f32]) -> (f64, Vec<f64>) {
    let Some((log, z)) = row.split_last() else {
        return (0.0, Vec::new());
    };
    let top = z.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut shares: Vec<f64> = z.iter().map(|x| f64::from(x - top).exp()).collect();
    let sum: f64 = shares.iter().sum();
    shares.iter_mut().for_each(|p| *p /= sum);
    (f64::from(*log).exp(), shares)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clamped_numbers_act_inside_and_feel_nothing_outside() {
        let mut c = Coefficients::new(2, 2, 0.3, Form::Clamped);
        c.raw = vec![-0.5, 0.5, 1.0, 1.5];
        assert_eq!(c.acting(), [0.0, 0.5, 1.0, 1.0]);
        assert_eq!(c.through(&[1.0; 4]), [0.0, 1.0, 1.0, 0.0]);
        assert_eq!(c.means(), [0.5, 0.75]);
    }

    #[test]
    fn a_position_by_hand() {
        let mut c = Coefficients::new(1, 2, 2.0, Form::Position);
        assert_eq!((c.rows(), c.width(), c.raw.len()), (1, 3, 3));
        assert!(c.acting().iter().all(|a| (a - 1.0).abs() < 1e-6));
        // Shares 3/4 and 1/4, mu 2: the coefficients are 1.5 and 0.5.
        c.raw = vec![3f32.ln(), 0.0, 2f32.ln()];
        let near = |found: &[f32], wanted: &[f32]| {
            assert_eq!(found.len(), wanted.len());
            let mut both = found.iter().zip(wanted);
            assert!(both.all(|(a, b)| (a - b).abs() < 1e-6), "{found:?}");
        };
        near(&c.acting(), &[1.5, 0.5]);
        // g = (4, 8): the mean is 5; 1.5 (4 - 5), 0.5 (8 - 5), 2 * 5.
        near(&c.through(&[4.0, 8.0]), &[-1.5, 1.5, 10.0]);
        let told = c.json(&["a".into(), "b".into()], &[], 1);
        assert!((told["rows"][0]["mu"].as_f64().unwrap() - 2.0).abs() < 1e-6);
        // Rows of their own.
        let mut c = Coefficients::new(2, 2, 1.0, Form::Position);
        c.raw = vec![0.0, 0.0, 0.0, 3f32.ln(), 0.0, 2f32.ln()];
        near(&c.acting(), &[0.5, 0.5, 1.5, 0.5]);
        near(
            &c.through(&[1.0, 3.0, 4.0, 8.0]),
            &[-0.5, 0.5, 2.0, -1.5, 1.5, 10.0],
        );
    }

    #[test]
    fn gradients_of_a_position_are_those_of_differences() {
        let mut c = Coefficients::new(2, 3, 1.0, Form::Position);
        c.raw = vec![0.3, -1.0, 0.7, 0.4, 2.0, 0.1, -0.6, -0.9];
        // A curved function of the coefficients: the sum of a w + a^2.
        let w = [0.5f64, -2.0, 1.0, 3.0, 0.25, -1.0];
        let value = |c: &Coefficients| -> f64 {
            let acting = c.acting();
            let each = acting.iter().zip(w).map(|(a, w)| (f64::from(*a), w));
            each.map(|(a, w)| a * w + a * a).sum()
        };
        let acting = c.acting();
        let g: Vec<f32> = acting
            .iter()
            .zip(w)
            .map(|(a, w)| w as f32 + 2.0 * a)
            .collect();
        let found = c.through(&g);
        for (i, found) in found.iter().enumerate() {
            let moved = |by: f32| {
                let mut c = c.clone();
                c.raw[i] += by;
                value(&c)
            };
            let slope = (moved(5e-3) - moved(-5e-3)) / 1e-2;
            assert!(
                (slope - f64::from(*found)).abs() < 2e-3,
                "{i}: {slope} {found}"
            );
        }
    }

    #[test]
    fn numbers_of_any_size_make_a_position() {
        let mut c = Coefficients::new(1, 3, 1.0, Form::Position);
        c.raw = vec![1e4, -1e4, 1e4, -50.0];
        let acting = c.acting();
        assert!(acting.iter().all(|a| a.is_finite() && *a >= 0.0));
        assert_eq!(acting[1], 0.0);
        assert!(c.through(&[1.0, -1.0, 2.0]).iter().all(|g| g.is_finite()));
    }

    #[test]
    fn the_penalty_by_hand() {
        let mut c = Coefficients::new(2, 2, 0.0, Form::Free);
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
