"""Texts that are trained on in sequences which all begin with a mark, and what is read of them.

Either a natural text, or the letters of the Bigram-Backcopy task. Knows corpora and tokenizers;
nothing of networks.

Legend of shape suffixes: R rows (stretches read side by side), N tokens of a stretch.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from benchmarks import training
from benchmarks.backcopy import Chain
from engine.config import Config
from engine.corpora import add, documents
from engine.errors import InputError
from engine.lab import Lab
from engine.session import Material
from engine.tokenizers import Tokenizer

MARK = "¶"
"""What a training sequence begins with: a character that the text does not have."""
BACKCOPY = "backcopy"
"""The name of the Bigram-Backcopy task among the texts."""
PAIRS_OF = "tinyshakespeare"
"""The text whose pairs of letters that task follows, as in the paper."""
DOCUMENTS = 80_000
"""Its texts to train on; they are as long as the context."""
TRAINED_SEED, READ_SEED = 1, 2
"""Of the texts that are trained on, and of those that are read."""


@dataclass(frozen=True)
class Stretches:
    """What is read: each row is a mark and N - 1 letters."""

    tokens_RN: Tensor
    rule_RN: Tensor | None = None
    """Nats of each letter to one who knows the rule by which it was written, (R, N - 1)."""
    copies_RN: Tensor | None = None
    """Which letters the rule copies, (R, N - 1): those for which attention is needed."""


@dataclass(frozen=True)
class Marked:
    """A corpus of pieces as long as the context, each after a mark.

    Windows that are context + 1 apart all begin with a mark, and none is ever a target.
    """

    corpus: str
    """Its name in the lab."""
    chain: Chain | None
    """What wrote it, when it is no natural text."""

    @classmethod
    def register(cls, lab: Lab, text: str, context: int, options: argparse.Namespace) -> Marked:
        """The corpus of `text`: one of `training.TEXTS`, or BACKCOPY. Raises InputError when the
        text has the mark."""
        whole = _read(lab, PAIRS_OF if text == BACKCOPY else text, options)
        chain = Chain.of(whole) if text == BACKCOPY else None
        if chain:
            pieces = chain.write(DOCUMENTS, context, TRAINED_SEED)
        else:
            pieces = [whole[at : at + context] for at in range(0, len(whole), context)]
        if any(MARK in piece for piece in pieces):
            raise InputError(f"'{text}' holds '{MARK}', which marks beginnings here")
        corpus = f"marked-{text}"
        path = lab.root / f"{corpus}.txt"
        path.write_text("".join(MARK + piece for piece in pieces))
        add(lab, corpus, [path], replace=True)
        return cls(corpus, chain)

    def stretches(
        self, lab: Lab, config: Config, tokenizer: Tokenizer, rows: int, length: int
    ) -> Stretches:
        """At most `rows` stretches of `length` letters that no run was trained on: of the
        validation text, one after the other, or newly written."""
        mark = tokenizer.encode(MARK)
        if self.chain:
            texts = self.chain.write(rows, length, READ_SEED)
            return Stretches(
                torch.tensor([mark + tokenizer.encode(text) for text in texts]),
                torch.from_numpy(self.chain.nats(texts)),
                torch.from_numpy(self.chain.copies(texts)),
            )
        material = Material(lab, config, lambda _: None, tokenizer)
        text = material.prepared.tokens().slice(material.train_tokens, material.prepared.n_tokens)
        text = text[~np.isin(text, mark)]
        rows = min(rows, len(text) // length)
        text_RN = torch.from_numpy(text[: rows * length]).view(rows, length)
        return Stretches(torch.cat((torch.tensor(mark).expand(rows, 1), text_RN), dim=1))


def _read(lab: Lab, name: str, options: argparse.Namespace) -> str:
    """All of a text, or of the one at hand for `--quick`."""
    corpus = training.add_text(lab, training.EMBEDDED if options.quick else name, options.data)
    return "".join(documents(lab, corpus))
