//! Heads and feed-forward channels of a model that several tasks share, removed within a bound of every task (the rule of
//! PAGCP, Ye et al. 2023, on transformers).
//!
//! Layers (attentions, feed-forward parts) are visited in falling order of the work that one unit saves over the rise of the
//! joint loss when a tenth of the layer is masked. In each the largest number of units, the least salient first, is masked for
//! which every task's loss rises by no more than the layer's share of its bound; what a layer leaves goes to the next.

use crate::engine::{Tensor, slice, tensor};
use crate::error::{Error, Result};
use crate::models::open::{Model, Trunk};
use crate::models::{LayerParts, Plain, Source};

/// What is removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A head of an attention.
    Heads,
    /// A channel of a feed-forward part.
    Channels,
}

/// What makes a unit go first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Saliency {
    /// A small sum of the magnitudes of its weights.
    #[default]
    L1,
    /// A small `|sum w dL/dw|` over its weights, added over the tasks' losses: to first order what the losses change without it.
    Taylor,
}

/// One attention or feed-forward part.
#[derive(Debug, Clone)]
pub struct Part {
    /// Number of its layer.
    pub layer: usize,
    /// What its units are.
    pub kind: Kind,
    /// Linear layers whose rows belong to units.
    into: Vec<String>,
    /// The one whose columns do.
    out: String,
    /// Rows of a unit.
    width: usize,
    /// Units.
    pub units: usize,
    /// Units, the least salient first (as [`parts`] gives them: by the L1 norm of their weights).
    pub order: Vec<usize>,
    /// Multiplications that a unit takes for a token, in its linear layers.
    pub work: usize,
}

/// The parts of a model whose units can go.
///
/// # Errors
/// Another architecture than BERT's (without MPNet) or a vision transformer, tensors that are absent.
pub fn parts(model: &Model) -> Result<Vec<Part>> {
    let weights = &model.weights;
    let (layers, hidden, heads): (Vec<LayerParts>, usize, usize) = match &model.trunk {
        Trunk::Vit(v) => (
            v.layers(weights)?,
            v.config.hidden_size,
            v.config.num_attention_heads,
        ),
        Trunk::Bert(b) if b.config.model_type != "mpnet" => (
            b.layers()?,
            b.config.hidden_size,
            b.config.num_attention_heads,
        ),
        _ => {
            return Err(Error::file(
                &model.folder,
                "has no heads and channels that can be removed",
            )
            .hint("models of the BERT family (not MPNet) and vision transformers have"));
        }
    };
    let mut found = Vec::new();
    for (layer, names) in layers.into_iter().enumerate() {
        let attention = (
            Kind::Heads,
            names.inward.to_vec(),
            names.joined,
            hidden / heads,
        );
        let fed = (Kind::Channels, vec![names.up], names.down, 1);
        for (kind, into, out, width) in [attention, fed] {
            let rows = weights.tensor(&format!("{}.weight", into[0]))?.dims()[0];
            let units = rows / width.max(1);
            let mut part = Part {
                layer,
                kind,
                into,
                out,
                width,
                units,
                order: Vec::new(),
                work: 0,
            };
            for name in &part.into {
                part.work += width * weights.tensor(&format!("{name}.weight"))?.dims()[1];
            }
            part.work += width * weights.tensor(&format!("{}.weight", part.out))?.dims()[0];
            let magnitudes = part.sums(&|name| {
                let w = weights.tensor(name)?;
                let all = slice(w.data())?;
                Ok((all.iter().map(|x| x.abs()).collect(), w.dims()[1]))
            })?;
            part.sort(&magnitudes);
            found.push(part);
        }
    }
    Ok(found)
}

/// Numbers for the elements of a matrix, row by row, and its columns.
pub type Numbers<'a> = &'a dyn Fn(&str) -> Result<(Vec<f32>, usize)>;

impl Part {
    /// Names of the matrices whose rows or columns belong to units.
    pub fn matrices(&self) -> impl Iterator<Item = String> {
        let all = self.into.iter().chain([&self.out]);
        all.map(|name| format!("{name}.weight"))
    }

    /// Sums of numbers over the elements of each unit's rows and columns.
    ///
    /// # Errors
    /// Those of `numbers`.
    pub fn sums(&self, numbers: Numbers<'_>) -> Result<Vec<f64>> {
        let mut sums = vec![0f64; self.units];
        for name in &self.into {
            let (all, cols) = numbers(&format!("{name}.weight"))?;
            for (r, row) in all.chunks_exact(cols).enumerate() {
                sums[r / self.width] += row.iter().map(|x| f64::from(*x)).sum::<f64>();
            }
        }
        let (all, cols) = numbers(&format!("{}.weight", self.out))?;
        for row in all.chunks_exact(cols) {
            for (c, x) in row.iter().enumerate() {
                sums[c / self.width] += f64::from(*x);
            }
        }
        Ok(sums)
    }

    /// Sorts the units, the smallest first.
    pub fn sort(&mut self, saliency: &[f64]) {
        self.order = (0..self.units).collect();
        self.order
            .sort_by(|a, b| saliency[*a].total_cmp(&saliency[*b]));
    }

    /// The tensors that mask the first `n` units of the order: their columns on the way out are 0.
    ///
    /// # Errors
    /// Never in practice: weights in memory.
    pub fn masked(&self, weights: &Plain, n: usize) -> Result<(String, Tensor)> {
        let name = format!("{}.weight", self.out);
        let w = weights.tensor(&name)?;
        let (rows, cols) = (w.dims()[0], w.dims()[1]);
        let mut values = slice(w.data())?.to_vec();
        for row in values.chunks_exact_mut(cols) {
            for unit in &self.order[..n] {
                row[unit * self.width..(unit + 1) * self.width].fill(0.0);
            }
        }
        Ok((name, tensor(values, (rows, cols))?))
    }

    /// The tensors without the first `n` units of the order.
    ///
    /// # Errors
    /// Never in practice: weights in memory.
    pub fn removed(&self, weights: &Plain, n: usize) -> Result<Vec<(String, Tensor)>> {
        let mut gone = vec![false; self.units];
        self.order[..n].iter().for_each(|u| gone[*u] = true);
        let kept: Vec<usize> = (0..self.units * self.width)
            .filter(|r| !gone[r / self.width])
            .collect();
        let mut found = Vec::new();
        for name in &self.into {
            for (end, rank) in [("weight", 2), ("bias", 1)] {
                let name = format!("{name}.{end}");
                let Some(t) = weights.find(&name)? else {
                    continue;
                };
                let cols = if rank == 2 { t.dims()[1] } else { 1 };
                let all = slice(t.data())?;
                let values: Vec<f32> = kept
                    .iter()
                    .flat_map(|r| all[r * cols..(r + 1) * cols].iter().copied())
                    .collect();
                let shape = if rank == 2 {
                    vec![kept.len(), cols]
                } else {
                    vec![kept.len()]
                };
                found.push((name, tensor(values, shape)?));
            }
        }
        let name = format!("{}.weight", self.out);
        let w = weights.tensor(&name)?;
        let (rows, cols) = (w.dims()[0], w.dims()[1]);
        let all = slice(w.data())?;
        let values = all
            .chunks_exact(cols)
            .flat_map(|row| kept.iter().map(|c| row[*c]).collect::<Vec<_>>());
        found.push((name, tensor(values.collect(), (rows, kept.len()))?));
        Ok(found)
    }
}

/// What the rule needs to know of a part.
#[derive(Debug, Clone, Copy)]
pub struct Size {
    /// Units.
    pub units: usize,
    /// Work of one.
    pub work: usize,
}

/// What was decided.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Decided {
    /// Units of each part that go.
    pub gone: Vec<usize>,
    /// Parts in the order of the visits.
    pub order: Vec<usize>,
    /// Losses of the tasks before.
    pub before: Vec<f64>,
    /// And after.
    pub after: Vec<f64>,
    /// Share of the parts' work that is saved.
    pub saved: f64,
}

/// Decides how many units of each part go. `losses` gives every task's loss with so many units of each part masked;
/// `bounds` are the tasks' largest relative rises, `target` the share of the work after whose saving nothing more goes. One
/// unit of every part stays. Numbers of units are found by bisection, as if losses rose with them; a number whose losses
/// break the bound is never taken.
///
/// # Errors
/// What `losses` reports; losses that are not above 0.
pub fn decide(
    sizes: &[Size],
    bounds: &[f64],
    target: f64,
    losses: &mut dyn FnMut(&[usize]) -> Result<Vec<f64>>,
) -> Result<Decided> {
    let mut gone = vec![0; sizes.len()];
    let before = losses(&gone)?;
    if before.iter().any(|l| !(*l > 0.0 && l.is_finite())) {
        return Err(Error::shape(
            "prune",
            "a task's loss is not above 0: its bound would be nothing",
        ));
    }
    let total: f64 = sizes.iter().map(|s| (s.units * s.work) as f64).sum();
    let joint = |l: &[f64]| l.iter().sum::<f64>();
    let mut rank = Vec::with_capacity(sizes.len());
    for (i, size) in sizes.iter().enumerate() {
        if size.units < 2 {
            rank.push((0.0, i));
            continue;
        }
        gone[i] = size.units.div_ceil(10).min(size.units - 1);
        let rise = (joint(&losses(&gone)?) - joint(&before)).max(1e-9);
        gone[i] = 0;
        rank.push((size.work as f64 / rise, i));
    }
    rank.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    let order: Vec<usize> = rank.into_iter().map(|r| r.1).collect();
    let mut now = before.clone();
    let mut left = vec![0f64; bounds.len()];
    let mut saved = 0.0;
    for &i in &order {
        if saved >= target {
            break;
        }
        let size = sizes[i];
        let share = (size.units * size.work) as f64 / total;
        left.iter_mut()
            .zip(bounds)
            .for_each(|(l, b)| *l += b * share);
        let missing = ((target - saved) * total / size.work as f64).ceil() as usize;
        let (mut low, mut high) = (0, size.units.saturating_sub(1).min(missing));
        let mut found = now.clone();
        while low < high {
            let middle = (low + high).div_ceil(2);
            gone[i] = middle;
            let tried = losses(&gone)?;
            let fits = (0..bounds.len()).all(|t| (tried[t] - now[t]) / before[t] <= left[t]);
            if fits {
                low = middle;
                found = tried;
            } else {
                high = middle - 1;
            }
        }
        gone[i] = low;
        for t in 0..bounds.len() {
            left[t] -= (found[t] - now[t]) / before[t];
        }
        now = found;
        saved += (low * size.work) as f64 / total;
    }
    Ok(Decided {
        gone,
        order,
        before,
        after: now,
        saved,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_a_unit_are_those_of_its_rows_and_columns() {
        let mut part = Part {
            layer: 0,
            kind: Kind::Heads,
            into: vec!["q".into(), "k".into()],
            out: "o".into(),
            width: 2,
            units: 2,
            order: Vec::new(),
            work: 0,
        };
        assert_eq!(
            part.matrices().collect::<Vec<_>>(),
            ["q.weight", "k.weight", "o.weight"]
        );
        // Two units of two rows in q and k [4, 1], of two columns in o [1, 4]; signs cancel inside of a unit.
        let numbers = |name: &str| {
            Ok(match name {
                "q.weight" => (vec![1.0, 2.0, 10.0, -20.0], 1),
                "k.weight" => (vec![0.5, 0.5, 1.0, 1.0], 1),
                _ => (vec![-1.0, -1.0, 4.0, 5.0], 4),
            })
        };
        let sums = part.sums(&numbers).unwrap();
        assert_eq!(sums, [2.0, 1.0]);
        part.sort(&sums);
        assert_eq!(part.order, [1, 0]);
    }

    #[test]
    fn bounds_hold_for_every_task_and_cheap_layers_go_first() {
        let sizes = [
            Size {
                units: 20,
                work: 10,
            },
            Size {
                units: 20,
                work: 10,
            },
            Size {
                units: 4,
                work: 100,
            },
        ];
        // The first part hurts task 0, the second nobody, the third task 1.
        let rise = [[0.01, 0.0], [0.0, 0.0], [0.0, 0.05]];
        let mut losses = |gone: &[usize]| {
            let of = |t: usize| 1.0 + (0..3).map(|p| gone[p] as f64 * rise[p][t]).sum::<f64>();
            Ok(vec![of(0), of(1)])
        };
        let found = decide(&sizes, &[0.05, 0.04], 1.0, &mut losses).unwrap();
        // Only what stays in every part stops the second.
        assert_eq!(found.order[0], 1);
        assert_eq!(found.gone[1], 19);
        // Its share of the bound went on to the others: task 0 can lose five units in all, task 1 none of its own.
        assert!(found.gone[0] <= 5 && found.gone[2] == 0, "{found:?}");
        for (t, bound) in [0.05, 0.04].iter().enumerate() {
            assert!(found.after[t] <= found.before[t] * (1.0 + bound) + 1e-12);
        }
        // A target ends it early.
        let found = decide(&sizes, &[0.05, 0.04], 0.1, &mut losses).unwrap();
        assert_eq!(found.gone, [0, 8, 0]);
        assert!((found.saved - 0.1).abs() < 1e-12);
        assert!(decide(&sizes, &[0.1], 1.0, &mut |_| Ok(vec![0.0])).is_err());
    }
}
