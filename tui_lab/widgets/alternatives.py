"""What else could have stood at one place: tokens with their probabilities as bars, to choose from.

Knows nothing of models; the text must be safe to show.
"""

from __future__ import annotations

from rich.cells import cell_len, set_cell_size
from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.binding import Binding
from textual.message import Message
from textual.reactive import reactive
from textual.strip import Strip

from tui_lab.widgets.colouring import Coloured, Piece, level

NAME = 14  # cells for a token
SHARE = 7


def spelled(text: str) -> str:
    """A token on one line with its white space to be seen."""
    return text.replace(" ", "·").replace("\n", "↵").replace("\t", "⇥") or "⟨no text⟩"


def share(probability: float) -> str:
    """A probability in per cent, with more digits where it is small."""
    per_cent = probability * 100
    return f"{per_cent:.1f} %" if per_cent >= 0.1 else "<0.1 %"


def _bar(share_of_one: float, width: int) -> str:
    eighths = round(min(max(share_of_one, 0.0), 1.0) * width * 8)
    return "█" * (eighths // 8) + ("", *"▏▎▍▌▋▊▉")[eighths % 8]


class Alternatives(Coloured, can_focus=True):
    """The likeliest tokens at the cursor, the likeliest first, the chosen one marked among them.

    With the focus, up and down go through them and enter takes one.
    """

    ALLOW_SELECT = False
    DEFAULT_CSS = "Alternatives { height: 1fr; min-height: 3; }"
    EMPTY = ("walk the text with the arrow", "keys: here stands what else", "could have come")
    BINDINGS = [
        Binding("up,k", "mark(-1)", "up", show=False),
        Binding("down,j", "mark(1)", "down", show=False),
        Binding("enter,b", "take", "take it", show=False),
        Binding("escape,left", "leave", "back to the text", show=False),
    ]

    piece: reactive[Piece | None] = reactive(None)
    marked: reactive[int] = reactive(0)

    class Taken(Message):
        """`place` in the piece's alternatives; None: the piece's own token, not among them."""

        def __init__(self, view: Alternatives, place: int | None) -> None:
            super().__init__()
            self.view = view
            self.place = place

        @property
        def control(self) -> Alternatives:
            return self.view

    class Left(Message):
        """Nothing was taken."""

    def watch_piece(self) -> None:
        self.marked = 0

    def watch_has_focus(self, has_focus: bool) -> None:
        super().watch_has_focus(has_focus)
        self.refresh()

    def mark_other(self) -> None:
        """Mark the likeliest token that was not taken."""
        rows = self._rows(self.piece) if self.piece is not None else []
        self.marked = next((n for n, (mark, *_) in enumerate(rows) if not mark.strip()), 0)

    def action_mark(self, by: int) -> None:
        if self.piece is not None and self.piece.probability is not None:
            self.marked = min(max(self.marked + by, 0), len(self._rows(self.piece)) - 1)

    def action_take(self) -> None:
        if self.piece is not None and self.piece.probability is not None:
            listed = self.marked < len(self.piece.alternatives)
            self.post_message(self.Taken(self, self.marked if listed else None))

    def action_leave(self) -> None:
        self.post_message(self.Left())

    def on_click(self, event: events.Click) -> None:
        offset = event.get_content_offset(self)
        piece = self.piece
        if offset is None or piece is None or piece.probability is None:
            return
        if offset.y < len(self._rows(piece)):
            self.marked = offset.y

    def render_line(self, y: int) -> Strip:
        width, ground = self.size.width, self.rich_style
        segments = self._line(y, width)
        return Strip(segments).adjust_cell_length(width, ground)

    def _line(self, y: int, width: int) -> list[Segment]:
        styles = self.styles_by_level
        if self.piece is None or self.piece.probability is None:
            if y < len(self.EMPTY):
                return [Segment(f"  {self.EMPTY[y]}", styles["note"])]
            return []
        rows = self._rows(self.piece)
        if y >= len(rows):
            return []
        mark, text, probability = rows[y]
        style = styles[level(probability)]
        name = spelled(text)
        if cell_len(name) > NAME:
            name = set_cell_size(name, NAME - 1) + "…"
        head = f"{mark} {set_cell_size(name, NAME)}"
        bar = width - len(mark) - 1 - NAME - SHARE - 1
        if self.has_focus and y == self.marked:
            style += Style(reverse=True)
        segments = [
            Segment(head, style + Style(bold=True) if mark.strip() else style),
            Segment(f"{share(probability):>{SHARE}}", styles["heading"]),
        ]
        if bar >= 3:
            segments += [Segment(" ", style), Segment(_bar(probability, bar), style)]
        return segments

    @staticmethod
    def _rows(piece: Piece) -> list[tuple[str, str, float]]:
        assert piece.probability is not None
        rows, found = [], False
        for text, probability in piece.alternatives:
            chosen = not found and text == piece.text
            found = found or chosen
            rows.append(("▸" if chosen else " ", text, probability))
        if not found:
            rows.append(("▸", piece.text, piece.probability))
        return rows
