"""A vocabulary as llama.cpp's metadata has it, and the name of the rule that cuts its text.

A GGUF file cannot hold a pattern: it names one of those that are compiled into llama.cpp
(`tokenizer.ggml.pre`). So a vocabulary can be exported when one of them gives the same token ids
for every text: because the pattern is the same, or because the places where they differ are places
that no token of the vocabulary reaches across. No torch, no gguf.
"""

from __future__ import annotations

import functools
import sys
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass

from engine.errors import TokenizerError
from engine.exchange.vocabulary import BpeVocabulary, TokenType
from engine.tokenizers.alphabet import unspell
from engine.tokenizers.split import GPT2, GPT4, QWEN2

_ENGLISH = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
PUBLISHED = {
    GPT2.pattern: "gpt-2",
    QWEN2.pattern: "qwen2",
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+": "gpt-2",
    rf"{_ENGLISH}\p{{N}}{{1,3}}{_REST}": "llama-bpe",
    rf"{_ENGLISH}\p{{N}}{_REST}": "qwen2",
}
"""llama.cpp's names of the patterns of published tokenizers, as close as it has them: it normalises
no text (Qwen's tokenizers do), and folds the case of 'S in ASCII alone."""
NEAREST = "qwen2"
"""The rule that differs the least from our own `gpt4-2digits`."""
NEVER = "\u0120\u0120\u0120 \u0120\u0120\u0120"
"""A merge of two tokens that no merge makes: llama.cpp reads no file without merges."""


@dataclass(frozen=True)
class _Seam:
    """A boundary that one of two rules makes, and the other does not. `why` in words."""

    why: str
    before: frozenset[str]
    after: frozenset[str]
    fits: Callable[[bytes, bytes], bool] = lambda left, right: True

    def crossed_by(self, token: bytes) -> bool:
        """Whether the token could lie across such a boundary, perhaps with a part of a character
        at its ends."""
        return any(
            _ends_with(token[:cut], self.before)
            and _begins_with(token[cut:], self.after)
            and self.fits(token[:cut], token[cut:])
            for cut in range(1, len(token))
        )


def pre_tokenizer(vocabulary: BpeVocabulary) -> str:
    """llama.cpp's name of a rule that gives the vocabulary's ids for every text.

    Raises TokenizerError naming a token that makes the difference, or the pattern.
    """
    if not vocabulary.merges:
        return "gpt-2"
    if vocabulary.pattern in PUBLISHED:
        return PUBLISHED[vocabulary.pattern]
    if vocabulary.pattern != GPT4.pattern:
        shown = vocabulary.pattern[:60]
        raise TokenizerError(
            f"the tokenizer cuts text by the pattern {shown}…, which llama.cpp does not have",
            "a GGUF file cannot hold a pattern; --format hf can",
        )
    seams = _seams()
    for token, kind in zip(vocabulary.tokens, vocabulary.types, strict=True):
        if kind is not TokenType.NORMAL or len(token) < 2:
            continue
        for seam in seams:
            if seam.crossed_by(unspell(token)):
                text = unspell(token).decode("utf-8", "backslashreplace")
                raise TokenizerError(
                    f"the tokenizer has the token {text!r}: {seam.why}; the same text would have "
                    "other ids in llama.cpp",
                    "export it with --format hf, or train a run with data.tokenizer = 'gpt2' or "
                    "'bytes'",
                )
    return NEAREST


def check_names(vocabulary: BpeVocabulary) -> None:
    """Refuse what llama.cpp cannot tell apart. Raises TokenizerError."""
    if len(set(vocabulary.tokens)) < len(vocabulary.tokens):
        seen: set[str] = set()
        twice = next(token for token in vocabulary.tokens if token in seen or seen.add(token))
        raise TokenizerError(
            f"two ids of the tokenizer are spelled {twice[:60]!r}",
            "a GGUF file tells tokens apart by their spelling",
        )
    if vocabulary.eos_id is None:
        # llama.cpp would take token 11 for it, whatever that is.
        raise TokenizerError(
            "the tokenizer names no token that ends a text", "a GGUF file has to name one"
        )


@functools.cache
def _seams() -> tuple[_Seam, ...]:
    """Where `gpt4-2digits` and `qwen2` cut differently."""
    characters = [chr(code) for code in range(sys.maxunicode + 1) if not 0xD800 <= code < 0xE000]
    numbers = frozenset(c for c in characters if unicodedata.category(c)[0] == "N")
    letters = frozenset(c for c in characters if unicodedata.category(c)[0] == "L")
    newlines = frozenset("\r\n")
    # Python counts four separators in ASCII (FS to US) as spaces; the patterns do not.
    spaces = frozenset(c for c in characters if c.isspace() and not "\x1c" <= c <= "\x1f")
    return (
        _Seam(
            "numbers are cut into pairs here, and into single digits by llama.cpp's nearest rule "
            f"('{NEAREST}')",
            numbers,
            numbers,
        ),
        # `\s++$` keeps the white space at the end of a text whole; `\s*[\r\n]+` ends a piece at
        # its last newline.
        _Seam(
            f"white space that ends a text is one piece here, and '{NEAREST}' cuts it after the "
            "last newline",
            newlines,
            spaces - newlines,
            lambda left, right: not {10, 13} & set(right),
        ),
        # Case is folded as Unicode has it here, where ſ is an s; llama.cpp folds ASCII alone.
        _Seam(f"'ſ is cut off here as 's is, and not by '{NEAREST}'", frozenset("ſ"), letters),
    )


def _ends_with(data: bytes, characters: frozenset[str]) -> bool:
    """Whether `data` may end in one of the characters: it does, or is the last part of one."""
    start = len(data) - 1
    while start > 0 and 0x80 <= data[start] < 0xC0:
        start -= 1
    last = data[start:]
    try:
        return last.decode() in characters
    except UnicodeDecodeError:
        pass
    return len(last) < 4 and last == data and _is_part(last, characters, ending=True)


def _begins_with(data: bytes, characters: frozenset[str]) -> bool:
    """Whether `data` may begin with one of the characters: it does, or is the first part of one."""
    end = 1
    while end < len(data) and 0x80 <= data[end] < 0xC0:
        end += 1
    first = data[:end]
    try:
        return first.decode() in characters
    except UnicodeDecodeError:
        pass
    return len(first) < 4 and first == data and _is_part(first, characters, ending=False)


def _is_part(data: bytes, characters: frozenset[str], *, ending: bool) -> bool:
    spelled = (character.encode() for character in characters)
    return any(one.endswith(data) if ending else one.startswith(data) for one in spelled)
