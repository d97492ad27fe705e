"""Reading a pickle that somebody vouches for: its tensors by name, and nothing kept of the rest.

First with torch's reader of tensors alone, which runs no code of the file; only when that refuses,
and only when told to, with the full one, which does. Needs torch.
"""

from __future__ import annotations

import math
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from engine.checkpoints.snapshot import DTYPES
from engine.checkpoints.tensors import TensorInfo
from engine.errors import CheckpointError

_DEPTH = 8


class NeedsCode(CheckpointError):
    """The file holds more than tensors and plain values: reading it means running what it says."""


def read_trusted(path: Path, *, run_code: bool = False) -> list[TensorInfo]:
    """The tensors in the pickle at `path`, by dotted name, in the file's order.

    Raises NeedsCode unless tensors and plain values are all that it holds, or `run_code` is given;
    CheckpointError when it cannot be read at all.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=not run_code)
    except pickle.UnpicklingError as error:
        if run_code:
            raise _unreadable(path, error) from error
        raise NeedsCode(
            f"'{path}' holds more than tensors: reading it runs what its maker wrote", _words(error)
        ) from error
    except Exception as error:  # under trust the file's own code may raise anything
        raise _unreadable(path, error) from error
    found: list[TensorInfo] = []
    _collect(content, "", found, _DEPTH)
    if not found:
        raise CheckpointError(f"'{path}' holds no tensor")
    return found


def _collect(value: Any, name: str, found: list[TensorInfo], depth: int) -> None:
    if isinstance(value, torch.Tensor):
        shape = tuple(value.shape)
        kind = DTYPES.get(value.dtype, str(value.dtype).removeprefix("torch."))
        size = math.prod(shape) * value.element_size()
        found.append(TensorInfo(name or "tensor", kind, shape, size))
    elif depth and isinstance(value, torch.nn.Module):
        _collect(value.state_dict(), name, found, depth - 1)
    elif depth and isinstance(value, Mapping):
        for key, item in value.items():
            _collect(item, f"{name}.{key}" if name else str(key), found, depth - 1)
    elif depth and isinstance(value, list | tuple):
        for index, item in enumerate(value):
            _collect(item, f"{name}.{index}" if name else str(index), found, depth - 1)


def _unreadable(path: Path, error: Exception) -> CheckpointError:
    return CheckpointError(f"'{path}' cannot be read as a pickle of torch", _words(error))


def _words(error: Exception) -> str:
    """The first line of what torch says, which goes on about switching its protection off."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:200]
