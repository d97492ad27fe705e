"""Preset `char-cpu` on tiny Shakespeare, five seeds: the loss over the whole validation split.

    python -m benchmarks.char_cpu --text path/to/input.txt

nanoGPT's own code at the same shape, batch and number of steps ends at 1.912 over the whole split
(its README says 1.88, from 20 sampled batches). Each seed is a fresh `tui-lab train`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.report import machine_facts, write_result

TARGET = 1.90


def tui_lab(lab: Path, *arguments: str) -> str:
    command = [sys.executable, "-m", "tui_lab", "--lab", str(lab), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def train(lab: Path, seed: int, extra: list[str]) -> dict[str, float]:
    """One run's last evaluation, which is over the whole validation split."""
    started = time.perf_counter()
    lines = tui_lab(
        lab, "train", "--config", "char-cpu", "--seed", str(seed), "--no-save", "--json", *extra
    )
    records = [json.loads(line) for line in lines.splitlines()]
    evaluations = [record for record in records if record.get("event") == "eval_done"]
    finished = records[-1]
    assert finished["event"] == "finished" and finished["reason"] == "completed"
    return {
        "seed": seed,
        "val_loss": evaluations[-1]["val_loss"],
        "steps": finished["step"],
        "training_seconds": round(finished["seconds"], 1),
        "wall_seconds": round(time.perf_counter() - started, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--text", type=Path, required=True, help="tiny Shakespeare's input.txt")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--set", action="append", default=[], help="a field, as in tui-lab train")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        lab = Path(folder)
        tui_lab(lab, "corpus", "fetch", "tinyshakespeare", "--from", str(options.text))
        extra = [part for setting in options.set for part in ("--set", setting)]
        runs = []
        for seed in range(1, options.seeds + 1):
            runs.append(train(lab, seed, extra))
            print(runs[-1], flush=True)
    losses = [run["val_loss"] for run in runs]
    result = {
        **machine_facts(),
        "preset": "char-cpu",
        "settings": options.set,
        "runs": runs,
        "mean_val_loss": statistics.mean(losses),
        "stdev": statistics.stdev(losses) if len(losses) > 1 else 0.0,
        "target": TARGET,
    }
    print(f"mean {result['mean_val_loss']:.4f} ± {result['stdev']:.4f} (target {TARGET})")
    write_result("char_cpu", result)


if __name__ == "__main__":
    main()
