//! What the numbers speak for: measured value, rule, threshold, reading, source.
//!
//! A rule stands here only if a paper or a released program says why the quantity matters. Where it gives no number,
//! the threshold is our heuristic and says so. None of them replaces scoring the merged model.

use super::numbers::mean;
use super::report::Report;

/// What a rule says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speaks {
    /// For what the reading names.
    For,
    /// A warning.
    Mind,
    /// Neither: the value is in the range where the rule is silent.
    Nothing,
}

impl Speaks {
    /// One word.
    pub fn word(self) -> &'static str {
        match self {
            Self::For => "for",
            Self::Mind => "mind",
            Self::Nothing => "open",
        }
    }
}

/// One row of the indicator table.
#[derive(Debug, Clone, PartialEq)]
pub struct Indicator {
    /// A stable word for programs.
    pub code: &'static str,
    /// What was measured.
    pub measured: String,
    /// The value.
    pub value: f64,
    /// The value as people read it.
    pub shown: String,
    /// The rule with its threshold.
    pub rule: String,
    /// Who set the threshold: `ours`, `paper`, or the program whose default it is.
    pub threshold_by: &'static str,
    /// What the rule says here.
    pub speaks: Speaks,
    /// In words, with names of methods.
    pub reading: String,
    /// Why the quantity matters.
    pub source: &'static str,
}

const ILHARCO: &str = "Ilharco et al. 2023, Editing models with task arithmetic (arXiv 2212.04089)";
const TIES: &str = "Yadav et al. 2023, TIES-Merging (arXiv 2306.01708)";
const DARE: &str = "Yu et al. 2024, Language models are Super Mario (arXiv 2311.03099)";
const TALL: &str = "Wang et al. 2024, Localizing task information (arXiv 2405.07813)";
const RAM: &str = "Reinforced Agent Merging 2026; mergekit 0.1.5";
const TSV: &str = "Gargiulo et al. 2025, Task singular vectors (arXiv 2412.00081)";
const LORA: &str = "Hu et al. 2022, LoRA (arXiv 2106.09685)";
const INTRUDERS: &str = "Shuttleworth et al. 2024, LoRA vs full fine-tuning (arXiv 2410.21228)";

/// Thresholds that are ours.
const ORTHOGONAL: f64 = 0.1;
const SHARED: f64 = 0.5;
const DISAGREE: f64 = 0.25;
const CHANCE: f64 = 0.4;
const AGREE: f64 = 0.1;
/// At 2.1 a weight for each of eight experts, chosen by trials, was worth no more than one for all.
const OUTWEIGHS: f64 = 3.0;
const APART: f64 = 1.5;
const SPARSE: f64 = 0.5;
const LOW_RANK: f64 = 0.1;
/// The DARE paper's: entries of fine-tuned models lie within 0.002; where they reach 0.03, dropping fails.
const DARE_SMALL: f64 = 0.002;
const DARE_LARGE: f64 = 0.03;

pub(super) fn indicators(report: &Report) -> Vec<Indicator> {
    let mut rows = Vec::new();
    if report.experts.len() > 1 {
        rows.extend(directions(report));
        rows.extend(conflict(report));
        rows.extend(lengths(report));
    }
    rows.extend(size(report));
    if report.experts.len() > 1 {
        rows.extend(overlap(report));
    }
    rows.extend(sparsity(report));
    rows.extend(ranks(report));
    rows.extend(intruders(report));
    rows
}

fn directions(report: &Report) -> Vec<Indicator> {
    let total = &report.total;
    let Some(cosine) = total.mean_over_pairs(|a, b| Some(total.cosine(a, b))) else {
        return Vec::new();
    };
    let (speaks, reading) = if cosine <= -ORTHOGONAL {
        (
            Speaks::Mind,
            "the task vectors point against each other: sums cancel; leave one out or keep the tasks apart",
        )
    } else if cosine < ORTHOGONAL {
        (
            Speaks::For,
            by_kind(
                report,
                "nearly orthogonal task vectors: they can be added by `task_arithmetic` with one lambda. How large it may be this does not say (two measured families with 0.03 and 0.04 had their best at 0.6 and at 0.1): choose it on validation data",
                "nearly orthogonal: they can be added (`adapt combine --combination cat` is the exact sum; choose the weight on validation data); interference is not ruled out by this alone",
            ),
        )
    } else if cosine < SHARED {
        (
            Speaks::Nothing,
            "related directions: a sum is longer than for orthogonal tasks, so expect a smaller lambda",
        )
    } else {
        (
            Speaks::For,
            "one shared direction: averaging (weights that sum to 1) keeps it, a sum counts it once per expert",
        )
    };
    let mut rows = vec![Indicator {
        code: "mean-cosine",
        measured: "mean cosine of all pairs".into(),
        value: cosine,
        shown: format!("{cosine:.3}"),
        rule: format!(
            "below {ORTHOGONAL} nearly orthogonal, from {SHARED} shared, below -{ORTHOGONAL} opposed"
        ),
        threshold_by: "ours",
        speaks,
        reading: reading.into(),
        source: ILHARCO,
    }];
    let closest = total.pairs().map(|(a, b)| (total.cosine(a, b), a, b)).fold(
        None,
        |best: Option<(f64, usize, usize)>, next| match best {
            Some(b) if b.0 >= next.0 => Some(b),
            _ => Some(next),
        },
    );
    if let Some((value, a, b)) = closest.filter(|_| report.experts.len() > 2) {
        let (x, y) = (&report.experts[a], &report.experts[b]);
        let near = value >= SHARED;
        rows.push(Indicator {
            code: "closest-pair",
            measured: format!("largest cosine: {x}, {y}"),
            value,
            shown: format!("{value:.3}"),
            rule: format!("from {SHARED} two experts tell nearly the same"),
            threshold_by: "ours",
            speaks: if near { Speaks::Mind } else { Speaks::Nothing },
            reading: if near {
                format!("a sum counts what {x} and {y} share twice: halve their weights, or average the two first")
            } else {
                "no two experts are so close that a sum would count one change twice".into()
            },
            source: ILHARCO,
        });
    }
    rows
}

fn conflict(report: &Report) -> Option<Indicator> {
    let total = &report.total;
    let value = total.mean_over_pairs(|a, b| total.pair_top_conflict(a, b))?;
    let (speaks, reading) = if value >= CHANCE {
        (
            Speaks::Nothing,
            "signs disagree nearly as often as chance has it: in the families measured at 44 to 49 % no election of signs was told apart from a plain sum; the simpler one will do",
        )
    } else if value >= DISAGREE {
        (
            Speaks::For,
            by_kind(
                report,
                "large entries often disagree in sign: elect signs (`ties`, `ties_reference`, `della`), a plain sum lets them cancel",
                "large entries often disagree in sign: elect signs (`adapt combine --combination ties_svd`), a plain sum lets them cancel",
            ),
        )
    } else if value < AGREE {
        (
            Speaks::For,
            "large entries agree in sign: there is little to elect, plain sums and averages lose nothing",
        )
    } else {
        (
            Speaks::Nothing,
            "some large entries disagree: try with and without sign election",
        )
    };
    Some(Indicator {
        code: "sign-conflict",
        measured: format!(
            "sign conflicts of pairs, among entries in the largest {} of both",
            percent(report.top)
        ),
        value,
        shown: percent(value),
        rule: format!(
            "from {} elect signs, from {} they are those of chance (50 %), below {} no need",
            percent(DISAGREE),
            percent(CHANCE),
            percent(AGREE)
        ),
        threshold_by: "ours",
        speaks,
        reading: reading.into(),
        source: TIES,
    })
}

fn lengths(report: &Report) -> Option<Indicator> {
    let norms: Vec<f64> = (0..report.experts.len())
        .map(|i| report.total.norm(i))
        .collect();
    let (low, high) = extremes(&norms)?;
    if norms[low] <= 0.0 {
        let name = &report.experts[low];
        return Some(Indicator {
            code: "norm-ratio",
            measured: "longest over shortest task vector".into(),
            value: f64::INFINITY,
            shown: "infinite".into(),
            rule: format!("from {OUTWEIGHS} the longest outweighs the others"),
            threshold_by: "ours",
            speaks: Speaks::Mind,
            reading: format!("{name} changes nothing: is it the right file?"),
            source: TIES,
        });
    }
    let value = norms[high] / norms[low];
    let far = value >= OUTWEIGHS;
    Some(Indicator {
        code: "norm-ratio",
        measured: "longest over shortest task vector".into(),
        value,
        shown: format!("{value:.2}"),
        rule: format!("from {OUTWEIGHS} the longest outweighs the others"),
        threshold_by: "ours",
        speaks: if far { Speaks::Mind } else { Speaks::Nothing },
        reading: if far {
            format!(
                "{} leads sums and the election of signs by magnitude: give it a smaller weight",
                report.experts[high]
            )
        } else {
            "lengths are alike: equal weights treat the experts alike".into()
        },
        source: TIES,
    })
}

fn size(report: &Report) -> Option<Indicator> {
    let rms: Vec<f64> = (0..report.experts.len())
        .map(|i| report.total.rms(i))
        .collect();
    let value = rms[extremes(&rms)?.1];
    let (speaks, reading) = if value <= DARE_SMALL {
        (
            Speaks::For,
            by_kind(
                report,
                "small changes: most of them can be dropped at random and the rest rescaled (`dare_linear`, `dare_ties`)",
                "small changes: most of them can be dropped at random and the rest rescaled (`dare_linear_svd`, `dare_ties_svd`)",
            ),
        )
    } else if value >= DARE_LARGE {
        (
            Speaks::Mind,
            "large changes, as after continued pre-training: `dare_*` at high drop rates fails there",
        )
    } else {
        (
            Speaks::Nothing,
            "between the paper's two cases: with `dare_*` keep a moderate density",
        )
    };
    Some(Indicator {
        code: "delta-size",
        measured: "typical size of a change (largest root mean square)".into(),
        value,
        shown: format!("{value:.1e}"),
        rule: format!(
            "up to {DARE_SMALL} changes can be dropped, from {DARE_LARGE} not (the paper's ranges, held against the root mean square)"
        ),
        threshold_by: "paper",
        speaks,
        reading: reading.into(),
        source: DARE,
    })
}

fn overlap(report: &Report) -> Option<Indicator> {
    let total = &report.total;
    let jaccard = total.mean_over_pairs(|a, b| total.overlap(a, b))?;
    // Jaccard index of two independent sets of share p: p^2 / (2 p - p^2).
    let chance = report.top / (2.0 - report.top);
    let value = jaccard / chance;
    let apart = value < APART;
    Some(Indicator {
        code: "overlap",
        measured: format!(
            "overlap of the largest {}, over chance",
            percent(report.top)
        ),
        value,
        shown: format!("{value:.2}"),
        rule: format!(
            "below {APART} the tasks sit in different places (chance: Jaccard {chance:.3}, here {jaccard:.3})"
        ),
        threshold_by: "ours",
        speaks: if apart { Speaks::For } else { Speaks::Nothing },
        reading: if apart {
            by_kind(
                report,
                "each expert has weights of its own: task masks find them (two measured families kept 99 % and more of the experts' accuracy in `tall` bundles). One model for all tasks (`consensus`) gained nothing from it there",
                "each adapter has entries of its own; with --base, task masks can find them (`tall`)",
            )
            .into()
        } else {
            "the experts change the same places: look at their signs there, masks separate little"
                .into()
        },
        source: TALL,
    })
}

fn sparsity(report: &Report) -> Option<Indicator> {
    report.base.as_ref()?;
    let value = report.total.mean(|i| report.total.changed_share(i));
    let sparse = value < SPARSE;
    Some(Indicator {
        code: "changed",
        measured: "entries that an expert changed (mean)".into(),
        value,
        shown: percent(value),
        rule: format!("below {} the changes are sparse", percent(SPARSE)),
        threshold_by: "ours",
        speaks: if sparse { Speaks::For } else { Speaks::Nothing },
        reading: if sparse {
            "most entries are untouched: `ram` keeps whole what one expert alone changed".into()
        } else {
            "dense changes, as full fine-tuning makes them".into()
        },
        source: RAM,
    })
}

fn ranks(report: &Report) -> Vec<Indicator> {
    let spectra: Vec<_> = report
        .total
        .spectra
        .iter()
        .filter(|s| s.matrices > 0)
        .collect();
    let mut rows = Vec::new();
    let n = report.experts.len();
    let Some(value) = mean(spectra.iter().map(|s| s.mean_effective_share())) else {
        return rows;
    };
    if n > 1 && report.base.is_some() {
        let room = 1.0 / n as f64;
        let fits = value <= room;
        rows.push(Indicator {
            code: "effective-rank",
            measured: "effective rank over the smaller dimension (mean)".into(),
            value,
            shown: percent(value),
            rule: format!("up to 1/{n} (the share of directions that `tsv_m` keeps of each of {n} experts)"),
            threshold_by: "paper",
            speaks: if fits { Speaks::For } else { Speaks::Nothing },
            reading: if fits {
                "low-rank changes: the directions of all experts fit side by side (`tsv_m`, `iso_c`)".into()
            } else {
                "the changes spread over more directions than `tsv_m` keeps; what it cuts are the weakest".into()
            },
            source: TSV,
        });
    }
    if report.base.is_some()
        && let Some(rank) = mean(spectra.iter().map(|s| s.mean_rank90()))
        && value > 0.0
        && let Some(share) = mean(spectra.iter().map(|s| s.mean_rank90_share()))
    {
        let low = share <= LOW_RANK;
        rows.push(Indicator {
            code: "rank90",
            measured: "rank that holds 90 % of a change's energy (mean)".into(),
            value: rank,
            shown: format!("{rank:.1} ({} of the dimension)", percent(share)),
            rule: format!(
                "up to {} of the dimension an adapter is the smaller file at little loss",
                percent(LOW_RANK)
            ),
            threshold_by: "ours",
            speaks: if low { Speaks::For } else { Speaks::Nothing },
            reading: if low {
                "low rank: `adapt extract --energy 0.9` keeps the change in a small adapter".into()
            } else {
                "not low-rank: an extracted adapter needs a high rank".into()
            },
            source: LORA,
        });
    }
    rows
}

fn intruders(report: &Report) -> Option<Indicator> {
    let rule = report.spectral?;
    let counts: Vec<f64> = report
        .total
        .spectra
        .iter()
        .map(|s| s.intruders.map(|c| c as f64))
        .collect::<Option<_>>()?;
    let most = extremes(&counts)?.1;
    let value: f64 = counts.iter().sum();
    let some = value > 0.0;
    Some(Indicator {
        code: "intruders",
        measured: format!(
            "intruder dimensions (first {}, cosine below {})",
            rule.k, rule.epsilon
        ),
        value,
        shown: format!("{value}"),
        rule: "none is what full fine-tuning leaves".into(),
        threshold_by: if rule == super::IntruderRule::default() {
            "PEFT"
        } else {
            "options"
        },
        speaks: if some { Speaks::Mind } else { Speaks::Nothing },
        reading: if some {
            format!(
                "new directions that go with forgetting, most in {} ({}): `adapt scale-intruders` shrinks those of an adapter",
                report.experts[most], counts[most]
            )
        } else {
            "no leading direction is foreign to the base".into()
        },
        source: INTRUDERS,
    })
}

/// Words for full models, and for adapters without a base.
fn by_kind(report: &Report, models: &'static str, adapters: &'static str) -> &'static str {
    if report.base.is_some() {
        models
    } else {
        adapters
    }
}

/// Positions of the smallest and the largest value (the first of equals).
fn extremes(values: &[f64]) -> Option<(usize, usize)> {
    let at = |better: fn(f64, f64) -> bool| {
        (1..values.len()).fold(0, |best, i| {
            if better(values[i], values[best]) {
                i
            } else {
                best
            }
        })
    };
    (!values.is_empty()).then(|| (at(|a, b| a < b), at(|a, b| a > b)))
}

/// `12.3 %`, `0 %`, `100 %`.
pub(super) fn percent(share: f64) -> String {
    let p = share * 100.0;
    if p == p.round() {
        format!("{p:.0} %")
    } else if p.abs() < 0.1 {
        format!("{p:.3} %")
    } else {
        format!("{p:.1} %")
    }
}
