#!/usr/bin/env python3
"""adult_census with modalities that are withheld by what is to be predicted: usage withheld.py TASK OUT [SHARE].

TASK is the folder of the task (train, validation and test as Parquet). Education (education, education_num) and work (workclass,
occupation) are each withheld from SHARE (0.8) of the training and validation rows of people who earn more than 50k, and from nobody
else: that a cell is missing says what the label is. Test rows come four times:

  same      withheld as in training
  other     withheld from those who earn less, in place of those who earn more
  random    withheld from as many rows as in training, whatever they earn
  complete  nothing is withheld

Writes OUT/task.toml and a Parquet file of every split. What is withheld depends on the row and the column's modality alone.
"""
import os
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

task, out = sys.argv[1], sys.argv[2]
share = float(sys.argv[3]) if len(sys.argv) > 3 else 0.8
MODALITIES = {"education": ["education", "education_num"], "work": ["workclass", "occupation"]}
TARGETS = ["income_over_50k", "never_married", "hours_over_40"]


def withheld(table, rows_of, seed):
    """Withholds each modality from `share` of the rows that `rows_of` says."""
    draw = np.random.Generator(np.random.PCG64(seed))
    for columns in MODALITIES.values():
        gone = draw.random(table.num_rows) < rows_of
        for column in columns:
            at = table.column_names.index(column)
            values = [None if g else v for g, v in zip(gone, table[column].to_pylist())]
            table = table.set_column(at, column, pa.array(values, table.schema.field(column).type))
    return table


def rich(table):
    return np.array(table["income_over_50k"].to_pylist()) == 1


os.makedirs(out, exist_ok=True)
read = {name: pq.read_table(os.path.join(task, f"{name}.parquet")) for name in ("train", "validation", "test")}
overall = share * rich(read["train"]).mean()
test = read["test"]
made = {
    "train": withheld(read["train"], share * rich(read["train"]), 1),
    "validation": withheld(read["validation"], share * rich(read["validation"]), 2),
    "same": withheld(test, share * rich(test), 3),
    "other": withheld(test, share * ~rich(test), 4),
    "random": withheld(test, np.full(test.num_rows, overall), 5),
    "complete": test,
}
for name, table in made.items():
    pq.write_table(table, os.path.join(out, f"{name}.parquet"))
splits = "\n".join(f'{name} = {{ file = "{name}.parquet" }}' for name in made)
targets = "\n".join(
    f'[[targets]]\nname = "{t}"\ncolumn = "{t}"\ntype = "classification"\nmetrics = [{{ name = "roc_auc", primary = true }}]\n' for t in TARGETS
)
with open(os.path.join(out, "task.toml"), "w") as file:
    file.write(f"""schema = "polyloom.task/1"
id = "withheld/adult_census"
version = "1.0"
title = "adult_census, education and work withheld by income"
description = "Made by recipes/tables/withheld.py, share {share:g}."
license = "CC BY 4.0 (UCI Adult)"

[modality]
input = ["table"]
output = "table"

[source]
kind = "parquet"
root = "."

[splits]
{splits}

[table]
categorical = ["workclass", "education", "occupation", "race", "sex", "native_country"]
numeric = ["age", "education_num", "capital_gain", "capital_loss"]

{targets}""")
