#!/usr/bin/env bash
# The decathlon: ten text tasks on one sentence encoder. Writes OUT (default: decathlon-out).
#
#   recipes/decathlon/run.sh [OUT]          POLYLOOM: the program (default: polyloom), POLYLOOM_DATA: the data folder
#   ROWS (training rows of a task, default 1000), LIMIT (test rows, default 500) and SEEDS (default "1 2 3") make it smaller.
#
# What is there is left: an interrupted run goes on with the same command.
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
mkdir -p "$out"

score() { "$poly" eval "$@" --base "$base" -L "$limit" --max-length 64; }

one() { # seed: everything of it, and the files of its board
    local seed=$1 kind task name pair experts=() adapters=() files=()
    for kind in full lora joint; do # merges are cheap once experts are there; the rest has one seed
        [ "$kind" = full ] || [ "$seed" = "${seeds%% *}" ] || continue
        "$poly" train "$here/$kind.toml" -L "$rows" --seed "$seed" -o "$out/$kind-$seed" --resume
    done
    local heads=$out/heads-$seed merged=$out/merged-$seed combined=$out/combined-$seed results=$out/results-$seed
    mkdir -p "$heads" "$results"
    while read -r task; do
        mkdir -p "$heads/$(dirname "$task")"
        cp "$out/full-$seed/$task/heads/$task.safetensors" "$heads/$task.safetensors"
        experts+=("$out/full-$seed/$task")
        [ ! -e "$out/lora-$seed" ] || adapters+=("$out/lora-$seed/$task")
    done < "$here/tasks.txt"

    merge() { # name, flags
        [ -e "$merged/$1" ] || "$poly" merge --base "$base" "${experts[@]}" "${@:2}" -o "$merged/$1"
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
        [ -e "$combined/lora-$1" ] || "$poly" adapt combine "${adapters[@]}" "${@:2}" -o "$combined/lora-$1"
    }
    if [ ${#adapters[@]} -gt 0 ]; then
        local weights
        weights=$(printf '0.3,%.0s' "${adapters[@]}"); weights=${weights%,}
        combine cat --combination cat --weights "$weights"
        combine linear --combination linear --weights "$weights"
        combine ties --combination ties --density 0.5 --weights "$weights"
        combine svd --combination svd --weights "$weights" --rank 16
        score "$combined"/* -t "$tasks" --heads "$heads" -o "$results/"
    fi

    score "$base" -t "$tasks" --heads "$heads" --name base -o "$results/base.json"
    [ ! -e "$out/joint-$seed" ] || score "$out/joint-$seed" -t "$tasks" --name joint -o "$results/joint.json"
    score "$merged"/* -t "$tasks" --heads "$heads" -o "$results/"
    files=("$results"/*.json)
    # Experts are scored on their own task; the files of one kind are one system of the board.
    for kind in full lora; do
        [ -e "$out/$kind-$seed" ] || continue
        name=$([ "$kind" = full ] && echo experts || echo lora-experts)
        while read -r task; do
            local file=$out/own-$seed/$kind/$(basename "$task").json
            score "$out/$kind-$seed/$task" -t "$task" --name "$name" -o "$file"
            files+=("$name=$file")
        done < "$here/tasks.txt"
    done
    "$poly" board "${files[@]}" --aggregate mean,win_rate,bt --format md --top 0 > "$out/board-$seed.md"
    "$poly" board "${files[@]}" --aggregate mean,win_rate --format csv --show cells --top 0 > "$out/board-$seed.csv"
    "$poly" report "${files[@]}" -o "$out/report-$seed.html" --baseline task_arithmetic-0.3 --force
    # Is it better? Paired over the same rows, every task with the same weight.
    for pair in base:average average:task_arithmetic-0.3 task_arithmetic-0.3:{task_arithmetic-0.2,task_arithmetic-0.4,ties,breadcrumbs,pcb,consensus,lines,magmax,iso_c,tsv_m,dare,della,joint}; do
        [ -e "$results/${pair#*:}.json" ] || continue
        "$poly" compare "$results/${pair%:*}.json" "$results/${pair#*:}.json" --json |
            sed -n "/\"type\":\"overall\"/s|^{|{\"pair\":\"$pair\",\"seed\":$seed,|p"
    done > "$out/pairs-$seed.jsonl"
}
for seed in $seeds; do one "$seed"; done

# Means over the seeds, with the lowest and the highest.
files=(); for seed in $seeds; do files+=("$out/board-$seed.csv"); done
"$here/../means.sh" "${files[@]}" | tee "$out/means.csv"
