#!/usr/bin/env python3
"""Training and inference steps beside PyTorch, paired A B A B on identical weights and data.

    python3 bench/engine.py WORK [--runs 20] [--threads 1 2] [--binary PROGRAM]

BERT of all-MiniLM-L6's shape (6 layers, 384 wide), sequences of 64, batch 16, mean pooling; ViT (patch 4 on 32 x 32, 192
wide, 6 layers), batch 64, class token; f32, dropout 0, a head of 10 classes, cross-entropy, AdamW over all weights. Writes
random weights and a batch (seed 0) to WORK, builds
crates/polyloom-learn/benches/engine.rs and talks to it. Peers: pip install torch transformers safetensors. Both losses are
compared at every step. Reported: median (smallest to largest) of milliseconds and of the ratio peer/polyloom pair by pair:
above 1, Polyloom is faster. Run it on an idle machine: PyTorch's threads spin, and lose more than ours when disturbed.
"""
import argparse
import json
import os
import pathlib
import statistics
import subprocess
import time

ap = argparse.ArgumentParser(usage=__doc__)
ap.add_argument("work", type=pathlib.Path)
ap.add_argument("--runs", type=int, default=20)
ap.add_argument("--threads", type=int, nargs="+", default=[1, 2])
ap.add_argument("--binary")
a = ap.parse_args()
root = pathlib.Path(__file__).resolve().parents[1]
a.work.mkdir(parents=True, exist_ok=True)

import numpy as np
import torch
import transformers
from safetensors.torch import save_file

torch.manual_seed(0)
CLASSES = 10


class Bert(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.trunk = transformers.BertModel(transformers.BertConfig(vocab_size=30522, hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0), add_pooling_layer=False)
        self.head = torch.nn.Linear(384, CLASSES)

    def forward(self, ids, labels):
        return torch.nn.functional.cross_entropy(self.head(self.trunk(ids).last_hidden_state.mean(1)), labels)


class Vit(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.trunk = transformers.ViTModel(transformers.ViTConfig(hidden_size=192, num_hidden_layers=6, num_attention_heads=3, intermediate_size=768, image_size=32, patch_size=4), add_pooling_layer=False)
        self.head = torch.nn.Linear(192, CLASSES)

    def forward(self, pixels, labels):
        return torch.nn.functional.cross_entropy(self.head(self.trunk(pixels).last_hidden_state[:, 0]), labels)


MODELS = {
    "BERT": (Bert(), torch.randint(1, 30522, (16, 64)), "ids", "<u4"),
    "ViT": (Vit(), torch.randn(64, 3, 32, 32), "pixels", "<f4"),
}
for name, (model, data, file, kind) in MODELS.items():
    folder = a.work / name
    folder.mkdir(parents=True, exist_ok=True)
    save_file({k.removeprefix("trunk."): v.contiguous() for k, v in model.state_dict().items() if v.is_floating_point()}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(model.trunk.config.to_dict()))
    data.numpy().astype(kind).tofile(folder / file)
    torch.arange(len(data)).remainder(CLASSES).numpy().astype("<u4").tofile(folder / "labels")

if not a.binary:
    build = ["cargo", "bench", "-p", "polyloom-learn", "--bench", "engine", "--no-run", "--message-format", "json"]
    for line in subprocess.run(build, cwd=root, check=True, capture_output=True, text=True).stdout.splitlines():
        message = json.loads(line)
        if message.get("executable") and message["target"]["name"] == "engine":
            a.binary = message["executable"]


def spread(x, digits=0):
    return f"{statistics.median(x):.{digits}f} ({min(x):.{digits}f} to {max(x):.{digits}f})"


print(f"{os.cpu_count()} cores; load average {os.getloadavg()[0]:.2f} at the start; torch {torch.__version__}\n")
print("| step | threads | n | polyloom, ms | PyTorch, ms | PyTorch / polyloom | largest difference of losses |")
print("|---|---|---|---|---|---|---|")
for (name, (model, data, _, _)), threads in [(m, t) for m in MODELS.items() for t in a.threads]:
    torch.set_num_threads(threads)
    labels = torch.arange(len(data)).remainder(CLASSES)
    start = {k: v.clone() for k, v in model.state_dict().items()}
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-4)
    ours = subprocess.Popen([a.binary, str(a.work / name), str(threads)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert ours.stdout.readline() == "ready\n"
    for what in ["infer", "train"]:
        mine, theirs, apart = [], [], 0.0
        for run in range(a.runs + 3):
            ours.stdin.write(what + "\n")
            ours.stdin.flush()
            seconds, value = map(float, ours.stdout.readline().split())
            begin = time.perf_counter()
            if what == "train":
                optimiser.zero_grad()
                loss = model(data, labels)
                loss.backward()
                optimiser.step()
            else:
                with torch.inference_mode():
                    loss = model(data, labels)
            elapsed = time.perf_counter() - begin
            apart = max(apart, abs(loss.item() - value))
            if run >= 3:
                mine.append(1e3 * seconds)
                theirs.append(1e3 * elapsed)
        ratio = spread([t / m for t, m in zip(theirs, mine)], 2)
        print(f"| {name} {what} | {threads} | {a.runs} | {spread(mine)} | {spread(theirs)} | **{ratio}** | {apart:.1e} |", flush=True)
    ours.stdin.close()
    ours.wait()
    model.load_state_dict(start)
