#!/usr/bin/env bash
# Everything that a GPU can show, in one call of under eight minutes:
#   benchmarks/gpu.sh [FOLDER FOR RESULTS]
# Correctness on the card, training rate and MFU of three presets, memory against the plan, and the
# app in a pseudo-terminal against headless training. Needs an environment with tui-lab installed.
set -uo pipefail
cd "$(dirname "$0")/.."
out=${1:-benchmarks/results}
mkdir -p "$out"
stamp=$(date +%Y-%m-%d)
python=${PYTHON:-python3}
lab=$(mktemp -d)
trap 'rm -rf "$lab"' EXIT
nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader || {
  echo "no NVIDIA GPU here" >&2
  exit 2
}

echo "== correctness"
timeout 120 "$python" -m pytest tests/engine/test_gpu.py -m gpu -q 2>&1 | tail -5

echo "== training: rate, MFU, memory"
for preset in medium modern-medium moe-nano; do
  for compile in false true; do
    log="$out/$stamp-gpu-$preset-compile-$compile.jsonl"
    timeout 90 "$python" -m tui_lab --lab "$lab" train --config "$preset" --corpus python-stdlib \
      --device cuda --max-steps 120 --eval-every 0 --no-save --json \
      --set data.tokenizer=bpe --set train.compile="$compile" --set sample.every=0 >"$log" || true
    "$python" - "$log" "$preset" "$compile" <<'PY'
import json, statistics, sys
records = [json.loads(line) for line in open(sys.argv[1])]
steps = [record for record in records if "event" not in record][40:]
if steps:
    rate = statistics.median(step["tokens_per_second"] for step in steps)
    mfu = statistics.median(step["mfu"] or 0 for step in steps)
    memory = max(step["memory_bytes"] for step in steps) / 1e9
    print(f"{sys.argv[2]:8} compile {sys.argv[3]:5} {rate:12,.0f} tokens/s  MFU {mfu:.2f}  {memory:.2f} GB")
PY
  done
done

echo "== the app against headless, in a pseudo-terminal"
timeout 150 "$python" -m benchmarks.ui_cost --pairs 3 2>&1 | tail -5
