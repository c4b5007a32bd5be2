#!/usr/bin/env bash
# Embedding models: three searches and a similarity on one sentence encoder. Experts, one model trained on all, the experts'
# average, Self Positioning, RouterRetriever. Writes OUT (default: embedding-out).
#
#   recipes/embedding/run.sh [OUT]          POLYLOOM: the program (default: polyloom), POLYLOOM_SHARED: ../shared
#
# What is there is left: an interrupted run goes on with the same command.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
out=${1:-embedding-out}
poly=${POLYLOOM:-polyloom}
export POLYLOOM_SHARED=${POLYLOOM_SHARED:-$here/../../../shared}
export POLYLOOM_DATA=${POLYLOOM_DATA:-$POLYLOOM_SHARED/data}
export EMBEDDING=$out
base=$POLYLOOM_SHARED/models/all-MiniLM-L6-v2
searches="clinc150 banking77 trec50"
tasks=$(for t in $searches; do echo "$here/tasks/$t.toml"; done | paste -sd,)
all=$tasks,text/sick_relatedness
mkdir -p "$out/results" "$out/validation"

# Seconds of a step, by the clock.
timed() { local from=$SECONDS; "${@:2}"; echo "$1 $((SECONDS - from))" >> "$out/seconds.txt"; }
score() { [ -e "$out/results/$1.json" ] || "$poly" eval "${@:2}" -L 400 --max-length 32 --name "$1" -o "$out/results/$1.json"; }

[ -e "$out/experts/text/sick_relatedness" ] || timed experts "$poly" train "$here/experts.toml" -o "$out/experts" --resume
[ -e "$out/joint" ] || timed joint "$poly" train "$here/joint.toml" -o "$out/joint"
for name in position position-train; do
    [ -e "$out/$name" ] || timed "$name" "$poly" tune "$here/$name.toml" -o "$out/$name"
done
[ -e "$out/average" ] || "$poly" merge "$here/position.toml" -o "$out/average"

score base "$base" -t "$all"
for model in joint average position position-train; do score "$model" "$out/$model" -t "$all"; done
score expert-sick "$out/experts/text/sick_relatedness" -t text/sick_relatedness
test=() validation=()
for t in $searches; do
    score "expert-$t" "$out/experts/small/$t" -t "$tasks"
    [ -e "$out/validation/$t.json" ] || "$poly" eval "$out/experts/small/$t" -t "$tasks" --split validation --max-length 32 -o "$out/validation/$t.json"
    test+=("$t=$out/results/expert-$t.json") validation+=("$t=$out/validation/$t.json")
done
joined() { local IFS=,; echo "$*"; }
# Pilots as the paper reads them (one each, their mean), and what did best on the held-out tenth of the validation queries.
for rule in "mean 1" "mean 4" "max 1" "max 4"; do
    name=routed-${rule/ /-}
    [ -e "$out/$name.safetensors" ] || "$poly" route fit --model "$base" --feature embedding -t "$tasks" --split validation --max-length 32 \
        --method pilots --similarity cosine --reduce "${rule% *}" --k "${rule#* }" --results "$(joined "${validation[@]}")" -o "$out/$name.safetensors"
    "$poly" route eval "$out/$name.safetensors" -t "$tasks" -L 400 --results "$(joined "${test[@]}")" -o "$out/results/$name.json" --force
done

"$poly" board "$out"/results/{base,average,position,position-train,joint}.json
for pair in "joint position" "joint position-train" "average position" "average joint" "joint routed-mean-1" "joint routed-max-4" "average routed-max-4"; do
    "$poly" compare "$out/results/${pair% *}.json" "$out/results/${pair#* }.json"
done
cat "$out/seconds.txt"
