#!/usr/bin/env bash
# Learned coefficients beside task arithmetic on the experts that disturb each other: three seeds, inputs of the test rows,
# then the same on worse images and with two tasks held out. Writes OUT (default: learned-out); what is there is left.
#
#   recipes/vision-eight/learned.sh [OUT]     POLYLOOM: the program, POLYLOOM_SHARED: ../shared, STEPS: 300, SEEDS: "1 2 3"
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
out=${1:-learned-out}
poly=${POLYLOOM:-polyloom}
export POLYLOOM_SHARED=${POLYLOOM_SHARED:-$here/../../../shared}
data=${POLYLOOM_DATA:-$POLYLOOM_SHARED/data}
export POLYLOOM_DATA=$data
steps=${STEPS:-300}
seeds=${SEEDS:-1 2 3}
heads=$POLYLOOM_SHARED/models/vision-eight/heads
tasks=$(for t in "$heads"/*.safetensors; do echo "vision/$(basename "$t" .safetensors)"; done | paste -sd,)
mkdir -p "$out/results"

# score NAME MODEL [TASKS]
score() {
    [ -e "$out/results/$1.json" ] && return
    [ -e "$2/preprocessor_config.json" ] || cp "$here/preprocessor_config.json" "$2/"
    "$poly" eval "$2" -t "${3:-$tasks}" --heads "$heads" --name "$1" -o "$out/results/$1.json"
}
# merged NAME RECIPE ARGUMENTS...: task arithmetic
merged() { [ -e "$out/$1" ] || "$poly" merge "$here/$2.toml" "${@:3}" -o "$out/$1"; }
# learned NAME RECIPE ARGUMENTS...
learned() { [ -e "$out/$1" ] || "$poly" tune "$here/$2.toml" "${@:3}" -o "$out/$1"; }

merged ta weights-hard --set merge.shared.lambda=0.1
score ta "$out/ta"
for seed in $seeds; do
    learned "ada-$seed" adamerging-hard --steps "$steps" --set tune.init=0.1 --set seed="$seed"
    score "ada-$seed" "$out/ada-$seed"
done
for seed in $seeds; do
    learned "concrete-$seed" concrete-hard --set tune.mask_steps="$steps" --set seed="$seed"
    score "concrete-$seed" "$out/concrete-$seed"
done

# Two tasks held out: six experts, scored on the two.
held=vision/omniglot_latin,vision/sign_digits
merged ta-six task_arithmetic-six-hard
score ta-six "$out/ta-six" "$held"
learned ada-six adamerging-six-hard --steps "$steps" --set tune.init=0.1
score ada-six "$out/ada-six" "$held"

# Coefficients learned on the inputs of worse images, scored on them.
for kind in noise blur contrast occlusion; do
    worse=$out/data-$kind
    [ -e "$worse" ] || "$poly" tasks corrupt ${tasks//,/ } --kind "$kind" --severity 3 -o "$worse"
    export POLYLOOM_DATA=$worse
    score "ta-$kind" "$out/ta"
    learned "ada-$kind" adamerging-hard --steps "$steps" --set tune.init=0.1
    score "ada-$kind" "$out/ada-$kind"
    export POLYLOOM_DATA=$data
done
"$poly" board "$out"/results/*.json
