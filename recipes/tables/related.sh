#!/usr/bin/env bash
# Tables of eight targets of chosen relatedness (`polyloom tasks synth multitab`: polynomials of degrees 1, 2, 3 of 32 normal
# numbers, whose weights have a pairwise cosine C; the best R2 is 0.8): MultiTab-Net beside a network for each target, shared ones
# and trees, learned from many rows and from few, scored on the same 2,000. Writes OUT (default: related-out); what is there is left.
#
#   recipes/tables/related.sh [OUT]     POLYLOOM: the program, SEEDS: "1 2 3", COSINES: "0 0.5 0.95", ROWS: "16000 800",
#                                       MODELS: "single_task shared_bottom mmoe multitab gbdt"
set -euo pipefail
out=${1:-related-out}
poly=${POLYLOOM:-polyloom}
mkdir -p "$out/results"
for rows in ${ROWS:-16000 800}; do
    for cosine in ${COSINES:-0 0.5 0.95}; do
        data=$out/data-$cosine
        [ -e "$data" ] || "$poly" tasks synth multitab --correlation "$cosine" -o "$data" > /dev/null
        for seed in ${SEEDS:-1 2 3}; do
            for model in ${MODELS:-single_task shared_bottom mmoe multitab gbdt}; do
                # Trees draw nothing.
                [ "$model" = gbdt ] && [ "$seed" != 1 ] && continue
                name=$model,$rows,$cosine,$seed
                [ -e "$out/results/$name.json" ] && continue
                "$poly" train -t "$data" --model "$model" -L "$rows" --seed "$seed" -o "$out/$name" --force --no-sync > "$out/$name.log" 2>&1
                "$poly" eval "$out/$name" -t "$data" --name "$name" -o "$out/results/$name.json" > /dev/null
            done
        done
    done
done
"${PYTHON:-python3}" - "$out" << 'PYTHON'
import glob, json, os, statistics as st, sys
found = {}
for file in glob.glob(os.path.join(sys.argv[1], "results", "*.json")):
    model, rows, cosine, seed = os.path.basename(file)[:-5].split(",")
    tasks = json.load(open(file))["tasks"]
    found.setdefault((int(rows), float(cosine)), {}).setdefault(model, {})[seed] = st.mean(t["value"] for t in tasks.values())
t = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776}
for (rows, cosine), models in sorted(found.items(), reverse=True):
    print(f"{rows} rows, cosine {cosine}")
    base = models.get("single_task", {})
    for model, runs in models.items():
        both = [runs[s] - base[s] for s in runs if s in base]
        said = ""
        if len(both) > 1 and model != "single_task":
            said = f"   less single_task {st.mean(both):+.4f} ± {t[len(both)] * st.stdev(both) / len(both) ** 0.5:.4f}"
        print(f"    {model:14} {st.mean(runs.values()):.4f} ({len(runs)}){said}")
PYTHON
