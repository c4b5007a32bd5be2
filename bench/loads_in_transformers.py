#!/usr/bin/env python3
"""Shows that outputs load in `transformers` unchanged: merges two experts of a BERT, a ViT and a Qwen2 model (tied and
untied head, sharded) and loads the folders, with no missing and no unexpected weight, and compares the numbers.

    python3 bench/loads_in_transformers.py target/release/polyloom

Needs torch, transformers. Models are small and made up here.
"""
import pathlib
import subprocess
import sys
import tempfile

import torch
import transformers as t

t.logging.set_verbosity_error()
polyloom = sys.argv[1]
torch.manual_seed(0)
small = dict(hidden_size=32, intermediate_size=64, num_hidden_layers=3, num_attention_heads=4)
qwen = dict(small, vocab_size=99, num_key_value_heads=2, max_position_embeddings=64)
CASES = [
    ("bert", t.BertForSequenceClassification, t.BertConfig(vocab_size=77, num_labels=3, **small), []),
    ("vit", t.ViTForImageClassification, t.ViTConfig(image_size=32, patch_size=8, num_labels=5, **small), []),
    ("qwen2, tied head", t.Qwen2ForCausalLM, t.Qwen2Config(tie_word_embeddings=True, **qwen), []),
    ("qwen2, own head, shards", t.Qwen2ForCausalLM, t.Qwen2Config(tie_word_embeddings=False, **qwen), ["--shard-size", "40KB"]),
]
for name, kind, config, flags in CASES:
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        models = []
        for i in range(3):
            model = kind(config)
            model.save_pretrained(folder / f"m{i}")
            models.append(model.state_dict())
        words = ["merge", "--base", folder / "m0", folder / "m1", folder / "m2", "--method", "task_arithmetic", "--each", "weight=0.5", *flags, "-o", folder / "out", "-q"]
        subprocess.run([polyloom, *map(str, words)], check=True, stdout=subprocess.DEVNULL)
        merged, info = kind.from_pretrained(folder / "out", output_loading_info=True)
        odd = {k: v for k, v in info.items() if v and k in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs")}
        assert not odd, (name, odd)
        worst = 0.0
        for key, value in merged.state_dict().items():
            b, x, y = (m[key] for m in models)
            want = b + 0.5 * (x - b) + 0.5 * (y - b) if value.is_floating_point() else b
            worst = max(worst, (value - want).abs().max().item())
        assert worst < 1e-6, (name, worst)
        print(f"{name}: {len(merged.state_dict())} tensors loaded, none missing or unexpected, largest difference {worst:.1e}")
