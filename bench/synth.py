#!/usr/bin/env python3
"""Writes a base and three experts in the shape of Qwen2 0.5B (or 1.5B), bf16, with made-up weights.

    python3 bench/synth.py FOLDER [--size 0.5b|1.5b] [--experts 3]

Experts are the base plus noise of 2 % of its scale, a third of it exactly zero. Needs numpy.
"""
import argparse
import json
import pathlib
import struct

import numpy as np

SHAPES = {
    "0.5b": dict(hidden=896, inter=4864, layers=24, heads=14, kv=2, vocab=151936),
    "1.5b": dict(hidden=1536, inter=8960, layers=28, heads=12, kv=2, vocab=151936),
}


def tensors(s):
    h, i, kv = s["hidden"], s["inter"], s["kv"] * s["hidden"] // s["heads"]
    yield "model.embed_tokens.weight", (s["vocab"], h)
    for n in range(s["layers"]):
        p = f"model.layers.{n}."
        yield p + "input_layernorm.weight", (h,)
        yield p + "mlp.down_proj.weight", (h, i)
        yield p + "mlp.gate_proj.weight", (i, h)
        yield p + "mlp.up_proj.weight", (i, h)
        yield p + "post_attention_layernorm.weight", (h,)
        for name, rows in (("k_proj", kv), ("q_proj", h), ("v_proj", kv)):
            yield p + f"self_attn.{name}.bias", (rows,)
            yield p + f"self_attn.{name}.weight", (rows, h)
        yield p + "self_attn.o_proj.weight", (h, h)
    yield "model.norm.weight", (h,)


def bf16(x):
    bits = x.view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def write(folder, shape, expert):
    folder.mkdir(parents=True, exist_ok=True)
    header, at, names = {}, 0, list(tensors(shape))
    for name, dims in names:
        size = 2 * int(np.prod(dims))
        header[name] = {"dtype": "BF16", "shape": list(dims), "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(folder / "model.safetensors", "wb") as out:
        out.write(struct.pack("<Q", len(text)) + text)
        for index, (name, dims) in enumerate(names):
            values = np.random.default_rng([1, index]).standard_normal(dims, dtype=np.float32) * 0.02
            if expert:
                rng = np.random.default_rng([2, expert, index])
                noise = rng.standard_normal(dims, dtype=np.float32) * 0.0004
                noise[rng.random(dims, dtype=np.float32) < 0.33] = 0
                values += noise
            out.write(bf16(values).tobytes())
    config = {
        "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "hidden_size": shape["hidden"],
        "intermediate_size": shape["inter"], "num_hidden_layers": shape["layers"], "num_attention_heads": shape["heads"],
        "num_key_value_heads": shape["kv"], "vocab_size": shape["vocab"], "tie_word_embeddings": True,
        "torch_dtype": "bfloat16", "max_position_embeddings": 4096, "rms_norm_eps": 1e-6, "rope_theta": 1000000.0,
        "hidden_act": "silu",
    }
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")


parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("folder", type=pathlib.Path)
parser.add_argument("--size", choices=SHAPES, default="0.5b")
parser.add_argument("--experts", type=int, default=3)
args = parser.parse_args()
for k in range(args.experts + 1):
    write(args.folder / ("base" if k == 0 else f"expert{k}"), SHAPES[args.size], k)
