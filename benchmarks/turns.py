"""Programs that run from beginning to end, each working a few seconds while the others are stopped.

For recipes, which cannot be asked for one window after another as the sides of `interleave` can. A
machine drifts by a third within minutes, and this is how all of them meet the same machine. Each
tells what it did and when by the clock of the wall; how long it worked is counted here. POSIX only.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from typing import Any

from benchmarks.program import Program

TURN = 4.0
"""Seconds. What a program finds of its memory in the caches when it goes on is back in
milliseconds."""


class Side:
    """A program that is started by its first turn."""

    def __init__(
        self, name: str, command: Sequence[str], environment: Mapping[str, str] | None = None
    ) -> None:
        """`environment`: variables beside this process's own."""
        self.name = name
        self._command, self._environment = command, environment
        self._program: Program | None = None
        self._turns: list[tuple[float, float]] = []

    def turn(self, seconds: float) -> Iterator[dict[str, Any]]:
        """Let it work; the JSON objects that it printed, as they come. Raises RuntimeError, with
        its last words, when it fails."""
        began = time.time()
        if self._program is None:
            self._program = Program(self._command, self._environment)
        else:
            self._signal(signal.SIGCONT)
        self._turns.append((began, float("inf")))
        while (left := began + seconds - time.time()) > 0:
            try:
                line = self._program.line(left)
            except queue.Empty:
                break
            if not line:
                self._turns[-1] = began, time.time()
                if self._program.process.wait():
                    raise RuntimeError(f"{self.name} failed:\n{self._program.last_words()}")
                return
            if line.startswith("{"):
                yield json.loads(line)
        self._signal(signal.SIGSTOP)
        self._turns[-1] = began, time.time()

    def worked(self, start: float, end: float) -> float:
        """Seconds of its turns between two moments, as `time.time` gives them."""
        return sum(max(0.0, min(b, end) - max(a, start)) for a, b in self._turns)

    @property
    def ended(self) -> bool:
        return self._program is not None and self._program.process.returncode is not None

    def close(self) -> None:
        """Kill it, with what it has started."""
        if self._program is not None:
            self._signal(signal.SIGKILL)
            self._program.process.wait()
            self._program.close()

    def _signal(self, number: signal.Signals) -> None:
        assert self._program is not None
        with suppress(ProcessLookupError):
            os.killpg(self._program.process.pid, number)


def take_turns(
    sides: Sequence[Side], seconds: float = TURN
) -> Iterator[tuple[Side, dict[str, Any]]]:
    """What the sides print until all have ended; every other round is in the opposite order."""
    with ExitStack() as stack:
        for side in sides:
            stack.callback(side.close)
        order = list(sides)
        while order:
            for side in order:
                for record in side.turn(seconds):
                    yield side, record
            order = [side for side in reversed(order) if not side.ended]
