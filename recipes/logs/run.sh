#!/usr/bin/env bash
# Architectures of logs on `polyloom tasks synth log`: impressions that are clicked, then put in the cart, then bought, with known
# probabilities. Every model and seed is trained on the same 240,000 impressions and scored on the last 30,000 beside the planted
# probabilities. Writes OUT (default: logs-out); what is there is left. Scores need python3 with numpy and pyarrow.
#
#   recipes/logs/run.sh [OUT]     POLYLOOM: the program, SEEDS: "1 2 3 4 5", MODELS, PYTHON: python3
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
out=${1:-logs-out}
poly=${POLYLOOM:-polyloom}
seeds=${SEEDS:-1 2 3 4 5}
# esmm: shared_bottom over the entire space; clicked: a network for each target, which sees the rows where it exists.
models=${MODELS:-single_task esmm shared_bottom cross_stitch mmoe omoe ple home dtrn dselect_k task_expert aitm gbdt}
mkdir -p "$out"
[ -e "$out/data" ] || "$poly" tasks synth log -o "$out/data"
for seed in $seeds; do
    for model in $models; do
        name=$model-$seed
        [ -e "$out/$name.parquet" ] && continue
        how=(--model "$model")
        [ "$model" = esmm ] && how=(--model shared_bottom --chain entire-space)
        "$poly" train -t "$out/data" "${how[@]}" --seed "$seed" -o "$out/$name" --force --no-sync > "$out/$name.log" 2>&1 ||
            { echo "$name: $(grep error "$out/$name.log")"; continue; }
        "$poly" predict "$out/$name" "$out/data/test.parquet" --id row -o "$out/$name.parquet" > /dev/null 2>&1
    done
done
"${PYTHON:-python3}" "$here/score.py" "$out"
