#!/usr/bin/env bash
# Two differential equations over sources and geometries: one operator network for both (MT-DeepONet) beside one for each and a
# vision transformer; scored on 500 test rows of the four kinds of geometries that were learned, and on 500 of one that was not
# (triangles). Writes OUT (default: operators-out); what is there is left.
#
#   recipes/operators/run.sh [OUT]     POLYLOOM: the program, SEEDS: "1 2 3", ARMS: "both poisson screened vit",
#                                      SET: more --set of train, such as "--set train.epochs=4"
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
out=${1:-operators-out}
poly=${POLYLOOM:-polyloom}
mkdir -p "$out"
for seed in ${SEEDS:-1 2 3}; do
    for arm in ${ARMS:-both poisson screened vit}; do
        recipe=joint task=$arm
        [ "$arm" = vit ] && recipe=vit task=both
        name=$arm-$seed
        # shellcheck disable=SC2086
        [ -e "$out/$name" ] || "$poly" train "$here/$recipe.toml" -t "$here/$task.task.toml" --seed "$seed" ${SET:-} -o "$out/$name" --force --no-sync > "$out/$name.log" 2>&1
        [ -e "$out/$name.json" ] || "$poly" eval "$out/$name" -t "$here/$task.task.toml" --name "$name" -o "$out/$name.json" > "$out/$name.txt"
        # Heads go by the task's id: the unseen rows are those of a task of the same id.
        [ -e "$out/$name-unseen.json" ] || "$poly" eval "$out/$name" -t "$here/unseen/$task.task.toml" --name "$name-unseen" -o "$out/$name-unseen.json" > "$out/$name-unseen.txt"
    done
done
for file in "$out"/*.txt; do
    echo "== $(basename "$file" .txt)"
    cat "$file"
done
