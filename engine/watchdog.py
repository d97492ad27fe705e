"""A thread beside the training thread, for what that one cannot do while it is inside a step.

A stop that cannot wait (a scheduler's SIGTERM, with a kill behind it) is carried out here when the
loop does not come to its next step boundary within seconds: a step of a large model, a compilation
and a read that hangs can all take longer than a scheduler waits. A loop in which nothing moves is
reported.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from engine.trainer import Trainer

LOOK_SECONDS = 0.25
PATIENCE = 2.5
"""Seconds that an urgent stop waits for the loop itself, which saves more than this can."""
SILENCE_SECONDS = 60.0
SILENT_STEPS = 20.0
"""Nothing moving for both of these, the second in steps' usual time, is reported."""


class Watchdog:
    """`with Watchdog(trainer): trainer.train()`."""

    def __init__(self, trainer: Trainer) -> None:
        self._trainer = trainer
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        self._silent = False

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._over.set()

    def _watch(self) -> None:
        since = None
        while not self._over.wait(LOOK_SECONDS):
            stop = self._trainer.steering.inbox.urgent()
            if stop is None:
                since = None
                self._look_for_silence()
                continue
            since = since or time.monotonic()
            if time.monotonic() - since < PATIENCE:
                continue
            if self._trainer.leave(stop, LOOK_SECONDS) is not None:
                return

    def _look_for_silence(self) -> None:
        trainer = self._trainer
        quiet = time.monotonic() - trainer.moved
        usual = trainer.parts.meter.step_seconds
        limit = max(SILENCE_SECONDS, SILENT_STEPS * usual)
        # A pause waits for a person, a compilation says how long it takes, a read reports itself.
        if trainer.steering.paused or trainer.phase == "compiling" or trainer.stage == "data":
            limit = float("inf")
        if quiet > limit and not self._silent:
            self._silent = True
            trainer.alert(
                "warning",
                f"nothing has moved for {quiet:.0f} s (a step usually takes {usual:.2g} s)",
                f"while {trainer.phase}: is the device or the disk busy with something else?",
            )
        elif self._silent and quiet < limit:
            self._silent = False
            trainer.alert("info", "it moves again")
