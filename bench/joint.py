#!/usr/bin/env python3
"""Training steps and answers of models over tables beside PyTorch, paired A B A B on identical data (protocol joint-tabular-v1).

    python3 bench/joint.py [--runs 5] [--threads 2] [--steps 30] [--models shared mmoe ple] [--tables dense lazy forward] [--binary PROGRAM] [--peer FILE] [--python PYTHON]

The peer's side is ../shared/bench/joint_pytorch.py (two goals, 26 categories of 10,000, 13 numbers, batch 4096, Adam): `dense`
moves every row of the embedding table at every step on both sides, `lazy` those of the batch (SparseAdam); `forward` answers in place of training: scores of both goals, under torch.inference_mode on
the peer's side, whose model is the same file's. Builds
crates/polyloom-learn/benches/table.rs in release, or takes PROGRAM (a bench program that was built before). Reported: median
(smallest to largest) over runs of each run's median step in milliseconds, and of the ratio PyTorch/polyloom pair by pair
(above 1, Polyloom is faster). Run it on an idle machine.
"""
import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys

ap = argparse.ArgumentParser(usage=__doc__)
ap.add_argument("--runs", type=int, default=5)
ap.add_argument("--threads", type=int, default=2)
ap.add_argument("--steps", type=int, default=30)
ap.add_argument("--models", nargs="+", default=["shared", "mmoe", "ple"])
ap.add_argument("--tables", nargs="+", default=["dense", "lazy", "forward"], choices=["dense", "lazy", "forward"])
ap.add_argument("--binary")
ap.add_argument("--peer")
ap.add_argument("--python", default=sys.executable)
a = ap.parse_args()
root = pathlib.Path(__file__).resolve().parents[1]
peer = a.peer or str(root.parent / "shared" / "bench" / "joint_pytorch.py")


def built():
    if a.binary:
        return a.binary
    command = ["cargo", "bench", "-p", "polyloom-learn", "--bench", "table", "--no-run", "--message-format=json"]
    lines = subprocess.run(command, cwd=root, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()
    found = [m["executable"] for m in map(json.loads, lines) if m.get("executable") and m["target"]["name"] == "table"]
    return found[-1]


# The peer's program has no pass without training: its model and its data are taken after one step of it.
FORWARD = """
import runpy, statistics, sys, time, json
peer, steps = sys.argv[1], int(sys.argv[2])
sys.argv = [peer, *sys.argv[3:], "--steps", "1", "--warmup", "0"]
held = runpy.run_path(peer)
import torch
net, cat, x, batch = (held[n] for n in ("net", "cat", "x", "B"))
net.eval()
times, warm = [], 5
with torch.inference_mode():
    for step in range(warm + steps):
        i = step % (len(x) // batch) * batch
        begin = time.perf_counter()
        net(cat[i : i + batch], x[i : i + batch]).numpy()
        if step >= warm:
            times.append(time.perf_counter() - begin)
print(json.dumps({"step_ms_median": statistics.median(times) * 1e3}))
"""


def last(command):
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.strip().splitlines()[-1])["step_ms_median"]


def shown(values):
    return f"{statistics.median(values):.3g} ({min(values):.3g} to {max(values):.3g})"


program = built()
print(f"load average at the start: {os.getloadavg()[0]:.2f}", file=sys.stderr)
print("| model | tables | threads | n | polyloom, ms | PyTorch, ms | PyTorch / polyloom |\n|---|---|---|---|---|---|---|")
for model in a.models:
    for tables in a.tables:
        ours, theirs = [], []
        for run in range(a.runs + 1):
            mine = last([program, model, tables, str(a.threads), str(a.steps)])
            sizes = ["--model", model, "--threads", str(a.threads)]
            if tables == "forward":
                other = last([a.python, "-c", FORWARD, peer, str(a.steps), *sizes])
            else:
                sparse = ["--sparse"] if tables == "lazy" else []
                other = last([a.python, peer, *sizes, "--steps", str(a.steps), *sparse])
            # The first pair warms the machine.
            if run > 0:
                ours.append(mine)
                theirs.append(other)
        ratios = [t / o for o, t in zip(ours, theirs)]
        print(f"| {model} | {tables} | {a.threads} | {a.runs} | {shown(ours)} | {shown(theirs)} | **{shown(ratios)}** |", flush=True)
