"""A table of one-line rows: columns leave by priority when the width is short, marks, sorting.

It paints only the lines in view and repaints only the lines that changed, so that two hundred rows
refreshed every second cost nothing. It knows nothing of what the rows are about. Meaning never
rests on colour: the cursor has a glyph, tones come on top of words.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from rich.cells import cell_len, set_cell_size
from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.binding import Binding, BindingType
from textual.geometry import Region, Size
from textual.message import Message
from textual.reactive import reactive
from textual.scroll_view import ScrollView
from textual.strip import Strip

from engine.text import visible
from tui_lab.widgets.plain import plain

GAP = 2
GUTTER = 2


@dataclass(frozen=True)
class Column:
    """`priority` 0 stays; the highest numbers leave first. `grow` takes what width is left."""

    key: str
    label: str
    right: bool = False
    priority: int = 0
    grow: bool = False
    most: int = 40
    least: int = 8


@dataclass(frozen=True)
class Cell:
    """`tone` is muted, good, warn, bad, strong or empty."""

    text: str
    tone: str = ""


@dataclass(frozen=True)
class Row:
    key: str
    cells: tuple[Cell | str, ...]


def fit(columns: Sequence[Column], natural: Sequence[int], width: int) -> dict[int, int]:
    """Which columns (by index) show at `width` cells, and how wide.

    Growing columns may shrink to `least` before another column leaves; then whole columns leave,
    highest priority number first and the rightmost of equals; at last a growing one is cut.
    """
    shown = list(range(len(columns)))

    def needed(index: int) -> int:
        column = columns[index]
        return min(natural[index], column.least) if column.grow else natural[index]

    while sum(needed(i) + GAP for i in shown) - GAP > width:
        optional = [i for i in shown if columns[i].priority]
        if not optional:
            break
        shown.remove(max(optional, key=lambda i: (columns[i].priority, i)))
    widths = {i: needed(i) for i in shown}
    spare = width - sum(w + GAP for w in widths.values()) + GAP
    for i in shown:
        if columns[i].grow:
            room = max(1 - widths[i], min(spare, natural[i] - widths[i]))
            widths[i] += room
            spare -= room
    return widths


def clip(text: str, width: int, right: bool = False) -> str:
    """`text` in exactly `width` cells, with an ellipsis where it had to be cut."""
    length = cell_len(text)
    if length > width:
        return set_cell_size(text, width - 1) + "…" if width > 1 else set_cell_size(text, width)
    return " " * (width - length) + text if right else text + " " * (width - length)


class Table(ScrollView, can_focus=True):
    """Rows under a fixed header; up, down, page keys and the mouse move the cursor."""

    ALLOW_SELECT = False
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "move(-1)", show=False),
        Binding("down,j", "move(1)", show=False),
        Binding("pageup", "page(-1)", show=False),
        Binding("pagedown", "page(1)", show=False),
        Binding("home", "to(0)", show=False),
        Binding("end", "to(-1)", show=False),
    ]
    COMPONENT_CLASSES: ClassVar[set[str]] = {
        "table--header",
        "table--cursor",
        "table--rest",
        "table--muted",
        "table--good",
        "table--warn",
        "table--bad",
        "table--strong",
    }
    DEFAULT_CSS = """
    Table {
        background: transparent;
        overflow-x: hidden;
        scrollbar-size-vertical: 1;
        & > .table--header { color: $text-muted; text-style: underline; }
        & > .table--cursor { background: $primary 30%; }
        & > .table--rest { background: $surface; }
        & > .table--muted { color: $text-muted; }
        & > .table--good { color: $text-success; }
        & > .table--warn { color: $text-warning; }
        & > .table--bad { color: $text-error; text-style: bold; }
        & > .table--strong { text-style: bold; }
    }
    """

    cursor: reactive[int] = reactive(0, repaint=False)

    class Moved(Message):
        """The cursor stands on another row (`key` None: there is none)."""

        def __init__(self, table: Table, key: str | None) -> None:
            super().__init__()
            self.table, self.key = table, key

        @property
        def control(self) -> Table:
            return self.table

    class Activated(Moved):
        """A double click on a row. (Enter belongs to the screen's own table of keys.)"""

    class HeaderClicked(Moved):
        """`key` is the column's."""

    def __init__(self, columns: Sequence[Column], *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.columns = tuple(columns)
        self.rows: list[Row] = []
        self.sorted_by: tuple[str, bool] = ("", False)
        self._natural = [cell_len(column.label) for column in columns]
        self._widths: dict[int, int] = {}
        self._told: str | None = None

    @property
    def key(self) -> str | None:
        """The key of the row under the cursor."""
        return self.rows[self.cursor].key if self.cursor < len(self.rows) else None

    def set_rows(self, rows: Sequence[Row], sorted_by: tuple[str, bool] = ("", False)) -> None:
        """Show `rows`; the cursor stays on the row it was on. Equal rows repaint nothing."""
        if rows == self.rows and sorted_by == self.sorted_by:
            return
        before, key, widths = self.rows, self.key, self._widths
        was = self.cursor
        moved = sorted_by != self.sorted_by or len(before) != len(rows)
        self.rows, self.sorted_by = list(rows), sorted_by
        self._measure()
        at = next((i for i, row in enumerate(self.rows) if row.key == key), self.cursor)
        self.set_reactive(Table.cursor, max(0, min(at, len(self.rows) - 1)))
        if moved or widths != self._widths or self.cursor != was:
            self.virtual_size = Size(self.size.width, len(self.rows) + 1)
            self.refresh()
        else:
            for index, (old, new) in enumerate(zip(before, self.rows, strict=True)):
                if old != new:
                    self._refresh_row(index)
        self._tell()

    def go_to(self, key: str) -> None:
        """Put the cursor on the row of `key`, if it is there."""
        for index, row in enumerate(self.rows):
            if row.key == key:
                self.cursor = index

    def _measure(self) -> None:
        natural = [
            max(1, cell_len(column.label)) + 2 * (column.key == self.sorted_by[0])
            for column in self.columns
        ]
        for row in self.rows:
            for index, cell in enumerate(row.cells):
                text = cell.text if isinstance(cell, Cell) else cell
                shown = visible(text, lines=False, most=self.columns[index].most)
                natural[index] = max(natural[index], cell_len(shown))
        self._natural = [min(n, c.most) for n, c in zip(natural, self.columns, strict=True)]
        self._widths = fit(self.columns, self._natural, self.size.width - GUTTER)

    def on_resize(self) -> None:
        self._measure()
        self.virtual_size = Size(self.size.width, len(self.rows) + 1)
        self.refresh()
        self.call_after_refresh(self._show_cursor)

    def watch_cursor(self, old: int, new: int) -> None:
        self._refresh_row(old)
        self._refresh_row(new)
        self._show_cursor()
        self._tell()

    def validate_cursor(self, value: int) -> int:
        return max(0, min(value, len(self.rows) - 1))

    def _tell(self) -> None:
        if self.key != self._told:
            self._told = self.key
            self.post_message(self.Moved(self, self.key))

    def _show_cursor(self) -> None:
        top, height = round(self.scroll_y), max(1, self.size.height - 1)
        if self.cursor < top:
            self.scroll_to(y=self.cursor, animate=False)
        elif self.cursor >= top + height:
            self.scroll_to(y=self.cursor - height + 1, animate=False)

    def _refresh_row(self, index: int) -> None:
        y = index + 1 - round(self.scroll_y)
        if 1 <= y < self.size.height:
            self.refresh(Region(0, y, self.size.width, 1))

    def on_focus(self) -> None:
        self._refresh_row(self.cursor)

    def on_blur(self) -> None:
        self._refresh_row(self.cursor)

    def render_line(self, y: int) -> Strip:
        width = self.size.width
        base = self.rich_style
        if y == 0:
            style = base + self.get_component_rich_style("table--header")
            return self._strip([Segment(" " * GUTTER, style), *self._header(style)], width, style)
        index = y - 1 + round(self.scroll_y)
        if index >= len(self.rows):
            return Strip.blank(width, base)
        at_cursor = index == self.cursor
        over = Style()
        if at_cursor:
            name = "table--cursor" if self.has_focus else "table--rest"
            full = self.get_component_rich_style(name)
            over = Style(bold=True, bgcolor=full.bgcolor)  # over the tones, which keep their colour
        segments = [Segment(plain("▸ ", self.app) if at_cursor else "  ", base + over)]
        for at, (column, wide) in enumerate(self._widths.items()):
            cell = self.rows[index].cells[column]
            text, tone = (cell.text, cell.tone) if isinstance(cell, Cell) else (cell, "")
            style = base
            if tone:
                style += self.get_component_rich_style(f"table--{tone}")
            if at:
                segments.append(Segment(" " * GAP, base + over))
            shown = visible(text, lines=False, most=4 * self.columns[column].most)
            shown = clip(shown, wide, self.columns[column].right)
            segments.append(Segment(plain(shown, self.app), style + over))
        return self._strip(segments, width, base + over)

    def _header(self, style: Style) -> list[Segment]:
        segments = []
        for at, (index, wide) in enumerate(self._widths.items()):
            column = self.columns[index]
            label = column.label
            if self.sorted_by[0] == column.key:
                label = f"{label} {'▼' if self.sorted_by[1] else '▲'}"
            if at:
                segments.append(Segment(" " * GAP, style))
            shown = plain(clip(label, wide, column.right), self.app)
            segments.append(Segment(shown, style))
        return segments

    def _strip(self, segments: list[Segment], width: int, style: Style) -> Strip:
        return Strip(segments).adjust_cell_length(width, style)

    def action_move(self, by: int) -> None:
        self.cursor += by

    def action_page(self, pages: int) -> None:
        self.cursor += pages * max(1, self.size.height - 2)

    def action_to(self, index: int) -> None:
        self.cursor = index if index >= 0 else len(self.rows) - 1

    def on_click(self, event: events.Click) -> None:
        if event.y == 0:
            start = GUTTER
            for index, wide in self._widths.items():
                if start <= event.x < start + wide + GAP:
                    self.post_message(self.HeaderClicked(self, self.columns[index].key))
                start += wide + GAP
            return
        index = event.y - 1 + round(self.scroll_y)
        if index < len(self.rows):
            again = index == self.cursor and event.chain > 1
            self.cursor = index
            if again:
                self.post_message(self.Activated(self, self.key))
