//! From GGUF's names and metadata to Hugging Face's.

use std::sync::Arc;

use serde_json::{Map, Value as Json, json};

use super::Index;
use super::header::{Header, Value};
use crate::checkpoint::{Layout, StoredTensor};
use crate::dtype;
use crate::error::{Error, Result};
use crate::source::Source;

/// Architectures with a name map.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Family {
    /// Llama, Mistral and (with experts) Mixtral: rows of queries and keys are stored in another order.
    Llama,
    Qwen2,
    Qwen3,
}

/// Renames tensors, restores row orders, splits stacked experts and writes the config; leaves unmapped architectures
/// as they are.
pub(super) fn translate(
    source: &impl Source,
    header: &Header,
    tensors: Vec<StoredTensor>,
) -> Result<Index> {
    let Some(Value::Text(arch)) = header.meta.get("general.architecture") else {
        return Err(Error::format(
            source.path(),
            "does not name its `general.architecture`",
        ));
    };
    let family = match arch.as_str() {
        "llama" => Family::Llama,
        "qwen2" => Family::Qwen2,
        "qwen3" => Family::Qwen3,
        _ => return Ok((tensors, None)),
    };
    let model = Model {
        source,
        header,
        arch,
        family,
    };
    let config = model.config(&tensors)?;
    let mut out = Vec::with_capacity(tensors.len());
    for tensor in tensors {
        model.rename(tensor, &mut out)?;
    }
    Ok((out, config))
}

struct Model<'a, S> {
    source: &'a S,
    header: &'a Header,
    arch: &'a str,
    family: Family,
}

impl<S: Source> Model<'_, S> {
    fn setting(&self, key: &str) -> Option<&Value> {
        self.header.meta.get(&format!("{}.{key}", self.arch))
    }

    fn count(&self, key: &str) -> Option<u64> {
        self.setting(key).and_then(Value::count)
    }

    fn need(&self, key: &str) -> Result<u64> {
        let full = format!("{}.{key}", self.arch);
        self.count(key).filter(|n| *n > 0).ok_or_else(|| {
            let problem = match self.setting(key) {
                None => format!("has no metadata `{full}`"),
                Some(Value::Array(_)) => format!("has a `{full}` that differs between layers"),
                Some(_) => format!("has a `{full}` that is not a positive whole number"),
            };
            Error::format(self.source.path(), problem)
        })
    }

    fn experts(&self) -> u64 {
        match self.family {
            Family::Llama => self.count("expert_count").unwrap_or(0),
            _ => 0,
        }
    }

    /// Appends the tensor (or the experts stacked in it) under Hugging Face names.
    fn rename(&self, mut tensor: StoredTensor, out: &mut Vec<StoredTensor>) -> Result<()> {
        let unknown = |name: &str| {
            Error::tensor(
                self.source.path(),
                name,
                format!("has no counterpart in a Hugging Face {} model", self.arch),
            )
            .with_hint("merge this model from its Hugging Face checkpoint instead")
        };
        match tensor.name.as_str() {
            // Derived from the config (see `rope_scaling`), not weights.
            "rope_freqs.weight" => return Ok(()),
            "token_embd.weight" => tensor.name = "model.embed_tokens.weight".into(),
            "output_norm.weight" => tensor.name = "model.norm.weight".into(),
            "output.weight" => tensor.name = "lm_head.weight".into(),
            name => {
                let parts: Vec<&str> = name.split('.').collect();
                let (layer, part, rest) = match parts.as_slice() {
                    ["blk", layer, part, rest @ ..] if layer.parse::<u32>().is_ok() => {
                        (*layer, *part, rest)
                    }
                    _ => return Err(unknown(name)),
                };
                let head = format!("model.layers.{layer}");
                match (part, rest) {
                    ("attn_rot_embd", _) => return Ok(()),
                    (_, [kind @ ("weight" | "bias")]) => {
                        if let Some(new) = self.part(part) {
                            let heads = match part {
                                "attn_q" => Some("attention.head_count"),
                                "attn_k" => Some("attention.head_count_kv"),
                                _ => None,
                            };
                            if let (Family::Llama, Some(key)) = (self.family, heads) {
                                tensor.layout = self.row_order(&tensor, key)?;
                            }
                            tensor.name = format!("{head}.{new}.{kind}");
                        } else if let Some(w) = stacked(part)
                            && *kind == "weight"
                            && self.experts() > 0
                        {
                            return self.split(
                                &tensor,
                                &format!("{head}.block_sparse_moe.experts"),
                                w,
                                out,
                            );
                        } else {
                            return Err(unknown(name));
                        }
                    }
                    // Before experts were stacked: `blk.0.ffn_gate.3.weight`.
                    (_, [expert, "weight"])
                        if self.experts() > 0 && expert.parse::<u32>().is_ok() =>
                    {
                        let w = stacked(&format!("{part}_exps")).ok_or_else(|| unknown(name))?;
                        tensor.name =
                            format!("{head}.block_sparse_moe.experts.{expert}.{w}.weight");
                    }
                    _ => return Err(unknown(name)),
                }
            }
        }
        out.push(tensor);
        Ok(())
    }

    /// Hugging Face's name of one part of a layer.
    fn part(&self, part: &str) -> Option<&'static str> {
        Some(match part {
            "attn_norm" => "input_layernorm",
            "attn_q" => "self_attn.q_proj",
            "attn_k" => "self_attn.k_proj",
            "attn_v" => "self_attn.v_proj",
            "attn_output" => "self_attn.o_proj",
            "attn_q_norm" if self.family == Family::Qwen3 => "self_attn.q_norm",
            "attn_k_norm" if self.family == Family::Qwen3 => "self_attn.k_norm",
            "ffn_norm" => "post_attention_layernorm",
            "ffn_gate" => "mlp.gate_proj",
            "ffn_up" => "mlp.up_proj",
            "ffn_down" => "mlp.down_proj",
            "ffn_gate_inp" if self.experts() > 0 => "block_sparse_moe.gate",
            _ => return None,
        })
    }

    /// llama.cpp rotates neighbours, Hugging Face halves: row (head, half, j) lies at (head, j, half).
    fn row_order(&self, tensor: &StoredTensor, key: &str) -> Result<Layout> {
        let heads = match self.count(key) {
            None if key.ends_with("_kv") && self.setting(key).is_none() => {
                self.need("attention.head_count")?
            }
            _ => self.need(key)?,
        };
        let rows = tensor.shape.first().copied().unwrap_or(1);
        let bad = || {
            Error::tensor(
                self.source.path(),
                &tensor.name,
                format!("has {rows} rows, which {heads} heads cannot share"),
            )
        };
        let heads = usize::try_from(heads).map_err(|_| bad())?;
        if rows % heads != 0 || (rows / heads) % 2 != 0 || u32::try_from(rows).is_err() {
            return Err(bad());
        }
        let size = rows / heads;
        let order = (0..rows)
            .map(|row| {
                let (head, half, j) = (row / size, row % size / (size / 2), row % (size / 2));
                (head * size + j * 2 + half) as u32
            })
            .collect();
        Ok(Layout::RowOrder(Arc::new(order)))
    }

    /// Experts stacked along the first axis become one tensor each.
    fn split(
        &self,
        tensor: &StoredTensor,
        head: &str,
        w: &str,
        out: &mut Vec<StoredTensor>,
    ) -> Result<()> {
        let experts = tensor.shape.first().copied().unwrap_or(0);
        if tensor.shape.len() != 3 || experts as u64 != self.experts() {
            return Err(Error::tensor(
                self.source.path(),
                &tensor.name,
                format!(
                    "has shape {:?}, which is not one matrix for each of {} experts",
                    tensor.shape,
                    self.experts()
                ),
            ));
        }
        let bytes = tensor.dtype.bytes_of(tensor.row_len()).unwrap_or(0);
        out.extend((0..experts).map(|expert| StoredTensor {
            name: format!("{head}.{expert}.{w}.weight"),
            shape: tensor.shape[1..].to_vec(),
            offset: tensor.offset + bytes * expert as u64,
            ..tensor.clone()
        }));
        Ok(())
    }

    /// What `config.json` would say; `None` if the file holds rotary factors that no known setting yields.
    fn config(&self, tensors: &[StoredTensor]) -> Result<Option<Json>> {
        let find = |name: &str| tensors.iter().find(|t| t.name == name);
        let (hidden, heads) = (
            self.need("embedding_length")?,
            self.need("attention.head_count")?,
        );
        let kv = match self.setting("attention.head_count_kv") {
            None => heads,
            Some(_) => self.need("attention.head_count_kv")?,
        };
        let embedding = find("token_embd.weight");
        let vocab = embedding.and_then(|t| t.shape.first()).copied();
        let (kind, class) = match self.family {
            Family::Llama if self.experts() > 0 => ("mixtral", "MixtralForCausalLM"),
            Family::Llama => ("llama", "LlamaForCausalLM"),
            Family::Qwen2 => ("qwen2", "Qwen2ForCausalLM"),
            Family::Qwen3 => ("qwen3", "Qwen3ForCausalLM"),
        };
        let float = |key: &str| match self.setting(key) {
            Some(Value::Float(x)) => Some(*x),
            _ => None,
        };
        let theta = float("rope.freq_base").unwrap_or(10000.0);
        let head_dim = self.count("attention.key_length").unwrap_or(hidden / heads);
        let mut config = Map::new();
        let mut set = |key: &str, value: Json| {
            config.insert(key.to_owned(), value);
        };
        set("architectures", json!([class]));
        set("model_type", json!(kind));
        set("vocab_size", json!(vocab));
        set("hidden_size", json!(hidden));
        set(
            "intermediate_size",
            json!(self.need("feed_forward_length")?),
        );
        set("num_hidden_layers", json!(self.need("block_count")?));
        set("num_attention_heads", json!(heads));
        set("num_key_value_heads", json!(kv));
        set("head_dim", json!(head_dim));
        set("hidden_act", json!("silu"));
        if let Some(n) = self.count("context_length") {
            set("max_position_embeddings", json!(n));
        }
        if let Some(eps) = float("attention.layer_norm_rms_epsilon") {
            set("rms_norm_eps", json!(eps));
        }
        set("rope_theta", json!(theta));
        match self.rope_scaling(find("rope_freqs.weight"), theta, head_dim)? {
            Scaling::None => {}
            Scaling::Known(scaling) => set("rope_scaling", scaling),
            Scaling::Unknown => return Ok(None),
        }
        set(
            "tie_word_embeddings",
            json!(find("output.weight").is_none()),
        );
        if self.family == Family::Llama {
            set("attention_bias", json!(find("blk.0.attn_q.bias").is_some()));
            set("mlp_bias", json!(find("blk.0.ffn_down.bias").is_some()));
        }
        if kind == "mixtral" {
            set("num_local_experts", json!(self.experts()));
            if let Some(n) = self.count("expert_used_count") {
                set("num_experts_per_tok", json!(n));
            }
        }
        for token in ["bos", "eos"] {
            let key = format!("tokenizer.ggml.{token}_token_id");
            if let Some(id) = self.header.meta.get(&key).and_then(Value::count) {
                set(&format!("{token}_token_id"), json!(id));
            }
        }
        if let Some(t) = embedding.filter(|t| !t.dtype.is_block()) {
            set("torch_dtype", json!(t.dtype.torch_name()));
        }
        Ok(Some(Json::Object(config)))
    }

    /// `rope_scaling` from metadata, or from the factors that llama.cpp computes out of Llama 3's settings.
    fn rope_scaling(
        &self,
        factors: Option<&StoredTensor>,
        theta: f64,
        head_dim: u64,
    ) -> Result<Scaling> {
        if let Some(tensor) = factors {
            let n = tensor.elements();
            if n as u64 != head_dim / 2 || n > 1 << 16 {
                return Ok(Scaling::Unknown);
            }
            let mut bytes = vec![0; tensor.dtype.bytes_of(n).unwrap_or(0) as usize];
            self.source.read_at(tensor.offset, &mut bytes)?;
            let mut values = vec![0.0; n];
            dtype::widen(tensor.dtype, &bytes, &mut values);
            return Ok(llama3_scaling(&values, theta, head_dim));
        }
        let factor = match self.setting("rope.scaling.factor") {
            Some(Value::Float(x)) => *x,
            _ => return Ok(Scaling::None),
        };
        Ok(match self.setting("rope.scaling.type") {
            Some(Value::Text(kind)) if kind == "linear" => {
                Scaling::Known(json!({"rope_type": "linear", "factor": factor}))
            }
            Some(Value::Text(kind)) if kind == "yarn" => {
                let mut yarn = json!({"rope_type": "yarn", "factor": factor});
                if let Some(n) = self.count("rope.scaling.original_context_length") {
                    yarn["original_max_position_embeddings"] = json!(n);
                }
                Scaling::Known(yarn)
            }
            Some(Value::Text(kind)) if kind == "none" => Scaling::None,
            _ => Scaling::Unknown,
        })
    }
}

#[derive(Debug, PartialEq)]
enum Scaling {
    None,
    Known(Json),
    Unknown,
}

/// Mixtral's name of a stack of experts.
fn stacked(part: &str) -> Option<&'static str> {
    Some(match part {
        "ffn_gate_exps" => "w1",
        "ffn_down_exps" => "w2",
        "ffn_up_exps" => "w3",
        _ => return None,
    })
}

/// Recognises the factors of Llama 3.1 and later. All of these models share the three other settings; the largest
/// factor is the fourth. Recomputed and compared, so that factors of anything else are not mistaken for them.
fn llama3_scaling(values: &[f32], theta: f64, head_dim: u64) -> Scaling {
    const LOW: f64 = 1.0;
    const HIGH: f64 = 4.0;
    const LENGTH: f64 = 8192.0;
    let factor = f64::from(values.iter().copied().fold(0.0, f32::max));
    if factor < 1.0 {
        return Scaling::Unknown;
    }
    let fits = values.iter().enumerate().all(|(i, value)| {
        let wave = std::f64::consts::TAU * theta.powf(2.0 * i as f64 / head_dim as f64);
        let want = if wave < LENGTH / HIGH {
            1.0
        } else if wave > LENGTH / LOW {
            factor
        } else {
            let smooth = (LENGTH / wave - LOW) / (HIGH - LOW);
            1.0 / ((1.0 - smooth) / factor + smooth)
        };
        (f64::from(*value) - want).abs() <= 1e-3 * want
    });
    if !fits {
        return Scaling::Unknown;
    }
    Scaling::Known(json!({
        "rope_type": "llama3",
        "factor": factor,
        "low_freq_factor": LOW,
        "high_freq_factor": HIGH,
        "original_max_position_embeddings": LENGTH as u64,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn llama3_factors_are_recognised() {
        // Head size 8, theta 500000: wave lengths 2 pi * 500000^(i/4) = 6.28, 167.1, 4442.9, 118143.
        // The third lies between 2048 and 8192: smooth = (8192/4442.88 - 1)/3 = 0.281283, so
        // 1/((1 - 0.281283)/8 + 0.281283) = 2.694530.
        let found = llama3_scaling(&[1.0, 1.0, 2.694_53, 8.0], 500_000.0, 8);
        let Scaling::Known(found) = found else {
            panic!("{found:?}");
        };
        assert_eq!(found["factor"], 8.0);
        assert_eq!(found["rope_type"], "llama3");
        let other = llama3_scaling(&[1.0, 1.0, 4.0, 8.0], 500_000.0, 8);
        assert_eq!(other, Scaling::Unknown);
    }
}
