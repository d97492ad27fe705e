"""The dots of a chart: no spike is lost, a gap stays a gap, the learning is seen."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tui_lab.widgets.plot import View, curve_cells, log_ticks, loss_range, pack, ticks


def dots(cells: np.ndarray) -> np.ndarray:
    """Booleans (4 rows, 2 columns a cell) back from Braille bits: the oracle for `pack`."""
    order = [[0, 3], [1, 4], [2, 5], [6, 7]]
    height, width = cells.shape
    out = np.zeros((height * 4, width * 2), dtype=bool)
    for row in range(4):
        for column in range(2):
            out[row::4, column::2] = (cells >> order[row][column]) & 1
    return out


def test_packing_is_the_braille_alphabet():
    wanted = np.random.default_rng(1).random((12, 20)) < 0.5
    assert (dots(pack(wanted)) == wanted).all()
    one = np.zeros((4, 2), dtype=bool)
    one[0, 0] = True
    assert chr(0x2800 + int(pack(one)[0, 0])) == "⠁"


def test_one_high_point_among_many_is_drawn():
    x, y = np.arange(100_000.0), np.zeros(100_000)
    y[54_321] = 1.0
    drawn = dots(curve_cells(x, y, View(0, 99_999, 0, 1, 60, 10)))
    column = round(54_321 / 99_999 * 119)
    assert drawn[0, column] and drawn[-1, column]
    assert drawn[0].sum() == 1 or set(np.flatnonzero(drawn[0])) <= {column, column + 1}


def test_every_column_of_a_dense_curve_is_drawn_between_its_extremes():
    rng = np.random.default_rng(3)
    x, y = np.arange(5000.0), rng.normal(size=5000)
    view = View(0, 4999, float(y.min()), float(y.max()), 40, 12)
    drawn = dots(curve_cells(x, y, view))
    for column in range(80):
        mine = y[view.columns(x, 80) == column]
        rows = view.rows(np.array([mine.max(), mine.min()]), 48)
        assert drawn[rows[0] : rows[1] + 1, column].all()


def test_few_points_are_joined_by_a_line():
    drawn = dots(curve_cells([0, 10], [0, 1], View(0, 10, 0, 1, 20, 5)))
    assert drawn.any(axis=0).all()
    assert drawn[-1, 0] and drawn[0, -1]


def test_nan_is_a_gap():
    y = [1.0] * 40 + [math.nan] * 20 + [1.0] * 40
    drawn = dots(curve_cells(range(100), y, View(0, 99, 0, 2, 50, 5))).any(axis=0)
    assert drawn[:38].all() and not drawn[42:58].any() and drawn[62:].all()


@pytest.mark.parametrize("y", [[], [math.nan], [math.inf, math.nan]])
def test_nothing_to_draw_draws_nothing(y: list[float]):
    assert not curve_cells(range(len(y)), y, View(0, 1, 0, 1, 10, 3)).any()


def test_infinite_and_huge_values_do_not_break_the_axis():
    cells = curve_cells([0, 1, 2], [1.0, 1e300, 2.0], View(0, 2, 0, 3, 10, 4))
    assert cells.any()


def test_the_first_steps_do_not_own_the_axis_once_there_are_many():
    loss = [7 * math.exp(-step / 10) + 2 for step in range(1000)]
    low, high = loss_range(loss, loss)
    assert low <= min(loss) and high < 3.0
    assert loss_range(loss[:20], loss[:20])[1] > 8.9


def test_ticks_are_round_and_inside():
    for low, high in ((0, 1), (1.93, 6.71), (0, 1500), (2.1, 2.13), (1e-5, 3e-4)):
        values = ticks(low, high, 5)
        assert 2 <= len(values) <= 12
        assert all(low - 1e-9 <= value <= high + 1e-9 for value in values)
    assert ticks(math.nan, 1, 5) == []
    assert log_ticks(1, 1000, 8)[0] == 1
