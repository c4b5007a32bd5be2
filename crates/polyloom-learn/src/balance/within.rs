//! Weights inside of a loss: tokens by task (`mft_loss`), rows by their loss (`sample_reweight`), elements of a shared
//! representation's gradient (`graddrop`), and the regulariser of `rep_mtl` on it.
//!
//! These act where a loss or a representation is made, not where gradients of tasks meet: they are functions, not
//! balancers.

use super::method::softmax;

/// How token losses of several tasks become one (Di et al., KDD 2024; MFTCoder `loss_utils.py`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mft {
    /// Mean over all tokens (`case1`).
    Tokens,
    /// Mean over rows of the mean over a row's tokens (`case2`).
    Rows,
    /// For every task that is here the mean over its tokens; their mean by the tasks' weights (`case3`; with CoBa's weights
    /// this is CoBa's loss).
    TasksByTokens,
    /// For every task that is here the mean over its rows of the mean over a row's tokens (`case4`).
    TasksByRows,
}

/// The factor of every token's loss, `[rows, tokens]`; the loss is the sum of the products. Factors of a batch without any
/// token that counts are 0.
///
/// `mask` `[rows, tokens]` is 1 where a token counts, `task` the task of every row, `weights` those of the tasks.
///
/// # Panics
/// If the mask is not whole rows, or a task has no weight.
pub fn mft(mode: Mft, mask: &[f64], task: &[usize], weights: &[f64]) -> Vec<f64> {
    let width = mask.len() / task.len().max(1);
    assert_eq!(width * task.len(), mask.len(), "mask: whole rows");
    let over = |x: f64, by: f64| if by > 0.0 { x / by } else { 0.0 };
    let of_row: Vec<f64> = mask.chunks(width.max(1)).map(|r| r.iter().sum()).collect();
    let mut tokens = vec![0.0; weights.len()];
    let mut rows = vec![0.0; weights.len()];
    for (t, n) in task.iter().zip(&of_row) {
        tokens[*t] += n;
        rows[*t] += if *n > 0.0 { 1.0 } else { 0.0 };
    }
    let (all, filled): (f64, f64) = (tokens.iter().sum(), rows.iter().sum());
    let here = weights.iter().zip(&rows).filter(|(_, n)| **n > 0.0);
    let total: f64 = here.map(|(w, _)| w).sum();
    let factor = |row: usize| {
        let t = task[row];
        match mode {
            Mft::Tokens => over(1.0, all),
            Mft::Rows => over(1.0, filled * of_row[row]),
            Mft::TasksByTokens => over(weights[t], total * tokens[t]),
            Mft::TasksByRows => over(weights[t], total * rows[t] * of_row[row]),
        }
    };
    let of = mask.iter().enumerate();
    of.map(|(i, m)| m * factor(i / width.max(1))).collect()
}

/// The focal loss of rows: mean over rows of the mean over a row's tokens of `(1 - exp(-l))^gamma l`.
///
/// # Panics
/// If the mask is not whole rows.
pub fn focal(losses: &[f64], mask: &[f64], rows: usize, gamma: f64) -> f64 {
    let factors = mft(Mft::Rows, mask, &vec![0; rows], &[1.0]);
    let of = losses.iter().zip(factors);
    of.map(|(l, f)| f * focal_term(*l, gamma).0).sum()
}

/// `(1 - exp(-l))^gamma l` of a cross-entropy, and its slope.
#[must_use]
pub fn focal_term(loss: f64, gamma: f64) -> (f64, f64) {
    let p = (-loss).exp();
    let rest = 1.0 - p;
    if rest <= 0.0 {
        // What is sure has no loss left; without a factor the slope is that of the loss.
        return (0.0, if gamma == 0.0 { 1.0 } else { 0.0 });
    }
    let factor = rest.powf(gamma);
    (factor * loss, factor + gamma * factor / rest * p * loss)
}

/// Which rows count more (Sow et al., ICLR 2025), from the height `h` of a row's loss in [-1, 1].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rows {
    /// `min(h + r, alpha r)`: rows with a low loss count less.
    LinUpper,
    /// `r (1 - h^2)`: those in the middle count more.
    Quadratic,
    /// `r |h|`: those at both ends.
    Extremes,
    /// `h`: those with a high loss.
    Linear,
}

/// Heights of losses: `2 (l - min)/(max - min) - 1`, all 0 where they are equal.
pub fn heights(losses: &[f64]) -> Vec<f64> {
    let least = losses.iter().copied().fold(f64::INFINITY, f64::min);
    let most = losses.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let height = |l: &f64| match most > least {
        true => 2.0 * (l - least) / (most - least) - 1.0,
        false => 0.0,
    };
    losses.iter().map(height).collect()
}

/// Weights of rows, which sum to 1 and have no gradient.
pub fn row_weights(losses: &[f64], rows: Rows, alpha: f64, r: f64) -> Vec<f64> {
    let score = |h: f64| match rows {
        Rows::LinUpper => (h + r).min(alpha * r),
        Rows::Quadratic => r * (1.0 - h * h),
        Rows::Extremes => r * h.abs(),
        Rows::Linear => h,
    };
    softmax(
        &heights(losses)
            .into_iter()
            .map(|h| score(h) / r)
            .collect::<Vec<_>>(),
    )
}

/// GradDrop (Chen et al., NeurIPS 2020; LibMTL): the probability that positive parts of a representation's gradient stay,
/// `[width]`, and the gradient that goes back, `[rows, width]`.
///
/// `representation` `[rows, width]`, `gradients` one `[rows, width]` for every task, `uniform` `[width]` draws in [0, 1),
/// `leak` the share of what is dropped that stays. Signs are those of the sum over rows of `gradient * sign(z)`.
///
/// # Panics
/// If the shapes do not fit.
pub fn graddrop(
    representation: &[f32],
    gradients: &[&[f32]],
    uniform: &[f32],
    leak: f64,
) -> (Vec<f64>, Vec<f32>) {
    let width = uniform.len();
    let sign = |z: f32| if z == 0.0 { 0.0 } else { f64::from(z.signum()) };
    let sums: Vec<Vec<f64>> = gradients
        .iter()
        .map(|g| {
            assert_eq!(
                g.len(),
                representation.len(),
                "gradient of a representation"
            );
            let mut sum = vec![0.0; width];
            for (i, (g, z)) in g.iter().zip(representation).enumerate() {
                sum[i % width] += f64::from(*g) * sign(*z);
            }
            sum
        })
        .collect();
    let of = |c: usize, f: fn(f64) -> f64| sums.iter().map(|s| f(s[c])).sum::<f64>();
    let positive: Vec<f64> = (0..width)
        .map(|c| 0.5 * (1.0 + of(c, |x| x) / (of(c, f64::abs) + 1e-7)))
        .collect();
    let mut back = vec![0.0f64; representation.len()];
    for (g, sum) in gradients.iter().zip(&sums) {
        for (i, (b, g)) in back.iter_mut().zip(*g).enumerate() {
            let (s, p, u) = (
                sum[i % width],
                positive[i % width],
                f64::from(uniform[i % width]),
            );
            let stays = (p > u && s > 0.0) || (p < u && s < 0.0);
            *b += f64::from(*g) * if stays { 1.0 } else { leak };
        }
    }
    (positive, back.iter().map(|b| *b as f32).collect())
}

/// The two regularisers of Rep-MTL (Wang et al., ICCV 2025; our definition) on the saliencies `S_t = dL_t/dZ`.
#[derive(Debug, Clone, PartialEq)]
pub struct RepMtl {
    /// Entropy of the tasks' shares of the saliency, mean over positions.
    pub tsr: f64,
    /// Contrast of each task's channel affinities to their mean in the same row against those of other rows.
    pub csa: f64,
    /// Shares of the tasks, `[T, rows, positions]`.
    pub shares: Vec<f64>,
}

/// Values for saliencies `[rows, channels, positions]` of every task (a tabular representation has one position; its shares
/// are then those of rows).
///
/// # Panics
/// If the shapes do not fit.
pub fn rep_mtl(saliencies: &[&[f32]], rows: usize, channels: usize, tau: f64) -> RepMtl {
    let tasks = saliencies.len();
    let positions = saliencies
        .first()
        .map_or(0, |s| s.len() / (rows * channels).max(1));
    let places = rows * positions;
    let at = |t: usize, b: usize, c: usize, p: usize| {
        f64::from(saliencies[t][(b * channels + c) * positions + p])
    };
    let mut shares = vec![0.0; tasks * places];
    for t in 0..tasks {
        for (place, share) in shares[t * places..][..places].iter_mut().enumerate() {
            let (b, p) = (place / positions, place % positions);
            let mean = (0..channels).map(|c| at(t, b, c, p)).sum::<f64>() / channels as f64;
            *share = mean.abs();
        }
    }
    for place in 0..places {
        let sum: f64 = (0..tasks).map(|t| shares[t * places + place]).sum::<f64>() + 1e-8;
        (0..tasks).for_each(|t| shares[t * places + place] /= sum);
    }
    let entropy: f64 = shares.iter().map(|p| -p * (p + 1e-8).ln()).sum();
    // Channel affinities as unit vectors.
    let unit = |mut v: Vec<f64>| {
        let length = v.iter().map(|x| x * x).sum::<f64>().sqrt();
        if length > 0.0 {
            v.iter_mut().for_each(|x| *x /= length);
        }
        v
    };
    let affinity = |t: usize, b: usize| {
        let pair = |k: usize| {
            let of = (0..positions).map(|p| at(t, b, k / channels, p) * at(t, b, k % channels, p));
            of.sum::<f64>()
        };
        unit((0..channels * channels).map(pair).collect())
    };
    let all: Vec<Vec<Vec<f64>>> = (0..tasks)
        .map(|t| (0..rows).map(|b| affinity(t, b)).collect())
        .collect();
    let anchors: Vec<Vec<f64>> = (0..rows)
        .map(|b| {
            let mean = |k: usize| all.iter().map(|m| m[b][k]).sum::<f64>() / tasks as f64;
            unit((0..channels * channels).map(mean).collect())
        })
        .collect();
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let mut csa = 0.0;
    for of_task in &all {
        for (b, m) in of_task.iter().enumerate() {
            let near: Vec<f64> = anchors.iter().map(|a| dot(m, a) / tau).collect();
            csa -= softmax(&near)[b].ln();
        }
    }
    RepMtl {
        tsr: entropy / places as f64,
        csa: csa / (tasks * rows) as f64,
        shares,
    }
}
