#!/usr/bin/env python3
"""Areas under the ROC curve of predictions on the test impressions of `polyloom tasks synth log`, beside those of the planted
probabilities: usage score.py OUT, with OUT/data and OUT/MODEL-SEED.parquet as run.sh leaves them.

click: over all impressions; cold: over those of items that training never showed; cart, buy: over the rows where they exist
(clicked, in the cart); cart | all and buy | all: would it be put in the cart (bought) if it were clicked (in the cart), over all
impressions: the generator knows, and what was learned from clicked rows alone is not of them; both: click and cart together, over
all impressions. share: (AUC - 0.5) / (planted - 0.5), mean over click, cart and buy. Over seeds mean and standard deviation.
"""
import glob
import os
import re
import sys

import numpy as np
import pyarrow.parquet as parquet

out = sys.argv[1]


def table(name):
    read = parquet.read_table(os.path.join(out, name))
    return {c: np.array(read[c].to_pylist()) for c in read.column_names}


def auc(truth, scores):
    order = np.argsort(scores, kind="stable")
    values, first, counts = np.unique(scores[order], return_index=True, return_counts=True)
    ranks = np.empty(len(scores))
    ranks[order] = np.repeat(first + (counts + 1) / 2, counts)
    good = truth.astype(bool)
    n, m = good.sum(), (~good).sum()
    return (ranks[good].sum() - n * (n + 1) / 2) / (n * m)


train, test, truth = table("data/train.parquet"), table("data/test.parquet"), table("data/truth.parquet")
rows = test["row"].astype(int)
p = [truth[f"p_{step}"][rows] for step in ("click", "cart", "buy")]
would = [truth[f"y_{step}"][rows] for step in ("click", "cart", "buy")]
cold = ~np.isin(test["item"], np.unique(train["item"]))
click, cart, buy = (test[step].astype(float) for step in ("click", "cart", "buy"))
clicked, carted = click == 1, np.nan_to_num(cart) == 1


def scores(p):
    return [
        auc(click, p[0]),
        auc(click[cold], p[0][cold]),
        auc(cart[clicked], p[1][clicked]),
        auc(buy[carted], p[2][carted]),
        auc(would[1], p[1]),
        auc(would[2], p[2]),
        auc(carted, p[0] * p[1]),
    ]


names = ["click", "cold", "cart", "buy", "cart | all", "buy | all", "both"]
planted = scores(p)
share = lambda s: np.mean([(s[i] - 0.5) / (planted[i] - 0.5) for i in (0, 2, 3)])
print("| | seeds | " + " | ".join(names) + " | share |\n|" + "---|" * (len(names) + 3))
print("| planted | | " + " | ".join(f"{s:.3f}" for s in planted) + " | 1 |")
found = {}
for file in sorted(glob.glob(os.path.join(out, "*-*.parquet"))):
    name, seed = re.fullmatch(r"(.*)-(\d+)\.parquet", os.path.basename(file)).groups()
    said = table(os.path.basename(file))
    order = {str(i): at for at, i in enumerate(said["id"])}
    at = [order[str(r)] for r in rows]
    found.setdefault(name, []).append(scores([said[f"score_{step}_1"][at].astype(float) for step in ("click", "cart", "buy")]))
for name, runs in found.items():
    runs = np.array(runs)
    cells = [f"{m:.3f}" + (f" ± {d:.3f}" if len(runs) > 1 else "") for m, d in zip(runs.mean(0), runs.std(0, ddof=1) if len(runs) > 1 else runs.mean(0))]
    print(f"| {name} | {len(runs)} | " + " | ".join(cells) + f" | {np.mean([share(s) for s in runs]):.2f} |")
