//! Small quadratic programs, exactly: `min x'Qx/2 + q'x` over `x >= 0`, with or without `sum x = 1`, by active sets.
//!
//! Variables are scaled so that the diagonal of Q is one: gradients whose lengths lie a million times apart are as easy
//! as equal ones. A ridge of 1e-13 of that diagonal makes dependent columns solvable; it moves the objective by less than
//! rounding does.

use polyloom_core::linalg::{Matrix, solve_definite};

use super::method::Unsolved;

/// Added to the scaled diagonal.
const RIDGE: f64 = 1e-13;

/// A program over `n` variables.
#[derive(Debug, Clone)]
pub struct Program {
    /// `[n, n]`, symmetric and positive semidefinite.
    pub quadratic: Matrix,
    /// `[n]`.
    pub linear: Vec<f64>,
    /// Whether the variables sum to one.
    pub simplex: bool,
}

impl Program {
    /// The solution.
    ///
    /// # Errors
    /// Values that are not finite, or no end in sight.
    pub fn solve(&self) -> Result<Vec<f64>, Unsolved> {
        let n = self.linear.len();
        let finite = |x: &[f64]| x.iter().all(|v| v.is_finite());
        if !finite(&self.quadratic.data) || !finite(&self.linear) {
            return Err(Unsolved("a dot product is not finite".into()));
        }
        let most = (0..n).fold(0.0f64, |m, i| m.max(self.quadratic.data[i * n + i]));
        let scale: Vec<f64> = (0..n)
            .map(|i| match self.quadratic.data[i * n + i] {
                d if d > 0.0 => 1.0 / d.sqrt(),
                _ if most > 0.0 => 1.0 / most.sqrt(),
                _ => 1.0,
            })
            .collect();
        let mut q = self
            .quadratic
            .clone()
            .scale_rows(&scale)
            .scale_columns(&scale);
        for i in 0..n {
            q.data[i * n + i] += RIDGE;
        }
        let linear = self.linear.iter().zip(&scale).map(|(l, s)| l * s).collect();
        let mut search = Search {
            n,
            q,
            linear,
            sum: self.simplex.then(|| scale.clone()),
            x: vec![0.0; n],
            free: vec![false; n],
        };
        search.run()?;
        let mut x: Vec<f64> = search.x.iter().zip(&scale).map(|(x, s)| x * s).collect();
        if self.simplex {
            let sum: f64 = x.iter().sum();
            x.iter_mut().for_each(|x| *x /= sum);
        }
        Ok(x)
    }
}

/// The search for the active set, in scaled variables.
struct Search {
    n: usize,
    q: Matrix,
    linear: Vec<f64>,
    /// Coefficients of the sum that is one.
    sum: Option<Vec<f64>>,
    x: Vec<f64>,
    free: Vec<bool>,
}

impl Search {
    fn run(&mut self) -> Result<(), Unsolved> {
        if let Some(c) = &self.sum {
            // The best corner.
            let at = |i: usize| {
                let x = 1.0 / c[i];
                x * (0.5 * self.q.data[i * self.n + i] * x + self.linear[i])
            };
            let best = (0..self.n).min_by(|a, b| at(*a).total_cmp(&at(*b)));
            let Some(best) = best else { return Ok(()) };
            self.x[best] = 1.0 / c[best];
            self.free[best] = true;
        }
        let mut useless = vec![false; self.n];
        for _ in 0..50 * (self.n + 1) {
            let Some(enter) = self.entering(&useless) else {
                return Ok(());
            };
            self.free[enter] = true;
            if self.settle()? && self.free[enter] {
                useless.fill(false);
            } else {
                // It left at once: what it would gain is rounding.
                useless[enter] = true;
            }
        }
        Err(Unsolved(
            "the active set of the weights did not settle".into(),
        ))
    }

    /// The variable at 0 that lowers the objective fastest, if any does by more than rounding.
    fn entering(&self, useless: &[bool]) -> Option<usize> {
        let n = self.n;
        let row = |i: usize| &self.q.data[i * n..][..n];
        let slope = |i: usize| -> f64 {
            row(i).iter().zip(&self.x).map(|(q, x)| q * x).sum::<f64>() + self.linear[i]
        };
        let size = |i: usize| -> f64 {
            let of = row(i).iter().zip(&self.x).map(|(q, x)| (q * x).abs());
            of.sum::<f64>() + self.linear[i].abs()
        };
        let (mut level, mut level_size) = (0.0, 0.0);
        if self.sum.is_some() {
            for i in (0..n).filter(|i| self.free[*i]) {
                level += self.x[i] * slope(i);
                level_size += self.x[i] * size(i);
            }
        }
        let mut best: Option<(usize, f64)> = None;
        for i in (0..n).filter(|i| !self.free[*i] && !useless[*i]) {
            let c = self.sum.as_ref().map_or(0.0, |c| c[i]);
            let gain = slope(i) - level * c;
            let rounding = 64.0 * f64::EPSILON * (size(i) + level_size * c);
            if gain < -rounding && best.is_none_or(|(_, b)| gain < b) {
                best = Some((i, gain));
            }
        }
        best.map(|(i, _)| i)
    }

    /// Moves to the best point of the free variables, letting go those that reach 0; false if nothing moved.
    fn settle(&mut self) -> Result<bool, Unsolved> {
        let mut moved = false;
        loop {
            let set: Vec<usize> = (0..self.n).filter(|i| self.free[*i]).collect();
            if set.is_empty() {
                return Ok(moved);
            }
            let y = self.best_of(&set)?;
            // As far as all stay at 0 or above.
            let mut share = 1.0f64;
            let mut leaves = None;
            for (&i, &y) in set.iter().zip(&y) {
                if y <= 0.0 {
                    let most = self.x[i] / (self.x[i] - y);
                    if most < share || leaves.is_none() {
                        (share, leaves) = (most.clamp(0.0, 1.0), Some(i));
                    }
                }
            }
            for (&i, &y) in set.iter().zip(&y) {
                self.x[i] += share * (y - self.x[i]);
            }
            moved |= share > 0.0;
            let Some(leaves) = leaves else {
                return Ok(moved);
            };
            self.x[leaves] = 0.0;
            self.free[leaves] = false;
        }
    }

    /// The minimum over some variables without bounds.
    fn best_of(&self, set: &[usize]) -> Result<Vec<f64>, Unsolved> {
        let (n, k) = (self.n, set.len());
        let mut q = Matrix::zeros(k, k);
        for (r, &i) in set.iter().enumerate() {
            for (c, &j) in set.iter().enumerate() {
                q.data[r * k + c] = self.q.data[i * n + j];
            }
        }
        let of = |v: &[f64]| set.iter().map(|i| v[*i]).collect::<Vec<f64>>();
        let mut data = of(&self.linear);
        let sum = self.sum.as_ref().map(|c| of(c));
        data.extend(sum.iter().flatten());
        let rows = data.len() / k;
        let right = Matrix {
            rows,
            cols: k,
            data,
        };
        let solved = solve_definite(&q, right)
            .ok_or_else(|| Unsolved("dot products of no real vectors".into()))?;
        let (by_linear, by_sum) = solved.data.split_at(k);
        let Some(c) = sum else {
            return Ok(by_linear.iter().map(|x| -x).collect());
        };
        let dot = |x: &[f64]| c.iter().zip(x).map(|(a, b)| a * b).sum::<f64>();
        let level = (1.0 + dot(by_linear)) / dot(by_sum);
        let both = by_sum.iter().zip(by_linear);
        Ok(both.map(|(s, l)| level * s - l).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use polyloom_core::rng::Stream;

    fn program(n: usize, data: Vec<f64>, linear: Vec<f64>, simplex: bool) -> Program {
        let quadratic = Matrix {
            rows: n,
            cols: n,
            data,
        };
        Program {
            quadratic,
            linear,
            simplex,
        }
    }

    fn value(p: &Program, x: &[f64]) -> f64 {
        let n = x.len();
        let square: f64 = (0..n * n)
            .map(|k| x[k / n] * p.quadratic.data[k] * x[k % n])
            .sum();
        0.5 * square + x.iter().zip(&p.linear).map(|(x, l)| x * l).sum::<f64>()
    }

    #[test]
    fn by_hand() {
        // Vectors (1, 0) and (0, 2): the shortest mean is (0.8, 0.4), at 4/5 and 1/5.
        let x = program(2, vec![1.0, 0.0, 0.0, 4.0], vec![0.0; 2], true)
            .solve()
            .unwrap();
        assert!((x[0] - 0.8).abs() < 1e-12 && (x[1] - 0.2).abs() < 1e-12);
        // (x - 1)^2/2 + (y + 1)^2/2 over x, y >= 0.
        let x = program(2, vec![1.0, 0.0, 0.0, 1.0], vec![-1.0, 1.0], false)
            .solve()
            .unwrap();
        assert!((x[0] - 1.0).abs() < 1e-12 && x[1] == 0.0);
        // Opposite and dependent vectors: 1, 2.5, -0.4 of one direction reach 0.
        let v = [1.0, 2.5, -0.4];
        let q = (0..9).map(|k| v[k / 3] * v[k % 3]).collect();
        let p = program(3, q, vec![0.0; 3], true);
        assert!(value(&p, &p.solve().unwrap()).abs() < 1e-15);
        // One zero vector: it alone.
        let p = program(2, vec![4.0, 0.0, 0.0, 0.0], vec![0.0; 2], true);
        assert!(value(&p, &p.solve().unwrap()).abs() < 1e-15);
        assert!(program(1, vec![f64::NAN], vec![0.0], true).solve().is_err());
    }

    /// The best over all supports, by force.
    fn by_force(p: &Program) -> f64 {
        let n = p.linear.len();
        let mut best = f64::INFINITY;
        for mask in 1u32..1 << n {
            let search = Search {
                n,
                q: p.quadratic.clone(),
                linear: p.linear.clone(),
                sum: p.simplex.then(|| vec![1.0; n]),
                x: vec![0.0; n],
                free: vec![false; n],
            };
            let set: Vec<usize> = (0..n).filter(|i| mask >> i & 1 == 1).collect();
            let Ok(y) = search.best_of(&set) else {
                continue;
            };
            if y.iter().all(|y| *y >= 0.0) {
                let mut x = vec![0.0; n];
                set.iter().zip(y).for_each(|(i, y)| x[*i] = y);
                best = best.min(value(p, &x));
            }
        }
        match p.simplex {
            true => best,
            false => best.min(0.0),
        }
    }

    #[test]
    fn agrees_with_all_supports() {
        for case in 0..300u64 {
            let s = Stream::new(case, "qp", 0);
            let (n, dim) = (1 + (case % 6) as usize, 8);
            // Lengths from 1e-3 to 1e3 in every third case.
            let scale = |i: usize| match case % 3 {
                0 => 10f64.powf(6.0 * f64::from(s.uniform(i as u64 + 900)) - 3.0),
                _ => 1.0,
            };
            let g: Vec<Vec<f64>> = (0..n)
                .map(|i| {
                    let at = |d: usize| f64::from(s.normal((i * dim + d) as u64)) * scale(i);
                    (0..dim).map(at).collect()
                })
                .collect();
            let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
            let q: Vec<f64> = (0..n * n).map(|k| dot(&g[k / n], &g[k % n])).collect();
            let linear = (0..n).map(|i| match case % 2 {
                0 => 0.0,
                _ => f64::from(s.normal(i as u64 + 500)) * scale(i),
            });
            let p = program(n, q, linear.collect(), case % 4 < 3);
            let x = p.solve().unwrap();
            assert!(x.iter().all(|x| *x >= 0.0));
            let (found, best) = (value(&p, &x), by_force(&p));
            assert!(found <= best + 1e-9 * best.abs(), "{case}: {found} {best}");
        }
    }
}
