"""Words: the documented splitting rule, <unk>, and text that reads as it did."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import TokenizerError
from engine.tokenizers import WordTokenizer
from engine.tokenizers.word import SPLIT


def test_the_splitting_rule_is_as_documented() -> None:
    assert SPLIT.findall("Don't  stop\nme, (now) x_1!") == [
        *("Don't", " ", " stop", "\n", "me", ",", " (", "now", ")", " x_1", "!"),
    ]


@given(text=st.text(max_size=80))
@settings(max_examples=200, deadline=None)
def test_pieces_joined_are_the_text(text: str) -> None:
    assert "".join(SPLIT.findall(text)) == text


def test_frequent_words_are_kept_and_ties_are_settled_by_spelling() -> None:
    tokenizer = WordTokenizer.train(["b a c a b d a"], 6)
    assert tokenizer.pieces == (" ", " a", " b", " c")
    assert tokenizer.digest == WordTokenizer.train(["b a c a b d a"], 6).digest


def test_unknown_words_are_marked_and_spaces_kept() -> None:
    """A reader must see that a word was lost, and where; scoring must not count its bytes."""
    tokenizer = WordTokenizer.train(["the cat sat, the cat sat"], 50)
    ids = tokenizer.encode("the dog sat, zebra")
    assert tokenizer.decode(ids) == "the <unk> sat, <unk>"
    assert ids.count(tokenizer.unk_id) == 2
    assert tokenizer.token_bytes(tokenizer.unk_id) == b""
    assert tokenizer.encode_array("the dog sat, zebra").tolist() == ids


def test_a_size_without_room_for_words_is_refused() -> None:
    with pytest.raises(TokenizerError, match="vocab_size = 2: too small for words"):
        WordTokenizer.train(["text"], 2)
    assert WordTokenizer.train(["text"], 3).vocab_size == 3
