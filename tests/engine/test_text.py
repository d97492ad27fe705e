"""The sanitiser: nothing that a terminal obeys passes, everything else does, and widths agree."""

from __future__ import annotations

import json
import sys
import time
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from engine.text import INVISIBLE, MARKS, is_safe, to_json, visible

BIDIRECTIONAL = {0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A)}

# Everything hypothesis can make, with what is dangerous made likely.
DANGEROUS = st.sampled_from(
    "\x00\x07\x08\x0b\x0c\r\x1b\x7f\x80\x85\x90\x9b\x9d\x9f\u00ad\u061c\u200b\u200d\u200e\u202e"
    "\u2028\u2066\u2069\ufe0f\ufeff\ud800\udfff\U000e0001\U000e0041\U0001f3fd\u0301\u20dd"
)
TEXTS = st.text(st.one_of(st.characters(), DANGEROUS))


def obeyed(character: str) -> bool:
    """Whether a terminal may act on the character; from Unicode's categories, not from ours."""
    return (
        unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp")
        or ord(character) in BIDIRECTIONAL
        or 0xE0000 <= ord(character) <= 0xE007F
    )


def marks(text: str) -> int:
    """The most combining marks that stand on one character."""
    most = height = 0
    for character in text:
        height = height + 1 if unicodedata.category(character) in ("Mn", "Me") else 0
        most = max(most, height)
    return most


@given(TEXTS)
def test_nothing_that_a_terminal_obeys_is_left(text: str) -> None:
    assert not any(obeyed(character) for character in visible(text, lines=False))
    assert not any(obeyed(c) for c in visible(text) if c not in "\n\t")
    assert is_safe(visible(text, lines=False))


def test_no_character_at_all_gets_through() -> None:
    """Every code point, not those alone that hypothesis happens to draw."""
    everything = "".join(map(chr, range(sys.maxunicode + 1)))
    shown = visible(everything, lines=False)
    assert [ascii(character) for character in shown if obeyed(character)] == []


@given(TEXTS)
def test_what_is_visible_is_seen_once(text: str) -> None:
    assert visible(visible(text)) == visible(text)
    assert visible(visible(text, lines=False), lines=False) == visible(text, lines=False)


@given(st.text(st.characters(categories=("L", "N", "P", "Sc", "Sm", "Sk", "Zs"))))
def test_letters_numbers_and_signs_of_every_script_stay(text: str) -> None:
    fillers = "\u115f\u1160\u3164\uffa0"  # letters by category, and drawn by nobody
    skins = "\U0001f3fb\U0001f3fc\U0001f3fd\U0001f3fe\U0001f3ff"  # of a width that depends
    kept = "".join(character for character in text if character not in fillers + skins)
    assert visible(kept, lines=False) == kept


@pytest.mark.parametrize(
    "text",
    [
        "naïve → 日本語\n\tfin",
        "من می‌خواهم",  # a zero-width non-joiner, as Persian is spelled
        "नमस्ते दुनिया",
        "\u05d1\u05bc\u05b0\u05e8\u05b5\u05d0\u05e9\u05b4\u05c1\u05d9\u05ea",  # pointed Hebrew
        "a\u0302\u0323 ệ Z̧",
        "[bold]not markup[/bold] [link=x]y",
        "▁▂▃ ⣿ 😀 — “quoted”",
    ],
)
def test_ordinary_text_is_untouched(text: str) -> None:
    assert visible(text) == text


def test_what_is_replaced_can_be_told_apart() -> None:
    assert visible("\x1b]52;c;aGk=\x07") == "␛]52;c;aGk=␇"
    assert visible("a\r\nb\r") == "a\nb␍"
    assert visible("a\r\nb\tc", lines=False) == "a␍␊b␉c"
    assert visible("\x9b31m\u202egnp.exe") == "\ufffd31m\ufffdgnp.exe"
    assert visible("\u2764\ufe0f") == f"\u2764{INVISIBLE}"
    assert visible("\ud83d") == "\ufffd"


@given(st.text(st.one_of(st.sampled_from("a\u0301\u0363\u20dd\u064b\u0e47\u200c"), DANGEROUS)))
def test_marks_never_pile_up(text: str) -> None:
    assert marks(visible(text)) <= MARKS


def test_every_mark_of_unicode_is_counted() -> None:
    for code in range(sys.maxunicode + 1):
        if unicodedata.category(chr(code)) in ("Mn", "Me"):
            shown = visible("a" + chr(code) * (MARKS + 4))
            assert marks(shown) <= MARKS, hex(code)


@given(TEXTS)
def test_the_whole_is_as_wide_as_its_characters(text: str) -> None:
    """What joins or modifies its neighbours is gone: widths add up, as code that cuts supposes."""
    shown = visible(text, lines=False)
    assert cell_len(shown) == sum(cell_len(character) for character in shown)


@given(st.recursive(TEXTS, lambda inner: st.lists(inner) | st.dictionaries(TEXTS, inner)))
def test_json_says_the_same_and_commands_nothing(value: object) -> None:
    line = to_json(value)
    assert json.loads(line) == json.loads(json.dumps(value))
    assert is_safe(line) and "\n" not in line


@pytest.mark.parametrize("piece", ["a", "é", "語", "\x1b", "\u0301", "e\u0301", "\u202e[/", "👍🏽"])
def test_a_line_without_end_takes_bounded_time(piece: str) -> None:
    text = piece * (1_000_000 // len(piece))
    began = time.perf_counter()
    visible(text)
    assert time.perf_counter() - began < 3.0
    assert visible(text, most=40) == visible(text[:40] + "…")
