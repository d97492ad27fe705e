"""Cutting a text where it changes no token: what lets corpora be encoded in parallel."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.tokenizers import KINDS, Tokenizer
from engine.tokenizers.split import BLOCK, GPT4, SPLITS

# Everything that the patterns treat apart: letters, contractions, digits, spaces of many kinds,
# line ends, punctuation, a combining mark, and characters that only Python calls a space (\x1c).
NASTY = "aZé東'slLvet0² \n\r\t\u00a0\u2003\x0b\x1c\x85.,-!\u0301_😀"
texts = st.text(alphabet=NASTY, max_size=40)


@pytest.mark.parametrize("kind", ["bytes", "word", "bpe", "gpt2"])
@given(text=texts, position=st.integers(-2, 42))
@settings(max_examples=400, deadline=None)
def test_a_safe_cut_changes_no_token(
    kind: str, tokenizers: dict[str, Tokenizer], text: str, position: int
) -> None:
    tokenizer = tokenizers[kind]
    cut = tokenizer.safe_cut(text, position)
    assert 0 <= cut <= max(position, 0)
    assert cut <= len(text)
    parts = tokenizer.encode(text[:cut]) + tokenizer.encode(text[cut:])
    assert parts == tokenizer.encode(text)


def test_every_safe_cut_of_real_text_changes_no_token(
    tokenizer: Tokenizer, code: str, prose: str
) -> None:
    """Also that cuts are near: a corpus that could not be cut could not be prepared in parallel."""
    text = prose[5_000:8_000] if tokenizer.kind == "char" else code[:3_000]
    whole = tokenizer.encode(text)
    cuts = sorted({tokenizer.safe_cut(text, position) for position in range(len(text) + 1)})
    for cut in cuts:
        assert tokenizer.encode(text[:cut]) + tokenizer.encode(text[cut:]) == whole
    assert max(np.diff(cuts)) < 120
    assert cuts[-1] == len(text)


@pytest.mark.parametrize("name", SPLITS)
def test_a_safe_cut_is_the_last_one_and_found_at_any_distance(name: str) -> None:
    text = "word " + "東" * 20_000 + "x y"
    split = SPLITS[name]
    assert split.safe_cut(text, 20_000) == 4
    assert split.safe_cut(text, len(text) - 1) == len(text) - 2
    assert split.safe_cut("東" * 500, 300) == 0
    assert split.safe_cut("東" * 500, 500) == 500


def test_gpt2_is_never_cut_inside_a_run_of_newlines(tokenizers: dict[str, Tokenizer]) -> None:
    """Its pattern takes the run but the last; a text that ends there gives the run whole."""
    text = "東\n\n東"
    assert tokenizers["gpt2"].safe_cut(text, 3) == 0
    assert tokenizers["bpe"].safe_cut(text, 3) == 3


@pytest.mark.parametrize("kind", ["bpe", "gpt2"])
def test_long_text_encodes_as_one_call_would(
    kind: str, tokenizers: dict[str, Tokenizer], prose: str
) -> None:
    """Blocks bound memory; they must not show in the tokens."""
    text = (prose + "\n東京 ") * 4
    assert len(text) > 3 * BLOCK
    tokenizer = tokenizers[kind]
    whole = tokenizer._encoding.encode_ordinary(text)
    assert tokenizer.encode(text) == whole
    assert tokenizer.encode_array(text).tolist() == whole


@pytest.mark.parametrize("kind", ["bpe", "gpt2"])
@pytest.mark.parametrize("hostile", [" ", "\n", "東", "-"])
def test_monotonous_text_of_a_million_characters(
    kind: str, hostile: str, tokenizers: dict[str, Tokenizer]
) -> None:
    """A run of a million spaces overflows the stack of tiktoken's regular expression: a panic."""
    text = hostile * (1_100_000 // len(hostile)) + "x"
    tokenizer = tokenizers[kind]
    assert tokenizer.decode(tokenizer.encode_array(text).tolist()) == text


def test_blocks_are_the_text_and_stay_bounded(prose: str) -> None:
    text = prose * 6 + " " * (3 * BLOCK) + prose
    blocks = list(GPT4.blocks(text))
    assert "".join(blocks) == text
    assert max(map(len, blocks)) < 3 * BLOCK


def test_all_kinds_can_be_cut(tokenizers: dict[str, Tokenizer]) -> None:
    for kind in KINDS:
        assert tokenizers[kind].safe_cut("two words", 5) == (3 if kind in _PIECES else 5)


_PIECES = ("word", "bpe", "gpt2")
