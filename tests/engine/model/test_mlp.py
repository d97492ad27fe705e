"""The MLP's non-linearities: gradients of our own against autograd's."""

from __future__ import annotations

import pytest
import torch

from engine.model.mlp import SquaredReLU, bend


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_squared_relu_has_the_gradient_of_autograd_to_the_bit(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    h = torch.randn(3, 5, 64, dtype=dtype)
    h[0, 0, :8] = torch.tensor([0.0, -0.0, 1e-30, -1e-30, 1e10, -1e10, 1.0, -1.0]).to(dtype)
    weight = torch.randn_like(h)
    mine, plain = h.clone().requires_grad_(), h.clone().requires_grad_()
    ours, theirs = bend(mine, "relu2"), torch.relu(plain).square()
    assert type(ours.grad_fn).__name__.startswith(SquaredReLU.__name__)
    assert torch.equal(ours, theirs)
    (ours * weight).sum().backward()
    (theirs * weight).sum().backward()
    assert torch.equal(mine.grad, plain.grad)


def test_squared_relu_keeps_nothing_where_nothing_is_trained() -> None:
    h = torch.randn(2, 8, requires_grad=True)
    with torch.no_grad():
        assert bend(h, "relu2").grad_fn is None
    assert torch.equal(bend(h.detach(), "relu2"), torch.relu(h.detach()).square())
