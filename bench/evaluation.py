#!/usr/bin/env python3
"""Metrics side by side with scikit-learn, scipy, sacrebleu, rouge-score and lifelines, paired A B A B on the same data.

    python3 bench/evaluation.py WORK [--runs 5] [--only WORDS] [--binary PROGRAM]

Makes the data (seed 0) in WORK, builds crates/polyloom/benches/evaluation.rs and talks to it, so that neither side pays
for its start or for reading the data. Both sides compute the same number (checked to 1e-9 where no random draws are in
it). Peers: pip install scikit-learn scipy sacrebleu rouge-score lifelines. Reported: median (smallest to largest) of wall
milliseconds and of the ratio B/A pair by pair. Run it on an idle machine; the load average is printed.
"""
import argparse
import os
import pathlib
import statistics
import subprocess
import sys
import time

import numpy as np

ap = argparse.ArgumentParser(usage=__doc__)
ap.add_argument("work", type=pathlib.Path)
ap.add_argument("--runs", type=int, default=5)
ap.add_argument("--only", default="")
ap.add_argument("--binary")
a = ap.parse_args()
root = pathlib.Path(__file__).resolve().parents[1]
a.work.mkdir(parents=True, exist_ok=True)

g = np.random.default_rng(0)
M = 1_000_000


def labels(classes):
    truth = g.integers(0, classes, M)
    return truth.astype("<u4"), np.where(g.random(M) < 0.8, truth, g.integers(0, classes, M)).astype("<u4")


truth, predicted = labels(10)
many_truth, many_predicted = labels(1000)
positive = (g.random(M) < 0.3).astype("<u4")
scores = g.normal(size=M) + positive
x = g.normal(size=M)
y = np.round(x + g.normal(size=M), 2)
times, risks, events = np.round(g.exponential(10, 100_000), 2), g.normal(size=100_000), (g.random(100_000) < 0.7).astype("<u4")
matrix = g.normal(size=(20, 31)) + np.linspace(0, 1, 20)[:, None]
words = ["".join(g.choice(list("abcdefghijklmnopqrstuvwxyz"), g.integers(2, 11))) + e for e in ["", "", "s", "ing", "ed"] for _ in range(4000)]
zipf = 1 / np.arange(1, len(words) + 1)
draw = iter(g.choice(len(words), 2_000_000, p=zipf / zipf.sum()))


def word():
    return words[next(draw)]


reference, system = [], []
for _ in range(10_000):
    line = [word() for _ in range(g.integers(8, 35))]
    other = [w if u < 0.7 else word() for w, u in zip(line, g.random(len(line))) if u < 0.95]
    reference.append(" ".join(line).capitalize() + ".")
    system.append(" ".join(other).capitalize() + ".")
arrays = dict(truth=truth, predicted=predicted, many_truth=many_truth, many_predicted=many_predicted, positive=positive, scores=scores, x=x, y=y, times=times, risks=risks, events=events, matrix=matrix)
for name, array in arrays.items():
    array.tofile(a.work / name)
for name, lines in [("system.txt", system), ("reference.txt", reference)]:
    (a.work / name).write_text("\n".join(lines) + "\n")

if not a.binary:
    build = ["cargo", "bench", "-p", "polyloom", "--bench", "evaluation", "--no-run", "--message-format", "json"]
    import json

    for line in subprocess.run(build, cwd=root, check=True, capture_output=True, text=True).stdout.splitlines():
        message = json.loads(line)
        if message.get("executable") and message["target"]["name"] == "evaluation":
            a.binary = message["executable"]
ours = subprocess.Popen([a.binary, str(a.work)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
assert ours.stdout.readline() == "ready\n"


def polyloom(name):
    ours.stdin.write(name + "\n")
    ours.stdin.flush()
    seconds, value = ours.stdout.readline().split()
    return float(seconds), float(value)


def timed(f):
    start = time.perf_counter()
    value = f()
    return time.perf_counter() - start, value


def sklearn_f1(t, p):
    from sklearn.metrics import f1_score

    return lambda: f1_score(t, p, average="macro")


def auc():
    from sklearn.metrics import roc_auc_score

    return roc_auc_score(positive, scores)


def spearman():
    from scipy.stats import spearmanr

    return spearmanr(x, y).statistic


def bleu():
    from sacrebleu.metrics import BLEU

    return BLEU().corpus_score(system, [reference]).score


def chrf():
    from sacrebleu.metrics import CHRF

    return CHRF(word_order=2).corpus_score(system, [reference]).score


def rouge(stem):
    def run():
        from rouge_score.rouge_scorer import RougeScorer

        scorer = RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=stem)
        found = [scorer.score(r, s) for r, s in zip(reference[:2000], system[:2000])]
        return sum(v.fmeasure for f in found for v in f.values()) / 6000

    return run


def c_index():
    from lifelines.utils import concordance_index

    return concordance_index(times, risks, events)


def bootstrap(n, classes, draws, metric):
    def run():
        import sklearn.metrics as m

        t, p = truth[:n] % classes, predicted[:n] % classes
        score = (lambda i: m.f1_score(t[i], p[i], average="macro")) if metric == "f1" else (lambda i: m.matthews_corrcoef(t[i], p[i]))
        r = np.random.default_rng(1)
        return np.quantile([score(r.integers(0, n, n)) for _ in range(draws)], 0.025)

    return run


# name, what, bar in ms, peer, its function, how many times its work ours is, runs of the peer at most
lines = [
    ("macro_f1", "macro-F1, 1 M rows, 10 classes", 20, "scikit-learn", sklearn_f1(truth, predicted), 1, 9),
    ("macro_f1_1000", "macro-F1, 1 M rows, 1000 classes", None, "scikit-learn", sklearn_f1(many_truth, many_predicted), 1, 9),
    ("roc_auc", "ROC AUC, 1 M", 150, "scikit-learn", auc, 1, 9),
    ("spearman", "Spearman, 1 M", 250, "scipy", spearman, 1, 9),
    ("bleu", "BLEU, 10 k sentences", 150, "sacrebleu", bleu, 1, 3),
    ("chrf++", "chrF++, 10 k sentences", 400, "sacrebleu", chrf, 1, 3),
    ("rouge", "ROUGE-1/2/L, 2 k pairs", 60, "rouge-score", rouge(False), 1, 3),
    ("rouge_stem", "the same with stems", 60, "rouge-score", rouge(True), 1, 3),
    ("c_index", "C-index, 100 k", 60, "lifelines", c_index, 1, 3),
    ("bootstrap_f1", "1000 bootstrap draws of macro-F1, 10 k", 80, "scikit-learn in a loop", bootstrap(10_000, 10, 1000, "f1"), 1, 1),
    ("bootstrap_mcc", "100,000 draws of MCC, 2 k", 5000, "scikit-learn in a loop, 1,000 draws times 100", bootstrap(2_000, 2, 1000, "mcc"), 100, 1),
    ("kemeny", "exact Kemeny order of 20 systems", 2000, None, None, 1, 0),
]


def show(values, factor=1000.0):
    v = [x * factor for x in values]
    return f"{statistics.median(v):.1f} ({min(v):.1f} to {max(v):.1f})"


print(f"{os.cpu_count()} cores; load average {os.getloadavg()[0]:.2f} at the start; {time.strftime('%Y-%m-%d')}; numpy {np.__version__}, python {sys.version.split()[0]}\n")
print("| metric | bar, ms | n | polyloom, ms | peer, ms | times faster | peer |\n|---|---|---|---|---|---|---|", flush=True)
for name, what, bar, peer, theirs, share, most in lines:
    if a.only and name not in a.only.split(","):
        continue
    polyloom(name)
    mine, other, check = [], [], None
    if theirs and most > 1:
        timed(theirs)
    for run in range(a.runs):
        mine.append(polyloom(name))
        if theirs and run < most:
            seconds, check = timed(theirs)
            other.append(seconds * share)
    if check is not None and "bootstrap" not in name:
        assert abs(mine[0][1] - check) <= 1e-9 * max(1, abs(check)), (name, mine[0][1], check)
    ratio = [o / m[0] for o, m in zip(other, mine)]
    print(f"| {what} | {bar or ''} | {a.runs} | {show([m[0] for m in mine])} | {show(other) if other else ''} | {('**' + show(ratio, 1) + '**') if ratio else ''} | {peer or 'none'} |", flush=True)
