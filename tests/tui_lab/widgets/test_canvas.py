"""A curve drawn piece by piece looks as if it had been drawn at once."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tui_lab.widgets.canvas import Canvas
from tui_lab.widgets.plot import View, curve_cells

WIDTH, HEIGHT = 37, 9


def rows(canvas: Canvas) -> list[list[tuple[str, int]]]:
    return [canvas.runs(row) for row in range(HEIGHT)]


@pytest.mark.parametrize("seed", range(30))
def test_growing_gives_the_picture_of_the_whole(seed: int):
    """Dense and sparse curves, with gaps and spikes, over each other and under points; and the
    rows that were said to have changed are those that did."""
    rng = np.random.default_rng(seed)
    count = int(rng.choice([5, 30, 90, 700]))
    x = np.cumsum(rng.integers(1, 9, count)).astype(float)
    y = rng.normal(size=count)
    y[rng.random(count) < 0.1] = math.nan
    smooth = np.convolve(np.nan_to_num(y), np.ones(4) / 4, mode="same")
    validation = [(float(at), float(rng.normal())) for at in x[:: max(1, count // 7)]]
    view = View(0.0, float(x[-1] * rng.uniform(0.7, 1.4)), -2.0, 2.0, WIDTH, HEIGHT)
    growing = Canvas(view, "◆")
    end = 0
    while end < count:
        end = min(count, end + int(rng.integers(1, max(2, count // 6))))
        before = rows(growing)
        points = [point for point in validation if point[0] <= x[end - 1]]
        curves = [(x[:end], y[:end]), (x[:end], smooth[:end])]
        changed = growing.draw(curves, points)
        whole = Canvas(view, "◆")
        whole.draw(curves, points)
        assert rows(growing) == rows(whole)
        different = [row for row in range(HEIGHT) if rows(growing)[row] != before[row]]
        assert changed == different
    assert growing.draw(curves, points) == []


@pytest.mark.parametrize("start", [1, 7, WIDTH - 1])
def test_the_right_part_alone_is_the_right_part_of_the_whole(start: int):
    rng = np.random.default_rng(3)
    for count in (2, 11, 400):
        x, y = np.sort(rng.uniform(0, 100, count)), rng.normal(size=count)
        view = View(0.0, 100.0, -2.0, 2.0, WIDTH, HEIGHT)
        part = curve_cells(x, y, view, start)
        assert (part == curve_cells(x, y, view)[:, start:]).all()


def test_a_curve_that_became_another_is_drawn_anew():
    """A run that went back to a checkpoint, and a series whose older points were merged."""
    view = View(0.0, 10.0, 0.0, 1.0, WIDTH, HEIGHT)
    canvas, other = Canvas(view, "◆"), Canvas(view, "◆")
    canvas.draw([([0, 2, 4, 8], [0.1, 0.9, 0.2, 0.3])])
    back = [([0, 2, 4], [0.1, 0.9, 0.2])]
    assert canvas.draw(back) and other.draw(back)
    assert rows(canvas) == rows(other)
    merged = [([0, 4, 6, 8], [0.1, 0.2, 0.7, 0.3])]
    canvas.draw([([0, 1, 2, 3, 4, 8], [0.1, 0.5, 0.9, 0.4, 0.2, 0.3])])
    canvas.draw(merged)
    other.draw(merged)
    assert rows(canvas) == rows(other)
