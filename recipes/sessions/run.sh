#!/usr/bin/env bash
# The next clicked item of a session, on `polyloom tasks synth log`: items by what describes them (m2trec), the same model with a
# number for every item and nothing else (ids), and the items clicked most often (score.py). Scored on clicked test rows by items
# that training rows show (warm) and those that they do not (cold), beside what a target of the item's category adds (alone:
# without). Writes OUT (default: sessions-out); what is there is left. Scores need python3 with numpy and pyarrow.
#
#   recipes/sessions/run.sh [OUT]     POLYLOOM: the program, SEEDS: "1 2 3", MODELS, COUNT: 300000 impressions, PYTHON: python3
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
out=${1:-sessions-out}
poly=${POLYLOOM:-polyloom}
seeds=${SEEDS:-1 2 3}
models=${MODELS:-m2trec alone ids}
mkdir -p "$out"
[ -e "$out/data" ] || "$poly" tasks synth log --count "${COUNT:-300000}" -o "$out/data"

# spec MODEL PRIMARY: a task whose records have the primary metric of every row.
spec() {
    local words='"category", "brand", "word1", "word2", "word3"' numbers='"price"' metrics
    [ "$1" = ids ] && { words='"item"'; numbers=''; }
    metrics=(recall_at_k mrr)
    [ "$2" = mrr ] && metrics=(mrr recall_at_k)
    cat << TOML
schema = "polyloom.task/1"
id = "next"
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
[modality]
input = ["table"]
output = "table"
[table]
session = "session"
order = "pos"
item = "item"
categorical = [$words]
numeric = [$numbers]
[[targets]]
name = "item"
column = "item"
type = "retrieval"
sample = "click == 1"
metrics = [{ name = "${metrics[0]}", primary = true, params = { k = 20 } }, { name = "${metrics[1]}", params = { k = 20 } }]
TOML
    [ "$1" = m2trec ] && cat << TOML
[[targets]]
name = "category"
column = "category"
type = "classification"
sample = "click == 1"
metrics = [{ name = "accuracy", primary = true }]
TOML
    return 0
}

for model in $models; do
    for metric in recall mrr; do
        spec "$model" "$metric" > "$out/$model-$metric.task.toml"
    done
    for seed in $seeds; do
        name=$model-$seed
        [ -e "$out/$name-mrr.json" ] && continue
        "$poly" train -t "$out/$model-recall.task.toml" --model m2trec --seed "$seed" ${SET:-} -o "$out/$name" --force --no-sync > "$out/$name.log" 2>&1 ||
            { echo "$name: $(grep error "$out/$name.log")"; continue; }
        for metric in recall mrr; do
            "$poly" eval "$out/$name" -t "$out/$model-$metric.task.toml" --name "$name" -o "$out/$name-$metric.json" --force > /dev/null
        done
    done
done
"${PYTHON:-python3}" "$here/score.py" "$out"
