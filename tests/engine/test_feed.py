"""Batches from a thread: the same order, and nobody hangs with a read that hangs."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from contextlib import closing

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.data import Batches, Windows
from engine.errors import CorpusError
from engine.feed import Feed, FeedStopped
from engine.stream import TokenStream


def batches(seed: int = 3, size: int = 7, n: int = 1000) -> Batches:
    tokens = np.arange(n, dtype=np.uint32)
    return Batches(Windows(TokenStream([tokens]), 0, n, 16), size, seed)


def patient(feed: Feed) -> np.ndarray:
    return feed.next(lambda: False, lambda seconds: None)


class Held(Batches):
    """Batches whose reads after the first `left` raise `error`, or wait for `gate`."""

    def hold(self, after: int, error: BaseException | None = None) -> Held:
        self.left, self.error = after, error
        self.gate = threading.Event()
        self.calls: list[int] = []
        return self

    def next(self) -> np.ndarray:
        self.calls.append(1)
        if len(self.calls) > self.left:
            if self.error is not None:
                raise self.error
            self.gate.wait()
        return super().next()


def held(after: int, error: BaseException | None = None) -> Held:
    found = batches()
    found.__class__ = Held
    return found.hold(after, error)  # type: ignore[attr-defined]


def eventually(holds: Callable[[], bool]) -> None:
    limit = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < limit
        time.sleep(0.005)


def readers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "feed"]


@pytest.mark.parametrize("depth", [1, 2, 5])
def test_the_order_is_that_of_the_batches_alone(depth: int) -> None:
    """Over several epochs, with the position after every batch."""
    alone, feed = batches(), Feed(batches(), depth)
    assert feed.state() == alone.state()
    for _ in range(40):
        np.testing.assert_array_equal(patient(feed), alone.next())
        assert feed.state() == alone.state()
        assert feed.epoch == alone.epoch
    feed.close()


@given(st.lists(st.integers(0, 30), min_size=1, max_size=8), st.data())
@settings(max_examples=20, deadline=None)
def test_any_walk_of_restores_gives_the_batches_of_each_place(
    counts: list[int], data: st.DataObject
) -> None:
    """Forward, back to any position seen, through JSON: what comes is what `Batches` gives."""
    alone = batches()
    with closing(Feed(batches(seed=99))) as feed:
        feed.restore(alone.state())
        seen = [alone.state()]
        for count in counts:
            for _ in range(count):
                np.testing.assert_array_equal(patient(feed), alone.next())
            seen.append(feed.state())
            back = json.loads(json.dumps(data.draw(st.sampled_from(seen))))
            feed.restore(back)
            alone.restore(back)
            assert feed.epoch == alone.epoch


def test_nothing_is_read_before_it_is_wanted_and_no_more_than_depth_ahead() -> None:
    source = held(10**9)
    feed = Feed(source, depth=3)
    time.sleep(0.05)
    assert not source.calls
    patient(feed)
    eventually(lambda: len(source.calls) == 4)
    time.sleep(0.05)
    assert len(source.calls) == 4
    assert source.state() == batches().state(), "the feed reads from a copy"
    feed.close()


def test_a_position_of_other_data_is_refused_and_changes_nothing() -> None:
    alone, feed = batches(), Feed(batches())
    np.testing.assert_array_equal(patient(feed), alone.next())
    with pytest.raises(CorpusError, match="saved data position"):
        feed.restore(feed.state() | {"windows": 1})
    np.testing.assert_array_equal(patient(feed), alone.next())
    feed.close()


def test_a_read_that_hangs_is_told_and_a_stop_leaves_at_once() -> None:
    """What was read before comes out; then each doubling of the silence is told once."""
    source = held(2)
    feed, told = Feed(source), []
    patient(feed), patient(feed)
    began = time.monotonic()
    with pytest.raises(FeedStopped):
        feed.next(lambda: time.monotonic() > began + 1.25, told.append, silence_seconds=0.25)
    assert time.monotonic() - began < 1.6
    assert len(told) == 3
    assert all(want <= got < want + 0.2 for want, got in zip((0.25, 0.5, 1), told, strict=True))
    source.gate.set()
    np.testing.assert_array_equal(patient(feed), _nth(2)), "the hung read came back after all"
    feed.close()


def test_a_hung_reader_is_left_behind_by_a_restore() -> None:
    """The position is put back though the read never returned; the old reader ends with it."""
    source, others = held(3), readers()
    feed = Feed(source)
    start = feed.state()
    for _ in range(3):
        patient(feed)
    eventually(lambda: len(source.calls) == 4)
    stuck = [thread for thread in readers() if thread not in others]
    assert len(stuck) == 1
    feed.restore(start)
    source.left = 10**9
    for n in range(3):
        np.testing.assert_array_equal(patient(feed), _nth(n))
    feed.close()
    source.gate.set()
    stuck[0].join(10)
    assert not stuck[0].is_alive()


@pytest.mark.parametrize("error", [CorpusError("gone", "get it"), KeyboardInterrupt(), OSError(5)])
def test_what_a_read_raises_is_raised_in_its_place(error: BaseException) -> None:
    """After the batches before it, as it was; and the same batch can be read again."""
    source = held(2, error)
    feed = Feed(source, depth=5)
    for n in range(2):
        np.testing.assert_array_equal(patient(feed), _nth(n))
    state = feed.state()
    with pytest.raises(type(error)) as caught:
        patient(feed)
    assert caught.value is error
    assert feed.state() == state
    source.left = 10**9
    np.testing.assert_array_equal(patient(feed), _nth(2))
    feed.close()


@pytest.mark.parametrize("closing", [True, False])
def test_the_thread_ends_with_the_feed(closing: bool) -> None:
    """Closed, or forgotten by a run that failed."""
    others = readers()
    feed = Feed(batches())
    patient(feed)
    (reader,) = [thread for thread in readers() if thread not in others]
    if closing:
        feed.close()
        feed.close()
    else:
        del feed
    reader.join(10)
    assert not reader.is_alive()


def test_a_batch_costs_microseconds_more() -> None:
    """With a thread that computes meanwhile, as training does; the limit is ten times the usual."""
    feed, work = Feed(batches(size=12, n=100_000)), np.random.default_rng(1).random((160, 160))
    patient(feed)
    seconds = []
    for _ in range(300):
        work @ work
        began = time.perf_counter()
        patient(feed)
        seconds.append(time.perf_counter() - began)
    feed.close()
    assert np.median(seconds) < 2e-4


def _nth(n: int) -> np.ndarray:
    source = batches()
    for _ in range(n):
        source.next()
    return source.next()
