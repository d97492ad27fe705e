"""The one sanitiser for text that comes from outside: samples, corpora, names, exceptions.

A terminal obeys what it reads. Control characters, C1 controls and bidirectional overrides become
visible glyphs here, at the sink, before any widget or `echo` sees them.
"""

from __future__ import annotations

import json
import re
from typing import Any

_PICTURES = {code: chr(0x2400 + code) for code in range(0x20)} | {0x7F: "\u2421"}
# C1 controls (a terminal may take 0x9B as CSI), bidirectional marks, isolates and overrides, line
# and paragraph separators, the byte-order mark, and the tag characters.
_HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f\x80-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2060-\u2069"
    "\ufeff\ufff9-\ufffb\U000e0000-\U000e007f\ud800-\udfff]"
)


def _glyph(match: re.Match[str]) -> str:
    return _PICTURES.get(ord(match.group()), "\ufffd")


def visible(text: str, *, lines: bool = True) -> str:
    """`text` with everything that a terminal could obey replaced by a visible glyph.

    With `lines` newlines and tabs stay; without, they become glyphs too (for one-line places).
    """
    if lines:
        return _HIDDEN.sub(_glyph, text.replace("\r\n", "\n"))
    text = text.replace("\n", "\u240a").replace("\t", "\u2409")
    return _HIDDEN.sub(_glyph, text)


def to_json(value: Any) -> str:
    """`value` as one line of JSON, in which what a terminal could obey is escaped."""
    return _HIDDEN.sub(_escape, json.dumps(value, ensure_ascii=False))


def _escape(match: re.Match[str]) -> str:
    code = ord(match.group())
    if code < 0x10000:
        return f"\\u{code:04x}"
    high, low = divmod(code - 0x10000, 0x400)
    return f"\\u{0xD800 + high:04x}\\u{0xDC00 + low:04x}"
