#!/usr/bin/env bash
# Does LiNeS raise other merges? Task arithmetic, TIES and consensus on both sets of vision experts, each as it is and scaled
# by depth, the free numbers of both chosen on validation images, both scored once on test images and compared in pairs.
#   recipes/vision-eight/lines.sh OUT
set -euo pipefail
polyloom=${POLYLOOM:-polyloom}
here=$(cd "$(dirname "$0")" && pwd)
export POLYLOOM_SHARED=${POLYLOOM_SHARED:-$here/../../../shared}
export POLYLOOM_DATA=${POLYLOOM_DATA:-$POLYLOOM_SHARED/data}
out=$1
mkdir -p "$out"
cp "$here/preprocessor_config.json" "$out/"
heads=$POLYLOOM_SHARED/models/vision-eight/heads
tasks=$(for h in "$heads"/*.safetensors; do echo "vision/$(basename "$h" .safetensors)"; done | paste -sd,)
# "lines" behind a method does what the method `lines` on it does; consensus, which is made of another merge itself, needs it.
steps() {
  for a in ${1//,/ }; do for b in ${2//,/ }; do printf "'[{step=\"lines\",alpha=%s,beta=%s}]', " "$a" "$b"; done; done
}
for set in default hard; do
  if [ $set = hard ]; then
    low="0.02,0.05,0.1,0.2,0.3" alpha="0.02,0.05,0.1,0.2" beta="0,0.05,0.1,0.2,0.4" folder=experts-plain
  else
    low="0.2,0.4,0.6,0.8,1.0" alpha="0.2,0.4,0.6,0.8" beta="0,0.2,0.4,0.8,1.2" folder=experts
  fi
  for method in task_arithmetic ties_reference consensus; do
    name=$out/$set-$method
    more=""
    [ $method = ties_reference ] && more='reduce = "sum"'
    sed '/^\[merge\]/,$d' "$here/weights-hard.toml" | sed "s#/experts-plain/#/$folder/#" > "$name.head"
    { cat "$name.head"; printf '[merge]\nmethod = "%s"\n' "$method"
      [ $method = consensus ] && echo 'on = { method = "task_arithmetic", lambda = 1.0 }'
      printf '\n[merge.shared]\nlambda = 1.0\n%s\n\n' "$more"
      sed -n '/^\[tune\]/,/^$/p' "$here/weights-hard.toml"; } > "$name.toml"
    { cat "$name.toml"; printf '\n[tune.trials]\nover = { "merge.post" = [%s] }\n' "$(steps "$alpha" "$beta")"; } > "$name-lines.toml"
    rm "$name.head"
    [ -e "$name" ] || "$polyloom" tune "$name.toml" --over "merge.shared.lambda=$low" -q -o "$name"
    [ -e "$name-lines" ] || "$polyloom" tune "$name-lines.toml" -q -o "$name-lines"
    for one in "$name" "$name-lines"; do
      cp "$out/preprocessor_config.json" "$one/"
      [ -e "$one.json" ] || "$polyloom" eval "$one" -t "$tasks" --heads "$heads" --name "$(basename "$one")" -q -o "$one.json"
    done
    "$polyloom" compare "$name.json" "$name-lines.json"
  done
done
