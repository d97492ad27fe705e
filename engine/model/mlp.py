"""The position-wise feed-forward network. It sees one position at a time and mixes none.

Legend of shape suffixes: B windows, T positions, C width of the residual stream, F hidden width.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from engine.arithmetic import EXPANSION
from engine.config.sections import ModelConfig


class MLP(nn.Module):
    """Widen fourfold, bend, narrow: where most of what a GPT knows of facts is stored."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.fc = nn.Linear(config.n_embd, EXPANSION * config.n_embd, bias=config.bias)
        self.proj = nn.Linear(EXPANSION * config.n_embd, config.n_embd, bias=config.bias)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x_BTC: Tensor) -> Tensor:
        h_BTF = self.fc(x_BTC)
        # GELU (Hendrycks & Gimpel 2016) is smooth where ReLU has a corner and a dead half. GPT-2
        # was trained with its tanh approximation; weights of GPT-2 need that one, since the exact
        # error function moves logits by about 1e-3.
        h_BTF = functional.gelu(h_BTF, approximate="tanh")
        return self.dropout(self.proj(h_BTF))
