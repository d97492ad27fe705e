"""Text that wants to command a terminal, and how to tell from a terminal's bytes that it did.

Each sequence carries a marker, a number that nothing of ours ever writes inside a sequence. Knows
nothing of the program.
"""

from __future__ import annotations

import random
import re

FIRST_MARKER = 70_001
"""Markers count from here: larger than any parameter that the program writes."""

_TEMPLATES = (
    # Cursor, colours, screen, modes, reports, keyboard and mouse protocols.
    "\x1b[{m};31m", "\x1b[38;2;{m};0;0m", "\x1b[{m};1H", "\x1b[{m}A", "\x1b[{m}J", "\x1b[{m}K",
    "\x1b[{m}S", "\x1b[{m};5r", "\x1b[{m}b", "\x1b[{m}X", "\x1b[?{m}h", "\x1b[?1049;{m}l",
    "\x1b[?2004;{m}h", "\x1b[{m}n", "\x1b[6;{m}n", "\x1b[21;{m}t", "\x1b[>{m}u", "\x1b[>{m}q",
    "\x1b[!{m}p", "\x1b[{m} q", "\x1b[<{m};1;1M", "\x1b[{m}i", "\x1b[=3;{m}c", "\x1b[4;{m}h",
    # Titles, links, clipboard, colours, notifications, prompts, files.
    "\x1b]0;{m}\x07", "\x1b]2;{m}\x1b\\", "\x1b]4;1;rgb:{m}\x07", "\x1b]7;file://{m}/\x07",
    "\x1b]8;;https://{m}.invalid\x1b\\link\x1b]8;;\x1b\\", "\x1b]9;{m}\x07", "\x1b]11;?{m}\x07",
    "\x1b]52;c;{m}\x07", "\x1b]104;{m}\x07", "\x1b]133;A;{m}\x07", "\x1b]777;notify;{m}\x07",
    "\x1b]1337;File=name={m};inline=1:AAAA\x07", "\x1b]50;{m}\x07", "\x1b]0;{m}",
    # Device control, graphics, application, privacy, start of string, a multiplexer's way through.
    "\x1bPq#{m}\x1b\\", "\x1bP$q{m}\x1b\\", "\x1bP+q{m}\x1b\\",
    "\x1bPtmux;\x1b\x1b]0;{m}\x07\x1b\\",
    "\x1b_Ga=T,f=24,i={m};AAAA\x1b\\", "\x1b^{m}\x1b\\", "\x1bX{m}\x1b\\", "\x1bP{m}",
    # Whole words of one letter, and character sets.
    "\x1bc{m}", "\x1b#8{m}", "\x1b(0{m}", "\x1bM{m}", "\x1b7{m}\x1b8", "\x1bZ{m}", "\x1b|{m}",
    "\x1b\x1b[{m}m", "\x1b{m}",
    # The same as single characters of C1.
    "\x9b{m}m", "\x9d0;{m}\x9c", "\x90q{m}\x9c", "\x9f{m}\x9c", "\x98{m}\x9c", "\x85{m}", "\x84{m}",
    "\x8d{m}", "\x8e{m}", "\x9a{m}",
    # Bell, backspace, overprinting, and the rest of C0.
    "\x07{m}", "ok\x08\x08{m}", "harmless\r{m}", "\x0b{m}", "\x0c{m}", "\x0e{m}\x0f", "\x05{m}",
    "\x00{m}", "\x1a{m}", "\x18{m}", "\x7f{m}", "\x1c{m}", "\x13{m}\x11",
    # Another order than is written, and what is not seen.
    "\u202e{m}\u202c", "\u202d{m}\u202c", "\u2066{m}\u2069", "\u2067{m}\u2069", "\u200f{m}",
    "\u061c{m}", "\u2028{m}", "\u2029{m}", "\ufeff{m}", "\ufff9{m}\ufffb",
    "\U000e0001\U000e0063\U000e006c\U000e0073{m}\U000e007f", "\ud83d{m}",
)  # fmt: skip

MARKUP = (
    "[bold]{m}[/bold]", "[/]{m}", "[{m}", "[red on blue]{m}", "[link=https://{m}.invalid]x[/link]",
    "[@click=app.exit('{m}')]x[/]", "\\[{m}]", "[b][i]{m}[/b]", "[$primary]{m}[/$primary]",
    "[/bold]{m}", "[[{m}]]", ":smile:{m}", "[not b]{m}", "[on {m}]", "[]{m}[]", "[a=\"{m}]",
)  # fmt: skip

_PILES = (
    "z{m}" + "\u0301\u0323\u0489" * 30, "👩\u200d👩\u200d👧{m}", "👍🏽❤\ufe0f{m}", "🇩🇪{m}",
    "語{m}語",
)  # fmt: skip


def sequences() -> list[str]:
    """Every sequence that a terminal would obey, each with a marker of its own."""
    return [text.replace("{m}", str(FIRST_MARKER + at)) for at, text in enumerate(_TEMPLATES)]


def texts() -> list[str]:
    """The sequences, markup, and characters whose width is in doubt."""
    all_of_them = (*_TEMPLATES, *MARKUP, *_PILES)
    return [text.replace("{m}", str(FIRST_MARKER + at)) for at, text in enumerate(all_of_them)]


def blob(first: int) -> str:
    """All texts in one, beginning with number `first`: what a narrow place shows changes."""
    all_of_them = texts()
    at = first % len(all_of_them)
    return "".join(all_of_them[at:] + all_of_them[:at])


def without_surrogates(text: str) -> str:
    """`text` as a UTF-8 file can hold it."""
    return text.encode("utf-8", "ignore").decode()


_FRAGMENTS = (
    "[", "]", "[/", "[/]", "[bold]", "[/bold]", "[link=", "[@click=", "('", "')]", "\\", "\\[", "$",
    "[red", " on ", "#fff", "=", '"', "'", "{", "}", "[$accent]", "auto", "%", ":", "[[", "]]", "!",
    "word", "語", "é", " ", "  ", "()", ",", "-1", "[b][i]", "[/i]", "[not", "[on", "&", "|", "`",
    "\x1b[31m", "\x1b]0;x\x07", "\u202e", "\x9b", "\u0301", "\t",
)  # fmt: skip


def markup(seed: int) -> str:
    """One random string of the stuff that markup is made of; the same for the same seed."""
    rng = random.Random(seed)
    return "".join(rng.choice(_FRAGMENTS) for _ in range(rng.randint(1, 12)))


# What a program of ours writes: a sequence is one of these, or it is foreign.
_CSI = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]")
_STRING = re.compile(r"\x1b[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\)?")
_SINGLE = re.compile(r"\x1b[ -/]*[0-~]?")
_SEQUENCE = re.compile("|".join(f"(?:{one.pattern})" for one in (_CSI, _STRING, _SINGLE)))
_OURS = re.compile(
    r"\x1b\[(?:[\d;]*[mHJKABCDG]"  # colours and cursor
    r"|\?(?:7|25|1000|1002|1003|1004|1006|1015|1016|1049|2004|2026|2048)[hl]"  # modes
    r"|\?(?:2026|2048)\$p"  # whether they are known
    r"|[<>]\d*u)"  # the keyboard protocol
    r"|\x1b\]22;[a-z-]*\x07"  # the shape of the mouse's pointer
)
_NEVER = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff"
    "\ufff9-\ufffb\U000e0000-\U000e007f\ud800-\udfff]"
)
_OVERPRINT = re.compile(rf"\r[^\n\r\x1b]{{0,4}}{str(FIRST_MARKER)[:2]}\d\d\d")


def foreign(output: bytes) -> list[str]:
    """What in a terminal's input is not ours: sequences, and characters that never are text."""
    text = output.decode("utf-8", "surrogateescape")
    found = []
    for match in _SEQUENCE.finditer(text):
        sequence = match.group()
        numbers = [int(number) for number in re.findall(r"\d+", sequence)]
        if not _OURS.fullmatch(sequence) or max(numbers, default=0) >= FIRST_MARKER:
            found.append(sequence)
    rest = _SEQUENCE.sub("", text)
    found += _NEVER.findall(rest)
    found += _OVERPRINT.findall(text)
    return [ascii(one)[:80] for one in found]
