"""Which checkpoints a run keeps.

Both policies keep the newest, the best (the lowest validation loss), what the run resumed from,
and what a person saved by hand. `rolling` keeps nothing else that the run saves on its way; `all`
keeps its periodic and final ones as well. A former best goes when a better one is there, and an
earlier save of a step when the step was saved again.

Nothing is deleted before the new checkpoint has been verified byte by byte; until then the run
keeps what it had. A damaged one is never counted as the newest or the best, and stays for someone
to look into, unless a verified one of its step is there. Knows no torch.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from engine.atomic import discard, sync_directory
from engine.checkpoints.layout import CheckpointInfo, list_checkpoints, temporary_owner
from engine.checkpoints.proof import verify
from engine.errors import CheckpointError

PASSING = {"rolling": ("rolling", "best", "final"), "all": ("rolling", "best")}
"""By policy: kinds of checkpoints that go once they are superseded. Of no other kind is any."""

GRAVE = ".tmp-deleted-"


class Retention:
    """What one run keeps. Remembers what it has proven, so that a save is read back once."""

    def __init__(self, run_path: Path, policy: str, resumed_from: Path | None = None) -> None:
        self.run_path, self.policy = run_path, policy
        self.resumed_from = run_path / resumed_from.name if resumed_from else None
        self._sound: dict[Path, bool] = {}  # as found when it was read

    def apply(
        self,
        newest: Path,
        on_deleted: Callable[[CheckpointInfo], None] = lambda info: None,
        *,
        proven: bool = False,
    ) -> list[CheckpointInfo]:
        """Delete what the policy does not keep now that `newest` is there; returns what went.

        `proven`: it was just written and read back, and need not be read again. Raises
        CheckpointError, having deleted nothing, when `newest` is damaged; OSError when one
        could not be deleted, after the others were.
        """
        _sweep_graves(self.run_path)
        found = list_checkpoints(self.run_path)
        self._sound[newest] = proven  # a name can come again: what was known is of another
        if not any(info.path != newest for info in found):
            return []
        problems = [] if proven else verify(newest)
        if problems:
            raise CheckpointError(problems[0], "nothing was deleted")
        self._sound[newest] = True
        gone, trouble = [], None
        for info in self._superseded(found, newest):
            try:
                remove(info.path)
            except OSError as error:
                trouble = trouble or error
                continue
            self._sound.pop(info.path, None)
            gone.append(info)
            on_deleted(info)
        if trouble is not None:
            raise trouble
        return gone

    def _superseded(self, found: list[CheckpointInfo], newest: Path) -> list[CheckpointInfo]:
        """Of `found` (oldest first), those that are not kept."""
        gone = [
            info
            for place, info in enumerate(found)
            if info.path not in (newest, self.resumed_from)
            and (self._passes(info) or self._replaced(info, found[place + 1 :]))
        ]
        if any(info.complete and info.val_loss is not None for info in gone):
            best = self._best(found)
            gone = [info for info in gone if info is not best]
        return gone

    def _passes(self, info: CheckpointInfo) -> bool:
        return info.kind in PASSING[self.policy] and self._is_sound(info)

    def _replaced(self, info: CheckpointInfo, later: list[CheckpointInfo]) -> bool:
        """Whether a sound later save of its step does all that `info` is kept for."""
        return any(
            again.step == info.step
            and (again.kind in (info.kind, "manual") or not self._is_sound(info))
            and self._is_sound(again)
            for again in later
        )

    def _best(self, found: list[CheckpointInfo]) -> CheckpointInfo | None:
        """The lowest validation loss among the sound; of equals the later one."""
        scored = [(info.val_loss, -place, info) for place, info in enumerate(found)]
        for _, _, info in sorted(entry for entry in scored if entry[0] is not None):
            if self._is_sound(info):
                return info
        return None

    def _is_sound(self, info: CheckpointInfo) -> bool:
        if info.path not in self._sound:
            self._sound[info.path] = info.complete and not verify(info.path)
        return self._sound[info.path]


def remove(path: Path) -> None:
    """Delete a folder so that a crash half-way leaves no half checkpoint under its name.

    Whoever is reading it meets a file that is not there. Raises OSError.
    """
    grave = path.with_name(f"{GRAVE}{path.name}-{os.getpid()}")
    os.rename(path, grave)
    sync_directory(path.parent)
    discard(grave)


def _sweep_graves(run_path: Path) -> None:
    """Try again to remove what this process could not remove whole."""
    with suppress(OSError):
        for path in run_path.iterdir():
            if path.name.startswith(GRAVE) and temporary_owner(path.name) == os.getpid():
                discard(path)


def clean_leftovers(run_path: Path) -> None:
    """Remove temporary files of processes that are no more; only the run's owner calls this."""
    with suppress(OSError):
        for path in run_path.iterdir():
            if temporary_owner(path.name) == os.getpid() or is_abandoned(path):
                discard(path)


def is_abandoned(path: Path) -> bool:
    """Whether it has the name of something temporary whose process is no more on this machine."""
    owner = temporary_owner(path.name)
    return owner is not None and not _alive(owner)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True
