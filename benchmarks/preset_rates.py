"""Presets as they are: share of the peak in training, of the memory's rate in generating, and what
was predicted of their memory.

    python -m benchmarks.preset_rates [--device cuda] [--presets medium llama-1b]
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from typing import Any

from benchmarks.interleave import interleave, our_side, spread
from benchmarks.program import ROOT
from benchmarks.ratios import Ratio
from engine.config import load_preset
from engine.lab import Lab
from engine.survey import plan_run

PRESETS = {"cuda": ("medium", "llama-1b"), "cpu": ("micro",)}
MFU = {"medium": 0.50, "llama-1b": 0.60}
ROOFLINE = 0.6
MEMORY_ERROR = 0.10
"""Targets, on a GPU."""


def measure(
    device: str, presets: tuple[str, ...] = (), *, rounds: int = 4, seconds: float = 3.0
) -> dict[str, Any]:
    """Each preset in turn; the others of the list are measured although one fails."""
    found: dict[str, dict[str, Any]] = {}
    ratios: list[Ratio] = []
    failed: dict[str, str] = {}
    for preset in presets or PRESETS[device]:
        try:
            found[preset] = _measure(preset, device, rounds, seconds)
        except RuntimeError as error:  # most of all: it does not fit this device
            failed[preset] = str(error)
            print(f"    {preset}: {error}", flush=True)
            continue
        ratios += compare(preset, found[preset], device)
    for ratio in ratios:
        print(f"  {ratio}", flush=True)
    return {"presets": found, "failed": failed, "ratios": [ratio.to_dict() for ratio in ratios]}


def _measure(preset: str, device: str, rounds: int, seconds: float) -> dict[str, Any]:
    with our_side(preset, "--preset", preset, "--device", device) as worker:
        course = interleave({preset: worker}, rounds=rounds, seconds=seconds)
        facts = worker.facts
    rates = course.rates(preset)
    peak = course.peak(preset)
    flops = statistics.median(rates) * facts["flops_per_token"]
    lab = Lab(ROOT)
    planned = plan_run(lab, load_preset(lab, preset), device)
    return {
        **facts,
        "tokens_per_second": spread(rates),
        "peak_flops": peak,
        "mfu": flops / peak if peak else None,
        "discarded": course.discarded,
        "memory_bytes": course.windows[-1][preset]["peak_memory_bytes"],
        "memory_planned": planned.memory.total,
        "generation": _generation(preset, device),
    }


def _generation(preset: str, device: str) -> dict[str, Any]:
    """What `tui-lab bench` finds of the preset's generation."""
    command = [sys.executable, "-m", "tui_lab", "bench", "--json", "--quick", "--device", device]
    done = subprocess.run(
        [*command, "--config", preset], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    if done.returncode:
        raise RuntimeError(f"tui-lab bench --config {preset} failed")
    findings = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    return next(f for f in findings if f["what"] == "generation" and f["name"] == preset)


def compare(preset: str, found: dict[str, Any], device: str) -> list[Ratio]:
    """The preset's ratios; aimed at on a GPU alone, for which these presets are made."""
    on_gpu = device == "cuda"
    error = found["memory_planned"] / found["memory_bytes"] - 1
    made = found["generation"]
    ratios = [
        Ratio(
            "Generation",
            f"{preset}, one text, as a share of what reading the weights allows",
            made["roofline"],
            ROOFLINE if on_gpu else None,
        ),
        Ratio(
            "The plan",
            f"{preset}, error of the predicted memory",
            abs(error),
            MEMORY_ERROR if on_gpu else None,
            at_least=False,
            note=f"{found['memory_planned'] / 1e9:.2f} GB for {found['memory_bytes'] / 1e9:.2f}",
        ),
    ]
    if found["mfu"] is not None:
        title = f"{preset}, share of the measured {found['precision']} matmul peak"
        target = MFU.get(preset) if on_gpu else None
        ratios.insert(0, Ratio("Training", title, found["mfu"], target))
    return ratios


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda", choices=PRESETS)
    parser.add_argument("--presets", nargs="*", default=())
    options = parser.parse_args()
    measure(options.device, tuple(options.presets))


if __name__ == "__main__":
    main()
