"""Causal multi-head self-attention: once written out to be read, once through the fused kernel.

Knows nothing of positions or of what surrounds it: order enters only through the causal mask, and
through what the embeddings put into x.

Legend of shape suffixes: B windows, T positions (queries), S positions (keys; S = T here),
C width of the residual stream, H heads, D width of a head (C / H).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from engine.arithmetic import writes_attention_out
from engine.config.sections import ModelConfig


def reference_attention(q_BHTD: Tensor, k_BHSD: Tensor, v_BHSD: Tensor, dropout: float) -> Tensor:
    """Scaled dot-product attention, as Vaswani et al. 2017 (section 3.2.1) write it.

    Equal to `functional.scaled_dot_product_attention(…, is_causal=True)`, whose kernel computes the
    same in tiles and never stores the (T, S) matrix (FlashAttention, Dao et al. 2022). With dropout
    the two draw different random numbers.
    """
    T, D = q_BHTD.shape[-2:]
    # A dot product of D independent terms of variance 1 has variance D. Without the division the
    # logits grow with the head's width, softmax saturates, and its gradient vanishes.
    scores_BHTS = q_BHTD @ k_BHSD.transpose(-2, -1) / math.sqrt(D)
    # A position that could see its successor would learn to copy the answer. Minus infinity, not
    # zero after the softmax: so the visible positions still sum to one.
    future_TS = torch.ones(T, T, dtype=torch.bool, device=q_BHTD.device).triu(diagonal=1)
    scores_BHTS = scores_BHTS.masked_fill(future_TS, float("-inf"))
    # In float32 even under autocast: a sum of many small exponentials loses its tail in 8 bits.
    weights_BHTS = scores_BHTS.float().softmax(dim=-1).to(v_BHSD.dtype)
    return functional.dropout(weights_BHTS, dropout) @ v_BHSD


def fused_attention(q_BHTD: Tensor, k_BHSD: Tensor, v_BHSD: Tensor, dropout: float) -> Tensor:
    """The same by PyTorch's kernel, in memory that grows with T and not with T²."""
    return functional.scaled_dot_product_attention(
        q_BHTD, k_BHSD, v_BHSD, dropout_p=dropout, is_causal=True
    )


def quickest_attention(q_BHTD: Tensor, k_BHSD: Tensor, v_BHSD: Tensor, dropout: float) -> Tensor:
    """Whichever of the two is the faster here; they compute the same."""
    written_out = writes_attention_out(
        "auto",
        q_BHTD.shape[-2],
        on_cpu=q_BHTD.device.type == "cpu",
        bfloat16=q_BHTD.dtype == torch.bfloat16,
    )
    attend = reference_attention if written_out else fused_attention
    return attend(q_BHTD, k_BHSD, v_BHSD, dropout)


ATTENTION = {
    "auto": quickest_attention,
    "sdpa": fused_attention,
    "reference": reference_attention,
}


class CausalSelfAttention(nn.Module):
    """Every position gathers from itself and those before it, in H subspaces at once."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        C = config.n_embd
        self.n_head = config.n_head
        self.dropout = config.dropout
        self.attend = ATTENTION[config.attention]
        # Queries, keys and values from one matrix product: three small ones keep a device less busy
        # than one three times as wide. GPT-2 stores them so too (`c_attn`).
        self.qkv = nn.Linear(C, 3 * C, bias=config.bias)
        self.proj = nn.Linear(C, C, bias=config.bias)
        self.proj_dropout = nn.Dropout(config.dropout)

    def forward(self, x_BTC: Tensor) -> Tensor:
        B, T, C = x_BTC.shape
        D = C // self.n_head
        # (B, T, 3C) -> three of (B, H, T, D): heads become a batch axis, so that each one attends
        # by itself; several narrow heads can look at several places, one wide head only at one.
        qkv_BT3HD = self.qkv(x_BTC).view(B, T, 3, self.n_head, D)
        q_BHTD, k_BHSD, v_BHSD = qkv_BT3HD.permute(2, 0, 3, 1, 4).unbind(0)
        # Dropout on the weights is for training alone; the function knows no train or eval mode.
        y_BHTD = self.attend(q_BHTD, k_BHSD, v_BHSD, self.dropout if self.training else 0.0)
        y_BTC = y_BHTD.transpose(1, 2).reshape(B, T, C)  # the heads side by side again
        return self.proj_dropout(self.proj(y_BTC))
