"""Texts that leave a head of attention nothing to look at, most of the time.

The Bigram-Backcopy task (Guo et al. 2024, "Active-Dormant Attention Heads", section 2): each letter
is drawn by the one before it alone, as often as they follow each other in a natural text. But after
a trigger comes, once more, the letter that stood before the trigger. Only there does attention
help, and a softmax cannot attend to nothing: so even a small transformer learns to pour it on the
mark that its texts begin with, and to say nothing by it. Knows letters; nothing of labs and models.

Legend of shape suffixes: R texts of one length, N letters of a text, L letters of the alphabet.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from engine.errors import InputError

TRIGGERS = "te "
"""As in the paper: the commonest letters of English, and the space."""


@dataclass(frozen=True)
class Chain:
    """The rule by which texts are written."""

    letters: str
    """The alphabet, in the order of the axes below."""
    begin_L: np.ndarray
    """Probability of each letter as a text's first; no trigger is one."""
    follow_LL: np.ndarray
    """Probability of each letter (second axis) after each that is no trigger (first axis)."""

    @classmethod
    def of(cls, text: str) -> Chain:
        """Follows the pairs of `text`, of which only small letters and spaces count; the last one
        is followed by the first. Raises InputError when it has no letter that is no trigger."""
        text = re.sub("[^a-z]+", " ", text.lower())
        letters = "".join(sorted(set(text)))
        if not set(letters) - set(TRIGGERS):
            raise InputError(f"a text with no other letters than '{TRIGGERS}' makes no chain")
        codes_N = _codes(text, letters)
        count_LL = np.zeros((len(letters), len(letters)))
        np.add.at(count_LL, (codes_N, np.roll(codes_N, -1)), 1)
        begin_L = np.where(_triggers(letters), 0, count_LL.sum(1))
        return cls(letters, begin_L / begin_L.sum(), count_LL / count_LL.sum(1, keepdims=True))

    def write(self, rows: int, length: int, seed: int) -> list[str]:
        """`rows` texts of `length` letters, the same ones for the same seed."""
        random = np.random.default_rng(seed)
        triggers_L = _triggers(self.letters)
        codes_RN = np.empty((rows, length), np.int64)
        for n in range(length):
            before_R = codes_RN[:, n - 1] if n else None
            odds = self.begin_L[None] if before_R is None else self.follow_LL[before_R]
            drawn_R = _draw(odds, random.random(rows))
            # The first letter is no trigger, and no trigger follows one: a copy has its original.
            copied_R = codes_RN[:, n - 2] if n > 1 else drawn_R
            copies_R = False if before_R is None else triggers_L[before_R]
            codes_RN[:, n] = np.where(copies_R, copied_R, drawn_R)
        alphabet_L = np.array(list(self.letters))
        return ["".join(row) for row in alphabet_L[codes_RN]]

    def copies(self, texts: list[str]) -> np.ndarray:
        """(R, N) whether a letter is a copy: one that comes after a trigger."""
        after_RN = _triggers(self.letters)[self._codes_of(texts)]
        return np.pad(after_RN[:, :-1], ((0, 0), (1, 0)))

    def nats(self, texts: list[str]) -> np.ndarray:
        """(R, N) how surprising each letter is to one who knows the rule: 0 for a copy, infinite
        for what the rule does not write."""
        codes_RN, copies_RN = self._codes_of(texts), self.copies(texts)
        odds_RN = np.empty(codes_RN.shape)
        odds_RN[:, 0] = self.begin_L[codes_RN[:, 0]]
        odds_RN[:, 1:] = self.follow_LL[codes_RN[:, :-1], codes_RN[:, 1:]]
        same_RN = codes_RN == np.roll(codes_RN, 2, axis=1)
        with np.errstate(divide="ignore"):
            return -np.log(np.where(copies_RN, same_RN, odds_RN)) + 0.0  # no -0

    def _codes_of(self, texts: list[str]) -> np.ndarray:
        return np.stack([_codes(text, self.letters) for text in texts])


def _draw(odds: np.ndarray, uniform_R: np.ndarray) -> np.ndarray:
    """(R,) numbers of letters with the odds (R or 1, L), by the inverse of their cumulative sum."""
    total = odds.cumsum(1)
    return (total <= uniform_R[:, None] * total[:, -1:]).sum(1)


def _codes(text: str, letters: str) -> np.ndarray:
    points_N = np.frombuffer(text.encode("utf-32-le"), np.uint32)
    points_L = np.frombuffer(letters.encode("utf-32-le"), np.uint32)
    return np.searchsorted(points_L, points_N)


def _triggers(letters: str) -> np.ndarray:
    """(L,) which letters are triggers."""
    return np.array([letter in TRIGGERS for letter in letters])
