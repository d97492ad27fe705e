"""The split, windows, and an order that a run can leave and find again."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.data import Batches, Windows, permute, split
from engine.data import _keys as keys
from engine.errors import CorpusError
from engine.stream import TokenStream


def stream(n: int) -> TokenStream:
    """A stream in which every token is its own index."""
    return TokenStream([np.arange(n, dtype=np.uint32)])


class TestSplit:
    def test_golden_a_part_without_a_window_is_named_with_what_fits(self) -> None:
        """2 270 tokens with a 10 % split leave 227: context 256 has no window."""
        with pytest.raises(CorpusError, match="validation part has 227 tokens") as caught:
            split(2270, 0.1, 256)
        assert "longest context that fits is 226" in caught.value.hint
        assert split(2270, 0.1, 226) == 2043

    def test_as_nanogpt_cuts(self) -> None:
        """tiny Shakespeare: 1 003 854 training characters, 111 540 for validation."""
        assert split(1_115_394, 0.1, 256) == 1_003_854

    def test_the_training_part_can_be_the_short_one(self) -> None:
        with pytest.raises(CorpusError, match="training part has 250 tokens") as caught:
            split(1000, 0.75, 256)
        assert "fits is 249" in caught.value.hint

    def test_no_validation(self) -> None:
        assert split(1000, 0.0, 256) == 1000
        with pytest.raises(CorpusError, match="the corpus has 256 tokens"):
            split(256, 0.0, 256)
        with pytest.raises(CorpusError) as caught:
            split(1, 0.1, 8)
        assert "no context fits" in caught.value.hint

    @pytest.mark.parametrize(
        ("starts", "cut"),
        [
            ([0], 900),  # one document is cut as contiguous text
            ([0, 880], 880),  # the nearest start, before …
            ([0, 500, 910, 950], 910),  # … or after
            ([0, 500], 900),  # too far: validation would be half of the corpus
            ([0, 995], 900),  # too near the end: no window would be left
            ([0, 900], 900),
        ],
    )
    def test_moved_to_a_documents_start_when_one_is_near(self, starts: list[int], cut: int) -> None:
        assert split(1000, 0.1, 16, np.array(starts)) == cut

    @given(st.integers(2, 400), st.floats(0, 0.9), st.integers(1, 100), st.data())
    @settings(max_examples=200, deadline=None)
    def test_every_part_has_a_window_or_it_is_refused(
        self, n: int, fraction: float, context: int, data: st.DataObject
    ) -> None:
        """Never a zero batch, never a window over the cut; what the hint says then does fit."""
        starts = np.array([0, *sorted(data.draw(st.sets(st.integers(1, n - 1))))])
        try:
            cut = split(n, fraction, context, starts)
        except CorpusError as error:
            if "longest" in error.hint:
                split(n, fraction, int(error.hint.rsplit(" ", 1)[1]), starts)
            return
        tokens = stream(n)
        assert len(Windows(tokens, 0, cut, context)) > 0
        assert cut == n or len(Windows(tokens, cut, n, context)) > 0


class TestWindows:
    @given(st.integers(0, 300), st.integers(1, 40), st.integers(1, 60))
    @settings(max_examples=200, deadline=None)
    def test_golden_as_many_as_in_the_books_loader(self, n: int, context: int, stride: int) -> None:
        """GPTDatasetV1: for i in range(0, n - context, stride)."""
        windows = Windows(stream(n), 0, n, context, stride)
        starts = range(0, n - context, stride)
        assert len(windows) == len(starts)
        found = windows.batch(np.arange(len(windows)))
        assert found[:, 0].tolist() == list(starts)

    def test_inputs_and_targets_and_bounds(self) -> None:
        windows = Windows(stream(100), 20, 60, 8)
        assert windows.stride == 8
        batch = windows.batch([0, 1, len(windows) - 1])
        np.testing.assert_array_equal(batch[0], np.arange(20, 29))
        np.testing.assert_array_equal(batch[:, 1:], batch[:, :-1] + 1)
        assert batch.max() < 60
        for bad in (-1, len(windows)):
            with pytest.raises(IndexError):
                windows.batch([bad])


class TestOrder:
    @pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 7, 16, 17, 100, 1000, 4097])
    def test_a_permutation(self, n: int) -> None:
        found = permute(np.arange(n), n, keys(1, 0))
        assert sorted(found.tolist()) == list(range(n))

    def test_each_place_is_as_likely(self) -> None:
        """A weak network would send a window to few places only: chi-square over 2 000 epochs."""
        n, epochs = 10, 2000
        table = np.zeros((n, n))
        for epoch in range(epochs):
            table[np.arange(n), permute(np.arange(n), n, keys(3, epoch))] += 1
        expected = epochs / n
        chi_square = ((table - expected) ** 2 / expected).sum()
        assert 40 < chi_square < 140, "81 degrees of freedom"

    def test_neighbours_are_torn_apart(self) -> None:
        order = permute(np.arange(10_000), 10_000, keys(1, 0))
        assert abs(np.corrcoef(np.arange(10_000), order)[0, 1]) < 0.05
        assert np.mean(np.abs(np.diff(order)) < 100) < 0.05

    def test_golden_it_never_changes(self) -> None:
        """A resumed run relies on it: another order is another run."""
        assert permute(np.arange(6), 1000, keys(1337, 2)).tolist() == [655, 121, 994, 852, 383, 156]


class TestBatches:
    def windows(self, n: int = 1000, context: int = 16, stride: int = 0) -> Windows:
        return Windows(stream(n), 0, n, context, stride)

    @pytest.mark.parametrize("batch_size", [1, 5, 7, 62, 100, 200])
    def test_each_window_once_an_epoch(self, batch_size: int) -> None:
        """In any epoch, wherever batches end: 62 windows, or 61 where the shift takes one."""
        windows = self.windows()
        batches = Batches(windows, batch_size, seed=5)
        starts = np.concatenate([batches.next()[:, 0] for _ in range(-(-400 // batch_size))])
        at, epoch, orders = 0, 0, []
        while at + 62 <= len(starts):
            offset = starts[at] % 16
            count = windows.count(int(offset))
            order = starts[at : at + count]
            assert sorted(order) == list(range(offset, 1000 - 16, 16))
            assert (epoch > 0) or offset == 0, "the first epoch has the plain windows"
            orders.append(tuple(order))
            at, epoch = at + count, epoch + 1
        assert epoch >= 5
        assert len(set(orders)) == epoch, "each epoch has another order"
        assert len({order[0] % 16 for order in orders}) > 2, "and other window bounds"

    @pytest.mark.parametrize("steps", [0, 1, 8, 9, 100])
    def test_restored_is_as_if_never_stopped(self, steps: int) -> None:
        """From JSON, at the start, within an epoch, at its end, many epochs on."""
        one = Batches(self.windows(), 7, seed=3)
        for _ in range(steps):
            one.next()
        state = json.loads(json.dumps(one.state()))
        other = Batches(self.windows(), 7, seed=99)
        other.restore(state)
        assert other.epoch == one.epoch
        for _ in range(30):
            np.testing.assert_array_equal(one.next(), other.next())

    def test_seeds_differ_and_repeat(self) -> None:
        first, same, other = (Batches(self.windows(), 8, seed) for seed in (1, 1, 2))
        a, b, c = first.next(), same.next(), other.next()
        np.testing.assert_array_equal(a, b)
        assert (a != c).any()

    def test_epochs_are_counted(self) -> None:
        batches = Batches(self.windows(), 31, seed=1)
        assert batches.epoch == 0
        batches.next()
        assert batches.epoch == 0.5
        batches.next()
        batches.next()
        assert 1.4 < batches.epoch < 1.6

    def test_a_single_window(self) -> None:
        batches = Batches(self.windows(17, 16), 3, seed=1)
        np.testing.assert_array_equal(batches.next(), np.tile(np.arange(17), (3, 1)))

    def test_order_blocks_leave_no_seam(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The order does not depend on how many places are worked out at once."""
        one = Batches(self.windows(), 7, seed=3)
        expected = [one.next() for _ in range(40)]
        monkeypatch.setattr("engine.data.ORDER_BLOCK", 5)
        other = Batches(self.windows(), 7, seed=3)
        for batch in expected:
            np.testing.assert_array_equal(other.next(), batch)

    def test_no_window_is_refused(self) -> None:
        with pytest.raises(CorpusError, match="16 tokens hold no window of context 16"):
            Batches(self.windows(16, 16), 1, seed=1)

    @pytest.mark.parametrize(
        "change", [{"windows": 61}, {"index": 99}, {"index": -1}, {"epoch": -1}, {"seed": None}]
    )
    def test_a_position_of_other_data_is_refused(self, change: dict) -> None:
        batches = Batches(self.windows(), 7, seed=3)
        with pytest.raises(CorpusError, match="saved data position"):
            batches.restore(batches.state() | change)
