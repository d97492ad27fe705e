"""How much of the machine other processes took while something was measured."""

from __future__ import annotations

import os
import resource
import time
from types import TracebackType

import psutil

LIMIT = 0.03
"""A share above which a window is noise, and not counted."""


class Watch:
    """`with Watch() as watch:` around child processes that end inside; then `watch.others`."""

    others: float = 0.0
    """Share of all cores that neither this process nor its ended children used, 0 to 1."""

    def __enter__(self) -> Watch:
        self._start = self._read()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        wall, busy, own = (b - a for a, b in zip(self._start, self._read(), strict=True))
        self.others = max(0.0, busy - own) / (wall * (os.cpu_count() or 1))

    @staticmethod
    def _read() -> tuple[float, float, float]:
        times = psutil.cpu_times()
        idle = times.idle + getattr(times, "iowait", 0.0)
        usages = (
            resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
        )
        own = sum(usage.ru_utime + usage.ru_stime for usage in usages)
        # Guest time is counted in user time already.
        total = sum(times) - getattr(times, "guest", 0.0) - getattr(times, "guest_nice", 0.0)
        return time.perf_counter(), total - idle, own
