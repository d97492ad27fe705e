"""The ways to the terminal that Textual keeps: notifications, crash reports, the lines it draws.

Each widget makes visible what it is told, because only it knows how much room there is. Textual's
own (the command palette's field, a widget of tomorrow) are told nothing of that: so every line
passes a sieve once more before it is drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.cells import cell_len, get_character_cell_size
from rich.console import Console
from rich.segment import Segment
from textual.color import Color
from textual.filter import LineFilter
from textual.strip import Strip

from engine.text import UNSHOWABLE, is_safe, visible
from tui_lab.stderr import VisibleStderr

if TYPE_CHECKING:
    from engine.errors import EngineError
    from tui_lab.app import LabApp

LONGEST = 600
"""Characters of a notification: it stands for seconds, in a corner of the screen."""


class Sieve(LineFilter):
    """Replaces what a terminal would obey, and keeps each line's width as it was counted.

    `caught`: lines in which there was something. A widget that makes its text visible, as each of
    ours must, leaves nothing to catch.
    """

    def __init__(self) -> None:
        super().__init__()
        self.caught = 0

    def apply(self, segments: list[Segment], background: Color) -> list[Segment]:
        if all(is_safe(segment.text) for segment in segments):
            return segments
        self.caught += 1
        width = sum(cell_len(segment.text) for segment in segments)
        mended = [Segment(_sieved(text), style) for text, style, _ in segments]
        return list(Strip(mended).adjust_cell_length(width))


def _sieved(text: str) -> str:
    if is_safe(text):
        return text
    return "".join(
        character
        if is_safe(character)
        else UNSHOWABLE * get_character_cell_size(character)  # nothing for most: they had no width
        for character in text
    )


class Sinks:
    """A mixin of `LabApp`; stands before Textual's App in the order of classes."""

    def __init__(self, **told: Any) -> None:
        super().__init__(**told)
        self.sieve = Sieve()
        # What Textual prints when it panics: the exception's words are anybody's.
        self.error_console = Console(
            file=VisibleStderr(),  # type: ignore[arg-type]
            markup=False,
            highlight=False,
            color_system=None,
        )

    def get_line_filters(self: LabApp) -> Sequence[LineFilter]:
        """Textual asks for these for each widget that it draws."""
        return [*super().get_line_filters(), self.sieve]  # type: ignore[misc]

    def show_error(self: LabApp, error: EngineError) -> None:
        """An engine's refusal, in its own words; the app goes on."""
        self.notify_safe(error.hint, title=error.title, severity="error")

    def notify_safe(
        self: LabApp, text: str, *, title: str = "", severity: str = "information"
    ) -> None:
        """A notification of text from anywhere: made visible, never read as markup."""
        self.notify(
            visible(text, most=LONGEST),
            title=visible(title, lines=False, most=LONGEST),
            severity=severity,  # type: ignore[arg-type]
            timeout=8 if severity == "error" else 4,
            markup=False,
        )
