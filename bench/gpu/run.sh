#!/usr/bin/env bash
# Proves and times the CUDA kernels and the training on a GPU, with PyTorch beside them, in at most eight minutes. Nothing is
# built or fetched here: bench/gpu/build.sh has made the programs. Each part has a limit of its own, and what fails or runs out
# costs no other.
#
#   bash bench/gpu/run.sh OUT      writes report.json, report.md and the parts' own files into OUT
#   SMOKE=1 bash bench/gpu/run.sh OUT    on the CPU: the peer with a tiny model, nothing of ours
set -uo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
out=${1:?usage: run.sh OUT}
mkdir -p "$out" && out=$(cd "$out" && pwd)
python=${PYTHON:-python3}
smoke=${SMOKE:+--smoke}
begin=$SECONDS
end=$((SECONDS + ${BUDGET:-470}))
: >"$out/parts.tsv"

part() { # NAME SECONDS COMMAND…: its output in NAME.log, its end in parts.tsv
  local name=$1 most=$2 left=$((end - SECONDS)) start=$SECONDS code
  shift 2
  if [ "$left" -lt 5 ]; then
    printf '%s\tleft out\t0\n' "$name" >>"$out/parts.tsv"
    return
  fi
  timeout --kill-after=5 "$((most < left ? most : left))" "$@" >"$out/$name.log" 2>&1
  code=$?
  printf '%s\t%s\t%s\n' "$name" "$code" "$((SECONDS - start))" >>"$out/parts.tsv"
  echo "$name: exit $code after $((SECONDS - start)) s"
  [ "$code" = 0 ] || tail -5 "$out/$name.log"
}

if [ -z "$smoke" ]; then
  export ZEPHYR_GOLDEN=$here/bin/golden ZEPHYR_REPORT=$out/golden.json
  # One thread: the proofs share one card.
  part proofs 100 "$here/bin/proofs" --test-threads=1
  part sessions 50 "$here/bin/sessions" on_a_device --include-ignored --test-threads=1
  part speed 140 "$here/bin/speed" "$out/speed.json" 110
  part clock 40 "$here/bin/clock" "$out/clock.json"
fi
part peer 160 "$python" "$here/peer.py" --out "$out/peer.json" --budget "${PEER_BUDGET:-140}" $smoke
"$python" "$here/report.py" "$out"
echo "all of it: $((SECONDS - begin)) s"
