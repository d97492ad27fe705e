"""Seconds to a loss: tiny Shakespeare by characters, our presets against nanoGPT's own recipe.

    python -m benchmarks.time_to_quality --nanogpt DIR --data DIR [--presets char-cpu …]

The same text, the same validation split, the same evaluation (all of it). The sides work in turn, a
few seconds each, so that all meet the same machine. Each side's time runs from its first step and
counts steps alone, ours with all that a run does between them; what evaluating takes counts for
neither. Ours is compiled with an empty cache, and told with and without the wait for the compiler.
The goal is the lowest loss that nanoGPT's recipe reaches.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

from benchmarks import quiet
from benchmarks.program import python
from benchmarks.ratios import Ratio
from benchmarks.training import TEXTS, add_data_option, add_text
from benchmarks.turns import Side, take_turns
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
    with tempfile.TemporaryDirectory() as folder, quiet.Watch() as watch:
        lab = Lab.init(Path(folder))
        corpus = add_text(lab, TEXT, data)
        known = {preset.name for preset in list_presets(lab)}
        chosen = presets or tuple(name for name in PRESETS[device] if name in known)
        recorders: list[Recorder] = []
        if nanogpt is not None and data is not None:
            recorders.append(Peer(nanogpt, data / TEXTS[TEXT][0], device, quick))
        recorders += [Ours(lab, corpus, preset, device, quick) for preset in chosen]
        by_side = {recorder.side: recorder for recorder in recorders}
        for side, record in take_turns(list(by_side)):
            by_side[side].hear(record)
    curves = {side.name: recorder.curve(watch.others) for side, recorder in by_side.items()}
    ratios = [] if quick else compare(curves, device)
    for ratio in ratios:
        print(f"  {ratio}", flush=True)
    missing = [name for name in PRESETS[device] if name not in curves]
    return {"curves": curves, "missing": missing, "ratios": [r.to_dict() for r in ratios]}


class Recorder(ABC):
    """Counts the seconds of one side's steps, and not those of what lies between them."""

    def __init__(self, side: Side) -> None:
        self.side = side
        self.points: list[list[float]] = []
        self.seconds = 0.0

    def stepped(self, start: float, end: float) -> None:
        """It made steps from one moment to another."""
        self.seconds += self.side.worked(start, end)

    def evaluated(self, step: int, loss: float) -> None:
        self.points.append([step, self.seconds, loss])
        print(f"    {self.side.name}, step {step}: {loss:.4f}", flush=True)

    def curve(self, others: float) -> dict[str, Any]:
        """What it told. `others`: share of the machine that other processes took."""
        return _curve(self.points, self.compile_seconds, others)

    @abstractmethod
    def hear(self, record: dict[str, Any]) -> None:
        """What the side has printed."""

    @property
    @abstractmethod
    def compile_seconds(self) -> float:
        """What of its seconds the compiler took."""


class Peer(Recorder):
    """nanoGPT's recipe, by `benchmarks.peers.nanogpt_recipe`."""

    def __init__(self, nanogpt: Path, text: Path, device: str, quick: bool) -> None:
        arguments = ["--checkout", str(nanogpt), "--text", str(text), "--recipe", device]
        arguments += ["--steps", "60"] if quick else []
        super().__init__(Side("nanoGPT", python("benchmarks.peers.nanogpt_recipe", *arguments)))
        self._compiled = device == "cuda"
        self._first = 0.0

    def hear(self, record: dict[str, Any]) -> None:
        if not self.points:
            self._first = self.side.worked(*record["first"])
        self.stepped(record["began"], record["ended"])
        self.evaluated(record["step"], record["val_loss"])

    @property
    def compile_seconds(self) -> float:
        return self._first if self._compiled else 0.0


class Ours(Recorder):
    """A preset's run by the command line, as anybody starts one."""

    def __init__(self, lab: Lab, corpus: str, preset: str, device: str, quick: bool) -> None:
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
        cache = {"TORCHINDUCTOR_CACHE_DIR": str(lab.root / f"compiled-{preset}")}
        super().__init__(Side(preset, command, cache))
        self._steps: list[float] = []
        self._counted = 0.0  # seconds of those steps
        self._since = 0.0  # the moment of the last thing told

    def hear(self, record: dict[str, Any]) -> None:
        event = record.get("event")
        if event == "run_started":
            self._since = record["time"]
        elif event == "eval_done":
            self.stepped(self._since, record["time"] - record["seconds"])
            self._since = record["time"]
            self.evaluated(record["step"], record["val_loss"])
        elif event == "failed":
            raise RuntimeError(f"preset {self.side.name}: {record['title']}")
        elif "tokens_per_second" in record:
            self.stepped(self._since, record["time"])
            self._since = record["time"]
            self._steps.append(self.seconds - self._counted)
            self._counted = self.seconds

    @property
    def compile_seconds(self) -> float:
        return compiling(self._steps)


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
