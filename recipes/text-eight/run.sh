#!/usr/bin/env bash
# Eight text tasks whose experts get in each other's way: heads of the base, experts, task arithmetic chosen on validation
# rows, AdaMerging. Writes OUT (default: text-eight-out).
#
#   recipes/text-eight/run.sh [OUT]          POLYLOOM: the program (default: polyloom), POLYLOOM_SHARED: ../shared
#
# What is there is left: an interrupted run goes on with the same command.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
out=${1:-text-eight-out}
poly=${POLYLOOM:-polyloom}
export POLYLOOM_SHARED=${POLYLOOM_SHARED:-$here/../../../shared}
export POLYLOOM_DATA=${POLYLOOM_DATA:-$POLYLOOM_SHARED/data}
export TEXT_EIGHT=$out
base=$POLYLOOM_SHARED/models/all-MiniLM-L6-v2
names="subj trec6 tweet_emotion banking77 clinc150 sick_entailment sst5 trec50"
tasks=$(for t in $names; do echo "text/$t"; done | paste -sd,)
mkdir -p "$out/heads/text" "$out/results"

score() { [ -e "$out/results/$1.json" ] || "$poly" eval "${@:2}" -L 500 --max-length 64 --name "$1" -o "$out/results/$1.json"; }

[ -e "$out/heads-of-base" ] || "$poly" train "$here/heads.toml" -o "$out/heads-of-base"
for t in $names; do cp "$out/heads-of-base/text/$t/heads/text/$t.safetensors" "$out/heads/text/"; done
[ -e "$out/experts/text/trec50" ] || "$poly" train "$here/experts.toml" -o "$out/experts" --resume
for recipe in task_arithmetic adamerging adamerging-validation; do
    [ -e "$out/$recipe" ] || "$poly" tune "$here/$recipe.toml" -o "$out/$recipe"
    score "$recipe" "$out/$recipe" -t "$tasks" --heads "$out/heads"
done
score base "$base" -t "$tasks" --heads "$out/heads"
files=()
for t in $names; do
    score "expert-$t" "$out/experts/text/$t" -t "text/$t" --heads "$out/heads"
    files+=("experts=$out/results/expert-$t.json")
done
"$poly" board "$out"/results/{base,task_arithmetic,adamerging,adamerging-validation}.json "${files[@]}"
