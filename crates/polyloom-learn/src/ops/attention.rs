//! Attention of many heads.

use candle_core::{D, Tensor as T};
use polyloom_core::nn::attention::{Attention, Inputs};

use super::{cpu, dense};
use crate::engine::{Into, Meaning, Op, Slice, Tensor, Value, compose, slice, tensor};
use crate::error::{Error, In, Result};

const ATTENTION: &str = "attention";

/// Rules of an attention.
#[derive(Debug, Clone, Copy)]
pub struct Attend {
    /// Heads of the queries.
    pub heads: usize,
    /// Heads of keys and values: `heads`, or a divisor of it (grouped queries).
    pub groups: usize,
    /// Factor of the scores; `None` for `1 / √(features of a head)`.
    pub scale: Option<f32>,
    /// Scores become `cap tanh(score / cap)`; 0 for no cap.
    pub cap: f32,
    /// A query sees its own position and earlier ones; with more keys than queries, the queries are the last positions.
    pub causal: bool,
    /// With `causal`: how many positions back, its own counted; 0 for all.
    pub window: usize,
    /// Share of the probabilities that are dropped.
    pub dropout: f32,
    /// Seed of the dropout.
    pub seed: u64,
}

impl Attend {
    /// Every query sees every key.
    pub fn full(heads: usize) -> Self {
        Self {
            heads,
            groups: heads,
            scale: None,
            cap: 0.0,
            causal: false,
            window: 0,
            dropout: 0.0,
            seed: 0,
        }
    }

    /// Every query sees what came before it.
    pub fn causal(heads: usize, groups: usize) -> Self {
        Self {
            groups,
            causal: true,
            ..Self::full(heads)
        }
    }
}

/// What scores are changed by.
#[derive(Debug, Clone, Copy, Default)]
pub struct Mask<'a> {
    /// `[batch, keys]`, added to the scores of a key: 0, or minus infinity for padding.
    pub keys: Option<&'a Tensor>,
    /// `[heads, queries, keys]`, added to the scores (relative positions of T5); gets a gradient.
    pub bias: Option<&'a Value>,
}

/// Attention of queries `[batch, queries, heads * dim]` over keys and values `[batch, keys, groups * dim]`: `[batch,
/// queries, heads * dim]`. A query that sees no key gets zeros.
///
/// # Errors
/// Shapes that do not fit together.
pub fn attention(q: &Value, k: &Value, v: &Value, rule: Attend, mask: Mask<'_>) -> Result<Value> {
    let wrong = || {
        Error::shape(
            ATTENTION,
            format!(
                "queries {:?}, keys {:?}, values {:?} with {} heads in {} groups",
                q.dims(),
                k.dims(),
                v.dims(),
                rule.heads,
                rule.groups
            ),
        )
    };
    let (&[batch, queries, width], &[of, keys, narrow]) = (q.dims(), k.dims()) else {
        return Err(wrong());
    };
    let even = rule.groups > 0
        && rule.heads > 0
        && rule.heads.is_multiple_of(rule.groups)
        && width.is_multiple_of(rule.heads);
    if !even
        || of != batch
        || v.dims() != k.dims()
        || width / rule.heads * rule.groups != narrow
        || (rule.causal && queries > keys)
    {
        return Err(wrong());
    }
    if mask.keys.is_some_and(|m| m.dims() != [batch, keys])
        || mask
            .bias
            .is_some_and(|b| b.dims() != [rule.heads, queries, keys])
    {
        return Err(Error::shape(
            ATTENTION,
            "a mask of another shape".to_owned(),
        ));
    }
    if !(0.0..1.0).contains(&rule.dropout) {
        return Err(Error::shape(
            ATTENTION,
            format!("a dropout of {}, not in 0 to below 1", rule.dropout),
        ));
    }
    let dim = width / rule.heads;
    let sizes = Attention {
        batch,
        heads: rule.heads,
        groups: rule.groups,
        dim,
        queries,
        keys,
        scale: rule.scale.unwrap_or(1.0 / (dim as f32).sqrt()),
        cap: rule.cap,
        causal: rule.causal,
        window: rule.window,
        dropout: rule.dropout,
        seed: rule.seed,
    };
    let inputs: Vec<&Value> = [Some(q), Some(k), Some(v), mask.bias]
        .into_iter()
        .flatten()
        .collect();
    if !cpu(&inputs) {
        if rule.dropout > 0.0 {
            return Err(Error::shape(
                ATTENTION,
                "dropout of probabilities works on the processor alone".to_owned(),
            ));
        }
        let hidden = hidden(&sizes, mask.keys, q.data().device())?;
        return compose(ATTENTION, &inputs, move |t| composed(t, &sizes, &hidden));
    }
    let parts: Vec<Tensor> = inputs
        .iter()
        .map(|v| dense(v.data(), ATTENTION))
        .collect::<Result<_>>()?;
    let hidden = mask.keys.map(|m| dense(m, ATTENTION)).transpose()?;
    let (out, p) = with(&parts, hidden.as_ref(), &sizes, |x| sizes.forward(x))?;
    Ok(Value::made(
        tensor(out, (batch, queries, width))?,
        Attended { sizes, p, hidden },
        &inputs,
    ))
}

fn with<R>(
    parts: &[Tensor],
    hidden: Option<&Tensor>,
    sizes: &Attention,
    f: impl FnOnce(Inputs<'_>) -> R,
) -> Result<R> {
    let parts: Vec<Slice<'_>> = parts.iter().map(slice).collect::<Result<_>>()?;
    let hidden = hidden.map(slice).transpose()?;
    let narrow = sizes.groups * sizes.dim;
    Ok(f(Inputs {
        q: &parts[0],
        k: &parts[1],
        v: &parts[2],
        strides: [sizes.heads * sizes.dim, narrow, narrow],
        key_bias: hidden.as_deref().unwrap_or(&[]),
        bias: parts.get(3).map_or(&[], |b| b),
    }))
}

struct Attended {
    sizes: Attention,
    p: Vec<f32>,
    hidden: Option<Tensor>,
}

impl Op for Attended {
    fn name(&self) -> &'static str {
        ATTENTION
    }

    fn meaning(&self) -> Option<Meaning<'_>> {
        let s = &self.sizes;
        let plain = s.groups == s.heads && s.cap == 0.0 && !s.causal && s.dropout == 0.0;
        (plain && self.hidden.is_none()).then_some(Meaning::Attention {
            heads: s.heads,
            scale: s.scale,
        })
    }

    fn backward(
        &self,
        inputs: &[Value],
        _: &Tensor,
        grad: &Tensor,
        into: &mut Into<'_>,
    ) -> Result<()> {
        let parts: Vec<Tensor> = inputs
            .iter()
            .map(|v| dense(v.data(), ATTENTION))
            .collect::<Result<_>>()?;
        let g = dense(grad, ATTENTION)?;
        let g = slice(&g)?;
        let found = with(&parts, self.hidden.as_ref(), &self.sizes, |x| {
            self.sizes.backward(x, &self.p, &g)
        })?;
        into.give_values(0, found.q)?;
        into.give_values(1, found.k)?;
        into.give_values(2, found.v)?;
        if inputs.len() > 3 {
            into.give_values(3, found.bias)?;
        }
        Ok(())
    }
}

/// What is added to scores of `[batch, heads, queries, keys]`, broadcast. A large number stands for infinity, so that a
/// query without keys stays finite.
fn hidden(
    sizes: &Attention,
    keys: Option<&Tensor>,
    device: &crate::engine::Device,
) -> Result<Tensor> {
    const FAR: f32 = -1e30;
    let mut square = vec![0f32; sizes.queries * sizes.keys];
    if sizes.causal {
        for i in 0..sizes.queries {
            let end = i + sizes.keys - sizes.queries + 1;
            let row = &mut square[i * sizes.keys..][..sizes.keys];
            row[end..].fill(FAR);
            if sizes.window > 0 {
                row[..end.saturating_sub(sizes.window)].fill(FAR);
            }
        }
    }
    let square = tensor(square, (1, 1, sizes.queries, sizes.keys))?
        .to_device(device)
        .during(ATTENTION)?;
    let Some(keys) = keys else { return Ok(square) };
    let keys = keys
        .clamp(FAR, 0f32)
        .and_then(|k| k.reshape((sizes.batch, 1, 1, sizes.keys)));
    keys.and_then(|k| square.broadcast_add(&k))
        .during(ATTENTION)
}

fn composed(t: &[T], s: &Attention, hidden: &T) -> candle_core::Result<T> {
    let each = s.heads / s.groups;
    let split = |x: &T, length: usize, heads: usize| {
        x.reshape((s.batch, length, heads, s.dim))?
            .transpose(1, 2)?
            .contiguous()
    };
    // Every group serves `each` neighbouring heads.
    let spread = |x: &T| {
        let x = split(x, s.keys, s.groups)?;
        let shape = (s.batch, s.groups, each, s.keys, s.dim);
        x.unsqueeze(2)?
            .broadcast_as(shape)?
            .reshape((s.batch, s.heads, s.keys, s.dim))?
            .contiguous()
    };
    let (q, k, v) = (
        split(&t[0], s.queries, s.heads)?,
        spread(&t[1])?,
        spread(&t[2])?,
    );
    let mut scores = (q.matmul(&k.transpose(2, 3)?.contiguous()?)? * f64::from(s.scale))?;
    if s.cap > 0.0 {
        scores = ((scores / f64::from(s.cap))?.tanh()? * f64::from(s.cap))?;
    }
    if let Some(bias) = t.get(3) {
        scores = scores.broadcast_add(bias)?;
    }
    let scores = scores.broadcast_add(hidden)?;
    let top = scores.max_keepdim(D::Minus1)?.detach();
    let e = scores.broadcast_sub(&top)?.exp()?;
    let p = e.broadcast_div(&e.sum_keepdim(D::Minus1)?)?;
    p.matmul(&v)?
        .transpose(1, 2)?
        .contiguous()?
        .reshape((s.batch, s.queries, s.heads * s.dim))
}
