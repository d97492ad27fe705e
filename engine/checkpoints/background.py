"""Saving behind training: a snapshot is copied now and written by a thread, again if it must be.

The training thread loses the copy and nothing else. A save that fails is said once, and tried
again from the snapshot in memory, after a time that grows, until it works or a newer snapshot takes
its place; when saving works again, that is said. Knows when and how often, not what is written nor
where to: that is `snapshot` and `save`. Needs torch.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from engine.checkpoints.layout import CheckpointInfo
from engine.checkpoints.retention import Retention
from engine.checkpoints.save import SaveResult, write_checkpoint
from engine.checkpoints.snapshot import Memory, SaveError, Snapshot
from engine.errors import in_words

FIRST_RETRY = 5.0
LONGEST_RETRY = 300.0
"""Seconds from a failed save to the next try: twice as many after each, up to the longest."""


def _ignore(*_: Any) -> None:
    pass


class BackgroundSaver:
    """Saves a run's checkpoints from a thread, one at a time.

    A snapshot taken while another is being written waits for it: memory stays bounded at one copy
    of the checkpoint, and saves that come faster than the disk slow down to the disk.

    Callbacks come from the writing thread. `on_saved(result)` when a checkpoint is durable, then
    `on_deleted(info)` for each that retention removed. `on_failed(error, will_retry)` when saving
    (or deleting) begins to fail, and when the last try of `wait` has failed for good, but not for
    each try between; `on_recovered(result)` after the `on_saved` that ends it.
    """

    def __init__(
        self,
        run_path: Path,
        *,
        policy: str = "rolling",
        resumed_from: Path | None = None,
        on_saved: Callable[[SaveResult], None] = _ignore,
        on_failed: Callable[[SaveError, bool], None] = _ignore,
        on_recovered: Callable[[SaveResult], None] = _ignore,
        on_deleted: Callable[[CheckpointInfo], None] = _ignore,
    ) -> None:
        self.run_path = run_path
        self.on_saved, self.on_failed = on_saved, on_failed
        self.on_recovered, self.on_deleted = on_recovered, on_deleted
        self.last: SaveResult | None = None
        self._retention = Retention(run_path, policy, resumed_from)
        self._memory = Memory()
        self._pending: Snapshot | None = None  # not durable yet
        self._missed = False  # the newest snapshot could not even be taken
        self._thread: threading.Thread | None = None
        self._failing = self._stuck = False  # saving, deleting: said already
        self._delay = FIRST_RETRY
        self._retry_at = 0.0  # on the monotonic clock; 0: nothing to try again

    def snapshot(
        self,
        model_tensors: Mapping[str, Tensor],
        training_tensors: Mapping[str, Tensor] | None,
        state: Mapping[str, Any] | None,
        meta: Mapping[str, Any],
        kind: str = "rolling",
    ) -> float:
        """Copy everything now, write it behind; returns the seconds that training was held.

        Never raises for want of memory or disk: that comes by `on_failed`.
        """
        started = time.perf_counter()
        self._join()
        self._pending, self._retry_at = None, 0.0  # its memory is about to be overwritten
        try:
            self._pending = self._memory.take(model_tensors, training_tensors, state, meta, kind)
        except SaveError as error:
            self._missed = True
            self._fail(error, will_retry=True)
        else:
            self._missed = False
            self._start()
        return time.perf_counter() - started

    def poll(self) -> None:
        """Begin the next try of a failed save if its time has come. For every step: it is cheap,
        and waits for nothing."""
        if self._retry_at and time.monotonic() >= self._retry_at and not self.busy:
            self._start()

    @property
    def busy(self) -> bool:
        """Whether a checkpoint is being written right now."""
        return self._thread is not None and self._thread.is_alive()

    def wait(self) -> bool:
        """Until nothing is in flight; says whether the newest snapshot is durable.

        A snapshot whose save had failed is tried once more, for the last time.
        """
        self._join()
        if self._pending is not None:
            self._start(last_try=True)
            self._join()
        return self._pending is None and not self._missed

    def _start(self, *, last_try: bool = False) -> None:
        self._join()
        self._retry_at = 0.0
        # Not a daemon: an interpreter that ends by an exception still finishes this save.
        self._thread = threading.Thread(target=self._write, args=(last_try,), name="save")
        self._thread.start()

    def _join(self) -> None:
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _write(self, last_try: bool) -> None:
        """What the thread does: one try, and what follows from it."""
        snapshot = self._pending
        assert snapshot is not None
        try:
            result = write_checkpoint(self.run_path, snapshot)
            self.last = result
        except SaveError as error:
            self._fail(error, will_retry=not last_try)
            return
        except BaseException as error:
            # Whatever it is: a thread that dies in silence would leave a run that is not saved.
            title = f"step {snapshot.step:,} is not saved: {in_words(error)}"
            self._fail(SaveError(title), will_retry=not last_try)
            return
        self._pending = None
        self._delay = FIRST_RETRY
        self.on_saved(result)
        if self._failing:
            self._failing = False
            self.on_recovered(result)
        self._delete_superseded(result)

    def _delete_superseded(self, result: SaveResult) -> None:
        try:
            self._retention.apply(result.path, self.on_deleted, proven=True)
        except OSError as error:
            if not self._stuck:
                self._stuck = True
                title = f"an old checkpoint cannot be deleted: {error.strerror}"
                self.on_failed(SaveError(f"{title} ('{error.filename}')"), True)
        else:
            self._stuck = False

    def _fail(self, error: SaveError, *, will_retry: bool) -> None:
        if not (self._failing and will_retry):
            self.on_failed(error, will_retry)
        self._failing = True
        if self._pending is not None and will_retry:
            self._retry_at = time.monotonic() + self._delay
            self._delay = min(2 * self._delay, LONGEST_RETRY)
