#!/usr/bin/env bash
# Builds what bench/gpu/run.sh carries to a machine with a GPU: the proofs of the kernels and their clock, as programs that
# need no CUDA library to start. Needs a CUDA toolkit (scripts/cuda.mjs finds or makes one) and no GPU.
#
#   bash bench/gpu/build.sh        into bench/gpu/bin
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
out=$root/bench/gpu/bin
limit=$((64 * 1024 * 1024))

cd "$root"
mkdir -p "$out"
# cargo tells where the programs lie.
built=$(node scripts/cuda.mjs cargo test --release --locked -p zephyr-kernels --features card --test emulated --bench clock \
  --no-run --message-format=json-render-diagnostics | grep -o '"executable":"[^"]*"' | cut -d'"' -f4)
install -s "$(grep '/emulated-' <<<"$built")" "$out/proofs"
install -s "$(grep '/clock-' <<<"$built")" "$out/clock"

for name in proofs clock; do
  if readelf -d "$out/$name" | grep -E 'NEEDED.*lib(cu|nv)'; then
    echo "$name is linked to CUDA, so it starts only where that is" >&2
    exit 1
  fi
done
size=$(du -cb "$out"/* | tail -1 | cut -f1)
echo "bench/gpu/bin: $((size / 1024)) KiB"
[ "$size" -le "$limit" ] || { echo "more than the 64 MiB that can be carried" >&2; exit 1; }
