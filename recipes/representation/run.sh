#!/usr/bin/env bash
# Two targets on the same texts (six and fifty kinds of answers; five grades and two poles), on one small encoder from nothing: the
# mean of the losses (equal), regularisers of the features that heads share (rep_mtl), gradients dropped there (graddrop), balancers,
# and a network for each target (single). Scores, sharpness on validation rows, seconds of the processor. Writes OUT (default:
# representation-out); what is there is left. Joining needs python3 with pyarrow.
#
#   recipes/representation/run.sh [OUT]     POLYLOOM: the program, POLYLOOM_SHARED: ../shared, SEEDS: "1 2 3", TASKS: "trec sst",
#                                           ARMS: "single equal rep_mtl graddrop mgda pcgrad cagrad nash", SET: more flags of train, PYTHON: python3
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
out=${1:-representation-out}
poly=${POLYLOOM:-polyloom}
export POLYLOOM_SHARED=${POLYLOOM_SHARED:-$here/../../../shared}
export POLYLOOM_DATA=${POLYLOOM_DATA:-$POLYLOOM_SHARED/data}
mkdir -p "$out/results"
[ -e "$out/sst/task.toml" ] || "${PYTHON:-python3}" "$here/joined.py" "$POLYLOOM_DATA" "$out"

TIMEFORMAT=%U
for seed in ${SEEDS:-1 2 3}; do
    for task in ${TASKS:-trec sst}; do
        spec=$out/$task/task.toml
        for arm in ${ARMS:-single equal rep_mtl graddrop mgda pcgrad cagrad nash}; do
            name=$task,$arm,$seed
            [ -e "$out/results/$name.sharp" ] && continue
            how=()
            case $arm in
            equal | single) ;;
            rep_mtl | graddrop) how=(--set "train.representation.method=\"$arm\"") ;;
            *) how=(--balancer "$arm") ;;
            esac
            if [ "$arm" = single ]; then
                for target in $(sed -n 's/^name = "\(.*\)"$/\1/p' "$spec"); do
                    # The same spec without the other target.
                    alone=$out/$task/$target.task.toml
                    awk -v keep="$target" '/^\[\[targets\]\]/ { held = $0; next } held != "" { on = ($3 == "\"" keep "\""); if (on) print held; held = "" } /^\[/ && !/targets/ { on = 1 } BEGIN { on = 1 } on' "$spec" > "$alone"
                    # shellcheck disable=SC2086
                    "$poly" train "$here/new.toml" -t "$alone" --seed "$seed" ${SET:-} -o "$out/$name-$target" --force --no-sync > "$out/$name-$target.log" 2>&1
                    "$poly" eval "$out/$name-$target" -t "$alone" --name "$name" -o "$out/results/$name-$target.json" > /dev/null
                done
                touch "$out/results/$name.sharp"
                continue
            fi
            # shellcheck disable=SC2086
            { time "$poly" train "$here/new.toml" -t "$spec" --seed "$seed" "${how[@]}" ${SET:-} -o "$out/$name" --force --no-sync > "$out/$name.log" 2>&1; } 2> "$out/results/$name.seconds"
            "$poly" eval "$out/$name" -t "$spec" --name "$name" -o "$out/results/$name.json" > /dev/null
            "$poly" --json diag sharpness "$out/$name" -t "$spec" > "$out/results/$name.sharp.part"
            mv "$out/results/$name.sharp.part" "$out/results/$name.sharp"
        done
    done
done
"${PYTHON:-python3}" "$here/score.py" "$out"
