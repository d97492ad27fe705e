"""What saving in the background costs training: preset `nano`, one save every 30 s, against none.

    python -m benchmarks.background_save [--saves 24] [--apart 3] [--every 30]

One run in one process, which saves at every third step boundary. A step during which nothing is
copied or written is one as under `--no-save`; what a save costs is what the steps that it touches
take beyond the mean of the untouched ones around them (two before, two after). Steps stand so close
together that a drift of the machine touches both alike: comparing windows of half a minute instead
left a spread of 15 % between pairs. The cost of one save every 30 s is the median of the saves over
30 s. Steps during which other processes took more than 3 % of the machine do not count.
"""

from __future__ import annotations

import argparse
import random
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from benchmarks import quiet
from benchmarks.report import machine_facts, write_result
from engine import control, events
from engine.config import Config, load_preset
from engine.config.load import override
from engine.keeper import Boundary, Keeper
from engine.lab import Lab
from engine.session import run_training

LIMIT = 0.02
WARM_UP = 2
"""Saves that find their memory first; they do not count."""


class Writer(Protocol):
    """Who writes as many bytes as a checkpoint has, and nothing else: what a disk costs training
    whoever writes to it."""

    def start(self) -> None: ...

    @property
    def busy(self) -> bool: ...


@dataclass(frozen=True)
class Step:
    """From one step boundary to the next."""

    seconds: float
    save: int | None  # the number of the save that it copied, or during which it was written
    others: float  # share of the machine that other processes took


class Recorder:
    """Stands before the keeper, which is asked to save after every step, and lets few saves by.
    With a `writer` every second save is its."""

    def __init__(
        self, saves: int, apart: int, inbox: control.Inbox, writer: Writer | None = None
    ) -> None:
        self.saves, self.apart, self.inbox, self.writer = saves, apart, inbox, writer
        self.steps: list[Step] = []
        self.by_writer: set[int] = set()
        """Numbers of the saves that were the writer's."""
        self.held: list[float] = []  # seconds that each copy held training
        self._real = Keeper.save
        self._asked = self._saves = 0
        self._touching: int | None = None
        self._watch: quiet.Watch | None = None
        self._began = 0.0

    def save(self, keeper: Keeper, at: Boundary, val_loss: float | None, kind: str) -> None:
        """In the place of `Keeper.save`: once a step, in the training thread."""
        if self._watch is not None:
            self._watch.__exit__(None, None, None)
            step = Step(time.perf_counter() - self._began, self._touching, self._watch.others)
            if self._asked > WARM_UP:
                self.steps.append(step)
            word = "" if step.save is None else f"   touched by save {step.save}"
            print(f"{step.seconds:8.3f} s   others {step.others:.1%}{word}", flush=True)
        if len(self.held) == self.saves + WARM_UP and self._asked % self.apart == 0:
            self.inbox.put(control.Stop(save=False), "benchmark")
        self._watch = quiet.Watch().__enter__()
        self._began = time.perf_counter()
        self._asked += 1
        if not keeper._saver.busy and not (self.writer and self.writer.busy):
            self._touching = None
        if self._asked % self.apart == 0:
            self._touching, self._saves = self._saves, self._saves + 1
            if self.writer is not None and len(self.held) > WARM_UP and self._touching % 2:
                self.by_writer.add(self._touching)
                self.writer.start()
                return
            self._real(keeper, at, val_loss, "rolling")
            self.held.append(time.perf_counter() - self._began)

    def costs(self, *, disturbed: bool = False, by_writer: bool = False) -> list[float]:
        """Seconds that each save cost, of those with quiet steps around. `disturbed`: also of those
        during which others were at work, as the host of a virtual machine is while it writes.
        `by_writer`: the writer's instead of the keeper's."""
        costs = []
        for save in sorted({step.save for step in self.steps if step.save is not None}):
            if save < WARM_UP or (save in self.by_writer) != by_writer:
                continue
            touched = [i for i, step in enumerate(self.steps) if step.save == save]
            around = [
                self.steps[i]
                for i in range(max(0, touched[0] - 2), touched[-1] + 3)
                if i < len(self.steps) and self.steps[i].save is None
            ]
            all_quiet = disturbed or all(self.steps[i].others < quiet.LIMIT for i in touched)
            around = [step.seconds for step in around if step.others < quiet.LIMIT]
            if all_quiet and len(around) >= 2:
                plain = statistics.mean(around)
                costs.append(sum(self.steps[i].seconds - plain for i in touched))
        return costs


SETTINGS = {
    "train.max_steps": 10**7,
    "train.eval_every": 0,
    "train.log_every": 1,
    "sample.every": 0,
    "save.policy": "rolling",
    "save.every": 1,
}
"""What a run has to have so that the recorder is asked after every step, and nothing else is done:
fields by their keys."""


def record(
    lab: Lab, config: Config, saves: int, apart: int, writer: Writer | None = None
) -> tuple[Recorder, list[events.CheckpointSaved]]:
    """Train as `config` (with SETTINGS) says until there were enough saves, every `apart` steps."""
    inbox = control.Inbox()
    saved: list[events.CheckpointSaved] = []

    def listen(event: events.Event) -> None:
        if isinstance(event, events.CheckpointSaved):
            saved.append(event)

    recorder = Recorder(saves, apart, inbox, writer)
    real, Keeper.save = Keeper.save, lambda keeper, *told: recorder.save(keeper, *told)  # type: ignore[method-assign]
    try:
        run_training(lab, config, emit=listen, inbox=inbox, name="benchmark")
    finally:
        Keeper.save = real  # type: ignore[method-assign]
    return recorder, saved


def measure(options: argparse.Namespace) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        lab = Lab.init(Path(folder))
        asked = {"data.corpus": options.corpus, "train.threads": options.threads}
        config = override(load_preset(lab, options.preset), asked | SETTINGS)
        recorder, saved = record(lab, config, options.saves, options.apart)
    costs = recorder.costs()
    shares = sorted(cost / options.every for cost in costs)
    draws = random.Random(0)
    medians = sorted(statistics.median(draws.choices(shares, k=len(shares))) for _ in range(2000))
    return {
        "preset": options.preset,
        "seconds_between_saves": options.every,
        "threads": options.threads,
        "saves": options.saves,
        "saves_counted": len(costs),
        "seconds_a_save": costs,
        "median_step_seconds": statistics.median(
            step.seconds for step in recorder.steps if step.save is None
        ),
        "checkpoint_bytes": max(event.bytes for event in saved),
        "median_seconds_held": statistics.median(recorder.held[WARM_UP:]),
        "median_seconds_written": statistics.median(event.seconds for event in saved),
        "cost": statistics.median(shares),
        "cost_mean": statistics.mean(shares),
        "cost_95_percent_interval": [medians[50], medians[-50]],
        "limit": LIMIT,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--saves", type=int, default=24)
    parser.add_argument("--apart", type=int, default=3, help="steps from one save to the next")
    parser.add_argument("--every", type=float, default=30, help="seconds between two saves")
    parser.add_argument("--preset", default="nano")
    parser.add_argument("--corpus", default="python-docs")
    parser.add_argument("--threads", type=int, default=0, help="0: all cores")
    parser.add_argument("--folder", type=Path, help="on the disk that is to be measured")
    result = machine_facts() | measure(parser.parse_args())
    low, high = result["cost_95_percent_interval"]
    print(
        f"saving every {result['seconds_between_saves']:g} s costs {result['cost']:.2%} of training"
        f" (at most {LIMIT:.0%}; 95 % interval {low:.2%} to {high:.2%},"
        f" {result['saves_counted']} saves); a copy of"
        f" {result['checkpoint_bytes'] / 1e6:.0f} MB holds it"
        f" {result['median_seconds_held']:.3f} s, written in"
        f" {result['median_seconds_written']:.1f} s"
    )
    write_result("background-save", result)


if __name__ == "__main__":
    main()
