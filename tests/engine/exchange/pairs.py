"""Our network and a public class with the same random weights, small, of every family."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import torch
import transformers
from torch import Tensor, nn

from engine.config.sections import ModelConfig
from engine.exchange import hf_config, weights
from engine.exchange.families import FAMILIES, family_of
from engine.model import GPT
from tests.engine.model.shapes import draw_config, randomised

PLAIN: dict[str, Any] = {
    "sink_tokens": 0, "logit_softcap": 0.0, "learned_sinks": False, "window": 0,
    "window_layers": "all", "n_expert": 0, "qk_norm": False, "renormalise": True,
    "qkv_bias": False,
}  # fmt: skip
MODERN = PLAIN | {"norm": "rmsnorm", "position": "rope", "mlp": "swiglu", "bias": False}


def draw_member(kind: str, seed: int) -> ModelConfig:
    """A random network of the family `kind`."""
    draw = random.Random(f"{kind}-{seed}")
    window = draw.randint(1, 8)
    experts = {"n_expert": draw.randint(2, 6)}
    experts["n_expert_active"] = draw.randint(1, experts["n_expert"])
    fixed = {
        "gpt2": PLAIN
        | {"norm": "layernorm", "position": "learned", "mlp": "gelu", "bias": True}
        | {"n_kv_head": 0, "head_dim": 0},
        "llama": MODERN | {"bias": draw.random() < 0.4},
        "mistral": MODERN | {"window": window},
        "qwen2": MODERN
        | {"qkv_bias": True}
        | draw.choice(({}, {"window": window}, {"window": window, "window_layers": "alternate"})),
        "qwen3": MODERN
        | {"qk_norm": True}
        | draw.choice(({}, {"window": window}, {"window": window, "window_layers": "alternate"})),
        "mixtral": MODERN | experts | draw.choice(({}, {"window": window})),
        "qwen3_moe": MODERN
        | experts
        | {"qk_norm": True, "renormalise": draw.random() < 0.5}
        | draw.choice(({}, {"window": window})),
        "gpt_oss": MODERN
        | experts
        | {"learned_sinks": True, "mlp": "swiglu-clamped", "bias": True}
        | draw.choice(({}, {"window": window}, {"window": window, "window_layers": "alternate"})),
    }[kind]
    if kind in ("qwen2", "qwen3") and fixed.get("window_layers") == "alternate":
        fixed = fixed | {"n_layer": draw.randint(2, 3)}
    config = draw_config(seed, **fixed)
    if config.head_dim and kind not in ("gpt2", "llama"):
        # A stream whose width is no multiple of the heads' number.
        config = replace(config, n_embd=config.n_embd + draw.randint(0, 3))
    assert family_of(config).model_type == kind
    return config


def reference(config: ModelConfig, vocab_size: int) -> nn.Module:
    """The public class of that shape, with weights of its own."""
    family = family_of(config)
    values = hf_config.to_hf(config, family, vocab_size, 0, "float32")
    theirs = transformers.AutoConfig.for_model(**values)
    theirs._attn_implementation = "eager"
    theirs._experts_implementation = "eager"
    return getattr(transformers, family.class_name)(theirs).eval()


def as_theirs(config: ModelConfig, state: dict[str, Tensor]) -> dict[str, Tensor]:
    vocab_size = state["wte.weight"].shape[0]
    found = weights.pieces(config, vocab_size, family_of(config))
    return {piece.name: piece.of(state) for piece in found}


def difference(ours: GPT, theirs: nn.Module, tokens_BT: Tensor) -> float:
    with torch.no_grad():
        return (ours(tokens_BT) - theirs(tokens_BT).logits).abs().max().item()


def tokens_for(config: ModelConfig, vocab_size: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    length = random.Random(seed).randint(2, config.context_length)
    return torch.randint(0, vocab_size, (2, length), generator=generator)


KINDS = tuple(FAMILIES)


def network(kind: str, seed: int, vocab_size: int = 60) -> GPT:
    return randomised(draw_member(kind, seed), vocab_size, seed)
