#!/usr/bin/env bash
# Five answers to generated scenes: one trunk for all of them beside a model for each, scored on 1,000 test scenes.
# Writes OUT (default: shapes-out); what is there is left.
#
#   recipes/shapes/run.sh [OUT]     POLYLOOM: the program, SEEDS: "1 2 3", TASKS: "all segmentation depth normals edges label",
#                                   SET: more --set of train, such as "--set train.epochs=4"
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
out=${1:-shapes-out}
poly=${POLYLOOM:-polyloom}
mkdir -p "$out"
for seed in ${SEEDS:-1 2 3}; do
    for task in ${TASKS:-all segmentation depth normals edges label}; do
        name=$task-$seed
        [ -e "$out/$name.json" ] && continue
        # shellcheck disable=SC2086
        "$poly" train "$here/joint.toml" -t "$here/$task.task.toml" --seed "$seed" ${SET:-} -o "$out/$name" --force --no-sync > "$out/$name.log" 2>&1
        "$poly" eval "$out/$name" -t "$here/$task.task.toml" --name "$name" -o "$out/$name.json" > "$out/$name.txt"
    done
done
for file in "$out"/*.txt; do
    echo "== $(basename "$file" .txt)"
    cat "$file"
done
