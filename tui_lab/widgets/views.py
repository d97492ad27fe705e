"""A one-line strip of views, one of them shown: for panes that have more to say than room.

Knows the names only; what a view holds is the screen's business.
"""

from __future__ import annotations

from collections.abc import Sequence

from textual import events
from textual.content import Content
from textual.message import Message
from textual.reactive import reactive
from textual.widget import Widget


class Views(Widget):
    """`current` is reversed and stands in brackets of space; a click or `turn` changes it."""

    ALLOW_SELECT = False
    DEFAULT_CSS = """
    Views { height: 1; color: $text-muted; }
    """

    current: reactive[str] = reactive("")

    class Changed(Message):
        def __init__(self, views: Views, current: str) -> None:
            super().__init__()
            self.views, self.current = views, current

        @property
        def control(self) -> Views:
            return self.views

    def __init__(self, names: Sequence[str], *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.names = tuple(names)
        self.set_reactive(Views.current, self.names[0])

    def watch_current(self, old: str, new: str) -> None:
        if old and old != new:
            self.post_message(self.Changed(self, new))

    def turn(self, by: int) -> None:
        """The next (1) or the previous (-1) view, in a circle."""
        self.current = self.names[(self.names.index(self.current) + by) % len(self.names)]

    def render(self) -> Content:
        parts = [
            (f" {name} ", "bold reverse $foreground" if name == self.current else "")
            for name in self.names
        ]
        return Content.assemble(*parts)

    def on_click(self, event: events.Click) -> None:
        start = 0
        for name in self.names:
            start += len(name) + 2
            if event.x < start:
                self.current = name
                return
