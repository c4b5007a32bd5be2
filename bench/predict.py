#!/usr/bin/env python3
"""Rows a second of `polyloom predict` with a model of the shape of protocol joint-tabular-v1, whole commands.

    python3 bench/predict.py WORK [--rows 262144] [--runs 5] [--threads 2] [--model mmoe] [--binary PROGRAM]

Two goals, 26 columns of words (10,000 each, skewed), 13 numbers; the model is trained for a few steps on the first 65,536 rows (it
is its shape that is timed: 8 experts of 256 and 128, towers of 64). Then predictions of all rows from CSV and from Parquet:
start of the program, reading, preparing, the forward pass, writing CSV. Reported: median (smallest to largest) seconds and rows a
second of whole commands; and of one row alone, what start and reading of the model take. Needs numpy and pyarrow. Builds
polyloom in release, or takes PROGRAM. Run it on an idle machine.
"""
import argparse
import os
import pathlib
import statistics
import subprocess
import time

ap = argparse.ArgumentParser(usage=__doc__)
ap.add_argument("work", type=pathlib.Path)
ap.add_argument("--rows", type=int, default=262_144)
ap.add_argument("--runs", type=int, default=5)
ap.add_argument("--threads", type=int, default=2)
ap.add_argument("--model", default="mmoe")
ap.add_argument("--binary")
a = ap.parse_args()
root = pathlib.Path(__file__).resolve().parents[1]

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

FIELDS, CODES, NUMBERS, TRAINED = 26, 10_000, 13, 65_536
if not a.binary:
    subprocess.run(["cargo", "build", "--release", "-p", "polyloom-cli"], cwd=root, check=True)
    a.binary = str(root / "target" / "release" / "polyloom")


def tables():
    random = np.random.default_rng(0)
    codes = (random.random((a.rows, FIELDS)) ** 2 * CODES).astype(np.int64)
    numbers = random.uniform(-1, 1, (a.rows, NUMBERS)).astype(np.float32)
    effects = random.uniform(-1, 1, (64, 2))
    z = numbers @ random.uniform(-1, 1, (NUMBERS, 2)) + effects[codes % 64].sum(1) * 0.3 - [1.0, 2.5]
    goals = random.random(z.shape) < 1 / (1 + np.exp(-z))
    columns = {f"c{i}": [f"w{c}" for c in codes[:, i]] for i in range(FIELDS)}
    columns |= {f"x{i}": numbers[:, i] for i in range(NUMBERS)}
    columns |= {"a": np.where(goals[:, 0], "yes", "no"), "b": np.where(goals[:, 1], "yes", "no")}
    return pa.table(columns)


def spread(x, digits=2):
    return f"{statistics.median(x):.{digits}f} ({min(x):.{digits}f} to {max(x):.{digits}f})"


def polyloom(*args):
    begin = time.perf_counter()
    subprocess.run([a.binary, "--threads", str(a.threads), "-q", *map(str, args)], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - begin


a.work.mkdir(parents=True, exist_ok=True)
every = tables()
model, files = a.work / "model", {"CSV": a.work / "rows.csv", "Parquet": a.work / "rows.parquet"}
pa.csv.write_csv(every.slice(0, TRAINED), a.work / "trained.csv")
asked = every.drop_columns(["a", "b"])
pa.csv.write_csv(asked, files["CSV"])
pa.parquet.write_table(asked, files["Parquet"], compression="snappy")
pa.csv.write_csv(asked.slice(0, 1), a.work / "one.csv")
(a.work / "trained.task.toml").unlink(missing_ok=True)
shape = ["hidden=[256,128]", "tower=[64]"]
polyloom("train", a.work / "trained.csv", "--targets", "a,b", "--model", a.model, "--steps", 20, "--force", "-o", model,
         *[word for key in shape for word in ("--set", f"train.new.{key}")])
print(f"{os.cpu_count()} cores; load average {os.getloadavg()[0]:.2f} at the start; {a.model}, {a.rows} rows of {FIELDS} words and {NUMBERS} numbers\n")
print("| file | threads | n | seconds | rows a second | start and model, s |\n|---|---|---|---|---|---|")
for name, file in files.items():
    whole, one = [], []
    for run in range(a.runs + 1):
        out = a.work / "predictions.csv"
        took, alone = polyloom("predict", model, file, "--force", "-o", out), polyloom("predict", model, a.work / "one.csv", "--force", "-o", out)
        # The first run warms the machine.
        if run > 0:
            whole.append(took)
            one.append(alone)
    rates = [a.rows / t for t in whole]
    print(f"| {name} | {a.threads} | {a.runs} | {spread(whole)} | **{spread(rates, 0)}** | {spread(one)} |", flush=True)
