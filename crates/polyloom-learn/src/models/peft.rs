//! PEFT's adapter folders as low-rank parts beside a base that stays as it is.

use std::collections::HashMap;

use polyloom_core::Checkpoint;
use polyloom_core::peft::{AdapterFolder, BaseChange, BaseNames, LayerKind, PeftType};

use super::lora::LowRank;
use crate::engine::{Value, tensor};
use crate::error::{Error, Result};

/// An adapter whose whole effect is low-rank parts of linear layers.
pub struct Parts {
    /// By the base's name of the module, without `.weight`.
    pub modules: HashMap<String, LowRank>,
    /// What was odd: ignored keys, targets without tensors.
    pub warnings: Vec<String>,
}

/// The low-rank parts of an adapter over a base; `None` where it does more than [`super::lora::Lora`] can say
/// (embeddings, convolutions, weights stored `[in, out]`, biases, whole modules, a base that is changed first, IA3):
/// such an adapter is folded into the weights. `kept` says which modules of the base must stay as they are.
///
/// # Errors
/// An adapter that does not fit the base: a module that it lacks, factors of another shape.
pub fn parts(
    adapter: &AdapterFolder,
    base: &Checkpoint,
    kept: &dyn Fn(&str) -> bool,
) -> Result<Option<Parts>> {
    let config = &adapter.config;
    let plain = config.peft_type == PeftType::Lora
        && config.base_change == BaseChange::None
        && !config.fan_in_fan_out
        && !config.lora_bias
        && adapter.whole.is_empty();
    if !plain {
        return Ok(None);
    }
    let names = BaseNames::new(base, adapter)?;
    let mut modules = HashMap::new();
    for (module, stored) in &adapter.modules {
        if stored.embedding || stored.b_bias.is_some() || stored.ia3.is_some() {
            return Ok(None);
        }
        let weight = names.of(&format!("{module}.weight"));
        let name = weight.trim_end_matches(".weight");
        let factors = adapter.factors(module)?;
        if factors.kind != LayerKind::Linear || kept(name) {
            return Ok(None);
        }
        let Some(shape) = base.get(&weight).map(|t| t.shape.clone()) else {
            return Err(names.missing(module).into());
        };
        if shape != [factors.outputs, factors.inputs] {
            let what = format!(
                "`{module}` has factors for [{}, {}]; `{weight}` of the base is {shape:?}",
                factors.outputs, factors.inputs
            );
            return Err(Error::file(adapter.file(), what)
                .hint("the adapter belongs to another base; --base MODEL names it"));
        }
        let constant =
            |values, shape: Vec<usize>| Ok::<_, Error>(Value::constant(tensor(values, shape)?));
        let magnitude = match &stored.magnitude {
            Some(stored) => Some(constant(adapter.read(stored)?, vec![factors.outputs])?),
            None => None,
        };
        let part = LowRank {
            a: constant(factors.a, vec![factors.rank, factors.inputs])?,
            b: constant(factors.b, vec![factors.outputs, factors.rank])?,
            scale: factors.scaling as f32,
            magnitude,
        };
        modules.insert(name.to_owned(), part);
    }
    let mut warnings = adapter.warnings.clone();
    warnings.extend(names.notes(base, adapter)?);
    Ok(Some(Parts { modules, warnings }))
}
