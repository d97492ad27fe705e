"""Streamed text coloured token by token, with a cursor that walks the tokens.

Only the visible lines are drawn and only new text is laid out, so a text of many thousand tokens
costs no more to extend than a short one. Knows nothing of models; the text must be safe to show.
"""

from __future__ import annotations

from collections.abc import Iterable

from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.binding import Binding
from textual.geometry import Region, Size
from textual.message import Message
from textual.reactive import reactive
from textual.scroll_view import ScrollView
from textual.strip import Strip

from tui_lab.widgets.colouring import Coloured, Piece
from tui_lab.widgets.wrapping import WrappedText


class TokenText(Coloured, ScrollView, can_focus=True):
    """Append pieces; they are wrapped, coloured, and followed while the end is in view."""

    ALLOW_SELECT = False
    DEFAULT_CSS = """
    TokenText {
        scrollbar-size-vertical: 1;
        scrollbar-background: $background;
        scrollbar-background-hover: $background;
        scrollbar-background-active: $background;
        scrollbar-color: $foreground 25%;
        scrollbar-color-hover: $foreground 50%;
        scrollbar-color-active: $primary;
        scrollbar-gutter: stable;
        overflow-x: hidden;
        overflow-y: auto;
    }
    """
    BINDINGS = [
        Binding("left,h", "move(-1)", "previous token", show=False),
        Binding("right,l", "move(1)", "next token", show=False),
        Binding("up,k", "move_line(-1)", "line up", show=False),
        Binding("down,j", "move_line(1)", "line down", show=False),
        Binding("home", "first", "first token", show=False),
        Binding("end", "last", "last token", show=False),
    ]

    cursor: reactive[int | None] = reactive(None, repaint=False, init=False)

    class CursorMoved(Message):
        """`piece` is the number of the piece under the cursor."""

        def __init__(self, view: TokenText, piece: int | None) -> None:
            super().__init__()
            self.view = view
            self.piece = piece

        @property
        def control(self) -> TokenText:
            return self.view

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.pieces: list[Piece] = []
        self.wrapped = WrappedText()
        self._follow = True

    # Text in

    def append(self, pieces: Iterable[Piece]) -> None:
        """Add pieces at the end. One call a tick, not one a token."""
        first = len(self.wrapped) - 1
        for piece in pieces:
            self.pieces.append(piece)
            self.wrapped.add(piece.text)
        self._grown(first)

    def replace(self, number: int, piece: Piece) -> None:
        """Put another piece of the same text in the place of one."""
        self.pieces[number] = piece

    def clear(self) -> None:
        self.pieces.clear()
        self.wrapped = WrappedText(self.wrapped.width)
        self.cursor = None
        self._follow = True
        self._grown(0)
        self.refresh()

    def follow(self) -> None:
        """Show the end, and keep showing it while text comes."""
        self._follow = True
        self.scroll_end(animate=False, immediate=True, force=True)

    def _grown(self, first: int) -> None:
        size = Size(self.wrapped.width, len(self.wrapped))
        if size != self.virtual_size:
            self.virtual_size = size
            if self._follow:
                self.scroll_end(animate=False, immediate=True, force=True)
        self.refresh_lines(first, len(self.wrapped) - first)

    def watch_scroll_y(self, old: float, new: float) -> None:
        super().watch_scroll_y(old, new)
        self._follow = new >= self.max_scroll_y

    def on_resize(self, event: events.Resize) -> None:
        width = self.scrollable_content_region.width
        if width > 0 and width != self.wrapped.width:
            follow = self._follow
            self.wrapped.rewrap(width)
            self._follow = follow
            self._grown(0)
            self.refresh()

    # Drawing

    def render_line(self, y: int) -> Strip:
        width = self.scrollable_content_region.width
        line = y + self.scroll_offset.y
        ground = self.rich_style
        if line >= len(self.wrapped):
            return Strip.blank(width, ground)
        start, end = self.wrapped.line(line)
        owner, text, styles = self.wrapped.owner, self.wrapped.text, self.styles_by_level
        segments = []
        position = start
        while position < end:
            number = owner[position]
            stop = position + 1
            while stop < end and owner[stop] == number:
                stop += 1
            piece = self.pieces[number]
            style = styles[self.measure.style_of(piece)]
            if number == self.cursor:
                style += Style(reverse=True)
            segments.append(Segment("".join(text[position:stop]), style))
            position = stop
        if self.cursor is not None and self._is_newline(self.cursor, line, end):
            # A token of newlines alone has no cell of its own: the cursor stands at the line's end.
            segments.append(Segment("↵", ground + Style(reverse=True)))
        return Strip(segments).adjust_cell_length(width, ground)

    def _is_newline(self, piece: int, line: int, end: int) -> bool:
        first, stop = self.wrapped.span(piece)
        return (
            first == end
            and first < stop
            and self.wrapped.text[first] == "\n"
            and self.wrapped.line_of(first) == line
        )

    # The cursor

    def watch_cursor(self, old: int | None, new: int | None) -> None:
        for piece in (old, new):
            if piece is not None and piece < len(self.pieces):
                first, last = self._lines_of(piece)
                self.refresh_lines(first, last - first + 1)
        if new is not None:
            first, last = self._lines_of(new)
            self.scroll_to_region(
                Region(0, first, 1, last - first + 1), animate=False, immediate=True, force=True
            )
        self.post_message(self.CursorMoved(self, new))

    def _lines_of(self, piece: int) -> tuple[int, int]:
        first, end = self.wrapped.span(piece)
        return self.wrapped.line_of(first), self.wrapped.line_of(max(end - 1, first))

    def _is_stop(self, piece: int) -> bool:
        return self.pieces[piece].probability is not None and self.pieces[piece].text != ""

    def _seek(self, start: int, direction: int) -> int | None:
        """The first token at `start` or beyond it in a direction."""
        piece = start
        while 0 <= piece < len(self.pieces):
            if self._is_stop(piece):
                return piece
            piece += direction
        return None

    def action_move(self, direction: int) -> None:
        if self.cursor is None:
            self.action_last()
            return
        found = self._seek(self.cursor + direction, direction)
        if found is not None:
            self.cursor = found

    def action_move_line(self, direction: int) -> None:
        if self.cursor is None:
            self.action_last()
            return
        position = self.wrapped.span(self.cursor)[0]
        cell, line = self.wrapped.cell_of(position), self.wrapped.line_of(position)
        line += direction
        while 0 <= line < len(self.wrapped):
            found = self._nearest(line, cell)
            if found is not None and found != self.cursor:
                self.cursor = found
                return
            line += direction

    def _nearest(self, line: int, cell: int) -> int | None:
        """The token on a line that stands nearest to a cell."""
        start, end = self.wrapped.line(line)
        wanted = self.wrapped.piece_at(line, cell)
        if wanted is None:
            return None
        owner = self.wrapped.owner
        tokens = filter(self._is_stop, range(owner[start], owner[end - 1] + 1))
        return min(tokens, key=lambda piece: abs(piece - wanted), default=None)

    def go_to(self, piece: int) -> None:
        """The cursor to the first token from `piece` on."""
        found = self._seek(piece, 1)
        if found is not None:
            self.cursor = found

    def action_first(self) -> None:
        self.cursor = self._seek(0, 1)

    def action_last(self) -> None:
        self.cursor = self._seek(len(self.pieces) - 1, -1)
        self.follow()

    def on_click(self, event: events.Click) -> None:
        offset = event.get_content_offset(self)
        if offset is None:
            return
        line = offset.y + self.scroll_offset.y
        if line < len(self.wrapped):
            piece = self.wrapped.piece_at(line, offset.x)
            if piece is not None and self._is_stop(piece):
                self.cursor = piece
