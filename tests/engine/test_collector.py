"""The collector skips what is old, and no more than that."""

from __future__ import annotations

import gc
import weakref

from engine.collector import at_rest


class Knot:
    """Refers to itself: only the collector can free it."""

    def __init__(self) -> None:
        self.me = self


def test_what_is_new_is_still_collected_and_what_is_old_afterwards() -> None:
    old = Knot()
    with at_rest():
        assert gc.get_freeze_count() > 1000
        new = weakref.ref(Knot())
        gc.collect()
        assert new() is None
        seen, old = weakref.ref(old), None
        gc.collect()
        assert seen() is not None
    assert gc.get_freeze_count() == 0
    gc.collect()
    assert seen() is None
