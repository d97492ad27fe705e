"""Loading: tensors whose bytes are proven to be those that were saved.

Each file is read once into memory, hashed while it is read, and only then looked at: what is
checked is what is used. No pickle, no memory map (a file truncated under a map kills the process).
Knows no model: named tensors come out. Needs torch.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from engine.checkpoints import layout
from engine.checkpoints.layout import CheckpointInfo
from engine.checkpoints.save import DTYPES
from engine.checkpoints.tensors import open_regular, parse_header, parse_json
from engine.checkpoints.verify import CHUNK, check_digest, check_size, read_manifest
from engine.errors import CheckpointError

_TYPES = {name: dtype for dtype, name in DTYPES.items()}


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
    files = read_manifest(info.path)["files"]
    if layout.TRAINING not in files or layout.STATE not in files:
        raise CheckpointError(
            f"'{info.path}' holds weights only: training cannot be resumed from it",
            "it can be sampled from and evaluated",
        )
    named = _load(info.path / layout.TRAINING, files[layout.TRAINING])
    tensors = {name: tensor for name, tensor in named.items() if not name.startswith("rng.")}
    rng = {name[4:]: tensor for name, tensor in named.items() if name.startswith("rng.")}
    state_path = info.path / layout.STATE
    return Training(tensors, rng, parse_json(_read(state_path, files[layout.STATE])[0], state_path))


def load_meta(info: CheckpointInfo) -> dict[str, Any]:
    """The checkpoint's meta data, its hash checked. Raises CheckpointError."""
    path = info.path / layout.META
    return parse_json(_read(path, read_manifest(info.path)["files"][layout.META])[0], path)


def _load(path: Path, entry: dict[str, Any]) -> dict[str, Tensor]:
    """All tensors of one file; they share the memory that the file was read into."""
    data, infos = _read(path, entry)
    whole = torch.frombuffer(data, dtype=torch.uint8) if data else torch.empty(0, dtype=torch.uint8)
    tensors = {}
    for info in infos:
        dtype = _TYPES[info.dtype]
        part = whole[info.offset : info.offset + info.bytes]
        if info.offset % dtype.itemsize:  # laid out by another program
            part = part.clone()
        tensors[info.name] = part.view(dtype).view(info.shape)
    return tensors


def _read(path: Path, entry: dict[str, Any]) -> tuple[bytearray, list[Any]]:
    """A file's bytes, proven by size and hash, and its tensors if it is a safetensors file."""
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        check_size(path, size, entry)
        infos = parse_header(file, path) if path.suffix == ".safetensors" else []
        file.seek(0)
        data, digest, filled = bytearray(size), hashlib.sha256(), 0
        view = memoryview(data)
        while filled < size:
            count = file.readinto(view[filled : filled + CHUNK])
            if not count:
                raise CheckpointError(f"'{path}' ended while it was read")
            digest.update(view[filled : filled + count])
            filled += count
    check_digest(path, digest.hexdigest(), entry)
    return data, infos
