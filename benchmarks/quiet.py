"""How much of the machine other processes took while something was measured."""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Iterable
from types import TracebackType

import psutil

LIMIT = 0.03
"""A share above which a window is noise, and not counted."""


class Watch:
    """`with Watch() as watch:` around child processes that end inside; then `watch.others`.

    `alive`: processes that were there before and will be afterwards, counted as ours with what
    they start.
    """

    others: float = 0.0
    """Share of all cores that none of ours used, 0 to 1."""

    def __init__(self, alive: Iterable[psutil.Process] = ()) -> None:
        self._alive = tuple(alive)

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

    def _read(self) -> tuple[float, float, float]:
        times = psutil.cpu_times()
        idle = times.idle + getattr(times, "iowait", 0.0)
        usages = (
            resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
        )
        own = sum(usage.ru_utime + usage.ru_stime for usage in usages)
        own += sum(_used(process) for process in self._alive)
        # Guest time is counted in user time already.
        total = sum(times) - getattr(times, "guest", 0.0) - getattr(times, "guest_nice", 0.0)
        return time.perf_counter(), total - idle, own


def _used(process: psutil.Process) -> float:
    """Seconds of processor time that a process, its children and its ended children used."""
    seconds = 0.0
    try:
        for one in (process, *process.children(recursive=True)):
            seconds += sum(one.cpu_times()[:4])
    except psutil.NoSuchProcess:  # a child ended meanwhile: its parent has its time
        pass
    return seconds
