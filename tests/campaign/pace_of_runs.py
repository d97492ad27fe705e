"""How fast a run trains, by its own records, and what its process uses, by the system's."""

from __future__ import annotations

import json
import os
from pathlib import Path
from statistics import median


def steps(run: Path) -> list[tuple[int, float, float]]:
    """(step, time, loss) of every complete line of the run's metrics."""
    found = []
    for line in (run / "metrics.jsonl").read_text().splitlines(keepends=True):
        if line.endswith("\n"):
            record = json.loads(line)
            if "loss" in record:  # an evaluation that was asked for stands on a line of its own
                found.append((record["step"], record["time"], record["loss"]))
    return found


def rate(run: Path, begin: float, end: float) -> float:
    """Steps a second between two moments of the wall clock: of the median step, which a pause of
    the machine does not touch."""
    times = [at for _, at, _ in steps(run) if begin <= at <= end]
    apart = [later - at for at, later in zip(times, times[1:], strict=False)]
    return 1.0 / median(apart) if apart else 0.0


def beside_training(pid: int) -> tuple[float, float]:
    """Processor seconds of all threads of a process but the busiest one; and of that one."""
    tick = os.sysconf("SC_CLK_TCK")
    used = []
    for stat in Path(f"/proc/{pid}/task").glob("*/stat"):
        try:
            values = stat.read_text().rpartition(")")[2].split()
        except OSError:  # the thread has ended
            continue
        used.append((int(values[11]) + int(values[12])) / tick)
    busiest = max(used, default=0.0)
    return sum(used) - busiest, busiest
