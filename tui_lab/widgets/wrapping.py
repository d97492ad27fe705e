"""Text that only grows, wrapped into lines as it comes, and the pieces that it came in.

Adding a character costs the same whether the text is short or long: only the open line is ever
reconsidered. Plain data; knows nothing of Textual's widgets.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right

from rich.cells import cell_len

TAB = "    "


class WrappedText:
    """Pieces of text and the lines of `width` cells that they fill, words kept whole if possible.

    A line is a pair of character positions; newlines belong to no line.
    """

    def __init__(self, width: int = 80) -> None:
        self.width = max(width, 1)
        self.text: list[str] = []  # characters
        self.owner = array("L")  # of each character: its piece
        self.starts = array("L")  # of each piece: its first character
        self.lines: list[tuple[int, int]] = []  # the closed ones
        self._reset_open(0)

    def __len__(self) -> int:
        """Lines, the open one included."""
        return len(self.lines) + 1

    def line(self, index: int) -> tuple[int, int]:
        if index < len(self.lines):
            return self.lines[index]
        return self._start, len(self.text)

    def add(self, text: str) -> int:
        """Append a piece; returns its number."""
        piece = len(self.starts)
        self.starts.append(len(self.text))
        for character in text.replace("\t", TAB):
            self.text.append(character)
            self.owner.append(piece)
            self._place(len(self.text) - 1)
        return piece

    def rewrap(self, width: int) -> None:
        """Lay everything out again for another width."""
        self.width = max(width, 1)
        self.lines.clear()
        self._reset_open(0)
        for position in range(len(self.text)):
            self._place(position)

    def span(self, piece: int) -> tuple[int, int]:
        """The characters of a piece."""
        start = self.starts[piece]
        end = self.starts[piece + 1] if piece + 1 < len(self.starts) else len(self.text)
        return start, end

    def line_of(self, position: int) -> int:
        """The line on which a character stands."""
        if position >= self._start:
            return len(self.lines)
        return max(bisect_right(self.lines, (position, len(self.text) + 1)) - 1, 0)

    def piece_at(self, line: int, cell: int) -> int | None:
        """The piece at a cell of a line; past its end the last one; None on an empty line."""
        start, end = self.line(line)
        if start >= end:
            return None
        used = 0
        for position in range(start, end):
            used += _cells(self.text[position])
            if cell < used:
                return self.owner[position]
        return self.owner[end - 1]

    def cell_of(self, position: int) -> int:
        """The cell of its line at which a character begins."""
        start, _ = self.line(self.line_of(position))
        return sum(_cells(self.text[at]) for at in range(start, position))

    def _reset_open(self, start: int) -> None:
        self._start = start
        self._used = 0  # cells of the open line
        self._break = -1  # the position after its last space, -1: none
        self._break_used = 0  # the cells up to there

    def _place(self, position: int) -> None:
        character = self.text[position]
        if character == "\n":
            self.lines.append((self._start, position))
            self._reset_open(position + 1)
            return
        cells = _cells(character)
        # Twice at most: the word that moved down may itself leave no room for a wide character.
        while self._used + cells > self.width and position > self._start:
            if character == " ":  # hangs over the edge rather than open the next line
                self.lines.append((self._start, position + 1))
                self._reset_open(position + 1)
                return
            self._close(position)
        self._used += cells
        if character == " ":
            self._break, self._break_used = position + 1, self._used

    def _close(self, position: int) -> None:
        if self._break <= self._start:
            cut, kept = position, 0
        else:
            cut, kept = self._break, self._used - self._break_used
        self.lines.append((self._start, cut))
        self._reset_open(cut)
        self._used = kept


def _cells(character: str) -> int:
    return 1 if " " <= character < "\x7f" else cell_len(character)
