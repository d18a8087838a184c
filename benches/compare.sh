#!/usr/bin/env bash
# headroom beside its peers, in turn and in one go: benches/compare.sh [ROUNDS]
# The notebook's loop on mlx-lm, llama.cpp, candle, and the `gemm` crate for products; docs/performance.md says how equal they are.
# Peers and models are built or fetched into target/peers; HEADROOM_MODELS=DIR names a folder that has smollm2-g64,
# smollm2.gguf and a venv with mlx-lm already. A peer that cannot be had is said to be missing, and the rest goes on.
set -euo pipefail
cd "$(dirname "$0")/.."
rounds=${1:-3}
peers=$PWD/benches/peers
built=$PWD/target/peers
mkdir -p "$built"
missing() {
  echo "compare: without $1: $2" >&2
}

models=${HEADROOM_MODELS:-$built/models}
if [[ ! -f $models/smollm2-g64/config.json || ! -f $models/smollm2.gguf || ! -x $models/venv/bin/python ]]; then
  models=$built/models
  if [[ ! -x $models/venv/bin/mlx_lm.convert ]]; then
    python3 -m venv "$models/venv"
    "$models/venv/bin/pip" install -q -r "$peers/requirements.txt"
  fi
  "$models/venv/bin/python" "$peers/make_models.py" "$models"
fi

# Cargo says where it put the bench.
ours=$(cargo bench --bench ours --no-run --message-format json | sed -n 's/.*"name":"ours".*"executable":"\([^"]*\)".*/\1/p')

# Peers choose some of their kernels when they are compiled: they get this machine's.
export RUSTFLAGS="-C target-cpu=native"
gemm=-
if cargo build --release --locked --target-dir "$built" --manifest-path "$peers/gemm/Cargo.toml"; then
  gemm=$built/release/peer-gemm
else
  missing gemm "its crate did not build"
fi
candle=-
if cargo build --release --locked --target-dir "$built" --manifest-path "$peers/candle/Cargo.toml"; then
  candle=$built/release/peer-candle
else
  missing candle "its crate did not build"
fi
llamacpp=-
if command -v npm >/dev/null; then
  # The prebuilt library is an optional dependency, of which there is one for each system and GPU: the one for this CPU is
  # named, the others stay away. Scripts would build another.
  system=$(node -p 'process.platform.replace("darwin", "mac").replace("win32", "win") + "-" + process.arch')
  [[ $system != mac-arm64 ]] || system=mac-arm64-metal
  cp "$peers/package.json" "$peers/llamacpp.mjs" "$built/"
  if (cd "$built" && npm install --ignore-scripts --omit=optional --silent --no-audit --no-fund "@node-llama-cpp/$system@3.22.1"); then
    llamacpp=$built/llamacpp.mjs
  else
    missing llama.cpp "npm could not install node-llama-cpp"
  fi
else
  missing llama.cpp "no npm"
fi

python3 "$peers/compare.py" "$rounds" "$ours" "$models/smollm2-g64" "$models/smollm2.gguf" "$gemm" "$candle" \
  "$llamacpp" "$models/venv/bin/python" "$peers/notebook_loop.py"
