#!/usr/bin/env bash
# Joint models of tables beside single-task twins and boosted trees: every model, task and seed trained, scored on test rows.
# Writes OUT (default: tables-out); what is there is left.
#
#   recipes/tables/run.sh [OUT]     POLYLOOM: the program, POLYLOOM_DATA: ../shared/data, SEEDS: "1 2 3 4 5", TASKS, MODELS,
#                                   GOALS: "groups" for a goal for each group
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
out=${1:-tables-out}
poly=${POLYLOOM:-polyloom}
export POLYLOOM_DATA=${POLYLOOM_DATA:-$here/../../../shared/data}
seeds=${SEEDS:-1 2 3 4 5}
goals=${GOALS:-targets}
# Several targets on the same rows; then one target whose groups are tasks (the group is a column of words there).
tasks=${TASKS:-adult_census energy_efficiency oes10 bank_marketing parkinsons school landmine}
models=${MODELS:-single_task shared_bottom mmoe ple cross_stitch gbdt gbdt_shared}
mkdir -p "$out"
for task in $tasks; do
    for model in $models; do
        for seed in $seeds; do
            name=$model-$seed
            results=$out/$task/$name.json
            [ -e "$results" ] && continue
            mkdir -p "$out/$task"
            "$poly" train -t "tabular/$task" --model "$model" --goals "$goals" --seed "$seed" -o "$out/$task/$name" --force --no-sync > "$out/$task/$name.log" 2>&1 ||
                { echo "$task $name: $(grep error "$out/$task/$name.log")"; continue; }
            "$poly" eval "$out/$task/$name" -t "tabular/$task" --name "$name" -o "$results" > /dev/null 2>&1
        done
    done
done
python3 - "$out" <<'PYTHON'
import glob, json, os, statistics as st, sys
out = sys.argv[1]
for folder in sorted(glob.glob(os.path.join(out, "*/"))):
    runs = {}
    for file in glob.glob(os.path.join(folder, "*.json")):
        model, seed = os.path.basename(file)[:-5].rsplit("-", 1)
        tasks = json.load(open(file))["tasks"]
        runs.setdefault(model, {})[seed] = st.mean(t["value"] for t in tasks.values())
    base = runs.get("single_task", {})
    for model, seeds in sorted(runs.items()):
        values = list(seeds.values())
        apart = [v - base[s] for s, v in seeds.items() if s in base]
        spread = st.stdev(values) if len(values) > 1 else 0.0
        line = f"{os.path.basename(folder[:-1]):20} {model:14} n {len(values)} mean {st.mean(values):.4f} sd {spread:.4f}"
        if apart and model != "single_task":
            error = st.stdev(apart) / len(apart) ** 0.5 if len(apart) > 1 else float("nan")
            line += f"  against single_task {st.mean(apart):+.4f} (standard error {error:.4f})"
        print(line)
PYTHON
