#!/usr/bin/env python3
"""AdaMerging beside PyTorch, on the eight experts of vision-eight: seconds of a step and peak memory, in turns.

    python3 bench/adamerging.py SHARED [--binary PROGRAM] [--runs 5] [--steps 30] [--set experts-plain]

Both sides learn one coefficient per task and tensor (start 0.3, clamped to 0..1, Adam 1e-3) on the entropy of the same 16
test images of each of eight tasks, all of them at every step, f32, frozen heads. The peer is a transcription of the papers'
loop: the task vectors in memory, merged weights as differentiable sums, one forward pass over all images
(torch.func.functional_call), backward, Adam. Seconds of a step: (a run of 5 + STEPS steps - a run of 5 steps) / STEPS, so
that opening files and libraries count on neither side. Peak memory: of the whole process, and above that of the same
process before the first step (the peer's libraries alone take some hundred MB). Losses of both sides are compared at every
step. Needs torch, transformers, safetensors, pyarrow. Run it on an idle machine.
"""
import argparse
import json
import os
import pathlib
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

TASKS = ["digits", "fashion_mnist_900", "omniglot_balinese", "omniglot_greek", "omniglot_japanese_katakana", "omniglot_korean", "omniglot_latin", "sign_digits"]
ROWS = 16


def peer(shared, experts, steps, threads):
    import numpy as np
    import pyarrow.parquet as pq
    import torch
    import transformers
    from safetensors.torch import load_file

    torch.set_num_threads(threads)
    root = shared / "models/vision-eight"

    def opened(folder):
        return transformers.ViTModel.from_pretrained(folder, add_pooling_layer=False, dtype=torch.float32).eval()

    model = opened(root / "base")
    base = {k: v.detach() for k, v in model.state_dict().items()}
    vectors = [{k: v - base[k] for k, v in opened(root / experts / t).state_dict().items()} for t in TASKS]
    heads = [load_file(root / "heads" / f"{t}.safetensors") for t in TASKS]
    images = []
    for task in TASKS:
        table = pq.read_table(shared / "data/vision" / task / "test.parquet")
        n = table.num_rows
        taken = [i for i in range(n) if (i + 1) * ROWS // n != i * ROWS // n]
        column = table.column("image")
        raw = np.stack([np.frombuffer(column[i].as_py(), np.uint8) for i in taken]).astype(np.float32)
        if raw.shape[1] == 28 * 28:
            pixels = torch.nn.functional.pad(torch.from_numpy(raw.reshape(-1, 1, 28, 28)), (2, 2, 2, 2))
        else:
            pixels = torch.from_numpy(raw.reshape(-1, 32, 32, 3).transpose(0, 3, 1, 2).copy())
        images.append((pixels / 127.5 - 1).expand(-1, 3, -1, -1))
    pixels = torch.cat(images)
    names = list(base)
    raw = torch.full((len(names), len(TASKS)), 0.3, requires_grad=True)
    optimiser = torch.optim.Adam([raw], lr=1e-3)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    losses = []
    for _ in range(steps):
        acting = raw.clamp(0, 1)
        merged = {}
        for i, name in enumerate(names):
            whole = base[name]
            for t, vector in enumerate(vectors):
                whole = whole + acting[i, t] * vector[name]
            merged[name] = whole
        features = torch.func.functional_call(model, merged, (pixels,)).last_hidden_state[:, 0]
        loss = 0.0
        for head, part in zip(heads, features.split(ROWS)):
            p = (part @ head["weight"].T + head["bias"]).log_softmax(1)
            loss = loss - (p.exp() * p).sum(1).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    print(json.dumps({"losses": losses, "before": before}))


def main():
    ap = argparse.ArgumentParser(usage=__doc__)
    ap.add_argument("shared", type=pathlib.Path)
    ap.add_argument("--binary", default="target/release/polyloom")
    ap.add_argument("--runs", type=int, default=5)
    ap.add_argument("--steps", type=int, default=30)
    ap.add_argument("--set", default="experts-plain", dest="experts")
    ap.add_argument("--threads", type=int, default=os.cpu_count())
    ap.add_argument("--peer", type=int, help=argparse.SUPPRESS)
    a = ap.parse_args()
    if a.peer is not None:
        peer(a.shared, a.experts, a.peer, a.threads)
        return
    root = pathlib.Path(__file__).resolve().parents[1]
    work = pathlib.Path(tempfile.mkdtemp())
    recipe = root / "recipes/vision-eight" / ("adamerging-hard.toml" if a.experts == "experts-plain" else "adamerging.toml")
    environment = {**os.environ, "POLYLOOM_SHARED": str(a.shared), "POLYLOOM_DATA": str(a.shared / "data")}

    def timed(command):
        begin = time.perf_counter()
        child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
        out = child.stdout.read()
        err = child.stderr.read()
        _, status, usage = os.wait4(child.pid, 0)
        if status != 0:
            sys.exit(f"{command}: {err}")
        return time.perf_counter() - begin, usage.ru_maxrss / 1024, out

    def ours(steps):
        out = work / "out"
        shutil.rmtree(out, ignore_errors=True)
        command = [a.binary, "-j", str(a.threads), "tune", str(recipe), "-o", str(out), "-L", str(ROWS), "--batch", str(ROWS), "--steps", str(steps), "--no-sync"]
        seconds, peak, _ = timed(command)
        lines = map(json.loads, (out / "train.jsonl").read_text().splitlines())
        return seconds, peak, [line["loss"] for line in lines if line["type"] == "step"], None

    def theirs(steps):
        command = [sys.executable, __file__, str(a.shared), "--peer", str(steps), "--set", a.experts, "--threads", str(a.threads)]
        seconds, peak, out = timed(command)
        told = json.loads(out.splitlines()[-1])
        return seconds, peak, told["losses"], told["before"] / 1024

    short = 5
    mine, others, peaks, apart = [], [], [], 0.0
    print(f"{os.cpu_count()} cores, {a.threads} threads; load average {os.getloadavg()[0]:.2f} at the start; n = {a.runs} pairs")
    for run in range(a.runs + 1):
        first, _, _, _ = ours(short)
        last, own_peak, own_losses, _ = ours(short + a.steps)
        peer_first, _, _, _ = theirs(short)
        peer_last, peer_peak, peer_losses, before = theirs(short + a.steps)
        apart = max(apart, max(abs(x - y) for x, y in zip(own_losses, peer_losses)))
        # The first pair warms files and caches.
        if run > 0:
            mine.append((last - first) / a.steps)
            others.append((peer_last - peer_first) / a.steps)
            peaks.append((own_peak, peer_peak, peer_peak - before))
    shutil.rmtree(work)

    def spread(x, digits):
        return f"{statistics.median(x):.{digits}f} ({min(x):.{digits}f} to {max(x):.{digits}f})"

    print("| | polyloom | PyTorch | PyTorch / polyloom |")
    print("|---|---|---|---|")
    print(f"| a step, ms | {spread([1e3 * x for x in mine], 0)} | {spread([1e3 * x for x in others], 0)} | **{spread([y / x for x, y in zip(mine, others)], 2)}** |")
    print(f"| peak memory, MiB | {spread([p[0] for p in peaks], 0)} | {spread([p[1] for p in peaks], 0)} | {spread([p[1] / p[0] for p in peaks], 2)} |")
    print(f"| the peer's above what it held before the first step | | {spread([p[2] for p in peaks], 0)} | |")
    print(f"\nlargest difference of losses: {apart:.1e}")


main()
