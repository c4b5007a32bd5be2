#!/usr/bin/env python3
"""Tiny models of every architecture with the outputs of `transformers`, for crates/polyloom-learn/tests.

    python3 bench/model_vectors.py [crates/polyloom-learn/tests/models] [--only WORDS]

One folder a model: config.json, model.safetensors (f32, seed 0), io.safetensors with the inputs (`ids`, `mask`, `types` or
`pixels`) and the outputs. Settings are not the usual ones on purpose: odd sizes, padding on both pairs of a batch, grouped
heads, scaled rotary positions. Needs torch, transformers, safetensors.
"""
import argparse
import json
import pathlib
import tempfile

import torch
import transformers as t
from safetensors.torch import load_file, save_file

ap = argparse.ArgumentParser(usage=__doc__)
ap.add_argument("out", type=pathlib.Path, nargs="?", default=pathlib.Path(__file__).resolve().parents[1] / "crates/polyloom-learn/tests/models")
ap.add_argument("--only", default="")
a = ap.parse_args()

ENCODER = dict(vocab_size=61, hidden_size=24, num_hidden_layers=2, num_attention_heads=3, intermediate_size=40, max_position_embeddings=20, layer_norm_eps=1e-7)
DECODER = dict(vocab_size=61, hidden_size=24, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, intermediate_size=40, max_position_embeddings=64)
YARN_FREE = {"rope_type": "linear", "factor": 2.0}
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 32}
MODELS = {
    "bert": lambda: t.BertModel(t.BertConfig(**ENCODER, hidden_act="gelu_new", type_vocab_size=2), add_pooling_layer=False),
    "roberta": lambda: t.RobertaModel(t.RobertaConfig(**ENCODER, pad_token_id=1, type_vocab_size=1), add_pooling_layer=False),
    "xlm-roberta": lambda: t.XLMRobertaModel(t.XLMRobertaConfig(**ENCODER, pad_token_id=1, type_vocab_size=1, hidden_act="silu"), add_pooling_layer=False),
    "bert-classes": lambda: t.BertForSequenceClassification(t.BertConfig(**ENCODER, type_vocab_size=2, num_labels=4)),
    "roberta-classes": lambda: t.RobertaForSequenceClassification(t.RobertaConfig(**ENCODER, pad_token_id=1, type_vocab_size=1, num_labels=4)),
    "distilbert-classes": lambda: t.DistilBertForSequenceClassification(t.DistilBertConfig(vocab_size=61, dim=24, n_layers=2, n_heads=3, hidden_dim=40, max_position_embeddings=20, num_labels=4)),
    "vit-classes": lambda: t.ViTForImageClassification(t.ViTConfig(hidden_size=24, num_hidden_layers=2, num_attention_heads=3, intermediate_size=40, image_size=12, patch_size=4, num_channels=2, num_labels=4)),
    "distilbert": lambda: t.DistilBertModel(t.DistilBertConfig(vocab_size=61, dim=24, n_layers=2, n_heads=3, hidden_dim=40, max_position_embeddings=20, activation="relu")),
    "mpnet": lambda: t.MPNetModel(t.MPNetConfig(**{**ENCODER, "max_position_embeddings": 40}, pad_token_id=1), add_pooling_layer=False),
    "vit": lambda: t.ViTModel(t.ViTConfig(hidden_size=24, num_hidden_layers=2, num_attention_heads=3, intermediate_size=40, image_size=12, patch_size=4, num_channels=2, layer_norm_eps=1e-7, qkv_bias=True), add_pooling_layer=False),
    "llama": lambda: t.LlamaForCausalLM(t.LlamaConfig(**DECODER, rope_theta=5000.0, rope_scaling=LLAMA3, rms_norm_eps=1e-5, tie_word_embeddings=False)),
    "mistral": lambda: t.MistralForCausalLM(t.MistralConfig(**DECODER, sliding_window=4, head_dim=8, tie_word_embeddings=False)),
    "qwen2": lambda: t.Qwen2ForCausalLM(t.Qwen2Config(**DECODER, rope_scaling=YARN_FREE, tie_word_embeddings=True)),
    "qwen3": lambda: t.Qwen3ForCausalLM(t.Qwen3Config(**DECODER, head_dim=10, tie_word_embeddings=True)),
    "gemma": lambda: t.GemmaForCausalLM(t.GemmaConfig(**DECODER, head_dim=8)),
    "gemma2": lambda: t.Gemma2ForCausalLM(t.Gemma2Config(**DECODER, head_dim=8, sliding_window=4, attn_logit_softcapping=5.0, final_logit_softcapping=3.0, query_pre_attn_scalar=12)),
    "t5": lambda: t.T5ForConditionalGeneration(t.T5Config(vocab_size=61, d_model=24, d_kv=6, d_ff=40, num_layers=2, num_decoder_layers=1, num_heads=3, relative_attention_num_buckets=8, relative_attention_max_distance=12, dropout_rate=0.0, tie_word_embeddings=True)),
    "t5v1_1": lambda: t.T5ForConditionalGeneration(t.T5Config(vocab_size=61, d_model=24, d_kv=8, d_ff=40, num_layers=1, num_heads=2, feed_forward_proj="gated-gelu", dropout_rate=0.0, tie_word_embeddings=False)),
    "clip": lambda: t.CLIPModel(t.CLIPConfig(text_config=dict(vocab_size=61, hidden_size=24, num_hidden_layers=2, num_attention_heads=3, intermediate_size=40, max_position_embeddings=12, eos_token_id=2, bos_token_id=0, pad_token_id=1), vision_config=dict(hidden_size=20, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, image_size=12, patch_size=4, hidden_act="gelu"), projection_dim=16)),
}

for name, make in MODELS.items():
    if a.only and a.only not in name:
        continue
    torch.manual_seed(0)
    model = make().float().eval()
    # Initial norms of one and biases of zero would hide a missing one.
    with torch.no_grad():
        for p in model.parameters():
            p += 0.1 * torch.randn_like(p)
    if name == "t5v1_1":  # the Hub's files have a head of their own
        model.lm_head.weight = torch.nn.Parameter(torch.randn_like(model.lm_head.weight))
    config = model.config.to_dict()
    io = {}
    if name.startswith("vit"):
        io["pixels"] = torch.randn(3, 2, 12, 12)
        with torch.no_grad():
            out = model(pixel_values=io["pixels"])
        io["logits" if name == "vit-classes" else "hidden"] = out[0]
    elif name == "clip":
        ids = torch.randint(3, 60, (3, 9))
        mask = torch.ones_like(ids)
        ids[0, 8] = ids[1, 5] = ids[2, 7] = 60
        ids[1, 6:], ids[2, 8:] = 1, 1
        mask[1, 6:], mask[2, 8:] = 0, 0
        io |= {"ids": ids, "mask": mask, "pixels": torch.randn(2, 3, 12, 12)}
        with torch.no_grad():
            out = model(input_ids=ids, attention_mask=mask, pixel_values=io["pixels"])
        io |= {"texts": out.text_embeds, "images": out.image_embeds, "scores": out.logits_per_image}
    elif name.startswith("t5"):
        ids, targets = torch.randint(3, 61, (3, 9)), torch.randint(3, 61, (3, 5))
        mask = torch.ones_like(ids)
        ids[1, 6:], mask[1, 6:] = 0, 0
        io |= {"ids": ids, "mask": mask, "targets": targets}
        with torch.no_grad():
            io["logits"] = model(input_ids=ids, attention_mask=mask, decoder_input_ids=targets).logits
            # The first input has no padding: its answer, greedily, past any end.
            model.generation_config.eos_token_id = None
            io["answer"] = model.generate(ids[:1], max_new_tokens=12, do_sample=False, decoder_start_token_id=0)[:, 1:]
    else:
        pad = config.get("pad_token_id") or 0
        ids = torch.randint(3, 61, (3, 9))
        mask = torch.ones_like(ids)
        if "vocab_size" in config and config["model_type"] in ("bert", "roberta", "xlm-roberta", "distilbert", "mpnet"):
            ids[1, 6:] = pad
            mask[1, 6:] = 0
        io |= {"ids": ids, "mask": mask}
        extra = {}
        if config["model_type"] == "bert":
            io["types"] = extra["token_type_ids"] = torch.tensor([[0] * 4 + [1] * 5] * 3)
        with torch.no_grad():
            out = model(input_ids=ids, attention_mask=mask, **extra)
        io["hidden" if hasattr(out, "last_hidden_state") else "logits"] = out[0]
    folder = a.out / name
    folder.mkdir(parents=True, exist_ok=True)
    hidden = ("_name_or_path", "transformers_version") + (() if name.endswith("-classes") else ("id2label", "label2id"))
    (folder / "config.json").write_text(json.dumps({k: v for k, v in config.items() if v is not None and k not in hidden}, indent=1, sort_keys=True, default=str) + "\n")
    # As the Hub has it: save_pretrained turns the names of newer versions back.
    with tempfile.TemporaryDirectory() as temporary:
        model.save_pretrained(temporary)
        state = load_file(pathlib.Path(temporary) / "model.safetensors")
    if name == "t5v1_1":
        state["lm_head.weight"] = model.lm_head.weight.detach().clone()
    save_file({k: v for k, v in state.items() if v.is_floating_point()}, folder / "model.safetensors", metadata={"format": "pt"})
    save_file({k: v.contiguous().to(torch.int32) if not v.is_floating_point() else v.contiguous() for k, v in io.items()}, folder / "io.safetensors")
    print(name, {k: tuple(v.shape) for k, v in io.items()}, sum(v.numel() for v in state.values()))

# The real all-MiniLM-L6-v2 where the shared folder is there: vectors of its stored (float16) weights in float32.
real = pathlib.Path(__file__).resolve().parents[2] / "shared/models/all-MiniLM-L6-v2"
if not a.only and real.exists():
    sentences = json.loads((real / "check.json").read_text())["sentences"]
    tokenizer, model = t.AutoTokenizer.from_pretrained(real), t.AutoModel.from_pretrained(real, dtype=torch.float32).eval()
    batch = tokenizer(sentences, padding=True, return_tensors="pt")
    with torch.no_grad():
        hidden = model(**batch).last_hidden_state
    weights = batch["attention_mask"].unsqueeze(-1).float()
    vectors = torch.nn.functional.normalize((hidden * weights).sum(1) / weights.sum(1), dim=1)
    (a.out.parent / "minilm.json").write_text(json.dumps({"sentences": sentences, "first16": [[round(float(x), 8) for x in row[:16]] for row in vectors]}, indent=1) + "\n")
