#!/usr/bin/env bash
# Federated rounds in miniature: three clients tune one base on their own rows, with low-rank parts of ranks 4, 8 and 16.
# FLoRA (stacking: the exact weighted sum of the products) against the average of the factors (zeros where a rank is smaller),
# over three rounds. Clients of a round start from the same part: the smaller ranks have the first rows of the largest one's A.
#
#   recipes/federated/run.sh [OUT]          POLYLOOM: the program (default: polyloom), POLYLOOM_DATA: the data folder
#   ROUNDS (default 3), STEPS of a client in a round (default 40), LIMIT (test rows, default 500) and SEEDS (default "1 2 3")
#
# What is there is left: an interrupted run goes on with the same command.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
out=${1:-federated-out}
poly=${POLYLOOM:-polyloom}
export POLYLOOM_DATA=${POLYLOOM_DATA:-$here/../../../shared/data}
base=$here/../../../shared/models/all-MiniLM-L6-v2
rounds=${ROUNDS:-3}
steps=${STEPS:-40}
limit=${LIMIT:-500}
seeds=${SEEDS:-1 2 3}
mkdir -p "$out"

# Client k has rows k*900 to k*900 + 800 of one shuffled order, kinds of questions as they come; 300 rows beyond are public
# and fit the head, which stays.
spec() { # seed, name, slice
    sed -e "s|^id = .text/.*|id = \"$2\"|" -e "s|^train = .*|train = { file = \"train.parquet\", slice = \"$3\", seed = $1 }|" \
        "$here/../../tasks/text/trec6.toml" > "$out/$1/tasks/$2.toml"
}
client() { # seed, base, client, rank, round, folder: alpha = rank, so that products count as they are
    [ -e "$6" ] || "$poly" train --base "$2" -t "$out/$1/tasks/client$3.toml" --method lora --rank "$4" --steps "$steps" --batch 20 \
        --rate 5e-4 --seed "$1$5" --set train.lora.alpha="$4" --set train.head.start="$out/$1/heads" --set train.head.frozen=true \
        --set train.max_length=64 --set train.evaluate_every=0 --set train.keep=last --set train.decay=0 -q -o "$6"
}
score() { # seed, models and flags
    "$poly" eval "${@:2}" -t "$out/$1/tasks/client1.toml" --heads "$out/$1/heads" -L "$limit" --max-length 64
}
for seed in $seeds; do
    at=$out/$seed
    mkdir -p "$at/tasks" "$at/results" "$at/heads"
    spec "$seed" client1 "[0:800]"; spec "$seed" client2 "[900:1700]"; spec "$seed" client3 "[1800:2600]"; spec "$seed" public "[2700:3000]"
    spec "$seed" together "[0:2600]"
    [ -e "$at/head" ] || "$poly" train --base "$base" -t "$at/tasks/public.toml" --method head --steps 1 --rate 1e-9 --seed "$seed" \
        --set train.head.start=probe --set train.max_length=64 -q -o "$at/head"
    for task in client1 client2 client3 together; do cp "$at/head/heads/public.safetensors" "$at/heads/$task.safetensors"; done
    score "$seed" "$base" --name base -o "$at/results/base.json"
    for way in stack average; do
        now=$base
        for round in $(seq "$rounds"); do
            parts=$at/$way/$round next=$at/$way/base-$round k=0
            for rank in 4 8 16; do k=$((k + 1)); client "$seed" "$now" "$k" "$rank" "$round" "$parts/client$k"; done
            if [ ! -e "$next" ]; then
                rm -rf "$parts"/all "$parts"/wide*
                if [ "$way" = stack ]; then
                    "$poly" adapt stack "$parts"/client{1,2,3} --sizes 800,800,800 -o "$parts/all"
                else
                    # mean(B) mean(A) = sum(B) sum(A) / 9
                    for k in 1 2 3; do "$poly" adapt resize "$parts/client$k" --rank 16 -o "$parts/wide$k"; done
                    "$poly" adapt combine "$parts"/wide{1,2,3} --combination linear --weights 0.1111111111 -o "$parts/all"
                fi
                "$poly" adapt fold "$parts/all" --base "$now" -o "$next"
            fi
            score "$seed" "$next" --name "$way-$round" -o "$at/results/$way-$round.json"
            now=$next
        done
    done
    # References: each client alone, and one part of rank 16 over all rows for as many steps as all clients and rounds take.
    score "$seed" "$at"/stack/1/client{1,2,3} --base "$base" -o "$at/results/"
    [ -e "$at/together" ] || "$poly" train --base "$base" -t "$at/tasks/together.toml" --method lora --rank 16 --steps "$((3 * rounds * steps))" \
        --batch 20 --rate 5e-4 --seed "$seed" --set train.lora.alpha=16 --set train.head.start="$at/heads" --set train.head.frozen=true \
        --set train.max_length=64 --set train.evaluate_every=0 --set train.keep=last --set train.decay=0 -q -o "$at/together"
    score "$seed" "$at/together" --base "$base" --name together -o "$at/results/together.json"
    "$poly" board "$at"/results/*.json --aggregate mean --format csv --top 0 > "$at/board.csv"
    "$poly" compare "$at/results/average-$rounds.json" "$at/results/stack-$rounds.json" > "$at/compare.txt"
done

files=(); for seed in $seeds; do files+=("$out/$seed/board.csv"); done
"$here/../means.sh" "${files[@]}" | tee "$out/means.csv"
