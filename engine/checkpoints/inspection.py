"""What is in a checkpoint: described from its headers alone, or measured tensor by tensor.

Headers give configuration, names, types, shapes and training state in milliseconds whatever the
size of the weights. `tensor_statistics` reads the weights in pieces with numpy: memory stays at a
few megabytes. No torch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from engine.checkpoints import layout
from engine.checkpoints.layout import CheckpointInfo, describe, list_checkpoints
from engine.checkpoints.tensors import SIZES, TensorInfo, open_regular, parse_header, read_header
from engine.checkpoints.tensors import read_json as _read_json
from engine.config import Config, from_dict
from engine.errors import CheckpointError, ConfigError

BINS = 32
PIECE = 1 << 20  # elements read at once

_NUMPY = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "BF16": "<u2",
    "I64": "<i8",
    "I32": "<i4",
    "I16": "<i2",
    "I8": "i1",
    "U64": "<u8",
    "U32": "<u4",
    "U16": "<u2",
    "U8": "u1",
    "BOOL": "u1",
}


@dataclass(frozen=True)
class Inspection:
    """A checkpoint as its headers tell it; nothing here has been checked against the hashes."""

    info: CheckpointInfo
    meta: dict[str, Any]
    state: dict[str, Any]
    manifest: dict[str, Any]
    tensors: list[TensorInfo]
    training_tensors: list[TensorInfo]

    @property
    def config(self) -> Config | None:
        """The configuration that was saved; None when there is none that this version reads."""
        values = self.meta.get("config")
        try:
            return from_dict(values, layout.META) if isinstance(values, dict) else None
        except ConfigError:
            return None

    @property
    def n_parameters(self) -> int:
        """Numbers in the model's tensors, a tied matrix counted once."""
        return sum(tensor.count for tensor in self.tensors)


def inspect(path: Path) -> Inspection:
    """Describe the checkpoint at `path` without reading a weight. Raises CheckpointError."""
    if path.is_symlink() or not path.is_dir():
        raise CheckpointError(f"'{path}' is not a checkpoint's folder")
    beside = {info.path: info for info in list_checkpoints(path.parent)}
    return Inspection(
        info=beside.get(path) or describe(path),
        meta=_read_json(path / layout.META),
        state=_optional(path / layout.STATE),
        manifest=_read_json(path / layout.MANIFEST),
        tensors=_in_model_order(read_header(path / layout.MODEL)),
        training_tensors=(
            read_header(path / layout.TRAINING) if (path / layout.TRAINING).is_file() else []
        ),
    )


def _optional(path: Path) -> dict[str, Any]:
    return _read_json(path) if path.is_file() else {}


def _in_model_order(tensors: list[TensorInfo]) -> list[TensorInfo]:
    """From the embeddings through the blocks to the output, as the text would go."""

    def key(tensor: TensorInfo) -> tuple[Any, ...]:
        parts = tensor.name.split(".")
        place = {"wte": 0, "wpe": 1, "blocks": 2, "lm_head": 4}.get(parts[0], 3)
        numbered = [(0, int(p), "") if p.isdecimal() and len(p) < 10 else (1, 0, p) for p in parts]
        return place, numbered

    return sorted(tensors, key=key)


@dataclass(frozen=True)
class TensorStatistics:
    """One tensor's numbers, over its finite elements; None for types that numpy cannot read.

    `counts`: elements in each of 32 equal bins from `minimum` to `maximum`.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    norm: float | None = None
    mean: float | None = None
    std: float | None = None
    minimum: float | None = None
    maximum: float | None = None
    non_finite: int = 0
    counts: tuple[int, ...] = ()


def tensor_statistics(
    path: Path,
    name: str | None = None,
    progress: Callable[[int, int], None] | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> list[TensorStatistics]:
    """Statistics of every model tensor of a checkpoint, or of the one called `name`.

    `progress(bytes done, bytes in all)` is called after each tensor; `should_stop` ends the work
    early with what is there. Raises CheckpointError for an unknown name or a broken file.
    """
    with open_regular(path / layout.MODEL) as file:
        tensors = _in_model_order(parse_header(file, path / layout.MODEL))
        if name is not None:
            tensors = [tensor for tensor in tensors if tensor.name == name]
            if not tensors:
                raise CheckpointError(f"'{path}' has no tensor '{name[:200]}'")
        total, done, result = sum(tensor.bytes for tensor in tensors), 0, []
        for tensor in tensors:
            if should_stop():
                break
            result.append(_measure(file, tensor))
            done += tensor.bytes
            if progress:
                progress(done, total)
    return result


def _measure(file: BinaryIO, tensor: TensorInfo) -> TensorStatistics:
    """Two passes: moments and range, then the histogram over that range."""
    unread = TensorStatistics(tensor.name, tensor.dtype, tensor.shape)
    if tensor.dtype not in _NUMPY or not tensor.count:
        return unread
    number, total, squares, bad = 0, 0.0, 0.0, 0
    low, high = math.inf, -math.inf
    for values in _pieces(file, tensor):
        finite = values[np.isfinite(values)]
        bad += len(values) - len(finite)
        if len(finite):
            number += len(finite)
            total += float(finite.sum())
            squares += float(np.square(finite).sum())
            low, high = min(low, float(finite.min())), max(high, float(finite.max()))
    if not number:
        return TensorStatistics(tensor.name, tensor.dtype, tensor.shape, non_finite=bad)
    mean = total / number
    spread = 0.0
    counts = np.zeros(BINS, dtype=np.int64)
    span = (low, high) if low < high else (low - 0.5, high + 0.5)
    for values in _pieces(file, tensor):
        finite = values[np.isfinite(values)]
        spread += float(np.square(finite - mean).sum())  # not E[x²] − E[x]²: that cancels
        if math.isfinite(span[1] - span[0]):
            counts += np.histogram(finite, bins=BINS, range=span)[0]
    return TensorStatistics(
        tensor.name,
        tensor.dtype,
        tensor.shape,
        norm=math.sqrt(squares),
        mean=mean,
        std=math.sqrt(spread / number),
        minimum=low,
        maximum=high,
        non_finite=bad,
        counts=tuple(int(n) for n in counts),
    )


def _pieces(file: BinaryIO, tensor: TensorInfo) -> Iterator[np.ndarray]:
    """The tensor's elements in order as float64, at most PIECE of them at once."""
    file.seek(tensor.offset)
    left = tensor.bytes
    while left:
        data = file.read(min(left, PIECE * SIZES[tensor.dtype]))
        if not data or len(data) % SIZES[tensor.dtype]:
            raise CheckpointError(f"'{tensor.name}' ended while it was read")
        left -= len(data)
        raw = np.frombuffer(data, dtype=_NUMPY[tensor.dtype])
        if tensor.dtype == "BF16":  # the upper half of a float32
            raw = (raw.astype(np.uint32) << 16).view(np.float32)
        with np.errstate(over="ignore", invalid="ignore"):
            yield raw.astype(np.float64)
