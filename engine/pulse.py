"""How a training loop comes on, from the events that it says: its recent step time, its last move.

Measured by the monotonic clock, which nobody sets. Knows nothing of files, nor who judges by it.
"""

from __future__ import annotations

import time
from collections import deque
from statistics import median

RECENT = 21  # intervals; an odd number, so that one evaluation or save among them changes little
SHORTEST = 0.05  # seconds: logged steps may come in bursts, which say nothing of their pace


class Pulse:
    def __init__(self) -> None:
        self._moved = time.monotonic()
        self._last: tuple[float, int] | None = None  # when, and which step
        self._steps: deque[float] = deque(maxlen=RECENT)
        self._reports: deque[float] = deque(maxlen=RECENT)

    def move(self) -> None:
        """The loop did something."""
        self._moved = time.monotonic()

    def step(self, number: int) -> None:
        """The loop said that step `number` is done."""
        self.move()
        now = self._moved
        if self._last is None or number <= self._last[1]:
            self._last = now, number
            return
        seconds, steps = now - self._last[0], number - self._last[1]
        if seconds >= SHORTEST:
            self._last = now, number
            self._steps.append(seconds / steps)
            self._reports.append(seconds)

    def rest(self) -> None:
        """The loop stands still on purpose: that time is no step's."""
        self.move()
        self._last = None

    @property
    def step_seconds(self) -> float:
        """The median of recent steps; 0 before there are two."""
        return median(self._steps) if self._steps else 0.0

    @property
    def report_seconds(self) -> float:
        """The median time between two logged steps; 0 before there are two."""
        return median(self._reports) if self._reports else 0.0

    @property
    def moved(self) -> float:
        """When the loop last did something, by the monotonic clock."""
        return self._moved

    def moved_at(self) -> float:
        """The same in seconds since the epoch, by the wall clock as it is now."""
        return time.time() - (time.monotonic() - self._moved)
