"""A text field for prompts: enter sends, shift+enter breaks the line, up and down recall.

Keeps the history it is given; knows nothing of who answers. Its text is what it shows: whatever is
pasted or remembered is made visible as it enters, so that the cursor stands where it seems to.
"""

from __future__ import annotations

from textual import events
from textual.binding import Binding
from textual.message import Message
from textual.widgets import TextArea
from textual.widgets.text_area import Edit, EditResult

from engine.text import visible

KEPT = 100
"""Prompts remembered."""
LONGEST = 200_000
"""Characters of a text that is pasted or recalled: far beyond any context, and laid out at once."""


class PromptArea(TextArea):
    """Grows with its text up to its greatest height. `Submitted` carries the text as it stands."""

    DEFAULT_CSS = """
    PromptArea {
        height: auto;
        min-height: 1;
        max-height: 6;
        border: none;
        padding: 0;
        background: transparent;
        &:focus { border: none; background-tint: transparent 0%; }
    }
    """
    BINDINGS = [
        Binding("shift+enter,ctrl+j,alt+enter", "newline", "new line", show=False),
        Binding("up", "older", "earlier prompt", show=False),
        Binding("down", "newer", "later prompt", show=False),
    ]

    class Submitted(Message):
        def __init__(self, area: PromptArea, text: str) -> None:
            super().__init__()
            self.area = area
            self.text = text

        @property
        def control(self) -> PromptArea:
            return self.area

    def __init__(self, text: str = "", *, placeholder: str = "", id: str | None = None) -> None:
        super().__init__(
            visible(text)[:LONGEST],
            id=id,
            placeholder=placeholder,
            soft_wrap=True,
            tab_behavior="focus",
            show_line_numbers=False,
            highlight_cursor_line=False,
            compact=True,
        )
        self.prompts: list[str] = []
        self._back = 0  # how far back in the history; 0: what is being written
        self._draft = ""

    def load_text(self, text: str) -> None:
        super().load_text(visible(text)[:LONGEST])

    def edit(self, edit: Edit) -> EditResult:
        edit.text = visible(edit.text)[:LONGEST]
        return super().edit(edit)

    async def _on_key(self, event: events.Key) -> None:
        if event.key == "enter":
            event.stop()
            event.prevent_default()
            self.post_message(self.Submitted(self, self.text))
            return
        await super()._on_key(event)

    def remember(self, text: str) -> None:
        """Put a prompt at the end of the history, once."""
        if text.strip():
            others = [old for old in self.prompts if old != text]
            self.prompts = [*others[-(KEPT - 1) :], text]
        self._back = 0

    def action_newline(self) -> None:
        self.insert("\n")

    def action_older(self) -> None:
        if self.cursor_location[0] == 0 and self._back < len(self.prompts):
            self._recall(self._back + 1)
        else:
            self.action_cursor_up()

    def action_newer(self) -> None:
        if self.cursor_location[0] == self.document.line_count - 1 and self._back > 0:
            self._recall(self._back - 1)
        else:
            self.action_cursor_down()

    def _recall(self, place: int) -> None:
        if self._back == 0:
            self._draft = self.text
        self._back = place
        self.text = self._draft if place == 0 else self.prompts[-place]
        self.move_cursor(self.document.end)
