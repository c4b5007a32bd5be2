//! `arcee_fusion`: takes over the changes whose importance stands out.

use super::method::{
    Base, Chunk, Golden, Job, Kernel, Method, Missing, Next, Partial, Scope, Spec, Unit, typed,
};
use super::survey::{Cut, High, Low, Selector, magnitude_bits};
use crate::error::{MergeError, Result};

static SPEC: Spec = Spec {
    name: "arcee_fusion",
    summary: "Takes the other model's value where a change times its row's divergence stands out",
    source: "mergekit 0.1.5 merge_methods/arcee_fusion.py",
    formula: "Per row of the last axis `p = softmax(W1) + 1e-8`, `q = softmax(W0) + 1e-8`, `KL = sum p log(p/q)`; \
              `I = |W1 - W0| KL`; threshold = median + 1.5 (Q3 - Q1) of `I`, quantile `x` at index `int(x (n-1))`; \
              `R = W1` where `I >= threshold`, else `W0`.",
    differs: "The divergence is computed in float64 (in the peer's float32 it is mostly rounding for near-equal rows, \
              so some 1 % of the elements differ), and quantiles are exact instead of sampled above 1,000,000 elements.",
    cost: "three passes, O(elements)",
    base: Base::Required,
    experts: (1, 1),
    deltas: false,
    scope: Scope::Tensor,
    params: &[],
    on: None,
    golden: Golden::Cases(&["arcee_fusion"]),
    missing: Missing::CopyLone,
};

/// The entries of this file.
pub static METHODS: &[&dyn Method] = &[&ArceeFusion];

struct ArceeFusion;

impl Method for ArceeFusion {
    fn spec(&self) -> &'static Spec {
        &SPEC
    }

    fn kernel(&self, _: &Job) -> Result<Box<dyn Kernel>> {
        Ok(Box::new(Fusion {
            divergences: Vec::new(),
            selector: Selector::default(),
            threshold: 0.0,
        }))
    }
}

struct Fusion {
    /// Per row.
    divergences: Vec<f64>,
    selector: Selector,
    threshold: f32,
}

enum Found {
    First(Vec<f64>, High),
    Second(Low),
}

fn pair<'a>(chunk: &Chunk<'a>) -> Result<(&'a [f32], &'a [f32])> {
    match (chunk.base, chunk.inputs) {
        (Some(base), [other]) => Ok((base, other)),
        _ => Err(MergeError::Internal(
            "arcee_fusion needs a base and one model".into(),
        )),
    }
}

/// Importance of the entries of one row.
fn importance(base: &[f32], other: &[f32], divergence: f64) -> impl Iterator<Item = f32> + Clone {
    base.iter()
        .zip(other)
        .map(move |(a, b)| (f64::from((b - a).abs()) * divergence) as f32)
}

/// Divergence of the softmax of `other` from that of `base`; never negative.
fn divergence(base: &[f32], other: &[f32]) -> f64 {
    if base == other {
        return 0.0;
    }
    let softmax = |row: &[f32]| {
        let most = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let exp: Vec<f64> = row.iter().map(|x| f64::from(x - most).exp()).collect();
        let sum: f64 = exp.iter().sum();
        exp.into_iter().map(move |x| x / sum + 1e-8)
    };
    let kl: f64 = softmax(other)
        .zip(softmax(base))
        .map(|(p, q)| p * (p / q).ln())
        .sum();
    kl.max(0.0)
}

impl Fusion {
    /// Importance of every entry of a chunk, with the rows' divergences.
    fn entries<'a>(
        &'a self,
        chunk: &Chunk<'a>,
    ) -> Result<impl Iterator<Item = f32> + Clone + use<'a>> {
        let (base, other) = pair(chunk)?;
        let row = chunk.tensor.last_axis().max(1);
        let divergences = &self.divergences[chunk.start / row..];
        Ok(base
            .chunks(row)
            .zip(other.chunks(row))
            .zip(divergences)
            .flat_map(|((a, b), kl)| importance(a, b, *kl)))
    }
}

impl Kernel for Fusion {
    fn surveys(&self) -> bool {
        true
    }

    fn unit(&self) -> Unit {
        Unit::Row
    }

    fn survey(&self, round: usize, chunk: &Chunk) -> Result<Partial> {
        if round > 0 {
            let place = (chunk.index, chunk.start);
            let keys = self.entries(chunk)?.map(magnitude_bits);
            return Ok(Box::new(Found::Second(self.selector.low(place, keys))));
        }
        let (base, other) = pair(chunk)?;
        let row = chunk.tensor.last_axis().max(1);
        let rows = || base.chunks(row).zip(other.chunks(row));
        let divergences: Vec<f64> = rows().map(|(a, b)| divergence(a, b)).collect();
        let high = Selector::high(
            rows()
                .zip(&divergences)
                .flat_map(|((a, b), kl)| importance(a, b, *kl))
                .map(magnitude_bits),
        );
        Ok(Box::new(Found::First(divergences, high)))
    }

    fn absorb(&mut self, _: usize, partial: Partial) -> Result<()> {
        match typed::<Found>(partial)? {
            Found::First(divergences, high) => {
                self.divergences.extend(divergences);
                self.selector.absorb_high(&high);
            }
            Found::Second(low) => self.selector.absorb_low(low),
        }
        Ok(())
    }

    fn finish(&mut self, round: usize) -> Result<Next> {
        let n = self.selector.count();
        if n == 0 {
            return Ok(Next::Done);
        }
        if round == 0 {
            let rank = |x: f64| (x * (n - 1) as f64) as u64;
            self.selector.want(&[rank(0.25), rank(0.5), rank(0.75)]);
            return Ok(Next::Again);
        }
        let [first, median, third] = [0, 1, 2].map(|i| value(&self.selector.cut(i)));
        self.threshold = median + 1.5 * (third - first);
        self.selector = Selector::default();
        Ok(Next::Done)
    }

    fn apply(&self, chunk: &Chunk, out: &mut [f32]) -> Result<()> {
        let (base, other) = pair(chunk)?;
        let row = chunk.tensor.last_axis().max(1);
        for (((o, a), b), kl) in out
            .chunks_mut(row)
            .zip(base.chunks(row))
            .zip(other.chunks(row))
            .zip(&self.divergences[chunk.start / row..])
        {
            for (((o, a), b), i) in o.iter_mut().zip(a).zip(b).zip(importance(a, b, *kl)) {
                *o = if i >= self.threshold { *b } else { *a };
            }
        }
        Ok(())
    }
}

fn value(cut: &Cut) -> f32 {
    f32::from_bits(cut.key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn divergence_by_hand() {
        // softmax(0, 0) = (1/2, 1/2); softmax(ln 3, 0) = (3/4, 1/4).
        let kl = divergence(&[0.0, 0.0], &[3f32.ln(), 0.0]);
        let want = 0.75 * 1.5f64.ln() + 0.25 * 0.5f64.ln();
        assert!((kl - want).abs() < 1e-6, "{kl} {want}");
        assert_eq!(divergence(&[1.0, 2.0], &[1.0, 2.0]), 0.0);
        let i: Vec<f32> = importance(&[1.0, 1.0], &[3.0, 0.5], 0.5).collect();
        assert_eq!(i, [1.0, 0.25]);
    }
}
