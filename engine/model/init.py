"""The weights that a GPT starts from, as Radford et al. 2019 (GPT-2, section 2.3) chose them."""

from __future__ import annotations

import math

from torch import nn

from engine.model.attention import CausalSelfAttention
from engine.model.experts import Experts
from engine.model.norm import RMSNorm

STD = 0.02
"""GPT-2's constant, near 1/√C for the widths of its time. Small logits at step 0 make the first
predictions uniform: the first loss is then close to ln(vocabulary)."""


def initialise(model: nn.Module, n_layer: int) -> None:
    """Normal(0, 0.02) for matrices and embeddings, zero biases, ones in the norms; in place.

    Draws from torch's default generator. The original code gave position embeddings 0.01; the
    public reimplementations (transformers, nanoGPT) and this one use 0.02 for both embeddings.
    """
    # Every block adds two terms to the residual stream. 2L of them with equal variance would make
    # the last norm's input √(2L) times as wide as the first's; scaling what enters the sum keeps
    # its variance independent of depth.
    residual_std = STD / math.sqrt(2 * n_layer)
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            writes_to_residual = name.endswith((".attn.proj", ".mlp.proj"))
            nn.init.normal_(module.weight, std=residual_std if writes_to_residual else STD)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=STD)
        elif isinstance(module, Experts):
            nn.init.normal_(module.fc_weight, std=STD)
            nn.init.normal_(module.proj_weight, std=residual_std)
            for bias in (module.fc_bias, module.proj_bias):
                if bias is not None:
                    nn.init.zeros_(bias)
        elif isinstance(module, nn.LayerNorm | RMSNorm):
            nn.init.ones_(module.weight)
            if isinstance(module, nn.LayerNorm) and module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, CausalSelfAttention) and module.sinks is not None:
            # e^0: as much as one position of indifferent content.
            nn.init.zeros_(module.sinks)
