#!/usr/bin/env bash
# One tiny decoder for seven tasks of classification, asked with and without an instruction, beside a decoder for each; then
# the losses, rows that count by theirs, five schedules, one cocktail and experts in the decoder. Writes OUT (default: instructed-out); what is there is left.
#
#   recipes/instructed/run.sh [OUT]      POLYLOOM: the program, POLYLOOM_SHARED: ../shared, SEEDS: "0 1 2", PARTS: all of them
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
out=${1:-instructed-out}
poly=${POLYLOOM:-polyloom}
parts=${PARTS:-"prompts losses schedules cocktail experts"}
export POLYLOOM_SHARED=${POLYLOOM_SHARED:-$here/../../../shared}
export POLYLOOM_DATA=${POLYLOOM_DATA:-$POLYLOOM_SHARED/data}
tasks="sst2 sst5 mpqa subj trec6 tweet_offensive tweet_emotion"
all=$(printf 'text/%s,' $tasks)
all=${all%,}
mkdir -p "$out/results"

# train NAME ARGUMENTS...: answers of the seven tasks on the base of the seed
train() { [ -e "$out/$1" ] || "$poly" train "$here/answers.toml" --base "$out/base-$seed" --seed "$seed" "${@:2}" -o "$out/$1" --resume; }
# score NAME PROMPT MODEL TASKS
score() { [ -e "$out/results/$1.json" ] || "$poly" eval "$3" -t "$4" --prompt "$2" -L 500 --name "$1" -o "$out/results/$1.json"; }

for seed in ${SEEDS:-0 1 2}; do
    [ -e "$out/base-$seed" ] || "$poly" train "$here/base.toml" --seed "$seed" -o "$out/base-$seed" --resume
    if [[ $parts == *prompts* ]]; then
        for rows in all 32; do
            few=()
            # 32 rows a task: more rounds, small passes.
            [ $rows = 32 ] && few=(--set train.limit=32 --set train.validation_limit=32 --epochs 20 --batch 8)
            for prompt in instructed default; do
                train "$prompt-$rows-$seed" "${few[@]}" --set "train.language.prompt=\"$prompt\""
                score "$prompt-$rows-$seed" "$prompt" "$out/$prompt-$rows-$seed" "$all"
            done
            for task in $tasks; do
                train "single-$rows-$seed/$task" "${few[@]}" -t "text/$task"
                score "single-$rows-$seed-$task" instructed "$out/single-$rows-$seed/$task" "text/$task"
            done
        done
    fi
    if [[ $parts == *losses* ]]; then
        for loss in case2 case3 case4 focal_sample focal_task; do
            train "$loss-$seed" --set "train.loss=$loss"
            score "$loss-$seed" instructed "$out/$loss-$seed" "$all"
        done
        # Rows count by their losses.
        train "reweight-$seed" --set train.reweight.rule=linupper
        score "reweight-$seed" instructed "$out/reweight-$seed" "$all"
    fi
    if [[ $parts == *schedules* ]]; then
        train "alternate-$seed" --set train.mixing=alternate
        train "unmixed-$seed" --set train.mixing=unmixed
        # Dual-stage: the films' tasks as the special ones, then the others with a share of their rows.
        train "stages-$seed" --set 'train.stage=[{tasks = ["text/sst2", "text/sst5"]}, {again = 0.1}]'
        # Tasks chosen by a model of their losses, a quarter of them drawn.
        train "mpts-$seed" --set train.mixing=alternate --set train.sampling=mpts --set train.mpts.random=0.25
        for schedule in alternate unmixed stages mpts; do
            score "$schedule-$seed" instructed "$out/$schedule-$seed" "$all"
        done
    fi
    if [[ $parts == *experts* ]]; then
        # The base's last layer as four experts, two for a token, that begin as copies (JiuZhang); eight narrow ones from the beginning.
        copies=(--set train.moe.experts=4 --set train.moe.top_k=2 --set train.moe.last=1 --set train.moe.balance=0 --set train.moe.switch=1e-2)
        train "jiuzhang-$seed" "${copies[@]}"
        score "jiuzhang-$seed" instructed "$out/jiuzhang-$seed" "$all"
        new=(--set train.new.moe.experts=8 --set train.new.moe.inner=128 --set train.new.moe.every=1 --set train.new.moe.balance=0 --set train.new.moe.switch=1e-2)
        for arm in top2 topp; do
            case $arm in
            top2) own=(--set train.new.moe.top_k=2) ;;
            topp) own=(--set train.new.moe.top_p=0.4 --set train.new.moe.entropy=1e-4) ;;
            esac
            [ -e "$out/base-$arm-$seed" ] || "$poly" train "$here/base.toml" --seed "$seed" "${new[@]}" "${own[@]}" -o "$out/base-$arm-$seed" --resume
            [ -e "$out/$arm-$seed" ] || "$poly" train "$here/answers.toml" --base "$out/base-$arm-$seed" --seed "$seed" -o "$out/$arm-$seed" --resume
            score "$arm-$seed" instructed "$out/$arm-$seed" "$all"
        done
    fi
done
if [[ $parts == *cocktail* ]]; then
    [ -e "$out/cocktail" ] || "$poly" diag cocktail "$here/answers.toml" --base "$out/base-0" --target text/sst5 --set train.limit=1000 -o "$out/cocktail"
fi
