"""All keys, from the table of keys: those of the screen one came from first."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import VerticalScroll
from textual.content import Content
from textual.widgets import Static

from tui_lab.format import size
from tui_lab.keys import SCREENS, Key, keys_of
from tui_lab.screens.base import Modal

if TYPE_CHECKING:
    from tui_lab.app import LabApp


class HelpScreen(Modal[None]):
    CSS_PATH = "help.tcss"
    BINDINGS = [Binding("escape,question_mark,q", "dismiss", "Close")]

    def __init__(self, came_from: str) -> None:
        super().__init__()
        self.came_from = came_from

    def compose(self) -> ComposeResult:
        others = [name for name in SCREENS if name != self.came_from]
        order = [self.came_from, "", *others] if self.came_from else ["", *others]
        with VerticalScroll(id="help"):
            yield Static(self._text(order))

    def _text(self, order: list[str]) -> Content:
        """One text for all: a widget a section would make the first look at it slow."""
        parts = [Content.styled("Keys", "bold"), Content.styled("   esc closes", "$text-muted")]
        if cost := self._cost():
            parts.append(Content.styled(f"\n{cost}", "$text-muted"))
        for name in order:
            keys = list(keys_of(name))
            if keys:
                parts.append(Content.styled(f"\n\n{SCREENS.get(name, 'Everywhere')}\n", "bold"))
                parts.append(self._table(keys))
        return Content("").join(parts)

    def _cost(self) -> str:
        """What the screen takes; nothing where that is not known."""
        app: LabApp = self.app  # type: ignore[assignment]
        if not app.bytes_drawn:
            return ""
        pace = app.pace
        sent = f"{size(pace.bytes_per_second)}/s to the terminal ({size(app.bytes_drawn)} so far)"
        return f"The screen takes {pace.share:.1%} of a core and sends {sent}."

    def _table(self, keys: list[Key]) -> Content:
        width = max(len(key.written) for key in keys) + 2
        return Content("\n").join(
            Content.assemble((f"{key.written:<{width}}", "bold $primary"), key.help) for key in keys
        )
