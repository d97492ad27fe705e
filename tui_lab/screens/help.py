"""All keys, from the table of keys: those of the screen one came from first."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from textwrap import wrap
from typing import TYPE_CHECKING

from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import VerticalScroll
from textual.geometry import Size
from textual.strip import Strip

from tui_lab.format import size
from tui_lab.keys import SCREENS, Key, keys_of
from tui_lab.screens.base import Kept
from tui_lab.widgets.lines import LineView, Piece

if TYPE_CHECKING:
    from tui_lab.app import LabApp


class HelpScreen(Kept[None]):
    CSS_PATH = "help.tcss"
    BINDINGS = [Binding("escape,question_mark,q", "dismiss", "Close")]

    def __init__(self) -> None:
        super().__init__()
        self._tables = KeyTables()

    def compose(self) -> ComposeResult:
        with VerticalScroll(id="help"):
            yield self._tables

    def show(self, app: LabApp, came_from: str) -> None:
        """The keys of the screen called `came_from` first, and what the screen takes."""
        others = [name for name in SCREENS if name != came_from]
        order = [came_from, "", *others] if came_from else ["", *others]
        self._tables.show(order, self._cost(app))
        if self.is_attached:
            self.query_one("#help").scroll_home(animate=False)

    def _cost(self, app: LabApp) -> str:
        """Nothing where that is not known."""
        if not app.bytes_drawn:
            return ""
        pace = app.pace
        sent = f"{size(pace.bytes_per_second)}/s to the terminal ({size(app.bytes_drawn)} so far)"
        return f"The screen takes {pace.share:.1%} of a core and sends {sent}."


class KeyTables(LineView):
    """The keys of some screens, a table each, and a line above them. Lines of our own: a widget,
    or Textual's text, would make the first look at them slow."""

    def __init__(self) -> None:
        super().__init__()
        self._order: Sequence[str] = ()
        self._note = ""
        self._laid_out: tuple[int, list[list[Piece]]] = (0, [])  # for which width

    def show(self, order: Sequence[str], note: str) -> None:
        width, before = self._laid_out
        self._order, self._note = order, note
        self._laid_out = 0, []
        if self.is_attached:
            self.redraw()
            if len(self._rows(width)) != len(before):
                self.refresh(layout=True)

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:
        return len(self._rows(width))

    def build(self, width: int, height: int) -> list[Strip]:
        return [self.strip(*row) for row in self._rows(width)]

    def _rows(self, width: int) -> list[list[Piece]]:
        if self._laid_out[0] != width:
            self._laid_out = width, self._lay_out(width)
        return self._laid_out[1]

    def _lay_out(self, width: int) -> list[list[Piece]]:
        rows: list[list[Piece]] = [[("Keys", "bright"), ("   esc closes", "muted")]]
        rows += [[(line, "muted")] for line in wrap(self._note, width)]
        return rows + [row for name in self._order for row in _table(name, width)]


@functools.lru_cache(maxsize=4 * len(SCREENS))
def _table(name: str, width: int) -> list[list[Piece]]:
    """The keys of a screen under its name; nothing if it has none. Wrapped once for a width: that
    takes longer than to draw them."""
    keys = list(keys_of(name))
    if not keys:
        return []
    return [[], [(SCREENS.get(name, "Everywhere"), "bright")], *_lines(keys, width)]


def _lines(keys: list[Key], width: int) -> Iterator[list[Piece]]:
    indent = max(len(key.written) for key in keys) + 2
    for key in keys:
        first, *rest = wrap(key.help, max(width - indent, 10)) or [""]
        yield [(f"{key.written:<{indent}}", "key"), (first, "")]
        yield from ([(" " * indent + line, "")] for line in rest)
