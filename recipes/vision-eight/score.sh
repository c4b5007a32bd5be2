#!/usr/bin/env bash
# Restores the eight models of a bundle (or of several that share the tasks), scores each on the test rows of its own task,
# and joins the scores into OUT/all.json, ready for `polyloom compare`. A folder of experts is scored as it is.
#   recipes/vision-eight/score.sh OUT BUNDLE...|EXPERTS
set -euo pipefail
polyloom=${POLYLOOM:-polyloom}
shared=${POLYLOOM_SHARED:-../shared}
here=$(cd "$(dirname "$0")" && pwd)
out=$1
shift
mkdir -p "$out"
for expert in "$shared"/models/vision-eight/heads/*.safetensors; do
  task=$(basename "$expert" .safetensors)
  model=$out/models/$task
  rm -rf "$model"
  mkdir -p "$out/models"
  for from in "$@"; do
    if [ ! -e "$from/polyloom.json" ]; then
      cp -r "$from/$task" "$model"
      chmod -R u+w "$model"
    elif grep -q "\"masks/vision/$task\|\"id\": \"vision/$task\"" "$from/polyloom.json"; then
      $polyloom compress restore "$from" --task "vision/$task" --no-sync -o "$model" > /dev/null 2>&1
    fi
  done
  cp "$here/preprocessor_config.json" "$model/preprocessor_config.json"
  $polyloom eval "$model" -t "vision/$task" --heads "$shared/models/vision-eight/heads" -o "$out/$task.json" > /dev/null 2>&1
done
python3 - "$out" <<'PYTHON'
import glob, json, os, sys
out = sys.argv[1]
files = sorted(glob.glob(os.path.join(out, "*.json")))
whole = None
for file in files:
    one = json.load(open(file))
    if whole is None:
        whole = one
    else:
        whole["tasks"].update(one["tasks"])
values = [t["value"] for t in whole["tasks"].values()]
whole["model"] = {"name": os.path.basename(out)}
json.dump(whole, open(os.path.join(out, "all.json"), "w"))
print(os.path.basename(out), "mean", round(sum(values) / len(values), 4), *(f"{t.split('/')[-1][:12]} {v['value']:.3f}" for t, v in whole["tasks"].items()))
PYTHON
rm -rf "$out/models"
