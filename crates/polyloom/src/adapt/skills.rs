//! Routed low-rank layers that become plain LoRA once the routing is fixed: Poly and MHR for one task
//! (arXiv 2202.13914, 2211.03831), SMoRA with a fixed mask of ranks (arXiv 2501.15103).

use polyloom_core::DType;
use polyloom_core::linalg::Matrix;
use polyloom_core::peft::{AdapterFolder, LayerKind, Names, PeftType};
use serde_json::json;

use super::set::{AdapterSet, ModuleReport, Pair};
use crate::error::{MergeError, Result};

/// In which order the axes of the skills are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SkillLayout {
    /// PEFT: A `[splits, skills, in/splits, r]`, B `[splits, skills, r, out/splits]`.
    Peft,
    /// mttl: A `[skills, splits, in/splits, r]`, B `[skills, r, splits, out/splits]`.
    Mttl,
}

/// The skills of one layer.
#[derive(Debug, Clone, Copy)]
pub struct Skills<'a> {
    /// A in the stored order.
    pub a: &'a [f32],
    /// B in the stored order.
    pub b: &'a [f32],
    /// Number of splits (1: Poly).
    pub splits: usize,
    /// Number of skills.
    pub skills: usize,
    /// Rank of one skill.
    pub rank: usize,
    /// Order of the axes.
    pub layout: SkillLayout,
}

impl Skills<'_> {
    /// Input and output width; an error text if the sizes do not fit together.
    fn widths(&self) -> Result<(usize, usize), String> {
        let per = self.skills * self.rank;
        if per == 0
            || self.splits == 0
            || !self.a.len().is_multiple_of(per * self.splits)
            || !self.b.len().is_multiple_of(per * self.splits)
        {
            return Err(format!(
                "{} and {} values do not divide into {} splits of {} skills of rank {}",
                self.a.len(),
                self.b.len(),
                self.splits,
                self.skills,
                self.rank
            ));
        }
        Ok((self.a.len() / per, self.b.len() / per))
    }

    fn at_a(&self, inputs: usize, s: usize, k: usize, i: usize, r: usize) -> f64 {
        let width = inputs / self.splits;
        let block = match self.layout {
            SkillLayout::Peft => s * self.skills + k,
            SkillLayout::Mttl => k * self.splits + s,
        };
        f64::from(self.a[(block * width + i) * self.rank + r])
    }

    fn at_b(&self, outputs: usize, s: usize, k: usize, r: usize, o: usize) -> f64 {
        let width = outputs / self.splits;
        let block = match self.layout {
            SkillLayout::Peft => (s * self.skills + k) * self.rank + r,
            SkillLayout::Mttl => (k * self.rank + r) * self.splits + s,
        };
        f64::from(self.b[block * width + o])
    }

    /// One LoRA of rank r: `A = sum_k w_k A_k`, `B = sum_k w_k B_k`, split by split. `weights` is `[splits, skills]`.
    /// Uniform weights 1/skills give MHR-mu.
    pub fn mixed(&self, weights: &[f64]) -> Result<Pair, String> {
        let (inputs, outputs) = self.widths()?;
        if weights.len() != self.splits * self.skills {
            return Err(format!(
                "{} weights for {} splits of {} skills",
                weights.len(),
                self.splits,
                self.skills
            ));
        }
        let (wide_in, wide_out) = (inputs / self.splits, outputs / self.splits);
        let mut a = Matrix::zeros(self.rank, inputs);
        let mut b = Matrix::zeros(outputs, self.rank);
        for s in 0..self.splits {
            for k in 0..self.skills {
                let w = weights[s * self.skills + k];
                for r in 0..self.rank {
                    for i in 0..wide_in {
                        a.data[r * inputs + s * wide_in + i] += w * self.at_a(inputs, s, k, i, r);
                    }
                    for o in 0..wide_out {
                        b.data[(s * wide_out + o) * self.rank + r] +=
                            w * self.at_b(outputs, s, k, r, o);
                    }
                }
            }
        }
        Ok(Pair {
            a,
            b,
            kind: LayerKind::Linear,
        })
    }

    /// mttl's `merge_after`: outputs of the skills are mixed, so the LoRA has rank skills x r (one split only).
    pub fn mixed_after(&self, weights: &[f64]) -> Result<Pair, String> {
        let (inputs, outputs) = self.widths()?;
        if self.splits != 1 || weights.len() != self.skills {
            return Err("mixing outputs needs one split and one weight per skill".into());
        }
        let rank = self.skills * self.rank;
        let mut a = Matrix::zeros(rank, inputs);
        let mut b = Matrix::zeros(outputs, rank);
        for (k, weight) in weights.iter().enumerate() {
            for r in 0..self.rank {
                let row = k * self.rank + r;
                for i in 0..inputs {
                    a.data[row * inputs + i] = self.at_a(inputs, 0, k, i, r);
                }
                for o in 0..outputs {
                    b.data[o * rank + row] = weight * self.at_b(outputs, 0, k, r, o);
                }
            }
        }
        Ok(Pair {
            a,
            b,
            kind: LayerKind::Linear,
        })
    }
}

/// Mixing weights at evaluation: `sigmoid(z) / (sum over skills + eps)` per split; `logits` is `[splits, skills]`.
/// eps: 1e-12 in PEFT, 1e-8 in mttl.
pub fn mixing_weights(logits: &[f32], skills: usize, eps: f64) -> Vec<f64> {
    logits
        .chunks(skills.max(1))
        .flat_map(|split| {
            let z: Vec<f64> = split
                .iter()
                .map(|&l| 1.0 / (1.0 + (-f64::from(l)).exp()))
                .collect();
            let sum: f64 = z.iter().sum::<f64>() + eps;
            z.into_iter().map(move |v| v / sum)
        })
        .collect()
}

/// Which weights a Poly adapter is exported with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PolyTask {
    /// The learned routing of a task.
    Task(usize),
    /// The mean of the skills (MHR-mu, or a new task without data).
    Mean,
}

/// Exports a PEFT Poly or MHR adapter for one task as a plain LoRA: exact, with alpha 1 (PEFT's scaling is 1/r).
pub fn poly_to_lora(adapter: &AdapterFolder, task: PolyTask) -> Result<AdapterSet> {
    let config = &adapter.config;
    let bad = |m: String| {
        MergeError::plan("adapter-unsupported", m).at(config.path.display().to_string())
    };
    if config.peft_type != PeftType::Poly {
        return Err(bad(format!(
            "`peft_type` is {}, not POLY",
            config.peft_type.word()
        )));
    }
    let (tasks, skills, splits) = config.poly;
    if let PolyTask::Task(t) = task
        && t >= tasks
    {
        return Err(bad(format!("has {tasks} tasks, so there is no task {t}")));
    }
    let mut modules = Vec::new();
    let mut report = Vec::new();
    for (name, parts) in &adapter.modules {
        let (Some(a), Some(b), Some(logits)) = (&parts.a, &parts.b, &parts.logits) else {
            return Err(bad(format!("module `{name}` is incomplete")));
        };
        let dtype = adapter.tensors.get(a).map_or(DType::F32, |t| t.dtype);
        // The sizes below come from the configuration; here they are held against the file.
        let fits = |name: &str, rank_axis: usize| {
            adapter.tensors.get(name).is_some_and(|t| {
                t.shape.len() == 4
                    && t.shape[..2] == [splits, skills]
                    && t.shape[rank_axis] == config.rank
            })
        };
        if !fits(a, 3) || !fits(b, 2) {
            return Err(bad(format!(
                "module `{name}` does not have {splits} splits of {skills} skills of rank {}",
                config.rank
            )));
        }
        let (a, b, logits) = (adapter.read(a)?, adapter.read(b)?, adapter.read(logits)?);
        let weights = match task {
            PolyTask::Mean => vec![1.0 / skills as f64; splits * skills],
            PolyTask::Task(t) => {
                let row = logits.chunks_exact(splits * skills).nth(t).ok_or_else(|| {
                    bad(format!("module `{name}` has {} logits only", logits.len()))
                })?;
                mixing_weights(row, skills, 1e-12)
            }
        };
        let layer = Skills {
            a: &a,
            b: &b,
            splits,
            skills,
            rank: config.rank,
            layout: SkillLayout::Peft,
        };
        let pair = layer
            .mixed(&weights)
            .map_err(|m| bad(format!("module `{name}`: {m}")))?;
        report.push(ModuleReport {
            module: name.clone(),
            rank: pair.rank(),
            relative_error: None,
        });
        modules.push((name.clone(), pair, dtype));
    }
    let targets = config
        .targets
        .target
        .clone()
        .unwrap_or_else(|| Names::List(adapter.modules.keys().cloned().collect()));
    let mut set = AdapterSet::unscaled(&config.raw, &targets, config.rank, modules);
    set.config.insert("lora_alpha".into(), json!(1));
    set.report = report;
    set.warnings = adapter.warnings.clone();
    Ok(set)
}

/// `scaling * B diag(mask) A` as a plain LoRA of scaling 1; ranks with gate 0 are dropped (one of zeros stays if all
/// are). `mask` holds one gate per rank.
pub fn smora_fixed_mask(pair: &Pair, mask: &[f64], scaling: f64) -> Result<Pair, String> {
    if mask.len() != pair.rank() {
        return Err(format!("{} gates for {} ranks", mask.len(), pair.rank()));
    }
    let alive: Vec<usize> = (0..mask.len()).filter(|&k| mask[k] != 0.0).collect();
    let mut a = Matrix::zeros(alive.len(), pair.a.cols);
    let mut b = Matrix::zeros(pair.b.rows, alive.len());
    for (to, &from) in alive.iter().enumerate() {
        let row = &pair.a.data[from * pair.a.cols..][..pair.a.cols];
        for (x, y) in a.data[to * pair.a.cols..].iter_mut().zip(row) {
            *x = scaling * mask[from] * y;
        }
        for o in 0..b.rows {
            b.data[o * b.cols + to] = pair.b.data[o * pair.rank() + from];
        }
    }
    Ok(Pair {
        a,
        b,
        kind: pair.kind.clone(),
    }
    .padded(1))
}
