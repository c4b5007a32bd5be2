//! How losses of tokens and rows become the loss of a pass: MFTCoder's cases and focal losses (`train.loss`), rows
//! reweighted by their loss (`[train.reweight]`). The arithmetic is that of [`crate::balance::within`].

use polyloom::MergeError;
use serde::{Deserialize, Serialize};

use super::recipe::{Recipe, Train};
use crate::balance::within::{self, Rows};
use crate::error::Result;
use crate::tasks::{Head, HeadKind};

/// How losses become one (Di et al., KDD 2024; MFTCoder `loss_utils.py`). The answer of a head counts as a row of one token, of
/// any number of labels as a row of as many.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Loss {
    /// The mean over all tokens; of heads over all rows.
    #[default]
    Case1,
    /// The mean over rows of the mean over a row's tokens.
    Case2,
    /// Of every task in the pass the mean over its tokens; their mean by `weights.train` of the tasks.
    Case3,
    /// Of every task in the pass the mean over rows of the mean over a row's tokens; their mean by `weights.train`.
    Case4,
    /// As [`Self::Case2`], with `(1 - p)^gamma` before the cross-entropy of a token of probability p.
    FocalSample,
    /// As [`Self::Case3`], with `(1 - exp(-L_t))^gamma` before the weight of a task of loss `L_t`; this factor has no gradient.
    FocalTask,
}

/// `[train.reweight]`: rows of a pass count by their losses (Sow et al., ICLR 2025).
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Reweight {
    /// Which rows count more.
    pub rule: Reweighting,
    /// Largest score of "linupper", times r.
    pub alpha: f64,
    /// r when reweighting begins, and at the last step; it falls evenly.
    pub r: [f64; 2],
    /// Share of the steps before which rows count alike.
    pub warmup: f64,
}

/// Which rows count more: [`Rows`], as the recipe names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Reweighting {
    /// Those with a low loss count less.
    #[default]
    LinUpper,
    /// Those in the middle count more.
    Quadratic,
    /// Those at both ends count more.
    Extremes,
    /// Those with a high loss count more.
    Linear,
}

impl Default for Reweight {
    fn default() -> Self {
        Self {
            rule: Reweighting::default(),
            alpha: 1.0,
            r: [1.0, 0.4],
            warmup: 0.05,
        }
    }
}

/// Whether the keys about losses go together.
///
/// # Errors
/// The first that does not.
pub(super) fn check(t: &Train) -> std::result::Result<(), MergeError> {
    let bad = |what: &str, hint: &str| Err(MergeError::plan("bad-recipe", what).hint(hint));
    if !(t.focal_gamma.is_finite() && t.focal_gamma >= 0.0) {
        return bad("`train.focal_gamma` must be at least 0", "2 is usual");
    }
    if let Some(r) = &t.reweight {
        let positive = |x: f64| x.is_finite() && x > 0.0;
        if !(positive(r.alpha) && r.r.iter().all(|r| positive(*r))) {
            return bad("`train.reweight.alpha` and `r` must be above 0", "");
        }
        if !(0.0..=1.0).contains(&r.warmup) {
            return bad(
                "`train.reweight.warmup` is a share of the steps, 0 to 1",
                "",
            );
        }
        if t.loss == Loss::FocalSample {
            return bad(
                "`train.loss = \"focal_sample\"` and `[train.reweight]` both weigh rows by their loss",
                "leave out one of them",
            );
        }
    }
    if t.fuse.is_some() && (t.loss != Loss::Case1 || t.reweight.is_some()) {
        return bad(
            "`train.fuse` mixes means over rows or tokens; `train.loss` and `[train.reweight]` weigh them",
            "leave out one of them",
        );
    }
    if t.loss != Loss::Case1 && t.balance.is_some() {
        return bad(
            "`train.balance` weighs the goals, and so does `train.loss`",
            "leave out one of them",
        );
    }
    Ok(())
}

/// Refuses heads that a loss is not for.
///
/// # Errors
/// Focal losses of numbers, weights of rows whose losses are not their own, means over rows of maps.
pub(super) fn check_heads(recipe: &Recipe, heads: &[Head]) -> Result<()> {
    let t = &recipe.train;
    for head in heads {
        let what = match head.kind {
            HeadKind::Regression if t.loss == Loss::FocalSample => {
                "`loss = \"focal_sample\"` needs a probability, a number has none"
            }
            HeadKind::Dense(_) if Form::of(t, 1.0) != Form::Tokens => {
                "a map has a loss of all its pixels, not of a single row"
            }
            HeadKind::Embedding if t.loss == Loss::FocalSample || t.reweight.is_some() => {
                "a task that is learned by vectors has no loss of a single row"
            }
            _ => continue,
        };
        let what = format!("task `{}`: {what}", head.task);
        return Err(MergeError::plan("bad-recipe", what)
            .hint("leave the task out, or take another train.loss, without [train.reweight]")
            .into());
    }
    Ok(())
}

/// How the losses of rows become that of a task.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Form {
    /// The mean over tokens.
    Tokens,
    /// The mean over rows of the mean over a row's tokens.
    Rows,
    /// The same with the focal factor.
    Focal(f64),
    /// Rows by weights.
    Weighed(Rows, f64, f64),
}

impl Form {
    /// Of a recipe when a share of the steps is done.
    pub(super) fn of(t: &Train, done: f64) -> Self {
        if let Some(r) = t.reweight.as_ref().filter(|r| done >= r.warmup) {
            let share = ((done - r.warmup) / (1.0 - r.warmup).max(f64::MIN_POSITIVE)).min(1.0);
            let rule = match r.rule {
                Reweighting::LinUpper => Rows::LinUpper,
                Reweighting::Quadratic => Rows::Quadratic,
                Reweighting::Extremes => Rows::Extremes,
                Reweighting::Linear => Rows::Linear,
            };
            return Self::Weighed(rule, r.alpha, r.r[0] + (r.r[1] - r.r[0]) * share);
        }
        match t.loss {
            Loss::FocalSample => Self::Focal(t.focal_gamma),
            Loss::Case2 | Loss::Case4 => Self::Rows,
            // Alike, as after the warm-up: rows, not tokens.
            _ if t.reweight.is_some() => Self::Rows,
            _ => Self::Tokens,
        }
    }

    /// The loss of a task from the losses of its tokens, row after row, and its slope by each; `lengths` are the tokens of the
    /// rows.
    pub(super) fn loss(self, losses: &[f32], lengths: &[usize]) -> (f64, Vec<f32>) {
        self.weighed(losses, lengths, None)
    }

    /// The same where rows have weights, of which one at least is above 0: they multiply what the form makes of the rows,
    /// and all is divided so that the factors sum to what they did before. Of the mean over rows that is
    /// `sum w l / sum w`.
    pub(super) fn weighed(
        self,
        losses: &[f32],
        lengths: &[usize],
        weights: Option<&[f32]>,
    ) -> (f64, Vec<f32>) {
        let losses: Vec<f64> = losses.iter().map(|l| f64::from(*l)).collect();
        let filled = lengths.iter().filter(|n| **n > 0).count() as f64;
        let mut factors = match self {
            Self::Tokens => vec![1.0 / losses.len() as f64; losses.len()],
            Self::Rows | Self::Focal(_) => spread(lengths, |_, n| 1.0 / (filled * n)),
            Self::Weighed(rule, alpha, r) => {
                let mut rest = &losses[..];
                let means = lengths.iter().map(|n| {
                    let (row, after) = rest.split_at(*n);
                    rest = after;
                    row.iter().sum::<f64>() / (*n).max(1) as f64
                });
                let means: Vec<f64> = means.collect();
                let weights = within::row_weights(&means, rule, alpha, r);
                spread(lengths, |row, n| weights[row] / n)
            }
        };
        if let Some(weights) = weights {
            let before: f64 = factors.iter().sum();
            let of_tokens = spread(lengths, |row, _| f64::from(weights[row]));
            let pairs = factors.iter_mut().zip(&of_tokens);
            pairs.for_each(|(factor, weight)| *factor *= weight);
            let after: f64 = factors.iter().sum();
            factors.iter_mut().for_each(|f| *f *= before / after);
        }
        let (mut value, mut slopes) = (0.0, Vec::with_capacity(losses.len()));
        for (loss, factor) in losses.iter().zip(&factors) {
            let (height, slope) = match self {
                Self::Focal(gamma) => within::focal_term(*loss, gamma),
                _ => (*loss, 1.0),
            };
            value += factor * height;
            slopes.push((factor * slope) as f32);
        }
        (value, slopes)
    }
}

/// The factor of every token, row after row, from the number of a row and of its tokens.
fn spread(lengths: &[usize], of_row: impl Fn(usize, f64) -> f64) -> Vec<f64> {
    let of = |(row, n): (usize, &usize)| vec![of_row(row, *n as f64); *n];
    lengths.iter().enumerate().flat_map(of).collect()
}

/// What the loss of a task counts in that of a pass: `rows` and `tokens` are how many it has, `weight` that of its spec.
pub(super) fn share(t: &Train, loss: f64, rows: usize, tokens: usize, weight: f64) -> f64 {
    match t.loss {
        Loss::Case1 if t.reweight.is_some() => rows as f64,
        Loss::Case1 => tokens as f64,
        Loss::Case2 | Loss::FocalSample => rows as f64,
        Loss::Case3 | Loss::Case4 => weight,
        Loss::FocalTask => {
            // A task without a loss counts nothing; not even one of several that have none.
            weight * (1.0 - (-loss).exp()).max(1e-12).powf(t.focal_gamma)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balance::within::{Mft, focal, mft};
    use crate::tasks::Feature;

    /// Tasks with rows of so many tokens; losses are 0.1, 0.2, ...
    const TASKS: [&[usize]; 3] = [&[2, 3], &[1], &[4, 1, 2]];
    const WEIGHTS: [f64; 3] = [1.0, 0.5, 2.0];

    fn recipe(more: &str) -> Recipe {
        let text = format!("[base]\npath = \"m\"\n[train]\ntasks = [\"a\"]\n{more}");
        Recipe::read(&text, "f", &[]).unwrap()
    }

    /// The loss of a pass as a run makes it, task by task.
    fn whole(t: &Train, done: f64) -> f64 {
        let (mut at, mut total, mut parts) = (0, 0.0, Vec::new());
        for (lengths, weight) in TASKS.iter().zip(WEIGHTS) {
            let n: usize = lengths.iter().sum();
            let losses: Vec<f32> = (at..at + n).map(|i| 0.1 * (i + 1) as f32).collect();
            at += n;
            let (loss, slopes) = Form::of(t, done).loss(&losses, lengths);
            assert_eq!(slopes.len(), n);
            let share = share(t, loss, lengths.len(), n, weight);
            total += share;
            parts.push((loss, share));
        }
        parts.iter().map(|(l, s)| l * s / total).sum()
    }

    /// Losses of all rows at once, as the vectors of MFTCoder have them, padded.
    fn padded() -> (Vec<f64>, Vec<f64>, Vec<usize>) {
        let (mut losses, mut mask, mut tasks, mut at) = (Vec::new(), Vec::new(), Vec::new(), 0);
        for (task, lengths) in TASKS.iter().enumerate() {
            for n in *lengths {
                for i in 0..4 {
                    let here = i < *n;
                    at += usize::from(here);
                    losses.push(f64::from(0.1 * at as f32));
                    mask.push(if here { 1.0 } else { 0.0 });
                }
                tasks.push(task);
            }
        }
        (losses, mask, tasks)
    }

    #[test]
    fn a_pass_of_tasks_has_the_loss_of_all_rows_at_once() {
        let (losses, mask, tasks) = padded();
        let cases = [
            ("case1", Mft::Tokens),
            ("case2", Mft::Rows),
            ("case3", Mft::TasksByTokens),
            ("case4", Mft::TasksByRows),
        ];
        for (name, mode) in cases {
            let factors = mft(mode, &mask, &tasks, &WEIGHTS);
            let wanted: f64 = factors.iter().zip(&losses).map(|(f, l)| f * l).sum();
            let found = whole(&recipe(&format!("loss = \"{name}\"\n")).train, 0.0);
            assert!(
                (found - wanted).abs() < 1e-6,
                "{name}: {found} and {wanted}"
            );
        }
        let wanted = focal(&losses, &mask, tasks.len(), 1.5);
        let found = whole(
            &recipe("loss = \"focal_sample\"\nfocal_gamma = 1.5\n").train,
            0.0,
        );
        assert!((found - wanted).abs() < 1e-6, "{found} and {wanted}");
        // Of tasks the token means 0.3, 0.6, 1.0.
        let means = [0.3, 0.6, 1.0];
        let factor = |(l, w): (&f64, &f64)| w * (1.0 - (-l).exp()).powi(2);
        let factors: Vec<f64> = means.iter().zip(&WEIGHTS).map(factor).collect();
        let wanted = means.iter().zip(&factors).map(|(l, f)| l * f).sum::<f64>()
            / factors.iter().sum::<f64>();
        let found = whole(&recipe("loss = \"focal_task\"\n").train, 0.0);
        assert!((found - wanted).abs() < 1e-6, "{found} and {wanted}");
    }

    #[test]
    fn slopes_are_those_of_differences() {
        let lengths = [2usize, 1, 3];
        let losses = [0.3f32, 1.2, 0.1, 2.0, 0.7, 0.9];
        for form in [Form::Tokens, Form::Rows, Form::Focal(2.0), Form::Focal(0.5)] {
            let (_, slopes) = form.loss(&losses, &lengths);
            for (i, given) in slopes.iter().enumerate() {
                let at = |e: f32| {
                    let mut moved = losses;
                    moved[i] += e;
                    form.loss(&moved, &lengths).0
                };
                let slope = (at(1e-3) - at(-1e-3)) / 2e-3;
                assert!((slope - f64::from(*given)).abs() < 1e-3, "{form:?} {i}");
            }
        }
        let (value, slopes) = Form::Focal(2.0).loss(&[0.0], &[1]);
        assert_eq!((value, slopes), (0.0, vec![0.0]));
    }

    #[test]
    fn rows_are_weighed_after_the_warm_up_and_r_falls() {
        let t = recipe("[train.reweight]\nrule = \"linear\"\nwarmup = 0.2\n").train;
        assert_eq!(Form::of(&t, 0.1), Form::Rows);
        let r = |done: f64| match Form::of(&t, done) {
            Form::Weighed(Rows::Linear, 1.0, r) => r,
            other => panic!("{other:?}"),
        };
        assert!((r(0.2) - 1.0).abs() < 1e-12 && (r(0.6) - 0.7).abs() < 1e-12);
        assert!((r(1.0) - 0.4).abs() < 1e-12);
        // Two rows of losses 1 and 3: heights -1 and 1, weights by exp(2).
        let (value, slopes) = Form::of(&t, 0.2).loss(&[0.5, 1.5, 3.0], &[2, 1]);
        let low = 1.0 / (1.0 + 2f64.exp());
        assert!((value - (low + 3.0 * (1.0 - low))).abs() < 1e-9);
        assert!((f64::from(slopes[0]) - low / 2.0).abs() < 1e-6);
    }

    #[test]
    fn keys_that_do_not_go_together_are_refused() {
        let told = |more: &str| {
            let text = format!("[base]\npath = \"m\"\n[train]\ntasks = [\"a\"]\n{more}");
            Recipe::read(&text, "f", &[]).unwrap_err().to_string()
        };
        assert!(told("focal_gamma = -1.0\n").contains("at least 0"));
        assert!(told("[train.reweight]\nr = [1.0, 0.0]\n").contains("must be above 0"));
        assert!(told("[train.reweight]\nwarmup = 1.5\n").contains("share of the steps"));
        let focal = "loss = \"focal_sample\"\n";
        assert!(told(&format!("{focal}[train.reweight]\n")).contains("both weigh rows"));
        assert!(
            told("loss = \"case3\"\n[train.fuse]\nsources = [\"x\"]\n").contains("mixes means")
        );
        let balance = "loss = \"case3\"\n[train.balance]\nmethod = \"mgda\"\n";
        assert!(told(balance).contains("weighs the goals"));
        let head = |kind| Head::zeros("t", Feature::Cls, kind, Vec::new(), 1).unwrap();
        let focal = recipe(focal);
        let said = check_heads(&focal, &[head(HeadKind::Regression)]).unwrap_err();
        assert!(said.to_string().contains("needs a probability"));
        let weighed = recipe("[train.reweight]\nrule = \"extremes\"\n");
        assert!(check_heads(&weighed, &[head(HeadKind::Regression)]).is_ok());
        let said = check_heads(&weighed, &[Head::embedding("t")]).unwrap_err();
        assert!(said.to_string().contains("no loss of a single row"));
    }
}
