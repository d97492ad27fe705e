"""RMSNorm where its gradient is our own, against PyTorch's put together from parts."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from engine.model.norm import RMSNorm, RootMeanSquare

EPS = 1e-5


def gradients(x: torch.Tensor, weight: torch.Tensor, ours: bool) -> list[torch.Tensor]:
    """The result, and the gradients of its weighted sum by both, in the type of `x`."""
    mine, gain = x.clone().requires_grad_(), weight.clone().requires_grad_()
    if ours:
        norm = RMSNorm(len(weight), EPS).to(weight.dtype)
        norm.weight = torch.nn.Parameter(gain)
        gain = norm.weight
        y = norm(mine)
        assert RootMeanSquare.__name__ in str(y.grad_fn.next_functions) + str(y.grad_fn)
    else:
        y = functional.rms_norm(mine, weight.shape, gain, EPS)
    towards = torch.randn(y.shape, generator=torch.Generator().manual_seed(1)).to(y.dtype)
    (y * towards).sum().backward()
    return [y.detach(), mine.grad, gain.grad]


@pytest.mark.parametrize("shape", [(4, 7, 64), (2, 3, 5, 16), (1, 8)])
@pytest.mark.parametrize("scale", [1e-4, 1.0, 300.0])
def test_the_gradients_are_those_of_the_definition(shape: tuple[int, ...], scale: float) -> None:
    """Against float64, no further than PyTorch's own float32 is."""
    torch.manual_seed(0)
    x, weight = torch.randn(shape) * scale + scale, torch.randn(shape[-1])
    exact = gradients(x.double(), weight.double(), ours=False)
    for mine, plain, true in zip(
        gradients(x, weight, ours=True), gradients(x, weight, ours=False), exact, strict=True
    ):
        size = float(true.abs().max())
        error = float((mine - true).abs().max()) / size
        assert error <= 3 * float((plain - true).abs().max()) / size + 1e-6


def test_a_strided_slice_and_a_frozen_gain() -> None:
    torch.manual_seed(0)
    whole = torch.randn(2, 6, 12, 8, requires_grad=True)
    norm = RMSNorm(8, EPS).requires_grad_(False)
    norm(whole[:, :, 2:6]).square().sum().backward()
    mine, whole.grad = whole.grad, None
    functional.rms_norm(whole[:, :, 2:6], (8,), norm.weight, EPS).square().sum().backward()
    torch.testing.assert_close(mine, whole.grad)
    assert norm.weight.grad is None


def test_a_row_of_zeros_has_a_gradient_that_is_finite() -> None:
    x = torch.zeros(2, 8, requires_grad=True)
    RMSNorm(8, EPS)(x).sum().backward()
    torch.testing.assert_close(x.grad, torch.full((2, 8), EPS**-0.5))


def test_bfloat16_is_normed_in_float32() -> None:
    torch.manual_seed(0)
    x = torch.randn(3, 64, dtype=torch.bfloat16, requires_grad=True)
    y = RMSNorm(64, EPS)(x)
    assert y.dtype == torch.bfloat16
    assert torch.equal(y, functional.rms_norm(x.float(), (64,), None, EPS).bfloat16())


def test_nothing_is_kept_where_nothing_is_trained() -> None:
    norm, x = RMSNorm(8, EPS), torch.randn(3, 8)
    with torch.no_grad():
        assert norm(x.requires_grad_()).grad_fn is None
