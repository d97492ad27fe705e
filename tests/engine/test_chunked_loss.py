"""The loss in pieces is the loss: value and both gradients, whatever the pieces are."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from engine.chunked_loss import chunked_cross_entropy

N, C, V = 37, 8, 50


def parts() -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    features = torch.randn(N, C, requires_grad=True)
    weight = torch.randn(V, C, requires_grad=True)
    return features, weight, torch.randint(V, (N,))


def whole(features: Tensor, weight: Tensor, targets: Tensor, cap: float) -> Tensor:
    logits = functional.linear(features, weight).float()
    logits = cap * (logits / cap).tanh() if cap else logits
    return functional.cross_entropy(logits, targets, reduction="sum")


@pytest.mark.parametrize("cap", [0.0, 2.0])
@pytest.mark.parametrize("chunk", [1, 10, 37, 1000])
def test_value_and_gradients_are_those_of_the_whole(chunk: int, cap: float) -> None:
    features, weight, targets = parts()
    loss = chunked_cross_entropy(features, weight, targets, chunk, cap) / N
    loss.backward()
    other_features, other_weight, _ = parts()
    expected = whole(other_features, other_weight, targets, cap) / N
    expected.backward()
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(features.grad, other_features.grad)
    torch.testing.assert_close(weight.grad, other_weight.grad)


def test_under_autocast_the_products_are_in_16_bits_and_the_sum_is_not() -> None:
    features, weight, targets = parts()
    with torch.autocast("cpu", torch.bfloat16):
        loss = chunked_cross_entropy(features, weight, targets, 10)
    loss.backward()
    assert loss.dtype == torch.float32 and weight.grad.dtype == torch.float32
    rounded = [x.detach().bfloat16().float().requires_grad_() for x in (features, weight)]
    expected = whole(*rounded, targets, 0.0)
    expected.backward()
    torch.testing.assert_close(loss, expected, atol=0.5, rtol=5e-3)
    for mine, theirs in zip((features, weight), rounded, strict=True):
        assert (mine.grad - theirs.grad).norm() < 0.02 * theirs.grad.norm()


def test_without_a_gradient_nothing_is_kept_for_one() -> None:
    features, weight, targets = parts()
    with torch.no_grad():
        loss = chunked_cross_entropy(features, weight, targets, 10)
    torch.testing.assert_close(loss, whole(features, weight, targets, 0.0).detach())
    assert loss.grad_fn is None
