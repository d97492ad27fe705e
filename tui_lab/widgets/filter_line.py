"""A heading with a filter beside it: typing narrows the list below at once."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.content import Content
from textual.message import Message
from textual.widgets import Input, Static

from tui_lab.widgets.text_field import TextField


class FilterField(TextField):
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "leave(True)", show=False),
        Binding("down", "leave(False)", show=False),
    ]

    def action_leave(self, clear: bool) -> None:
        if clear:
            self.value = ""
        self.post_message(FilterLine.Left())


class FilterLine(Horizontal):
    """The heading alone until `open`; then the field. Escape clears it, Enter and Down keep it."""

    DEFAULT_CSS = """
    FilterLine { height: 1; }
    FilterLine > #heading { width: 1fr; text-wrap: nowrap; text-overflow: ellipsis; }
    FilterLine > #slash { width: auto; color: $text-muted; display: none; }
    FilterLine > FilterField { width: 26; display: none; border: none; padding: 0; height: 1;
        background: $panel; }
    FilterLine.-open > #slash, FilterLine.-open > FilterField { display: block; }
    """

    class Changed(Message):
        """The filter's words, in lower case (all must be there)."""

        def __init__(self, words: tuple[str, ...]) -> None:
            super().__init__()
            self.words = words

    class Left(Message):
        """The field lets go of the focus."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._heading = Content("")

    def compose(self) -> ComposeResult:
        yield Static(self._heading, id="heading")
        yield Static("filter ", id="slash")
        yield FilterField(id="field", placeholder="words, all of them")

    def head(self, heading: Content) -> None:
        """Replace the heading; the same one paints nothing."""
        if heading != self._heading:
            self._heading = heading
            self.query_one("#heading", Static).update(heading, layout=False)

    def open(self) -> None:
        self.add_class("-open")
        self.query_one(FilterField).focus()

    def clear(self) -> None:
        self.query_one(FilterField).action_leave(True)

    def on_input_changed(self, event: Input.Changed) -> None:
        event.stop()
        self.post_message(self.Changed(tuple(event.value.lower().split())))

    def on_input_submitted(self, event: Input.Submitted) -> None:
        event.stop()
        self.post_message(self.Left())

    def on_filter_line_left(self) -> None:
        self.set_class(bool(self.query_one(FilterField).value), "-open")
