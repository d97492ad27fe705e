"""What to change in a run that does not fit, and how large a batch can be. Pure; no torch.

Every function takes `needs`: the bytes that training a configuration takes at its peak.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from engine.config import Config
from engine.footprint import recomputes

Needs = Callable[[Config], int]

LARGEST = 1 << 20
"""Windows beyond which no micro-batch is looked for."""
SHORTEST = 64
"""Tokens below which no context is proposed."""


@dataclass(frozen=True)
class Remedy:
    """A change and the bytes that the run would then take."""

    words: str
    flags: str
    bytes: int


def largest_batch(config: Config, needs: Needs, room: float) -> int:
    """The largest micro-batch whose training fits in `room` bytes; 0 when not even one window.

    `needs` must not fall when the batch grows.
    """

    def fits(size: int) -> bool:
        return needs(_with_train(config, batch_size=size)) <= room

    if not fits(1):
        return 0
    low, high = 1, 2
    while high <= LARGEST and fits(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def smaller_batch(config: Config, most: int = 0) -> str:
    """Flags that make the same step of smaller micro-batches, of at most `most` windows (0: half
    of what they are); empty when a micro-batch is one window already."""
    batch = _same_step(config, most or config.train.batch_size // 2)
    whole = config.train.batch_size * config.train.accumulate
    return f"--batch-size {batch} --set train.accumulate={whole // batch}" if batch else ""


def _same_step(config: Config, most: int) -> int:
    """The largest micro-batch up to `most` that divides the step; 0 for none."""
    whole = config.train.batch_size * config.train.accumulate
    return max((size for size in range(1, most + 1) if whole % size == 0), default=0)


def remedies(config: Config, needs: Needs, room: float, *, has_bfloat16: bool) -> list[Remedy]:
    """Changes that make `config` fit in `room` bytes, those that change the training least first.

    Each is tried alone; where none suffices, those that leave the step as it is are put together,
    and then the context is halved as often as it takes. Empty when nothing helps but a smaller
    model.
    """
    train = config.train
    changes: list[tuple[str, Callable[[Config], tuple[Config, str] | None]]] = []

    def accumulate(of: Config) -> tuple[Config, str] | None:
        most = min(largest_batch(of, needs, room) or 1, of.train.batch_size - 1)
        size = _same_step(of, most)
        if not size:
            return None
        times = of.train.batch_size * of.train.accumulate // size
        return _with_train(of, batch_size=size, accumulate=times), smaller_batch(of, size)

    def recompute(of: Config) -> tuple[Config, str] | None:
        if recomputes(of):
            return None
        return _with_train(of, recompute="on"), "--set train.recompute=on"

    def halve(of: Config) -> tuple[Config, str] | None:
        if not has_bfloat16 or train.precision != "float32":
            return None
        return _with_train(of, precision="bfloat16"), "--set train.precision=bfloat16"

    changes = [
        ("smaller micro-batches, the same step", accumulate),
        ("blocks computed again instead of kept, a third more work", recompute),
        ("products in 16 bits", halve),
    ]
    found = []
    for words, change in changes:
        made = change(config)
        if made is not None and needs(made[0]) <= room:
            found.append(Remedy(words, made[1], needs(made[0])))
    shorter = _shorter(config, needs, room)
    if found:
        return [*found, *shorter]
    together, flags = config, []
    for _, change in reversed(changes):  # the micro-batch last: what is left decides its size
        made = change(together)
        if made is not None:
            together, flag = made
            flags.append(flag)
    if len(flags) > 1 and needs(together) <= room:
        found.append(Remedy("all of these together", " ".join(flags), needs(together)))
    return [*found, *(shorter or _shorter(together, needs, room, flags))]


def _shorter(config: Config, needs: Needs, room: float, flags: Sequence[str] = ()) -> list[Remedy]:
    """The longest halved context that fits."""
    context = config.model.context_length // 2
    while context >= SHORTEST:
        model = replace(config.model, context_length=context)
        shorter = replace(config, model=model)
        if needs(shorter) <= room:
            words = "a shorter context" if not flags else "all of these and a shorter context"
            flag = f"--set model.context_length={context}"
            return [Remedy(words, " ".join([*flags, flag]), needs(shorter))]
        context //= 2
    return []


def _with_train(config: Config, **values: Any) -> Config:
    return replace(config, train=replace(config.train, **values))
