"""One token a word: the most frequent pieces of the corpus, and <unk> for all the others.

The splitting rule: a piece is a run of letters, digits, underscores and apostrophes inside a word,
or one other character; either may begin with a single space. Pieces joined give the text back, so
decoding is plain concatenation and restores spaces and punctuation as they were. Pieces outside the
vocabulary are lost: a leading space is kept as a token of its own, the rest becomes <unk>.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import numpy as np

from engine.errors import TokenizerError
from engine.tokenizers.base import END_OF_TEXT, Tokenizer, clean

UNKNOWN = "<unk>"
SPLIT = re.compile(r" ?\w+(?:['’]\w+)*| ?[^\w\s]|\s")
LEAST = 3  # a space, <unk> and the end of text
# A letter is the last of its piece when a space or a newline follows: safe to cut between the two.
_SAFE = re.compile(r"(?<=[A-Za-z])(?=[ \n])")


class WordTokenizer(Tokenizer):
    """Ids 0 … are pieces by falling frequency; the last two are <unk> and <|endoftext|>."""

    kind: ClassVar[str] = "word"

    def __init__(self, pieces: Sequence[str]) -> None:
        """`pieces`: distinct, not empty, none with a surrogate; a single space among them."""
        n = len(pieces)
        table = [piece.encode() for piece in pieces] + [b"", b""]
        super().__init__(table, {UNKNOWN: n, END_OF_TEXT: n + 1})
        self.pieces = tuple(pieces)
        self._ids = {piece: token for token, piece in enumerate(pieces)}

    @classmethod
    def train(cls, texts: Iterable[str], vocab_size: int) -> WordTokenizer:
        """The `vocab_size - 2` most frequent pieces; equal counts by code points.

        Fewer when the text has fewer. Raises TokenizerError: no text, or a size below 3.
        """
        if vocab_size < LEAST:
            raise TokenizerError(
                f"vocab_size = {vocab_size}: too small for words",
                f"at least {LEAST}: a space, {UNKNOWN} and {END_OF_TEXT}",
            )
        counts: Counter[str] = Counter()
        for text in texts:
            counts.update(SPLIT.findall(clean(text)))
        if not counts:
            raise TokenizerError("there is no text to take words from")
        del counts[" "]
        ranked = sorted(counts, key=lambda piece: (-counts[piece], piece))
        return cls([" ", *ranked[: vocab_size - LEAST]])

    @property
    def unk_id(self) -> int:
        return self.special_tokens[UNKNOWN]

    def encode_array(self, text: str) -> np.ndarray:
        pieces = SPLIT.findall(clean(text))
        ids = np.fromiter(
            (self._ids.get(piece, -1) for piece in pieces), dtype=np.int64, count=len(pieces)
        )
        unknown = ids < 0
        if unknown.any():
            ids = self._spell_unknown(pieces, ids, np.flatnonzero(unknown))
        return ids.astype(self.dtype)

    def _spell_unknown(
        self, pieces: Sequence[str], ids: np.ndarray, unknown: np.ndarray
    ) -> np.ndarray:
        """Puts <unk> where a piece is unknown, and the space that it began with before it."""
        ids[unknown] = self.unk_id
        spaced = [index for index in unknown.tolist() if pieces[index].startswith(" ")]
        return np.insert(ids, spaced, self._ids[" "])

    def shown_bytes(self, token: int) -> bytes:
        """As the protocol says, but <unk> is shown by name: a reader must see what was lost."""
        return UNKNOWN.encode() if token == self.unk_id else self.token_bytes(token)

    def safe_cut(self, text: str, position: int) -> int:
        return last_cut(_SAFE, text, position)

    def settings(self) -> dict[str, Any]:
        return {"pieces": list(self.pieces)}


def last_cut(pattern: re.Pattern[str], text: str, position: int) -> int:
    """The last place <= `position` where `pattern` matches emptily; 0 if none; ends are safe.

    Looks back in growing windows: a cut is near in most texts, and `re` cannot search backwards.
    """
    if position >= len(text):
        return len(text)
    reach = 256
    while position > 0:
        start = max(0, position - reach)
        cut = 0
        # Every pattern looks one character ahead, and `endpos` hides what lies behind it.
        for match in pattern.finditer(text, start, position + 1):
            if match.start() <= position:
                cut = match.start()
        if cut or start == 0:
            return cut
        reach *= 8
    return 0
