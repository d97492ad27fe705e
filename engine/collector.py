"""Python's collector of cyclic garbage, kept out of the training loop's way."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def at_rest() -> Iterator[None]:
    """Inside, the collector leaves alone whatever existed before.

    With torch loaded that is hundreds of thousands of objects, and looking at them all takes tens
    of milliseconds: a step or more of a small network, at a moment that nobody chose. What comes
    into being inside (the app's widgets, an error's frames) is still collected. What is garbage
    already stays until the end: whoever has left much of it collects it first.
    """
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
