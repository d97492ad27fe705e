"""One process a run: a lock on the run's folder that the system releases when its owner dies.

The owner's host, process and start stand in the file, so that whoever comes second can be told.
They are written just after the lock is taken: one who comes in between reads again for a moment,
since what stands there is nothing yet, or an earlier owner. Uses `flock`; where there is none (not
POSIX) no lock is taken.
"""

from __future__ import annotations

import json
import os
import socket
import time
import weakref
from contextlib import suppress
from pathlib import Path

from engine.errors import InputError
from engine.plain_file import open_to_write
from engine.status import own_mark, process_mark

try:
    import fcntl
except ImportError:  # not POSIX
    fcntl = None  # type: ignore[assignment]

LOCK_FILE = "run.lock"
TELL_SECONDS = 1.0


class RunBusy(InputError):
    """Another process (or another thread of this one) holds the run."""


class RunLock:
    """The lock of one run's folder. Held from `acquire` until `release` or the process's end."""

    def __init__(self, run_path: Path) -> None:
        self._path = run_path / LOCK_FILE
        self._descriptor: int | None = None
        _locks.add(self)

    def acquire(self) -> None:
        """Take the lock. Raises RunBusy telling who has it, InputError if the folder is read-only.

        Anything but a plain file in its place (a link, a pipe) is refused.
        """
        try:
            descriptor = open_to_write(self._path, os.O_RDWR)
        except OSError as error:
            raise InputError(
                f"cannot write in '{self._path.parent}': {error.strerror}",
                "a run needs to write into its folder",
            ) from error
        try:
            if fcntl is not None:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = _owner(descriptor)
            os.close(descriptor)
            raise RunBusy(
                f"run '{self._path.parent.name}' is in use by {owner}",
                "watch it, stop it, or give the new run another name",
            ) from None
        except OSError:
            pass  # a file system without locks: better to train than to refuse
        mine = {"pid": os.getpid(), "process": own_mark(), "since": time.time()}
        with suppress(OSError):
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, json.dumps({"host": socket.gethostname(), **mine}).encode(), 0)
        self._descriptor = descriptor

    def release(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def _owner(descriptor: int) -> str:
    """Who holds the lock of this file, in words."""
    deadline = time.monotonic() + TELL_SECONDS
    while True:
        words, current = _who(os.pread(descriptor, 10_000, 0))
        if current or time.monotonic() > deadline:
            return words
        time.sleep(0.02)


def _who(data: bytes) -> tuple[str, bool]:
    """The owner that `data` names, and whether that can be the present one: its process lives."""
    try:
        owner = json.loads(data)
        host, pid = str(owner["host"]), int(owner["pid"])
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(float(owner["since"])))
        here = host == socket.gethostname()
        current = not here or process_mark(pid) == owner["process"] != ""
        return f"process {pid} on {host} since {since}", current
    except (ValueError, TypeError, KeyError, OverflowError, OSError, RecursionError):
        return "another process", False


_locks: weakref.WeakSet[RunLock] = weakref.WeakSet()


def _let_go_in_child() -> None:
    """A forked child shares the lock: it must not keep it when its parent is gone."""
    for lock in list(_locks):
        lock.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go_in_child)
