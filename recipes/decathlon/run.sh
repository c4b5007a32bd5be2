#!/usr/bin/env bash
# The decathlon: ten text tasks on one sentence encoder. Writes OUT (default: decathlon-out); about two hours on two cores.
#
#   recipes/decathlon/run.sh [OUT]          POLYLOOM: the program (default: polyloom), POLYLOOM_DATA: the data folder
#   ROWS (training rows of a task, default 1000), LIMIT (test rows, default 500) and SEEDS (default "1 2 3", of the low-rank
#   experts) make it smaller.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
out=${1:-decathlon-out}
poly=${POLYLOOM:-polyloom}
export POLYLOOM_DATA=${POLYLOOM_DATA:-$here/../../../shared/data}
base=$here/../../../shared/models/all-MiniLM-L6-v2
tasks=$(paste -sd, "$here/tasks.txt")
rows=${ROWS:-1000}
limit=${LIMIT:-500}
seeds=${SEEDS:-1 2 3}
mkdir -p "$out/results"

train() { "$poly" train "$here/$1.toml" -L "$rows" -o "$2" --resume "${@:3}"; } # recipe, folder, flags; what is there is left
train full "$out/full"
train joint "$out/joint"
for seed in $seeds; do train lora "$out/lora-$seed" --seed "$seed"; done

heads=$out/heads
mkdir -p "$heads"
while read -r task; do
    mkdir -p "$heads/$(dirname "$task")"
    cp "$out/full/$task/heads/$task.safetensors" "$heads/$task.safetensors"
done < "$here/tasks.txt"
experts=(); adapters=()
while read -r task; do experts+=("$out/full/$task"); adapters+=("$out/lora-${seeds%% *}/$task"); done < "$here/tasks.txt"

merge() { # name, flags
    [ -e "$out/merged/$1" ] || "$poly" merge --base "$base" "${experts[@]}" "${@:2}" -o "$out/merged/$1"
}
merge average --method linear
merge task_arithmetic-0.2 --method task_arithmetic --shared lambda=0.2
merge task_arithmetic-0.3 --method task_arithmetic --shared lambda=0.3
merge task_arithmetic-0.4 --method task_arithmetic --shared lambda=0.4
merge ties --method ties_reference --shared density=0.2 --shared lambda=1.0
merge breadcrumbs --method breadcrumbs_reference --shared lambda=0.3
merge pcb --method pcb --shared ratio=0.1 --shared lambda=1.2
merge consensus --method consensus --shared lambda=0.3
merge lines --method lines --shared beta=0.4
merge magmax --method magmax --shared lambda=0.5
merge iso_c --method iso_c
merge tsv_m --method tsv_m --shared 'exclude=["embeddings"]'
merge dare --method dare_linear --each density=0.5 --each weight=0.3
merge della --method della_linear --each density=0.5 --each weight=0.3

combine() { # name, flags
    [ -e "$out/combined/$1" ] || "$poly" adapt combine "${adapters[@]}" "${@:2}" -o "$out/combined/$1"
}
weights=$(printf '0.3,%.0s' "${adapters[@]}"); weights=${weights%,}
combine cat --combination cat --weights "$weights"
combine linear --combination linear --weights "$weights"
combine ties --combination ties --density 0.5 --weights "$weights"
combine svd --combination svd --weights "$weights" --rank 16

"$poly" eval "$base" "$out/joint" "$out"/merged/* "$out"/combined/* -t "$tasks" --heads "$heads" --base "$base" -L "$limit" --max-length 64 -o "$out/results/"
# Experts are scored on their own task; the files of one kind are one system of the board.
own=()
for kind in full $(for s in $seeds; do echo "lora-$s"; done); do
    while read -r task; do
        file=$out/own/$kind/$(basename "$task").json
        "$poly" eval "$out/$kind/$task" -t "$task" --base "$base" -L "$limit" --max-length 64 --name "$kind" -o "$file"
        own+=("$kind=$file")
    done < "$here/tasks.txt"
done
"$poly" board "$out"/results/*.json "${own[@]}" --aggregate win_rate,mean_rank,bt --format md | tee "$out/board.md"
"$poly" report "$out"/results/*.json "${own[@]}" -o "$out/report.html" --baseline all-MiniLM-L6-v2 --force
