"""Streaming shows whole characters only, and in the end exactly what decoding gives."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import TokenizerError
from engine.tokenizers import ByteTokenizer, StreamDecoder, Tokenizer


def test_a_character_appears_with_its_last_byte() -> None:
    decoder = StreamDecoder(ByteTokenizer())
    assert [decoder.push(byte) for byte in "é😀".encode()] == ["", "é", "", "", "", "😀"]
    assert decoder.flush() == ""


def test_a_broken_character_is_replaced_at_the_end_and_forgotten() -> None:
    decoder = StreamDecoder(ByteTokenizer())
    assert decoder.push(0xE6) == ""
    assert decoder.flush() == "\ufffd"
    assert decoder.push(65) == "A"


@pytest.mark.parametrize("kind", ["bytes", "word", "bpe", "gpt2"])
@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_streamed_text_equals_decoded_text(
    kind: str, tokenizers: dict[str, Tokenizer], data: st.DataObject
) -> None:
    """Any ids at all, special ones and broken UTF-8 included."""
    tokenizer = tokenizers[kind]
    low, high = st.integers(0, 255), st.integers(0, tokenizer.vocab_size - 1)
    last = st.just(tokenizer.vocab_size - 1)
    ids = data.draw(st.lists(low | high | last, max_size=30))
    decoder = StreamDecoder(tokenizer)
    streamed = "".join([decoder.push(token) for token in ids]) + decoder.flush()
    assert streamed == tokenizer.decode(ids)


def test_an_unknown_id_is_refused() -> None:
    with pytest.raises(TokenizerError, match="token 257"):
        StreamDecoder(ByteTokenizer()).push(257)
