"""What saving in the background costs training: preset `nano`, one save every 30 s, against none.

    python -m benchmarks.background_save [--pairs 5] [--seconds 30] [--every 30]

One run in one process. Its time is cut into windows, with saves and without, in the order ABBA so
that a drift of the machine favours neither; in a window without, a due save is simply not made, as
under `--no-save`. A window ends at the first step
boundary after its seconds at which nothing is being written, so that each bears its own costs.
Pairs during which other processes took more than 3 % of the machine are not counted, unless there
are no others.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import quiet
from benchmarks.report import machine_facts, write_result
from engine import control, events
from engine.config import load_preset
from engine.config.load import override
from engine.keeper import Boundary, Keeper
from engine.lab import Lab
from engine.session import run_training

LIMIT = 0.02


@dataclass
class Window:
    """A stretch of training between two step boundaries."""

    saving: bool
    began: float
    first: Boundary
    watch: quiet.Watch
    held: list[float] = field(default_factory=list)  # seconds that each copy held training
    rate: float = 0.0  # tokens a second

    def close(self, now: float, at: Boundary) -> None:
        self.watch.__exit__(None, None, None)
        self.rate = (at.progress.tokens - self.first.progress.tokens) / (now - self.began)


class Alternation:
    """Stands before the keeper, which is asked to save after every step, and lets few saves by."""

    def __init__(self, pairs: int, seconds: float, every: float, inbox: control.Inbox) -> None:
        self.wanted, self.seconds, self.every, self.inbox = 2 * pairs, seconds, every, inbox
        self.done: list[Window] = []
        self.now: Window | None = None
        self._real = Keeper.save
        self._warm_at = self._saved_at = 0.0

    def save(self, keeper: Keeper, at: Boundary, val_loss: float | None, kind: str) -> None:
        """In the place of `Keeper.save`: once a step, in the training thread."""
        now = time.perf_counter()
        if self.now is None:
            self._warm_up(keeper, at, val_loss, now)
            return
        if now - self.now.began >= self.seconds and not keeper._saver.busy:
            self.now.close(now, at)
            self.done.append(self.now)
            self._report()
            if len(self.done) == self.wanted:
                self.inbox.put(control.Stop(save=False), "benchmark")
            now = self._begin(at)
        if self.now.saving and now - self._saved_at >= self.every:
            self._saved_at = now
            self._real(keeper, at, val_loss, "rolling")
            self.now.held.append(time.perf_counter() - now)

    def _warm_up(self, keeper: Keeper, at: Boundary, val_loss: float | None, now: float) -> None:
        """Two saves, which find their memory, and some steps; none of it counts."""
        if not self._warm_at:
            self._warm_at = now
            self._real(keeper, at, val_loss, "rolling")
        elif now - self._warm_at >= min(self.seconds, 15) and not keeper._saver.busy:
            self._begin(at)

    def _begin(self, at: Boundary) -> float:
        watch = quiet.Watch().__enter__()
        self._saved_at = 0.0
        now = time.perf_counter()
        self.now = Window(len(self.done) % 4 in (0, 3), now, at, watch)
        return now

    def _report(self) -> None:
        window = self.done[-1]
        word = "with saves   " if window.saving else "without saves"
        print(
            f"{word} {window.rate:10,.1f} tokens/s   others {window.watch.others:.1%}", flush=True
        )


def measure(options: argparse.Namespace) -> dict[str, Any]:
    inbox = control.Inbox()
    saved: list[events.CheckpointSaved] = []

    def listen(event: events.Event) -> None:
        if isinstance(event, events.CheckpointSaved):
            saved.append(event)

    alternation = Alternation(options.pairs, options.seconds, options.every, inbox)
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        lab = Lab.init(Path(folder))
        settings = {
            "data.corpus": options.corpus,
            "train.max_steps": 10**7,
            "train.eval_every": 0,
            "train.log_every": 1,
            "train.threads": options.threads,
            "sample.every": 0,
            "save.policy": "rolling",
            "save.every": 1,
        }
        config = override(load_preset(lab, options.preset), settings)
        real, Keeper.save = Keeper.save, lambda keeper, *told: alternation.save(keeper, *told)  # type: ignore[method-assign]
        try:
            run_training(lab, config, emit=listen, inbox=inbox, name="benchmark")
        finally:
            Keeper.save = real  # type: ignore[method-assign]
    pairs = [
        {
            "with": saving.rate,
            "without": plain.rate,
            "ratio": saving.rate / plain.rate,
            "saves": len(saving.held),
            "held_seconds": saving.held,
            "others": max(saving.watch.others, plain.watch.others),
        }
        for saving, plain in map(_saving_first, alternation.done[::2], alternation.done[1::2])
    ]
    counted = [pair for pair in pairs if pair["others"] < quiet.LIMIT] or pairs
    ratios = [pair["ratio"] for pair in counted]
    return {
        "preset": options.preset,
        "seconds_between_saves": options.every,
        "seconds_of_a_window": options.seconds,
        "threads": options.threads,
        "pairs": pairs,
        "pairs_counted": len(counted),
        "checkpoint_bytes": max(event.bytes for event in saved),
        "median_seconds_held": statistics.median(
            held for pair in counted for held in pair["held_seconds"]
        ),
        "median_seconds_written": statistics.median(event.seconds for event in saved),
        "cost": 1 - statistics.median(ratios),
        "cost_spread": [1 - max(ratios), 1 - min(ratios)],
        "limit": LIMIT,
    }


def _saving_first(first: Window, second: Window) -> tuple[Window, Window]:
    return (first, second) if first.saving else (second, first)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=30, help="of a window")
    parser.add_argument("--every", type=float, default=30, help="seconds between two saves")
    parser.add_argument("--preset", default="nano")
    parser.add_argument("--corpus", default="python-docs")
    parser.add_argument("--threads", type=int, default=0, help="0: all cores")
    parser.add_argument("--folder", type=Path, help="on the disk that is to be measured")
    result = machine_facts() | measure(parser.parse_args())
    low, high = result["cost_spread"]
    print(
        f"saving every {result['seconds_between_saves']:g} s costs {result['cost']:.2%} of training"
        f" (at most {LIMIT:.0%}; pairs {low:.2%} to {high:.2%}); a copy of"
        f" {result['checkpoint_bytes'] / 1e6:.0f} MB holds it"
        f" {result['median_seconds_held']:.3f} s, written in"
        f" {result['median_seconds_written']:.1f} s"
    )
    write_result("background-save", result)


if __name__ == "__main__":
    main()
