"""What a model's shape alone tells: parameters, their table, FLOPs per token. No torch.

The names are those of the network's state (`engine.model.GPT`); a test holds the table equal to the
real module's.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from engine.config.sections import ModelConfig

Row = tuple[str, tuple[int, ...], int]
ParameterTable = list[Row]
"""Rows of (name, shape, number of parameters), in the order of the network."""

EXPANSION = 4
"""Hidden width of the MLP over the stream's. Vaswani et al. 2017 chose it; two thirds of a block's
parameters live there."""


def _linear(name: str, fan_in: int, fan_out: int, bias: bool) -> Iterator[Row]:
    yield f"{name}.weight", (fan_out, fan_in), fan_out * fan_in
    if bias:
        yield f"{name}.bias", (fan_out,), fan_out


def _norm(name: str, width: int, bias: bool) -> Iterator[Row]:
    yield f"{name}.weight", (width,), width
    if bias:
        yield f"{name}.bias", (width,), width


def _rows(model: ModelConfig, vocab_size: int) -> Iterator[Row]:
    width, bias = model.n_embd, model.bias
    yield "wte.weight", (vocab_size, width), vocab_size * width
    yield "wpe.weight", (model.context_length, width), model.context_length * width
    for layer in range(model.n_layer):
        block = f"blocks.{layer}"
        yield from _norm(f"{block}.ln_1", width, bias)
        yield from _linear(f"{block}.attn.qkv", width, 3 * width, bias)
        yield from _linear(f"{block}.attn.proj", width, width, bias)
        yield from _norm(f"{block}.ln_2", width, bias)
        yield from _linear(f"{block}.mlp.fc", width, EXPANSION * width, bias)
        yield from _linear(f"{block}.mlp.proj", EXPANSION * width, width, bias)
    yield from _norm("ln_f", width, bias)
    if not model.tie_embeddings:
        yield from _linear("lm_head", width, vocab_size, bias=False)


def parameter_table(model: ModelConfig, vocab_size: int) -> ParameterTable:
    """Every parameter tensor; a tied output matrix appears once, as `wte.weight`."""
    return list(_rows(model, vocab_size))


def count_parameters(model: ModelConfig, vocab_size: int) -> int:
    """All parameters, embeddings included, a tied matrix counted once."""
    return sum(count for _, _, count in _rows(model, vocab_size))


def matmul_parameters(model: ModelConfig, vocab_size: int) -> int:
    """Weights that a token is multiplied with: those of the blocks, and the output projection.

    Embeddings are looked up, not multiplied, and are left out; a tied matrix counts as the output
    projection that it also is.
    """
    blocks = sum(
        math.prod(shape)
        for name, shape, _ in _rows(model, vocab_size)
        if name.startswith("blocks.") and len(shape) == 2
    )
    return blocks + vocab_size * model.n_embd


def flops_per_token(model: ModelConfig, vocab_size: int) -> float:
    """Floating-point operations of training on one token: 6·N_matmul + 12·L·H·Q·T.

    PaLM's formula (Chowdhery et al. 2022, appendix B): 2 forward and 4 backward a weight, and the
    attention products over the whole context of T, of H heads of width Q, in L layers. The causal
    mask's half is counted too, as everyone who reports MFU by this formula does.
    """
    attention = 12 * model.n_layer * model.n_embd * model.context_length  # H·Q is n_embd
    return float(6 * matmul_parameters(model, vocab_size) + attention)


WRITTEN_OUT_CONTEXT = 512
"""The longest context whose (T, T) matrices are worth their memory for speed alone."""


def writes_attention_out(attention: str, context: int, *, on_cpu: bool, bfloat16: bool) -> bool:
    """Whether attention is computed as two matrix products and a softmax, storing its matrix.

    `auto` does so where that was measured to be faster: on a CPU in bfloat16, whose matrix units
    the fused kernel leaves idle (128×4×4, context 64: 42 700 tokens/s against 25 200).
    """
    if attention == "auto":
        return on_cpu and bfloat16 and context <= WRITTEN_OUT_CONTEXT
    return attention == "reference"
