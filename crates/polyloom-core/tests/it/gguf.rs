//! GGUF files written by llama.cpp's Python package (`fixtures/make_gguf.py`).

use polyloom_core::checkpoint::{Layout, Scratch};
use polyloom_core::{Checkpoint, DType};
use serde_json::json;

use crate::build::Gguf;
use crate::{fixture, open_bytes, refused, says, values};

fn open(name: &str) -> Checkpoint {
    Checkpoint::open(fixture(name)).unwrap_or_else(|e| panic!("{e} ({:?})", e.hint()))
}

fn ramp(range: std::ops::Range<usize>) -> Vec<f32> {
    range.map(|i| i as f32).collect()
}

#[test]
fn blocks_widen_to_the_bit_as_in_the_gguf_package() {
    let c = open("blocks.gguf");
    for (name, dtype, row) in [
        ("q8_0", DType::Q8_0, 64),
        ("q4_0", DType::Q4_0, 64),
        ("q4_k", DType::Q4K, 512),
        ("q6_k", DType::Q6K, 512),
    ] {
        let tensor = c.get(name).unwrap();
        assert_eq!(
            (tensor.dtype, tensor.shape.as_slice()),
            (dtype, &[2, row][..])
        );
        let bits = |name| -> Vec<u32> { values(&c, name).iter().map(|v| v.to_bits()).collect() };
        assert_eq!(bits(name), bits(&format!("{name}.expected")), "{name}");
    }
    assert_eq!(values(&c, "f16"), [0.0, 0.5, 1.0, 1.5, 2.0, 2.5]);
    assert_eq!(values(&c, "f64"), [0.0, 0.25, 0.5, 0.75, 1.0, 1.25]);
    assert_eq!(values(&c, "i32"), ramp(0..6));
    assert_eq!(values(&c, "bf16"), ramp(0..6));
    assert!(c.config().is_none(), "no config without a name map");
}

#[test]
fn llama_comes_out_as_hugging_face_has_it() {
    let c = open("llama.gguf");
    let mut names: Vec<&str> = c.tensors().keys().map(String::as_str).collect();
    names.sort_unstable();
    assert_eq!(
        names,
        [
            "model.embed_tokens.weight",
            "model.layers.0.input_layernorm.weight",
            "model.layers.0.mlp.down_proj.weight",
            "model.layers.0.mlp.gate_proj.weight",
            "model.layers.0.mlp.up_proj.weight",
            "model.layers.0.post_attention_layernorm.weight",
            "model.layers.0.self_attn.k_proj.weight",
            "model.layers.0.self_attn.o_proj.weight",
            "model.layers.0.self_attn.q_proj.weight",
            "model.layers.0.self_attn.v_proj.weight",
            "model.norm.weight",
        ]
    );
    assert_eq!(
        values(&c, "model.layers.0.self_attn.q_proj.weight"),
        ramp(0..1024)
    );
    assert_eq!(
        values(&c, "model.layers.0.self_attn.v_proj.weight"),
        ramp(0..512)
    );
    // Q8_0 holds a row 32 r .. 32 r + 31 to within half a step of its maximum / 127, and the scale to within 2^-11.
    let key = "model.layers.0.self_attn.k_proj.weight";
    let tensor = c.get(key).unwrap();
    assert!(matches!(tensor.layout, Layout::RowOrder(_)));
    assert_eq!(
        (tensor.dtype, tensor.shape.as_slice()),
        (DType::Q8_0, &[16, 32][..])
    );
    for (i, value) in values(&c, key).iter().enumerate() {
        let largest = (i / 32 * 32 + 31) as f32;
        let error = (value - i as f32).abs();
        assert!(
            error <= largest * (0.5 / 127.0 + 1.0 / 2048.0) + 1e-3,
            "{i}: {value}"
        );
    }
    assert_eq!(
        c.config(),
        Some(&json!({
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "vocab_size": 5,
            "hidden_size": 32,
            "intermediate_size": 32,
            "num_hidden_layers": 1,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 8,
            "hidden_act": "silu",
            "max_position_embeddings": 64,
            "rms_norm_eps": 1e-5,
            "rope_theta": 500000.0,
            "rope_scaling": {
                "rope_type": "llama3",
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 8192,
            },
            "tie_word_embeddings": true,
            "attention_bias": false,
            "mlp_bias": false,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "torch_dtype": "float16",
        }))
    );
}

#[test]
fn parts_of_reordered_blocks_equal_the_whole() {
    let c = open("llama.gguf");
    let tensor = c.get("model.layers.0.self_attn.k_proj.weight").unwrap();
    let whole = c.read_all(tensor).unwrap();
    let mut scratch = Scratch::default();
    for start in (0..whole.len()).step_by(7) {
        for len in [1, 5, 31, 32, 33, 100] {
            let range = start..(start + len).min(whole.len());
            let mut part = vec![0.0; range.len()];
            c.read_f32(tensor, range.clone(), &mut part, &mut scratch)
                .unwrap();
            assert_eq!(part, whole[range]);
        }
    }
}

#[test]
fn qwen2_keeps_its_rows() {
    let c = open("qwen2.gguf");
    assert_eq!(
        values(&c, "model.layers.0.self_attn.q_proj.weight"),
        ramp(0..1024)
    );
    assert_eq!(
        values(&c, "model.layers.0.self_attn.q_proj.bias"),
        ramp(0..32)
    );
    assert_eq!(values(&c, "lm_head.weight"), ramp(0..160));
    let config = c.config().unwrap();
    assert_eq!(config["model_type"], "qwen2");
    assert_eq!(config["tie_word_embeddings"], false);
}

#[test]
fn stacked_experts_are_split() {
    let c = open("mixtral.gguf");
    let experts = "model.layers.0.block_sparse_moe.experts";
    assert_eq!(values(&c, &format!("{experts}.0.w1.weight")), ramp(0..64));
    assert_eq!(
        values(&c, &format!("{experts}.2.w2.weight")),
        ramp(128..192)
    );
    assert_eq!(
        c.get(&format!("{experts}.2.w2.weight")).unwrap().shape,
        [2, 32]
    );
    assert_eq!(
        values(&c, "model.layers.0.block_sparse_moe.gate.weight"),
        ramp(0..96)
    );
    let config = c.config().unwrap();
    assert_eq!(config["model_type"], "mixtral");
    assert_eq!(
        (&config["num_local_experts"], &config["num_experts_per_tok"]),
        (&json!(3), &json!(2))
    );
}

/// A file of one layer with the least settings, and tensors of 4 x 2 floats (or 8 in a row).
fn small(arch: &str, settings: &[(&str, u32)], tensors: &[&str]) -> Vec<u8> {
    let mut file = Gguf::default().text("general.architecture", arch);
    let least = [
        ("embedding_length", 4),
        ("feed_forward_length", 4),
        ("block_count", 1),
        ("attention.head_count", 2),
    ];
    for (key, value) in least.iter().chain(settings) {
        file = file.number(&format!("{arch}.{key}"), *value);
    }
    for (i, name) in tensors.iter().enumerate() {
        file = file.tensor(name, &[2, 4], 0, i as u64 * 32);
    }
    file.data(tensors.len() * 32).bytes()
}

#[test]
fn names_follow_the_architecture() {
    let names = |bytes: &[u8]| -> Vec<String> {
        let c = open_bytes("m.gguf", bytes).unwrap();
        c.tensors().keys().cloned().collect()
    };
    let norms = ["blk.0.attn_q_norm.weight", "blk.7.attn_k_norm.weight"];
    assert_eq!(
        names(&small("qwen3", &[], &norms)),
        [
            "model.layers.0.self_attn.q_norm.weight",
            "model.layers.7.self_attn.k_norm.weight"
        ]
    );
    // The same names mean nothing in a qwen2, and stay as they are where no map is known.
    says(
        &refused("m.gguf", &small("qwen2", &[], &norms)),
        "has no counterpart",
    );
    assert_eq!(names(&small("gemma2", &[], &norms)), norms);
    // Experts before they were stacked.
    let expert = ["blk.0.ffn_up.3.weight"];
    assert_eq!(
        names(&small("llama", &[("expert_count", 4)], &expert)),
        ["model.layers.0.block_sparse_moe.experts.3.w3.weight"]
    );
    says(
        &refused("m.gguf", &small("llama", &[], &expert)),
        "has no counterpart",
    );
}

#[test]
fn unknown_rotary_factors_leave_no_config() {
    // All factors are 0 here, which no setting of Llama 3 yields; the tensor itself is derived and left out.
    let bytes = small("llama", &[], &["rope_freqs.weight", "output_norm.weight"]);
    let c = open_bytes("m.gguf", &bytes).unwrap();
    assert!(c.config().is_none());
    assert_eq!(
        c.tensors().keys().collect::<Vec<_>>(),
        ["model.norm.weight"]
    );
    let plain = open_bytes("m.gguf", &small("llama", &[], &["output_norm.weight"])).unwrap();
    assert_eq!(plain.config().unwrap()["rope_theta"], 10000.0);
}
