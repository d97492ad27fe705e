"""The console's transcript: generation after generation in one coloured text."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable

from engine.text import visible
from tui_lab.generation_thread import Token
from tui_lab.generations import Generation
from tui_lab.widgets.colouring import Piece
from tui_lab.widgets.token_text import TokenText

KEPT = 50_000
"""Pieces kept: the older half of the generations is dropped when the text grows beyond."""

LONGEST = 20_000
"""Characters of a prompt, and of one token of a vocabulary from outside, that are shown."""


BEFORE = 2
"""Pieces of a generation before its first token: the heading and the prompt."""


class Transcript(TokenText):
    """Knows which of its pieces belong to which generation."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.generations: list[Generation] = []

    def begin(self, generation: Generation) -> None:
        """Write the heading and the prompt."""
        if len(self.pieces) > KEPT:
            self._drop_half()
        generation.first_piece = len(self.pieces)
        self.generations.append(generation)
        gap = "\n" if self.pieces else ""
        heading = gap + visible(generation.heading(), lines=False)
        self.append(
            [
                Piece(f"{heading}\n", role="heading"),
                Piece(visible(generation.prompt, most=LONGEST), role="prompt"),
            ]
        )
        self.add(generation.shared)
        self.follow()

    def add(self, tokens: Iterable[Token]) -> None:
        self.append(
            Piece(
                visible(token.text, most=LONGEST),
                token.probability,
                tuple((visible(text, most=LONGEST), share) for text, share in token.alternatives),
                entropy=token.entropy,
            )
            for token in tokens
        )

    def judge(self, generation: Generation) -> None:
        """Show what the other model makes of each of its tokens."""
        if generation not in self.generations:
            return  # dropped meanwhile
        first = generation.first_piece + BEFORE
        for number, other in enumerate(generation.others, first):
            self.replace(number, self.pieces[number]._replace(other=other))
        self.refresh()

    def token_at_cursor(self) -> tuple[Generation, int] | None:
        """The generation at the cursor, and the number of the token in its sequence."""
        generation = self.chosen()
        if generation is None or self.cursor is None:
            return None
        return generation, self.cursor - generation.first_piece - BEFORE

    def go_to_token(self, generation: Generation, at: int) -> None:
        """The cursor to a token of a generation, or the next one that has text."""
        self.go_to(generation.first_piece + BEFORE + at)

    def end(self, generation: Generation) -> None:
        """Write how it ended."""
        words = f"failed: {generation.error}" if generation.error else generation.ending()
        line = "" if generation.whole.endswith("\n") or not generation.whole else "\n"
        self.append([Piece(f"{line}{visible(words, lines=False, most=LONGEST)}\n", role="note")])

    def chosen(self) -> Generation | None:
        """The generation at the cursor, or the last one; None when there is none."""
        if self.cursor is None or not self.generations:
            return self.generations[-1] if self.generations else None
        starts = [generation.first_piece for generation in self.generations]
        return self.generations[max(bisect_right(starts, self.cursor) - 1, 0)]

    def go_to_other(self, direction: int) -> None:
        """The cursor to the first token of the generation before (-1) or after (1)."""
        chosen = self.chosen()
        if chosen is not None:
            place = self.generations.index(chosen)
            if self.cursor is not None:
                place = min(max(place + direction, 0), len(self.generations) - 1)
            self.go_to(self.generations[place].first_piece)

    def forget(self) -> None:
        self.generations.clear()
        self.clear()

    def _drop_half(self) -> None:
        while self.generations and self.generations[0].first_piece < len(self.pieces) // 2:
            self.generations.pop(0)
        first = self.generations[0].first_piece if self.generations else len(self.pieces)
        kept = self.pieces[first:]
        for generation in self.generations:
            generation.first_piece -= first
        self.clear()
        self.append(kept)
