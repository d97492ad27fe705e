"""Stop strings: which tokens can be shown, and where the text ends.

Knows pieces of text; nothing of models.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from engine.generation.generate import GeneratedToken


class Held:
    """Tokens whose text may turn out to be the beginning of a stop string."""

    def __init__(self, stops: Sequence[str]) -> None:
        self.stops = tuple(stop for stop in stops if stop)
        self.stopped = False
        self._tokens: list[GeneratedToken] = []

    def push(self, token: GeneratedToken) -> list[GeneratedToken]:
        """What can be shown now that `token` has come, oldest first; the rest is held.

        When a stop string is complete, the token that it begins in is the last one, cut before it.
        """
        if not self.stops:
            return [token]
        self._tokens.append(token)
        text = "".join(token.text for token in self._tokens)
        found = [at for stop in self.stops if (at := text.find(stop)) >= 0]
        if found:
            self.stopped = True
            return self._cut(min(found))
        if self._tokens[-1].reason:
            safe = len(text)
        else:
            safe = len(text) - max((_overlap(text, stop) for stop in self.stops), default=0)
        released = []
        end = 0
        while self._tokens and (end := end + len(self._tokens[0].text)) <= safe:
            released.append(self._tokens.pop(0))
        return released

    def _cut(self, at: int) -> list[GeneratedToken]:
        shown: list[GeneratedToken] = []
        start = 0
        for token in self._tokens:
            if start + len(token.text) > at:
                return [*shown, token._replace(text=token.text[: at - start], reason="stop")]
            shown.append(token)
            start += len(token.text)
        raise AssertionError("a stop string lies within the held text")


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` that is a beginning of `stop`, the whole excluded."""
    for length in range(min(len(text), len(stop) - 1), 0, -1):
        if text.endswith(stop[:length]):
            return length
    return 0
