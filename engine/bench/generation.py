"""How fast the engine generates, and which part of what memory allows that is.

Decoding one text reads every weight once a token and computes next to nothing: no device can be
faster than its memory divided by the weights' bytes (the roofline).
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch

from engine.arithmetic import matmul_parameters
from engine.bench.shapes import FIRST_CHARACTER
from engine.bench.training import Tell
from engine.config.sections import ModelConfig
from engine.generation.compiled import Steps, When
from engine.generation.generate import generate
from engine.generation.layout import lay_out
from engine.generation.params import SamplingParams
from engine.model import GPT
from engine.tokenizers import Tokenizer, build

TOKENS = 256
TEMPERATURE = 0.8


@dataclass(frozen=True)
class GenerationRate:
    """Tokens a second of one text, of whole texts of `tokens`: median, slowest, fastest.
    `first`: of the first text, which began eagerly; then `wait_seconds` passed until the compiled
    step was there, if there is one. `bytes_a_token`: of the weights that one token is multiplied
    with."""

    tokens_per_second: float
    low: float
    high: float
    first: float
    wait_seconds: float
    tokens: int
    texts: int
    bytes_a_token: int
    precision: str

    def roofline(self, bandwidth: float) -> float:
        """Share of the rate at which `bandwidth` bytes a second would bring the weights."""
        return self.tokens_per_second * self.bytes_a_token / bandwidth if bandwidth else 0.0


def generation_rate(
    shape: ModelConfig,
    vocab_size: int,
    device: torch.device,
    *,
    seconds: float,
    when: When = "behind",
    tell: Tell = lambda what, share: None,
) -> GenerationRate:
    """The rate of a fresh network of this shape: random weights are as fast as trained ones.

    One text at a time, from one token up to the context, sampled, through the same loop that
    serves a console. The first text warms up and does not count, nor does waiting for a compiled
    step (`when`: as `engine.generation.compiled` has it). The global random state is kept.
    """
    tokens = min(TOKENS, shape.context_length)
    tokenizer = _tokenizer(vocab_size)
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(1)
        model = GPT(shape, vocab_size).eval().to(device)
    lay_out(model)
    steps = Steps(model, device, when)
    params = SamplingParams(temperature=TEMPERATURE, max_tokens=tokens, seed=1)

    def once() -> float:
        began = time.perf_counter()
        texts = generate(model, tokenizer, [0], params, device=device, steps=steps)
        made = sum(1 for _ in texts)
        return made / (time.perf_counter() - began)

    tell("warming up", 0.0)
    first = once()
    tell("compiling", 0.0)
    began = time.perf_counter()
    try:
        steps.wait()
    except BaseException:
        steps.close()
        raise
    wait_seconds = time.perf_counter() - began
    once()
    rates: list[float] = []
    began = time.perf_counter()
    while len(rates) < 3 or time.perf_counter() - began < seconds:
        rates.append(once())
        tell("generating", min(1.0, (time.perf_counter() - began) / seconds))
    rates.sort()
    weight = model.wte.weight
    return GenerationRate(
        tokens_per_second=rates[len(rates) // 2],
        low=rates[0],
        high=rates[-1],
        first=first,
        wait_seconds=wait_seconds,
        tokens=tokens,
        texts=len(rates),
        bytes_a_token=matmul_parameters(shape, vocab_size) * weight.element_size(),
        precision=str(weight.dtype).removeprefix("torch."),
    )


def _tokenizer(vocab_size: int) -> Tokenizer:
    """One of `vocab_size` characters: generation needs names for what it draws."""
    text = "".join(chr(FIRST_CHARACTER + index) for index in range(vocab_size))
    return build("char", lambda: iter([text]), 0)
