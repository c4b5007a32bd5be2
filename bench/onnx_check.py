#!/usr/bin/env python3
"""Answers of an exported model beside those of `polyloom predict`, on the same cells.

    python3 bench/onnx_check.py MODEL ROWS [--work DIR] [--limit 2000] [--interval LEVEL] [--binary PROGRAM]
    python3 bench/onnx_check.py --make ROWS.csv

MODEL is a folder of `polyloom train` (tables), ROWS a CSV or Parquet file with its columns. Rows are taken from the begin of the
file; to them come odd ones: for each column a row with nothing in it, one with a word or number that training never met, and a row
with nothing at all; of trees 300 rows whose numbers lie on thresholds or the nearest f32 beside them. Then `polyloom export`, onnx.checker (with shape inference), `polyloom predict`, and onnxruntime on the
processor. Reported for each output: the greatest difference of numbers, as a share of the number where that is above 1, and how
many classes are others. Ends with 1 above 1e-5, or where a class is another. `--make` writes a table with what is hard to get
right: dates with and without times, missing cells, equal numbers, words with quotes and commas, rare ones, `N/A`. Needs onnx, onnxruntime, numpy, pyarrow. Builds
polyloom in release, or takes PROGRAM.
"""
import argparse
import csv
import datetime
import json
import pathlib
import random
import subprocess
import sys
import tempfile

ap = argparse.ArgumentParser(usage=__doc__)
ap.add_argument("model", type=pathlib.Path, nargs="?")
ap.add_argument("rows", type=pathlib.Path, nargs="?")
ap.add_argument("--make", type=pathlib.Path)
ap.add_argument("--work", type=pathlib.Path)
ap.add_argument("--limit", type=int, default=2000)
ap.add_argument("--interval")
ap.add_argument("--binary")
a = ap.parse_args()


def odd_table():
    """1,500 people; `rich`, `kind`, `hours` and `tags` follow from date, age and job, with noise."""
    draw = random.Random(3)
    jobs = ["cook", "clerk", "judge", "judge, senior", 'say "hi"', "Ärztin", "N/A"]
    yield ["person id", "signed", "age", "in come", "Job title", "flat", "city", "rich", "kind", "hours", "tags"]
    for i in range(1500):
        day = datetime.date(2015, 1, 1) + datetime.timedelta(days=draw.randrange(3000))
        signed = day.isoformat() + (f"T{draw.randrange(24):02}:{draw.randrange(60):02}" if i % 3 == 0 else "")
        often = draw.choice([0.1, 0.1, 0.1, 20, 33.3, 47, 52, 61.7])
        age = often if draw.random() < 0.5 else round(draw.uniform(18, 80), 1)
        income, job = round(draw.lognormvariate(9, 1.5), 2), draw.choice(jobs)
        city = draw.choice("abc") if draw.random() < 0.98 else f"c{i}"
        z = age / 20 + jobs.index(job) + draw.gauss(0, 1)
        tags = [t for t, least in [("x", 2), ("y", 4), ("w", 6)] if z > least]
        cells = ["" if draw.random() < share else x for x, share in [(signed, 0.1), (age, 0.1), (income, 0), (job, 0.05)]]
        answers = ["yes" if z > 5 else "no", ["low", "mid", "high"][min(2, int(max(0, z) / 3))], f"{40 + z * 3 + day.year - 2015:.3f}"]
        yield [f"p{i}", *cells, "yes" if i % 7 else "no", city, *answers, "|".join(tags)]


if a.make:
    with open(a.make, "w", newline="") as file:
        csv.writer(file).writerows(odd_table())
    sys.exit()
if not a.rows:
    ap.error("MODEL and ROWS, or --make")
root = pathlib.Path(__file__).resolve().parents[1]

import numpy as np
import onnx
import onnxruntime as ort
import pyarrow.csv
import pyarrow.parquet

MOST = 1e-5
ABSENT = {"na", "nan", "n/a", "#n/a", "<na>", "null", "none"}
if not a.binary:
    subprocess.run(["cargo", "build", "--release", "-p", "polyloom-cli"], cwd=root, check=True)
    a.binary = str(root / "target" / "release" / "polyloom")
work = a.work or pathlib.Path(tempfile.mkdtemp())
work.mkdir(parents=True, exist_ok=True)


def polyloom(*args):
    done = subprocess.run([a.binary, "--json", *map(str, args)], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"polyloom {args[0]}: {done.stdout}{done.stderr}")
    return [json.loads(line) for line in done.stdout.splitlines()]


def table():
    """Rows as texts, by column."""
    if a.rows.suffix == ".parquet":
        found = pyarrow.parquet.read_table(a.rows)
        copy = work / "rows.csv"
        pyarrow.csv.write_csv(found.slice(0, a.limit), copy)
    else:
        copy = a.rows
    with open(copy, newline="") as file:
        rows = list(csv.DictReader(file))
    return rows[: a.limit]


def number(text):
    text = text.strip()
    if not text or text.lower() in ABSENT:
        return float("nan")
    try:
        return float(text)
    except ValueError:
        day = datetime.datetime.fromisoformat(text.replace("Z", ""))
        return (day - datetime.datetime(1970, 1, 1)) / datetime.timedelta(days=1)


made = work / "model.onnx"
level = ["--interval", a.interval] if a.interval else []
said = polyloom("export", a.model, "-o", made, "--force", *level)[-1]
ports = {p["name"]: p for p in said["inputs"]}
words = {n for n, p in ports.items() if p["type"].startswith("string")}
checked = onnx.load(made)
onnx.checker.check_model(checked, full_check=True)

rows = table()
plain = len(rows)
for name in ports:
    for cell in ["", "  "] if name not in words else [""]:
        rows.append({**rows[len(rows) % plain], name: cell})
    for cell in ["never met", "NA", "never met, and longer than fifteen bytes"] if name in words else ["0", "-12345678.25", "1e30"]:
        rows.append({**rows[len(rows) % plain], name: cell})
rows.append(dict.fromkeys(rows[0], ""))
for node in checked.graph.node:
    if node.op_type != "TreeEnsembleRegressor":
        continue
    said_of = {x.name: x for x in node.attribute}
    places, modes = said_of["nodes_featureids"].ints, said_of["nodes_modes"].strings
    limits = onnx.numpy_helper.to_array(said_of["nodes_values_as_tensor"].t)
    prepared = json.loads((a.model / "table.json").read_text())["columns"]
    numbers = [c for c in prepared if c["kind"] == "number"]
    of = [[t for f, m, t in zip(places, modes, limits) if f == i and m != b"LEAF" and np.isfinite(t)] for i in range(len(numbers))]
    draw = np.random.default_rng(0)
    for i in range(300):
        row = dict(rows[i % plain])
        for column_, ts in zip(numbers, of):
            if ts:
                t = np.float32(ts[draw.integers(len(ts))])
                t = [t, np.nextafter(t, np.float32(-np.inf)), np.nextafter(t, np.float32(np.inf))][i % 3]
                row[column_["name"]] = repr(float(t) * column_["deviation"] + column_["mean"])
        rows.append(row)
given = work / "given.csv"
with open(given, "w", newline="") as file:
    out = csv.DictWriter(file, [n for n in rows[0] if n in ports])
    out.writeheader()
    out.writerows({n: row[n] for n in row if n in ports} for row in rows)
predicted = work / "predicted.csv"
polyloom("predict", a.model, given, "-o", predicted, "--force", *level)
with open(predicted, newline="") as file:
    predicted = list(csv.DictReader(file))


def column(name):
    cells = [row[name] for row in rows]
    if name in words:
        return np.array(cells, dtype=object).reshape(-1, 1)
    return np.array([number(c) for c in cells]).reshape(-1, 1)


session = ort.InferenceSession(str(made), providers=["CPUExecutionProvider"])
names = [o.name for o in session.get_outputs()]
assert [o["name"] for o in said["outputs"]] == names and len(predicted) == len(rows)
feeds = {name: column(name) for name in ports}
found = dict(zip(names, session.run(names, feeds)))
# One row alone, and none.
for n in (1, 0):
    part = session.run(names, {k: v[:n] for k, v in feeds.items()})
    assert all(len(p) == n for p in part), f"{n} rows"
classes = {p.key: json.loads(p.value) for p in checked.metadata_props}
worst, others = 0.0, 0
for name in names:
    own = found[name]
    stem, _, target = name.partition("_")
    if name.endswith(".set"):
        target = name.removesuffix(".set")
        labels = classes["classes.probabilities" + ("" if target == "prediction" else f"_{target}")]
        ours = np.array([[c in json.loads(row[name]) for c in labels] for row in predicted], dtype=np.int64)
        n = int((ours != own).any(1).sum())
        others += n
        print(f"  {name}: {n} of {len(rows)} sets are others, {own.mean(0).sum():.2f} classes on average")
        continue
    if own.dtype == object:
        ours = np.array([row[name] for row in predicted], dtype=object)
        n = int((ours != own).sum())
        others += n
        print(f"  {name}: {n} of {len(rows)} classes are others")
        continue
    if stem == "probabilities":
        labels = classes[f"classes.{name}"]
        if target:
            ours = np.array([[float(row[f"score_{target}_{c}"]) for c in labels] for row in predicted])
        else:
            ours = np.array([json.loads(row["probabilities"]) for row in predicted])
    elif own.dtype == np.int64:
        labels = classes[f"classes.probabilities{name.removeprefix('prediction')}"]
        ours = np.array([[c in json.loads(row[name]) for c in labels] for row in predicted], dtype=np.int64)
    else:
        ours = np.array([float(row[name]) for row in predicted]).reshape(-1, 1)
    assert own.shape == ours.shape, (name, own.shape, ours.shape)
    apart = np.abs(own - ours) / np.maximum(1, np.abs(ours))
    apart = float(np.where(np.isfinite(own), apart, np.inf).max())
    worst = max(worst, apart)
    print(f"  {name}: at most {apart:.2e} apart")
size = made.stat().st_size
print(f"{a.model.name}: {len(rows)} rows, {len(checked.graph.node)} nodes, {size} bytes; greatest difference {worst:.2e}, {others} other classes")
sys.exit(int(worst > MOST or others > 0))
