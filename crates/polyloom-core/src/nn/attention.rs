//! Scaled dot-product attention of many heads, forward and backward, straight on the outputs of the projections: no
//! transposed copies.

use rayon::prelude::*;

use super::math::tanh;
use super::matmul::{Threads, View, ViewMut, matmul};
use super::{dropout, softmax};
use crate::rng::Stream;
use crate::wide;

/// Sizes and rules of one attention.
#[derive(Debug, Clone, Copy)]
pub struct Attention {
    /// Sequences.
    pub batch: usize,
    /// Heads of the queries.
    pub heads: usize,
    /// Heads of keys and values; divides `heads`, each serves `heads / groups` neighbouring heads (grouped queries).
    pub groups: usize,
    /// Features of a head of queries and keys, and of values.
    pub dim: usize,
    /// Queries of a sequence.
    pub queries: usize,
    /// Keys of a sequence.
    pub keys: usize,
    /// Factor of the scores, often `1 / √dim`.
    pub scale: f32,
    /// Scores become `cap tanh(score / cap)`; 0 for no cap.
    pub cap: f32,
    /// Query i sees keys up to `i + keys - queries`.
    pub causal: bool,
    /// With `causal`: and not those `window` and more before it; 0 for all.
    pub window: usize,
    /// Share of the probabilities that are dropped, the rest grows by `1 / (1 - dropout)`.
    pub dropout: f32,
    /// Seed of the dropout.
    pub seed: u64,
}

/// Queries, keys and values; position after position, a head's features side by side, heads side by side.
#[derive(Debug, Clone, Copy)]
pub struct Inputs<'a> {
    /// `[batch, queries, heads * dim]`, positions `strides[0]` apart.
    pub q: &'a [f32],
    /// `[batch, keys, groups * dim]`, positions `strides[1]` apart.
    pub k: &'a [f32],
    /// As `k`, positions `strides[2]` apart.
    pub v: &'a [f32],
    /// Distances of positions: those of a packed projection are larger than its parts.
    pub strides: [usize; 3],
    /// Added to all scores of a key: `[batch, keys]`, minus infinity hides it; or empty.
    pub key_bias: &'a [f32],
    /// Added to all scores of a head: `[heads, queries, keys]`; or empty.
    pub bias: &'a [f32],
}

impl Attention {
    fn check(&self, x: &Inputs<'_>) {
        let Self {
            batch,
            heads,
            groups,
            dim,
            queries,
            keys,
            ..
        } = *self;
        assert!(
            groups > 0 && heads.is_multiple_of(groups),
            "{heads} heads for {groups} groups"
        );
        assert!(
            !self.causal || queries <= keys,
            "{queries} queries for {keys} keys"
        );
        let fits = |len: usize, positions: usize, width: usize, stride: usize| {
            stride >= width
                && (batch * positions == 0 || (batch * positions - 1) * stride + width <= len)
        };
        assert!(
            fits(x.q.len(), queries, heads * dim, x.strides[0])
                && fits(x.k.len(), keys, groups * dim, x.strides[1])
                && fits(x.v.len(), keys, groups * dim, x.strides[2]),
            "lengths of an attention"
        );
        assert!(
            x.key_bias.is_empty() || x.key_bias.len() == batch * keys,
            "key bias"
        );
        assert!(
            x.bias.is_empty() || x.bias.len() == heads * queries * keys,
            "bias"
        );
    }

    fn q<'a>(&self, x: &Inputs<'a>, b: usize, h: usize) -> View<'a> {
        View::strided(
            &x.q[b * self.queries * x.strides[0] + h * self.dim..],
            self.queries,
            self.dim,
            x.strides[0],
        )
    }

    fn k<'a>(&self, x: &Inputs<'a>, b: usize, h: usize) -> View<'a> {
        let group = h / (self.heads / self.groups);
        View::strided(
            &x.k[b * self.keys * x.strides[1] + group * self.dim..],
            self.keys,
            self.dim,
            x.strides[1],
        )
    }

    fn v<'a>(&self, x: &Inputs<'a>, b: usize, h: usize) -> View<'a> {
        let group = h / (self.heads / self.groups);
        View::strided(
            &x.v[b * self.keys * x.strides[2] + group * self.dim..],
            self.keys,
            self.dim,
            x.strides[2],
        )
    }

    /// Drops the same probabilities of a head in both passes.
    fn drop(&self, p: &mut [f32], b: usize, h: usize) {
        if self.dropout > 0.0 {
            let at = ((b * self.heads + h) * self.queries * self.keys) as u64;
            dropout::apply(p, at, self.dropout, Stream::new(self.seed, "attention", 0));
        }
    }

    /// Probabilities of one head.
    fn probabilities(&self, x: &Inputs<'_>, b: usize, h: usize, out: &mut [f32]) {
        let (queries, keys) = (self.queries, self.keys);
        matmul(
            ViewMut::new(out, queries, keys),
            false,
            self.scale,
            self.q(x, b, h),
            self.k(x, b, h).t(),
            Threads::One,
        );
        let key_bias = x.key_bias.get(b * keys..(b + 1) * keys);
        wide(
            #[inline(always)]
            || {
                for (i, row) in out.chunks_exact_mut(keys).enumerate() {
                    if self.cap > 0.0 {
                        row.iter_mut()
                            .for_each(|s| *s = self.cap * tanh(*s / self.cap));
                    }
                    if let Some(bias) = key_bias {
                        row.iter_mut().zip(bias).for_each(|(s, b)| *s += b);
                    }
                    if !x.bias.is_empty() {
                        let bias = &x.bias[(h * queries + i) * keys..][..keys];
                        row.iter_mut().zip(bias).for_each(|(s, b)| *s += b);
                    }
                    if self.causal {
                        let end = i + keys - queries + 1;
                        row[end..].fill(f32::NEG_INFINITY);
                        if self.window > 0 {
                            row[..end.saturating_sub(self.window)].fill(f32::NEG_INFINITY);
                        }
                    }
                    softmax::row(row);
                }
            },
        );
    }

    /// Output `[batch, queries, heads * dim]` and probabilities `[batch, heads, queries, keys]` (before dropout), which the
    /// backward pass reads. A query that sees no key gets zeros.
    ///
    /// # Panics
    /// If the lengths do not fit together.
    pub fn forward(&self, x: Inputs<'_>) -> (Vec<f32>, Vec<f32>) {
        self.check(&x);
        let (width, size) = (self.heads * self.dim, self.queries * self.keys);
        let mut out = vec![0f32; self.batch * self.queries * width];
        let mut p = vec![0f32; self.batch * self.heads * size];
        if out.is_empty() || size == 0 {
            return (out, p);
        }
        let head = |b: usize, h: usize, out: &mut [f32], stride: usize, p: &mut [f32]| {
            self.probabilities(&x, b, h, p);
            let out = ViewMut::strided(out, self.queries, self.dim, stride);
            if self.dropout > 0.0 {
                let mut dropped = p.to_vec();
                self.drop(&mut dropped, b, h);
                matmul(
                    out,
                    false,
                    1.0,
                    View::new(&dropped, self.queries, self.keys),
                    self.v(&x, b, h),
                    Threads::One,
                );
            } else {
                matmul(
                    out,
                    false,
                    1.0,
                    View::new(p, self.queries, self.keys),
                    self.v(&x, b, h),
                    Threads::One,
                );
            }
        };
        if self.batch >= rayon::current_num_threads() {
            let items = out
                .par_chunks_mut(self.queries * width)
                .zip(p.par_chunks_mut(self.heads * size));
            items.enumerate().for_each(|(b, (out, p))| {
                for (h, p) in p.chunks_exact_mut(size).enumerate() {
                    head(b, h, &mut out[h * self.dim..], width, p);
                }
            });
        } else {
            let mut apart = vec![0f32; out.len()];
            let items = apart
                .par_chunks_mut(self.queries * self.dim)
                .zip(p.par_chunks_mut(size));
            items
                .enumerate()
                .for_each(|(i, (out, p))| head(i / self.heads, i % self.heads, out, self.dim, p));
            self.interleave(&apart, self.heads, self.queries, &mut out);
        }
        (out, p)
    }

    /// `[batch, heads, positions, dim]` to `[batch, positions, heads * dim]`.
    fn interleave(&self, apart: &[f32], heads: usize, positions: usize, out: &mut [f32]) {
        out.par_chunks_mut(heads * self.dim)
            .enumerate()
            .for_each(|(at, row)| {
                let (b, i) = (at / positions, at % positions);
                for (h, to) in row.chunks_exact_mut(self.dim).enumerate() {
                    to.copy_from_slice(
                        &apart[((b * heads + h) * positions + i) * self.dim..][..self.dim],
                    );
                }
            });
    }

    /// Gradients of queries, keys and values, each dense `[batch, positions, heads or groups * dim]`, and of the bias
    /// (`[heads, queries, keys]`, empty where there was none), from the probabilities of [`Attention::forward`] and the
    /// gradient of its output.
    ///
    /// # Panics
    /// If the lengths do not fit together.
    pub fn backward(&self, x: Inputs<'_>, p: &[f32], grad: &[f32]) -> Gradients {
        self.check(&x);
        let (width, narrow, size) = (
            self.heads * self.dim,
            self.groups * self.dim,
            self.queries * self.keys,
        );
        assert!(
            p.len() == self.batch * self.heads * size
                && grad.len() == self.batch * self.queries * width,
            "lengths of an attention"
        );
        let mut found = Gradients {
            q: vec![0f32; grad.len()],
            k: vec![0f32; self.batch * self.keys * narrow],
            v: vec![0f32; self.batch * self.keys * narrow],
            bias: vec![0f32; x.bias.len()],
        };
        if size == 0 || grad.is_empty() || found.k.is_empty() {
            return found;
        }
        let unit = |b: usize, parts: [&mut [f32]; 3], strides: [usize; 3], group: usize| {
            let [dq, dk, dv] = parts;
            let each = self.heads / self.groups;
            let mut ds = vec![0f32; size];
            let mut dropped = Vec::new();
            for j in 0..each {
                let h = group * each + j;
                let p = &p[(b * self.heads + h) * size..][..size];
                let grad = View::strided(
                    &grad[b * self.queries * width + h * self.dim..],
                    self.queries,
                    self.dim,
                    width,
                );
                let (q, k, v) = (self.q(&x, b, h), self.k(&x, b, h), self.v(&x, b, h));
                let seen = if self.dropout > 0.0 {
                    dropped.clear();
                    dropped.extend_from_slice(p);
                    self.drop(&mut dropped, b, h);
                    &dropped[..]
                } else {
                    p
                };
                let dv = ViewMut::strided(dv, self.keys, self.dim, strides[2]);
                matmul(
                    dv,
                    j > 0,
                    1.0,
                    View::new(seen, self.queries, self.keys).t(),
                    grad,
                    Threads::One,
                );
                matmul(
                    ViewMut::new(&mut ds, self.queries, self.keys),
                    false,
                    1.0,
                    grad,
                    v.t(),
                    Threads::One,
                );
                self.drop(&mut ds, b, h);
                wide(
                    #[inline(always)]
                    || {
                        for (g, p) in ds
                            .chunks_exact_mut(self.keys)
                            .zip(p.chunks_exact(self.keys))
                        {
                            softmax::row_backward(g, p);
                        }
                    },
                );
                if self.cap > 0.0 {
                    self.uncap(q, k, &mut ds);
                }
                let ds = View::new(&ds, self.queries, self.keys);
                matmul(
                    ViewMut::strided(&mut dq[j * self.dim..], self.queries, self.dim, strides[0]),
                    false,
                    self.scale,
                    ds,
                    k,
                    Threads::One,
                );
                matmul(
                    ViewMut::strided(dk, self.keys, self.dim, strides[1]),
                    j > 0,
                    self.scale,
                    ds.t(),
                    q,
                    Threads::One,
                );
            }
        };
        if self.batch >= rayon::current_num_threads() {
            let (q, k) = (self.queries * width, self.keys * narrow);
            let items = found
                .q
                .par_chunks_mut(q)
                .zip(found.k.par_chunks_mut(k))
                .zip(found.v.par_chunks_mut(k));
            items.enumerate().for_each(|(b, ((dq, dk), dv))| {
                for group in 0..self.groups {
                    let at = group * self.dim;
                    let wide = at * (self.heads / self.groups);
                    unit(
                        b,
                        [&mut dq[wide..], &mut dk[at..], &mut dv[at..]],
                        [width, narrow, narrow],
                        group,
                    );
                }
            });
        } else {
            let each = self.heads / self.groups;
            let (q, k) = (self.queries * each * self.dim, self.keys * self.dim);
            let mut apart = [
                vec![0f32; found.q.len()],
                vec![0f32; found.k.len()],
                vec![0f32; found.v.len()],
            ];
            let [dq, dk, dv] = &mut apart;
            let items = dq
                .par_chunks_mut(q)
                .zip(dk.par_chunks_mut(k))
                .zip(dv.par_chunks_mut(k));
            items.enumerate().for_each(|(i, ((dq, dk), dv))| {
                unit(
                    i / self.groups,
                    [dq, dk, dv],
                    [each * self.dim, self.dim, self.dim],
                    i % self.groups,
                );
            });
            let wider = Self {
                dim: each * self.dim,
                ..*self
            };
            wider.interleave(&apart[0], self.groups, self.queries, &mut found.q);
            self.interleave(&apart[1], self.groups, self.keys, &mut found.k);
            self.interleave(&apart[2], self.groups, self.keys, &mut found.v);
        }
        if !x.bias.is_empty() {
            self.bias_gradient(&x, p, grad, &mut found.bias);
        }
        found
    }

    /// Gradient of scores before the cap from that after it.
    fn uncap(&self, q: View<'_>, k: View<'_>, ds: &mut [f32]) {
        let mut raw = vec![0f32; ds.len()];
        matmul(
            ViewMut::new(&mut raw, self.queries, self.keys),
            false,
            self.scale / self.cap,
            q,
            k.t(),
            Threads::One,
        );
        for (g, s) in ds.iter_mut().zip(&raw) {
            let t = tanh(*s);
            *g *= 1.0 - t * t;
        }
    }

    /// Gradient of a bias that all sequences share: summed over them in order.
    fn bias_gradient(&self, x: &Inputs<'_>, p: &[f32], grad: &[f32], out: &mut [f32]) {
        let (width, size) = (self.heads * self.dim, self.queries * self.keys);
        out.par_chunks_mut(size).enumerate().for_each(|(h, out)| {
            let mut ds = vec![0f32; size];
            for b in 0..self.batch {
                let grad = View::strided(
                    &grad[b * self.queries * width + h * self.dim..],
                    self.queries,
                    self.dim,
                    width,
                );
                matmul(
                    ViewMut::new(&mut ds, self.queries, self.keys),
                    false,
                    1.0,
                    grad,
                    self.v(x, b, h).t(),
                    Threads::One,
                );
                self.drop(&mut ds, b, h);
                let p = &p[(b * self.heads + h) * size..][..size];
                for (g, p) in ds
                    .chunks_exact_mut(self.keys)
                    .zip(p.chunks_exact(self.keys))
                {
                    softmax::row_backward(g, p);
                }
                out.iter_mut().zip(&ds).for_each(|(o, g)| *o += g);
            }
        });
    }
}

/// Gradients of the inputs.
#[derive(Debug, Clone, Default)]
pub struct Gradients {
    /// Of the queries, `[batch, queries, heads * dim]`.
    pub q: Vec<f32>,
    /// Of the keys, `[batch, keys, groups * dim]`.
    pub k: Vec<f32>,
    /// Of the values, as `k`.
    pub v: Vec<f32>,
    /// Of the bias, `[heads, queries, keys]`, or empty.
    pub bias: Vec<f32>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(n: usize, key: u64) -> Vec<f32> {
        let s = Stream::new(key, "test", 0);
        (0..n as u64).map(|i| s.normal(i)).collect()
    }

    fn small() -> Attention {
        Attention {
            batch: 2,
            heads: 4,
            groups: 2,
            dim: 3,
            queries: 3,
            keys: 5,
            scale: 0.6,
            cap: 0.0,
            causal: false,
            window: 0,
            dropout: 0.0,
            seed: 1,
        }
    }

    #[test]
    fn one_head_by_hand() {
        let a = Attention {
            batch: 1,
            heads: 1,
            groups: 1,
            dim: 1,
            queries: 1,
            keys: 2,
            scale: 1.0,
            ..small()
        };
        let x = Inputs {
            q: &[1.0],
            k: &[0.0, 3f32.ln()],
            v: &[4.0, 8.0],
            strides: [1, 1, 1],
            key_bias: &[],
            bias: &[],
        };
        let (out, p) = a.forward(x);
        assert!((p[0] - 0.25).abs() < 1e-6 && (out[0] - 7.0).abs() < 1e-5);
        let hidden = Inputs {
            key_bias: &[0.0, f32::NEG_INFINITY],
            ..x
        };
        assert_eq!(a.forward(hidden).0, [4.0]);
    }

    #[test]
    fn gradients_are_differences() {
        let base = small();
        let rules = [
            base,
            Attention {
                causal: true,
                cap: 1.5,
                ..base
            },
            Attention {
                causal: true,
                window: 2,
                dropout: 0.3,
                ..base
            },
            Attention { batch: 1, ..base },
        ];
        for a in rules {
            let (q, k, v) = (
                noise(a.batch * 3 * 12, 1),
                noise(a.batch * 5 * 6, 2),
                noise(a.batch * 5 * 6, 3),
            );
            let (bias, grad) = (noise(4 * 3 * 5, 4), noise(a.batch * 3 * 12, 5));
            let mut key_bias = vec![0.0; a.batch * 5];
            key_bias[1] = f32::NEG_INFINITY;
            let all = [q, k, v, bias];
            let run = |all: &[Vec<f32>; 4]| {
                let x = Inputs {
                    q: &all[0],
                    k: &all[1],
                    v: &all[2],
                    strides: [12, 6, 6],
                    key_bias: &key_bias,
                    bias: &all[3],
                };
                let (out, p) = a.forward(x);
                let loss: f64 = out
                    .iter()
                    .zip(&grad)
                    .map(|(o, g)| f64::from(*o) * f64::from(*g))
                    .sum();
                (loss, a.backward(x, &p, &grad))
            };
            let found = run(&all).1;
            for (part, found) in [&found.q, &found.k, &found.v, &found.bias]
                .into_iter()
                .enumerate()
            {
                for i in 0..found.len() {
                    let moved = |d: f32| {
                        let mut all = all.clone();
                        all[part][i] += d;
                        run(&all).0
                    };
                    let numeric = (moved(1e-2) - moved(-1e-2)) / 2e-2;
                    // The bias is added after the cap, so its gradient is that of capped scores.
                    assert!(
                        (f64::from(found[i]) - numeric).abs() < 3e-3,
                        "part {part}, {i}: {} and {numeric}",
                        found[i]
                    );
                }
            }
        }
    }

    #[test]
    fn packed_is_the_same() {
        let a = Attention {
            groups: 4,
            queries: 5,
            causal: true,
            ..small()
        };
        let packed = noise(2 * 5 * 36, 7);
        let part = |n: usize| {
            packed
                .chunks_exact(36)
                .flat_map(|r| r[n * 12..(n + 1) * 12].to_vec())
                .collect::<Vec<_>>()
        };
        let (q, k, v) = (part(0), part(1), part(2));
        let apart = a
            .forward(Inputs {
                q: &q,
                k: &k,
                v: &v,
                strides: [12; 3],
                key_bias: &[],
                bias: &[],
            })
            .0;
        let x = Inputs {
            q: &packed,
            k: &packed[12..],
            v: &packed[24..],
            strides: [36; 3],
            key_bias: &[],
            bias: &[],
        };
        assert_eq!(a.forward(x).0, apart);
    }
}
