#!/usr/bin/env bash
# One transformer learned at several widths, and what five budgets and three preferences take out of it, scored on 1,000 test
# scenes. Forms are judged by their scores on validation scenes.
# Writes OUT (default: shapes-slim-out); what is there is left.
#
#   recipes/shapes/slim.sh [OUT]     POLYLOOM: the program, SEEDS: "1", BUDGETS: "15% 25% 40% 65% 100%",
#                                    PREFER: "none segmentation=8 normals=8", BY: "scores" (or "losses")
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
out=${1:-shapes-slim-out}
poly=${POLYLOOM:-polyloom}
mkdir -p "$out"
for seed in ${SEEDS:-1}; do
    model=$out/slim-$seed
    [ -e "$model" ] || "$poly" train "$here/slim.toml" --seed "$seed" -o "$model" --no-sync > "$model.log" 2>&1
    for budget in ${BUDGETS:-15% 25% 40% 65% 100%}; do
        for prefer in ${PREFER:-none segmentation=8 normals=8}; do
            name=slim-$seed-${budget%\%}-${prefer//[=,]/_}
            [ -e "$out/$name.json" ] && continue
            how=()
            [ "$prefer" = none ] || for one in ${prefer//,/ }; do how+=(--prefer "$one"); done
            "$poly" compress slim "$model" --budget "$budget" -t "$here/all.task.toml" "${how[@]}" --by "${BY:-scores}" -o "$out/$name" --force --no-sync > "$out/$name.txt" 2>&1
            "$poly" eval "$out/$name" -t "$here/all.task.toml" --name "$name" -o "$out/$name.json" >> "$out/$name.txt"
        done
    done
done
for file in "$out"/slim-*.txt; do
    echo "== $(basename "$file" .txt)"
    cat "$file"
done
