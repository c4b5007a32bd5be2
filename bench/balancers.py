#!/usr/bin/env python3
"""What a balancer costs per step of `polyloom train`, by the number of goals.

    python3 bench/balancers.py WORK [--goals 2 5 20] [--steps 120] [--batch 1024] [--runs 3] [--threads 2] [--binary polyloom]

A shared bottom (256, 128, towers of 64) over `polyloom tasks synth multitab --tasks T` (32 numbers a row). A run makes so many
steps; the time of a step is the difference of the times in `train.jsonl`, without the first twenty steps and those that follow
an evaluation or a checkpoint (medians). Runs of `equal` and of each balancer alternate; reported by balancer: median step in
ms over runs, the ratio to `equal` of the same round (median, smallest to largest), and what is added in ms. Also `none`: no
balancer at all, one backward pass of the mean loss. Needs nothing but the program. Run it on an idle machine.
"""
import argparse
import json
import pathlib
import re
import statistics
import subprocess

ap = argparse.ArgumentParser(usage=__doc__)
ap.add_argument("work", type=pathlib.Path)
ap.add_argument("--goals", type=int, nargs="+", default=[2, 5, 20])
ap.add_argument("--steps", type=int, default=120)
ap.add_argument("--batch", type=int, default=1024)
ap.add_argument("--runs", type=int, default=3)
ap.add_argument("--threads", type=int, default=2)
ap.add_argument("--binary", default="polyloom")
ap.add_argument("--balancers", nargs="+")
a = ap.parse_args()
root = pathlib.Path(__file__).resolve().parents[1]
page = (root / "docs" / "reference" / "balancers.md").read_text()
names = a.balancers or [n for n in re.findall(r"^\| \[(\w+)\]\(#", page, re.M) if n != "equal"]


def polyloom(*args):
    done = subprocess.run([a.binary, "--threads", str(a.threads), "-q", *map(str, args)], capture_output=True, text=True)
    return done.stderr if done.returncode else None


def step(data, balancer):
    """Median time of a step in ms; an error as a text."""
    out = a.work / "run"
    keys = ["train.new.hidden=[256,128]", "train.new.tower=[64]", "train.new.dropout=0", "train.patience=0", "train.evaluate_every=1000000"]
    more = ["--balancer", balancer] if balancer != "none" else []
    sets = [x for k in keys for x in ("--set", k)]
    command = ["train", "-t", data, "--model", "shared_bottom", "--steps", a.steps, "--batch", a.batch, "-o", out, "--force", "--no-sync", *sets, *more]
    if error := polyloom(*command):
        return error
    lines = [json.loads(line) for line in (out / "train.jsonl").read_text().splitlines()]
    times, last = [], None
    for line in lines:
        if line["type"] == "step":
            if last is not None and line["step"] > 20:
                times.append(1000 * (line["time"] - last))
            last = line["time"]
        elif line["type"] != "balance":
            last = None
    return statistics.median(times)


def spread(x, digits=2):
    return f"{statistics.median(x):.{digits}f} ({min(x):.{digits}f} to {max(x):.{digits}f})"


a.work.mkdir(parents=True, exist_ok=True)
for goals in a.goals:
    data = a.work / f"goals{goals}"
    if not data.exists():
        features = ["--features", max(32, goals)]
        if error := polyloom("tasks", "synth", "multitab", "--tasks", goals, *features, "-o", data):
            raise SystemExit(error)
    found = {name: [] for name in ["equal", "none", *names]}
    for _ in range(a.runs):
        for name in found:
            found[name].append(step(data, name))
    equal = found.pop("equal")
    print(f"\n{goals} goals: equal {spread(equal)} ms a step, n = {a.runs}\n\n| balancer | ms a step | ratio to equal | added, ms |\n|---|---|---|---|")
    for name, times in found.items():
        if any(isinstance(t, str) for t in times):
            print(f"| {name} | {next(t for t in times if isinstance(t, str)).strip().splitlines()[0]} | | |")
            continue
        ratios = [t / e for t, e in zip(times, equal)]
        print(f"| {name} | {spread(times)} | {spread(ratios)} | {statistics.median(times) - statistics.median(equal):.2f} |", flush=True)
