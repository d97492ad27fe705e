"""Rotary position embedding: queries and keys turned by their place, so that only distance counts.

RoFormer (Su et al. 2021). Pairs of coordinates turn at speeds from 1 to 1/base radians a position:
the product of a query at t and a key at s depends on t - s alone, with nothing learned and no last
place. The pairs are the two halves of a head (GPT-NeoX, Llama), not neighbours as in the paper; the
two differ by a permutation of the weights' rows, so that weights of the one are noise in the other.

Legend of shape suffixes: B windows, T positions, H heads, D width of a head, P pairs (D / 2).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from engine.config.sections import ModelConfig
from engine.model.norm import learns_eagerly

LLAMA3_LOW, LLAMA3_HIGH = 1.0, 4.0
"""Turns within the original context below which a pair is slowed down by the whole factor, and
above which it is left alone (Llama 3.1's published configuration)."""
YARN_SLOW, YARN_FAST = 1.0, 32.0
"""The same two bounds in YaRN, which calls them beta_slow and beta_fast."""


@dataclass(frozen=True)
class Rotation:
    """Cosine and sine of every pair's angle: (T, 1, P), or (B, T, 1, P) where rows differ."""

    cos: Tensor
    sin: Tensor

    def __call__(self, x_BTHD: Tensor) -> Tensor:
        """`x_BTHD` turned, in its own type; computed in float32."""
        if learns_eagerly(x_BTHD):
            return Turned.apply(x_BTHD.float(), *self.whole).to(x_BTHD.dtype)
        first, second = x_BTHD.float().chunk(2, dim=-1)
        turned = (
            first * self.cos - second * self.sin,
            second * self.cos + first * self.sin,
        )
        return torch.cat(turned, dim=-1).to(x_BTHD.dtype)

    @cached_property
    def whole(self) -> tuple[Tensor, Tensor]:
        """For both halves of a head: the cosines, and what the other half is multiplied with."""
        return torch.cat((self.cos, self.cos), dim=-1), torch.cat((-self.sin, self.sin), dim=-1)


class Turned(torch.autograd.Function):
    """The rotation over a head's whole width, and its gradient, which is turned back: two thirds of
    the time of autograd's, half by half (24 × 64 × 4 × 32: 0.8 ms of 1.2)."""

    @staticmethod
    def forward(ctx: Any, x_BTHD: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        return _turned(x_BTHD, cos, sin)

    @staticmethod
    def backward(ctx: Any, gradient_BTHD: Tensor) -> tuple[Tensor, None, None]:
        cos, sin = ctx.saved_tensors
        return _turned(gradient_BTHD, cos, -sin), None, None


def _turned(x_BTHD: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = x_BTHD.chunk(2, dim=-1)
    return torch.cat((second, first), dim=-1).mul_(sin).addcmul_(x_BTHD, cos)


def rotation(config: ModelConfig, positions: Tensor) -> Rotation:
    """How to turn what stands at `positions`, (T,) or (B, T), counted from 0."""
    speeds_P, scale = speeds(config, positions.device)
    # In float32 always: in bfloat16 positions above 256 would fall together.
    angles = (positions.float()[..., None] * speeds_P)[..., None, :]
    return Rotation(angles.cos() * scale, angles.sin() * scale)


def speeds(config: ModelConfig, device: torch.device) -> tuple[Tensor, float]:
    """Radians that each pair turns a position (P,), and the factor on what is turned (YaRN's)."""
    D = config.head_width
    plain_P = config.rope_base ** -(torch.arange(0, D, 2, device=device).float() / D)
    factor = config.rope_factor
    original = config.rope_original_context or int(config.context_length / factor)
    if config.rope_scaling == "linear":
        # As if the longer text were read at the speed that was trained: every distance shrinks.
        return plain_P / factor, 1.0
    if config.rope_scaling == "llama3":
        # Fast pairs tell near neighbours apart and have seen every angle: they stay. Slow ones,
        # which a longer text would carry to angles never seen, are slowed down; between, a blend.
        turns_P = original * plain_P / (2 * math.pi)
        kept_P = ((turns_P - LLAMA3_LOW) / (LLAMA3_HIGH - LLAMA3_LOW)).clamp(0, 1)
        return (kept_P + (1 - kept_P) / factor) * plain_P, 1.0
    if config.rope_scaling == "yarn":
        # The same thought with the blend along the pair's number, and a sharper softmax: more
        # positions dilute attention (Peng et al. 2023, sections 3.2 and 3.4).
        fast, slow = (
            _pair_of(turns, D, config.rope_base, original) for turns in (YARN_FAST, YARN_SLOW)
        )
        if config.rope_truncate:
            fast, slow = math.floor(fast), math.ceil(slow)
        low, high = max(fast, 0), min(slow, D - 1)
        pairs_P = torch.arange(D // 2, device=device).float()
        slowed_P = ((pairs_P - low) / ((high - low) or 1e-3)).clamp(0, 1)
        return (slowed_P / factor + (1 - slowed_P)) * plain_P, 0.1 * math.log(factor) + 1.0
    return plain_P, 1.0


def _pair_of(turns: float, D: int, base: float, original: float) -> float:
    """The number, not rounded, of the pair that turns `turns` times within `original` positions."""
    return D * math.log(original / (turns * 2 * math.pi)) / (2 * math.log(base))
