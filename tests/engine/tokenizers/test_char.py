"""Characters: the whole corpus's, in order, and a clear refusal of any other."""

from __future__ import annotations

import pytest

from engine.errors import TokenizerError
from engine.tokenizers import CharTokenizer, build


def test_ids_follow_code_points_whatever_the_order_of_texts() -> None:
    """Equal corpora must give equal ids, or checkpoints could not be compared."""
    one, other = CharTokenizer.train(["cab", "é"]), CharTokenizer.train(["éb", "ac"])
    assert one.encode("abcé") == [0, 1, 2, 3]
    assert one.digest == other.digest


def test_vocab_size_does_not_bind() -> None:
    assert build("char", lambda: ["abc"], 2).vocab_size == 3


@pytest.mark.parametrize(
    ("text", "named"),
    [("abx", r"'x' \(U\+0078"), ("a東", r"'東' \(U\+6771"), ("\x1b[0m", r"'␛' \(U\+001B")],
)
def test_an_unknown_character_is_named_and_made_visible(text: str, named: str) -> None:
    """Prompts come from users: both a lower and a higher code point than any known one."""
    tokenizer = CharTokenizer("ab\n")
    with pytest.raises(TokenizerError, match=f"character {named}") as caught:
        tokenizer.encode(text)
    assert "knows the 3 characters" in caught.value.hint
    assert "\x1b" not in str(caught.value)
