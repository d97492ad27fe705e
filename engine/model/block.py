"""One transformer block: attention moves information between positions, the MLP works on each.

Legend of shape suffixes: B windows, T positions, C width of the residual stream.
"""

from __future__ import annotations

from torch import Tensor, nn

from engine.config.sections import ModelConfig
from engine.model.attention import CausalSelfAttention, Reading
from engine.model.cache import LayerCache
from engine.model.experts import Experts, Routing
from engine.model.mlp import MLP
from engine.model.norm import build_norm


class Block(nn.Module):
    """Two residual branches, each with its own norm."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.ln_1 = build_norm(config)
        self.attn = CausalSelfAttention(config)
        self.ln_2 = build_norm(config)
        self.mlp = Experts(config) if config.n_expert else MLP(config)

    def forward(
        self,
        x_BTC: Tensor,
        reading: Reading,
        kept: LayerCache | None = None,
        routing: Routing | None = None,
    ) -> Tensor:
        # The norm stands inside the branch, before its work (pre-norm, as in GPT-2): so the sum
        # itself is never rescaled, and gradients reach every depth by a path of plain additions.
        # The original order, norm after the sum, needs a careful warm-up to train at all
        # (Xiong et al. 2020, "On Layer Normalization in the Transformer Architecture").
        x_BTC = x_BTC + self.attn(self.ln_1(x_BTC), reading, kept)
        h_BTC = self.ln_2(x_BTC)
        if isinstance(self.mlp, Experts):
            return x_BTC + self.mlp(h_BTC, routing)
        return x_BTC + self.mlp(h_BTC)
