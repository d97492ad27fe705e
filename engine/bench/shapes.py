"""Networks of known size to time, and a lab with a text for them. No torch.

How fast a step is does not depend on what the text says, only on its vocabulary: random characters,
as many different ones as the vocabulary is to have, go through the same preparation as any corpus.
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.config import Config
from engine.corpora import add
from engine.lab import Lab

CORPUS = "random-characters"
ENDLESS = 10_000_000
"""Steps of a run that is ended from outside. Nothing that pays only in long runs is left out."""
FIRST_CHARACTER = 0x10000
"""Characters count from here: no surrogates, no control characters and no line ends follow."""


@dataclass(frozen=True)
class Shape:
    """A network and a batch, as everybody who trains GPTs names them. `title`: for people."""

    name: str
    title: str
    n_embd: int
    n_layer: int
    n_head: int
    context: int
    batch: int
    vocab_size: int

    def __str__(self) -> str:
        size = f"{self.n_embd}×{self.n_layer}×{self.n_head}"
        vocabulary = f"{self.vocab_size:,}".replace(",", " ")
        return f"{size}, context {self.context}, batch {self.batch}, vocabulary {vocabulary}"

    @property
    def tokens_per_step(self) -> int:
        return self.batch * self.context

    def config(self) -> Config:
        """The shape as a configuration: nanoGPT's network (no biases, no dropout), all else as it
        is by default."""
        return Config().with_values(
            {
                "model.n_embd": self.n_embd,
                "model.n_layer": self.n_layer,
                "model.n_head": self.n_head,
                "model.context_length": self.context,
                "model.bias": False,
                "train.batch_size": self.batch,
                "train.max_steps": ENDLESS,
            }
        )


SHAPES = {
    shape.name: shape
    for shape in (
        Shape("384", "384×6×6", 384, 6, 6, 256, 12, 65),
        Shape("128", "128×4×4", 128, 4, 4, 64, 12, 65),
        Shape("384-50k", "384×6×6 with 50 304 tokens", 384, 6, 6, 256, 12, 50_304),
        Shape("124m", "124M", 768, 12, 12, 512, 2, 50_304),
        Shape("medium", "124M, context 1024", 768, 12, 12, 1024, 12, 50_304),
        Shape("tiny", "32×1×2", 32, 1, 2, 16, 4, 65),
    )
}
"""nanoGPT's network for characters, its recipe for CPUs, the first with GPT-2's vocabulary, GPT-2
small on a processor and on a GPU, and one of which a hundred thousand steps take a minute."""


def timed(config: Config, overrides: Mapping[str, Any] | None = None) -> Config:
    """`config` as a run of steps alone: the text of `open_lab`, no evaluation, samples or
    checkpoints, and no end."""
    values = {
        "data.corpus": CORPUS,
        "data.tokenizer": "char",
        "data.val_fraction": 0.0,
        "train.max_steps": ENDLESS,
        "train.max_tokens": 0,
        "train.epochs": 0.0,
        "sample.every": 0,
        "save.policy": "none",
    }
    return config.with_values(values | dict(overrides or {}))


@contextmanager
def open_lab(vocab_size: int, context: int) -> Iterator[Lab]:
    """A lab, gone afterwards, whose corpus `CORPUS` has `vocab_size` different characters."""
    characters = [chr(FIRST_CHARACTER + index) for index in range(vocab_size)]
    count = max(200_000, 2 * vocab_size, 20 * context)
    drawn = random.Random(1)
    with tempfile.TemporaryDirectory(prefix="tui-lab-bench-") as folder:
        lab = Lab.init(Path(folder))
        text = lab.root / "text.txt"
        # Each of them once, so that none is missing, and then at random.
        text.write_text("".join(characters + drawn.choices(characters, k=count)), encoding="utf-8")
        add(lab, CORPUS, [text])
        yield lab
