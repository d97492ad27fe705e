"""Loading: tensors whose bytes are proven to be those that were saved.

Each file is read once into memory, hashed behind the reading, and only then looked at: what is
checked is what is used. No pickle, no memory map (a file truncated under a map kills the process).
Knows no model: named tensors come out. Needs torch.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
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

PART = 16 << 20  # bytes that one thread reads at a time
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


def load_weights(info: CheckpointInfo, device: torch.device | str = "cpu") -> dict[str, Tensor]:
    """The model's tensors by name, on `device`; tied ones once, under the name that was kept.

    Raises CheckpointError naming the file when a byte is not as it was saved.
    """
    manifest = read_manifest(info.path)
    tensors = _load(info.path / layout.MODEL, manifest["files"][layout.MODEL])
    return {name: tensor.to(device) for name, tensor in tensors.items()}


def load_training(info: CheckpointInfo) -> Training:
    """Optimiser tensors, random states and loop state of a checkpoint.

    Raises CheckpointError when one is damaged, or when the checkpoint was saved without them.
    """
    load_meta(info)  # what it says of the run has been believed: its hash is checked like the rest
    files = read_manifest(info.path)["files"]
    if layout.TRAINING not in files or layout.STATE not in files:
        raise CheckpointError(
            f"'{info.path}' holds weights only: training cannot be resumed from it",
            "it can be sampled from and evaluated",
        )
    named = _load(info.path / layout.TRAINING, files[layout.TRAINING])
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
    return parse_json(bytes(_read(path, entry)[0].numpy()), path)


def _load(path: Path, entry: dict[str, Any]) -> dict[str, Tensor]:
    """All tensors of one file; they share the memory that the file was read into."""
    data, infos = _read(path, entry)
    tensors = {}
    for info in infos:
        dtype = TYPES[info.dtype]
        part = data[info.offset : info.offset + info.bytes]
        if info.offset % dtype.itemsize:  # laid out by another program
            part = part.clone()
        tensors[info.name] = part.view(dtype).view(info.shape)
    return tensors


def _read(path: Path, entry: dict[str, Any]) -> tuple[Tensor, list[TensorInfo]]:
    """A file's bytes, proven by size and hash, and its tensors if it is a safetensors file."""
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        check_size(path, size, entry)
        infos = parse_header(file, path) if path.suffix == ".safetensors" else []
        try:
            data = host_memory(size)
        except (OSError, RuntimeError) as error:
            raise CheckpointError(
                f"'{path}' does not fit in memory: it has {size:,} bytes",
                "free some memory, or take a machine with more",
            ) from error
        digest = hashes.matching(entry)
        for part in _filled(file.fileno(), memoryview(data.numpy()), path):
            digest.update(part)
    check_digest(path, digest, entry)
    return data, infos


def _filled(descriptor: int, view: memoryview, path: Path) -> Iterator[memoryview]:
    """`view` as it is filled from the file's beginning, part by part and in order.

    Raises CheckpointError when the file ends early, OSError when it cannot be read.
    """

    def fill(start: int) -> memoryview:
        part, done = view[start : start + PART], 0
        while done < len(part):
            count = os.preadv(descriptor, [part[done:]], start + done)
            if not count:
                raise CheckpointError(f"'{path}' ended while it was read")
            done += count
        return part

    starts = range(0, len(view), PART)
    if len(starts) < 2:
        yield from map(fill, starts)
        return
    with ThreadPoolExecutor(READERS, thread_name_prefix="load") as pool:
        yield from pool.map(fill, starts)
