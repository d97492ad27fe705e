"""Several runs on one chart, told apart without colour: each curve carries its letter.

Capital letters stand on the curves, small ones at the validation points. Knows numbers and
letters, nothing of runs.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rich.segment import Segment
from textual.strip import Strip

from tui_lab.widgets.chart import Chart, Curve, Plot
from tui_lab.widgets.lines import Piece

if TYPE_CHECKING:
    from tui_lab.widgets.canvas import Canvas

PARTS = ("primary", "warning", "accent", "good", "error", "bright")
EVERY = 26
"""Cells between two letters on one curve."""


@dataclass(frozen=True)
class Line:
    """One run's curve and its points. Without a letter (one run alone) it is drawn plainly."""

    letter: str
    x: Sequence[float]
    y: Sequence[float]
    points_x: Sequence[float] = ()
    points_y: Sequence[float] = ()


def part_of(letter: str) -> str:
    """The colour of a letter; the letters say the same without it."""
    return PARTS[(ord(letter) - ord("A")) % len(PARTS)] if letter else "smooth"


@dataclass(frozen=True)
class OverlayPlot(Plot):
    lines: Sequence[Line] = field(default=())


class Overlay(Chart):
    """`show` an OverlayPlot; its `curves` follow from its `lines`."""

    def _cells(self, canvas: Canvas, rows: Iterable[int]) -> dict[int, list[Segment]]:
        # Letters move with the ends of the curves: every row, whichever the curves changed.
        view = canvas.view
        drawn = list(super()._cells(canvas, range(view.height)).values())
        if isinstance(self.plot, OverlayPlot):
            for index, line in enumerate(self.plot.lines):
                if line.letter:
                    self._points(drawn, line, view)
                    self._letters(drawn, line, view, index)
        return dict(enumerate(drawn))

    def _letters(self, rows, line: Line, view, index: int) -> None:
        import numpy as np

        x, y = np.asarray(line.x), np.asarray(line.y)
        good = np.isfinite(y)
        if not good.any():
            return
        x, y = x[good], y[good]
        at = view.columns(x, view.width)
        first = 2 + index * (EVERY // max(1, len(self.plot.lines)))  # type: ignore[attr-defined]
        wanted = [*range(first, int(at[-1]), EVERY), int(at[-1])]
        for column in wanted:
            nearest = int(np.searchsorted(at, column))
            if nearest < len(at) and abs(int(at[nearest]) - column) <= 2:
                row = int(view.rows(y[nearest : nearest + 1], view.height)[0])
                self._put(rows, row, int(at[nearest]), line.letter, part_of(line.letter), True)

    def _points(self, rows, line: Line, view) -> None:
        import numpy as np

        x, y = np.asarray(line.points_x, dtype=float), np.asarray(line.points_y, dtype=float)
        if len(x):
            for column, row in zip(
                view.columns(x, view.width), view.rows(y, view.height), strict=True
            ):
                small = line.letter.lower()
                self._put(rows, int(row), int(column), small, part_of(line.letter), False)

    def _put(self, rows, row: int, column: int, letter: str, part: str, strong: bool) -> None:
        if column < 0 or not 0 <= row < len(rows):
            return
        strip = Strip(rows[row])
        if column >= strip.cell_length:
            return
        style = self.part(part)
        if strong:
            style += self.part("bright").without_color
        rows[row] = [
            *strip.crop(0, column),
            Segment(letter, style),
            *strip.crop(column + 1, strip.cell_length),
        ]


def plot_of(lines: Sequence[Line], **plot) -> OverlayPlot:
    """The plot of these lines; keywords are those of Plot."""
    curves = [Curve(line.x, line.y, part_of(line.letter)) for line in lines]
    points = [
        point
        for line in lines
        if not line.letter
        for point in zip(line.points_x, line.points_y, strict=True)
    ]
    return OverlayPlot(curves=curves, points=points, lines=tuple(lines), **plot)


def letters_legend(entries: Sequence[tuple[str, str]]) -> list[Piece]:
    """`A name  B name`, each in the colour of its curve."""
    pieces: list[Piece] = []
    for letter, name in entries:
        pieces.append((f"  {letter} {name}" if letter else f"  {name}", part_of(letter)))
    return pieces
