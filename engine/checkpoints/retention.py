"""Which checkpoints a run keeps.

`rolling` keeps exactly one: the newest verified. `all` keeps periodic, manual and final ones, the
best so far, the newest, and what the run resumed from; a former best goes when a better one is
there, and so does an earlier save of the same step. Nothing is ever deleted before a newer
checkpoint has been verified byte by byte; until then the run keeps what it had.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path

from engine.atomic import sync_directory
from engine.checkpoints.layout import CheckpointInfo, list_checkpoints, temporary_owner
from engine.checkpoints.proof import verify


def superseded(
    found: list[CheckpointInfo], newest: Path, policy: str, resumed_from: Path | None = None
) -> list[CheckpointInfo]:
    """Of `found` (oldest first), those that `policy` does not keep once `newest` is verified."""
    others = [info for info in found if info.path != newest]
    if policy == "rolling":
        return others
    last_of_step = {info.step: info.path for info in found}
    gone = []
    for info in others:
        if info.best or info.path == resumed_from:
            continue
        earlier_save = info.complete and last_of_step[info.step] != info.path
        if earlier_save or info.kind in ("best", "rolling"):
            gone.append(info)
    return gone


def retain(
    run_path: Path, newest: Path, policy: str, resumed_from: Path | None = None
) -> list[CheckpointInfo]:
    """Delete what `policy` does not keep, if `newest` verifies; returns what was deleted."""
    found = list_checkpoints(run_path)
    gone = superseded(found, newest, policy, resumed_from)
    if not gone or verify(newest):
        return []
    for info in gone:
        remove(info.path)
    return gone


def remove(path: Path) -> None:
    """Delete a folder so that a crash half-way leaves no half checkpoint under its name."""
    grave = path.with_name(f".tmp-deleted-{path.name}-{os.getpid()}")
    path.rename(grave)
    sync_directory(path.parent)
    shutil.rmtree(grave, ignore_errors=True)


def clean_leftovers(run_path: Path) -> None:
    """Remove temporary folders of processes that are no more; only the run's owner calls this."""
    with contextlib.suppress(OSError):
        for entry in list(run_path.iterdir()):
            owner = temporary_owner(entry.name)
            if owner is not None and (owner == os.getpid() or not _alive(owner)):
                shutil.rmtree(entry, ignore_errors=True)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True
