#!/usr/bin/env bash
# Five tasks of pictures of four sensors (28 x 28 x 1 twice, 32 x 32 x 3, 48 x 48 x 3) on one trunk (T3), with few labels:
#   rebuilt   phase 1: masked patches of all training pictures, without labels
#   phases    phase 2 on it, from ROWS labelled rows of each task
#   frozen    phase 2 on it, its trunk frozen
#   nothing   the same phase 2 from nothing
#   single    a stem, trunk and head for each task, from nothing, as many epochs
#   others    phase 1 without the camera (32 x 32 x 3)
#   later     on it, a stem for the camera: phase 1 of its pictures, the trunk frozen
#   added     phase 2 of the camera's task on that, the trunk still frozen
# Scored on whole test splits. Writes OUT (default: sensors-out); what is there is left. The summary needs python3.
#
#   recipes/sensors/run.sh [OUT]     POLYLOOM: the program, POLYLOOM_SHARED: ../shared, SEEDS: "1 2 3", ROWS: 100,
#                                    ARMS: "rebuilt phases frozen nothing single others later added", EPOCHS: 20 (of phase 1),
#                                    SET: more flags of every training, such as "--set train.epochs=4", LIMIT: test rows
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
out=${1:-sensors-out}
poly=${POLYLOOM:-polyloom}
export POLYLOOM_SHARED=${POLYLOOM_SHARED:-$here/../../../shared}
export POLYLOOM_DATA=${POLYLOOM_DATA:-$POLYLOOM_SHARED/data}
rows=${ROWS:-100}
label=$here/../shapes/label.task.toml
tasks="vision/digits vision/omniglot_alphabet vision/fashion_mnist_900 vision/sign_digits"
phase1=(--set 'train.objective="reconstruct"' --set "train.epochs=${EPOCHS:-20}")
frozen=(--set 'train.freeze=["trunk."]')
mkdir -p "$out/results"

# train NAME RECIPE ARGUMENTS...
train() {
    # shellcheck disable=SC2086
    [ -e "$out/$1" ] || "$poly" train "$here/$2" --seed "$seed" "${@:3}" ${SET:-} -o "$out/$1" --resume
}

# score NAME FOLDER TASKS
score() {
    local to=$out/results/$1.json
    [ -e "$to" ] || "$poly" eval "$out/$2" -t "$3" ${LIMIT:+-L "$LIMIT"} --name "$1" -o "$to"
}

for seed in ${SEEDS:-1 2 3}; do
    for arm in ${ARMS:-rebuilt phases frozen nothing single others later added}; do
        name=$arm-$seed
        case $arm in
        rebuilt) train "$name" new.toml "${phase1[@]}" ;;
        others) train "$name" others.toml "${phase1[@]}" ;;
        later) train "$name" added.toml --base "$out/others-$seed" "${phase1[@]}" ;;
        added) train "$name" onward.toml --base "$out/later-$seed" -t vision/sign_digits -L "$rows" "${frozen[@]}" ;;
        phases) train "$name" onward.toml --base "$out/rebuilt-$seed" -L "$rows" ;;
        frozen) train "$name" onward.toml --base "$out/rebuilt-$seed" -L "$rows" "${frozen[@]}" ;;
        nothing) train "$name" new.toml -L "$rows" ;;
        single) train "$name" new.toml -L "$rows" --each --set 'train.mixing="batch"' ;;
        esac
        case $arm in
        rebuilt | others | later) ;;
        added) score "$name" "$name" vision/sign_digits ;;
        single)
            for task in $tasks; do
                score "$name-${task##*/}" "$name/$task" "$task"
            done
            score "$name-label" "$name/shapes/label" "$label"
            ;;
        *) score "$name" "$name" "${tasks// /,},$label" ;;
        esac
    done
done
"${PYTHON:-python3}" "$here/score.py" "$out"
