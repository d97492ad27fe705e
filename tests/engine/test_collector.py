"""The collector skips what is old, or turns out to stay, and no more than that."""

from __future__ import annotations

import gc
import weakref

import pytest

from engine import collector
from engine.collector import at_rest, put_away, settle, tidy


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


def test_what_a_long_collection_leaves_is_not_looked_at_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What compiling leaves behind would otherwise hold up the loop and the screen for a fifth of
    a second, every few seconds."""
    monkeypatch.setattr(collector, "LONG_SECONDS", 0.0)
    with at_rest():
        stays = [[number] for number in range(1000)]
        garbage = weakref.ref(Knot())
        gc.collect()
        assert garbage() is None
        assert all(not any(one is kept for one in gc.get_objects()) for kept in stays[:3])
        later = weakref.ref(Knot())
        gc.collect()
        assert later() is None
        callbacks = len(gc.callbacks)
    assert len(gc.callbacks) == callbacks - 1


def test_somebody_who_makes_much_again_and_again_is_collected_in_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(collector, "LONG_SECONDS", 0.0)
    monkeypatch.setattr(collector, "MOST", 2)
    with at_rest():
        gc.collect()
        gc.collect()
        knot = Knot()
        gc.collect()  # the third: it stays in sight
        seen, knot = weakref.ref(knot), None
        gc.collect()
        assert seen() is None


def test_what_was_made_at_a_known_moment_is_put_away_without_a_long_collection() -> None:
    with at_rest():
        frozen = gc.get_freeze_count()
        garbage, stays = weakref.ref(Knot()), [[number] for number in range(1000)]
        settle()
        assert garbage() is None, "what a first step leaves is collected"
        assert gc.get_freeze_count() >= frozen + len(stays)
        screen = [[number] for number in range(1000)]
        frozen = gc.get_freeze_count()
        put_away()
        assert gc.get_freeze_count() >= frozen + len(screen)
    assert gc.get_freeze_count() == 0


def test_everything_is_collected_when_nobody_waits_and_hardly_ever_else() -> None:
    """A full collection in the midst of a key's answer is half of what that may take."""
    full: list[dict[str, int]] = []

    def count(phase: str, info: dict[str, int]) -> None:
        if phase == "start" and info["generation"] == 2:
            full.append(info)

    def make(times: int) -> None:
        """What brings about so many collections of the middle generation, and stays."""
        young, middle, _ = gc.get_threshold()
        kept.append([[number] for number in range(times * young * middle)])

    kept: list[object] = []
    usual = gc.get_threshold()
    tidy()
    assert gc.get_threshold() == usual, "without a run Python does as it always did"
    with at_rest():
        gc.collect()
        gc.callbacks.append(count)
        try:
            tidy()
            make(6)
            tidy()
            assert not full, "it is not time yet"
            make(9)
            assert not full, "nobody said that it may be now"
            garbage = weakref.ref(Knot())
            tidy()
            assert len(full) == 1
            assert garbage() is None
            make(130)
            assert len(full) >= 2, "nobody had the time for too long"
        finally:
            gc.callbacks.remove(count)
    assert gc.get_threshold() == usual


def test_nothing_is_put_away_where_nobody_would_take_it_out_again() -> None:
    settle()
    put_away()
    assert gc.get_freeze_count() == 0
