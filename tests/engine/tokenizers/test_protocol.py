"""What every kind promises: the same protocol, exact text back, and special tokens kept apart."""

from __future__ import annotations

import pickle
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import TokenizerError
from engine.tokenizers import KINDS, ByteTokenizer, Tokenizer, build
from engine.tokenizers.base import clean

LOSSLESS = ("bytes", "bpe", "gpt2")
SAMPLE = "The with statement, naïve café: 東京 😀\n\n    it's done — yes\t(1234).\r\n"


def test_encode_and_encode_array_agree_and_text_comes_back(tokenizer: Tokenizer) -> None:
    sample = SAMPLE if tokenizer.kind != "char" else "The with statement, café: 東京 😀\n"
    ids = tokenizer.encode(sample)
    array = tokenizer.encode_array(sample)
    assert array.tolist() == ids
    assert array.dtype == (np.uint16 if tokenizer.vocab_size <= 65536 else np.uint32)
    assert array.flags.writeable  # shards are assembled in place
    if tokenizer.kind != "word":
        assert tokenizer.decode(ids) == sample
        assert b"".join(map(tokenizer.token_bytes, ids)) == sample.encode()


def test_real_text_comes_back_exactly(tokenizer: Tokenizer, prose: str) -> None:
    text = prose[:20_000]
    decoded = tokenizer.decode(tokenizer.encode(text))
    if tokenizer.kind == "word":
        assert "<unk>" in decoded
        known = build("word", lambda: [text], 1_000_000)
        assert known.decode(known.encode(text)) == text
    else:
        assert decoded == text


@pytest.mark.parametrize("kind", LOSSLESS)
@given(text=st.text(max_size=60))
@settings(max_examples=100, deadline=None)
def test_any_text_comes_back(kind: str, tokenizers: dict[str, Tokenizer], text: str) -> None:
    """Nothing that Unicode can hold is lost; hypothesis draws no lone surrogates by default."""
    tokenizer = tokenizers[kind]
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert tokenizer.encode_array(text).tolist() == ids


@pytest.mark.parametrize("kind", [*LOSSLESS, "word"])
def test_lone_surrogates_are_replaced_rather_than_crash(
    kind: str, tokenizers: dict[str, Tokenizer]
) -> None:
    tokenizer = tokenizers[kind]
    assert tokenizer.encode("a\ud800b") == tokenizer.encode("a\ufffdb")
    assert clean("\ud83d\ude00") == "😀"


def test_text_that_spells_a_special_token_is_plain_text(tokenizer: Tokenizer) -> None:
    """A corpus that mentions <|endoftext|> must not end its own documents."""
    if tokenizer.kind == "char":
        return  # has no special tokens
    ids = tokenizer.encode("one <|endoftext|> two")
    assert ids
    assert tokenizer.eot_id not in ids
    if tokenizer.kind in LOSSLESS:
        assert tokenizer.decode(ids) == "one <|endoftext|> two"


def test_special_tokens_stand_for_no_bytes(tokenizer: Tokenizer) -> None:
    lengths = tokenizer.byte_lengths()
    assert lengths.dtype == np.int32
    assert lengths.shape == (tokenizer.vocab_size,)
    special = set(tokenizer.special_tokens.values())
    assert set(np.flatnonzero(lengths == 0).tolist()) == special
    for token in special:
        assert tokenizer.token_bytes(token) == b""
    assert all(
        lengths[token] == len(tokenizer.token_bytes(token)) for token in range(tokenizer.vocab_size)
    )
    if tokenizer.eot_id is not None:
        assert tokenizer.decode([tokenizer.eot_id]) == ""
        assert tokenizer.token_text(tokenizer.eot_id) == "<|endoftext|>"


def test_sizes_and_end_of_text_are_as_documented(tokenizers: dict[str, Tokenizer]) -> None:
    sizes = {kind: (t.vocab_size, t.eot_id) for kind, t in tokenizers.items()}
    assert sizes["bytes"] == (257, 256)
    assert sizes["gpt2"] == (50257, 50256)
    assert sizes["bpe"] == (600, 599)
    assert sizes["word"] == (600, 599)
    assert sizes["char"][1] is None


@pytest.mark.parametrize("token", [-1, 10**6])
def test_an_id_outside_the_vocabulary_is_refused(tokenizer: Tokenizer, token: int) -> None:
    """-1 would otherwise quietly be Python's last entry."""
    with pytest.raises(TokenizerError, match=f"token {token} is not in the vocabulary"):
        tokenizer.decode([token])


def test_broken_utf8_decodes_to_replacement_characters() -> None:
    tokenizer = ByteTokenizer()
    assert tokenizer.decode([0xE6, 0x9D, 65]) == "\ufffdA"
    assert tokenizer.token_text(0xE6) == "\\xe6"


def test_empty_text_is_no_tokens(tokenizer: Tokenizer) -> None:
    assert tokenizer.encode("") == []
    assert tokenizer.encode_array("").shape == (0,)
    assert tokenizer.decode([]) == ""


def test_a_tokenizer_travels_to_another_process(tokenizer: Tokenizer) -> None:
    """Workers of the preparer get it pickled, after it may have been used here."""
    ids = tokenizer.encode("The statement")
    copy = pickle.loads(pickle.dumps(tokenizer))
    assert copy.encode("The statement") == ids
    assert copy.digest == tokenizer.digest


def test_digests_tell_kinds_and_vocabularies_apart(
    tokenizers: dict[str, Tokenizer], prose: str
) -> None:
    digests = [tokenizer.digest for tokenizer in tokenizers.values()]
    digests += [build(kind, lambda: [prose], 500).digest for kind in ("char", "word", "bpe")]
    assert len(set(digests)) == len(KINDS) + 3


@pytest.mark.parametrize("kind", ["char", "word", "bpe"])
@pytest.mark.parametrize("texts", [[], [""]])
def test_no_text_is_refused(kind: str, texts: list[str]) -> None:
    with pytest.raises(TokenizerError, match="there is no text"):
        build(kind, lambda: texts, 300)


def test_an_unknown_kind_is_named_with_the_nearest() -> None:
    with pytest.raises(TokenizerError, match="unknown kind of tokenizer 'bppe'") as caught:
        build("bppe", lambda: ["text"], 300)
    assert caught.value.hint == "did you mean 'bpe'?"


def test_importing_costs_nothing_heavy() -> None:
    """The app's first paint imports this package: torch and the encoders come when used."""
    heavy = "{'torch', 'tiktoken', 'rustbpe', 'regex'}"
    program = f"import sys, engine.tokenizers; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr
