"""The parts of `python -m benchmarks`: each measures something and tells its ratios.

A part is a function of the options. Those that have a command of their own (`Outside`) run it in a
process and read the result that it writes.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import linear_cost, loss_parity, preset_rates, time_to_quality, training_rate
from benchmarks.interleave import ROOT, python
from benchmarks.ratios import Ratio
from benchmarks.report import RESULTS_VARIABLE


@dataclass(frozen=True)
class Options:
    """What `python -m benchmarks` was asked for. `device`: cpu or cuda."""

    device: str
    nanogpt: Path | None = None
    data: Path | None = None
    quick: bool = False


Part = Callable[[Options], dict[str, Any]]
"""Returns figures, with `ratios` among them: a list of `Ratio.to_dict`."""


class NotHere(Exception):
    """A part needs something that was not given; the words say what."""


def machine(options: Options) -> dict[str, Any]:
    """`tui-lab bench`, as a user runs it."""
    command = [sys.executable, "-m", "tui_lab", "bench", "--json", "--device", options.device]
    command += ["--quick"] if options.quick else []
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    findings = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    for finding in findings:
        print(f"    {finding['what']} {finding['name']}", flush=True)
    return {"findings": findings, "ratios": []}


def training(options: Options) -> dict[str, Any]:
    return training_rate.measure(options.nanogpt, options.device, quick=options.quick)


def presets(options: Options) -> dict[str, Any]:
    if options.quick:
        return preset_rates.measure(options.device, rounds=2, seconds=0.5)
    return preset_rates.measure(options.device)


def loss(options: Options) -> dict[str, Any]:
    if options.quick:
        return loss_parity.measure(options.data, options.device, seeds=2, steps=40)
    return loss_parity.measure(options.data, options.device)


def quality(options: Options) -> dict[str, Any]:
    if options.data is None:
        raise NotHere("tiny Shakespeare: pass --data DIR")
    return time_to_quality.measure(
        options.nanogpt, options.data, options.device, quick=options.quick
    )


def linear(options: Options) -> dict[str, Any]:
    if options.quick:
        steps = linear_cost.QUICK_STEPS
        return linear_cost.measure(steps, options.device, rounds=2, seconds=0.3)
    return linear_cost.measure(linear_cost.STEPS, options.device)


@dataclass(frozen=True)
class Outside:
    """A benchmark with a command of its own: `python -m benchmarks.MODULE`, which writes
    `<date>-RESULT.json`. `read` finds the ratios in that."""

    module: str
    result: str
    read: Callable[[dict[str, Any]], list[Ratio]]
    arguments: tuple[str, ...] = ()
    quick: tuple[str, ...] = ()
    takes_nanogpt: bool = False

    def __call__(self, options: Options) -> dict[str, Any]:
        command = python(f"benchmarks.{self.module}", *self.arguments)
        command += self.quick if options.quick else ()
        if self.takes_nanogpt and options.nanogpt is not None:
            command += ["--nanogpt", str(options.nanogpt)]
        with tempfile.TemporaryDirectory() as folder:
            subprocess.run(
                command, cwd=ROOT, check=True, env=os.environ | {RESULTS_VARIABLE: folder}
            )
            [path] = Path(folder).glob(f"????-??-??-{self.result}.json")
            result = json.loads(path.read_text())
        ratios = self.read(result)
        for ratio in ratios:
            print(f"  {ratio}", flush=True)
        return {"result": result, "ratios": [ratio.to_dict() for ratio in ratios]}


def of_generation(result: dict[str, Any]) -> list[Ratio]:
    return [
        Ratio("Generation", f"384×6×6 against {peer}", result["times_as_fast"][peer], target)
        for peer, target in result["targets"].items()
    ]


def of_drawing(result: dict[str, Any]) -> list[Ratio]:
    return [
        Ratio(
            "The screen",
            "training while the app draws, as a share of headless",
            result["ratio"],
            result["limit"],
            low=min(result["ratios"]),
            high=max(result["ratios"]),
            rounds=result["quiet_pairs"] or result["pairs"],
            discarded=result["pairs"] - result["quiet_pairs"] if result["quiet_pairs"] else 0,
        )
    ]


def of_paint(result: dict[str, Any]) -> list[Ratio]:
    title = "first paint, against an empty Textual app"
    limit, pairs = result["limit"], result["pairs"]
    return [Ratio("The screen", title, result["ratio"], limit, at_least=False, rounds=pairs)]


def of_keys(result: dict[str, Any]) -> list[Ratio]:
    title = "a key answered while training, 99th percentile without escape, in milliseconds"
    value, limit = 1000 * result["p99_without_escape"], 1000 * result["limit"]
    presses = result["presses"]
    return [Ratio("The screen", title, value, limit, at_least=False, rounds=presses)]


def of_saving(result: dict[str, Any]) -> list[Ratio]:
    title = f"a save every {result['seconds_between_saves']:g} s, as a share of training"
    low, high = result["cost_95_percent_interval"]
    return [
        Ratio(
            "Saving",
            title,
            result["cost"],
            result["limit"],
            at_least=False,
            low=low,
            high=high,
            rounds=result["saves_counted"],
            discarded=result["saves"] - result["saves_counted"],
        )
    ]


PARTS: dict[str, Part] = {
    "machine": machine,
    "training": training,
    "presets": presets,
    "quality": quality,
    "generation": Outside(
        "generation",
        "generation",
        of_generation,
        ("--write",),
        ("--rounds", "2"),
        takes_nanogpt=True,
    ),
    "drawing": Outside("ui_cost", "ui-cost", of_drawing, quick=("--pairs", "1", "--steps", "60")),
    "paint": Outside("first_paint", "first-paint", of_paint, quick=("--pairs", "2")),
    "keys": Outside("key_latency", "key-latency", of_keys, quick=("--presses", "12")),
    "saving": Outside(
        "background_save", "background-save", of_saving, ("--saves", "8"), ("--saves", "2")
    ),
    "linear": linear,
    "loss": loss,
}
"""In the order in which they run: what the others are compared with first."""
