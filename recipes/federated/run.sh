#!/usr/bin/env bash
# Federated rounds in miniature: three clients tune one base on their own rows, with low-rank parts of ranks 4, 8 and 16.
# FLoRA (stacking: the exact weighted sum of the products) against the average of the factors, over three rounds.
#
#   recipes/federated/run.sh [OUT]          POLYLOOM: the program (default: polyloom), POLYLOOM_DATA: the data folder
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
out=${1:-federated-out}
poly=${POLYLOOM:-polyloom}
export POLYLOOM_DATA=${POLYLOOM_DATA:-$here/../../../shared/data}
base=$here/../../../shared/models/all-MiniLM-L6-v2
rounds=${ROUNDS:-3}
limit=${LIMIT:-500}
mkdir -p "$out/tasks" "$out/results"

# Client k has rows k*900 to k*900 + 800 of one shuffled order, kinds of questions as they come; 300 rows beyond are public
# and fit the head, which stays.
spec() { # name, slice
    sed -e "s|^id = .*|id = \"$1\"|" -e "s|^train = .*|train = { file = \"train.parquet\", slice = \"$2\", seed = 5 }|" \
        "$here/../../tasks/text/trec6.toml" > "$out/tasks/$1.toml"
}
spec client1 "[0:800]"; spec client2 "[900:1700]"; spec client3 "[1800:2600]"; spec public "[2700:3000]"
[ -e "$out/head" ] || "$poly" train --base "$base" -t "$out/tasks/public.toml" --method head --steps 1 --rate 1e-9 \
    --set train.head.start=probe --set train.max_length=64 -o "$out/head"
mkdir -p "$out/heads"
for task in client1 client2 client3; do cp "$out/head/heads/public.safetensors" "$out/heads/$task.safetensors"; done

client() { # base, client, rank, seed, folder: alpha = rank, so that products count as they are
    [ -e "$5" ] || "$poly" train --base "$1" -t "$out/tasks/client$2.toml" --method lora --rank "$3" --steps 40 --batch 20 --rate 5e-4 --seed "$4" \
        --set train.lora.alpha="$3" --set train.head.start="$out/heads" --set train.head.frozen=true --set train.max_length=64 \
        --set train.validation= --set train.decay=0 -q -o "$5"
}
for way in stack average; do
    now=$base
    for round in $(seq "$rounds"); do
        at=$out/$way/$round
        next=$out/$way/base-$round
        k=0
        for rank in 4 8 16; do k=$((k + 1)); client "$now" "$k" "$rank" "$round" "$at/client$k"; done
        if [ ! -e "$next" ]; then
            if [ "$way" = stack ]; then
                "$poly" adapt stack "$at"/client1 "$at"/client2 "$at"/client3 --sizes 800,800,800 -o "$at/all"
            else
                # Factors of equal rank, averaged: mean(B) mean(A) = 1/9 sum(B) sum(A).
                for k in 1 2 3; do "$poly" adapt resize "$at/client$k" --rank 16 -o "$at/wide$k"; done
                "$poly" adapt combine "$at"/wide1 "$at"/wide2 "$at"/wide3 --combination linear --weights 0.11111111 -o "$at/all"
            fi
            "$poly" adapt fold "$at/all" --base "$now" -o "$next"
        fi
        "$poly" eval "$next" -t "$out/tasks/client1.toml" --heads "$out/heads" -L "$limit" --max-length 64 --name "$way round $round" -o "$out/results/$way-$round.json"
        now=$next
    done
done
"$poly" eval "$base" -t "$out/tasks/client1.toml" --heads "$out/heads" -L "$limit" --max-length 64 --name base -o "$out/results/base.json"
"$poly" eval "$out"/stack/1/client* -t "$out/tasks/client1.toml" --heads "$out/heads" --base "$base" -L "$limit" --max-length 64 -o "$out/results/clients/"
"$poly" board "$out"/results/*.json "$out/results/clients" --format md > "$out/board.md"
cat "$out/board.md"
