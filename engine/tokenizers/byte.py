"""The tokenizer that needs no vocabulary: one token a byte of UTF-8, and end of text."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from engine.tokenizers.base import END_OF_TEXT, Tokenizer, clean


class ByteTokenizer(Tokenizer):
    """Ids 0 to 255 are the byte values, 256 is the end of text."""

    kind: ClassVar[str] = "bytes"

    def __init__(self) -> None:
        super().__init__([bytes([value]) for value in range(256)] + [b""], {END_OF_TEXT: 256})

    def encode_array(self, text: str) -> np.ndarray:
        return np.frombuffer(clean(text).encode(), dtype=np.uint8).astype(self.dtype)

    def settings(self) -> dict[str, Any]:
        return {}
