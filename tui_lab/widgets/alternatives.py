"""What else could have stood at one place: tokens with their probabilities as bars.

Knows nothing of models; the text must be safe to show.
"""

from __future__ import annotations

from rich.cells import cell_len, set_cell_size
from rich.segment import Segment
from rich.style import Style
from textual.reactive import reactive
from textual.strip import Strip

from tui_lab.widgets.token_text import Coloured, Piece, level

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


class Alternatives(Coloured):
    """The token under the cursor first, then the likeliest, the chosen one marked among them."""

    DEFAULT_CSS = "Alternatives { height: 1fr; min-height: 3; }"
    EMPTY = ("walk the text with the arrow", "keys: here stands what else", "could have come")

    piece: reactive[Piece | None] = reactive(None)

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
