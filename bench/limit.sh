#!/bin/sh
# The limit of a merge: reading all inputs once and writing one output-sized file (warm cache, no sync).
#   sh bench/limit.sh FOLDER        FOLDER as bench/synth.py writes it
cat "$1"/base/model.safetensors "$1"/expert1/model.safetensors "$1"/expert2/model.safetensors "$1"/expert3/model.safetensors > /dev/null
cp "$1"/base/model.safetensors "$1"/limit.out && rm "$1"/limit.out
