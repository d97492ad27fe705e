"""One of a few values, changed with left and right: a chooser as small as its text."""

from __future__ import annotations

from collections.abc import Sequence

from rich.cells import cell_len, set_cell_size
from textual.binding import Binding
from textual.events import Click
from textual.message import Message
from textual.reactive import reactive
from textual.strip import Strip

from engine.text import visible
from tui_lab.widgets.lines import LineView


class Cycle(LineView, can_focus=True):
    """Shows `‹ value ›`; says `Changed` when another one is chosen."""

    DEFAULT_CSS = """
    Cycle { height: 1; width: 1fr; background: $surface; }
    Cycle:focus { background: $primary 25%; text-style: bold; }
    """
    BINDINGS = [
        Binding("left,minus", "turn(-1)", "previous", show=False),
        Binding("right,space,plus", "turn(1)", "next", show=False),
        Binding("home", "turn(-1000000)", "first", show=False),
        Binding("end", "turn(1000000)", "last", show=False),
    ]

    value: reactive[str] = reactive("", init=False)

    class Changed(Message):
        def __init__(self, cycle: Cycle, value: str) -> None:
            super().__init__()
            self.cycle = cycle
            self.value = value

        @property
        def control(self) -> Cycle:
            return self.cycle

    def __init__(
        self, options: Sequence[str], value: str, *, unicode: bool = True, id: str | None = None
    ) -> None:
        super().__init__(id=id)
        self.options = list(options)
        self.arrows = ("‹ ", " ›") if unicode else ("< ", " >")
        if value not in self.options:
            self.options.insert(0, value)
        self.set_reactive(Cycle.value, value)

    def build(self, width: int, height: int) -> list[Strip]:
        left, right = self.arrows
        part = "bright" if self.has_focus else "text"
        text = visible(self.value, lines=False, most=width)
        room = max(0, width - 4)
        if cell_len(text) > room:  # cut to its own width, a lone accent would go
            text = set_cell_size(text, room)
        line = self.strip((left, "muted"), (text, part), (right, "muted"))
        return [line.apply_style(self._background())]

    def watch_value(self, value: str) -> None:
        self.redraw()
        self.post_message(self.Changed(self, value))

    def action_turn(self, by: int) -> None:
        """The option `by` places on; single steps go round, long ones stop at the ends."""
        at = self.options.index(self.value) + by
        last = len(self.options) - 1
        self.value = self.options[at % len(self.options) if abs(by) == 1 else min(max(at, 0), last)]

    def on_click(self, event: Click) -> None:
        self.focus()
        self.action_turn(-1 if event.x < 3 else 1)
