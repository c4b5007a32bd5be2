#!/usr/bin/env python3
"""Whole-command benchmarks of `polyloom merge`, paired A B A B with the limit of the disk, with a simpler merge and with
the peer, on checkpoints that bench/synth.py makes up.

    python3 bench/merge.py WORK target/release/polyloom [--size 0.5b|1.5b] [--runs 5] [--peer PYTHON] [--only WORDS]

WORK gets the checkpoints (4 GB at 0.5b, 13 GB at 1.5b) and outputs. The peer is mergekit 0.1.5; without --peer a
throw-away environment for it is made in WORK/peer. Reported: median (smallest to largest) of wall seconds, CPU seconds
and peak resident memory as the system accounts them for the finished process, and the ratio A/B pair by pair. Outputs
of the run before are removed outside the timed part. Run it on an idle machine; the load average is printed.
"""
import argparse
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import time

ap = argparse.ArgumentParser(usage=__doc__)
ap.add_argument("work", type=pathlib.Path)
ap.add_argument("polyloom")
ap.add_argument("--size", default="0.5b")
ap.add_argument("--runs", type=int, default=5)
ap.add_argument("--peer")
ap.add_argument("--only", default="")
a = ap.parse_args()
here = pathlib.Path(__file__).resolve().parent
models = a.work / a.size
if not (models / "expert3").exists():
    subprocess.run([sys.executable, here / "synth.py", models, "--size", a.size], check=True)
base, experts = models / "base", [models / f"expert{i}" for i in (1, 2, 3)]
target, copy = a.work / "out", a.work / "copy"
inputs = [m / "model.safetensors" for m in [base, *experts]]


def polyloom(method, *flags, sync=False):
    bases = [] if method == "linear" else ["--base", base]
    each = ["--each", "weight=0.4"]
    words = [a.polyloom, "merge", *bases, *experts, "--method", method, *each, *flags, "-o", target, "-q"]
    return [str(w) for w in words] + ([] if sync else ["--no-sync"])


def shell(text):
    return ["sh", "-c", text]


read = "cat " + " ".join(map(str, inputs)) + " > /dev/null"
limit = shell(f"{read} && cp {inputs[0]} {copy}")
durable = shell(f"{read} && dd if={inputs[0]} of={copy} bs=4M conv=fsync 2>/dev/null")


def yaml(method, **each):
    lines = [f"merge_method: {method}", "dtype: bfloat16"]
    if method != "linear":
        lines.append(f"base_model: {base}")
    lines.append("models:")
    for e in experts:
        lines += [f"  - model: {e}", "    parameters:", "      weight: 0.4"] + [f"      {k}: {v}" for k, v in each.items()]
    path = a.work / f"{method}.yml"
    path.write_text("\n".join(lines) + "\n")
    return path


def peer(path):
    if a.peer is None:
        a.peer = str(a.work / "peer" / "bin" / "python")
        if not pathlib.Path(a.peer).exists():
            subprocess.run([sys.executable, "-m", "venv", a.work / "peer"], check=True)
            subprocess.run([a.peer, "-m", "pip", "install", "-q", "mergekit==0.1.5"], check=True)
    program = str(pathlib.Path(a.peer).parent / "mergekit-yaml")
    return [program, str(path), str(target), "--quiet", "--no-copy-tokenizer"]


def ours(path):
    return [a.polyloom, "merge", str(path), "-o", str(target), "-q", "--no-sync"]


def once(command):
    for path in (target, copy):
        shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
    os.sync()
    start = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    error = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.monotonic() - start
    if status:
        sys.exit(f"{command}: {error.decode()[-500:]}")
    return wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def show(values, digits=2):
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def pair(name, left, right, against, runs=None):
    if a.only and not any(w in name for w in a.only.split(",")):
        return
    runs = runs or a.runs
    once(left), once(right)
    lefts, rights = [], []
    for _ in range(runs):
        lefts.append(once(left))
        rights.append(once(right))
    ratio = [x[0] / y[0] for x, y in zip(lefts, rights)]
    print(
        f"| {name} | {against} | {runs} | {show([x[0] for x in lefts])} | {show([x[0] for x in rights])} | **{show(ratio)}** "
        f"| {statistics.median(x[1] for x in lefts):.1f} | {max(x[2] for x in lefts):.0f} | {max(x[2] for x in rights):.0f} |",
        flush=True,
    )


print(f"Qwen2 {a.size} shape, base + 3 experts, bf16; {os.cpu_count()} cores; load average {os.getloadavg()[0]:.2f} at the start; {time.strftime('%Y-%m-%d')}\n")
print("| A | B | n | A wall s | B wall s | A/B wall | A CPU s | A peak MiB | B peak MiB |\n|---|---|---|---|---|---|---|---|---|", flush=True)
pair("linear", polyloom("linear"), limit, "cat + cp")
pair("task_arithmetic", polyloom("task_arithmetic"), limit, "cat + cp")
pair("task_arithmetic, durable", polyloom("task_arithmetic", sync=True), durable, "cat + dd conv=fsync")
plain = polyloom("linear")
pair("ties 0.2", polyloom("ties", "--each", "density=0.2"), plain, "linear")
pair("breadcrumbs 0.3", polyloom("breadcrumbs", "--each", "density=0.3"), plain, "linear")
pair("dare_ties 0.5", polyloom("dare_ties", "--each", "density=0.5"), plain, "linear")
pair("dare_linear 0.5", polyloom("dare_linear", "--each", "density=0.5"), plain, "linear")
pair("della 0.5", polyloom("della", "--each", "density=0.5"), plain, "linear")
if not a.only or "mergekit" in a.only:
    for name, path in [("linear", yaml("linear")), ("ties 0.2", yaml("ties", density=0.2))]:
        pair(f"mergekit {name}", peer(path), ours(path), "polyloom, same file", runs=min(a.runs, 3))
