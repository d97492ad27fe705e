"""One transformer block: attention moves information between positions, the MLP works on each.

Legend of shape suffixes: B windows, T positions, C width of the residual stream.
"""

from __future__ import annotations

from torch import Tensor, nn

from engine.config.sections import ModelConfig
from engine.model.attention import CausalSelfAttention
from engine.model.mlp import MLP

NORM_EPS = 1e-5
"""Added to the variance before the root; GPT-2's value."""


class Block(nn.Module):
    """Two residual branches, each with its own norm."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(config.n_embd, eps=NORM_EPS, bias=config.bias)
        self.attn = CausalSelfAttention(config)
        self.ln_2 = nn.LayerNorm(config.n_embd, eps=NORM_EPS, bias=config.bias)
        self.mlp = MLP(config)

    def forward(self, x_BTC: Tensor) -> Tensor:
        # The norm stands inside the branch, before its work (pre-norm, as in GPT-2): so the sum
        # itself is never rescaled, and gradients reach every depth by a path of plain additions.
        # The original order, norm after the sum, needs a careful warm-up to train at all
        # (Xiong et al. 2020, "On Layer Normalization in the Transformer Architecture").
        x_BTC = x_BTC + self.attn(self.ln_1(x_BTC))
        return x_BTC + self.mlp(self.ln_2(x_BTC))
