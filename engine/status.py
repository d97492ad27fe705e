"""What a run says of itself for others to read: `status.json`, small and replaced whole.

Also whether the process that wrote it is still alive: a run that says "running" and whose process
is gone has crashed. A process is known by its number and its start, since numbers come again.
"""

from __future__ import annotations

import functools
import json
import os
import socket
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from engine import atomic

STATUS_FILE = "status.json"
ENDED = ("finished", "stopped", "failed")
ACTIVE = ("running", "paused")
ELSEWHERE_SECONDS = 120.0  # a run on another machine that was silent for longer is not known


@dataclass
class Status:
    """`state`: running, paused, finished, stopped, failed; `updated`: seconds since the epoch."""

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


def own_status() -> Status:
    """A status of this very process."""
    return Status("running", pid=os.getpid(), host=socket.gethostname(), process=own_mark())


def read_status(run_path: Path) -> Status:
    """The run's status; an empty one (`unknown`) when the file is absent or broken."""
    try:
        with open(run_path / STATUS_FILE, "rb") as file:
            record = json.loads(file.read(100_000))
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
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_text(json.dumps(asdict(status)) + "\n", encoding="utf-8")
    os.replace(temporary, path)


def is_running(status: Status) -> bool:
    """Whether the process that wrote an active status is alive (as far as one can know)."""
    if status.state not in ACTIVE:
        return False
    if status.host != socket.gethostname():
        return time.time() - status.updated < ELSEWHERE_SECONDS
    return process_mark(status.pid) == status.process != ""


def judged(status: Status) -> str:
    """The state as a reader should see it: also `crashed`, or `unknown` for another machine's."""
    if status.state in ENDED or status.state not in ACTIVE:
        return status.state if status.state in ENDED else "unknown"
    if is_running(status):
        return status.state
    return "crashed" if status.host == socket.gethostname() else "unknown"


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
