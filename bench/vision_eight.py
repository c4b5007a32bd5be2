#!/usr/bin/env python3
"""Merges the experts of vision-eight by every training-free method at the settings of that folder's reference table and
scores the results with the independent judge.

    python3 bench/vision_eight.py ../shared out target/release/polyloom > docs/results/vision-eight.md

Needs the judge's packages (torch, transformers, safetensors, pyarrow, numpy). The free number of each method is the one
that the reference table chose on validation images; nothing is chosen on test images here.
"""
import json
import pathlib
import subprocess
import sys

shared, out, polyloom = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), sys.argv[3]
models = shared / "models" / "vision-eight"
tasks = [p.name for p in sorted((models / "experts").iterdir()) if not p.name.startswith("_")]
experts = [str(models / "experts" / t) for t in tasks]

# name, method, flags, mean accuracy of the reference table
RUNS = [
    ("average", "linear", [], 0.7123),
    ("task_arithmetic 0.6", "task_arithmetic", ["--each", "weight=0.6"], 0.7351),
    ("ties_reference mean, lambda 1.2", "ties_reference", ["--shared", "lambda=1.2"], 0.7328),
    ("ties_reference sum, lambda 0.6", "ties_reference", ["--shared", "reduce=sum", "--shared", "lambda=0.6"], 0.7270),
    ("ties density 0.2, lambda 1.8", "ties", ["--each", "density=0.2", "--shared", "lambda=1.8"], 0.7331),
    ("breadcrumbs 0.8/0.01, lambda 0.7", "breadcrumbs", ["--each", "density=0.8", "--shared", "lambda=0.7"], 0.7252),
    ("breadcrumbs_reference 0.2/0.006, lambda 1", "breadcrumbs_reference", ["--shared", "density=0.2", "--shared", "gamma=0.006", "--shared", "lambda=1"], 0.7291),
    ("pcb 0.1, lambda 1.2", "pcb", ["--shared", "lambda=1.2"], 0.7270),
    ("pcb_vision 0.1, weight 1.2", "pcb_vision", ["--shared", "ratio=0.1", "--each", "weight=1.2"], 0.7236),
    ("consensus on task arithmetic, lambda 0.5", "consensus", ["--shared", "lambda=0.5", "--each", "mask_lambda=0.2,0.5,0.6,0.3,0.2,0.5,0.2,0.2"], 0.7315),
    ("LiNeS on task arithmetic, beta 0.8", "task_arithmetic", ["--post", "lines:alpha=0.125,beta=0.8"], 0.7085),
    ("iso_c 1.5", "iso_c", ["--shared", "lambda=1.5"], 0.7229),
    ("tsv_m 1", "tsv_m", [], 0.7209),
    ("emr (task known)", "emr", None, 0.7416),
    ("tall on task arithmetic (task known)", "tall", "masks", 0.7527),
]
LAMBDAS = dict(zip(tasks, [0.2, 0.5, 0.6, 0.3, 0.2, 0.5, 0.2, 0.2]))


def merge(name, method, flags, target):
    base = [] if method == "linear" else ["--base", str(models / "base")]
    command = [polyloom, "merge", *base, *experts, "--method", method, *flags, "-o", str(target), "--force", "-q", "--no-sync", "--out-dtype", "f16"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return " ".join(flags)


def judge(pattern):
    command = [sys.executable, str(shared / "bench" / "judge.py"), "--family", "vision", "--model", pattern, "--json"]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def mean_of(result):
    for key in ("mean", "mean_accuracy"):
        if key in result:
            value = result[key]
            return value["accuracy"] if isinstance(value, dict) else value
    values = [t["accuracy"] for t in result["tasks"].values()] if isinstance(result["tasks"], dict) else [t["accuracy"] for t in result["tasks"]]
    return sum(values) / len(values)


def accuracies(result):
    tasks = result["tasks"]
    return {k: v["accuracy"] for k, v in tasks.items()} if isinstance(tasks, dict) else {t.get("task", t.get("name")): t["accuracy"] for t in tasks}


print("# vision-eight: merged by Polyloom, scored by an independent judge\n")
print("Test accuracy of one vision transformer made from eight experts (1,965 images; 95 % half-width of a mean about 0.024, paired differences below 0.01 mean little).")
print("Free numbers are those that the reference table of the models' folder chose on validation images. Column `reference`: that table.\n")
print("| method | " + " | ".join(t.replace("omniglot_", "").replace("_900", "") for t in tasks) + " | mean | reference | difference |")
print("|---|" + "---|" * (len(tasks) + 3))
for name, method, flags, reference in RUNS:
    folder = out / name.replace(" ", "_").replace("/", "-").replace(",", "")
    if flags is None or flags == "masks":
        for task in tasks:
            extra = ["--shared", f"task={task}"]
            if flags == "masks":
                extra += ["--each", f"mask_lambda={','.join(str(LAMBDAS[t]) for t in tasks)}"]
            merge(name, method, extra, folder / task)
        result = judge(str(folder / "{task}"))
    else:
        merge(name, method, flags, folder)
        result = judge(str(folder))
    per = accuracies(result)
    mean = mean_of(result)
    print(f"| {name} | " + " | ".join(f"{per[t]:.3f}" for t in tasks) + f" | **{mean:.4f}** | {reference:.4f} | {mean - reference:+.4f} |", flush=True)
