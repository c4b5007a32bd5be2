#!/usr/bin/env python3
"""Two tasks of the same texts as one with two targets: usage joined.py DATA OUT, with DATA/text as ../shared/data has it.

trec: six kinds of answers and fifty; sst: five grades, and the two poles where a sentence has one. OUT/NAME holds Parquet files of
the splits and task.toml.
"""
import json
import os
import sys

import pyarrow as pa
import pyarrow.parquet as parquet

data, out = sys.argv[1:3]
pairs = {"trec": [("coarse", "trec6"), ("fine", "trec50")], "sst": [("grade", "sst5"), ("pole", "sst2")]}
for name, targets in pairs.items():
    folder = os.path.join(out, name)
    os.makedirs(folder, exist_ok=True)
    for split in ["train", "validation", "test"]:
        rows = [parquet.read_table(os.path.join(data, "text", task, f"{split}.parquet")).to_pylist() for _, task in targets]
        second = {row["text"]: row["label"] for row in rows[1]}
        joined = [
            {"id": i, "text": row["text"], targets[0][0]: row["label"], targets[1][0]: second.get(row["text"])}
            for i, row in enumerate(rows[0])
        ]
        parquet.write_table(pa.Table.from_pylist(joined), os.path.join(folder, f"{split}.parquet"))
    with open(os.path.join(folder, "task.toml"), "w") as spec:
        spec.write(f'schema = "polyloom.task/1"\nid = "{name}"\n[source]\nkind = "parquet"\n')
        for split in ["train", "validation", "test"]:
            spec.write(f'[splits.{split}]\nfile = "{split}.parquet"\n')
        spec.write('[fields]\nid = "id"\ninput = "text"\n[modality]\ninput = ["text"]\noutput = "text"\n')
        for target, task in targets:
            labels = json.load(open(os.path.join(data, "text", task, "task.json")))["labels"]
            metric = "accuracy" if len(labels) < 10 else "macro_f1"
            spec.write(f'[[targets]]\nname = "{target}"\ncolumn = "{target}"\ntype = "classification"\nlabels = {json.dumps(labels)}\n')
            spec.write(f'metrics = [{{ name = "{metric}", primary = true }}]\n')
