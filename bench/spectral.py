#!/usr/bin/env python3
"""The spectral methods against PyTorch's (LAPACK) decompositions of the same matrices.

    python3 bench/spectral.py WORK target/release/polyloom [--layers 2] [--runs 3]

Makes the linear layers of a few Qwen2-0.5B blocks (base + 3 experts, f32) in WORK. B decomposes what the method must
decompose (iso_c: one SVD of the sum; tsv_m: one per expert, then the two stacks) and does nothing else; A is the whole
command. Needs torch, safetensors. PyTorch uses all cores.
"""
import argparse
import os
import pathlib
import shutil
import statistics
import subprocess
import time

import safetensors.torch as st
import torch

ap = argparse.ArgumentParser(usage=__doc__)
ap.add_argument("work", type=pathlib.Path)
ap.add_argument("polyloom")
ap.add_argument("--layers", type=int, default=2)
ap.add_argument("--runs", type=int, default=3)
a = ap.parse_args()
torch.manual_seed(0)
shapes = {"mlp.up_proj": (4864, 896), "mlp.gate_proj": (4864, 896), "mlp.down_proj": (896, 4864), "self_attn.q_proj": (896, 896), "self_attn.k_proj": (128, 896), "self_attn.v_proj": (128, 896), "self_attn.o_proj": (896, 896)}
base = {f"model.layers.{i}.{k}.weight": torch.randn(s) * 0.02 for i in range(a.layers) for k, s in shapes.items()}
deltas = [{k: torch.randn_like(v) * 0.002 for k, v in base.items()} for _ in range(3)]
for name, delta in [("base", None), *((f"expert{i}", d) for i, d in enumerate(deltas))]:
    (a.work / name).mkdir(parents=True, exist_ok=True)
    st.save_file({k: v if delta is None else v + delta[k] for k, v in base.items()}, a.work / name / "model.safetensors")


def ours(method):
    shutil.rmtree(a.work / "out", ignore_errors=True)
    experts = [str(a.work / f"expert{i}") for i in range(3)]
    subprocess.run([a.polyloom, "merge", "--base", str(a.work / "base"), *experts, "--method", method, "-o", str(a.work / "out"), "-q", "--no-sync"], check=True, stdout=subprocess.DEVNULL)


def iso_c():
    for k in base:
        torch.linalg.svd(sum(d[k] for d in deltas), full_matrices=False)


def tsv_m():
    for k in base:
        us, vs = [], []
        for d in deltas:
            u, _, v = torch.linalg.svd(d[k], full_matrices=False)
            r = min(d[k].shape) // 3
            us.append(u[:, :r]), vs.append(v[:r])
        torch.linalg.svd(torch.cat(us, 1), full_matrices=False)
        torch.linalg.svd(torch.cat(vs, 0), full_matrices=False)


def timed(f):
    start = time.monotonic()
    f()
    return time.monotonic() - start


print(f"{a.layers} blocks of Qwen2 0.5B, {len(base)} matrices; torch {torch.__version__}, {torch.get_num_threads()} threads; load average {os.getloadavg()[0]:.2f}\n")
print("| method | n | polyloom, whole command, s | PyTorch, decompositions alone, s | ratio |\n|---|---|---|---|---|")
for name, theirs in [("iso_c", iso_c), ("tsv_m", tsv_m)]:
    pairs = [(timed(lambda: ours(name)), timed(theirs)) for _ in range(a.runs)]
    ratio = [x / y for x, y in pairs]
    show = lambda v: f"{statistics.median(v):.2f} ({min(v):.2f} to {max(v):.2f})"
    print(f"| {name} | {a.runs} | {show([p[0] for p in pairs])} | {show([p[1] for p in pairs])} | **{show(ratio)}** |", flush=True)
