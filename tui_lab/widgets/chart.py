"""A chart of several curves with points and marks. Told numbers; draws cells; repaints changes.

Drawn here instead of by a plotting library: two shades of Braille in one cell grid, about a
millisecond a frame, and only the lines that changed go to the terminal.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from rich.segment import Segment
from textual.strip import Strip

from engine.text import visible
from tui_lab.widgets.lines import LineView, Piece, width_of

MARKS = {"saved": ("•", "s"), "rate": ("▲", "^"), "alert": ("✕", "!"), "now": ("▲", "^")}
"""What a mark on the x-axis looks like, with and without Unicode."""
MARK_PARTS = {"saved": "muted", "rate": "warning", "alert": "error", "now": "primary"}


@dataclass(frozen=True)
class Curve:
    """Points in the order of x, joined; `part` is how it is drawn (a part of LineView)."""

    x: Sequence[float]
    y: Sequence[float]
    part: str = "primary"


@dataclass(frozen=True)
class Plot:
    """Everything a chart shows. Later curves lie over earlier ones, points over all curves."""

    curves: Sequence[Curve] = ()
    points: Sequence[tuple[float, float]] = ()
    marks: Sequence[tuple[float, str]] = ()  # x, kind: saved, rate, alert, now
    x_range: tuple[float, float] = (0.0, 1.0)
    y_range: tuple[float, float] = (0.0, 1.0)
    log: bool = False
    title: Sequence[Piece] = ()
    legend: Sequence[Piece] = ()
    empty: str = ""  # said in the middle while there is no curve
    y_format: Callable[[float], str] = field(default=lambda value: f"{value:g}")
    x_format: Callable[[float], str] = field(
        default=lambda value: f"{value:,.0f}".replace(",", " ")
    )


class Chart(LineView):
    """Heading, axis labels on the left, curves, and an x-axis that carries the marks."""

    DEFAULT_CSS = """
    Chart {
        height: 1fr; width: 1fr;
        & > .line-view--point { color: $text; text-style: bold; }
    }
    """
    COMPONENT_CLASSES = {"line-view--point"}

    def __init__(self, *, id: str | None = None, unicode: bool = True) -> None:
        super().__init__(id=id)
        self.unicode = unicode
        self.plot = Plot()

    def show(self, plot: Plot) -> None:
        self.plot = plot
        self.redraw()

    def build(self, width: int, height: int) -> list[Strip]:
        plot = self.plot
        heading = [self._heading(width)] if plot.title or plot.legend else []
        if not any(len(curve.x) for curve in plot.curves):
            body = height - len(heading)
            empty = [self.strip((visible(plot.empty, lines=False)[:width].center(width), "muted"))]
            blank = [Strip([])] * (max(0, body - 1) // 2)
            return [*heading, *blank, *empty]
        return [*heading, *self._body(width, height - len(heading))]

    def _heading(self, width: int) -> Strip:
        left = [(visible(text, lines=False), part) for text, part in self.plot.title]
        legend = [(visible(text, lines=False), part) for text, part in self.plot.legend]
        used = width_of(left)
        while legend and used + width_of(legend) + 2 > width:
            legend.pop()
        space = width - used - width_of(legend)
        return self.strip(*left, (" " * max(0, space), ""), *legend)

    def _body(self, width: int, height: int) -> list[Strip]:
        # numpy comes with the first curve: the app's first paint must not wait for it.
        from tui_lab.widgets import plot as dots

        plot = self.plot
        rows = height - 2
        low, high = plot.y_range
        make = dots.log_ticks if plot.log else dots.ticks
        values = make(low, high, max(2, min(8, rows // 3)))
        gutter = max((len(plot.y_format(value)) for value in values), default=1) + 1
        columns = width - gutter - 1
        if rows < 1 or columns < 4:
            return []
        view = dots.View(*plot.x_range, low, high, columns, rows, plot.log)
        labels = {int(view.rows(_array([value]), rows)[0]): value for value in values}
        layers = [(dots.curve_cells(c.x, c.y, view), c.part) for c in plot.curves if len(c.x)]
        grid = self._grid(layers, view)
        lines = []
        for row in range(rows):
            value = labels.get(row)
            label = "" if value is None else plot.y_format(value)
            edge = ("┤" if value is not None else "│") if self.unicode else "|"
            axis = Segment(f"{label:>{gutter}}{edge}", self.part("axis"))
            lines.append(Strip([axis, *grid[row]], width))
        return [*lines, *self._x_axis(view, gutter, columns)]

    def _grid(self, layers, view) -> list[list[Segment]]:
        """The cells as runs of one style, row by row."""
        import numpy as np

        codes = np.zeros((view.height, view.width), dtype=np.uint32)
        style = np.zeros((view.height, view.width), dtype=np.int64)
        names = [""]
        for cells, part in layers:
            drawn = cells > 0
            if not self.unicode:
                cells = np.full(cells.shape, ord("*" if part == "smooth" else "."), np.uint32)
            else:
                cells = cells.astype(np.uint32) + 0x2800
            codes[drawn], style[drawn] = cells[drawn], len(names)
            names.append(part)
        codes[style == 0] = 0x20
        if self.plot.points:
            x, y = (_array(side) for side in zip(*self.plot.points, strict=True))
            column, row = view.columns(x, view.width), view.rows(y, view.height)
            seen = (column >= 0) & (column < view.width) & np.isfinite(y)
            codes[row[seen], column[seen]] = ord("◆" if self.unicode else "o")
            style[row[seen], column[seen]] = len(names)
            names.append("point")
        styles = [self.part(name) for name in names]
        lines = []
        for row in range(view.height):
            text = codes[row].astype("<u4").tobytes().decode("utf-32-le")
            edges = [0, *(np.flatnonzero(np.diff(style[row])) + 1).tolist(), view.width]
            lines.append(
                [
                    Segment(text[start:stop], styles[style[row, start]])
                    for start, stop in zip(edges, edges[1:], strict=False)
                ]
            )
        return lines

    def _x_axis(self, view, gutter: int, columns: int) -> list[Strip]:
        from tui_lab.widgets import plot as dots

        line = ["─" if self.unicode else "-"] * columns
        parts = ["axis"] * columns
        numbers = [" "] * (columns + gutter + 1)
        free = 0
        for value in dots.ticks(view.x0, view.x1, max(2, columns // 14)):
            text = self.plot.x_format(value)
            at = int(view.columns(_array([value]), columns)[0])
            line[at] = "┴" if self.unicode else "+"
            start = min(max(at + gutter + 1 - len(text) // 2, 0), len(numbers) - len(text))
            if start >= free:
                numbers[start : start + len(text)] = text
                free = start + len(text) + 2
        order = list(MARKS)
        for x, kind in sorted(self.plot.marks, key=lambda mark: order.index(mark[1])):
            at = int(view.columns(_array([x]), columns)[0])
            if 0 <= at < columns:
                line[at], parts[at] = MARKS[kind][not self.unicode], MARK_PARTS[kind]
        corner = ("╰" if self.unicode else "+").rjust(gutter + 1)
        pieces: list[Piece] = [(corner, "axis"), *zip(line, parts, strict=True)]
        return [self.strip(*_merged(pieces)), self.strip(("".join(numbers), "muted"))]


def _merged(pieces: Sequence[Piece]) -> list[Piece]:
    """Neighbours of one part as one piece."""
    merged: list[Piece] = []
    for text, part in pieces:
        if merged and merged[-1][1] == part:
            merged[-1] = (merged[-1][0] + text, part)
        else:
            merged.append((text, part))
    return merged


def _array(values):
    import numpy as np

    return np.asarray(values, dtype=np.float64)


def spark(values: Sequence[float], width: int, unicode: bool = True) -> str:
    """The last `width` groups of values as one line of blocks.

    The lowest block is four fifths of the highest value, or the lowest value where that is less.
    """
    heights = "▁▂▃▄▅▆▇█" if unicode else "_.-=oO#@"
    good = [value for value in values if math.isfinite(value)]
    if not good or width < 1:
        return ""
    size = max(1, len(good) // width)
    groups = [good[i : i + size] for i in range(len(good) % size, len(good), size)]
    means = [sum(group) / len(group) for group in groups][-width:]
    top = max(means)
    low = min(0.8 * top, *means)
    scale = 7.999 / ((top - low) or 1.0)
    return "".join(heights[min(7, max(0, int((mean - low) * scale)))] for mean in means)
