"""Loading: tensors whose bytes are proven to be those that were saved.

Each file is read once into memory, hashed behind the reading, and only then looked at: what is
checked is what is used. A run that goes on has memory for the tensors already: they are read into
it, since memory that the system must find and clear first costs several times the reading. No
pickle, no memory map (a file truncated under a map kills the process). Knows no model: named
tensors come out. Needs torch.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from io import BufferedReader
from itertools import starmap
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from engine.checkpoints import hashes, layout
from engine.checkpoints.layout import CheckpointInfo
from engine.checkpoints.proof import check_digest, check_size, read_manifest
from engine.checkpoints.snapshot import DTYPES, host_memory
from engine.checkpoints.tensors import (
    TensorInfo,
    open_regular,
    parse_header,
    parse_json,
)
from engine.errors import CheckpointError

PART = 8 << 20  # bytes that one thread reads at a time
WORTH = 256 << 10
"""Bytes; smaller tensors are read together, and copied to where they are wanted."""
READERS = 2
"""Threads that read one file. Copying out of the page cache into fresh memory keeps a core busy;
two are as fast as the memory."""

TYPES = {name: dtype for dtype, name in DTYPES.items()}
"""Types by the name that the file format has for them."""


class Training(NamedTuple):
    """What resuming needs beside the weights, on the CPU."""

    tensors: dict[str, Tensor]
    rng: dict[str, Tensor]  # the tensors saved as `rng.<name>`, by <name>
    state: dict[str, Any]


def load_weights(
    info: CheckpointInfo,
    device: torch.device | str = "cpu",
    into: Mapping[str, Tensor] | None = None,
) -> dict[str, Tensor]:
    """The model's tensors by name, on `device`; tied ones once, under the name that was kept.

    Those of the tensors `into` that a tensor of the same name can be read into are read into, and
    returned themselves. Raises CheckpointError naming the file when a byte is not as it was saved;
    what `into` holds is of no use then.
    """
    manifest = read_manifest(info.path)
    tensors = _load(info.path / layout.MODEL, manifest["files"][layout.MODEL], into)
    return {name: tensor.to(device) for name, tensor in tensors.items()}


def load_training(info: CheckpointInfo, into: Mapping[str, Tensor] | None = None) -> Training:
    """Optimiser tensors, random states and loop state of a checkpoint; `into`: as `load_weights`.

    Raises CheckpointError when one is damaged, or when the checkpoint was saved without them.
    """
    load_meta(info)  # what it says of the run has been believed: its hash is checked like the rest
    files = read_manifest(info.path)["files"]
    if layout.TRAINING not in files or layout.STATE not in files:
        raise CheckpointError(
            f"'{info.path}' holds weights only: training cannot be resumed from it",
            "it can be sampled from and evaluated",
        )
    named = _load(info.path / layout.TRAINING, files[layout.TRAINING], into)
    tensors = {name: tensor for name, tensor in named.items() if not name.startswith("rng.")}
    # Each with memory of its own: `torch.set_rng_state` reads from the beginning of a tensor's
    # storage, wherever in it the tensor lies (torch 2.13), and crashes on what it finds there.
    rng = {name[4:]: tensor.clone() for name, tensor in named.items() if name.startswith("rng.")}
    return Training(tensors, rng, _load_json(info.path / layout.STATE, files[layout.STATE]))


def load_meta(info: CheckpointInfo) -> dict[str, Any]:
    """The checkpoint's meta data, its hash checked. Raises CheckpointError."""
    entry = read_manifest(info.path)["files"][layout.META]
    return _load_json(info.path / layout.META, entry)


def _load_json(path: Path, entry: dict[str, Any]) -> dict[str, Any]:
    with _opened(path, entry) as file:
        data = memoryview(_memory(os.fstat(file.fileno()).st_size, path).numpy())
        _fill(file, [data], path, entry)
    return parse_json(bytes(data), path)


def _load(
    path: Path, entry: dict[str, Any], into: Mapping[str, Tensor] | None
) -> dict[str, Tensor]:
    """All tensors of one file; those that were not read into what was given share one piece of
    memory, behind the file's header."""
    with _opened(path, entry) as file:
        infos = parse_header(file, path)
        end = file.tell()
        given = _readable_into(infos, into or {})
        data = _memory(end + sum(info.bytes for info in infos if info.name not in given), path)
        memory, pieces, offsets = memoryview(data.numpy()), [], {}
        begin = 0
        for info in infos:
            if info.name in given:
                pieces += [memory[begin:end], _bytes_of(given[info.name])]
                begin = end
            else:
                offsets[info.name] = end
                end += info.bytes
        _fill(file, [*pieces, memory[begin:end]], path, entry)
    tensors = {}
    for info in infos:
        if info.name in given:
            tensors[info.name] = given[info.name]
            continue
        dtype, offset = TYPES[info.dtype], offsets[info.name]
        part = data[offset : offset + info.bytes]
        if offset % dtype.itemsize:  # laid out by another program
            part = part.clone()
        tensors[info.name] = part.view(dtype).view(info.shape)
    return tensors


def _memory(size: int, path: Path) -> Tensor:
    try:
        return host_memory(size)
    except (OSError, RuntimeError) as error:
        raise CheckpointError(
            f"'{path}' does not fit in memory: it needs {size:,} bytes",
            "free some memory, or take a machine with more",
        ) from error


def _readable_into(infos: list[TensorInfo], into: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Which of `into` the bytes of the file's tensors can be read into as they stand."""
    found: dict[str, Tensor] = {}
    taken: set[int] = set()  # where they begin: tied ones are one tensor
    for info in infos:
        tensor = into.get(info.name)
        if (
            tensor is not None
            and info.bytes >= WORTH
            and tensor.device.type == "cpu"
            and tensor.is_contiguous()
            and (tensor.dtype, tuple(tensor.shape)) == (TYPES[info.dtype], info.shape)
            and tensor.data_ptr() not in taken
        ):
            taken.add(tensor.data_ptr())
            found[info.name] = tensor
    return found


def _bytes_of(tensor: Tensor) -> memoryview:
    return memoryview(tensor.detach().view(-1).view(torch.uint8).numpy())


@contextmanager
def _opened(path: Path, entry: dict[str, Any]) -> Iterator[BufferedReader]:
    """The file, which has as many bytes as the manifest says. Raises CheckpointError."""
    with open_regular(path) as file:
        check_size(path, os.fstat(file.fileno()).st_size, entry)
        yield file


def _fill(
    file: BufferedReader, pieces: list[memoryview], path: Path, entry: dict[str, Any]
) -> None:
    """Fill the pieces, one behind the other, from the file's beginning, and prove their bytes.

    Raises CheckpointError when the file ends early or its hash is not the manifest's, OSError when
    it cannot be read.
    """
    parts: list[tuple[int, memoryview]] = []
    position = 0
    for piece in pieces:
        parts += [(position + at, piece[at : at + PART]) for at in range(0, len(piece), PART)]
        position += len(piece)
    descriptor = file.fileno()

    def read(start: int, part: memoryview) -> memoryview:
        done = 0
        while done < len(part):
            count = os.preadv(descriptor, [part[done:]], start + done)
            if not count:
                raise CheckpointError(f"'{path}' ended while it was read")
            done += count
        return part

    digest = hashes.matching(entry)
    if len(parts) < 2:
        for part in starmap(read, parts):
            digest.update(part)
    else:
        with ThreadPoolExecutor(READERS, thread_name_prefix="load") as pool:
            for part in pool.map(read, *zip(*parts, strict=True)):
                digest.update(part)
    check_digest(path, digest, entry)
