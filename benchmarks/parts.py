"""The parts of `python -m benchmarks`: each measures something and tells its ratios.

A part is a function of the options. Those that have a command of their own (`Outside`) run it in a
process and read the result that it writes.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import (
    linear_cost,
    loss_parity,
    preset_rates,
    time_to_quality,
    training_rate,
    two_runs,
)
from benchmarks.program import ROOT, python
from benchmarks.ratios import Ratio
from benchmarks.report import RESULTS_VARIABLE
from engine.machine import short_waits


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


def together(options: Options) -> dict[str, Any]:
    if options.device != "cpu":
        raise NotHere("it is a matter of the processor")
    if not short_waits():
        raise NotHere("on more than two cores threads wait as OpenMP lets them")
    if options.quick:
        return two_runs.measure(rounds=1, seconds=1.0)
    return two_runs.measure()


@dataclass(frozen=True)
class Outside:
    """A benchmark with a command of its own: `python -m benchmarks.MODULE`, which writes
    `<date>-RESULT.json`. `read` finds the ratios in that, as `Ratio.to_dict` gives them. `gpu`: the
    options that make it measure a GPU; None where it knows processors alone."""

    module: str
    result: str
    arguments: tuple[str, ...] = ()
    quick: tuple[str, ...] = ()
    takes_nanogpt: bool = False
    gpu: tuple[str, ...] | None = None
    read: Callable[[dict[str, Any]], list[dict[str, Any]]] = lambda result: result["ratios"]

    def __call__(self, options: Options) -> dict[str, Any]:
        command = python(f"benchmarks.{self.module}", *self.arguments)
        if options.device == "cuda":
            if self.gpu is None:
                raise NotHere("it is a matter of the processor")
            command += self.gpu
        command += self.quick if options.quick else ()
        if self.takes_nanogpt and options.nanogpt is not None:
            command += ["--nanogpt", str(options.nanogpt)]
        with tempfile.TemporaryDirectory() as folder:
            subprocess.run(
                command, cwd=ROOT, check=True, env=os.environ | {RESULTS_VARIABLE: folder}
            )
            [path] = Path(folder).glob(f"????-??-??-{self.result}.json")
            result = json.loads(path.read_text())
        return {"result": result, "ratios": self.read(result)}


def of_drawing(result: dict[str, Any]) -> list[dict[str, Any]]:
    quiet = result["quiet_pairs"]
    ratio = Ratio(
        "The screen",
        "training while the app draws, as a share of headless",
        result["ratio"],
        result["limit"],
        low=min(result["ratios"]),
        high=max(result["ratios"]),
        rounds=quiet or result["pairs"],
        discarded=result["pairs"] - quiet if quiet else 0,
    )
    sent = Ratio(
        "The screen",
        "bytes a second to a terminal of 120×36 while training",
        statistics.median(result["bytes_per_second"]),
        result["bytes_limit"],
        at_least=False,
        rounds=len(result["bytes_per_second"]),
    )
    return [ratio.to_dict(), sent.to_dict()]


def of_paint(result: dict[str, Any]) -> list[dict[str, Any]]:
    title = "first paint, against an empty Textual app"
    limit, pairs = result["limit"], result["pairs"]
    ratio = Ratio("The screen", title, result["ratio"], limit, at_least=False, rounds=pairs)
    return [ratio.to_dict()]


def of_keys(result: dict[str, Any]) -> list[dict[str, Any]]:
    title = "a key answered while training, 99th percentile without escape, in milliseconds"
    value, limit = 1000 * result["p99_without_escape"], 1000 * result["limit"]
    presses = result["presses"]
    ratio = Ratio("The screen", title, value, limit, at_least=False, rounds=presses)
    return [ratio.to_dict()]


def of_plans(result: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        Ratio(
            "The plan",
            f"{what} that was predicted, largest error of configurations it was not fitted to",
            about["largest"],
            about["limit"],
            at_least=False,
            rounds=about["of"],
            note=f"{about['within']} of {about['of']} within; median {about['median']:.1%}",
        ).to_dict()
        for what, about in result["summary"].items()
    ]


SMALL_TEXT = ("--megabytes", "4", "--rounds", "1", "--sizes", "2", "8", "--shapes", "128x4x4")

PARTS: dict[str, Part] = {
    "machine": machine,
    "training": training,
    "presets": presets,
    "quality": quality,
    "generation": Outside("generation", "generation", ("--write",), ("--quick",), True),
    "drawing": Outside(
        "ui_cost",
        "ui-cost",
        quick=("--pairs", "1", "--steps", "60"),
        gpu=("--preset", "medium", "--pairs", "1", "--steps", "150"),
        read=of_drawing,
    ),
    "paint": Outside("first_paint", "first-paint", quick=("--pairs", "2"), read=of_paint),
    "keys": Outside("key_latency", "key-latency", quick=("--presses", "12"), read=of_keys),
    "data": Outside("preparation", "preparation", quick=SMALL_TEXT),
    "saving": Outside("checkpoint_io", "checkpoint-io", quick=("--only", "load", "--rounds", "1")),
    "plan": Outside(
        "plan_accuracy",
        "plan-accuracy",
        ("--mode", "eager"),
        ("--only", "160", "--rounds", "1"),
        read=of_plans,
    ),
    "linear": linear,
    "together": together,
    "loss": loss,
}
"""In the order in which they run: what the others are compared with first."""
