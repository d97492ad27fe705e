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
import json
import os
import platform
import shutil
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from engine import __version__
from engine.atomic import sync_directory
from engine.checkpoints import layout
from engine.checkpoints.layout import CheckpointInfo, checkpoint_folders, step_name
from engine.checkpoints.proof import FORMAT, render_manifest
from engine.checkpoints.retention import retain
from engine.checkpoints.tensors import lay_out
from engine.errors import EngineError

DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint64: "U64",
    torch.uint32: "U32",
    torch.uint16: "U16",
    torch.uint8: "U8",
    torch.bool: "BOOL",
    torch.complex64: "C64",
}
CHUNK = 8 << 20


class SaveError(EngineError):
    """A checkpoint could not be written; the ones that were there are as they were."""


@dataclass(frozen=True)
class SaveResult:
    """A checkpoint that is durable. `seconds`: what the writing took (not what training waited)."""

    path: Path
    step: int
    bytes: int
    seconds: float
    kind: str
    val_loss: float | None


class HostFile:
    """One safetensors file in host memory: kept from save to save, so that a copy costs a copy.

    Freshly allocated memory costs ten times the copy itself (page faults). Pinned when the tensors
    live on a CUDA device, so that the copies need not wait for each other.
    """

    def __init__(self) -> None:
        self._layout: list[tuple[str, str, tuple[int, ...]]] = []
        self._pinned = False
        self.header = b""
        self.data = torch.empty(0, dtype=torch.uint8)
        self._views: dict[str, Tensor] = {}

    def fill(self, tensors: Mapping[str, Tensor]) -> None:
        """Copy `tensors` in; CUDA copies are queued, not awaited (see `Snapshot.ready`)."""
        wanted = [(name, DTYPES[t.dtype], tuple(t.shape)) for name, t in tensors.items()]
        pinned = any(tensor.is_cuda for tensor in tensors.values())
        if wanted != self._layout or pinned != self._pinned or not self.header:
            self._arrange(wanted, tensors, pinned)
        with torch.no_grad():
            for name, tensor in tensors.items():
                self._views[name].copy_(tensor.detach(), non_blocking=tensor.is_cuda)

    def _arrange(
        self,
        wanted: list[tuple[str, str, tuple[int, ...]]],
        tensors: Mapping[str, Tensor],
        pinned: bool,
    ) -> None:
        self._layout, self.header, self._views = [], b"", {}
        header, placed = lay_out(wanted)
        total = sum(info.bytes for info in placed)
        if total != self.data.numel() or pinned != self._pinned:
            self.data = torch.empty(
                0, dtype=torch.uint8
            )  # the old memory goes before the new comes
            self.data = torch.empty(total, dtype=torch.uint8, pin_memory=pinned)
        for info in placed:
            part = self.data[info.offset : info.offset + info.bytes]
            self._views[info.name] = part.view(tensors[info.name].dtype).view(info.shape)
        self._layout, self._pinned, self.header = wanted, pinned, header

    def pieces(self) -> list[memoryview | bytes]:
        return [self.header, memoryview(self.data.numpy())]


@dataclass
class Snapshot:
    """All that one checkpoint will hold, at rest in host memory (once `ready` has happened)."""

    step: int
    kind: str
    val_loss: float | None
    digests: dict[str, Any]
    versions: dict[str, Any]
    files: dict[str, HostFile | bytes]
    ready: torch.cuda.Event | None

    @property
    def bytes(self) -> int:
        return sum(
            len(content) if isinstance(content, bytes) else len(content.header) + len(content.data)
            for content in self.files.values()
        )


class _Memory:
    """The host memory of one saver: the two tensor files, reused by every snapshot."""

    def __init__(self) -> None:
        self.model, self.training = HostFile(), HostFile()

    def take(
        self,
        model_tensors: Mapping[str, Tensor],
        training_tensors: Mapping[str, Tensor] | None,
        state: Mapping[str, Any] | None,
        meta: Mapping[str, Any],
        kind: str,
    ) -> Snapshot:
        """Copy everything that the caller might change after this. Raises SaveError."""
        step = int(meta["step"])
        try:
            kept, tied = without_aliases(model_tensors)
            described = describe_save(meta, kind, tied)
            files: dict[str, HostFile | bytes] = {layout.META: _to_json(described)}
            if state is not None:
                files[layout.STATE] = _to_json(state)
            if training_tensors is not None:
                self.training.fill(training_tensors)
                files[layout.TRAINING] = self.training
            self.model.fill(kept)
            files[layout.MODEL] = self.model
            ready = None
            if self.model.data.is_pinned() or self.training.data.is_pinned():
                ready = torch.cuda.Event()
                ready.record()
        except (RuntimeError, MemoryError, TypeError, ValueError, KeyError) as error:
            raise SaveError(
                f"step {step:,} is not saved: {type(error).__name__}: {error}",
                "the checkpoint needs its own size in host memory while it is written",
            ) from error
        return Snapshot(
            step,
            kind,
            described.get("val_loss"),
            described["digests"],
            described["versions"],
            files,
            ready,
        )


def without_aliases(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """`tensors` with each tied one stored once, and which name stands for which other.

    Of a tied pair the output layer's name (`lm_head.…`) goes: readers of GPT-2 files expect that.
    """
    owners: dict[tuple[Any, ...], str] = {}
    tied: dict[str, str] = {}
    for name in sorted(tensors, key=lambda name: name.startswith("lm_head.")):
        tensor = tensors[name]
        where = (tensor.device, tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride())
        if tensor.numel() and where in owners:
            tied[name] = owners[where]
        owners.setdefault(where, name)
    return {name: tensor for name, tensor in tensors.items() if name not in tied}, tied


def describe_save(meta: Mapping[str, Any], kind: str, tied: Mapping[str, str]) -> dict[str, Any]:
    """`meta` with what every checkpoint states: kind, time, digests, versions, tied names."""
    digests = dict(meta.get("digests") or {})
    if "config" in meta:
        text = json.dumps(meta["config"], sort_keys=True, ensure_ascii=True)
        digests["config"] = hashlib.sha256(text.encode()).hexdigest()
    versions = {
        "tui-lab": __version__,
        "torch": str(torch.__version__),
        "python": platform.python_version(),
        **(meta.get("versions") or {}),
    }
    added = {"kind": kind, "time": time.time(), "digests": digests, "versions": versions}
    return {**meta, **added, **({"tied": dict(tied)} if tied else {})}


def _to_json(value: Mapping[str, Any]) -> bytes:
    return (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode()


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
    snapshot = _Memory().take(model_tensors, training_tensors, state, meta, kind)
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
        self._memory = _Memory()
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
