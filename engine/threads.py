"""How many threads a run on a processor computes with: measured once, and remembered.

As many as there are cores is not always the fastest: two threads of one core share its arithmetic,
and beyond some dozen threads a small product waits for the last of them. Where fewer serve as well,
the rest is left to the screen. The number decides in which pieces sums are made and so how they
round: a checkpoint keeps it, and what is remembered keeps equal runs equal. Only what measures
needs torch.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from importlib import metadata

from engine import machine, user_cache

AS_GOOD = 0.98
"""Of the best rate: fewer threads that reach it are chosen."""
FEW = 2
"""Cores up to which nothing is measured: each of them counts."""


def usual_threads(precision: str) -> int:
    """What a run in `precision` takes here where nobody says: what was measured, or every core."""
    return _remembered(precision) or machine.cores()


def measured_threads(precision: str, rate: Callable[[int, str], float] | None = None) -> int:
    """The same, measured if nobody has yet; a second, once on a machine of more than two cores.

    `rate(threads, precision)`: how fast so many are, in any unit.
    """
    cores = machine.cores()
    if cores <= FEW:
        return cores
    found = _remembered(precision)
    if not found:
        measure = rate or layer_rate
        found = choose({count: measure(count, precision) for count in candidates(cores)})
        user_cache.keep(CACHE, _key(precision), found)
    return found


def candidates(cores: int) -> list[int]:
    """All, all but one, and halves of them: where each core shows two threads, a half is the
    cores."""
    counts = {cores, cores - 1}
    part = cores
    while part > FEW:
        part //= 2
        counts.add(part)
    return sorted(counts, reverse=True)


def choose(rates: Mapping[int, float]) -> int:
    """The fewest threads that are as good as the best."""
    best = max(rates.values())
    return min(count for count, rate in rates.items() if rate >= AS_GOOD * best)


def layer_rate(threads: int, precision: str, seconds: float = 0.1) -> float:
    """Passes a second through a norm and an MLP of the size that processors train. Leaves torch
    with so many threads."""
    import torch
    from torch.nn import functional

    torch.set_num_threads(threads)
    dtype = getattr(torch, precision)
    x, wide = torch.ones(2048, 384, dtype=dtype), torch.ones(1536, 384, dtype=dtype)
    fastest = float("inf")
    end = time.perf_counter() + seconds
    with torch.inference_mode():
        while time.perf_counter() < end or fastest == float("inf"):
            start = time.perf_counter()
            hidden = functional.gelu(functional.linear(functional.layer_norm(x, (384,)), wide))
            functional.linear(hidden, wide.T)
            fastest = min(fastest, time.perf_counter() - start)
    return 1.0 / fastest


CACHE = "threads"


def _key(precision: str) -> str:
    return f"{machine.cpu_name()} | torch {metadata.version('torch')} | {precision}"


def _remembered(precision: str) -> int:
    found = user_cache.read(CACHE).get(_key(precision), 0)
    return found if isinstance(found, int) and 0 < found <= machine.cores() else 0
