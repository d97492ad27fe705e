"""What the screen costs, and how often it may look: processor time and bytes, a second.

Drawing takes a core and Python's lock from the training, and a terminal takes only so much: so the
time to the next look is what the last ones have cost, in what a second may cost.
"""

from __future__ import annotations

import time
from collections import deque

WINDOW = 5.0  # seconds that figures are of
LEAST = 1.0  # seconds before the first figure, and between two of them: a number must be readable
SLOWEST = 16.0  # times the normal interval, at most: a screen that stands longer seems to be dead
SPARE = 4.0  # times the budget, while training leaves a core free
WATCHED = 3.0  # seconds behind a key in which somebody waits to see what it does


class Pace:
    """Call `measure` in the interface's thread at each look.

    `refresh`: looks a second at most. `budget`: share of a core that they may take while training
    uses all of them; `spare` says that it does not. `link`: bytes a second to the terminal.
    `share` (0 to 1), `bytes_per_second` and `looks_per_second` are of the last seconds.
    """

    def __init__(self, refresh: float, budget: float, link: float) -> None:
        self.refresh = refresh
        self.budget = budget
        self.link = link
        self.spare = False
        self.share = self.bytes_per_second = self.looks_per_second = 0.0
        # Processor time, wall time and bytes so far, at each look.
        self._seen: deque[tuple[float, float, int]] = deque()
        self._told = 0.0  # wall time of the figures
        self._watched_until = 0.0

    def measure(self, drawn: int = 0) -> None:
        """`drawn`: bytes sent to the terminal since the app began."""
        cpu, wall = time.thread_time(), time.perf_counter()
        self._seen.append((cpu, wall, drawn))
        while len(self._seen) > 3 and wall - self._seen[1][1] > WINDOW:
            self._seen.popleft()
        first_cpu, first_wall, first_drawn = self._seen[0]
        if (passed := wall - first_wall) > LEAST and wall - self._told > LEAST:
            self._told = wall
            self.share = (cpu - first_cpu) / passed
            self.bytes_per_second = (drawn - first_drawn) / passed
            self.looks_per_second = (len(self._seen) - 1) / passed

    def watched(self) -> None:
        """A key was pressed: for some seconds processor time does not count."""
        self._watched_until = time.perf_counter() + WATCHED

    @property
    def is_watched(self) -> bool:
        return time.perf_counter() < self._watched_until

    def interval(self) -> float:
        """Seconds to the next look: the setting's, longer where looks cost more than they may."""
        least = 1 / self.refresh
        if len(self._seen) < 2:
            return least
        (first_cpu, _, first_drawn), (cpu, _, drawn) = self._seen[0], self._seen[-1]
        looks = len(self._seen) - 1
        budget = self.budget * (SPARE if self.spare else 1.0)
        used = 0.0 if self.is_watched else cpu - first_cpu
        cost = max(used / budget, (drawn - first_drawn) / self.link) / looks
        return min(max(cost, least), SLOWEST * least)
