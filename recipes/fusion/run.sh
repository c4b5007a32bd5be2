#!/usr/bin/env bash
# Two tiny decoders from nothing: small experts fused onto the larger base by their logits, and a third decoder of another
# vocabulary that learns from both. Writes OUT (default: fusion-out).
#
#   recipes/fusion/run.sh [OUT]          POLYLOOM: the program (default: polyloom), POLYLOOM_SHARED: ../shared
#
# What is there is left: an interrupted run goes on with the same command. SEED=1 draws everything anew.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
out=${1:-fusion-out}
poly=${POLYLOOM:-polyloom}
seed=${SEED:-0}
export POLYLOOM_SHARED=${POLYLOOM_SHARED:-$here/../../../shared}
export POLYLOOM_DATA=${POLYLOOM_DATA:-$POLYLOOM_SHARED/data}
mkdir -p "$out/results"

train() { [ -e "$out/$1" ] || "$poly" train "${@:2}" --seed "$seed" -o "$out/$1" --resume; }
score() { [ -e "$out/results/$1.json" ] || "$poly" eval "${@:2}" -t "text/$task" -L 500 --name "$1" -o "$out/results/$1.json"; }

train large "$here/base.toml"
train small "$here/base.toml" --set train.new.hidden_size=48 --set train.new.intermediate_size=96
for task in sst2 trec6; do
    train "large-$task" "$here/answers.toml" --base "$out/large" -t "text/$task"
    train "small-$task" "$here/answers.toml" --base "$out/small" -t "text/$task"
done
for task in sst2 trec6; do
    for model in large small; do
        score "$task-$model" "$out/$model"
        score "$task-$model-tuned" "$out/$model-$task"
    done
    score "$task-fused" "$out/large" --fuse-base "$out/small" --fuse "$out/small-$task"
    score "$task-fused-both" "$out/large" --fuse-base "$out/small" --fuse "$out/small-sst2,$out/small-trec6"
    # Students of another vocabulary: 300 rows alone, the same with both sources beside or in place of the labels, all rows.
    few=(--set train.limit=300 --epochs 20)
    from=(--set "train.fuse.sources=[\"$out/large-$task\", \"$out/small-$task\"]")
    train "student-$task" "$here/student.toml" -t "text/$task" "${few[@]}"
    train "student-$task-fused" "$here/student.toml" -t "text/$task" "${few[@]}" "${from[@]}" --set train.fuse.lambda=0.5
    train "student-$task-sources" "$here/student.toml" -t "text/$task" "${few[@]}" "${from[@]}" --set train.fuse.lambda=0
    train "student-$task-all" "$here/student.toml" -t "text/$task"
    for kind in "" -fused -sources -all; do
        score "$task-student$kind" "$out/student-$task$kind"
    done
done
"$poly" board "$out"/results/*.json
