"""Python's collector of cyclic garbage, kept out of the training loop's way, and the screen's."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator
from contextlib import contextmanager

LONG_SECONDS = 0.02
"""A collection of all generations that takes longer has looked at much that stays."""
OFTEN, RARELY = 10, 100
"""Collections of the younger generations to one of all: where somebody chooses the moment (and as
Python does it), and where nobody has for long."""
MOST = 16
"""Times that what stays is put away. Whoever makes and drops so much again and again would
otherwise never have it collected."""


@contextmanager
def at_rest() -> Iterator[None]:
    """Inside, the collector leaves alone what existed before, and what turns out to stay.

    With torch loaded that is hundreds of thousands of objects, and as many again once a step has
    been made or compiled. Looking at them all takes a fifth of a second, at a moment that nobody
    chose: until then no step is begun, and no key is answered. So what a long collection has left
    over, and so is no garbage, is put out of later ones' sight. What comes into being afterwards
    (the app's widgets, an error's frames) is still collected. What is garbage already when this
    begins stays until the end: whoever has left much of it collects it first.
    """
    survivors, thresholds = _Survivors(), gc.get_threshold()
    gc.freeze()
    gc.callbacks.append(survivors)
    try:
        yield
    finally:
        gc.callbacks.remove(survivors)
        gc.set_threshold(*thresholds)
        gc.unfreeze()


def settle() -> None:
    """Where the collector is at rest: collect now, when nobody waits for a step, and put away what
    stays. A first step leaves much behind, most of all where it was compiled."""
    if _at_rest():
        gc.collect()
        gc.freeze()


def put_away() -> None:
    """Where the collector is at rest: what there is now, a screen that was built a moment ago, is
    there to stay."""
    if _at_rest():
        gc.freeze()


def tidy() -> None:
    """Where the collector is at rest: collect everything, if it is about time. To be called again
    and again, whenever nobody waits for an answer; it is then rarely done at any other moment."""
    if not _at_rest():
        return
    young, middle, old = gc.get_threshold()
    if old != RARELY:
        gc.set_threshold(young, middle, RARELY)
    elif gc.get_count()[2] > OFTEN:
        gc.collect()


def _at_rest() -> bool:
    return any(isinstance(callback, _Survivors) for callback in gc.callbacks)


class _Survivors:
    """A callback of the collector: puts away what a long collection of everything has left."""

    def __init__(self) -> None:
        self._began = 0.0
        self._left = MOST

    def __call__(self, phase: str, info: dict[str, int]) -> None:
        if phase == "start":
            self._began = time.perf_counter()
            return
        long = time.perf_counter() - self._began > LONG_SECONDS
        if info["generation"] == 2 and long and self._left:
            self._left -= 1
            gc.freeze()
