#!/usr/bin/env bash
# Architectures of logs on `polyloom tasks synth log`: impressions that are clicked, then put in the cart, then bought, with known
# probabilities. Every model and seed is trained on the same 240,000 impressions and scored on the last 30,000 beside the planted
# probabilities. Writes OUT (default: logs-out); what is there is left. Scores need python3 with numpy and pyarrow.
#
#   recipes/logs/run.sh [OUT]     POLYLOOM: the program, SEEDS: "1 2 3 4 5", MODELS, PYTHON: python3
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
out=${1:-logs-out}
poly=${POLYLOOM:-polyloom}
seeds=${SEEDS:-1 2 3 4 5}
# esmm: shared_bottom over the entire space; single_task: a network for each target, which sees the rows where it exists;
# history, mean: dtrn whose rows see what was shown before them in their session, by attention of each target or by its mean.
models=${MODELS:-single_task esmm shared_bottom cross_stitch mmoe omoe ple home dtrn history mean dselect_k task_expert aitm gbdt}
mkdir -p "$out"
[ -e "$out/data" ] || "$poly" tasks synth log -o "$out/data"
cat > "$out/history.task.toml" << 'TOML'
schema = "polyloom.task/1"
id = "history"
[source]
kind = "parquet"
[splits.train]
file = "data/train.parquet"
[splits.validation]
file = "data/validation.parquet"
[splits.test]
file = "data/test.parquet"
[fields]
id = "row"
cluster = "session"
[modality]
input = ["table"]
output = "table"
[table]
session = "session"
order = "pos"
history = ["item", "category", "brand", "word1", "word2", "word3"]
mark = "click == 1"
categorical = ["user", "age", "job", "region", "item", "category", "brand", "word1", "word2", "word3"]
numeric = ["pos", "price"]
[[targets]]
name = "click"
column = "click"
type = "classification"
metrics = [{ name = "roc_auc", primary = true }, { name = "log_loss" }]
[[targets]]
name = "cart"
column = "cart"
type = "classification"
sample = "click == 1"
metrics = [{ name = "roc_auc", primary = true }, { name = "log_loss" }]
[[targets]]
name = "buy"
column = "buy"
type = "classification"
sample = "cart == 1"
metrics = [{ name = "roc_auc", primary = true }, { name = "log_loss" }]
TOML
for seed in $seeds; do
    for model in $models; do
        name=$model-$seed
        [ -e "$out/$name.parquet" ] && continue
        task=$out/data how=(--model "$model")
        case $model in
        esmm) how=(--model shared_bottom --chain entire-space) ;;
        history) task=$out/history.task.toml how=(--model dtrn) ;;
        mean) task=$out/history.task.toml how=(--model dtrn --set 'train.new.interest="mean"') ;;
        esac
        "$poly" train -t "$task" "${how[@]}" --seed "$seed" -o "$out/$name" --force --no-sync > "$out/$name.log" 2>&1 ||
            { echo "$name: $(grep error "$out/$name.log")"; continue; }
        "$poly" predict "$out/$name" "$out/data/test.parquet" --id row -o "$out/$name.parquet" > /dev/null 2>&1
    done
done
"${PYTHON:-python3}" "$here/score.py" "$out"
