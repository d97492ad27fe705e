"""Numbers in one quiet column, wrapped texts, and the log of events: lines, cheaply repainted."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.cells import cell_len, set_cell_size
from textual.content import Content
from textual.strip import Strip

from engine.text import visible
from tui_lab.format import moment
from tui_lab.state import Line
from tui_lab.widgets.lines import LineView, Piece

Row = tuple[str, *tuple[Piece, ...]]
"""A label and the pieces of its value; an empty label continues, `-` alone is a rule."""


class Readout(LineView):
    """Label and value, one a line."""

    DEFAULT_CSS = "Readout { width: 1fr; height: auto; }"

    def __init__(self, *, id: str | None = None, unicode: bool = True) -> None:
        super().__init__(id=id)
        self.unicode = unicode
        self.rows: tuple[Row, ...] = ()

    def show(self, rows: Iterable[Row]) -> None:
        before, self.rows = len(self.rows), tuple(rows)
        if len(self.rows) != before:
            self.styles.height = len(self.rows)
        self.redraw()

    def build(self, width: int, height: int) -> Iterable[Strip]:
        column = 13 if width >= 32 else 11
        for label, *pieces in self.rows:
            if label == "-":
                yield self.strip((("─" if self.unicode else "-") * width, "axis"))
            else:
                yield self.strip((f"{label:<{column}}", "muted"), *pieces)


def meter(share: float, width: int, unicode: bool = True) -> list[Piece]:
    """A bar of `width` cells, filled to `share` (0 to 1): legible without colour."""
    full = min(width, max(0, round(share * width)))
    on, off = ("▰", "▱") if unicode else ("#", ".")
    return [(on * full, "primary"), (off * (width - full), "faint")]


class TextPanel(LineView):
    """A heading and a text from outside, wrapped at words; what does not fit is cut off."""

    DEFAULT_CSS = "TextPanel { width: 1fr; height: 1fr; }"

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.heading: tuple[Piece, ...] = ()
        self.text: tuple[Piece, ...] = ()

    def show(self, heading: Sequence[Piece], *text: Piece) -> None:
        if (tuple(heading), text) != (self.heading, self.text):
            self.heading, self.text = tuple(heading), text
            self.redraw()

    def build(self, width: int, height: int) -> Iterable[Strip]:
        if self.heading:
            yield self.strip(*((visible(text, lines=False), part) for text, part in self.heading))
        most = (width + 1) * max(height, 1)  # what lies below the last line need not be wrapped
        parts = [(visible(text, most=most).expandtabs(4), part) for text, part in self.text]
        plain = Content("".join(text for text, _ in parts))
        spans = []
        start = 0
        for text, part in parts:
            spans.append((start, start + len(text), part))
            start += len(text)
        position = 0
        for line in plain.wrap(max(1, width))[: max(0, height - bool(self.heading))]:
            # Wrapping drops the blanks that it breaks at: find where this line's text begins.
            position = max(position, plain.plain.find(line.plain, position))
            end = position + len(line.plain)
            yield self.strip(
                *(
                    (plain.plain[max(a, position) : min(b, end)], part)
                    for a, b, part in spans
                    if a < end and b > position
                )
            )
            position = end


GLYPHS = {"good": ("✓", "+"), "warning": ("!", "!"), "error": ("✕", "x"), "info": ("·", ".")}


class EventLog(LineView):
    """The newest events at the bottom, each on one line, with the time of day."""

    DEFAULT_CSS = "EventLog { width: 1fr; height: 1fr; }"

    def __init__(self, *, id: str | None = None, unicode: bool = True) -> None:
        super().__init__(id=id)
        self.unicode = unicode
        self.lines: tuple[Line, ...] = ()

    def show(self, lines: Iterable[Line]) -> None:
        lines = tuple(lines)
        if lines != self.lines:
            self.lines = lines
            self.redraw()

    def build(self, width: int, height: int) -> Iterable[Strip]:
        for line in self.lines[-height:]:
            clock = moment(line.time, "%H:%M:%S" if width >= 40 else "%H:%M")
            glyph = GLYPHS.get(line.level, GLYPHS["info"])[not self.unicode]
            part = line.level if line.level in ("good", "warning", "error") else "muted"
            text = visible(line.text, lines=False, most=2 * width)
            text = shorten(text, width - len(clock) - 3, self.unicode)
            weight = "text" if line.level != "error" else "error"
            yield self.strip((f"{clock} ", "axis"), (f"{glyph} ", part), (text, weight))


def shorten(text: str, width: int, unicode: bool = True) -> str:
    """`text` in at most `width` cells, ending in an ellipsis where something was left out."""
    if cell_len(text) <= width:
        return text
    end = "…" if unicode else "~"
    return set_cell_size(text, max(0, width - 1)).rstrip() + end if width > 0 else ""
