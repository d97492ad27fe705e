"""How many FLOP/s a device can do at best, and how many bytes a second its memory gives: published
for known GPUs, measured here for the rest.

MFU is a share of the first figure, so its source is always named beside it. Only what measures
needs torch.
"""

from __future__ import annotations

import functools
import sys
from importlib import metadata
from typing import TYPE_CHECKING

from engine import user_cache

if TYPE_CHECKING:
    import torch

PUBLISHED_SOURCE = "published"
MEASURED_SOURCE = "measured here"
BANDWIDTH = "bandwidth"
"""In the cache's keys, where a rate of products has its precision."""

# TFLOP/s from the makers' data sheets: dense (no structured sparsity), matrix products accumulated
# in float32. (part of the CUDA device name, 16-bit, float32 without TF32). The first match counts,
# so a longer name stands before a shorter one that it contains. Cards without bfloat16 units (T4,
# V100) have their float16 figure, which the 16-bit column is.
PUBLISHED: tuple[tuple[str, float, float], ...] = (
    ("GB200", 2500, 80),
    ("B200", 2250, 80),
    ("H200 NVL", 835, 60),
    ("H200", 989, 67),
    ("GH200", 989, 67),
    ("H100 NVL", 835, 60),
    ("H100 PCIe", 756, 51),
    ("H100", 989, 67),
    ("H800", 989, 67),
    ("H20", 148, 44),
    ("A100", 312, 19.5),
    ("A800", 312, 19.5),
    ("A40", 149.7, 37.4),
    ("A30", 165, 10.3),
    ("A10G", 70, 35),
    ("A10", 125, 31.2),
    ("L40S", 362, 91.6),
    ("L40", 181, 90.5),
    ("L4", 121, 30.3),
    ("RTX 6000 Ada", 364, 91.1),
    ("RTX A6000", 154.8, 38.7),
    ("RTX 5090", 209.5, 104.8),
    ("RTX 4090", 165.2, 82.6),
    ("RTX 4080", 97.5, 48.7),
    ("RTX 3090 Ti", 80, 40),
    ("RTX 3090", 71, 35.6),
    ("RTX 3080", 59.5, 29.8),
    ("RTX 2080 Ti", 53.8, 13.4),
    ("T4", 65, 8.1),
    ("V100", 125, 15.7),
    ("MI325X", 1307.4, 163.4),
    ("MI300X", 1307.4, 163.4),
)


def published_peak(name: str, precision: str) -> float:
    """The data sheet's FLOP/s of the CUDA device called `name`; 0.0 for a card not in the table."""
    words = f" {name.lower().replace('-', ' ')} "
    for part, sixteen_bit, float32 in PUBLISHED:
        if f" {part.lower()} " in words:
            return (float32 if precision == "float32" else sixteen_bit) * 1e12
    return 0.0


CACHE = "peaks"


def _cache_key(name: str, precision: str, threads: int) -> str:
    return f"{name} | {threads} threads | torch {metadata.version('torch')} | {precision}"


def _remembered(key: str) -> float:
    found = user_cache.read(CACHE).get(key, 0.0)
    return float(found) if isinstance(found, int | float) else 0.0


def remembered_peak(name: str, precision: str, threads: int) -> float:
    """What an earlier process measured on this device; 0.0 if none did. No torch."""
    return _remembered(_cache_key(name, precision, threads))


def remembered_bandwidth(name: str, threads: int) -> float:
    """Bytes a second that an earlier process measured; 0.0 if none did. No torch."""
    return _remembered(_cache_key(name, BANDWIDTH, threads))


@functools.cache
def measured_peak(device: torch.device, name: str, precision: str, threads: int) -> float:
    """The best matrix-product rate of `device` seen so far, in FLOP/s; takes about 0.2 s.

    Every process measures once, and the greater of its own and the remembered figure counts: other
    work on the machine can only make a measurement too low.
    """
    return _keep(_cache_key(name, precision, threads), measure(device, precision))


@functools.cache
def measured_bandwidth(device: torch.device, name: str, threads: int) -> float:
    """Bytes a second that `device` reads and writes in a copy, as far as seen; about 0.5 s.

    Not for a process whose peak memory matters: it takes buffers larger than any cache.
    """
    from engine.bench.limits import bandwidth

    return _keep(_cache_key(name, BANDWIDTH, threads), bandwidth(device, 0.5).copy)


def _keep(key: str, measured: float) -> float:
    """The greater of `measured` and what is remembered, which it becomes."""
    best = max(measured, _remembered(key))
    user_cache.keep(CACHE, key, best)  # or not: a home that cannot be written costs only memory
    return best


def measure(device: torch.device, precision: str, seconds: float = 0.2) -> float:
    """FLOP/s of the fastest of several large matrix products within about `seconds`."""
    import time

    import torch

    accelerator = device.type != "cpu"
    size = 4096 if accelerator else 1024
    dtype = getattr(torch, precision)
    left, right = (torch.ones(size, size, dtype=dtype, device=device) for _ in range(2))

    def once() -> float:
        start = time.perf_counter()
        torch.mm(left, right)
        if accelerator:
            torch.accelerator.synchronize(device)
        return time.perf_counter() - start

    once()  # loads the kernel
    end = time.perf_counter() + seconds
    fastest = once()
    while time.perf_counter() < end:
        fastest = min(fastest, once())
    return 2.0 * size**3 / fastest


def main(name: str, precision: str, threads: int) -> None:
    """Measure a processor, and remember it."""
    import torch

    torch.set_num_threads(threads)
    cpu = torch.device("cpu")
    measured_peak(cpu, name, precision, threads)
    measured_bandwidth(cpu, name, threads)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
