//! Operations made of candle's: for what has no kernel of ours, and for other devices than the processor.

use std::sync::Mutex;

use candle_core::{Tensor, Var};

use super::gradients::Into;
use super::value::{Op, Value};
use crate::error::{Error, In, Result};

/// `f` of the inputs, differentiated by candle. Gradients flow through everything in `f` that candle can differentiate;
/// what cuts candle's graph silently (its fused softmax, norms, rotary embeddings) must not be in it.
///
/// # Errors
/// What `f` returns.
pub fn compose(
    name: &'static str,
    inputs: &[&Value],
    f: impl Fn(&[Tensor]) -> candle_core::Result<Tensor>,
) -> Result<Value> {
    if !inputs.iter().any(|v| v.wants_gradient()) {
        let inputs: Vec<Tensor> = inputs.iter().map(|v| v.data().clone()).collect();
        return f(&inputs).map(Value::constant).during(name);
    }
    // Copies: a tensor of candle is a variable or not for good.
    let own = |v: &&Value| match v.wants_gradient() {
        true => Var::from_tensor(v.data()).map(|v| v.as_tensor().clone()),
        false => Ok(v.data().clone()),
    };
    let own: Vec<Tensor> = inputs
        .iter()
        .map(own)
        .collect::<Result<_, _>>()
        .during(name)?;
    let out = f(&own).during(name)?;
    let data = out.detach();
    Ok(Value::made(
        data,
        Composed {
            name,
            own,
            out: Mutex::new(out),
        },
        inputs,
    ))
}

struct Composed {
    name: &'static str,
    own: Vec<Tensor>,
    /// Candle's graph.
    out: Mutex<Tensor>,
}

impl Op for Composed {
    fn name(&self) -> &'static str {
        self.name
    }

    fn backward(&self, _: &[Value], _: &Tensor, grad: &Tensor, into: &mut Into<'_>) -> Result<()> {
        let out = self
            .out
            .lock()
            .map_err(|_| Error::shape(self.name, "an earlier pass panicked"))?;
        let loss = out.mul(grad).and_then(|t| t.sum_all()).during(self.name)?;
        let mut found = loss.backward().during(self.name)?;
        for (i, own) in self.own.iter().enumerate() {
            if into.wants(i) {
                // Candle leaves out what the output does not depend on.
                if let Some(grad) = found.remove(own) {
                    into.give(i, grad)?;
                }
            }
        }
        Ok(())
    }
}
