"""Wrapping as text comes equals wrapping it at once, and loses nothing."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from tui_lab.widgets.wrapping import WrappedText

PIECES = st.lists(st.text("ab cd\n\t é漢字🙂", max_size=9), max_size=40)


def lines_of(wrapped: WrappedText) -> list[str]:
    return ["".join(wrapped.text[slice(*wrapped.line(index))]) for index in range(len(wrapped))]


@given(PIECES, st.integers(2, 30), st.integers(2, 30))
def test_piece_by_piece_is_the_same_as_all_at_once(pieces, width, other):
    """Streaming must end in what a later resize would show."""
    streamed, whole = WrappedText(width), WrappedText(other)
    for piece in pieces:
        streamed.add(piece)
        whole.add(piece)
    whole.rewrap(width)
    assert lines_of(streamed) == lines_of(whole)


@given(PIECES, st.integers(2, 30))
def test_no_line_is_too_wide_and_no_character_is_lost(pieces, width):
    wrapped = WrappedText(width)
    for piece in pieces:
        wrapped.add(piece)
    lines = lines_of(wrapped)
    assert all(cell_len(line.rstrip(" ")) <= width for line in lines)
    text = "".join(pieces).replace("\t", "    ")
    assert "".join(lines) == text.replace("\n", "")


@given(PIECES, st.integers(2, 30))
def test_every_character_is_found_on_its_line(pieces, width):
    wrapped = WrappedText(width)
    for piece in pieces:
        wrapped.add(piece)
    for position, character in enumerate(wrapped.text):
        if character != "\n":
            start, end = wrapped.line(wrapped.line_of(position))
            assert start <= position < end


def test_words_stay_whole_and_long_ones_are_cut():
    wrapped = WrappedText(10)
    wrapped.add("the execution of abcdefghijklmnop")
    assert lines_of(wrapped) == ["the ", "execution ", "of ", "abcdefghij", "klmnop"]


def test_the_piece_under_a_cell():
    """A click on a wide character hits it with either of its cells."""
    wrapped = WrappedText(20)
    wrapped.add("ab")
    wrapped.add("漢")
    wrapped.add("\n")
    wrapped.add("c")
    assert [wrapped.piece_at(0, cell) for cell in range(6)] == [0, 0, 1, 1, 1, 1]
    assert wrapped.piece_at(1, 0) == 3
    assert wrapped.cell_of(2) == 2
    wrapped.add("\n")
    assert wrapped.piece_at(2, 0) is None
