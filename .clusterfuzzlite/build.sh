#!/bin/bash -eu
# Builds every fuzz target with its seeds and dictionary, where ClusterFuzzLite looks for them.
cd "$SRC/headroom"
cargo fuzz build -O
for target in $(cargo fuzz list); do
  cp "fuzz/target/x86_64-unknown-linux-gnu/release/$target" "$OUT/"
  (cd "fuzz/seeds/$target" && zip -q "$OUT/${target}_seed_corpus.zip" ./*)
  if [[ -f fuzz/dictionaries/$target.dict ]]; then
    cp "fuzz/dictionaries/$target.dict" "$OUT/"
  fi
done
