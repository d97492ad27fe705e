"""Of a line that changed, only the cells that did are told."""

from __future__ import annotations

import random

import pytest
from rich.segment import Segment
from rich.style import Style
from textual.strip import Strip

from tui_lab.widgets.lines import difference

STYLES = (Style(color="red"), Style(bold=True), None)


def cells(strip: Strip) -> list[tuple[str, Style | None]]:
    """Each cell with its style; a wide character owns two."""
    found = []
    for text, style, _ in strip:
        for character in text:
            found += [(character, style)] * Strip([Segment(character)]).cell_length
    return found


@pytest.mark.parametrize("seed", range(40))
def test_what_lies_outside_is_the_same_and_the_ends_are_not(seed: int):
    rng = random.Random(seed)

    def line() -> Strip:
        pieces, width = [], 0
        while width < 20:
            text = rng.choice(["a", "ab", "⣿⡀", "loss", "漢", "12"])[: 20 - width]
            segment = Segment(text, rng.choice(STYLES))
            if width + segment.cell_length <= 20:
                pieces.append(segment)
                width += segment.cell_length
        return Strip(pieces)

    def changed(strip: Strip) -> Strip:
        """One segment of it replaced by another one of the same width."""
        pieces = list(strip)
        at = rng.randrange(len(pieces))
        text = "".join(rng.choice("abl12") for _ in range(pieces[at].cell_length))
        pieces[at] = Segment(text, rng.choice([pieces[at].style, *STYLES]))
        return Strip(pieces)

    before = line()
    after = changed(before) if seed % 4 else line()
    if before == after:
        return
    left, right = difference(before, after)
    old, new = cells(before), cells(after)
    assert 0 <= left <= right <= 20
    assert old[:left] == new[:left] and old[right:] == new[right:]
    if "漢" not in before.text + after.text and old != new:
        assert old[left] != new[left] and old[right - 1] != new[right - 1]


def test_a_number_that_ticks_is_told_alone():
    style = Style(color="red")
    before = Strip([Segment("loss  ", None), Segment("2.345 ", style), Segment("   ", None)])
    after = Strip([Segment("loss  ", None), Segment("2.351 ", style), Segment("   ", None)])
    assert difference(before, after) == (9, 11)
