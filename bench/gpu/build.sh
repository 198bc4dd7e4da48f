#!/usr/bin/env bash
# Builds what bench/gpu/run.sh carries to a machine with a GPU: the proofs of kernels and of sessions, and the clocks of both, as
# programs that need no CUDA library to start, with the golden runs. Needs a CUDA toolkit (scripts/cuda.mjs finds or makes
# one) and no GPU.
#
#   bash bench/gpu/build.sh        into bench/gpu/bin
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
out=$root/bench/gpu/bin
golden=${ZEPHYR_GOLDEN:-$root/../shared/golden}
# 64 MiB can be carried to a borrowed machine, of which the checkout takes nine.
limit=$((54 * 1024 * 1024))

cd "$root"
rm -rf "$out"
mkdir -p "$out"
# One build, so that the kernels are compiled once; cargo tells where the programs lie.
built=$(node scripts/cuda.mjs cargo test --release --locked -p zephyr-kernels -p zephyr-align \
  --features zephyr-kernels/card,zephyr-align/card --lib --test emulated --bench clock --bench speed \
  --no-run --message-format=json-render-diagnostics | grep -o '"executable":"[^"]*"' | cut -d'"' -f4)
for program in emulated:proofs zephyr_align:sessions clock:clock speed:speed; do
  install -s "$(grep "/${program%:*}-" <<<"$built")" "$out/${program#*:}"
done

for name in proofs sessions clock speed; do
  if readelf -d "$out/$name" | grep -E 'NEEDED.*lib(cu|nv)'; then
    echo "$name is linked to CUDA, so it starts only where that is" >&2
    exit 1
  fi
done
if [ -d "$golden" ]; then
  for folder in tokenizer window headdim; do
    (cd "$golden" && find "$folder" -type f -exec install -Dm644 {} "$out/golden/{}" \;)
  done
else
  echo "$golden is missing (ZEPHYR_GOLDEN): the golden runs are left out" >&2
fi
size=$(du -cb "$out" | tail -1 | cut -f1)
du -b "$out"/*
echo "bench/gpu/bin: $((size / 1024)) KiB"
[ "$size" -le "$limit" ] || { echo "more than the 54 MiB that can be carried beside the checkout" >&2; exit 1; }
