"""The vocabulary that GGUF is told, against the ids of the tokenizer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from transformers.convert_slow_tokenizer import bytes_to_unicode

from engine.errors import TokenizerError
from engine.exchange.vocabulary import TokenType, bpe_vocabulary
from engine.tokenizers import Tokenizer


@pytest.mark.parametrize("name", ["bytes", "bpe", "gpt2", "llama3"])
def test_a_vocabulary_merged_by_hand_gives_the_ids(
    name: str, ours: dict[str, Tokenizer], read: dict[str, tuple[Tokenizer, Any, Path]]
) -> None:
    """What GGUF is told suffices: the merges, by rank, make of each word its tokens."""
    tokenizer = read[name][0] if name == "llama3" else ours[name]
    vocabulary = bpe_vocabulary(tokenizer)
    ranks = {tuple(merge.split(" ")): rank for rank, merge in enumerate(vocabulary.merges)}
    ids = {
        token: i
        for i, token in enumerate(vocabulary.tokens)
        if vocabulary.types[i] is TokenType.NORMAL
    }
    letters = bytes_to_unicode()
    assert vocabulary.eos_id == tokenizer.eot_id
    assert vocabulary.types[vocabulary.eos_id] is TokenType.CONTROL
    for word in ("the", "definitions", "statement", "xyzzy", "Zürich"):
        parts = [letters[byte] for byte in word.encode()]
        while len(parts) > 1:
            pairs = list(zip(parts, parts[1:], strict=False))
            best = min(pairs, key=lambda pair: ranks.get(pair, len(ranks)))
            if best not in ranks:
                break
            at = pairs.index(best)
            parts[at : at + 2] = ["".join(best)]
        assert [ids[part] for part in parts] == tokenizer.encode(word)


@pytest.mark.parametrize(("name", "why"), [("char", "token a character"), ("word", "<unk>")])
def test_no_byte_level_vocabulary_of_characters_or_words(
    name: str, why: str, ours: dict[str, Tokenizer]
) -> None:
    with pytest.raises(TokenizerError, match=why):
        bpe_vocabulary(ours[name])


def test_no_byte_level_vocabulary_of_sentencepiece(
    read: dict[str, tuple[Tokenizer, Any, Path]],
) -> None:
    with pytest.raises(TokenizerError, match="SentencePiece"):
        bpe_vocabulary(read["llama2"][0])
