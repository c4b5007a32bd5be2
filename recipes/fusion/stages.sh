#!/usr/bin/env bash
# FuseChat's two stages on the decoders of run.sh (which goes first, or is made here): a pivot of another vocabulary that knows a
# little of both tasks is fused with one expert at a time, and the targets, which have its shape, are merged by SCE.
# Beside them: the pivot, the pivot with further training on the same labels alone, both experts in one fusion (FuseLLM), and
# the targets merged otherwise. Writes OUT (default: fusion-out).
#
#   recipes/fusion/stages.sh [OUT]       POLYLOOM, POLYLOOM_SHARED: as run.sh; SEEDS: seeds of the trainings from the pivot on (default: "0 1 2")
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
out=${1:-fusion-out}
poly=${POLYLOOM:-polyloom}
export POLYLOOM_SHARED=${POLYLOOM_SHARED:-$here/../../../shared}
export POLYLOOM_DATA=${POLYLOOM_DATA:-$POLYLOOM_SHARED/data}
mkdir -p "$out/results"
both=text/sst2,text/trec6

train() { [ -e "$out/$1" ] || "$poly" train "${@:2}" --seed "${seed:-0}" -o "$out/$1" --resume --no-sync; }
merge() { [ -e "$out/$1" ] || "$poly" merge "$out/target-sst2-$seed" "$out/target-trec6-$seed" --base "$out/pivot-$seed" --method "${@:2}" -o "$out/$1" --no-sync; }
score() { [ -e "$out/results/stage-$1.json" ] || "$poly" eval "$out/$1" -t "$both" --name "$1" -o "$out/results/stage-$1.json"; }

train large "$here/base.toml"
for task in sst2 trec6; do
    train "large-$task" "$here/answers.toml" --base "$out/large" -t "text/$task"
done
for seed in ${SEEDS:-0 1 2}; do
    train "pivot-texts-$seed" "$here/base.toml" --set train.new.vocab_size=1024 --set train.new.hidden_size=64 --set train.new.intermediate_size=128
    # A few labels of both tasks: a pivot that follows the prompts.
    few=(-t "$both" --set train.limit=300 --epochs 10)
    train "pivot-$seed" "$here/answers.toml" --base "$out/pivot-texts-$seed" "${few[@]}"
    train "labels-$seed" "$here/answers.toml" --base "$out/pivot-$seed" "${few[@]}"
    fused=(--set train.fuse.rule=min_ce --set train.fuse.lambda=0.5)
    for task in sst2 trec6; do
        train "target-$task-$seed" "$here/answers.toml" --base "$out/pivot-$seed" "${few[@]}" "${fused[@]}" \
            --set "train.fuse.sources=[\"$out/pivot-$seed\", \"$out/large-$task\"]"
    done
    train "at-once-$seed" "$here/answers.toml" --base "$out/pivot-$seed" "${few[@]}" "${fused[@]}" \
        --set "train.fuse.sources=[\"$out/pivot-$seed\", \"$out/large-sst2\", \"$out/large-trec6\"]"
    merge "sce-$seed" sce
    merge "sce-tenth-$seed" sce --shared select_topk=0.1
    merge "mean-$seed" task_arithmetic --each weight=0.5
    merge "sum-$seed" task_arithmetic --each weight=1
    for model in pivot labels target-sst2 target-trec6 at-once sce sce-tenth mean sum; do
        score "$model-$seed"
    done
done
"$poly" board "$out"/results/stage-*.json
