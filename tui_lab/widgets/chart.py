"""A chart of several curves with points and marks. Told numbers; draws cells; repaints changes.

Drawn here instead of by a plotting library: two shades of Braille in one cell grid, a curve that
has grown drawn from its old end alone, and only the cells that changed go to the terminal.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rich.segment import Segment
from textual.strip import Strip

from engine.text import visible
from tui_lab.widgets.lines import LineView, Piece, width_of

if TYPE_CHECKING:
    from tui_lab.widgets.canvas import Canvas
    from tui_lab.widgets.plot import View

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
        self._canvas: Canvas | None = None
        self._drawn_as: tuple[object, ...] = ()  # view, axes and curves that the canvas is for
        self._marks: tuple[tuple[float, str], ...] = ()
        self._rows: list[Strip] = []  # of the canvas, with the axis on their left
        self._below: list[Strip] = []  # the x-axis

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

    def forget(self) -> None:
        self._drawn_as = ()

    def _body(self, width: int, height: int) -> list[Strip]:
        # numpy comes with the first curve: the app's first paint must not wait for it.
        from tui_lab.widgets import plot as dots

        plot, rows = self.plot, height - 2
        low, high = plot.y_range
        make = dots.log_ticks if plot.log else dots.ticks
        values = make(low, high, max(2, min(8, rows // 3)))
        labels = [plot.y_format(value) for value in values]
        gutter = max((len(label) for label in labels), default=1) + 1
        columns = width - gutter - 1
        if rows < 1 or columns < 4:
            return []
        view = dots.View(*plot.x_range, low, high, columns, rows, plot.log)
        ticks = [
            (int(view.columns(_array([value]), columns)[0]), plot.x_format(value))
            for value in dots.ticks(view.x0, view.x1, max(2, columns // 14))
        ]
        curves = [curve for curve in plot.curves if len(curve.x)]
        key = (view, *labels, *ticks, *(curve.part for curve in curves))
        if anew := key != self._drawn_as:
            self._drawn_as = key
            self._canvas = self._new_canvas(view, curves)
            places = view.rows(_array(values), rows).tolist()
            named = dict(zip(places, labels, strict=True))
            self._rows = [Strip([self._axis(named.get(row), gutter)]) for row in range(rows)]
        assert self._canvas is not None
        changed = self._canvas.draw([(curve.x, curve.y) for curve in curves], plot.points)
        for row, cells in self._cells(self._canvas, range(rows) if anew else changed).items():
            [axis, *_] = self._rows[row]
            self._rows[row] = Strip([axis, *cells], width)
        marks = tuple(plot.marks)
        if anew or marks != self._marks:
            self._marks = marks
            self._below = self._x_axis(view, ticks, gutter)
        return [*self._rows, *self._below]

    def _new_canvas(self, view: View, curves: Sequence[Curve]) -> Canvas:
        from tui_lab.widgets.canvas import Canvas

        if self.unicode:
            return Canvas(view, "◆")
        return Canvas(view, "o", ["*" if curve.part == "smooth" else "." for curve in curves])

    def _axis(self, label: str | None, gutter: int) -> Segment:
        edge = ("│" if label is None else "┤") if self.unicode else "|"
        return Segment(f"{label or '':>{gutter}}{edge}", self.part("axis"))

    def _cells(self, canvas: Canvas, rows: Iterable[int]) -> dict[int, list[Segment]]:
        """The cells of these rows as runs of one style."""
        parts = [curve.part for curve in self.plot.curves if len(curve.x)]
        styles = [self.part(part) for part in ("", *parts, "point")]
        return {
            row: [Segment(text, styles[layer]) for text, layer in canvas.runs(row)] for row in rows
        }

    def _x_axis(self, view: View, ticks: Sequence[tuple[int, str]], gutter: int) -> list[Strip]:
        columns = view.width
        line = ["─" if self.unicode else "-"] * columns
        parts = ["axis"] * columns
        numbers = [" "] * (columns + gutter + 1)
        free = 0
        for at, text in ticks:
            line[at] = "┴" if self.unicode else "+"
            start = min(max(at + gutter + 1 - len(text) // 2, 0), len(numbers) - len(text))
            if start >= free:
                numbers[start : start + len(text)] = text
                free = start + len(text) + 2
        order = list(MARKS)
        for x, kind in sorted(self._marks, key=lambda mark: order.index(mark[1])):
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
