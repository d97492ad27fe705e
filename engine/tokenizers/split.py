"""How byte-level BPE cuts text into pieces before merging, and where that cutting can be divided.

The patterns are those of the public encodings, in the form that wastes no backtracking. No merge
crosses a piece, so a boundary between pieces that depends on nothing behind it is a safe cut.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from engine.tokenizers.base import clean
from engine.tokenizers.word import last_cut

BLOCK = 1 << 17
"""Characters handed to the encoder at once: bounds its memory, and its regular expression's stack,
which a run of a million spaces overflows (a panic in Rust). A run of this many whitespace
characters is therefore divided: that is part of the splitting rule."""

_LONG_RUN = re.compile(rf"\s{{{BLOCK}}}")


@dataclass(frozen=True)
class Split:
    """A named rule. `pattern` is for Rust's and `regex`'s syntax; `safe` for Python's own `re`."""

    name: str
    pattern: str
    safe: re.Pattern[str]

    def safe_cut(self, text: str, position: int) -> int:
        """See `Tokenizer.safe_cut`."""
        return last_cut(self.safe, text, position)

    def blocks(self, text: str) -> Iterator[str]:
        """`text` (without lone surrogates) in parts of about BLOCK characters.

        Encoding the parts gives what encoding the whole gives; a part is longer where no safe cut
        was found in it.
        """
        text = clean(text)
        start = 0
        while len(text) - start > BLOCK:
            end = start + BLOCK
            cut = start + self.safe_cut(text[start : end + 1], BLOCK)
            if cut == start:
                later = self.safe.search(text, end)
                cut = later.start() if later else len(text)
            yield from _divide_runs(text[start:cut])
            start = cut
        if start < len(text):
            yield from _divide_runs(text[start:])


def _divide_runs(text: str) -> Iterator[str]:
    """`text` with every run of BLOCK whitespace characters ended by a cut."""
    if len(text) < BLOCK:
        yield text
        return
    start = 0
    for run in _LONG_RUN.finditer(text):
        yield text[start : run.end()]
        start = run.end()
    if start < len(text):
        yield text[start:]


# An ASCII letter before a space or newline ends its piece in both patterns: only letters can follow
# a letter in a piece. Nothing before it looks further.
AFTER_LETTER = re.compile(r"(?<=[A-Za-z])(?=[ \n])")

# GPT-4's rule with numbers in groups of at most two digits, as suits small vocabularies (nanochat).
# A newline before a non-space ends its piece: `\s*[\r\n]` takes the whole run of whitespace up to
# it, exactly as `\s++$` does when the text ends there.
GPT4 = Split(
    "gpt4-2digits",
    r"""'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,2}+| ?[^\s\p{L}\p{N}]++[\r\n]*+"""
    r"""|\s++$|\s*[\r\n]|\s+(?!\S)|\s""",
    re.compile(rf"{AFTER_LETTER.pattern}|(?<=\n)(?=\S)"),
)

# GPT-2's rule. It splits the last character off a run of whitespace, so only a single newline
# between two non-spaces is a safe cut.
GPT2 = Split(
    "gpt2",
    r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s""",
    re.compile(rf"{AFTER_LETTER.pattern}|(?<=\S\n)(?=\S)"),
)

# Qwen 2's rule, which cuts numbers into digits: what differs from GPT-4's in a published program's
# eyes is spelt out, since llama.cpp folds the case of ASCII letters alone ('ſ is no 's there).
QWEN2 = Split(
    "qwen2",
    r"""'(?:[sdmtSDMT]|[lL][lL]|[vV][eE]|[rR][eE])|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}"""
    r"""| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s*[\r\n]|\s+(?!\S)|\s""",
    re.compile(rf"{AFTER_LETTER.pattern}|(?<=\n)(?=\S)"),
)

SPLITS = {split.name: split for split in (QWEN2, GPT4, GPT2)}
