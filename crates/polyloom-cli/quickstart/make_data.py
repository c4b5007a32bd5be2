#!/usr/bin/env python3
"""Cuts the quickstart's data out of larger sets: rows spread evenly over each split, compressed.

    python make_data.py FOLDER/vision .        (needs pyarrow)
"""
import os
import sys

import pyarrow.parquet as pq

# rows of train, validation, test; None for all
ROWS = {
    "digits": (600, 100, 250),
    "sign_digits": (480, 80, 200),
    "fashion_mnist_900": (500, 100, 250),
    "omniglot_greek": (None, None, None),
    "omniglot_latin": (None, None, None),
    "omniglot_japanese_katakana": (None, None, None),
    "omniglot_korean": (None, None, None),
}


def spread(n, most):
    most = n if most is None else min(n, most)
    return [i for i in range(n) if (i + 1) * most // n != i * most // n]


source, target = sys.argv[1:]
for task, rows in ROWS.items():
    os.makedirs(f"{target}/data/{task}", exist_ok=True)
    for split, most in zip(("train", "validation", "test"), rows):
        table = pq.read_table(f"{source}/{task}/{split}.parquet")
        table = table.take(spread(len(table), most)).select(["id", "image", "label"])
        file = f"{target}/data/{task}/{split}.parquet"
        pq.write_table(table, file, compression="zstd", compression_level=19, use_dictionary=False, store_schema=False)
        print(f"{file}: {len(table)} rows, {os.path.getsize(file)} bytes")

# Specs: those of the catalogue, beside the data; `half.toml` has the classes of even number alone.
here = os.path.dirname(os.path.abspath(__file__))
for task in ROWS:
    with open(f"{here}/../../../tasks/vision/{task}.toml", encoding="utf-8") as f:
        text = f.read()
    text = text[: text.index("[expert]")].rstrip() + "\n"
    text = text.replace(f'id = "vision/{task}"', f'id = "{task}"').replace(f'root = "vision/{task}"', 'root = "."')
    with open(f"{target}/data/{task}/task.toml", "w", encoding="utf-8") as f:
        f.write(text)
    classes = pq.read_table(f"{target}/data/{task}/train.parquet")["label"].to_pylist()
    odd = ", ".join(str(c) for c in sorted(set(classes)) if c % 2)
    half = text.replace(f'id = "{task}"', f'id = "{task}_half"').replace("[labels]\n", f"[labels]\nignore = [{odd}]\n")
    with open(f"{target}/data/{task}/half.toml", "w", encoding="utf-8") as f:
        f.write(half)
