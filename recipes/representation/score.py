#!/usr/bin/env python3
"""Means over seeds of what run.sh leaves in OUT, and differences to `equal` seed by seed (95 %, Student's t): usage score.py OUT."""
import glob
import json
import os
import statistics as st
import sys

folder = os.path.join(sys.argv[1], "results")
T = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776}
found = {}
for file in glob.glob(os.path.join(folder, "*.json")):
    task, arm, seed = os.path.basename(file)[:-5].split(",")
    seed, *alone = seed.split("-")
    run = found.setdefault(task, {}).setdefault(arm, {}).setdefault(seed, {})
    for name, said in json.load(open(file))["tasks"].items():
        run[name.split("/")[-1] if "/" in name else alone[0]] = said["value"]
    if alone:
        continue
    name = os.path.join(folder, f"{task},{arm},{seed}")
    run["sharpness"] = next(json.loads(l)["mean"] for l in open(name + ".sharp") if '"done"' in l)
    run["seconds"] = float(open(name + ".seconds").read().split()[0])
for task, arms in found.items():
    print(task)
    base = arms.get("equal", {})
    for arm, runs in sorted(arms.items()):
        print(f"  {arm} ({len(runs)})")
        for key in next(iter(runs.values())):
            values = {s: r[key] for s, r in runs.items() if key in r}
            apart = [v - base[s][key] for s, v in values.items() if key in base.get(s, {})]
            said = ""
            if arm != "equal" and len(apart) > 1:
                said = f"  {st.mean(apart):+.4f} ± {T[len(apart)] * st.stdev(apart) / len(apart) ** 0.5:.4f}"
            print(f"    {key:10} {st.mean(values.values()):.4f}{said}")
