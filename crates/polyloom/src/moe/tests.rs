use serde_json::json;

use super::*;
use crate::vocab::Vocab;

#[test]
fn prompts_are_cut_as_the_tokenizers_library_cuts_them() {
    // tests/data/prompt_tokenizers.json: small tokenizers trained with tokenizers, and the ids it gives.
    let sets: Value =
        serde_json::from_str(include_str!("../../tests/data/prompt_tokenizers.json")).unwrap();
    let mut ran = 0;
    for set in sets.as_array().unwrap() {
        let name = set["name"].as_str().unwrap();
        let json = &set["tokenizer"];
        let encoder = PromptEncoder::new(json, Vocab::from_json(json.clone()).unwrap()).unwrap();
        for case in set["cases"].as_array().unwrap() {
            let text = case[0].as_str().unwrap();
            let want: Vec<u32> = serde_json::from_value(case[1].clone()).unwrap();
            assert_eq!(encoder.encode(text).unwrap(), want, "{name}: {text:?}");
            ran += 1;
        }
    }
    assert!(ran >= 40, "{ran} prompts");
}

#[test]
fn what_the_encoder_lacks_is_named() {
    for (patch, word) in [
        (
            json!({"model": {"type": "Unigram", "vocab": []}}),
            "Unigram",
        ),
        (json!({"normalizer": {"type": "Lowercase"}}), "Lowercase"),
        (
            json!({"pre_tokenizer": {"type": "BertPreTokenizer"}}),
            "BertPreTokenizer",
        ),
        (
            json!({"pre_tokenizer": {"type": "Split", "behavior": "Isolated", "pattern": {"Regex": "a(?=b)"}}}),
            "regex",
        ),
    ] {
        let mut json = json!({"model": {"type": "BPE", "vocab": {"a": 0}, "merges": []}});
        for (key, value) in patch.as_object().unwrap() {
            json[key] = value.clone();
        }
        let error = PromptEncoder::new(&json, Vocab::from_json(json.clone()).unwrap()).unwrap_err();
        assert!(error.to_string().contains(word), "{error}");
    }
    let json = json!({"model": {"type": "BPE", "vocab": {"a": 0}, "merges": []}, "normalizer": {"type": "NFC"}});
    let encoder = PromptEncoder::new(&json, Vocab::from_json(json.clone()).unwrap()).unwrap();
    assert!(
        encoder
            .encode("a\u{301}")
            .unwrap_err()
            .to_string()
            .contains("NFC")
    );
}

use std::path::Path;

use polyloom_core::writer::{OutTensor, safetensors_bytes};
use polyloom_core::{Checkpoint, DType};

/// A one-layer Llama of width 2 with 3 tokens; every tensor `t` holds `seed + 0.25 * position`.
fn tiny(folder: &Path, seed: f32) -> std::path::PathBuf {
    std::fs::create_dir_all(folder).unwrap();
    let layer = "model.layers.0";
    let shapes: Vec<(String, Vec<usize>)> = vec![
        ("model.embed_tokens.weight".into(), vec![3, 2]),
        (format!("{layer}.self_attn.q_proj.weight"), vec![2, 2]),
        (format!("{layer}.mlp.gate_proj.weight"), vec![3, 2]),
        (format!("{layer}.mlp.up_proj.weight"), vec![3, 2]),
        (format!("{layer}.mlp.down_proj.weight"), vec![2, 3]),
        ("model.norm.weight".into(), vec![2]),
    ];
    let tensors: Vec<(OutTensor, Vec<u8>)> = shapes
        .into_iter()
        .map(|(name, shape)| {
            let n: usize = shape.iter().product();
            let bytes = (0..n)
                .flat_map(|i| (seed + 0.25 * i as f32).to_le_bytes())
                .collect();
            (
                OutTensor {
                    name,
                    dtype: DType::F32,
                    shape,
                },
                bytes,
            )
        })
        .collect();
    std::fs::write(
        folder.join("model.safetensors"),
        safetensors_bytes(&tensors, &Default::default()),
    )
    .unwrap();
    let config = json!({"model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 2,
        "intermediate_size": 3, "num_hidden_layers": 1, "num_attention_heads": 1, "torch_dtype": "float32",
        "vocab_size": 3, "mlp_bias": false});
    std::fs::write(folder.join("config.json"), config.to_string()).unwrap();
    let tokenizer =
        json!({"model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "c": 2}, "merges": []}});
    std::fs::write(folder.join("tokenizer.json"), tokenizer.to_string()).unwrap();
    folder.to_owned()
}

fn recipe_of(dir: &Path, mode: &str, tail: &str) -> Result<MoeRecipe> {
    let at = |name: &str| dir.join(name).display().to_string();
    MoeRecipe::parse(
        &format!(
            "base_model: {}\ngate_mode: {mode}\nexperts:\n  - source_model: {}\n    positive_prompts: [\"ab\"]\n    \
             residual_scale: 0.5\n  - source_model: {}\n    positive_prompts: [\"a\"]\n    negative_prompts: [\"c\"]\n{tail}",
            at("base"),
            at("x"),
            at("y")
        ),
        "moe.yml",
    )
}

fn assemble(dir: &Path, recipe: &MoeRecipe, out: &str, shared: usize) -> Result<Checkpoint> {
    assemble_by(dir, recipe, out, shared, None)
}

fn assemble_by(
    dir: &Path,
    recipe: &MoeRecipe,
    out: &str,
    shared: usize,
    forward: Option<Forward<'_>>,
) -> Result<Checkpoint> {
    let base = Checkpoint::open(dir.join("base"))?;
    let (x, y) = (
        Checkpoint::open(dir.join("x"))?,
        Checkpoint::open(dir.join("y"))?,
    );
    let shared = vec![&x; shared];
    let plan = plan(recipe, &base, &[&x, &y], &shared, forward)?;
    let options = RunOptions {
        output: dir.join(out),
        shard_size: 100,
        seed: 3,
        force: false,
        no_sync: true,
        allow_nonfinite: false,
    };
    Ok(Checkpoint::open(run(&plan, &options)?)?)
}

fn read(model: &Checkpoint, name: &str) -> Vec<f32> {
    model
        .read_all(model.get(name).unwrap_or_else(|| panic!("{name}")))
        .unwrap()
}

#[test]
fn a_mixtral_by_hand() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    for (name, seed) in [("base", 1.0), ("x", 10.0), ("y", 20.0)] {
        tiny(&dir.join(name), seed);
    }
    let recipe = recipe_of(dir, "cheap_embed", "").unwrap();
    let out = assemble(dir, &recipe, "out", 0).unwrap();
    let block = "model.layers.0.block_sparse_moe";
    assert_eq!(read(&out, "model.norm.weight"), [1.0, 1.25]);
    assert_eq!(read(&out, &format!("{block}.experts.0.w1.weight"))[0], 10.0);
    assert_eq!(
        read(&out, &format!("{block}.experts.0.w2.weight"))[..2],
        [5.0, 5.125]
    );
    assert_eq!(
        read(&out, &format!("{block}.experts.1.w2.weight"))[..2],
        [20.0, 20.25]
    );
    assert_eq!(
        read(&out, &format!("{block}.experts.1.w3.weight"))[5],
        21.25
    );
    // Embedding rows a = (1, 1.25), b = (1.5, 1.75), c = (2, 2.25): a + b = (2.5, 3).
    let unit = |x: f64, y: f64| [x / x.hypot(y), y / x.hypot(y)];
    let (a, c) = (unit(1.0, 1.25), unit(2.0, 2.25));
    let want = [unit(2.5, 3.0), unit(a[0] - c[0], a[1] - c[1])].concat();
    for (got, want) in read(&out, &format!("{block}.gate.weight")).iter().zip(want) {
        assert!((f64::from(*got) - want).abs() < 1e-6, "{got} but {want}");
    }
    let config = out.config().unwrap();
    for (key, want) in [
        ("model_type", json!("mixtral")),
        ("num_local_experts", json!(2)),
        ("num_experts_per_tok", json!(2)),
        ("num_key_value_heads", json!(1)),
        ("rope_theta", json!(10000.0)),
        ("torch_dtype", json!("float32")),
    ] {
        assert_eq!(config[key], want, "{key}");
    }
    assert!(config.get("mlp_bias").is_none());
    assert!(
        out.origin().join("tokenizer.json").exists() && out.origin().join("README.md").exists()
    );
    // Count: 3 of the base, a router, 3 projections of each of 2 experts.
    assert_eq!(out.tensors().len(), 3 + 1 + 6);
}

#[test]
fn qwen2_gets_biases_and_a_shared_gate() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    for (name, seed) in [("base", 1.0), ("x", 10.0), ("y", 20.0)] {
        tiny(&dir.join(name), seed);
    }
    let shared = |prompts: &str| {
        format!(
            "shared_experts:\n  - source_model: {}\n{prompts}",
            dir.join("x").display()
        )
    };
    let recipe = recipe_of(
        dir,
        "cheap_embed",
        &shared("    positive_prompts: [\"c\"]\n"),
    )
    .unwrap();
    let out = assemble(dir, &recipe, "qwen", 1).unwrap();
    assert_eq!(
        read(&out, "model.layers.0.self_attn.q_proj.bias"),
        [0.0, 0.0]
    );
    assert_eq!(
        out.get("model.layers.0.mlp.shared_expert_gate.weight")
            .unwrap()
            .shape,
        [1, 2]
    );
    assert_eq!(
        read(&out, "model.layers.0.mlp.shared_expert.up_proj.weight")[0],
        10.0
    );
    assert_eq!(out.config().unwrap()["model_type"], "qwen2_moe");
    // A shared expert without prompts has no gate: DeepSeek.
    let recipe = recipe_of(dir, "cheap_embed", &shared("")).unwrap();
    let out = assemble(dir, &recipe, "deepseek", 1).unwrap();
    assert_eq!(out.config().unwrap()["n_shared_experts"], 1);
    assert!(
        out.get("model.layers.0.mlp.shared_experts.down_proj.weight")
            .is_some()
    );
    let recipe = recipe_of(
        dir,
        "cheap_embed",
        &format!("{}architecture: mixtral\n", shared("")),
    )
    .unwrap();
    assert!(
        assemble(dir, &recipe, "no", 1)
            .unwrap_err()
            .to_string()
            .contains("no shared experts")
    );
    assert!(!dir.join("no").exists());
}

#[test]
fn hidden_states_of_prompts_point_at_their_experts() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    for (name, seed) in [("base", 1.0), ("x", 10.0), ("y", 20.0)] {
        tiny(&dir.join(name), seed);
    }
    for (mode, want) in [
        ("hidden", Taken::Last),
        ("hidden_last", Taken::Last),
        ("hidden_avg", Taken::Mean),
    ] {
        let forward = |_: &Checkpoint, tokens: &[Vec<u32>], taken: Taken| {
            // All prompts at once: those of x, then those of y, what y should not answer last.
            assert_eq!(tokens, [vec![0, 1], vec![0], vec![2]]);
            assert_eq!(taken, want);
            Ok(vec![vec![vec![3.0, 4.0], vec![1.0, 0.0], vec![0.0, 1.0]]])
        };
        let recipe = recipe_of(dir, mode, "").unwrap();
        let out = assemble_by(dir, &recipe, mode, 0, Some(&forward)).unwrap();
        let gate = read(&out, "model.layers.0.block_sparse_moe.gate.weight");
        let half = 0.5f32.sqrt();
        for (got, want) in gate.iter().zip([0.6, 0.8, half, -half]) {
            assert!((got - want).abs() < 1e-6, "{mode}: {gate:?}");
        }
    }
}

#[test]
fn random_routers_are_seeded_and_in_range() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    for (name, seed) in [("base", 1.0), ("x", 10.0), ("y", 20.0)] {
        tiny(&dir.join(name), seed);
    }
    let gate = |mode: &str, out: &str| {
        let recipe = recipe_of(dir, mode, "").unwrap();
        read(
            &assemble(dir, &recipe, out, 0).unwrap(),
            "model.layers.0.block_sparse_moe.gate.weight",
        )
    };
    let uniform = gate("uniform_random", "u");
    assert!(uniform.iter().all(|v| v.abs() <= 1.0 / 2f32.sqrt()));
    assert_ne!(uniform[..2], uniform[2..]);
    assert_eq!(gate("random", "r"), gate("random", "r2"));
    assert_ne!(gate("random", "r3"), uniform);
}

#[test]
fn files_that_cannot_work_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    for (name, seed) in [("base", 1.0), ("x", 10.0), ("y", 20.0)] {
        tiny(&dir.join(name), seed);
    }
    // Without a forward pass at hand; `hidden` is the file's default.
    for (mode, word) in [
        ("hidden", "hidden"),
        ("hidden_avg", "hidden_avg"),
        ("hidden_last", "hidden_last"),
        ("null", "hidden"),
    ] {
        let recipe = recipe_of(dir, mode, "").unwrap();
        let error = assemble(dir, &recipe, "none", 0).unwrap_err();
        assert_eq!(error.code(), "gate-mode");
        assert!(error.to_string().contains(&format!("`{word}`")), "{error}");
        assert!(error.hints()[0].contains("cheap_embed"));
    }
    let error = recipe_of(dir, "deep", "").unwrap_err();
    assert!(error.hints()[0].contains("hidden_avg"), "{error:?}");
    for (tail, word) in [
        ("experts_per_token: 3\n", "too few"),
        ("architecture: switch\n", "switch"),
        ("dtype: int8\n", "floating"),
    ] {
        let error = recipe_of(dir, "random", tail).unwrap_err();
        assert!(error.to_string().contains(word), "{error}");
    }
    let recipe = recipe_of(dir, "random", "expert_per_token: 1\n").unwrap();
    assert!(
        recipe.warnings[0].contains("did you mean `experts_per_token`"),
        "{:?}",
        recipe.warnings
    );
    // NaN stops the run and leaves nothing.
    tiny(&dir.join("y"), f32::NAN);
    let error = assemble(dir, &recipe, "nan", 0).unwrap_err();
    assert_eq!(error.code(), "nonfinite");
    assert!(!dir.join("nan").exists());
}
