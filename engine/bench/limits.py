"""What a device does at best, timed here: matrix products and reads and copies of its memory.

Best of many, not typical: other work on the machine can only make a figure too low, and a share of
a peak that is too low flatters.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

SIDES = {"cpu": (1024, 2048), "cuda": (4096, 8192), "mps": (2048, 4096)}
"""Sides of the square matrices, of which the fastest counts."""
BYTES = {"cpu": 512 << 20, "cuda": 2 << 30, "mps": 512 << 20}
"""Size of what is read and copied: far beyond any cache."""
READ = "a float32 tensor summed, or times a vector: the faster of both"
"""On a processor PyTorch's product of a matrix and a vector works on one core, and would take half
of what memory gives two cores for all of it."""
COPY = "one tensor to another, bytes read and written both counted"


@dataclass(frozen=True)
class Bandwidth:
    """Bytes a second; `size` bytes were read, or copied."""

    read: float
    copy: float
    size: int


def matmul_peak(
    device: torch.device, precision: str, seconds: float = 0.5, sides: Sequence[int] = ()
) -> float:
    """FLOP/s of the fastest square matrix product of `precision`, of those with these `sides` (by
    default such as suit the device); 0.0 where the device has none."""
    sides = sides or SIDES.get(device.type, SIDES["cpu"])
    dtype, best = getattr(torch, precision), 0.0
    try:
        for side in sides:
            left, right = (torch.ones(side, side, dtype=dtype, device=device) for _ in range(2))
            taken = _fastest(lambda a=left, b=right: a.mm(b), device, seconds / len(sides))
            best = max(best, 2.0 * side**3 / taken)
    except RuntimeError:  # the device is full, or lacks this product
        return best
    return best


def bandwidth(device: torch.device, seconds: float = 1.0) -> Bandwidth:
    """How fast memory is read and copied, by `READ` and `COPY`."""
    size = BYTES.get(device.type, BYTES["cpu"])
    width = 4096
    source = torch.ones(size // 4 // width, width, device=device)
    vector = torch.ones(width, device=device)
    ways: list[Callable[[], object]] = [source.sum, lambda: source.mv(vector)]
    read = size / min(_fastest(way, device, seconds / 4) for way in ways)
    target = torch.empty_like(source)
    copy = 2 * size / _fastest(lambda: target.copy_(source), device, seconds / 2)
    return Bandwidth(read, copy, size)


def synchronize(device: torch.device) -> None:
    """Wait until the device has done all that it was told."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def _fastest(work: Callable[[], object], device: torch.device, seconds: float) -> float:
    """The shortest time that `work` takes, of as many as fit `seconds` and at least three."""
    work()
    synchronize(device)
    fastest, done = float("inf"), 0
    end = time.perf_counter() + seconds
    while done < 3 or time.perf_counter() < end:
        began = time.perf_counter()
        work()
        synchronize(device)
        fastest = min(fastest, time.perf_counter() - began)
        done += 1
    return fastest
