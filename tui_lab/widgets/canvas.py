"""The cells of a chart that grows at its right end: drawn again only from where something changed.

Numbers in, cells out, like `plot`, which draws the curves; here is remembered what they looked
like. Knows nothing of Textual or of colours: a cell has a character and the number of its layer.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from tui_lab.widgets.plot import View, curve_cells

Points = tuple[Sequence[float], Sequence[float]]
"""x, which ascends, and y."""
BRAILLE = 0x2800
BLANK = 0x20


class Canvas:
    """`draw` curves and points over each other; `runs` says what a row looks like then.

    Layer 0 is blank, 1 to n are the curves, n + 1 the points. `glyphs`: the character of each
    curve, where Braille cannot be drawn.
    """

    def __init__(self, view: View, point: str, glyphs: Sequence[str] = ()) -> None:
        self.view = view
        self._point = ord(point)
        self._glyphs = [ord(glyph) for glyph in glyphs]
        self._codes = np.full((view.height, view.width), BLANK, np.uint32)
        self._layers = np.zeros((view.height, view.width), np.uint8)
        self._ends: list[tuple[int, float, float]] = []  # of each curve: points, the last one
        self._points: list[tuple[float, float]] = []

    def draw(
        self, curves: Sequence[Points], points: Sequence[tuple[float, float]] = ()
    ) -> list[int]:
        """Draw these curves in the place of the ones before; the rows that changed, ascending.

        A curve that goes on from what it was is drawn from its old end only.
        """
        start = min(self._first_column(curves), self._first_point(points))
        self._ends = [_end_of(*curve, len(curve[0])) for curve in curves]
        self._points = list(points)
        if start >= self.view.width:
            return []
        codes, layers = self._cells(curves, points, max(0, start))
        different = (codes != self._codes[:, start:]) | (layers != self._layers[:, start:])
        self._codes[:, start:], self._layers[:, start:] = codes, layers
        return np.flatnonzero(different.any(axis=1)).tolist()

    def runs(self, row: int) -> list[tuple[str, int]]:
        """A row as texts and the layers that they belong to."""
        layers = self._layers[row]
        text = self._codes[row].astype("<u4").tobytes().decode("utf-32-le")
        edges = [0, *(np.flatnonzero(np.diff(layers)) + 1).tolist(), self.view.width]
        return [
            (text[start:stop], int(layers[start]))
            for start, stop in zip(edges, edges[1:], strict=False)
        ]

    def _first_column(self, curves: Sequence[Points]) -> int:
        """The first cell column that new points of the curves can change."""
        if len(curves) != len(self._ends):
            return 0
        first = self.view.width
        for (x, y), end in zip(curves, self._ends, strict=True):
            count = end[0]
            if len(x) < count or not _same(_end_of(x, y, count), end):
                return 0
            if len(x) > count:
                first = min(first, self._last_link(x, count) if count else 0)
        return first

    def _last_link(self, x: Sequence[float], count: int) -> int:
        """The cell column from which a line leads to the dot column of the last of `count` points:
        where that line ends depends on all points of its column."""
        view, dots = self.view, self.view.width * 2
        at = self._column(x[count - 1], dots)
        # The middle of the column before: whatever lies on its left is in another column.
        left = view.x0 + (view.x1 - view.x0) * (at - 1) / (dots - 1)
        index = int(np.searchsorted(np.asarray(x)[:count], left)) - 1
        return self._column(x[index], dots) // 2 if index >= 0 else 0

    def _first_point(self, points: Sequence[tuple[float, float]]) -> int:
        known = len(self._points)
        if list(points[:known]) != self._points:
            return 0
        width = self.view.width
        return min([self._column(x, width) for x, _ in points[known:]], default=width)

    def _column(self, x: float, count: int) -> int:
        """The column (of `count`) of `x`, held inside the view."""
        return min(max(int(self.view.columns(np.array([x]), count)[0]), 0), count - 1)

    def _cells(
        self, curves: Sequence[Points], points: Sequence[tuple[float, float]], start: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Characters and layers of the columns from `start` on."""
        view = self.view
        codes = np.full((view.height, view.width - start), BLANK, np.uint32)
        layers = np.zeros((view.height, view.width - start), np.uint8)
        for number, (x, y) in enumerate(curves, 1):
            if len(x):
                cells = curve_cells(x, y, view, start)
                drawn = cells > 0
                if self._glyphs:
                    codes[drawn] = self._glyphs[number - 1]
                else:
                    codes[drawn] = cells[drawn].astype(np.uint32) + BRAILLE
                layers[drawn] = number
        if points:
            x, y = (np.array(side, dtype=np.float64) for side in zip(*points, strict=True))
            column, row = view.columns(x, view.width), view.rows(y, view.height)
            seen = (column >= start) & (column < view.width) & np.isfinite(y)
            codes[row[seen], column[seen] - start] = self._point
            layers[row[seen], column[seen] - start] = len(curves) + 1
        return codes, layers


def _end_of(x: Sequence[float], y: Sequence[float], count: int) -> tuple[int, float, float]:
    return (count, x[count - 1], y[count - 1]) if count else (0, 0.0, 0.0)


def _same(one: tuple[int, float, float], other: tuple[int, float, float]) -> bool:
    """Equal, where a value that is not a number equals another such one."""
    gaps = math.isnan(one[2]) and math.isnan(other[2])
    return one[:2] == other[:2] and (gaps or one[2] == other[2])
