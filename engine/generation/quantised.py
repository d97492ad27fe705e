"""Weights in eight bits: a quarter of the memory, and of what each token must read.

Of the linear layers alone, each output channel with a scale of its own (absolute maximum / 127,
rounded to nearest); activations stay floating point. Embeddings, norms, routers and the stacked
experts of a mixture stay as they are. Knows nothing of checkpoints.

Legend of shape suffixes: … any number of positions, I inputs, O outputs.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from engine.errors import InputError

KINDS = ("int8",)
FEW = 16
"""Positions up to which PyTorch's int8 kernel is used; for more, the weights are made floating
point again and the usual product, which is bound by arithmetic and not by memory, is the quicker.
"""


BLOCK = 32
"""The int8 kernel reads whole blocks and checks nothing: on other sizes it reads past the end."""


class Int8Linear(nn.Module):
    """A linear layer whose matrix is int8: y = x·(s·q)ᵀ + b. For inference; it has no gradient."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        weight_OI = linear.weight.detach().float()
        scale_O = (weight_OI.abs().amax(1) / 127).clamp_min(torch.finfo(torch.float32).tiny)
        self.weight: Tensor
        self.scale: Tensor
        self.outputs = len(weight_OI)
        whole_OI = (weight_OI / scale_O[:, None]).round().to(torch.int8)
        missing = -self.outputs % BLOCK  # rows of zeros, whose outputs nobody reads
        self.register_buffer("weight", functional.pad(whole_OI, (0, 0, 0, missing)).contiguous())
        self.register_buffer("scale", functional.pad(scale_O, (0, missing)))
        self.register_buffer("rounded_scale", self.scale.bfloat16())
        self.bias = linear.bias

    def forward(self, x: Tensor) -> Tensor:
        *before, I = x.shape  # noqa: E741 - the legend's name
        few = x.numel() <= FEW * I
        if x.device.type == "cpu" and few and I % BLOCK == 0:
            # The kernel is quick for bfloat16 alone: in float32 it is slower than a float product.
            x_NI = x.reshape(-1, I).bfloat16()
            y = torch._weight_int8pack_mm(x_NI, self.weight, self.rounded_scale)
            y = y.to(x.dtype).view(*before, -1)[..., : self.outputs]
        else:
            y = functional.linear(x, self.weight.to(x.dtype)) * self.scale.to(x.dtype)
            y = y[..., : self.outputs]
        return y if self.bias is None else y + self.bias


def check_kind(kind: str) -> None:
    """Raises InputError unless `kind` is "" (the weights as they are) or one of KINDS."""
    if kind and kind not in KINDS:
        raise InputError(f"quantise = '{kind}': not a kind that is known", "known: int8")


def quantise_linear(model: nn.Module) -> None:
    """Replace the linear layers of `model` by their int8 forms, in place."""
    layers = [
        (parent, name, child)
        for parent in model.modules()
        for name, child in parent.named_children()
        if isinstance(child, nn.Linear) and name != "router"  # whose close calls must not be moved
    ]
    for parent, name, child in layers:
        setattr(parent, name, Int8Linear(child))
