//! Combining LoRA adapters: the eleven rules of PEFT's `add_weighted_adapter` and FLoRA's stacking (Wang et al. 2024,
//! section 3). No base is needed.

use std::collections::{BTreeMap, BTreeSet};

use polyloom_core::DType;
use polyloom_core::linalg::{Matrix, Svd};
use polyloom_core::peft::{AdapterFolder, AdapterTensor, BaseChange, Names, PeftType};
use polyloom_core::rng::Stream;
use rayon::prelude::*;
use serde_json::json;

use super::rules::{SignRule, disjoint_mean, elect, top_by_magnitude, weighted_sum};
use super::set::{AdapterSet, ModuleReport, Pair};
use super::truncate::{product_svd, truncated_svd};
use crate::error::{MergeError, Result};

/// PEFT's combination types.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Combination {
    /// Weighted sums of A and of B (not of the deltas: cross terms appear). Equal ranks.
    Linear,
    /// Stack the factors: exact, rank is the sum of ranks.
    Cat,
    /// Truncated SVD of the weighted sum of deltas.
    Svd,
    /// Trim, elect signs, disjoint mean, on A and B separately.
    Ties,
    /// The same on full deltas, then SVD.
    TiesSvd,
    /// Random drop and rescale, then ties without trimming.
    DareTies,
    /// Random drop and rescale, then the linear rule.
    DareLinear,
    /// `dare_ties` on full deltas, then SVD.
    DareTiesSvd,
    /// `dare_linear` on full deltas, then SVD.
    DareLinearSvd,
    /// Trim by magnitude, then the linear rule.
    MagnitudePrune,
    /// The same on full deltas, then SVD.
    MagnitudePruneSvd,
}

impl Combination {
    /// Every type with PEFT's word.
    pub const ALL: [(&'static str, Self); 11] = [
        ("linear", Self::Linear),
        ("cat", Self::Cat),
        ("svd", Self::Svd),
        ("ties", Self::Ties),
        ("ties_svd", Self::TiesSvd),
        ("dare_ties", Self::DareTies),
        ("dare_linear", Self::DareLinear),
        ("dare_ties_svd", Self::DareTiesSvd),
        ("dare_linear_svd", Self::DareLinearSvd),
        ("magnitude_prune", Self::MagnitudePrune),
        ("magnitude_prune_svd", Self::MagnitudePruneSvd),
    ];

    /// Reads PEFT's word.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.iter().find(|(w, _)| *w == word).map(|(_, c)| *c)
    }

    /// PEFT's word.
    pub fn word(self) -> &'static str {
        Self::ALL
            .iter()
            .find(|(_, c)| *c == self)
            .map_or("", |(w, _)| w)
    }

    /// The sparsifying, if any, and whether signs are elected.
    fn parts(self) -> (Prune, bool) {
        match self {
            Self::Linear | Self::Cat | Self::Svd => (Prune::None, false),
            Self::Ties | Self::TiesSvd => (Prune::Magnitude, true),
            Self::DareTies | Self::DareTiesSvd => (Prune::Random, true),
            Self::DareLinear | Self::DareLinearSvd => (Prune::Random, false),
            Self::MagnitudePrune | Self::MagnitudePruneSvd => (Prune::Magnitude, false),
        }
    }

    /// True if the result comes out of an SVD.
    pub fn uses_svd(self) -> bool {
        matches!(
            self,
            Self::Svd
                | Self::TiesSvd
                | Self::DareTiesSvd
                | Self::DareLinearSvd
                | Self::MagnitudePruneSvd
        )
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Prune {
    None,
    Magnitude,
    Random,
}

/// Where the Bernoulli masks of the `dare` types come from.
#[derive(Debug, Clone, Copy)]
pub enum Masks<'a> {
    /// Drawn from the seed, tensor name and adapter index.
    Seed(u64),
    /// Recorded: per tensor in PEFT's order (every A, then every B; one per delta for `*_svd`), true where kept.
    Recorded(&'a [Vec<bool>]),
}

/// Settings of [`combine`], in PEFT's meaning.
#[derive(Debug, Clone)]
pub struct CombineOptions {
    /// The rule.
    pub combination: Combination,
    /// One weight per adapter; negative ones subtract.
    pub weights: Vec<f64>,
    /// Rank of the SVD types (PEFT: `svd_rank`); the largest rank of the adapters if unset.
    pub rank: Option<usize>,
    /// SVD types: clamp both factors to plus and minus this quantile of their values (PEFT: `svd_clamp`), in (0, 1].
    pub clamp: Option<f64>,
    /// Share of entries kept by the sparsifying types, in [0, 1]; they need it.
    pub density: Option<f64>,
    /// Sign election of the ties types.
    pub sign: SignRule,
    /// Seed of the dare types.
    pub seed: u64,
    /// Type on disk; the first adapter's own type per module if unset.
    pub dtype: Option<DType>,
}

impl CombineOptions {
    /// A rule with weights; everything else as PEFT's defaults.
    pub fn new(combination: Combination, weights: Vec<f64>) -> Self {
        Self {
            combination,
            weights,
            rank: None,
            clamp: None,
            density: None,
            sign: SignRule::Total,
            seed: 0,
            dtype: None,
        }
    }

    fn check(&self, adapters: usize) -> Result<()> {
        let word = self.combination.word();
        let bad = |message: String| Err(MergeError::plan("bad-parameter", message));
        if adapters == 0 {
            return bad("no adapters to combine".into());
        }
        if self.weights.len() != adapters {
            return bad(format!(
                "{} weights for {adapters} adapters; expected one each",
                self.weights.len()
            ));
        }
        if let Some(w) = self.weights.iter().find(|w| !w.is_finite()) {
            return bad(format!("weight {w} is not a finite number"));
        }
        let sparse = self.combination.parts().0 != Prune::None;
        match self.density {
            None if sparse && adapters > 1 => {
                return bad(format!("`{word}` needs a density"));
            }
            Some(_) if !sparse => return bad(format!("`{word}` takes no density")),
            Some(d) if !(0.0..=1.0).contains(&d) => {
                return bad(format!("density {d} is outside 0 to 1"));
            }
            _ => {}
        }
        if (self.rank.is_some() || self.clamp.is_some()) && !self.combination.uses_svd() {
            return bad(format!(
                "`{word}` takes no rank and no clamp; only the svd types do"
            ));
        }
        if self.rank == Some(0) {
            return bad("rank 0 leaves nothing of the adapters".into());
        }
        if let Some(q) = self.clamp
            && !(q > 0.0 && q <= 1.0)
        {
            return bad(format!("clamp {q} is outside 0 to 1"));
        }
        Ok(())
    }
}

/// One adapter's part in a module.
#[derive(Debug, Clone)]
pub struct Share {
    /// Index of the adapter among all.
    pub adapter: usize,
    /// Its factors.
    pub pair: Pair,
    /// `alpha / r`, or `alpha / sqrt(r)` with rsLoRA.
    pub scaling: f64,
    /// Its weight.
    pub weight: f64,
}

/// Combines the factors of one module. `rank` is the rank of the SVD types. Returns the factors and, where something
/// was truncated, the relative error.
pub fn combine_factors(
    module: &str,
    shares: &[Share],
    options: &CombineOptions,
    rank: usize,
    masks: Masks<'_>,
) -> Result<(Pair, Option<f64>)> {
    let problem = |message: String| {
        MergeError::plan("adapter-mismatch", format!("module `{module}`: {message}"))
    };
    let Some(first) = shares.first() else {
        return Err(problem("no adapter has it".into()));
    };
    let kind = first.pair.kind.clone();
    for share in shares {
        let same = share.pair.a.cols == first.pair.a.cols
            && share.pair.b.rows == first.pair.b.rows
            && share.pair.kind == kind;
        if !same {
            return Err(problem(format!(
                "[{}, {}] in one adapter and [{}, {}] in another",
                first.pair.b.rows, first.pair.a.cols, share.pair.b.rows, share.pair.a.cols
            )));
        }
    }
    let factor = |s: &Share| s.weight * s.scaling;
    let combination = options.combination;
    let truncate = |sum: Svd| -> (Pair, Option<f64>) {
        let total: f64 = sum.s.iter().map(|s| s * s).sum();
        let k = rank.min(sum.s.len());
        let lost: f64 = sum.s[k..].iter().map(|s| s * s).sum();
        let mut b = sum.u.first_columns(k).scale_columns(&sum.s[..k]);
        let mut a = sum.vt.first_rows(k);
        if let Some(q) = options.clamp {
            clamp_factors(&mut a, &mut b, q);
        }
        let error = (total > 0.0).then(|| (lost / total).sqrt());
        (
            Pair {
                a,
                b,
                kind: kind.clone(),
            },
            error.or(Some(0.0)),
        )
    };
    match combination {
        Combination::Cat => Ok((stacked(shares, factor, kind.clone()), None)),
        Combination::Svd => {
            let all = stacked(shares, factor, kind.clone());
            Ok(truncate(product_svd(&all.b, &all.a).map_err(problem)?))
        }
        _ if combination.uses_svd() => {
            let deltas: Vec<Vec<f64>> = shares
                .iter()
                .map(|s| {
                    let mut delta = s.pair.b.times(&s.pair.a).data;
                    for v in &mut delta {
                        *v *= s.scaling;
                    }
                    delta
                })
                .collect();
            let weights: Vec<f64> = shares.iter().map(|s| s.weight).collect();
            let merged = Matrix {
                rows: first.pair.b.rows,
                cols: first.pair.a.cols,
                data: mixed(module, "delta", shares, deltas, &weights, options, masks, 0),
            };
            let norm = merged.norm();
            let found = truncated_svd(&merged, rank).map_err(problem)?;
            // The lost part from the norms: the squares of all singular values sum to that of the matrix.
            let kept: f64 = found.s.iter().map(|s| s * s).sum();
            let lost = (norm * norm - kept).max(0.0).sqrt();
            let (pair, _) = truncate(found);
            Ok((pair, Some(if norm > 0.0 { lost / norm } else { 0.0 })))
        }
        _ => {
            if let Some(other) = shares.iter().find(|s| s.pair.rank() != first.pair.rank()) {
                return Err(problem(format!(
                    "ranks {} and {} differ, and `{}` needs equal ones",
                    first.pair.rank(),
                    other.pair.rank(),
                    combination.word()
                ))
                .hint("use cat or an svd type, or bring the adapters to one rank first"));
            }
            let roots: Vec<f64> = shares.iter().map(|s| factor(s).abs().sqrt()).collect();
            // PEFT puts the sign on A alone.
            let signed: Vec<f64> = shares
                .iter()
                .zip(&roots)
                .map(|(s, r)| r.copysign(factor(s)))
                .collect();
            let a = shares.iter().map(|s| s.pair.a.data.clone()).collect();
            let b = shares.iter().map(|s| s.pair.b.data.clone()).collect();
            let pair = Pair {
                a: Matrix {
                    data: mixed(module, "lora_A", shares, a, &signed, options, masks, 0),
                    ..first.pair.a
                },
                b: Matrix {
                    data: mixed(
                        module,
                        "lora_B",
                        shares,
                        b,
                        &roots,
                        options,
                        masks,
                        shares.len(),
                    ),
                    ..first.pair.b
                },
                kind,
            };
            Ok((pair, None))
        }
    }
}

/// Prunes, elects and sums the tensors of one kind. `first_mask` is the place of the first recorded mask.
#[expect(
    clippy::too_many_arguments,
    reason = "one private step of one function, called three times"
)]
fn mixed(
    module: &str,
    part: &str,
    shares: &[Share],
    mut tensors: Vec<Vec<f64>>,
    weights: &[f64],
    options: &CombineOptions,
    masks: Masks<'_>,
    first_mask: usize,
) -> Vec<f64> {
    let (prune, elects) = options.combination.parts();
    let density = options.density.unwrap_or(1.0);
    for (i, (tensor, share)) in tensors.iter_mut().zip(shares).enumerate() {
        match prune {
            Prune::None => {}
            Prune::Magnitude => top_by_magnitude(tensor, density),
            Prune::Random => {
                let stream = match masks {
                    Masks::Seed(seed) => {
                        let name = format!("{module}.{part}");
                        Some(Stream::new(seed, &name, share.adapter as u64))
                    }
                    Masks::Recorded(_) => None,
                };
                for (e, v) in tensor.iter_mut().enumerate() {
                    let kept = match (stream, masks) {
                        (None, Masks::Recorded(all)) => all[first_mask + i][e],
                        (Some(s), _) => f64::from(s.uniform(e as u64)) < density,
                        (None, Masks::Seed(_)) => true,
                    };
                    *v = if kept { *v / density } else { 0.0 };
                }
            }
        }
    }
    if elects {
        let elected = elect(&tensors, options.sign);
        disjoint_mean(&tensors, weights, &elected)
    } else {
        weighted_sum(&tensors, weights)
    }
}

/// `A = rows (c_i A_i)`, `B = columns (B_i)`: the weight goes on one side only.
fn stacked(
    shares: &[Share],
    factor: impl Fn(&Share) -> f64,
    kind: polyloom_core::peft::LayerKind,
) -> Pair {
    let rank: usize = shares.iter().map(|s| s.pair.rank()).sum();
    let (inputs, outputs) = (shares[0].pair.a.cols, shares[0].pair.b.rows);
    let mut a = Matrix::zeros(rank, inputs);
    let mut b = Matrix::zeros(outputs, rank);
    let mut at = 0;
    for share in shares {
        let (c, r) = (factor(share), share.pair.rank());
        for (to, from) in a.data[at * inputs..].iter_mut().zip(&share.pair.a.data) {
            *to = c * from;
        }
        for o in 0..outputs {
            b.data[o * rank + at..][..r].copy_from_slice(&share.pair.b.data[o * r..][..r]);
        }
        at += r;
    }
    Pair { a, b, kind }
}

/// Clamps both factors to plus and minus the `q` quantile of all their values (linear interpolation, as torch).
///
/// The quantile is one of signed values, so it depends on the signs of the singular vectors. Ours are fixed (the
/// largest entry of a left vector is positive), PEFT's are whatever its SVD routine returns: the two clamps differ.
pub fn clamp_factors(a: &mut Matrix, b: &mut Matrix, q: f64) {
    let mut all: Vec<f64> = b.data.iter().chain(&a.data).copied().collect();
    if all.is_empty() {
        return;
    }
    all.sort_by(f64::total_cmp);
    let place = q * (all.len() - 1) as f64;
    let (low, part) = (place.floor() as usize, place.fract());
    let high = all[low] + part * (all[(low + 1).min(all.len() - 1)] - all[low]);
    for v in a.data.iter_mut().chain(&mut b.data) {
        // torch's clamp with crossed bounds gives the upper one.
        *v = v.max(-high).min(high);
    }
}

/// Stacks clients' adapters as FLoRA does (Wang et al. 2024): `cat` with data shares as weights, exact for any mix of
/// ranks. `sizes` are numbers of training examples; they are divided by their sum.
pub fn stack(
    adapters: &[AdapterFolder],
    sizes: &[f64],
    dtype: Option<DType>,
) -> Result<AdapterSet> {
    let sum: f64 = sizes.iter().sum();
    if sizes.iter().any(|s| !s.is_finite() || *s < 0.0) || sum <= 0.0 {
        return Err(MergeError::plan(
            "bad-parameter",
            "client sizes must be numbers from 0 on with a sum above 0",
        ));
    }
    let mut options =
        CombineOptions::new(Combination::Cat, sizes.iter().map(|s| s / sum).collect());
    options.dtype = dtype;
    combine(adapters, &options)
}

/// Combines adapters of one base. Modules that an adapter lacks are skipped for it. The result has alpha = r.
///
/// Differences to PEFT: ranks above the smaller dimension of a module are capped (PEFT fails), DoRA, changed bases
/// (PiSSA, OLoRA), biases of B and stored biases are refused (PEFT drops them).
pub fn combine(adapters: &[AdapterFolder], options: &CombineOptions) -> Result<AdapterSet> {
    options.check(adapters.len())?;
    for adapter in adapters {
        refuse(adapter)?;
    }
    let mut options = options.clone();
    let mut warnings = Vec::new();
    if adapters.len() == 1 && options.combination != Combination::Linear {
        warnings.push(format!(
            "with one adapter `{}` becomes `linear`, as in PEFT",
            options.combination.word()
        ));
        options.combination = Combination::Linear;
        (options.rank, options.clamp, options.density) = (None, None, None);
    }
    let ranks: Vec<usize> = adapters.iter().map(largest_rank).collect();
    let r = match options.combination {
        Combination::Cat => ranks.iter().sum(),
        c if c.uses_svd() => options
            .rank
            .unwrap_or_else(|| ranks.iter().copied().max().unwrap_or(1)),
        _ => ranks.iter().copied().max().unwrap_or(1),
    };
    let names: BTreeSet<&String> = adapters.iter().flat_map(|a| a.modules.keys()).collect();
    let done: Vec<(String, Pair, DType, Option<f64>)> = names
        .into_par_iter()
        .map(|module| {
            let mut shares = Vec::new();
            let mut dtype = options.dtype;
            for (i, adapter) in adapters.iter().enumerate() {
                let Some(parts) = adapter.modules.get(module) else {
                    continue;
                };
                let factors = adapter.factors(module)?;
                let stored = parts.a.as_ref().and_then(|a| adapter.tensors.get(a));
                dtype = dtype.or(stored.map(|t| t.dtype));
                shares.push(Share {
                    adapter: i,
                    pair: Pair::from_factors(&factors),
                    scaling: factors.scaling,
                    weight: options.weights[i],
                });
            }
            let masks = Masks::Seed(options.seed);
            let (pair, error) = combine_factors(module, &shares, &options, r, masks)?;
            let pair = if options.combination == Combination::Cat {
                pair.padded(r)
            } else {
                pair
            };
            Ok((module.clone(), pair, dtype.unwrap_or(DType::F32), error))
        })
        .collect::<Result<_>>()?;
    let report = done
        .iter()
        .map(|(module, pair, _, error)| ModuleReport {
            module: module.clone(),
            rank: pair.rank(),
            relative_error: *error,
        })
        .collect();
    let modules = done.into_iter().map(|(m, p, d, _)| (m, p, d)).collect();
    let targets = union(adapters)?;
    let mut set = AdapterSet::unscaled(&adapters[0].config.raw, &targets, r, modules);
    let (whole, save) = whole_modules(adapters)?;
    set.whole = whole;
    if !save.is_empty() {
        set.config.insert("modules_to_save".into(), json!(save));
    }
    set.report = report;
    warnings.extend(adapters.iter().flat_map(|a| {
        a.warnings
            .iter()
            .map(|w| format!("{}: {w}", a.path.display()))
    }));
    set.warnings = warnings;
    Ok(set)
}

/// The largest rank of an adapter's tensors (the configuration may say another; the tensors are used).
fn largest_rank(adapter: &AdapterFolder) -> usize {
    adapter
        .modules
        .values()
        .filter_map(|m| adapter.tensors.get(m.a.as_deref()?)?.shape.first().copied())
        .max()
        .unwrap_or(1)
}

/// Adapters whose meaning is more than `scaling B A`.
pub(crate) fn refuse(adapter: &AdapterFolder) -> Result<()> {
    let config = &adapter.config;
    let place = config.path.display().to_string();
    let because = if config.peft_type != PeftType::Lora {
        format!("`peft_type` is {}, not LORA", config.peft_type.word())
    } else if config.dora {
        "`use_dora` is true, and a DoRA delta is no product of two factors".into()
    } else if config.base_change != BaseChange::None {
        "`init_lora_weights` changes the base, so the delta is not in the file".into()
    } else if config.lora_bias {
        "`lora_bias` is true, and a bias has no place in the result".into()
    } else if adapter.whole.keys().any(|n| is_adapted_bias(adapter, n)) {
        "it stores biases beside the factors, which have no place in the result".into()
    } else {
        return Ok(());
    };
    Err(MergeError::plan("adapter-unsupported", because)
        .at(place)
        .hint("fold the adapter into its base and merge or extract the full models"))
}

fn is_adapted_bias(adapter: &AdapterFolder, name: &str) -> bool {
    adapter.config.bias != polyloom_core::peft::Bias::None
        && name.ends_with(".bias")
        && !adapter
            .config
            .targets
            .save
            .iter()
            .any(|s| polyloom_core::peft::matching::is_saved_module(name, s))
}

/// Union of `target_modules`: sorted lists, or patterns joined as `(a)|(b)`.
fn union(adapters: &[AdapterFolder]) -> Result<Names> {
    let mut list = BTreeSet::new();
    let mut patterns: Vec<String> = Vec::new();
    for adapter in adapters {
        match &adapter.config.targets.target {
            Some(Names::List(names)) => list.extend(names.iter().cloned()),
            Some(Names::Pattern(p)) => {
                let p = format!("({p})");
                if !patterns.contains(&p) {
                    patterns.push(p);
                }
            }
            // Nothing said: the modules in the file.
            None => list.extend(adapter.modules.keys().cloned()),
        }
    }
    match (list.is_empty(), patterns.is_empty()) {
        (false, false) => Err(MergeError::plan(
            "adapter-mismatch",
            "`target_modules` is a list in one adapter and a pattern in another",
        )
        .hint("write both as lists in their adapter_config.json")),
        (_, true) => Ok(Names::List(list.into_iter().collect())),
        _ => Ok(Names::Pattern(patterns.join("|"))),
    }
}

/// Whole modules of one adapter each, and the copy of the base's embedding that PEFT stores beside a targeted one.
fn whole_modules(adapters: &[AdapterFolder]) -> Result<(Vec<AdapterTensor>, Vec<String>)> {
    let mut owner: BTreeMap<&str, usize> = BTreeMap::new();
    let mut save = BTreeSet::new();
    let mut out = Vec::new();
    for (i, adapter) in adapters.iter().enumerate() {
        save.extend(adapter.config.targets.save.iter().cloned());
        for (name, full) in &adapter.whole {
            let copy_of_base = name
                .strip_suffix(".weight")
                .is_some_and(|m| adapters.iter().any(|a| a.modules.contains_key(m)));
            if let Some(first) = owner.get(name.as_str()) {
                if copy_of_base {
                    continue;
                }
                return Err(MergeError::plan(
                    "adapter-mismatch",
                    format!(
                        "`{name}` is stored whole in {} and {}, and whole modules have no combination",
                        adapters[*first].path.display(),
                        adapter.path.display()
                    ),
                )
                .hint("fold the adapters into their base and merge the full models"));
            }
            owner.insert(name, i);
            let stored = &adapter.tensors.tensors()[full];
            out.push(AdapterTensor {
                name: full.clone(),
                dtype: stored.dtype,
                shape: stored.shape.clone(),
                values: adapter.read(full)?,
            });
        }
    }
    Ok((out, save.into_iter().collect()))
}
