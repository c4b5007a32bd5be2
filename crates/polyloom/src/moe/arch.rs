//! Output architectures: names of tensors and the config.json of the sparse model.

use serde_json::{Map, Value, json};

use crate::error::{MergeError, Result};

use super::{GateMode, MoeRecipe};

/// A sparse architecture that can be assembled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Architecture {
    /// Mixtral, from Llama or Mistral models.
    Mixtral,
    /// DeepSeek-MoE (first version), from Llama or Mistral models, with at most one shared expert without a gate.
    Deepseek,
    /// Qwen2-MoE, from Qwen2, Llama or Mistral models, with one gated shared expert.
    Qwen2,
    /// Qwen3-MoE, from Qwen3 models.
    Qwen3,
}

const ALL: [Architecture; 4] = [
    Architecture::Mixtral,
    Architecture::Deepseek,
    Architecture::Qwen2,
    Architecture::Qwen3,
];

impl Architecture {
    /// The name mergekit-moe uses.
    pub fn name(self) -> &'static str {
        match self {
            Self::Mixtral => "Mixtral",
            Self::Deepseek => "DeepSeek MoE",
            Self::Qwen2 => "Qwen MoE",
            Self::Qwen3 => "Qwen3 MoE",
        }
    }

    /// Finds an architecture by the beginning of its name; `qwen2` is `Qwen MoE` too.
    pub fn parse(text: &str) -> Result<Self> {
        let low = text.to_lowercase();
        if !low.is_empty() {
            if low.starts_with("qwen2") {
                return Ok(Self::Qwen2);
            }
            if let Some(found) = ALL
                .into_iter()
                .find(|a| a.name().to_lowercase().starts_with(&low))
            {
                return Ok(found);
            }
        }
        let names: Vec<&str> = ALL.iter().map(|a| a.name()).collect();
        Err(
            MergeError::plan("moe-architecture", format!("unknown architecture `{text}`"))
                .hint(format!("known: {}", names.join(", "))),
        )
    }

    /// The architecture for these inputs: the one asked for if it fits, else the first that does.
    pub(super) fn choose(recipe: &MoeRecipe, model_type: &str) -> Result<Self> {
        if let Some(wanted) = recipe.architecture {
            return match wanted.obstacle(recipe, model_type) {
                None => Ok(wanted),
                Some(why) => Err(MergeError::plan(
                    "moe-architecture",
                    format!("{} cannot be assembled: {why}", wanted.name()),
                )),
            };
        }
        let mut error = MergeError::plan(
            "moe-architecture",
            format!("no sparse architecture fits these `{model_type}` models"),
        );
        for candidate in ALL {
            match candidate.obstacle(recipe, model_type) {
                None => return Ok(candidate),
                Some(why) => error = error.hint(format!("{}: {why}", candidate.name())),
            }
        }
        Err(error)
    }

    fn obstacle(self, recipe: &MoeRecipe, model_type: &str) -> Option<String> {
        let types: &[&str] = match self {
            Self::Mixtral | Self::Deepseek => &["llama", "mistral"],
            Self::Qwen2 => &["qwen2", "llama", "mistral"],
            Self::Qwen3 => &["qwen3"],
        };
        let shared = recipe.shared.len();
        if !types.contains(&model_type) {
            return Some(format!(
                "the inputs must be of type {}, not {model_type}",
                types.join(", ")
            ));
        }
        match self {
            Self::Mixtral | Self::Qwen3 if shared > 0 => Some("it has no shared experts".into()),
            Self::Deepseek if shared > 1 => {
                Some("it has at most one entry of shared_experts".into())
            }
            Self::Deepseek
                if recipe
                    .shared
                    .iter()
                    .any(|e| !e.positive.is_empty() || !e.negative.is_empty()) =>
            {
                Some("its shared expert has no gate, so it takes no prompts".into())
            }
            Self::Qwen2 if shared != 1 => {
                Some("it needs exactly one entry of shared_experts".into())
            }
            Self::Qwen2
                if recipe.gate_mode == GateMode::CheapEmbed
                    && recipe.shared[0].positive.is_empty() =>
            {
                Some("its shared expert has a gate and needs positive_prompts".into())
            }
            _ => None,
        }
    }

    /// Name of a projection (`gate_proj`, `up_proj`, `down_proj`) of a routed expert.
    pub(super) fn expert_name(self, layer: usize, expert: usize, projection: &str) -> String {
        match self {
            Self::Mixtral => {
                let short = match projection {
                    "gate_proj" => "w1",
                    "down_proj" => "w2",
                    _ => "w3",
                };
                format!("model.layers.{layer}.block_sparse_moe.experts.{expert}.{short}.weight")
            }
            _ => format!("model.layers.{layer}.mlp.experts.{expert}.{projection}.weight"),
        }
    }

    pub(super) fn shared_name(self, layer: usize, projection: &str) -> String {
        let part = if self == Self::Deepseek {
            "shared_experts"
        } else {
            "shared_expert"
        };
        format!("model.layers.{layer}.mlp.{part}.{projection}.weight")
    }

    pub(super) fn gate_name(self, layer: usize) -> String {
        let block = if self == Self::Mixtral {
            "block_sparse_moe"
        } else {
            "mlp"
        };
        format!("model.layers.{layer}.{block}.gate.weight")
    }

    pub(super) fn shared_gate_name(self, layer: usize) -> Option<String> {
        (self == Self::Qwen2).then(|| format!("model.layers.{layer}.mlp.shared_expert_gate.weight"))
    }

    /// config.json of the output, from that of the base.
    pub(super) fn config(
        self,
        base: &Map<String, Value>,
        recipe: &MoeRecipe,
        dtype: &str,
        warnings: &mut Vec<String>,
    ) -> Value {
        let mut map = base.clone();
        let model_type = base
            .get("model_type")
            .and_then(Value::as_str)
            .unwrap_or_default();
        // The sparse config classes have other defaults, so what the dense ones leave out is written down.
        let heads = base
            .get("num_attention_heads")
            .cloned()
            .unwrap_or(Value::from(32));
        let key_heads = match model_type {
            "llama" => heads,
            "mistral" => json!(8),
            _ => json!(32),
        };
        let (positions, head_dim) = match model_type {
            "llama" => (2048, None),
            "mistral" => (131_072, None),
            "qwen3" => (32_768, Some(128)),
            _ => (32_768, None),
        };
        let mut default = |key: &str, value: Value| {
            let entry = map.entry(key.to_owned()).or_insert(Value::Null);
            if entry.is_null() {
                *entry = value;
            }
        };
        default("num_key_value_heads", key_heads);
        default("max_position_embeddings", json!(positions));
        default("rms_norm_eps", json!(1e-6));
        default("hidden_act", json!("silu"));
        default("tie_word_embeddings", json!(false));
        if let Some(dim) = head_dim {
            default("head_dim", json!(dim));
        }
        if !base.contains_key("rope_parameters") {
            default("rope_theta", json!(10000.0));
        }
        let intermediate = base.get("intermediate_size").cloned().unwrap_or_default();
        let count = json!(recipe.experts.len());
        let per_token = json!(recipe.experts_per_token);
        let windowed = match model_type {
            "mistral" => map.get("sliding_window").is_some_and(|w| !w.is_null()),
            _ => map.get("use_sliding_window") == Some(&json!(true)),
        };
        let mut set = |key: &str, value: Value| {
            map.insert(key.to_owned(), value);
        };
        set("architectures", json!([self.class()]));
        set("model_type", json!(self.model_type()));
        set("num_experts_per_tok", per_token);
        match self {
            Self::Mixtral => {
                set("num_local_experts", count);
                set("sliding_window", Value::Null);
            }
            Self::Deepseek => {
                set("n_routed_experts", count);
                let shared = recipe.shared.len();
                set(
                    "n_shared_experts",
                    if shared == 0 {
                        Value::Null
                    } else {
                        json!(shared)
                    },
                );
                set("first_k_dense_replace", json!(0));
                set("moe_layer_freq", json!(1));
                set("scoring_func", json!("softmax"));
                set("norm_topk_prob", json!(true));
                set("moe_intermediate_size", intermediate);
                let hub = "deepseek-ai/deepseek-moe-16b-base--";
                set(
                    "auto_map",
                    json!({
                        "AutoConfig": format!("{hub}configuration_deepseek.DeepseekConfig"),
                        "AutoModel": format!("{hub}modeling_deepseek.DeepseekModel"),
                        "AutoModelForCausalLM": format!("{hub}modeling_deepseek.DeepseekForCausalLM"),
                    }),
                );
            }
            Self::Qwen2 | Self::Qwen3 => {
                set("num_experts", count);
                set("decoder_sparse_step", json!(1));
                set("norm_topk_prob", json!(true));
                set("mlp_only_layers", json!([]));
                set("moe_intermediate_size", intermediate.clone());
                if self == Self::Qwen2 {
                    set("shared_expert_intermediate_size", intermediate);
                    set("sliding_window", Value::Null);
                    set("use_sliding_window", json!(false));
                }
            }
        }
        for key in [
            "mlp_bias",
            "pretraining_tp",
            "layer_types",
            "quantization_config",
        ] {
            map.shift_remove(key);
        }
        if self != Self::Qwen3 {
            map.shift_remove("attention_bias");
            if windowed {
                warnings.push(format!(
                    "the base attends to a sliding window; the {} model attends to the whole context",
                    self.name()
                ));
            }
        }
        for key in ["torch_dtype", "dtype"] {
            if let Some(value) = map.get_mut(key) {
                *value = json!(dtype);
            }
        }
        if !map.contains_key("torch_dtype") && !map.contains_key("dtype") {
            map.insert("dtype".into(), json!(dtype));
        }
        Value::Object(map)
    }

    fn class(self) -> &'static str {
        match self {
            Self::Mixtral => "MixtralForCausalLM",
            Self::Deepseek => "DeepseekForCausalLM",
            Self::Qwen2 => "Qwen2MoeForCausalLM",
            Self::Qwen3 => "Qwen3MoeForCausalLM",
        }
    }

    fn model_type(self) -> &'static str {
        match self {
            Self::Mixtral => "mixtral",
            Self::Deepseek => "deepseek",
            Self::Qwen2 => "qwen2_moe",
            Self::Qwen3 => "qwen3_moe",
        }
    }
}
