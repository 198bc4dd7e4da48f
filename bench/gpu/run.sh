#!/usr/bin/env bash
# Proves and times the CUDA kernels and the training on a GPU, with PyTorch beside them, in at most eight minutes. Nothing is
# built or fetched here: bench/gpu/build.sh has made the programs. Each part has a limit of its own, and what fails or runs out
# costs no other.
#
#   bash bench/gpu/run.sh OUT      writes report.json, report.md, the parts' own numbers and logs.txt into OUT: seven files
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
  # PyTorch's own CUDA libraries, wherever this Python has them.
  libraries=$("$python" -c 'import glob, sysconfig; print(":".join(glob.glob(sysconfig.get_paths()["purelib"] + "/nvidia/*/lib")))')
  export LD_LIBRARY_PATH=$libraries${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
  # One thread: the proofs share one card.
  part proofs 100 "$here/bin/proofs" --test-threads=1
  part sessions 50 "$here/bin/sessions" on_a_device --include-ignored --test-threads=1
  part speed 140 "$here/bin/speed" "$out/speed.json" 110
  part clock 40 "$here/bin/clock" "$out/clock.json"
fi
# It stops by itself before it is stopped.
left=$((end - SECONDS - 15))
budget=${PEER_BUDGET:-$((left < 145 ? left : 145))}
part peer 160 "$python" "$here/peer.py" --out "$out/peer.json" --budget "$budget" $smoke
"$python" "$here/report.py" "$out"
(cd "$out" && tail -n +1 parts.tsv ./*.log >logs.txt && rm parts.tsv ./*.log)
echo "all of it: $((SECONDS - begin)) s"
