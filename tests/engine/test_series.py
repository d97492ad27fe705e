"""A chart shows what all the points would have shown."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.series import decimate, merged, smooth


def test_every_spike_survives() -> None:
    """One high and one low point among ten thousand are in the hundred columns."""
    y = np.sin(np.arange(10_000) / 900)
    y[4321], y[4400] = 50.0, -50.0
    x2, y2 = decimate(np.arange(10_000), y, 100)
    assert len(x2) <= 200
    assert np.all(np.diff(x2) > 0)
    assert (50.0 in y2) and (-50.0 in y2)
    assert x2[list(y2).index(50.0)] == 4321


@given(st.integers(1, 30), st.lists(st.floats(allow_nan=True, width=32), max_size=300))
@settings(max_examples=60, deadline=None)
def test_each_column_keeps_its_lowest_and_highest(columns: int, values: list[float]) -> None:
    """Against the plain definition, with NaN and infinities anywhere."""
    y = np.array(values, dtype=np.float64)
    x = np.arange(len(y), dtype=np.float64)
    x2, y2 = decimate(x, y, columns)
    if len(y) <= 2 * columns:
        assert len(y2) == len(y)
        return
    assert len(x2) <= 2 * columns
    column = np.minimum((x / x[-1] * columns).astype(int), columns - 1)
    column2 = np.minimum((x2 / x[-1] * columns).astype(int), columns - 1)
    for number in range(columns):
        part, part2 = y[column == number], y2[column2 == number]
        part = part[np.isfinite(part)]
        if len(part):
            assert part.min() in part2
            assert part.max() in part2
            assert np.isfinite(part2).all()
        elif (column == number).any():
            assert len(part2) == 1  # a gap, not a line drawn across it
            assert np.isnan(part2[0])


def test_smoothing_is_the_average_of_its_definition() -> None:
    y = np.random.default_rng(1).normal(size=777)
    expected, total = [], 0.0
    for number, value in enumerate(y, start=1):
        total = 0.95 * total + 0.05 * value
        expected.append(total / (1 - 0.95**number))
    assert smooth(y, 0.95) == pytest.approx(expected, rel=1e-9)
    assert smooth(y, 0.0) == pytest.approx(y)
    assert smooth(np.full(300, 4.0))[0] == pytest.approx(4.0)  # it does not climb from 0


def test_what_is_not_finite_poisons_nothing() -> None:
    """The average after a NaN or an infinity is as if the point had not been there."""
    y = np.random.default_rng(2).normal(size=200)
    with_gaps = np.insert(y, [0, 50, 50, 120], [np.nan, np.inf, -np.inf, np.nan])
    result = smooth(with_gaps, 0.9)
    gaps = ~np.isfinite(with_gaps)
    assert np.isnan(result[gaps]).all()
    assert result[~gaps] == pytest.approx(smooth(y, 0.9))
    assert np.isnan(smooth(np.full(3, np.nan))).all()
    assert len(smooth(np.array([]))) == 0


@given(
    st.integers(4, 9),
    st.integers(1, 12),
    st.integers(1, 3),
    st.randoms(use_true_random=False),
)
@settings(max_examples=60, deadline=None)
def test_merged_neighbours_keep_their_extremes_and_their_gaps(size, groups, columns, random):
    values = [
        [
            random.choice([random.uniform(-5, 5)] * 4 + [np.nan, np.inf])
            for _ in range(size * groups)
        ]
        for _ in range(columns)
    ]
    x, rows = np.arange(size * groups, dtype=np.float64), np.array(values)
    x2, rows2 = merged(x, rows, size)
    assert np.all(np.diff(x2) > 0)
    assert len(x2) <= 3 * groups
    group = (x2 // size).astype(int)
    for row, row2 in zip(rows, rows2, strict=True):
        for number in range(groups):
            before, after = row[number * size : (number + 1) * size], row2[group == number]
            finite, finite2 = before[np.isfinite(before)], after[np.isfinite(after)]
            assert (len(finite) < len(before)) == (len(finite2) < len(after)), "a gap stays a gap"
            if len(finite):
                assert (finite.min(), finite.max()) == (finite2.min(), finite2.max())


def test_only_whole_groups_are_merged() -> None:
    with pytest.raises(ValueError, match="whole groups"):
        merged(np.arange(9.0), np.zeros((1, 9)), 4)
