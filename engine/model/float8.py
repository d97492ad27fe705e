"""Linear layers that multiply in 8 bits, for cards whose units are twice as fast in them.

Every tensor of a product is scaled by its own largest number, so that it fills the format's range:
activations and weights in e4m3 (three bits of fraction), gradients in e5m2, which reaches further
(Micikevicius et al. 2022, arXiv 2209.05433). Weights, their gradients and everything between the
products stay as they are. What is gained by halving the time of the products is partly spent on the
scaling; only large matrices win.

Legend of shape suffixes: N tokens, C features in, F features out.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

DIVISOR = 16
"""The units take matrices whose sides are multiples of this alone."""


def to_float8(module: nn.Module) -> int:
    """Let the linear layers inside `module` train in 8 bits; says how many are.

    Those stay as they are whose sides the units do not take. Parameters are not touched; outside of
    training (`eval`) nothing changes.
    """
    count = 0
    for layer in module.modules():
        sides = (layer.in_features, layer.out_features) if type(layer) is nn.Linear else (1,)
        if all(side % DIVISOR == 0 for side in sides):
            layer.__class__ = Float8Linear
            count += 1
    return count


class Float8Linear(nn.Linear):
    """`nn.Linear` whose three products, forward and backward, are made in 8 bits when training."""

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.numel() // x.shape[-1]
        if not self.training or not torch.is_grad_enabled() or tokens % DIVISOR:
            return super().forward(x)
        y_NF = _Product.apply(x.flatten(0, -2), self.weight)
        y = y_NF.unflatten(0, x.shape[:-1])
        return y if self.bias is None else y + self.bias.to(y.dtype)


class _Product(torch.autograd.Function):
    """x · weightᵀ: (N, F), in bfloat16."""

    @staticmethod
    def forward(ctx: Any, x_NC: Tensor, weight_FC: Tensor) -> Tensor:
        x8_NC, x_scale = quantise(x_NC, torch.float8_e4m3fn)
        weight8_FC, weight_scale = quantise(weight_FC, torch.float8_e4m3fn)
        ctx.save_for_backward(x8_NC, x_scale, weight8_FC, weight_scale)
        ctx.dtypes = x_NC.dtype, weight_FC.dtype
        return _multiply(x8_NC, weight8_FC.T, x_scale, weight_scale)

    @staticmethod
    def backward(ctx: Any, slope_NF: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        x8_NC, x_scale, weight8_FC, weight_scale = ctx.saved_tensors
        slope8_NF, scale = quantise(slope_NF, torch.float8_e5m2)
        to_x_NC = _multiply(slope8_NF, _by_columns(weight8_FC), scale, weight_scale)
        to_weight_FC = _multiply(slope8_NF.T.contiguous(), _by_columns(x8_NC), scale, x_scale)
        of_x, of_weight = ctx.dtypes
        return to_x_NC.to(of_x), to_weight_FC.to(of_weight)


def quantise(x: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """`x` in 8 bits, and the scale () that it is to be multiplied with to be `x` again."""
    most = torch.finfo(dtype).max
    largest = x.detach().abs().amax().float().clamp(min=1e-30)
    return (x.float() * (most / largest)).clamp(-most, most).to(dtype), largest / most


def _multiply(left: Tensor, right: Tensor, left_scale: Tensor, right_scale: Tensor) -> Tensor:
    """left · right; the units want `left` by rows and `right` by columns."""
    return torch._scaled_mm(
        left, right, scale_a=left_scale, scale_b=right_scale, out_dtype=torch.bfloat16
    )


def _by_columns(x: Tensor) -> Tensor:
    return x.T.contiguous().T
