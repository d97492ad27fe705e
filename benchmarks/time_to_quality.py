"""Seconds to a loss: tiny Shakespeare by characters, our presets against nanoGPT's own recipe.

    python -m benchmarks.time_to_quality --nanogpt DIR --data DIR [--presets char-cpu …]

The same text, the same validation split, the same evaluation (all of it). Each side's time runs
from its first step and counts steps alone, ours with all that a run does between them; what
evaluating takes counts for neither. Ours is compiled with an empty cache, and told with and
without the wait for the compiler. The goal is the lowest loss that nanoGPT's recipe reaches.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks import quiet
from benchmarks.interleave import ROOT, python
from benchmarks.ratios import Ratio
from benchmarks.training import TEXTS, add_data_option, add_text
from engine.config import list_presets, load_preset
from engine.lab import Lab

TEXT = "tinyshakespeare"
PRESETS = {"cpu": ("char-cpu", "speedrun-micro"), "cuda": ("char", "speedrun-char")}
SPEEDRUN = "speedrun"
"""Presets whose names begin so are those that the targets are for."""
SHARE = {"cpu": 1 / 5, "cuda": 1 / 3}
"""Of the peer's time, in which its own lowest loss is to be reached."""
GOOD = {"cpu": (1.60, 1.0), "cuda": (1.4697, 1 / 3)}
"""A loss to reach within that share of the peer's whole time; on a GPU it is the best that nanoGPT
publishes."""
LOOKS = 80
"""Evaluations of one of our runs: a goal is found at most an eightieth of the run late."""
STALL = 5.0
"""A step that took so many times the median, and half a second, waited for the compiler."""


def measure(
    nanogpt: Path | None,
    data: Path | None,
    device: str,
    *,
    presets: tuple[str, ...] = (),
    quick: bool = False,
) -> dict[str, Any]:
    """Both sides' curves, and how long each took. `quick`: a few steps, which reach nothing."""
    curves: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as folder:
        lab = Lab.init(Path(folder))
        corpus = add_text(lab, TEXT, data)
        known = {preset.name for preset in list_presets(lab)}
        chosen = presets or tuple(name for name in PRESETS[device] if name in known)
        if nanogpt is not None and data is not None:
            curves["nanoGPT"] = _peer(nanogpt, data / TEXTS[TEXT][0], device, quick)
        for preset in chosen:
            curves[preset] = _ours(lab, corpus, preset, device, quick)
    ratios = [] if quick else compare(curves, device)
    for ratio in ratios:
        print(f"  {ratio}", flush=True)
    missing = [name for name in PRESETS[device] if name not in curves]
    return {"curves": curves, "missing": missing, "ratios": [r.to_dict() for r in ratios]}


def _peer(nanogpt: Path, text: Path, device: str, quick: bool) -> dict[str, Any]:
    arguments = ["--checkout", str(nanogpt), "--text", str(text), "--recipe", device]
    arguments += ["--steps", "60"] if quick else []
    points, last = [], {"slowest": 0.0}
    with quiet.Watch() as watch:
        for record in _lines(python("benchmarks.peers.nanogpt_recipe", *arguments)):
            points.append([record["step"], record["seconds"], record["val_loss"]])
            last = record
            print(f"    nanoGPT, step {record['step']}: {record['val_loss']:.4f}", flush=True)
    return _curve(points, last["slowest"] if device == "cuda" else 0.0, watch.others)


def _ours(lab: Lab, corpus: str, preset: str, device: str, quick: bool) -> dict[str, Any]:
    """A run by the command line, as anybody starts one."""
    steps = 60 if quick else load_preset(lab, preset).train.max_steps
    settings = {
        "train.max_steps": steps,
        "train.eval_every": max(1, steps // (2 if quick else LOOKS)),
        "train.eval_tokens": 0,
        "data.corpus": corpus,
        "sample.every": 0,
        "save.policy": "none",
    }
    command = [sys.executable, "-m", "tui_lab", "--lab", str(lab.root), "train", "--json"]
    command += ["--config", preset, "--device", device]
    command += [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    points: list[list[float]] = []
    steps_seconds: list[float] = []
    began = evaluating = 0.0
    tokens = 0
    with tempfile.TemporaryDirectory() as cache, quiet.Watch() as watch:
        for record in _lines(command, TORCHINDUCTOR_CACHE_DIR=cache):
            if record.get("event") == "run_started":
                began = record["time"]
            elif record.get("event") == "eval_done":
                evaluating += record["seconds"]
                seconds = record["time"] - began - evaluating
                points.append([record["step"], seconds, record["val_loss"]])
            elif record.get("event") == "failed":
                raise RuntimeError(f"preset {preset}: {record['title']}")
            elif "tokens_per_second" in record:
                steps_seconds.append((record["tokens"] - tokens) / record["tokens_per_second"])
                tokens = record["tokens"]
    curve = _curve(points, compiling(steps_seconds), watch.others)
    print(f"    {preset}: {curve['lowest']:.4f} after {curve['seconds']:.1f} s", flush=True)
    return curve


def compiling(seconds: list[float]) -> float:
    """Of the times of single steps, what the compiler took."""
    usual = statistics.median(seconds)
    return sum(taken - usual for taken in seconds if taken > max(STALL * usual, 0.5))


def _curve(points: list[list[float]], compile_seconds: float, others: float) -> dict[str, Any]:
    """Points are [step, seconds, loss]."""
    if not points:
        raise RuntimeError("a side has ended without an evaluation")
    return {
        "points": points,
        "seconds": points[-1][1],
        "lowest": min(point[2] for point in points),
        "compile_seconds": compile_seconds,
        "others": round(others, 4),
    }


def reached(curve: dict[str, Any], loss: float) -> float | None:
    """Seconds until the first evaluation at `loss` or below, compiling included; None if never."""
    return next((seconds for _, seconds, found in curve["points"] if found <= loss), None)


def compare(curves: dict[str, dict[str, Any]], device: str) -> list[Ratio]:
    """Our time as a share of nanoGPT's, with and without compiling (each side's own)."""
    peer = curves.get("nanoGPT")
    if peer is None:
        return []
    ratios = []
    own = reached(peer, peer["lowest"])
    assert own is not None
    good, share = GOOD[device]
    goals = (
        (peer["lowest"], SHARE[device], own, "its time"),
        (good, share, peer["seconds"], "its whole time"),
    )
    for preset, curve in curves.items():
        if curve is peer:
            continue
        aimed = preset.startswith(SPEEDRUN)
        for loss, target, of, what in goals:
            taken = reached(curve, loss)
            for included in (True, False):
                value = None
                if taken is not None:
                    without = 0.0 if included else curve["compile_seconds"]
                    value = (taken - without) / (
                        of - (0.0 if included else peer["compile_seconds"])
                    )
                word = "included" if included else "excluded"
                ratios.append(
                    Ratio(
                        "Time to quality",
                        f"{preset} to a loss of {loss:.4g}, compiling {word}, as a share of {what}",
                        value,
                        target if aimed else None,
                        at_least=False,
                        note="" if taken is not None else f"lowest {curve['lowest']:.4f}",
                    )
                )
    return ratios


def _lines(command: list[str], **environment: str) -> Iterator[dict[str, Any]]:
    """The JSON lines that a command prints. Raises RuntimeError, with its last words, if it
    fails."""
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env=os.environ | environment,
        )
        assert process.stdout is not None
        try:
            for line in process.stdout:
                if line.startswith("{"):
                    yield json.loads(line)
        finally:
            process.stdout.close()
            code = process.wait()
        if code:
            errors.seek(0)
            raise RuntimeError(f"{' '.join(command[1:4])} … failed:\n{errors.read()[-2000:]}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nanogpt", type=Path, help="a checkout of nanoGPT")
    add_data_option(parser)
    parser.add_argument("--presets", nargs="*", default=(), help="ours; by default both there are")
    parser.add_argument("--device", default="cpu", choices=PRESETS)
    parser.add_argument("--quick", action="store_true", help="a few steps, to see that it works")
    options = parser.parse_args()
    measure(
        options.nanogpt,
        Path(options.data) if options.data else None,
        options.device,
        presets=tuple(options.presets),
        quick=options.quick,
    )


if __name__ == "__main__":
    main()
