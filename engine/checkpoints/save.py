"""Saving: everything or nothing, without holding up training.

The protocol: a temporary folder `.tmp-<step>-<pid>` in the run's own folder; tensors and JSON into
it, each flushed to the disk; the manifest last; the folder flushed; renamed to `step_<step>`; the
run's folder flushed. Only then is "saved" said, and only then may retention delete older ones. A
crash at any moment leaves either no new checkpoint or a whole one, and never fewer than before.

`BackgroundSaver` copies the tensors into host memory laid out as the files will be, and a thread
writes that memory in a few large raw writes, hashing as it goes; both release the interpreter, so
that the training thread loses the copy and nothing else. Knows no model and no optimiser: named
tensors go in. Needs torch.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from engine.atomic import sync_directory
from engine.checkpoints import layout
from engine.checkpoints.layout import CheckpointInfo, checkpoint_folders, step_name
from engine.checkpoints.proof import FORMAT, render_manifest
from engine.checkpoints.retention import retain
from engine.checkpoints.snapshot import Memory, SaveError, Snapshot

CHUNK = 8 << 20  # bytes of one write


@dataclass(frozen=True)
class SaveResult:
    """A checkpoint that is durable. `seconds`: what the writing took (not what training waited)."""

    path: Path
    step: int
    bytes: int
    seconds: float
    kind: str
    val_loss: float | None


def write_checkpoint(run_path: Path, snapshot: Snapshot) -> SaveResult:
    """Carry out the protocol; returns once the checkpoint is durable. Raises SaveError."""
    started = time.perf_counter()
    temporary = run_path / f".tmp-{snapshot.step}-{os.getpid()}"
    try:
        if snapshot.ready is not None:
            snapshot.ready.synchronize()
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(mode=0o700)
        files = {}
        for name, content in snapshot.files.items():
            pieces = [content] if isinstance(content, bytes) else content.pieces()
            files[name] = _write_file(temporary / name, pieces)
        manifest = {
            "format": FORMAT,
            "step": snapshot.step,
            "files": files,
            "digests": snapshot.digests,
            "versions": snapshot.versions,
        }
        _write_file(temporary / layout.MANIFEST, [render_manifest(manifest)])
        sync_directory(temporary)
        target = _put_in_place(temporary, run_path, snapshot.step)
        sync_directory(run_path)
    except BaseException as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise _explain(error, run_path, snapshot) from error
    seconds = time.perf_counter() - started
    total = sum(path.stat().st_size for path in target.iterdir())
    return SaveResult(target, snapshot.step, total, seconds, snapshot.kind, snapshot.val_loss)


def _write_file(path: Path, pieces: list[memoryview | bytes]) -> dict[str, Any]:
    """Write and flush one file; returns its entry in the manifest."""
    digest, total = hashlib.sha256(), 0
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        for piece in pieces:
            view = memoryview(piece)
            for start in range(0, len(view), CHUNK):
                chunk = view[start : start + CHUNK]
                digest.update(chunk)
                while len(chunk):
                    chunk = chunk[os.write(descriptor, chunk) :]
            total += len(view)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return {"bytes": total, "sha256": digest.hexdigest()}


def _put_in_place(temporary: Path, run_path: Path, step: int) -> Path:
    """Give the folder its name: one that no folder has, since a rename over one can lose both."""
    taken = [again for number, again, _ in checkpoint_folders(run_path) if number == step]
    again = max(taken, default=0) + 1
    while True:
        target = run_path / step_name(step, again)
        if not os.path.lexists(target):
            temporary.rename(target)
            return target
        again += 1


def _explain(error: BaseException, run_path: Path, snapshot: Snapshot) -> SaveError:
    title, hint = f"step {snapshot.step:,} is not saved: ", "earlier checkpoints are kept"
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        with suppress(OSError):
            free = shutil.disk_usage(run_path).free
            title += f"the disk is full ({_size(snapshot.bytes)} needed, {_size(free)} free)"
            return SaveError(title, f"free some space for '{run_path}'; {hint}")
    if isinstance(error, OSError) and error.strerror:
        return SaveError(title + f"{error.strerror} ('{error.filename or run_path}')", hint)
    return SaveError(title + f"{type(error).__name__}: {error}", hint)


def _size(count: int) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


def save(
    run_path: Path,
    model_tensors: Mapping[str, Tensor],
    training_tensors: Mapping[str, Tensor] | None,
    state: Mapping[str, Any] | None,
    meta: Mapping[str, Any],
    *,
    kind: str = "manual",
    policy: str = "rolling",
    resumed_from: Path | None = None,
) -> SaveResult:
    """Save and wait: the background saver's path, in the caller's thread. Raises SaveError.

    `meta` must hold `step`; without `training_tensors` or `state` the checkpoint can be sampled
    and evaluated, and not resumed.
    """
    snapshot = Memory().take(model_tensors, training_tensors, state, meta, kind)
    result = write_checkpoint(run_path, snapshot)
    retain(run_path, result.path, policy, resumed_from)
    return result


def _ignore(*_: Any) -> None:
    pass


class BackgroundSaver:
    """Saves a run's checkpoints from a thread, one at a time.

    A snapshot taken while another is being written waits for it: memory stays bounded at one copy
    of the checkpoint, and saves that come faster than the disk slow down to the disk. A save that
    failed is reported by `on_failed(error, will_retry)`; its place is taken by the next snapshot,
    and `wait` tries the last one once more. Callbacks come from the writing thread:
    `on_saved` when the checkpoint is durable, then `on_deleted` for each that retention removed.
    """

    def __init__(
        self,
        run_path: Path,
        *,
        policy: str = "rolling",
        resumed_from: Path | None = None,
        on_saved: Callable[[SaveResult], None] = _ignore,
        on_failed: Callable[[SaveError, bool], None] = _ignore,
        on_deleted: Callable[[CheckpointInfo], None] = _ignore,
    ) -> None:
        self.run_path, self.policy, self.resumed_from = run_path, policy, resumed_from
        self.on_saved, self.on_failed, self.on_deleted = on_saved, on_failed, on_deleted
        self.last: SaveResult | None = None
        self._memory = Memory()
        self._pending: Snapshot | None = None
        self._thread: threading.Thread | None = None

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
        self._pending = None  # its memory is about to be overwritten
        try:
            self._pending = self._memory.take(model_tensors, training_tensors, state, meta, kind)
        except SaveError as error:
            self.on_failed(error, True)
        else:
            # Not a daemon: an interpreter that ends by an exception still finishes this save.
            self._thread = threading.Thread(target=self._write, args=(True,), name="save")
            self._thread.start()
        return time.perf_counter() - started

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
            self._write(False)
        return self._pending is None

    def _join(self) -> None:
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _write(self, will_retry: bool) -> None:
        assert self._pending is not None
        try:
            self.last = write_checkpoint(self.run_path, self._pending)
        except SaveError as error:
            self.on_failed(error, will_retry)
            return
        self._pending = None
        self.on_saved(self.last)
        try:
            deleted = retain(self.run_path, self.last.path, self.policy, self.resumed_from)
        except OSError as error:
            title = f"an old checkpoint cannot be deleted: {error.strerror} ('{error.filename}')"
            self.on_failed(SaveError(title, "it is tried again after the next save"), True)
            return
        for info in deleted:
            self.on_deleted(info)
