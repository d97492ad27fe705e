"""Products in 8 bits: near enough forward and backward, and only where they may be."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from engine.config.sections import ModelConfig
from engine.model import GPT
from engine.model.float8 import Float8Linear, quantise, to_float8


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2])
@pytest.mark.parametrize("size", [1e-15, 1.0, 1e15])
def test_a_tensor_fills_the_formats_range_whatever_its_size(
    dtype: torch.dtype, size: float
) -> None:
    """Unscaled, small gradients would all be zero and large activations infinite."""
    torch.manual_seed(0)
    x = size * torch.randn(64, 32)
    x8, scale = quantise(x, dtype)
    assert float(x8.float().abs().max()) == torch.finfo(dtype).max
    again = x8.float() * scale
    assert (again - x).norm() < 2 ** -(3 if dtype == torch.float8_e4m3fn else 2) * x.norm()
    assert torch.isfinite(again).all()


def test_zeros_stay_zeros() -> None:
    x8, scale = quantise(torch.zeros(16, 16), torch.float8_e4m3fn)
    assert x8.float().count_nonzero() == 0 and torch.isfinite(scale)


def test_value_and_gradients_are_near_those_of_the_linear_layer() -> None:
    torch.manual_seed(0)
    exact = nn.Linear(64, 48)
    rough = nn.Linear(64, 48)
    rough.load_state_dict(exact.state_dict())
    assert to_float8(nn.ModuleList([rough])) == 1
    x = torch.randn(4, 16, 64)
    slope = torch.randn(4, 16, 48)
    results = []
    for layer in (exact, rough):
        inputs = x.clone().requires_grad_()
        y = layer(inputs)
        y.backward(slope.to(y.dtype))
        results.append((y.float(), inputs.grad, layer.weight.grad, layer.bias.grad))
    for name, right, near in zip(("y", "x", "weight", "bias"), *results, strict=True):
        assert near.dtype == right.dtype
        error = float((near - right).norm() / right.norm())
        assert error < 0.08, (name, error)
        assert name == "bias" or error > 0  # else nothing was rounded, and this tests nothing


def test_what_the_units_do_not_take_stays_and_evaluation_is_exact() -> None:
    torch.manual_seed(0)
    config = ModelConfig(n_layer=1, n_head=2, n_embd=24, n_hidden=40, context_length=8)
    model = GPT(config, 30)
    assert to_float8(model) == 0
    model = GPT(ModelConfig(n_layer=2, n_head=2, n_embd=32, context_length=16), 30)
    tokens = torch.randint(30, (2, 16))
    before, names = model(tokens), list(model.state_dict())
    assert to_float8(model.blocks) == 8
    assert type(model.lm_head) is nn.Linear and type(model.blocks[0].mlp.fc) is Float8Linear
    assert list(model.state_dict()) == names
    assert not torch.equal(model(tokens), before)
    torch.testing.assert_close(model(tokens), before, atol=0.05, rtol=0.1)
    model.eval()
    assert torch.equal(model(tokens), before)
