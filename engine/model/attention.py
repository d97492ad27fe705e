"""Causal self-attention with its weights: multi-head, grouped-query or multi-query.

Knows nothing of what surrounds it; where things stand comes as a `Reading`.

Legend of shape suffixes: B windows, T positions (queries), S positions (keys), C width of the
residual stream, H heads of queries, G heads of keys and values, D width of a head.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from engine.config.sections import ModelConfig
from engine.model.attend import ATTENTION, Sight
from engine.model.cache import LayerCache
from engine.model.norm import RMSNorm
from engine.model.rope import Rotation


@dataclass(frozen=True)
class Reading:
    """How one pass through the network reads: who sees what, and how its place turns it."""

    sight: Sight
    turn: Rotation | None = None
    """Of the queries, and of the new keys before they are kept."""
    turn_kept: Rotation | None = None
    """Of all keys after they were kept as they are: then `turn` is for the queries alone."""


class CausalSelfAttention(nn.Module):
    """Every position gathers from itself and those before it, in H subspaces at once."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.n_head, self.n_kv_head = config.n_head, config.kv_heads
        self.head_width = D = config.head_width
        self.dropout = config.dropout
        self.attend = ATTENTION[config.attention]
        # Queries, keys and values from one matrix product: three small ones keep a device less busy
        # than one as wide as all. GPT-2 stores them so too (`c_attn`). With fewer heads of keys
        # than of queries (GQA, Ainslie et al. 2023) little is lost, and the cache that generation
        # reads for every token shrinks by as much.
        wide = (self.n_head + 2 * self.n_kv_head) * D
        # A bias of the keys and queries lets a head prefer a distance whatever stands there: Qwen
        # kept these alone, for texts longer than it was trained on (Bai et al. 2023).
        self.qkv = nn.Linear(config.n_embd, wide, bias=config.bias or config.qkv_bias)
        self.proj = nn.Linear(self.n_head * D, config.n_embd, bias=config.bias)
        self.proj_dropout = nn.Dropout(config.dropout)
        if config.qk_norm:
            # Large weights make large queries, whose softmax is all or nothing and teaches nothing;
            # the norm bounds every logit by √D times the two gains (Henry et al. 2020).
            self.q_norm = RMSNorm(D, config.norm_eps)
            self.k_norm = RMSNorm(D, config.norm_eps)
        else:
            self.q_norm = self.k_norm = None
        self.sinks = nn.Parameter(torch.zeros(self.n_head)) if config.learned_sinks else None

    def forward(self, x_BTC: Tensor, reading: Reading, kept: LayerCache | None = None) -> Tensor:
        B, T, _ = x_BTC.shape
        H, G, D = self.n_head, self.n_kv_head, self.head_width
        # Heads become an axis of their own, so that each one attends by itself; several narrow
        # heads can look at several places, one wide head only at one.
        qkv_BTXD = self.qkv(x_BTC).view(B, T, H + 2 * G, D)
        q_BTHD, k_BTGD, v_BTGD = qkv_BTXD.split((H, G, G), dim=2)
        if self.q_norm is not None and self.k_norm is not None:
            q_BTHD, k_BTGD = self.q_norm(q_BTHD), self.k_norm(k_BTGD)
        if reading.turn is not None:
            q_BTHD = reading.turn(q_BTHD)
            if reading.turn_kept is None:
                k_BTGD = reading.turn(k_BTGD)
        q_BHTD, k_BGSD, v_BGSD = (x.transpose(1, 2) for x in (q_BTHD, k_BTGD, v_BTGD))
        if kept is not None:
            k_BGSD, v_BGSD = kept.extend(k_BGSD, v_BGSD)
            if reading.turn_kept is not None:
                k_BGSD = reading.turn_kept(k_BGSD.transpose(1, 2)).transpose(1, 2)
        # Dropout on the weights is for training alone; the function knows no train or eval mode.
        dropout = self.dropout if self.training else 0.0
        y_BHTD = self.attend(q_BHTD, k_BGSD, v_BGSD, reading.sight, self.sinks, dropout)
        y_BTX = y_BHTD.transpose(1, 2).reshape(B, T, H * D)  # the heads side by side again
        return self.proj_dropout(self.proj(y_BTX))
