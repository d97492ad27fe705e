"""The position-wise feed-forward network. It sees one position at a time and mixes none.

Legend of shape suffixes: … any number of positions, C width of the residual stream, F hidden width.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from engine.config.sections import ModelConfig
from engine.model.norm import learns_eagerly

CLAMP, SLOPE = 7.0, 1.702
"""GPT-OSS's bound on the halves of its MLP, and the slope that makes a sigmoid a GELU."""


def bend(h: Tensor, kind: str) -> Tensor:
    """The non-linearity between the MLP's two products: (…, F), from (…, 2F) where it is gated."""
    if kind == "gelu":
        # GELU (Hendrycks & Gimpel 2016) is smooth where ReLU has a corner and a dead half. GPT-2
        # was trained with its tanh approximation; weights of GPT-2 need that one, since the exact
        # error function moves logits by about 1e-3.
        if torch.compiler.is_compiling():
            # The same function: (1 + tanh z) / 2 is the sigmoid of 2z. A compiled tanh is dearer
            # than an exponential: by 3 to 6 % of a step, in float32 with AVX2.
            return h * (2 * math.sqrt(2 / math.pi) * (h + 0.044715 * h * h * h)).sigmoid()
        return functional.gelu(h, approximate="tanh")
    if kind == "relu2":
        # Squared, ReLU has no corner and keeps its zeros (Primer, So et al. 2021).
        if learns_eagerly(h):
            return SquaredReLU.apply(h)
        return functional.relu(h).square()
    gate, up = h.chunk(2, dim=-1)
    if kind == "swiglu":
        # One half decides how much of the other passes: a product of two functions of x, where
        # the plain MLP has one (Shazeer 2020, who offers "no explanation" but the losses).
        return functional.silu(gate) * up
    # GPT-OSS: the same with bounded halves, so that no outlier can grow, and a value of 1 where up
    # is 0.
    gate, up = gate.clamp(max=CLAMP), up.clamp(-CLAMP, CLAMP)
    return (up + 1) * gate * (SLOPE * gate).sigmoid()


class SquaredReLU(torch.autograd.Function):
    """relu(h)² and its gradient 2·relu(h): to the bit that of autograd, which goes over memory four
    times where this does twice. A compiler needs neither."""

    @staticmethod
    def forward(ctx: Any, h: Tensor) -> Tensor:
        above = functional.relu(h)
        ctx.save_for_backward(above)
        return above.square()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (above,) = ctx.saved_tensors
        return (gradient * above).mul_(2.0)


class MLP(nn.Module):
    """Widen, bend, narrow: where most of what a GPT knows of facts is stored."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.kind = config.mlp
        F = config.hidden_width
        # A gated MLP's two halves come from one product, the gate first.
        self.fc = nn.Linear(config.n_embd, 2 * F if config.gated else F, bias=config.bias)
        self.proj = nn.Linear(F, config.n_embd, bias=config.bias)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor) -> Tensor:
        return self.dropout(self.proj(bend(self.fc(x), self.kind)))
