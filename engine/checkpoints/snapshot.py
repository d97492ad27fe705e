"""A moment of training, copied into host memory: what one checkpoint will hold.

The memory is laid out as the files will be and kept from save to save. Knows named tensors, and
not how or where they are written. Needs torch.
"""

from __future__ import annotations

import hashlib
import json
import platform
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from engine import __version__
from engine.checkpoints import direct, layout
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


class SaveError(EngineError):
    """A checkpoint could not be written; the ones that were there are as they were."""


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

    def allot(self, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
        """Room for float32 tensors of these shapes, whose numbers are whatever lay there.

        The caller writes into them: `fill` with the same tensors then has nothing left to copy, so
        that a large model read from elsewhere is in memory once.
        """
        shaped = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
        self._arrange([(name, "F32", tuple(shapes[name])) for name in shapes], shaped, False)
        return {name: self._views[name] for name in shapes}

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
            self.data = host_memory(total, pinned)
        for info in placed:
            part = self.data[info.offset : info.offset + info.bytes]
            self._views[info.name] = part.view(tensors[info.name].dtype).view(info.shape)
        self._layout, self._pinned, self.header = wanted, pinned, header

    def pieces(self) -> list[memoryview | bytes]:
        return [self.header, memoryview(self.data.numpy())]


def host_memory(size: int, pinned: bool = False) -> Tensor:
    """(size,) uint8 that begins at a page, so that it can be written past the cache; in large pages
    where there are some. Raises OSError, RuntimeError."""
    if pinned or not size:
        return torch.empty(size, dtype=torch.uint8, pin_memory=pinned)
    return torch.frombuffer(direct.memory(size), dtype=torch.uint8)


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


class Memory:
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
