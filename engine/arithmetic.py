"""What a model's shape alone tells: parameters, their table, FLOPs per token. No torch.

The names are those of the network's state (`engine.model.GPT`); a test holds the table equal to the
real module's.
"""

from __future__ import annotations

from collections.abc import Iterator

from engine.config.sections import ModelConfig

Row = tuple[str, tuple[int, ...], int]
ParameterTable = list[Row]
"""Rows of (name, shape, number of parameters), in the order of the network."""


def _linear(name: str, fan_in: int, fan_out: int, bias: bool) -> Iterator[Row]:
    yield f"{name}.weight", (fan_out, fan_in), fan_out * fan_in
    if bias:
        yield f"{name}.bias", (fan_out,), fan_out


def _norm(name: str, model: ModelConfig) -> Iterator[Row]:
    yield f"{name}.weight", (model.n_embd,), model.n_embd
    if model.norm == "layernorm" and model.bias:
        yield f"{name}.bias", (model.n_embd,), model.n_embd


def _attention(name: str, model: ModelConfig) -> Iterator[Row]:
    D, wide = model.head_width, model.n_head + 2 * model.kv_heads
    if model.learned_sinks:
        yield f"{name}.sinks", (model.n_head,), model.n_head
    yield from _linear(f"{name}.qkv", model.n_embd, wide * D, model.bias or model.qkv_bias)
    yield from _linear(f"{name}.proj", model.n_head * D, model.n_embd, model.bias)
    if model.qk_norm:
        yield f"{name}.q_norm.weight", (D,), D
        yield f"{name}.k_norm.weight", (D,), D


def _mlp(name: str, model: ModelConfig) -> Iterator[Row]:
    C, F, E = model.n_embd, model.hidden_width, model.n_expert
    wide = 2 * F if model.gated else F
    if not E:
        yield from _linear(f"{name}.fc", C, wide, model.bias)
        yield from _linear(f"{name}.proj", F, C, model.bias)
        return
    yield f"{name}.fc_weight", (E, wide, C), E * wide * C
    yield f"{name}.proj_weight", (E, C, F), E * C * F
    if model.bias:
        yield f"{name}.fc_bias", (E, wide), E * wide
        yield f"{name}.proj_bias", (E, C), E * C
    yield from _linear(f"{name}.router", C, E, model.bias)


def _rows(model: ModelConfig, vocab_size: int) -> Iterator[Row]:
    width = model.n_embd
    yield "wte.weight", (vocab_size, width), vocab_size * width
    if model.position == "learned":
        yield "wpe.weight", (model.context_length, width), model.context_length * width
    for layer in range(model.n_layer):
        block = f"blocks.{layer}"
        yield from _norm(f"{block}.ln_1", model)
        yield from _attention(f"{block}.attn", model)
        yield from _norm(f"{block}.ln_2", model)
        yield from _mlp(f"{block}.mlp", model)
    yield from _norm("ln_f", model)
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
    projection that it also is. Of experts only the active ones count.
    """
    blocks = 0
    for name, shape, count in _rows(model, vocab_size):
        if name.startswith("blocks.") and name.endswith("weight") and len(shape) >= 2:
            stacked = len(shape) == 3  # (E, out, in)
            blocks += count // model.n_expert * model.n_expert_active if stacked else count
    return blocks + vocab_size * model.n_embd


def active_parameters(model: ModelConfig, vocab_size: int) -> int:
    """All parameters but those of the experts that a token does not go through."""
    return sum(
        count // model.n_expert * model.n_expert_active
        if ".mlp.fc_" in name or ".mlp.proj_" in name
        else count
        for name, _, count in _rows(model, vocab_size)
    )


def flops_per_token(model: ModelConfig, vocab_size: int) -> float:
    """Floating-point operations of training on one token: 6·N_matmul + 12·L·H·Q·T.

    PaLM's formula (Chowdhery et al. 2022, appendix B): 2 forward and 4 backward a weight, and the
    attention products over the whole context of T, of H heads of width Q, in L layers. The causal
    mask's half is counted too, as everyone who reports MFU by this formula does. A layer with a
    window counts its window in the place of T.
    """
    seen = sum(
        min(model.window_of(layer) or model.context_length, model.context_length)
        for layer in range(model.n_layer)
    )
    attention = 12 * model.n_head * model.head_width * seen
    return float(6 * matmul_parameters(model, vocab_size) + attention)


def cache_bytes_per_token(model: ModelConfig, bytes_a_number: int = 4) -> int:
    """Memory that one more position takes in the KV cache, in layers that see everything."""
    full = sum(not model.window_of(layer) for layer in range(model.n_layer))
    return 2 * full * model.kv_heads * model.head_width * bytes_a_number


SINK_SPARE = 8
"""Coordinates that a sink adds to a head: one would do, but kernels want a multiple of 8."""

GRAM_FROM = 2
"""How often as long as high a matrix is whose orthogonal one is sought by its Gram matrix: fewer
products from there on, 2·C/R + 17 instead of 5·(2·C/R + 1) in units of R³."""

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
