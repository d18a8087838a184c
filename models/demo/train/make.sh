#!/usr/bin/env bash
# Remakes the demo model from nothing but this folder: text, vocabulary, training, 4-bit conversion, evaluation.
#   train/make.sh [BUILD_DIR]     (default: a folder beside this one that git ignores)
# Needs python3.11 or newer with venv, the network for pip only, and about half an hour on two cores.
# The checkpoint in models/demo is replaced only when it answers well enough after quantization.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
demo=$(dirname "$here")
build=${1:-$here/build}
mkdir -p "$build"
[[ -x $build/venv/bin/mlx_lm.convert ]] || { python3 -m venv "$build/venv"; "$build/venv/bin/pip" install -q -r "$here/requirements.txt"; }
py=$build/venv/bin/python
rm -rf "$build/hf" "$build/mlx"

"$py" "$here/make_tokenizer.py" "$build/hf"
"$py" "$here/train.py" "$build/hf"
"$build/venv/bin/mlx_lm.convert" --hf-path "$build/hf" --mlx-path "$build/mlx" -q --q-bits 4 --q-group-size 64
rm -f "$build/mlx/README.md"                       # the model card is ours
"$py" "$here/make_lists.py"
"$py" "$here/evaluate.py" "$build/mlx" heldout
"$py" "$here/evaluate.py" "$build/mlx" suite
cp "$build"/mlx/* "$demo/"
"$py" "$here/evaluate.py" "$demo" reference
ls -l "$demo"
