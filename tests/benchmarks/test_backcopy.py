"""The texts of the Bigram-Backcopy task obey its rule, and its surprise is that of the rule."""

from __future__ import annotations

import re

import numpy as np
import pytest

from benchmarks.backcopy import TRIGGERS, Chain
from engine.errors import InputError

TEXT = "The quick brown fox; the lazy dog. Better late than never, said the tortoise to the hare."


def test_after_a_trigger_comes_the_letter_before_it() -> None:
    """And no text begins with a trigger, so that every copy has an original."""
    texts = Chain.of(TEXT).write(200, 40, seed=1)
    assert {len(text) for text in texts} == {40} and len(set(texts)) > 100
    for text in texts:
        assert text[0] not in TRIGGERS
        for n in range(2, 40):
            if text[n - 1] in TRIGGERS:
                assert text[n] == text[n - 2]


def test_other_letters_follow_as_in_the_text() -> None:
    """In the frequencies of the pairs, letters and single spaces alone; the last is followed by the
    first."""
    chain = Chain.of("Ab, ac!\nAB")
    assert chain.letters == " abc"
    after_a = chain.follow_LL[chain.letters.index("a")]
    np.testing.assert_allclose(after_a, [0, 0, 2 / 3, 1 / 3])
    np.testing.assert_allclose(chain.follow_LL[2], [1 / 2, 1 / 2, 0, 0])
    np.testing.assert_allclose(chain.begin_L, [0, 3 / 6, 2 / 6, 1 / 6])
    found = re.findall("a([bc])", " ".join(chain.write(2000, 20, seed=3)))
    assert found.count("b") / len(found) == pytest.approx(2 / 3, abs=0.02)


def test_a_seed_writes_the_same_and_another_does_not() -> None:
    chain = Chain.of(TEXT)
    assert chain.write(5, 30, seed=1) == chain.write(5, 30, seed=1)
    assert chain.write(5, 30, seed=1) != chain.write(5, 30, seed=2)


def test_the_surprise_is_that_of_one_who_knows_the_rule() -> None:
    """A copy surprises nobody; another letter after a trigger, or a pair that the text does not
    have, is impossible; the mean over many texts is the entropy of the rule."""
    chain = Chain.of("abacab")
    nats = chain.nats(["abac", "bbab"])
    np.testing.assert_allclose(nats[0], -np.log([3 / 6, 2 / 3, 1, 1 / 3]), atol=1e-12)
    assert np.isinf(nats[1, 1]) and not chain.copies(["abac"]).any()

    chain = Chain.of(TEXT)
    texts = chain.write(3000, 12, seed=5)
    nats, copies = chain.nats(texts), chain.copies(texts)
    assert np.isfinite(nats).all() and copies.any() and (nats[copies] == 0).all()
    odds = np.where(chain.follow_LL > 0, chain.follow_LL, 1)
    entropy_L = -(chain.follow_LL * np.log(odds)).sum(1)
    before = np.array([[chain.letters.index(letter) for letter in text] for text in texts])[:, :-1]
    drawn = ~copies[:, 1:]
    assert nats[:, 1:][drawn].mean() == pytest.approx(entropy_L[before][drawn].mean(), rel=0.02)
    row, n = np.argwhere(copies)[0]
    other = "a" if texts[row][n] != "a" else "b"
    wrong = texts[row][:n] + other + texts[row][n + 1 :]
    assert np.isinf(chain.nats([wrong])[0, n])


def test_a_text_of_triggers_alone_is_refused() -> None:
    with pytest.raises(InputError, match="chain"):
        Chain.of("tee tee")
