"""The readable trainer and rustbpe learn the same merges, each checked by the other."""

from __future__ import annotations

import sys
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import TokenizerError
from engine.tokenizers import BpeTokenizer, build, train_bpe
from engine.tokenizers.split import GPT2, GPT4, Split
from engine.tokenizers.train_bpe import (
    count_pieces,
    merge,
    recover_merges,
    spell_merges,
    train_merges,
)

rustbpe = pytest.importorskip("rustbpe", reason="rustbpe has no wheel for this machine")


def learned_in_rust(texts: list[str], n_merges: int, split: Split) -> list[bytes]:
    trainer = rustbpe.Tokenizer()
    trainer.train_from_iterator(iter(texts), 256 + n_merges, pattern=split.pattern)
    ranks = sorted(trainer.get_mergeable_ranks(), key=lambda item: item[1])
    return [bytes(token) for token, _ in ranks[256:]]


def naive_merges(pieces: Counter[bytes], n_merges: int) -> list[tuple[int, int]]:
    """The rule itself, counting everything anew for every merge."""
    words = {piece: list(piece) for piece in pieces}
    merges: list[tuple[int, int]] = []
    while len(merges) < n_merges:
        counts: Counter[tuple[int, int]] = Counter()
        for piece, word in words.items():
            for pair in zip(word, word[1:], strict=False):
                counts[pair] += pieces[piece]
        if not counts:
            break
        best = min(counts, key=lambda pair: (-counts[pair], pair))
        merges.append(best)
        words = {piece: merge(word, best, 255 + len(merges)) for piece, word in words.items()}
    return merges


@pytest.mark.parametrize("split", [GPT4, GPT2], ids=["gpt4", "gpt2"])
def test_both_trainers_learn_the_same_from_prose(prose: str, split: Split) -> None:
    """Real text, 700 merges: the late ones tie by the dozen."""
    ours = spell_merges(train_merges(count_pieces([prose], split), 700))
    assert ours == learned_in_rust([prose], 700, split)


def test_both_trainers_learn_the_same_until_nothing_is_left(code: str) -> None:
    """A short text asked for more than it has: ties at a count of one, and the same end."""
    text = code[:6_000]
    ours = spell_merges(train_merges(count_pieces([text], GPT4), 5_000))
    assert 500 < len(ours) < 5_000
    assert ours == learned_in_rust([text], 5_000, GPT4)


@given(text=st.text(alphabet="aab bc1'.\né", max_size=60))
@settings(max_examples=150, deadline=None)
def test_both_trainers_follow_the_naive_rule(text: str) -> None:
    """Small alphabets make runs and ties, where incremental counting goes wrong first."""
    pieces = count_pieces([text], GPT4)
    merges = train_merges(pieces, 40)
    assert merges == naive_merges(pieces, 40)
    assert spell_merges(merges) == learned_in_rust([text], 40, GPT4)


def test_without_rustbpe_the_tokenizer_is_the_same(
    prose: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_rust = BpeTokenizer.train([prose], 700)
    monkeypatch.setitem(sys.modules, "rustbpe", None)
    assert BpeTokenizer.train([prose], 700).digest == with_rust.digest


def test_merges_are_recovered_from_tokens_alone(prose: str) -> None:
    merges = train_merges(count_pieces([prose], GPT4), 600)
    assert recover_merges(spell_merges(merges)) == merges


def test_recovering_sees_through_runs_of_one_character() -> None:
    """Tokens of repeated characters can be cut in many ways; one is how they were made."""
    merges = train_merges(Counter({b"=" * 23: 5, b"=" * 6: 3, b"=" * 3: 9}), 12)
    tokens = spell_merges(merges)
    assert len(set(tokens)) == len(tokens)
    assert recover_merges(tokens) == merges


def test_fewer_merges_than_asked_are_reported_by_the_size() -> None:
    tokenizer = build("bpe", lambda: ["ab ab ab"], 5_000)
    assert tokenizer.vocab_size == 257 + 2  # "ab" and " ab"
    assert tokenizer.eot_id == 258


def test_the_smallest_vocabulary_is_bytes_and_end_of_text() -> None:
    assert BpeTokenizer.train(["text"], 257).encode("é") == [0xC3, 0xA9]
    with pytest.raises(TokenizerError, match="vocab_size = 256: too small for bpe"):
        BpeTokenizer.train(["text"], 256)


def test_documents_are_streamed_and_cut_only_where_it_changes_nothing(prose: str) -> None:
    """One long document and many blocks of it must teach the same merges."""
    long = (prose + "\n") * 3
    assert train_bpe.train([long], 300, GPT4) == learned_in_rust([long], 300, GPT4)


def test_monstrous_tokens_are_left_out() -> None:
    """A line of 5 000 rules in a small text would become tokens of thousands of bytes."""
    tokenizer = BpeTokenizer.train(["-" * 5_000 + "\n" + "word " * 50], 400)
    assert tokenizer.byte_lengths().max() <= train_bpe.MAX_TOKEN_BYTES
    text = "-" * 5_000
    assert tokenizer.decode(tokenizer.encode(text)) == text
