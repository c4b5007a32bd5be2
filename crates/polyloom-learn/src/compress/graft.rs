//! Which entries of a task vector are grafted, learned (Panigrahi et al. 2023).
//!
//! The model is `W0 + g D` with `g = sigmoid(z)`; the starting patch has `z = +bias` inside and `-bias` outside. A pass moves z
//! against the mean gradient of the loss, and the graft of a pass are the entries of the largest z. Differences to the released
//! code: the number of entries is held (theirs changes), a step is in units of the n-th largest one and cut at two of them
//! (theirs has a rate of 1e7 against a slope of the sigmoid near 1e-4, which is constant where it starts), and the rate
//! halves when the score falls.

use super::judge::Score;
use super::make::moved;
use crate::error::Result;

/// How a graft is learned.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Settings {
    /// Entries at most.
    pub entries: usize,
    /// z of the starting patch.
    pub bias: f32,
    /// Rate of a pass.
    pub rate: f32,
    /// Passes.
    pub passes: u32,
}

/// A pass: its number (from 1), the score of its graft, whether that is the best so far.
#[derive(Debug, Clone, PartialEq)]
pub struct Pass {
    /// Its number, from 1.
    pub pass: u32,
    /// The score of its graft.
    pub score: Score,
    /// Whether no graft before it was better.
    pub best: bool,
}

/// The gradient of the loss at a graft, number by number; the second is the pass.
pub type Gradient<'a> = &'a mut dyn FnMut(&[f32], u32) -> Result<Vec<f32>>;

/// Learns a graft. Entries that did not move are never grafted. `gradient` gives the mean gradient of the weights at a graft
/// `g` for a pass (numbered from 0), `judge` the score of a graft of whole entries; `watch` sees every pass.
///
/// Memory: the task vector, z, a gradient and a mask.
///
/// # Errors
/// What `gradient` and `judge` report, [`polyloom_core::Error::Interrupted`] where `watch` stopped it.
pub fn learn(
    settings: Settings,
    delta: &[f32],
    start: &[bool],
    gradient: Gradient<'_>,
    judge: &mut dyn FnMut(&[bool]) -> Result<Score>,
    watch: &mut dyn FnMut(&Pass) -> bool,
) -> Result<(Vec<bool>, Score)> {
    let side = |p: &bool| if *p { settings.bias } else { -settings.bias };
    let mut z: Vec<f32> = start.iter().map(side).collect();
    let mut best = start.to_vec();
    let mut best_score = judge(start)?;
    let mut before = best_score.clone();
    let mut rate = settings.rate;
    for pass in 0..settings.passes {
        let g: Vec<f32> = z.iter().map(|z| 1.0 / (1.0 + (-z).exp())).collect();
        let mut push = gradient(&g, pass)?;
        push.iter_mut().zip(delta).for_each(|(p, d)| *p *= -d);
        let unit = largest(&push, settings.entries);
        if unit <= 0.0 {
            break;
        }
        for (z, p) in z.iter_mut().zip(&push) {
            *z += rate * (p / unit).clamp(-2.0, 2.0);
        }
        let graft = first(&z, delta, settings.entries);
        let score = judge(&graft)?;
        let better = score.beats(&best_score);
        if before.beats(&score) {
            rate /= 2.0;
        }
        before = score.clone();
        if better {
            (best, best_score) = (graft, score.clone());
        }
        let told = Pass {
            pass: pass + 1,
            score,
            best: better,
        };
        if !watch(&told) {
            return Err(polyloom_core::Error::Interrupted.into());
        }
    }
    Ok((best, best_score))
}

/// The n-th largest magnitude.
fn largest(values: &[f32], n: usize) -> f32 {
    let mut sizes: Vec<f32> = values.iter().map(|x| x.abs()).collect();
    if sizes.is_empty() {
        return 0.0;
    }
    let at = sizes.len() - n.clamp(1, sizes.len());
    *sizes.select_nth_unstable_by(at, f32::total_cmp).1
}

/// The entries of the largest z among those that moved; of equals the first.
fn first(z: &[f32], delta: &[f32], n: usize) -> Vec<bool> {
    let mut order: Vec<u32> = (0u32..)
        .zip(delta)
        .filter(|(_, d)| **d != 0.0)
        .map(|(i, _)| i)
        .collect();
    let mut mask = vec![false; z.len()];
    let n = n.min(order.len());
    if n == 0 {
        return mask;
    }
    let by = |a: &u32, b: &u32| z[*b as usize].total_cmp(&z[*a as usize]).then(a.cmp(b));
    if n < order.len() {
        order.select_nth_unstable_by(n - 1, by);
    }
    order[..n].iter().for_each(|i| mask[*i as usize] = true);
    mask
}

/// The starting patch: of the entries that moved most as many as may be grafted.
#[must_use]
pub fn start(delta: &[f32], density: f64) -> Vec<bool> {
    moved(delta, density)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn planted_coordinates_are_found() {
        // A linear model of 1,000 weights, of which three explain the answers; the others moved more, and do harm.
        let s = polyloom_core::rng::Stream::new(9, "graft", 0);
        let planted = [17usize, 404, 901];
        let size = |i: u64| 1.5 + 0.1 * s.uniform(2000 + i);
        let noise = |i: u64| {
            if s.uniform(i) < 0.5 {
                size(i)
            } else {
                -size(i)
            }
        };
        let mut delta: Vec<f32> = (0..1000).map(noise).collect();
        planted.iter().for_each(|i| delta[*i] = 1.0);
        let rows: Vec<Vec<f32>> = (0..2048)
            .map(|r| (0..1000).map(|i| s.normal(5000 + 1000 * r + i)).collect())
            .collect();
        let right = |x: &[f32]| planted.iter().map(|i| x[*i]).sum::<f32>();
        let said = |x: &[f32], g: &dyn Fn(usize) -> f32| -> f32 {
            (0..1000).map(|i| x[i] * g(i) * delta[i]).sum()
        };
        let mut gradient = |g: &[f32], _: u32| {
            let mut found = vec![0f32; 1000];
            for x in &rows {
                let error = said(x, &|i| g[i]) - right(x);
                found
                    .iter_mut()
                    .zip(x)
                    .for_each(|(f, x)| *f += 2.0 * error * x / 2048.0);
            }
            Ok(found)
        };
        let mut judge = |mask: &[bool]| {
            let off =
                |x: &Vec<f32>| (said(x, &|i| f32::from(u8::from(mask[i]))) - right(x)).powi(2);
            let loss = rows.iter().map(|x| f64::from(off(x))).sum::<f64>() / 2048.0;
            Ok(Score {
                metric: "mse".into(),
                higher: false,
                value: loss,
                rows: Vec::new(),
                loss,
                ece: None,
            })
        };
        for (bias, moved) in [(2.0, false), (2.0, true), (10.0, true)] {
            let settings = Settings {
                entries: 3,
                bias,
                rate: 1.0,
                passes: 40,
            };
            let patch = if moved {
                start(&delta, 0.003)
            } else {
                vec![false; 1000]
            };
            let (mask, score) = learn(
                settings,
                &delta,
                &patch,
                &mut gradient,
                &mut judge,
                &mut |_| true,
            )
            .unwrap();
            let found: Vec<usize> = (0..1000).filter(|i| mask[*i]).collect();
            assert_eq!(found, planted, "{bias}");
            assert!(score.value < 1e-9);
        }
    }

    #[test]
    fn entries_that_did_not_move_stay_out() {
        assert_eq!(
            first(&[3.0, 2.0, 1.0, 2.0], &[0.0, 1.0, 1.0, 1.0], 2),
            [false, true, false, true]
        );
        assert_eq!(first(&[3.0, 2.0], &[0.0, 1.0], 5), [false, true]);
        assert_eq!(largest(&[1.0, -4.0, 2.0], 2), 2.0);
    }
}
