#!/usr/bin/env python3
"""Boosted trees beside scikit-learn's histogram trees, paired A B A B on identical data.

    python3 bench/forest.py WORK [--rows 50000] [--columns 20] [--rounds 200] [--runs 10] [--threads 1 2] [--binary PROGRAM]

Both grow the same number of trees of at most 31 leaves of at least 20 rows over at most 255 bins, learning rate 0.1, L2 1,
no early stopping. Cases (seed 0): a number (functions of single columns, one of two, and columns of noise; products of columns
are left out, because which tree finds them first is chance and moves the scores more than anything else), the same with every
tenth value missing, two classes. Writes the table to WORK, builds crates/polyloom-learn/benches/forest.rs and talks to it.
--binary takes a bench program that was built before, which has to be one of a release profile: without link-time optimisation
(`CARGO_PROFILE_BENCH_LTO=off`) it takes a third longer. Peer: pip install scikit-learn. Bins are made inside of both times. Reported: median (smallest to largest) of seconds, of the
ratio scikit-learn/polyloom pair by pair (above 1, Polyloom is faster), and the test scores of both on 20,000 rows: R2 or
log loss. Run it on an idle machine: OpenMP's threads spin, and lose more than ours when disturbed.
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
ap.add_argument("--rows", type=int, default=50_000)
ap.add_argument("--columns", type=int, default=20)
ap.add_argument("--rounds", type=int, default=200)
ap.add_argument("--runs", type=int, default=10)
ap.add_argument("--threads", type=int, nargs="+", default=[1, 2])
ap.add_argument("--binary")
a = ap.parse_args()
root = pathlib.Path(__file__).resolve().parents[1]

import numpy as np
import sklearn
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.metrics import log_loss, r2_score
from threadpoolctl import threadpool_limits

TEST = 20_000


def data(missing, classes):
    random = np.random.default_rng(0)
    x = random.normal(size=(a.rows + TEST, a.columns)).astype(np.float32)
    y = 10 * np.sin(x[:, 0]) + 3 * np.cos(2 * x[:, 1]) + 5 * x[:, 2] ** 2 + 10 * x[:, 3] + 5 * x[:, 4] + np.where(x[:, 5] > 0, 4, 0) * x[:, 6]
    y = y + random.normal(size=len(y)) * 3
    if missing:
        x[random.random(x.shape) < 0.1] = np.nan
    if classes:
        y = (y > np.median(y)).astype(np.float64)
    return x[: a.rows], y[: a.rows], x[a.rows :], y[a.rows :]


CASES = {"number": (False, 0), "number, missing values": (True, 0), "two classes": (False, 2)}

if not a.binary:
    build = ["cargo", "bench", "-p", "polyloom-learn", "--bench", "forest", "--no-run", "--message-format", "json"]
    for line in subprocess.run(build, cwd=root, check=True, capture_output=True, text=True).stdout.splitlines():
        message = json.loads(line)
        if message.get("executable") and message["target"]["name"] == "forest":
            a.binary = message["executable"]


def spread(x, digits=2):
    return f"{statistics.median(x):.{digits}f} ({min(x):.{digits}f} to {max(x):.{digits}f})"


print(f"{os.cpu_count()} cores; load average {os.getloadavg()[0]:.2f} at the start; scikit-learn {sklearn.__version__}; {a.rows} x {a.columns}, {a.rounds} trees\n")
print("| case | threads | n | polyloom trains, s | scikit-learn, s | scikit-learn / polyloom | answers | score, polyloom | scikit-learn |")
print("|---|---|---|---|---|---|---|---|---|")
for (name, (missing, classes)), threads in [(c, t) for c in CASES.items() for t in a.threads]:
    x, y, x_test, y_test = data(missing, classes)
    folder = a.work / name.replace(" ", "-").replace(",", "")
    folder.mkdir(parents=True, exist_ok=True)
    for file, values in [("x_train", x.T), ("x_test", x_test.T), ("y_train", y)]:
        np.ascontiguousarray(values).tofile(folder / file)
    method = {"name": "gbdt", "rounds": a.rounds}
    (folder / "case.json").write_text(json.dumps({"columns": a.columns, "classes": classes, "params": {"method": method}}))
    ours = subprocess.Popen([a.binary, str(folder), str(threads)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert ours.stdout.readline() == "ready\n"
    Peer = HistGradientBoostingClassifier if classes else HistGradientBoostingRegressor
    mine, theirs, answers = [], [], []
    with threadpool_limits(threads):
        for run in range(a.runs + 1):
            ours.stdin.write("train\n")
            ours.stdin.flush()
            trained, answered = map(float, ours.stdout.readline().split())
            peer = Peer(max_iter=a.rounds, max_leaf_nodes=31, min_samples_leaf=20, l2_regularization=1.0, max_bins=255, early_stopping=False)
            begin = time.perf_counter()
            peer.fit(x, y)
            middle = time.perf_counter()
            told = peer.decision_function(x_test) if classes else peer.predict(x_test)
            end = time.perf_counter()
            if run > 0:
                mine.append(trained)
                theirs.append(middle - begin)
                answers.append((end - middle) / answered)
    scores = np.fromfile(folder / "scores")
    of = (lambda s: log_loss(y_test, 1 / (1 + np.exp(-s)))) if classes else (lambda s: r2_score(y_test, s))
    ratio = spread([t / m for t, m in zip(theirs, mine)])
    print(f"| {name} | {threads} | {a.runs} | {spread(mine)} | {spread(theirs)} | **{ratio}** | {spread(answers)} | {of(scores):.4f} | {of(told):.4f} |", flush=True)
    ours.stdin.close()
    ours.wait()
