"""A generator in place of a model: fixed tokens, and a clock that is told the time."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from engine.errors import CheckpointError
from engine.generation.params import SamplingParams
from tui_lab.screens.console_sources import Source

SOURCES = [
    Source("/lab/checkpoints/micro/step_000500", "micro @ 500", "val 2.3012 · best · 3 min"),
    Source("/lab/checkpoints/broken/step_000010", "broken @ 10", "val 5.1000 · 2 h"),
    Source("/lab/checkpoints/hello-python/step_002000", "hello-python @ 2 000", "val 1.8312 · 9 d"),
]
WORDS = (
    " the with statement is used to wrap the execution of a block with methods defined by a "
    "context manager \n\nThis allows common patterns to be encapsulated for convenient reuse"
).split(" ")


@dataclass(frozen=True)
class FakeToken:
    index: int
    token: int
    text: str
    probability: float
    alternatives: tuple[tuple[str, float], ...]
    reason: str = ""
    entropy: float = 0.0
    alternative_ids: tuple[int, ...] = ()
    cache_bytes: int = 0


@dataclass(frozen=True)
class FakeScore:
    probability: float


@dataclass
class FakeGenerator:
    """Yields words with probabilities that run through all levels. `gate` holds each token back."""

    gate: threading.Semaphore | None = None
    prompts: list[tuple[str, SamplingParams]] = field(default_factory=list)
    words: list[str] = field(default_factory=lambda: WORDS)
    continued: list[tuple[int, ...]] = field(default_factory=list)
    scored: list[tuple[str, tuple[int, ...], Path]] = field(default_factory=list)

    def score(self, prompt: str, tokens: Sequence[int], run: Path) -> list[FakeScore]:
        """Probabilities that run through all levels too, in another order."""
        self.scored.append((prompt, tuple(tokens), run))
        return [FakeScore((0.9, 0.02, 0.24, 0.4)[at % 4]) for at in range(len(tokens))]

    def stream(
        self,
        prompt: str,
        params: SamplingParams,
        should_stop: Callable[[], bool],
        *,
        continued: Sequence[int] = (),
    ) -> Iterator[FakeToken]:
        self.prompts.append((prompt, params))
        self.continued.append(tuple(continued))
        for index in range(params.max_tokens):
            while self.gate is not None and not self.gate.acquire(timeout=0.01):
                if should_stop():
                    return
            word = self.words[index % len(self.words)]
            text = word if word.startswith("\n") else f" {word}" if word else ""
            probability = (0.93, 0.55, 0.24, 0.08, 0.012)[(index * 7 + index // 5) % 5]
            others = ((" a", 0.06), (" an", 0.03), ("\n", 0.004))
            alternatives = tuple(sorted([(text, probability), *others], key=lambda a: -a[1]))
            last = index == params.max_tokens - 1
            yield FakeToken(
                index,
                token=100 + index,
                text=text,
                probability=probability,
                alternatives=alternatives,
                reason="length" if last else "",
                entropy=(index % 11) * 0.5,
                alternative_ids=(1, 2, 3, 4),
                cache_bytes=4096 * (index + 1),
            )
            if should_stop():
                return


def loader(generator: FakeGenerator) -> Callable[..., FakeGenerator]:
    """Loads `generator` for every reference but the broken one."""

    def load(lab, reference: str) -> FakeGenerator:
        if "broken" in reference:
            raise CheckpointError(
                "step_000010/model.safetensors is damaged: its hash is not the manifest's",
                "delete the checkpoint, or use an earlier one",
            )
        return generator

    return load


def ticking(step: float = 0.01) -> Callable[[], float]:
    """A clock that goes on by `step` each time that it is read."""
    counter = itertools.count()
    return lambda: next(counter) * step
