"""The safetensors layout by hand: 8 bytes of header length, a JSON header, the tensors' bytes.

Written by hand so that a save is a few raw writes of memory already laid out, and read by hand so
that a hostile file meets bounds before memory: every promise of a header is checked against the
file's size before anything is believed. Knows no torch and nothing of what the tensors mean.
Format: https://github.com/huggingface/safetensors#format
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Any, BinaryIO

from engine.checkpoints.pickles import starts_pickle
from engine.errors import CheckpointError
from engine.plain_file import open_plain

PAGE = 4096
"""A header's length is a multiple of this, so that the data begins at a page of the disk."""
MAX_HEADER = 16_000_000  # bytes; 100 000 tensors take about 10 MB
MAX_TENSORS = 200_000
MAX_RANK = 64
MAX_JSON = 16_000_000  # bytes of a JSON file beside the tensors; parsed, thirty times that

SIZES = {
    "F64": 8,
    "F32": 4,
    "F16": 2,
    "BF16": 2,
    "F8_E4M3": 1,
    "F8_E5M2": 1,
    "I64": 8,
    "I32": 4,
    "I16": 2,
    "I8": 1,
    "U64": 8,
    "U32": 4,
    "U16": 2,
    "U8": 1,
    "BOOL": 1,
    "C64": 8,
}
"""Bytes of one element by the format's name of its type; what this program writes and reads."""


@dataclass(frozen=True)
class TensorInfo:
    """One tensor of a file. `offset`: where its bytes begin, counted from the file's beginning."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    bytes: int
    offset: int = 0

    @property
    def count(self) -> int:
        return math.prod(self.shape)


def lay_out(tensors: Iterable[tuple[str, str, tuple[int, ...]]]) -> tuple[bytes, list[TensorInfo]]:
    """The header for tensors of (name, dtype, shape), and where each one's bytes go.

    Wide types come first, then by name: so every tensor starts at a multiple of its element size
    and the memory of the data can be viewed as the tensors themselves. Offsets in the result count
    from the end of the header, which is padded to whole pages: they can then be written directly.
    """
    placed, position = [], 0
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    for name, dtype, shape in sorted(tensors, key=lambda item: (-SIZES[item[1]], item[0])):
        length = math.prod(shape) * SIZES[dtype]
        placed.append(TensorInfo(name, dtype, shape, length, position))
        header[name] = {
            "dtype": dtype,
            "shape": list(shape),
            "data_offsets": [position, position + length],
        }
        position += length
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-(8 + len(text)) % PAGE)
    return len(text).to_bytes(8, "little") + text, placed


def open_regular(path: Path) -> BufferedReader:
    """Open a plain file for reading: no symbolic link, no device, no pipe that would block."""
    try:
        return open_plain(path)
    except OSError as error:
        raise CheckpointError(f"cannot read '{path}': {error.strerror}") from error


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file. Raises CheckpointError naming the file, whatever is in it."""
    with open_regular(path) as file:
        data = file.read(MAX_JSON + 1)
    return parse_json(data, path)


def parse_json(data: bytes, path: Path) -> dict[str, Any]:
    if len(data) > MAX_JSON:
        raise CheckpointError(f"'{path}' is too large to be what it should be")
    try:
        value = json.loads(data)
    except (ValueError, RecursionError, MemoryError) as error:
        raise CheckpointError(f"'{path}' is not valid JSON: {_short(error)}") from None
    if not isinstance(value, dict):
        raise CheckpointError(f"'{path}' does not hold a JSON object")
    return value


def read_header(path: Path) -> list[TensorInfo]:
    """The tensors of a safetensors file in the order of their bytes, from its header alone.

    Raises CheckpointError, naming file and tensor, unless the tensors fill the data exactly:
    no hole, no overlap, no byte out of range, each as long as its type and shape say.
    """
    with open_regular(path) as file:
        return parse_header(file, path)


def parse_header(file: BinaryIO, path: Path) -> list[TensorInfo]:
    """`read_header` of an open file; leaves it where the data begins."""
    total = os.fstat(file.fileno()).st_size
    prefix = file.read(8)
    length = int.from_bytes(prefix, "little")
    if len(prefix) < 8 or length > total - 8:
        if starts_pickle(prefix):
            raise _broken(path, "it is a pickle, which can run any program and is never read")
        raise _broken(path, "it is shorter than its header says")
    if length > MAX_HEADER:
        raise _broken(path, f"its header claims {length} bytes, more than {MAX_HEADER}")
    text = file.read(length)
    if len(text) < length or not text.startswith(b"{"):
        raise _broken(path, "its header is not JSON")
    try:
        header = json.loads(text, object_pairs_hook=_without_duplicates)
    except (ValueError, RecursionError, MemoryError) as error:
        raise _broken(path, f"its header is not valid JSON: {_short(error)}") from None
    _check_metadata(header.pop("__metadata__", {}), path)
    if len(header) > MAX_TENSORS:
        raise _broken(path, f"it claims {len(header)} tensors, more than {MAX_TENSORS}")
    start = 8 + length
    tensors = [_tensor(name, entry, start, path) for name, entry in header.items()]
    tensors.sort(key=lambda tensor: (tensor.offset, tensor.bytes))
    end = start
    for tensor in tensors:
        if tensor.offset != end:
            raise _broken(path, f"the bytes of {_quoted(tensor.name)} overlap or leave a hole")
        end += tensor.bytes
    if end != total:
        raise _broken(path, f"its tensors end at byte {end}, the file at {total}")
    return tensors


def _tensor(name: str, entry: Any, start: int, path: Path) -> TensorInfo:
    quoted = _quoted(name)
    if not name or len(name) > 500 or any(part in name for part in ("/", "\\", "\0", "..")):
        raise _broken(path, f"{quoted} is no name for a tensor")
    if not isinstance(entry, Mapping):
        raise _broken(path, f"the entry of {quoted} is not an object")
    dtype, shape, offsets = (entry.get(key) for key in ("dtype", "shape", "data_offsets"))
    if not isinstance(dtype, str) or dtype not in SIZES:
        raise _broken(path, f"{quoted} has the unknown type {_quoted(str(dtype))}")
    if not _sizes(shape) or len(shape) > MAX_RANK:
        raise _broken(path, f"{quoted} has no valid shape")
    if not _sizes(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise _broken(path, f"{quoted} has no valid offsets")
    length = offsets[1] - offsets[0]
    if _bounded_product(shape) * SIZES[dtype] != length:
        raise _broken(path, f"{quoted} has {length} bytes, not what its type and shape need")
    return TensorInfo(name, dtype, tuple(shape), length, start + offsets[0])


def _sizes(value: Any) -> bool:
    return isinstance(value, list) and all(type(n) is int and 0 <= n < 2**63 for n in value)


def _bounded_product(shape: list[int]) -> int:
    """The product, cut off above 2^63: sixty-four huge factors are no reason to compute it."""
    if 0 in shape:
        return 0
    product = 1
    for size in shape:
        product *= size
        if product >= 2**63:
            return 2**63
    return product


def _check_metadata(metadata: Any, path: Path) -> None:
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise _broken(path, "its metadata is not a map of texts")


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a name occurs twice")
    return result


def _broken(path: Path, why: str) -> CheckpointError:
    return CheckpointError(
        f"'{path}' is broken: {why}", "another checkpoint of the run may be good"
    )


def _quoted(name: str) -> str:
    return repr(name if len(name) <= 80 else name[:80] + "…")


def _short(error: BaseException) -> str:
    return str(error)[:120] or type(error).__name__
