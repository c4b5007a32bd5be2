#!/usr/bin/env bash
# Seven text tasks on one small encoder: dense, two of eight experts for a token (top-2), as many as their probabilities ask for
# (top-p), and JiuZhang's experts that begin as copies of the dense encoder, beside the dense one trained on as long. Scores of
# every task, experts of a token and the parameters that it uses. Writes OUT (default: experts-text-out); what is there is left.
#
#   recipes/experts-text/run.sh [OUT]     POLYLOOM: the program, POLYLOOM_SHARED: ../shared, SEEDS: "1 2 3",
#                                         ARMS: "dense top2 topp onward jiuzhang" (the last two need the first),
#                                         SET: more flags of train, such as "--set train.limit=500", LIMIT: test rows of a task
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
out=${1:-experts-text-out}
poly=${POLYLOOM:-polyloom}
export POLYLOOM_SHARED=${POLYLOOM_SHARED:-$here/../../../shared}
export POLYLOOM_DATA=${POLYLOOM_DATA:-$POLYLOOM_SHARED/data}
tasks="sst2 sst5 mpqa subj trec6 tweet_offensive tweet_emotion"
all=$(printf 'text/%s,' $tasks)
all=${all%,}
limit=${LIMIT:-2000}
mkdir -p "$out/results" "$out/experts"

# Two experts of half the width are as wide as the dense part; top-p has the same eight, and the losses of its paper.
eight="train.new.moe.experts=8 train.new.moe.inner=128 train.new.moe.gate=\"shared\" train.new.moe.balance=0 train.new.moe.switch=1e-2"
copies="train.moe.experts=4 train.moe.top_k=2 train.moe.last=2 train.moe.gate=\"conditioned\""

# train FILE ARM ARGUMENTS...
train() {
    local to=$out/$2-$seed
    # shellcheck disable=SC2086
    [ -e "$to" ] || "$poly" train "$here/$1" --seed "$seed" "${@:3}" ${SET:-} -o "$to" --resume
}

for seed in ${SEEDS:-1 2 3}; do
    for arm in ${ARMS:-dense top2 topp onward jiuzhang}; do
        set=()
        case $arm in
        dense) train new.toml "$arm" ;;
        top2)
            for key in $eight train.new.moe.top_k=2; do set+=(--set "$key"); done
            train new.toml "$arm" "${set[@]}"
            ;;
        topp)
            for key in $eight train.new.moe.top_p=0.4 train.new.moe.entropy=1e-4; do set+=(--set "$key"); done
            train new.toml "$arm" "${set[@]}"
            ;;
        onward) train onward.toml "$arm" --base "$out/dense-$seed" ;;
        jiuzhang)
            for key in $copies; do set+=(--set "$key"); done
            train onward.toml "$arm" --base "$out/dense-$seed" "${set[@]}"
            ;;
        esac
        name=$arm-$seed
        [ -e "$out/results/$name.json" ] || "$poly" eval "$out/$name" -t "$all" -L "$limit" --name "$name" -o "$out/results/$name.json"
        case $arm in dense | onward) continue ;; esac
        for task in $tasks; do
            told=$out/experts/$name-$task.jsonl
            [ -e "$told" ] || "$poly" --json diag experts "$out/$name" -t "text/$task" -L "$limit" --batch 64 > "$told.part"
            [ -e "$told" ] || mv "$told.part" "$told"
        done
    done
done
"$poly" board "$out"/results/*.json --aggregate mean --top 0
echo "model, task, mean experts of a token, share of the parameters of the layers that it uses"
for told in "$out"/experts/*.jsonl; do
    grep '"type":"activated"' "$told" | sed -E 's/.*"experts":([0-9.]+).*"share":([0-9.]+).*/\1 \2/' |
        awk -v name="$(basename "$told" .jsonl)" '{ printf "%s %.2f %.1f %%\n", name, $1, 100 * $2 }'
done
