"""The one sanitiser for text that comes from outside: samples, corpora, names, exceptions.

A terminal obeys what it reads. Everything that it could obey, and everything that has no width
or a width that terminals disagree about, becomes a glyph of one cell here, at the sink, before any
widget or `echo` sees it: so nothing is commanded, and what a widget counts is what is drawn.
Knows nothing of widgets or colours.
"""

from __future__ import annotations

import json
import re
import unicodedata
from typing import Any

MARKS = 8
"""Combining marks that a character may carry: more than any script needs, too few to draw over
the lines above and below."""

UNSHOWABLE = "\ufffd"
"""Stands for what a terminal might obey."""
INVISIBLE = "\u25cc"
"""Stands for what has no shape of its own: joiners, selectors, fillers, surplus marks."""

_CONTROLS = {code: chr(0x2400 + code) for code in range(0x20)} | {0x7F: "\u2421"}
# C1 controls (a terminal may take 0x9B as CSI), bidirectional marks, isolates and overrides, line
# and paragraph separators, interlinear annotations, the byte-order mark, tag characters, halves of
# surrogate pairs, and code points that are no characters.
_OBEYED = (
    "\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ufff0-\ufffb"
    "\ufffe\uffff\U000e0000-\U000e007f\ud800-\udfff"
)
# Soft hyphen, joiners (a terminal may fuse what stands around one; U+200C joins nothing and stays),
# fillers, variation selectors, formats of musical and Egyptian notation; the letters of flags and
# the skin tones, which are as wide as the terminal makes of what stands beside them.
_SHAPELESS = (
    "\u00ad\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b\u200d\u2060-\u2065\u206a-\u206f"
    "\u3164\ufe00-\ufe0f\uffa0\U00013430-\U0001343f\U0001bca0-\U0001bca3\U0001d173-\U0001d17a"
    "\U0001f1e6-\U0001f1ff\U0001f3fb-\U0001f3ff\U000e0080-\U000e0fff"
)
_HIDDEN = re.compile(f"[{_OBEYED}{_SHAPELESS}]")
_HIDDEN_IN_LINE = re.compile(f"[\t\n{_OBEYED}{_SHAPELESS}]")
_SHAPELESS_ONE = re.compile(f"[{_SHAPELESS}]")
# Blocks in which combining marks are (and letters too: each character is looked up).
_MARKED = re.compile(
    "[\u0300-\u036f\u0483-\u0489\u0591-\u1cff\u1dc0-\u1dff\u200c\u20d0-\u20ff\u2cef-\u2cf1\u2d7f"
    "\u2de0-\u2dff\u302a-\u302f\u3099\u309a\ua66f-\ua6f1\ua802-\uabff\ufb1e\ufe20-\ufe2f"
    "\U000101fd-\U000102e0\U00010376-\U0001037a\U00010a01-\U00011fff\U00013440-\U00013455"
    "\U0001611e-\U00016fff\U0001bc9d\U0001bc9e\U0001cf00-\U0001cf46\U0001d165-\U0001d244"
    "\U0001da00-\U0001daaf\U0001e000-\U0001e94a]"
    f"{{{MARKS + 1},}}"
)


def visible(text: str, *, lines: bool = True, most: int = 0) -> str:
    """`text` with everything that a terminal could obey replaced by a visible glyph.

    With `lines` newlines and tabs stay; without, they become glyphs too (for one-line places).
    With `most` only that many characters are looked at, and an ellipsis stands for the rest: a
    line without end must not hold up whoever measures it.
    """
    if most and len(text) > most:
        text = text[:most] + "…"
    if text.isascii() and text.isprintable():
        return text
    if lines:
        shown = _HIDDEN.sub(_glyph, text.replace("\r\n", "\n"))
    else:
        shown = _HIDDEN_IN_LINE.sub(_glyph, text)
    return shown if shown.isascii() else _MARKED.sub(_thinned, shown)


def is_safe(text: str) -> bool:
    """Whether a terminal would draw every character of `text` (a line) and obey none."""
    return text.isprintable() or not _HIDDEN_IN_LINE.search(text)


def to_json(value: Any) -> str:
    """`value` as one line of JSON, in which what a terminal could obey is escaped."""
    return _HIDDEN.sub(_escape, json.dumps(value, ensure_ascii=False))


def _glyph(match: re.Match[str]) -> str:
    character = match.group()
    if _SHAPELESS_ONE.match(character):
        return INVISIBLE
    return _CONTROLS.get(ord(character), UNSHOWABLE)


def _thinned(match: re.Match[str]) -> str:
    """The run of characters with at most MARKS marks on one; a glyph stands for the others."""
    kept: list[str] = []
    height = 0
    for character in match.group():
        mark = character == "\u200c" or unicodedata.category(character) in ("Mn", "Me")
        height = height + 1 if mark else 0
        if height <= MARKS:
            kept.append(character)
        elif height == MARKS + 1:
            kept.append(INVISIBLE)
    return "".join(kept)


def _escape(match: re.Match[str]) -> str:
    code = ord(match.group())
    if code < 0x10000:
        return f"\\u{code:04x}"
    high, low = divmod(code - 0x10000, 0x400)
    return f"\\u{0xD800 + high:04x}\\u{0xDC00 + low:04x}"
