"""Events on their way to the screen, in bounded memory: a stalled screen may leave them for hours.

Only what comes again is given up: steps thinned evenly, and figures of the moment. The run's files
hold every step; here the ends, the changes and the newest steps are what matters.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the app's first paint does not wait for it
    from engine.events import Event

MOST = 20_000
_PASSING = frozenset({"preparing", "phase", "device_stats", "eval_progress"})
_KEPT = frozenset({"run_started", "rolled_back", "finished", "failed"})


class EventQueue(deque["Event"]):
    """A deque that one thread fills by `append` and another empties by `popleft`."""

    def __init__(self) -> None:
        super().__init__()
        self._lock = threading.Lock()
        self._every = 1  # steps of which one is taken in
        self._steps = 0

    def append(self, event: Event) -> None:
        with self._lock:
            if len(self) < MOST // 4:
                self._every = 1
            if event.name == "step_done":
                self._steps += 1
                if self._steps % self._every:
                    return
            super().append(event)
            if len(self) > MOST:
                self._thin()

    def popleft(self) -> Event:
        with self._lock:
            return super().popleft()

    def _thin(self) -> None:
        """Every second step goes, and every passing figure; of the rest, if need be, the oldest."""
        kept = [event for event in self if event.name not in _PASSING]
        steps = [event for event in kept if event.name == "step_done"]
        gone = {id(event) for event in steps[:-1:2]}
        kept = [event for event in kept if id(event) not in gone]
        if len(kept) > MOST // 4 * 3:
            older = [event for event in kept[: -MOST // 2] if event.name in _KEPT]
            kept = [*older, *kept[-MOST // 2 :]]
        self._every *= 2
        self.clear()
        self.extend(kept)
