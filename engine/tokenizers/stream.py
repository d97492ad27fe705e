"""Text from a stream of tokens, one whole character at a time."""

from __future__ import annotations

import codecs

from engine.tokenizers.base import Tokenizer


class StreamDecoder:
    """All that `push` and the final `flush` return, joined, equals `decode_continuation` of them.

    A token may end inside a multi-byte character; its bytes wait here for the rest.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, token: int) -> str:
        """The text that `token` completes, often "" inside a character. Raises TokenizerError."""
        return self._decoder.decode(self._tokenizer.shown_bytes(token))

    def flush(self) -> str:
        """What still waits (U+FFFD for a broken character); the decoder is as new afterwards."""
        rest = self._decoder.decode(b"", final=True)
        self._decoder.reset()
        return rest
