"""The two normalisations of a residual stream: LayerNorm, and RMSNorm, its plainer successor."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from engine.config.sections import ModelConfig


class RMSNorm(nn.Module):
    """x / √(mean(x²) + ε), times a learned gain (Zhang & Sennrich 2019).

    LayerNorm takes the mean away first and adds an offset at the end; neither was found to matter,
    so that the newer networks leave both out. The root is taken in float32.
    """

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return functional.rms_norm(x.float(), self.weight.shape, self.weight, self.eps).to(x.dtype)


def build_norm(config: ModelConfig) -> nn.Module:
    """The norm of the residual stream that `config` asks for."""
    if config.norm == "rmsnorm":
        return RMSNorm(config.n_embd, config.norm_eps)
    return nn.LayerNorm(config.n_embd, eps=config.norm_eps, bias=config.bias)
