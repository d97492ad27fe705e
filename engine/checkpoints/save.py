"""Saving: everything or nothing.

The protocol: a temporary folder `.tmp-<step>-<pid>` in the run's own folder; tensors and JSON into
it, each flushed to the disk and read back; the manifest last; the folder flushed; renamed to
`step_<step>`; the run's folder flushed. Only then is "saved" said, and only then may retention
delete older ones. A crash at any moment leaves either no new checkpoint or a whole one, and never
fewer than before.

A snapshot is written from host memory laid out as the files will be, in a few large raw writes,
hashed on the way; both release the interpreter, so that a thread can do it beside training. Knows
no model and no optimiser: named tensors go in. Needs torch.
"""

from __future__ import annotations

import errno
import os
import shutil
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from engine import atomic
from engine.checkpoints import direct, hashes, layout
from engine.checkpoints.layout import checkpoint_folders, step_name
from engine.checkpoints.proof import FORMAT, render_manifest
from engine.checkpoints.retention import Retention
from engine.checkpoints.snapshot import Memory, SaveError, Snapshot

CHUNK = 8 << 20  # bytes of one write
BACK = 4 << 20
"""Bytes read back at a time. They fill large pages, of which the system looks up two and not a
thousand: reading and hashing takes a core 0.09 s a gigabyte; with 1 MB 0.16 s, with 16 MB 0.09."""
ROOM = 64 << 10  # bytes of the manifest, and of what a file system adds


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
    """Carry out the protocol; returns once the checkpoint is durable.

    Raises SaveError; what was written of it is gone by then, and its room free again.
    """
    started = time.perf_counter()
    temporary = run_path / f".tmp-{snapshot.step}-{os.getpid()}"
    try:
        if snapshot.ready is not None:
            snapshot.ready.synchronize()
        atomic.discard(temporary)  # an earlier try, or something planted under the name
        _check_room(run_path, snapshot)
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
        last = _write_file(temporary / layout.MANIFEST, [render_manifest(manifest)])
        atomic.sync_directory(temporary)
        target = _put_in_place(temporary, run_path, snapshot.step)
        atomic.sync_directory(run_path)
    except BaseException as error:
        atomic.discard(temporary)
        if not isinstance(error, Exception):
            raise
        raise _explain(error, run_path, snapshot) from error
    seconds = time.perf_counter() - started
    total = sum(entry["bytes"] for entry in [*files.values(), last])
    return SaveResult(target, snapshot.step, total, seconds, snapshot.kind, snapshot.val_loss)


def _check_room(run_path: Path, snapshot: Snapshot) -> None:
    """Refuse what cannot fit before it takes the last bytes from the run's metrics and log."""
    disk = shutil.disk_usage(run_path)
    if disk.total and disk.free < snapshot.bytes + ROOM:  # some file systems tell nothing: total 0
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(run_path))


def _write_file(path: Path, pieces: list[memoryview | bytes]) -> dict[str, Any]:
    """Write and flush one file, and read it back; returns its entry in the manifest."""
    digest, total = hashes.new(), 0
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        for piece in pieces:
            view = memoryview(piece)
            for start in range(0, len(view), CHUNK):
                chunk = view[start : start + CHUNK]
                digest.update(chunk)
                direct.write_all(descriptor, chunk)
            total += len(view)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    found = hashes.new()
    for piece in direct.contents(path, BACK):
        found.update(piece)
    if found.hexdigest() != digest.hexdigest():
        raise OSError(errno.EIO, "it does not read back as it was written", str(path))
    return {"bytes": total, hashes.NAME: digest.hexdigest()}


def _put_in_place(temporary: Path, run_path: Path, step: int) -> Path:
    """Give the folder its name: one that no folder has, since a rename over one can lose both."""
    taken = [again for number, again, _ in checkpoint_folders(run_path) if number == step]
    again = max(taken, default=0) + 1
    while True:
        target = run_path / step_name(step, again)
        if not os.path.lexists(target):
            os.rename(temporary, target)
            return target
        again += 1


def _explain(error: Exception, run_path: Path, snapshot: Snapshot) -> SaveError:
    title, hint = f"step {snapshot.step:,} is not saved: ", "earlier checkpoints are kept"
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        what = "the disk is full" if error.errno == errno.ENOSPC else "the disk's quota is used up"
        room = f"{_size(snapshot.bytes + ROOM)} needed"
        with suppress(OSError):
            room += f", {_size(shutil.disk_usage(run_path).free)} free"
        return SaveError(f"{title}{what} ({room})", f"free some space for '{run_path}'; {hint}")
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
    Retention(run_path, policy, resumed_from).apply(result.path, proven=True)
    return result
