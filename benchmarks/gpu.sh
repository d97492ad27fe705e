#!/usr/bin/env bash
# Everything that a GPU can show, in one call of under eight minutes:
#
#   benchmarks/gpu.sh [--nanogpt DIR] [--data DIR] [--out DIR] [--device cuda] [--quick]
#                     [--only "PART …"]
#
# Correctness on the card; training against nanoGPT (with --nanogpt: compiled, flash attention) and
# MFU; MFU, generation and memory of medium and llama-1b; the app in a pseudo-terminal against
# headless. Each part has a time limit and leaves the others alone; figures go to a file in --out
# (default: benchmarks/results) as each part ends. Time to quality takes minutes more and has a call
# of its own: --only quality. On a processor, to see that it works: --quick --device cpu.
set -uo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
device=cuda quick=() out="" only="" passed=()
while (($#)); do
  case $1 in
    --nanogpt | --data) passed+=("$1" "$2"); shift 2 ;;
    --out) out=$2; shift 2 ;;
    --device) device=$2; shift 2 ;;
    --only) only=$2; shift 2 ;;
    --quick) quick=(--quick); shift ;;
    *) echo "unknown option $1" >&2; exit 2 ;;
  esac
done
if [[ $device == cuda ]]; then
  nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader || {
    echo "no NVIDIA GPU here: for a trial on the processor pass --quick --device cpu" >&2
    exit 2
  }
fi
if [[ -z $out ]]; then
  out=benchmarks/results
  ((${#quick[@]})) && out=$(mktemp -d)
fi
mkdir -p "$out"
end=$((SECONDS + 470)) failed=0

# part LIMIT NAME COMMAND…: at most LIMIT seconds, and no more than are left.
part() {
  local limit=$1 name=$2 left=$((end - SECONDS))
  shift 2
  if [[ -n $only && " $only " != *" $name "* ]]; then return; fi
  ((left < limit)) && limit=$left
  if ((limit < 15)); then
    echo "== $name: no time left"
    failed=1
    return
  fi
  echo "== $name (at most $limit s)"
  timeout -k 10 "$limit" "$@"
  local code=$?
  if ((code == 124 || code == 137)); then echo "== $name took too long and was ended"; fi
  ((code)) && failed=1
}
measure() { # LIMIT PART
  part "$1" "$2" "$python" -m benchmarks --device "$device" --out "$out" --only "$2" \
    ${quick[@]+"${quick[@]}"} ${passed[@]+"${passed[@]}"}
}

part 100 correctness "$python" -m pytest tests/engine/test_gpu.py -m gpu -q -p no:cacheprovider
measure 60 machine
measure 170 training
measure 150 presets
measure 170 drawing
[[ " $only " == *" quality "* ]] && measure 460 quality
echo "results are in $out"
exit $failed
