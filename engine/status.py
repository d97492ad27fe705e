"""What a run says of itself for others to read: `status.json`, small and replaced whole.

Also how a reader should take it. On the same host a run whose process is gone has crashed (a
process is known by its number and its start, since numbers come again), and one whose loop has been
still for long is stalled; on another host a process is known by its silence alone. What is long is
judged by the run's own recent steps.
"""

from __future__ import annotations

import functools
import json
import math
import os
import socket
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from engine import atomic
from engine.plain_file import open_to_write, read_plain

STATUS_FILE = "status.json"
ENDED = ("finished", "stopped", "failed")
ACTIVE = ("running", "paused", "stalled")
"""States of a run that a living process has, as `judged` tells them; `stalled` is never written."""

PATIENCE_STEPS = 20  # a silence of so many steps is remarkable
STALLED_SECONDS = 30.0  # and of so long at least, on this host
SILENT_SECONDS = 60.0  # on another one, where even a living run may be seen late
FIRST_STEP_SECONDS = 300.0  # before any step is measured: the first one builds and warms much up


@dataclass
class Status:
    """`state`: running, paused, finished, stopped, failed. `since` (when this process took the
    run), `advanced` (when its loop last did something) and `updated`: seconds since the epoch.
    `moved` is `advanced` by the monotonic clock of its host, which nobody sets.

    `step_seconds` is the median of recent steps, 0 while not known; `report_seconds` that of the
    time between two logged ones. The figures of memory and load are those of `DeviceStats`.
    """

    state: str = "unknown"
    step: int = 0
    max_steps: int = 0
    tokens: int = 0
    loss: float | None = None
    val_loss: float | None = None
    best_val_loss: float | None = None
    best_step: int | None = None
    seconds: float = 0.0
    n_parameters: int = 0
    device: str = ""
    reason: str = ""
    error: str = ""
    pid: int = 0
    host: str = ""
    process: str = ""
    updated: float = 0.0
    since: float = 0.0
    advanced: float = 0.0
    moved: float = 0.0
    phase: str = ""
    phase_done: int = 0
    phase_total: int = 0
    step_seconds: float = 0.0
    report_seconds: float = 0.0
    used_bytes: int | None = None
    peak_bytes: int | None = None
    total_bytes: int | None = None
    reserved_bytes: int | None = None
    utilization: float | None = None
    temperature: float | None = None
    power: float | None = None


def own_status() -> Status:
    """A status of this very process, from now on."""
    now = time.time()
    return Status(
        "running",
        pid=os.getpid(),
        host=socket.gethostname(),
        process=own_mark(),
        since=now,
        advanced=now,
        moved=time.monotonic(),
        phase="loading",
    )


def read_status(run_path: Path) -> Status:
    """The run's status; an empty one (`unknown`) when the file is absent or broken."""
    try:
        record = json.loads(read_plain(run_path / STATUS_FILE, 100_000))
    except (OSError, ValueError, RecursionError):
        return Status()
    return _checked(record) if isinstance(record, dict) else Status()


def _checked(record: dict[str, Any]) -> Status:
    """Fields of the wrong type are left at their defaults: anybody may have written the file."""
    status = Status()
    for field in fields(Status):
        value, default = record.get(field.name), getattr(status, field.name)
        if isinstance(default, str):
            good = isinstance(value, str)
        elif isinstance(default, int) and not isinstance(default, bool):
            good = type(value) is int and 0 <= value < 2**63
        else:
            good = value is None or (type(value) in (int, float) and abs(value) < 2**63)
            good = good or (type(value) is float)  # NaN and infinity are losses too
        if good and not (value is None and default is not None):
            setattr(status, field.name, value)
    return status


def write_status(run_path: Path, status: Status, *, durable: bool) -> None:
    """Replace the file whole. `durable` waits for the disk: for the last word, not every second."""
    path = run_path / STATUS_FILE
    status.updated = time.time()
    if durable:
        atomic.write_json(path, asdict(status))
        return
    temporary = path.with_name(f".tmp-{path.name}-{os.getpid()}")
    atomic.discard(temporary)  # a link planted under the name is not followed
    with os.fdopen(open_to_write(temporary, os.O_WRONLY), "wb") as file:
        file.write(json.dumps(asdict(status)).encode() + b"\n")
    os.replace(temporary, path)


def is_running(status: Status) -> bool:
    """Whether the process that wrote an active status is alive (as far as one can know)."""
    return judged(status) in ACTIVE


def judged(status: Status) -> str:
    """The state as a reader should see it: also `stalled` (alive, its loop is not), `crashed`, and
    `unknown` for a run of another host that has been silent for long."""
    if status.state not in ACTIVE:
        return status.state if status.state in ENDED else "unknown"
    if status.host != socket.gethostname():
        if seconds_since(status.updated) > max(SILENT_SECONDS, _patience(status)):
            return "unknown"
    elif not status.process or process_mark(status.pid) != status.process:
        return "crashed"
    return "stalled" if is_stalled(status) else status.state


def is_stalled(status: Status) -> bool:
    """Whether a run that should be taking steps has taken none for long. A pause, an evaluation, or
    a compilation takes what it takes."""
    if status.state != "running" or status.phase != "training":
        return False
    least = STALLED_SECONDS if status.step_seconds > 0 else FIRST_STEP_SECONDS
    return still_seconds(status) > max(least, _patience(status))


def still_seconds(status: Status) -> float:
    """For how long the loop of a living run has done nothing, by one clock: the monotonic one of
    this host, or that of the host which wrote both times."""
    if status.host != socket.gethostname():
        return max(0.0, status.updated - status.advanced) if status.advanced else 0.0
    return max(0.0, time.monotonic() - status.moved) if status.moved else 0.0


def _patience(status: Status) -> float:
    """How long this run may be silent: a loop that logs each hundredth step tells of that alone."""
    longest = max(PATIENCE_STEPS * status.step_seconds, 3 * status.report_seconds)
    return longest if 0 < longest < math.inf else 0.0


def seconds_since(when: float) -> float:
    """Never negative, whatever the clocks of two hosts say, or one clock before and after."""
    return max(0.0, time.time() - when)


def process_mark(pid: int) -> str:
    """What tells this process from a later one of the same number; empty when there is none."""
    if pid <= 0:
        return ""
    with suppress(OSError, IndexError):
        # Linux: start in clock ticks since boot. The name before it may hold spaces and brackets.
        after_name = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2]
        values = after_name.split()
        return "" if values[0] in "ZX" else f"{_boot()}/{values[19]}"
    if Path("/proc/self/stat").exists():
        return ""
    import psutil

    try:
        return f"{psutil.Process(pid).create_time():.0f}"
    except (psutil.Error, OverflowError):
        return ""


@functools.cache
def _boot() -> str:
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()[:8]
    return ""


def own_mark() -> str:
    return process_mark(os.getpid())
