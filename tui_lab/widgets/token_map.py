"""Text cut into tokens, as the model sees it: every boundary shows, with or without colour.

Neighbouring tokens alternate in background and underline; without colour a bar stands between
them, as it does where there are but 16. It is given the bytes of each token and knows no tokenizer.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from rich.cells import cell_len
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

LONGEST = 1000
"""Characters of a token that are shown: a vocabulary from outside may hold any."""
CURSOR = Style(reverse=True, bold=True)


@dataclass(frozen=True)
class TokenPiece:
    """One token: its id and what it spells; a special one spells nothing and has a `label`."""

    token: int
    data: bytes
    label: str = "end of text"

    @property
    def text(self) -> str:
        """What is drawn: text where the bytes are text, hex where they are part of a character."""
        if not self.data:
            return f"⟨{visible(self.label, lines=False, most=LONGEST)}⟩"
        try:
            text = self.data.decode()
        except UnicodeDecodeError:
            return f"⟨{self.data[:LONGEST].hex(' ')}⟩"
        return visible(text.replace("\t", "→   "), most=LONGEST).replace("\n", "⏎\n")


@dataclass(frozen=True)
class Part:
    """The part of token number `index` that stands on one line; -1 is a bar between tokens."""

    index: int
    text: str


def lay_out(pieces: Sequence[TokenPiece], width: int, bar: str = "") -> list[list[Part]]:
    """Lines of at most `width` cells; a token that does not fit goes on in the next line."""
    lines: list[list[Part]] = [[]]
    used = 0
    for index, piece in enumerate(pieces):
        if bar and lines[-1]:
            if used + 1 > width:
                lines.append([])
                used = 0
            lines[-1].append(Part(-1, bar))
            used += 1
        for at, row in enumerate(piece.text.split("\n")):
            if at:
                lines.append([])
                used = 0
            for chunk in _chunks(row, width, used):
                wide = cell_len(chunk)
                if used + wide > width:
                    lines.append([])
                    used = 0
                lines[-1].append(Part(index, chunk))
                used += wide
    return lines


def _chunks(text: str, width: int, used: int) -> Iterable[str]:
    chunk, room = "", width - used
    for character in text:
        wide = cell_len(character)
        if wide > room:
            if chunk:
                yield chunk
            chunk, room = "", width
        chunk += character
        room -= wide
    if chunk:
        yield chunk


class TokenMap(ScrollView, can_focus=True):
    """Tokens in lines, with a cursor that walks from one to the next."""

    ALLOW_SELECT = False
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("left,h", "step(-1)", show=False),
        Binding("right,l", "step(1)", show=False),
        Binding("up,k", "line(-1)", show=False),
        Binding("down,j", "line(1)", show=False),
        Binding("pageup", "turn(-1)", show=False),
        Binding("pagedown,space", "turn(1)", show=False),
        Binding("home", "to(0)", show=False),
        Binding("end", "to(-1)", show=False),
    ]
    COMPONENT_CLASSES: ClassVar[set[str]] = {
        "token-map--even",
        "token-map--odd",
        "token-map--bar",
    }
    DEFAULT_CSS = """
    TokenMap {
        background: transparent;
        overflow-x: hidden;
        scrollbar-size-vertical: 1;
        & > .token-map--even { background: $primary 24%; }
        & > .token-map--odd { text-style: underline; }
        & > .token-map--bar { color: $text-muted; }
    }
    """

    cursor: reactive[int] = reactive(0, repaint=False)

    class Moved(Message):
        """The cursor stands on another token (`piece` None: there is none)."""

        def __init__(self, index: int, piece: TokenPiece | None) -> None:
            super().__init__()
            self.index, self.piece = index, piece

    class Turned(Message):
        """A key asked for text beyond the end (`by` 1) or before the beginning (-1)."""

        def __init__(self, by: int) -> None:
            super().__init__()
            self.by = by

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.pieces: list[TokenPiece] = []
        self._lines: list[list[Part]] = []
        self._line_of: dict[int, int] = {}

    def show_pieces(self, pieces: Sequence[TokenPiece]) -> None:
        """Show these tokens from the first one on."""
        self.pieces = list(pieces)
        self.set_reactive(TokenMap.cursor, 0)
        self._arrange()
        self.scroll_to(y=0, animate=False)
        self._tell()

    def _arrange(self) -> None:
        few = self.app.no_color or self.app.console.color_system in (None, "standard")
        bar = "|" if few else ""
        self._lines = lay_out(self.pieces, max(8, self.size.width - 1), bar)
        self._line_of = {}
        for number, line in enumerate(self._lines):
            for part in line:
                self._line_of.setdefault(part.index, number)
        self.virtual_size = Size(self.size.width, len(self._lines))
        self.refresh()

    def on_resize(self, event: events.Resize) -> None:
        self._arrange()

    def validate_cursor(self, value: int) -> int:
        return max(0, min(value, len(self.pieces) - 1))

    def watch_cursor(self, old: int, new: int) -> None:
        for index in (old, new):
            number = self._line_of.get(index)
            if number is not None and index < len(self.pieces):
                wrapped = cell_len(self.pieces[index].text) // max(1, self.size.width - 1)
                height = 2 + self.pieces[index].text.count("\n") + wrapped
                top = max(0, number - round(self.scroll_y))
                self.refresh(Region(0, top, self.size.width, height))
        number, top = self._line_of.get(new, 0), round(self.scroll_y)
        if number < top:
            self.scroll_to(y=number, animate=False)
        elif number >= top + self.size.height:
            self.scroll_to(y=number - self.size.height + 1, animate=False)
        self._tell()

    def _tell(self) -> None:
        piece = self.pieces[self.cursor] if self.cursor < len(self.pieces) else None
        self.post_message(self.Moved(self.cursor, piece))

    def on_focus(self) -> None:
        self.refresh()

    def on_blur(self) -> None:
        self.refresh()

    def render_line(self, y: int) -> Strip:
        base, width = self.rich_style, self.size.width
        number = y + round(self.scroll_y)
        if number >= len(self._lines):
            return Strip.blank(width, base)
        even, odd, bar = (
            self.get_component_rich_style(f"token-map--{name}") for name in ("even", "odd", "bar")
        )
        segments = []
        for part in self._lines[number]:
            style = base + (bar if part.index < 0 else odd if part.index % 2 else even)
            if part.index == self.cursor and self.has_focus:
                style += CURSOR
            segments.append(Segment(plain(part.text, self.app), style))
        return Strip(segments).adjust_cell_length(width, base)

    def action_step(self, by: int) -> None:
        if not 0 <= self.cursor + by < len(self.pieces):
            self.post_message(self.Turned(by))
        self.cursor += by

    def action_line(self, by: int) -> None:
        number = self._line_of.get(self.cursor, 0) + by
        while 0 <= number < len(self._lines):
            starts = self._starting(number)
            if starts:
                self.cursor = starts[0]
                return
            number += by
        self.post_message(self.Turned(by))

    def _starting(self, number: int) -> list[int]:
        """The tokens that begin on this line."""
        here = [part.index for part in self._lines[number] if part.index >= 0]
        return [index for index in here if self._line_of[index] == number]

    def action_turn(self, by: int) -> None:
        """A screenful on; beyond the end, the screen is asked for more text."""
        at = round(self.scroll_y)
        if (at >= self.max_scroll_y) if by > 0 else (at <= 0):
            self.post_message(self.Turned(by))
            return
        number = max(0, min(at + by * (self.size.height - 1), len(self._lines) - 1))
        self.scroll_to(y=number, animate=False)
        starts = self._starting(number)
        if starts:
            self.cursor = starts[0]

    def action_to(self, index: int) -> None:
        self.cursor = index if index >= 0 else len(self.pieces) - 1

    def on_click(self, event: events.Click) -> None:
        number, start = event.y + round(self.scroll_y), 0
        for part in self._lines[number] if number < len(self._lines) else ():
            start += cell_len(part.text)
            if event.x < start:
                if part.index >= 0:
                    self.cursor = part.index
                return
