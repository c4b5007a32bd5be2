#!/usr/bin/env python3
"""Adapters that `polyloom train` wrote, loaded by PEFT: are the outputs equal?

    python bench/peft_load.py BASE POLYLOOM [OUT]     (needs torch, transformers, peft; tasks from POLYLOOM_DATA)

Trains LoRA, rsLoRA and DoRA for a few steps on text/trec6 and compares the mean-pooled vectors of forty sentences.
"""
import json
import subprocess
import sys
import tempfile

import torch
import transformers
from peft import PeftModel

base, program = sys.argv[1:3]
out = sys.argv[3] if len(sys.argv) > 3 else tempfile.mkdtemp()
transformers.logging.set_verbosity_error()
tokenizer = transformers.AutoTokenizer.from_pretrained(base)
texts = [f"{q} {thing}?" for q in ("What is", "Who made", "Where is", "How many years took") for thing in ("the moon", "a fax machine", "the longest river in Peru", "CNN", "bread", "the first car", "an atoll", "Ohio", "jazz", "x")]


def vectors(model):
    with torch.inference_mode():
        batch = tokenizer(texts, padding=True, return_tensors="pt")
        hidden = model(**batch).last_hidden_state
        mask = batch["attention_mask"][:, :, None].float()
        return torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=1)


worst = {}
for name, switches in {"lora": [], "rslora": ["--set", "train.lora.rslora=true"], "dora": ["--set", "train.lora.dora=true"]}.items():
    folder = f"{out}/{name}"
    subprocess.run([program, "train", "--base", base, "-t", "text/trec6", "--method", "lora", "-L", "64", "--steps", "6", "--batch", "16", "--rate", "2e-3", "--set", "train.validation=", *switches, "-o", folder, "-q"], check=True)
    plain = transformers.AutoModel.from_pretrained(base, dtype=torch.float32).eval()
    before = vectors(plain)
    theirs = vectors(PeftModel.from_pretrained(plain, folder).eval())
    with open(f"{out}/{name}.txt", "w", encoding="utf-8") as f:
        f.write("\n".join(texts))
    said = subprocess.run([program, "run", f"{base}+{folder}", "-f", f"{out}/{name}.txt", "--embed"], check=True, capture_output=True, text=True).stdout
    ours = torch.tensor([json.loads(line) for line in said.splitlines()])
    worst[name] = (float((ours - theirs).abs().max()), float((before - theirs).abs().max()))
for name, (far, moved) in worst.items():
    print(f"{name}: largest difference {far:.1e} (the adapter moves vectors by up to {moved:.2f})")
sys.exit(any(far > 1e-5 for far, _ in worst.values()))
