//! Weights of losses without a state: `equal`, `gls`, `scale_invariant`, `rlw`.

use polyloom_core::rng::Stream;

use super::method::{
    Balancer, Golden, Kind, Looks, Method, Param, Step, Unset, Unsolved, Weights, softmax,
};

/// Losses count as at least this where their logarithm or inverse is taken.
pub const FLOOR: f64 = 1e-8;

/// The entries of this file.
pub static METHODS: &[&Method] = &[&EQUAL, &GLS, &SCALE_INVARIANT, &RLW];

static EQUAL: Method = Method {
    name: "equal",
    summary: "All losses alike",
    source: "LibMTL weighting/EW.py (sum)",
    formula: "`w_t = 1` (`reduction = \"sum\"`) or `1/n` (`\"mean\"`), `n` the tasks that are here.",
    differs: "LibMTL sums; libraries of recommender systems average.",
    degenerate: "Nothing is solved.",
    looks: Looks::Losses,
    passes: "",
    params: &[Param::shared(
        "reduction",
        Kind::Word(&[("mean", "mean"), ("sum", "sum")]),
        Unset::Word("mean"),
        "Mean of the losses, or their sum.",
    )],
    golden: Golden::Cases(&["equal"]),
    begin: |values, _| {
        let mean = values.word("reduction") == "mean";
        Box::new(Rule(move |step: &Step<'_>| {
            let n = step.losses.len();
            vec![if mean { 1.0 / n as f64 } else { 1.0 }; n]
        }))
    },
};

/// A rule without memory.
struct Rule<F>(F);

impl<F: Fn(&Step<'_>) -> Vec<f64> + Send> Balancer for Rule<F> {
    fn weigh(&mut self, step: &Step<'_>) -> Result<Weights, Unsolved> {
        Ok(Weights::of_losses(self.0(step)))
    }
}

static GLS: Method = Method {
    name: "gls",
    summary: "Geometric mean of the losses",
    source: "Chennupati et al., CVPRW 2019",
    formula: "`L = exp(mean_t log L_t)`, so `w_t = L / (n L_t)`.",
    differs: "LibMTL shows `L_t / (n prod L)`, which is not the derivative; its direction is ours.",
    degenerate: "Losses below 1e-8 count as 1e-8.",
    looks: Looks::Losses,
    passes: "",
    params: &[],
    golden: Golden::Cases(&["gls"]),
    begin: |_, _| Box::new(Rule(|step: &Step<'_>| gls(step.losses))),
};

/// The derivative of the geometric mean by every loss.
pub fn gls(losses: &[f64]) -> Vec<f64> {
    let n = losses.len() as f64;
    let floored: Vec<f64> = losses.iter().map(|l| l.max(FLOOR)).collect();
    let mean = (floored.iter().map(|l| l.ln()).sum::<f64>() / n).exp();
    floored.iter().map(|l| mean / (n * l)).collect()
}

static SCALE_INVARIANT: Method = Method {
    name: "scale_invariant",
    summary: "Sum of the logarithms of the losses",
    source: "Navon et al., ICML 2022 (baseline SI); Samsung Labs MTL, optim/si (log1p)",
    formula: "`L = sum_t log L_t`, `w_t = 1/L_t`; with `log1p`: `sum_t log(1 + L_t)`, `w_t = 1/(1 + L_t)`.",
    differs: "",
    degenerate: "Losses below 1e-8 count as 1e-8.",
    looks: Looks::Losses,
    passes: "",
    params: &[Param::shared(
        "log1p",
        Kind::Flag,
        Unset::Flag(false),
        "`log(1 + L)` in place of `log L`.",
    )],
    golden: Golden::Cases(&["scale_invariant"]),
    begin: |values, _| {
        let plus = if values.flag("log1p") { 1.0 } else { 0.0 };
        Box::new(Rule(move |step: &Step<'_>| {
            step.losses
                .iter()
                .map(|l| 1.0 / (plus + l.max(FLOOR)))
                .collect()
        }))
    },
};

static RLW: Method = Method {
    name: "rlw",
    summary: "Random weights, new ones every step",
    source: "Lin et al., TMLR 2022",
    formula: "`w = softmax(xi)`, `xi ~ N(0, I)`, drawn from (seed, step). The weights sum to 1, so a learning rate means what it means for the mean of the losses.",
    differs: "",
    degenerate: "Nothing is solved.",
    looks: Looks::Losses,
    passes: "",
    params: &[],
    golden: Golden::Cases(&["rlw"]),
    begin: |_, _| {
        Box::new(Rule(|step: &Step<'_>| {
            let stream = Stream::new(step.at.seed, "balance rlw", step.at.step);
            let of = |t: &usize| f64::from(stream.normal(*t as u64));
            rlw(&step.tasks.iter().map(of).collect::<Vec<f64>>())
        }))
    },
};

/// Weights from standard normal numbers.
pub fn rlw(normals: &[f64]) -> Vec<f64> {
    softmax(normals)
}
