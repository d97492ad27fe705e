"""Logits equal to GPT2LMHeadModel's, and proof that the comparison would notice an error."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.nn import functional

from engine.config.sections import ModelConfig
from engine.model import GPT

transformers = pytest.importorskip("transformers")

TOLERANCE = 1e-5
# GPT-2's names for ours, inside a block; its projections are stored (in, out), ours (out, in).
NAMES = {
    "ln_1": "ln_1",
    "attn.qkv": "attn.c_attn",
    "attn.proj": "attn.c_proj",
    "ln_2": "ln_2",
    "mlp.fc": "mlp.c_fc",
    "mlp.proj": "mlp.c_proj",
}


def to_gpt2_names(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    converted = {}
    for name, value in state.items():
        stem, _, kind = name.rpartition(".")
        if stem.startswith("blocks."):
            _, layer, part = stem.split(".", 2)
            transposed = kind == "weight" and value.dim() == 2
            value = value.T.contiguous() if transposed else value
            converted[f"transformer.h.{layer}.{NAMES[part]}.{kind}"] = value
        elif stem == "lm_head":
            converted[name] = value
        else:
            converted[f"transformer.{name}"] = value
    if "lm_head.weight" not in converted:
        converted["lm_head.weight"] = converted["transformer.wte.weight"]
    return converted


def draw_shape(seed: int) -> tuple[ModelConfig, int]:
    """A small random configuration; some errors vanish at head width 16, so it is never that."""
    draw = random.Random(seed)
    n_head = draw.randint(1, 4)
    config = ModelConfig(
        n_layer=draw.randint(1, 3),
        n_head=n_head,
        n_embd=n_head * draw.choice((4, 8, 12, 24, 32)),
        context_length=draw.randint(4, 40),
        tie_embeddings=draw.random() < 0.5,
        attention=draw.choice(("sdpa", "reference")),
    )
    return config, draw.randint(20, 200)


def build_pair(seed: int) -> tuple[GPT, torch.nn.Module, torch.Tensor]:
    """Our model and theirs with the same weights, norms and biases randomised too, and tokens."""
    torch.manual_seed(seed)
    config, vocab_size = draw_shape(seed)
    ours = GPT(config, vocab_size).eval()
    with torch.no_grad():
        for name, parameter in ours.named_parameters():
            centre = 1.0 if ".ln_" in f".{name}" and name.endswith("weight") else 0.0
            parameter.normal_(centre, 0.2)
    theirs = transformers.GPT2LMHeadModel(
        transformers.GPT2Config(
            vocab_size=vocab_size,
            n_positions=config.context_length,
            n_embd=config.n_embd,
            n_layer=config.n_layer,
            n_head=config.n_head,
            tie_word_embeddings=config.tie_embeddings,
            attn_implementation="eager",
            # End tokens outside a small vocabulary are harmless and noisy.
            bos_token_id=0,
            eos_token_id=0,
        )
    ).eval()
    theirs.load_state_dict(to_gpt2_names(ours.state_dict()))
    tokens = torch.randint(
        0, vocab_size, (2, random.Random(seed).randint(2, config.context_length))
    )
    return ours, theirs, tokens


def difference(ours: GPT, theirs: torch.nn.Module, tokens: torch.Tensor) -> float:
    with torch.no_grad():
        return (ours(tokens) - theirs(tokens).logits).abs().max().item()


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.mark.parametrize("seed", range(24))
def test_logits_equal_gpt2(seed: int) -> None:
    assert difference(*build_pair(seed)) < TOLERANCE


# Errors that people make, each applied to our network alone -------------------------------------


def exact_gelu(model: GPT) -> None:
    for block in model.blocks:
        mlp = block.mlp
        mlp.forward = lambda x, mlp=mlp: mlp.proj(functional.gelu(mlp.fc(x)))


def no_position_embedding(model: GPT) -> None:
    model.wpe.weight.data.zero_()


def positions_off_by_one(model: GPT) -> None:
    model.wpe.weight.data = model.wpe.weight.data.roll(1, dims=0)


def other_epsilon(model: GPT) -> None:
    for module in model.modules():
        if isinstance(module, torch.nn.LayerNorm):
            module.eps = 1e-3


def no_causal_mask(model: GPT) -> None:
    for block in model.blocks:
        block.attn.attend = lambda q, k, v, *_: functional.scaled_dot_product_attention(q, k, v)


def no_attention_scale(model: GPT) -> None:
    for block in model.blocks:
        block.attn.attend = lambda q, k, v, *_: functional.scaled_dot_product_attention(
            q, k, v, is_causal=True, scale=1.0
        )


def queries_and_keys_swapped(model: GPT) -> None:
    for block in model.blocks:
        original = block.attn.attend
        block.attn.attend = lambda q, k, v, *told, original=original: original(k, q, v, *told)


def norm_after_the_sum(model: GPT) -> None:
    for block in model.blocks:

        def forward(
            x: torch.Tensor, reading: Any, *_: Any, block: torch.nn.Module = block
        ) -> torch.Tensor:
            x = block.ln_1(x + block.attn(x, reading))
            return block.ln_2(x + block.mlp(x))

        block.forward = forward


def no_final_norm(model: GPT) -> None:
    model.ln_f = torch.nn.Identity()


ERRORS = [
    exact_gelu,
    no_position_embedding,
    positions_off_by_one,
    other_epsilon,
    no_causal_mask,
    no_attention_scale,
    queries_and_keys_swapped,
    norm_after_the_sum,
    no_final_norm,
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: error.__name__)
def test_a_deliberate_error_is_noticed(error: Callable[[GPT], None]) -> None:
    """In every configuration the comparison fails, and in the worst one by far."""
    differences = []
    for seed in range(6):
        ours, theirs, tokens = build_pair(seed)
        error(ours)
        differences.append(difference(ours, theirs, tokens))
    assert min(differences) > TOLERANCE
    assert max(differences) > 50 * TOLERANCE
