"""Random small networks of the whole family, for tests that must hold for all of them."""

from __future__ import annotations

import random
from typing import Any

import torch

from engine.config.architecture import check_architecture
from engine.config.sections import ModelConfig
from engine.model import GPT

HEAD_WIDTHS = (4, 6, 8, 12, 24, 32)
"""Not 16, at which some errors vanish."""


def draw_config(seed: int, **fixed: Any) -> ModelConfig:
    """Any combination that the configuration accepts; `fixed` fields are not drawn."""
    draw = random.Random(seed)
    heads = draw.choice((1, 2, 3, 4, 6))
    position = fixed.get("position") or draw.choice(("learned", "rope", "rope", "none"))
    context = draw.randint(6, 40)
    window = draw.choice((0, 0, draw.randint(1, context)))
    experts = draw.choice((0, 0, draw.randint(2, 6)))
    width = draw.choice(HEAD_WIDTHS)
    scaling = draw.choice(("none", "none", "linear", "llama3", "yarn"))
    values: dict[str, Any] = {
        "n_layer": draw.randint(1, 3),
        "n_head": heads,
        "n_kv_head": draw.choice([0, *(g for g in range(1, heads + 1) if heads % g == 0)]),
        "n_embd": heads * width,
        "head_dim": draw.choice((0, draw.choice(HEAD_WIDTHS))),
        "n_hidden": draw.choice((0, draw.randint(3, 40))),
        "context_length": context,
        "norm": draw.choice(("layernorm", "rmsnorm")),
        "norm_eps": draw.choice((1e-5, 1e-6)),
        "position": position,
        "mlp": draw.choice(("gelu", "swiglu", "relu2", "swiglu-clamped")),
        "qk_norm": draw.random() < 0.4,
        "window": window,
        "window_layers": draw.choice(("all", "alternate")) if window else "all",
        "sink_tokens": draw.choice((0, draw.randint(1, 4))) if window else 0,
        "learned_sinks": draw.random() < 0.4,
        "n_expert": experts,
        "n_expert_active": draw.randint(1, max(1, experts)),
        "renormalise": draw.random() < 0.7,
        "logit_softcap": draw.choice((0.0, 0.0, 5.0)),
        "bias": draw.random() < 0.5,
        "tie_embeddings": draw.random() < 0.5,
    }
    if position == "rope":
        values["rope_base"] = draw.choice((100.0, 10_000.0, 500_000.0))
        values["rope_scaling"] = scaling
        values["rope_factor"] = 1.0 if scaling == "none" else draw.choice((2.0, 4.0))
        if (values | fixed)["rope_scaling"] == "yarn":
            values["rope_truncate"] = draw.random() < 0.5
    values["qkv_bias"] = draw.random() < 0.3 and not (values | fixed)["bias"]
    config = ModelConfig(**(values | fixed))
    check_architecture(config)
    return config


def randomised(config: ModelConfig, vocab_size: int, seed: int = 0) -> GPT:
    """A network of that shape in which nothing is at its start: norms, biases and sinks neither."""
    torch.manual_seed(seed)
    model = GPT(config, vocab_size).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            gain = name.endswith("weight") and parameter.dim() == 1
            # A matrix's outputs as wide as its inputs: larger ones only magnify rounding.
            std = min(0.2, parameter.shape[-1] ** -0.5) if parameter.dim() > 1 else 0.2
            parameter.normal_(1.0 if gain else 0.0, std)
    return model


def assert_same(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    """Equal but for the rounding of float32, which grows with the largest number."""
    largest = max(1.0, theirs.abs().max().item())
    torch.testing.assert_close(ours, theirs, atol=1e-5 * largest, rtol=0)
