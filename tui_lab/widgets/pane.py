"""Lines of text in a pane that scrolls: facts, tables, remarks. Paints only what is in view.

A line is a tuple of pieces (text, tone), the tones of `table.Table`. A line that is too long goes
on under the end of its first piece, so that a label keeps its column.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from rich.cells import cell_len, chop_cells
from rich.segment import Segment
from textual.geometry import Size
from textual.scroll_view import ScrollView
from textual.strip import Strip

from engine.text import visible
from tui_lab.widgets.plain import plain

Piece = tuple[str, str]
Line = tuple[Piece, ...]

BAR = "━"
LONGEST = 10_000
"""Characters of a piece that are shown: a configuration may hold a text without end."""


def fact(label: str, *values: str | Piece, width: int = 13) -> Line:
    """A label in its column and what it says."""
    pieces = [value if isinstance(value, tuple) else (value, "") for value in values]
    return ((f"{label:<{width}} ", "muted"), *pieces)


def title(text: str) -> Line:
    """A heading; an empty line belongs before it."""
    return ((text, "head"),)


def flow(line: Line, width: int) -> list[Line]:
    """`line` in as many lines of at most `width` cells as it needs, broken between words."""
    if sum(cell_len(text) for text, _ in line) <= width:
        return [line]
    indent = cell_len(line[0][0]) if len(line) > 1 else 0
    if indent > width // 2:
        indent = 2
    lines: list[list[Piece]] = [[]]
    used = 0
    for text, tone in line:
        for word in _words(text, max(1, width - indent)):
            wide = cell_len(word)
            if used + cell_len(word.rstrip()) > width and lines[-1]:
                lines.append([(" " * indent, "")])
                used = indent
                word = word.lstrip()
                wide = cell_len(word)
            lines[-1].append((word, tone))
            used += wide
    return [tuple(pieces) for pieces in lines]


def _words(text: str, most: int) -> list[str]:
    """The text in words with the spaces behind them; none wider than `most`."""
    words: list[str] = []
    for part in text.split(" "):
        chopped = chop_cells(part, most) or [""]
        words += [*chopped[:-1], chopped[-1] + " "]
    if words:
        words[-1] = words[-1][:-1]
    return words


class Pane(ScrollView, can_focus=True):
    """`show` replaces the lines; equal ones paint nothing. The arrows and page keys scroll."""

    ALLOW_SELECT = False
    COMPONENT_CLASSES: ClassVar[set[str]] = {
        "pane--muted",
        "pane--good",
        "pane--warn",
        "pane--bad",
        "pane--strong",
        "pane--head",
    }
    DEFAULT_CSS = """
    Pane {
        background: transparent;
        overflow-x: hidden;
        scrollbar-size-vertical: 1;
        & > .pane--muted { color: $text-muted; }
        & > .pane--good { color: $text-success; text-style: bold; }
        & > .pane--warn { color: $text-warning; }
        & > .pane--bad { color: $text-error; text-style: bold; }
        & > .pane--strong { text-style: bold; }
        & > .pane--head { color: $primary; text-style: bold; }
    }
    """

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.lines: list[Line] = []
        self._flowed: list[Line] = []

    def show(self, lines: Sequence[Line], *, keep_place: bool = True) -> None:
        """Show `lines`, from the top again unless `keep_place`."""
        if list(lines) == self.lines:
            return
        self.lines = list(lines)
        self._arrange()
        if not keep_place:
            self.scroll_to(y=0, animate=False)

    @property
    def text(self) -> str:
        """Everything the pane says, for tests and for copying."""
        return "\n".join("".join(text for text, _ in line) for line in self.lines)

    def _arrange(self) -> None:
        width = max(8, self.size.width - 1)
        safe = [
            tuple(
                (plain(visible(text, lines=False, most=LONGEST), self.app), tone)
                for text, tone in line
            )
            for line in self.lines
        ]
        self._flowed = [part for line in safe for part in flow(line, width)]
        self.virtual_size = Size(self.size.width, len(self._flowed))
        self.refresh()

    def on_resize(self) -> None:
        self._arrange()

    def render_line(self, y: int) -> Strip:
        base, number = self.rich_style, y + round(self.scroll_y)
        if number >= len(self._flowed):
            return Strip.blank(self.size.width, base)
        segments = []
        for text, tone in self._flowed[number]:
            style = base
            if tone:
                style += self.get_component_rich_style(f"pane--{tone}")
            segments.append(Segment(text, style))
        return Strip(segments).adjust_cell_length(self.size.width, base)
