"""One token a character: the vocabulary is every character of the corpus, in code point order.

There is no unknown token: a text with a character that the corpus lacks is refused by name.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from typing import Any, ClassVar

import numpy as np

from engine.errors import TokenizerError
from engine.text import visible
from engine.tokenizers.base import Tokenizer, clean


class CharTokenizer(Tokenizer):
    """Ids count the characters by code point. No special tokens, so `eot_id` is None."""

    kind: ClassVar[str] = "char"

    def __init__(self, characters: str) -> None:
        """`characters`: distinct, none a surrogate, in any order (their order gives the ids)."""
        super().__init__([character.encode() for character in characters], {})
        self.characters = characters
        # A table by code point turns encoding into one indexed gather. -1: not in the vocabulary.
        codes = _code_points(characters)
        self._ids = np.full(int(codes.max()) + 1, -1, dtype=np.int32)
        self._ids[codes] = np.arange(len(characters), dtype=np.int32)

    @classmethod
    def train(cls, texts: Iterable[str]) -> CharTokenizer:
        """The vocabulary of `texts`. Raises TokenizerError when there is no text."""
        characters: set[str] = set()
        for text in texts:
            characters.update(clean(text))
        if not characters:
            raise TokenizerError("there is no text to take characters from")
        return cls("".join(sorted(characters)))

    def encode_array(self, text: str) -> np.ndarray:
        """As the protocol says. Raises TokenizerError naming the first unknown character."""
        codes = _code_points(clean(text))
        ids = self._ids[np.minimum(codes, len(self._ids) - 1)]
        unknown = (ids < 0) | (codes >= len(self._ids))
        if unknown.any():
            raise self._unknown(chr(codes[unknown.argmax()]))
        return ids.astype(self.dtype)

    def _unknown(self, character: str) -> TokenizerError:
        name = unicodedata.name(character, "a control character")
        known = visible(self.characters, lines=False)
        shown = known if len(known) <= 120 else f"{known[:120]}…"
        return TokenizerError(
            f"character '{visible(character, lines=False)}' (U+{ord(character):04X}, "
            f"{name.lower()}) is not in this tokenizer's vocabulary",
            f"it knows the {self.vocab_size} characters of its corpus: {shown}",
        )

    def settings(self) -> dict[str, Any]:
        return {"characters": self.characters}


def _code_points(text: str) -> np.ndarray:
    return np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32)
