#!/usr/bin/env bash
# MultiModN beside models that read all columns at once, on people whose education and work are missing because of what they
# earn: in training of those who earn more, in test rows as there, of the others, at random, or of nobody (withheld.py).
# Writes OUT (default: modalities-out); what is there is left. Needs python3 with numpy and pyarrow.
#
#   recipes/tables/modalities.sh [OUT]     POLYLOOM: the program, POLYLOOM_DATA: ../shared/data, SEEDS: "1 2 3 4 5", MODELS,
#                                          SHARE: 0.8, PYTHON: python3
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
out=${1:-modalities-out}
poly=${POLYLOOM:-polyloom}
python=${PYTHON:-python3}
export POLYLOOM_DATA=${POLYLOOM_DATA:-$here/../../../shared/data}
seeds=${SEEDS:-1 2 3 4 5}
# last: multimodn that reads what may be missing last.
models=${MODELS:-multimodn last shared_bottom gbdt}
mkdir -p "$out"
[ -e "$out/data" ] || "$python" "$here/withheld.py" "$POLYLOOM_DATA/tabular/adult_census" "$out/data" "${SHARE:-0.8}"
person='person = ["age", "race", "sex", "native_country"], capital = ["capital_gain", "capital_loss"]'
missing='education = ["education", "education_num"], work = ["workclass", "occupation"]'
for seed in $seeds; do
    for model in $models; do
        name=$model-$seed
        how=(--model "$model")
        case $model in
        multimodn) how+=(--set "train.new.modalities={$missing, $person}") ;;
        last) how=(--model multimodn --set "train.new.modalities={$person, $missing}") ;;
        esac
        if [ ! -e "$out/$name" ]; then
            "$poly" train -t "$out/data/task.toml" "${how[@]}" --seed "$seed" -o "$out/$name" --no-sync > "$out/$name.log" 2>&1 ||
                { echo "$name: $(grep error "$out/$name.log")"; continue; }
        fi
        for split in same other random complete; do
            results=$out/$split/$name.json
            mkdir -p "$out/$split"
            [ -e "$results" ] || "$poly" eval "$out/$name" -t "$out/data/task.toml" --split "$split" --name "$name" -o "$results" > /dev/null 2>&1
        done
    done
done
"$python" - "$out" <<'PYTHON'
import glob, json, os, re, statistics as st, sys
out = sys.argv[1]
# Student's t, 97.5 %, by degrees of freedom.
T = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262}
for split in ("same", "other", "random", "complete"):
    runs = {}
    for file in glob.glob(os.path.join(out, split, "*.json")):
        model, seed = re.fullmatch(r"(.*)-(\d+)\.json", os.path.basename(file)).groups()
        tasks = json.load(open(file))["tasks"]
        runs.setdefault(model, {})[seed] = {name.rsplit("/", 1)[-1]: t["value"] for name, t in tasks.items()}
    base = runs.get("shared_bottom", {})
    for model, seeds in sorted(runs.items()):
        for target in sorted(next(iter(seeds.values()))):
            values = [v[target] for v in seeds.values()]
            line = f"{split:9} {target:16} {model:14} n {len(values)} AUC {st.mean(values):.4f}"
            apart = [v[target] - base[s][target] for s, v in seeds.items() if s in base]
            if model != "shared_bottom" and len(apart) > 1:
                half = T[len(apart) - 1] * st.stdev(apart) / len(apart) ** 0.5
                line += f"  less shared_bottom {st.mean(apart):+.4f} ± {half:.4f}"
            print(line)
PYTHON
