"""Tokens that a step draws before the first of them is handed out: the same texts, and no waits.

The step is the one that is compiled elsewhere, uncompiled.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from engine.config.sections import ModelConfig
from engine.generation import decoding
from engine.generation.generate import generate, generate_batch
from engine.generation.params import SamplingParams
from engine.generation.step import Form, Step, inputs_of, weights_of
from engine.model import GPT, KVCache
from engine.tokenizers import build
from tests.engine.model.shapes import randomised

CPU = torch.device("cpu")
LETTERS = build("char", lambda: iter(["".join(map(chr, range(64, 96)))]), 32)
COUNTED = torch.arange(100)
SHAPES = {
    "rope": ModelConfig(n_layer=1, n_head=2, n_embd=8, context_length=64, position="rope"),
    "learned, outgrown": ModelConfig(n_layer=1, n_head=2, n_embd=8, context_length=16),
    "stream": ModelConfig(n_layer=1, n_head=2, n_embd=8, context_length=16, position="rope"),
}
PLAIN = SamplingParams(temperature=0.9, max_tokens=40, seed=3)


class Uncompiled:
    """Steps that are there at once. `drawn` is how many tokens they have drawn, `read` how many
    they have read for a draw that is made elsewhere."""

    def __init__(self, model: GPT) -> None:
        self._model, self.drawn, self.read = model, 0, 0

    def begin(self) -> None:
        pass

    def give_up(self, error: Exception) -> None:
        raise error

    def next(self, cache: KVCache) -> Uncompiled:
        return self

    def __call__(self, tokens_B1: Tensor, cache: KVCache) -> tuple[Tensor, Tensor, Tensor]:
        self.read += 1
        shape = len(tokens_B1), self._model.vocab_size
        return self._run(tokens_B1, cache, [torch.ones(shape), torch.ones(1)])[:3]

    def draw(
        self, tokens_B1: Tensor, cache: KVCache, race_BV: Tensor, temperature: Tensor
    ) -> tuple[Tensor, Tensor]:
        self.drawn += 1
        return self._run(tokens_B1, cache, [race_BV, temperature])[3:]

    @torch.inference_mode()
    def _run(self, tokens_B1: Tensor, cache: KVCache, draw: list[Tensor]) -> tuple[Tensor, ...]:
        form = Form.of(cache)
        inputs = inputs_of(tokens_B1, cache, COUNTED, form)
        found = Step(self._model, form)(weights_of(self._model), inputs, draw)
        cache.end(1)
        return found


@pytest.fixture(params=SHAPES.values(), ids=SHAPES.keys())
def model(request: pytest.FixtureRequest) -> GPT:
    return randomised(request.param, LETTERS.vocab_size)


@pytest.fixture
def at_leisure(monkeypatch: pytest.MonkeyPatch) -> None:
    """However slow this machine is."""
    monkeypatch.setattr(decoding, "AHEAD_SECONDS", 1e6)


def test_a_text_is_the_same_and_nothing_is_drawn_past_its_end(model: GPT, at_leisure: None) -> None:
    steps: Any = Uncompiled(model)
    expected = list(generate(model, LETTERS, "AB", PLAIN, device=CPU))
    got, most = [], 0
    for token in generate(model, LETTERS, "AB", PLAIN, device=CPU, steps=steps):
        got.append(token.token)
        most = max(most, steps.drawn - len(got))
    assert got == [token.token for token in expected]
    assert 1 < most < decoding.AHEAD
    assert steps.drawn < PLAIN.max_tokens


def test_rows_that_end_in_the_midst_of_what_is_drawn(model: GPT, at_leisure: None) -> None:
    params = SamplingParams(temperature=0.9, max_tokens=25, seed=8, stop=("K", "Q", "V"))
    prompts, found = ["AB", "CD", "EF", "GH"], []
    uncompiled: Any = Uncompiled(model)
    for steps in (None, uncompiled):
        rows = generate_batch(model, LETTERS, prompts, params, device=CPU, steps=steps)
        found.append([(row, token.token, token.text, token.reason) for row, token in rows])
    assert found[0] == found[1]
    ends = {sum(1 for row, *_ in found[0] if row == which) for which in range(len(prompts))}
    assert len(ends) > 1, "they end at different tokens"
    assert uncompiled.read == 0, "a step goes on drawing when some rows have ended"


def test_what_is_slow_is_handed_out_at_once(model: GPT, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "AHEAD_SECONDS", 0.0)
    steps: Any = Uncompiled(model)
    texts = generate(model, LETTERS, "AB", PLAIN, device=CPU, steps=steps)
    for count, _ in enumerate(texts):
        assert steps.drawn <= count
