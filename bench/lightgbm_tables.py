#!/usr/bin/env python3
"""LightGBM on the seven tables of docs/results/joint-tables.md, scored by `polyloom eval`.

    python3 bench/lightgbm_tables.py OUT [--tasks school ...] [--binary polyloom]

A model for each target on the columns that the task names (words and the group as categorical features), and, of tables with
groups, also a model for each group on its own rows. Rounds at a rate of 0.05 until 30 in a row are no better on the validation
rows, 1,000 at most, all else LightGBM's defaults, seed 1, deterministic: what `gbdt` does here. Predictions of the test rows go
to OUT/TASK/lightgbm[-groups].csv, their scores to .json beside it, ready for `polyloom compare` with any other results. Needs
lightgbm, numpy and pyarrow; POLYLOOM_DATA (../shared/data) is where the tables lie.
"""
import argparse
import json
import os
import pathlib
import subprocess

import lightgbm
import numpy as np
import pyarrow.parquet as parquet

ap = argparse.ArgumentParser(usage=__doc__)
ap.add_argument("out", type=pathlib.Path)
names = "adult_census energy_efficiency oes10 bank_marketing parkinsons school landmine".split()
ap.add_argument("--tasks", nargs="+", default=names)
ap.add_argument("--binary", default="polyloom")
ap.add_argument("--threads", type=int, default=2)
a = ap.parse_args()
root = pathlib.Path(__file__).resolve().parents[1]
data = pathlib.Path(os.environ.setdefault("POLYLOOM_DATA", str(root.parent / "shared" / "data")))


def columns(task):
    spec = json.loads((data / "tabular" / task / "task.json").read_text())
    tables = [parquet.read_table(data / "tabular" / task / f"{s}.parquet").to_pydict() for s in ("train", "validation", "test")]
    group = spec.get("group_column")
    words = spec["features"]["categorical"] + ([group] if group else [])
    features, codes = spec["features"]["numeric"] + words, {}
    for name in words:
        seen = sorted({str(x) for x in tables[0][name] if x is not None})
        codes[name] = {x: i for i, x in enumerate(seen)}
    def column(table, name):
        if name in codes:
            return [codes[name].get(str(x), np.nan) for x in table[name]]
        return [np.nan if x is None else float(x) for x in table[name]]
    x = [np.array([column(t, f) for f in features], dtype=np.float64).T for t in tables]
    return spec, tables, x, [len(features) - len(words) + i for i in range(len(words))], group


def fitted(x, y, words, classes):
    objective = "binary" if classes == 2 else "multiclass" if classes else "regression"
    given = {"objective": objective, "learning_rate": 0.05, "seed": 1, "deterministic": True, "verbose": -1, "num_threads": a.threads}
    if classes > 2:
        given["num_class"] = classes
    train = lightgbm.Dataset(x[0], y[0], categorical_feature=words, free_raw_data=False)
    if len(y[1]) == 0:
        return lightgbm.train(given, train, 1)
    held = lightgbm.Dataset(x[1], y[1], reference=train, categorical_feature=words)
    return lightgbm.train(given, train, 1000, [held], callbacks=[lightgbm.early_stopping(30, verbose=False)])


def answers(x, y, words, rows, classes):
    """Predictions of the test rows by one model, or of every group's rows by its own."""
    said = np.zeros(len(x[2]))
    for train, held, test in rows:
        labels = y[0][train]
        if classes and len(set(labels)) < 2 or len(labels) < 2:
            said[test] = labels.mean() if len(labels) else y[0].mean()
            continue
        model = fitted([x[0][train], x[1][held]], [labels, y[1][held]], words, classes)
        said[test] = model.predict(x[2][test])
    return said


for task in a.tasks:
    spec, tables, x, words, group = columns(task)
    all_rows = [[np.ones(len(t), bool) for t in x]]
    kinds = {"lightgbm": all_rows}
    if group:
        values = [np.array([str(g) for g in t[group]]) for t in tables]
        kinds["lightgbm-groups"] = [[v == g for v in values] for g in sorted(set(values[2]))]
    for kind, rows in kinds.items():
        folder = a.out / task
        folder.mkdir(parents=True, exist_ok=True)
        found = {"id": [str(i) for i in range(len(x[2]))]}
        for target in spec["targets"]:
            name, column = target["column"], target["column"]
            y = [np.array(t[column]) for t in tables]
            classes = 0
            if target["kind"] == "binary":
                labels = sorted(set(y[0].tolist()))
                y = [np.array([labels.index(v) for v in part.tolist()]) for part in y]
                classes = len(labels)
            said = answers(x, y, words, rows, classes)
            tail = f"_{name}" if len(spec["targets"]) > 1 else ""
            if classes:
                found[f"prediction{tail}"] = [labels[int(p > 0.5)] for p in said]
                found[f"score{tail}_{labels[0]}"], found[f"score{tail}_{labels[1]}"] = 1 - said, said
            else:
                found[f"prediction{tail}"] = said
        file = folder / f"{kind}.csv"
        with open(file, "w") as out:
            out.write(",".join(found) + "\n")
            for row in zip(*found.values()):
                out.write(",".join(repr(float(v)) if isinstance(v, float) else str(v) for v in row) + "\n")
        results = file.with_suffix(".json")
        command = [a.binary, "eval", "--predictions", file, "-t", f"tabular/{task}", "--name", kind, "-o", results, "--force"]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"{task} {kind}: {done.stderr}")
        scores = [t["value"] for t in json.loads(results.read_text())["tasks"].values()]
        print(f"{task:20} {kind:16} mean of {len(scores)} {np.mean(scores):.4f}", flush=True)
