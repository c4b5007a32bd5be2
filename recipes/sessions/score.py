#!/usr/bin/env python3
"""Recall and mean reciprocal rank of 20 items for the clicked test rows of `polyloom tasks synth log`, of items that training rows
show (warm) and those that they do not (cold): usage score.py OUT, with OUT as run.sh leaves it.

popular: the items clicked most often in training rows (of equals the more often shown). popular in the category: those of the category
that most rows before have in the session (of equals the latest), then the others; a row without rows before gets the popular ones.
Models: the records of `polyloom eval`. Over seeds mean and standard deviation. Differences to `ids` seed by seed with their 95 %
interval (Student's t).
"""
import glob
import os
import re
import sys
from collections import Counter, defaultdict

import numpy as np
import pyarrow.parquet as parquet

out = sys.argv[1]
T95 = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776}


def table(name):
    return parquet.read_table(os.path.join(out, name)).to_pylist()


train, test = table("data/train.parquet"), table("data/test.parquet")
shown, clicked = Counter(r["item"] for r in train), Counter(r["item"] for r in train if r["click"] == 1)
category = {r["item"]: r["category"] for r in train + test}
items = sorted(category, key=lambda i: (-clicked[i], -shown[i], i))
place = {item: at for at, item in enumerate(items)}
within = defaultdict(list)
for item in items:
    within[category[item]].append(item)

asked, popular, ranks = {}, {}, {}
before = defaultdict(list)
for row in test:
    session, item = row["session"], row["item"]
    if row["click"] == 1:
        asked[str(row["row"])] = item
        popular[str(row["row"])] = place[item]
        seen = before[session]
        counts = Counter(seen)
        best = max(seen, key=lambda c: (counts[c], len(seen) - 1 - seen[::-1].index(c))) if seen else None
        own = within.get(best, [])
        ahead = sum(place[o] > place[item] for o in own)
        ranks[str(row["row"])] = own.index(item) if category[item] == best else place[item] + ahead
    before[session].append(row["category"])

cold = {row for row, item in asked.items() if item not in shown}
sets = [("all", set(asked)), ("warm", set(asked) - cold), ("cold", cold)]


def means(values):
    return [np.mean([values[r] for r in rows]) if rows else float("nan") for _, rows in sets]


def of_ranks(ranks):
    return means({r: float(k < 20) for r, k in ranks.items()}) + means({r: 1 / (k + 1) if k < 20 else 0.0 for r, k in ranks.items()})


def of_records(name):
    found = []
    for metric in ("recall", "mrr"):
        file, = glob.glob(os.path.join(out, f"{name}-{metric}.samples", "*.parquet"))
        rows = parquet.read_table(file).to_pylist()
        values = {r["id"]: r["value"] for r in rows if r["task"] == "next/item" and r["value"] is not None}
        assert set(values) == set(asked), f"{name}: other rows"
        found += means(values)
    return np.array(found)


print(f"{len(asked)} clicked test rows, {len(cold)} of cold items; {len(items)} items")
print("| | seeds | " + " | ".join(f"{m}, {s}" for m in ("recall@20", "MRR@20") for s, _ in sets) + " |\n|" + "---|" * 8)
for name, r in [("popular", popular), ("popular in the category", ranks)]:
    print(f"| {name} | | " + " | ".join(f"{v:.3f}" for v in of_ranks(r)) + " |")
runs = defaultdict(dict)
for file in sorted(glob.glob(os.path.join(out, "*-mrr.json"))):
    name, seed = re.fullmatch(r"(.*)-(\d+)-mrr\.json", os.path.basename(file)).groups()
    runs[name][seed] = of_records(f"{name}-{seed}")


def line(name, values, spread):
    values = np.array(values)
    n = len(values)
    deviation = values.std(0, ddof=1) if n > 1 else None
    half = deviation if spread == "deviation" or n < 2 else T95.get(n, 1.96) * deviation / np.sqrt(n)
    cells = [f"{m:.3f}" + ("" if half is None else f" ± {h:.3f}") for m, h in zip(values.mean(0), half if half is not None else values.mean(0))]
    print(f"| {name} | {n} | " + " | ".join(cells) + " |")


for name, by_seed in runs.items():
    line(name, list(by_seed.values()), "deviation")
for name in runs:
    both = sorted(set(runs[name]) & set(runs.get("ids", {})))
    if name != "ids" and both:
        line(f"{name} less ids", [runs[name][s] - runs["ids"][s] for s in both], "interval")
