"""What the screen costs, and how often it may look: the interface thread's share of a core.

Drawing holds Python's lock, and training pays for it; so the pace slows where the budget is spent.
"""

from __future__ import annotations

import time
from collections import deque

WINDOW = 5.0  # seconds that the share is measured over
LEAST = 1.0  # seconds before the first figure
SLOWEST = 8.0  # times the normal interval, at most


class Pace:
    """Call `measure` in the interface's thread at each look; `share` is 0 to 1."""

    def __init__(self, refresh: float, budget: float) -> None:
        self.refresh = refresh
        self.budget = budget
        self.share = 0.0
        self._seen: deque[tuple[float, float]] = deque()  # (processor time, wall time)

    def measure(self) -> None:
        cpu, wall = time.thread_time(), time.perf_counter()
        self._seen.append((cpu, wall))
        while len(self._seen) > 2 and wall - self._seen[1][1] > WINDOW:
            self._seen.popleft()
        first_cpu, first_wall = self._seen[0]
        if wall - first_wall > LEAST:
            self.share = (cpu - first_cpu) / (wall - first_wall)

    def interval(self) -> float:
        """Seconds to the next look: the setting's, longer where the budget is exceeded."""
        over = self.share / self.budget
        return max(1.0, min(over, SLOWEST)) / self.refresh
