"""Experts on a CPU: few sizes of products, and every token's result its own expert's."""

from __future__ import annotations

import torch

from engine.config.sections import ModelConfig
from engine.model.experts import SIZES, Experts, _rounded
from engine.model.mlp import bend


def test_products_have_few_sizes() -> None:
    """Each size is a kernel that oneDNN compiles and keeps; an eighth more rows at most."""
    sizes = {len(_rounded(torch.empty(n, 4))) for n in range(1, 2049)}
    assert len(sizes) <= SIZES * 12
    for n in range(1, 2049):
        assert n <= len(_rounded(torch.empty(n, 4))) <= n * 1.125
    rows = torch.randn(1000, 4)
    torch.testing.assert_close(_rounded(rows)[:1000], rows)
    assert not _rounded(rows)[1000:].any()


def test_rounding_changes_no_result_and_no_gradient() -> None:
    """A token goes through its experts as if it were alone."""
    torch.manual_seed(0)
    config = ModelConfig(n_layer=1, n_head=1, n_embd=8, n_expert=3, n_expert_active=2)
    experts = Experts(config)
    for parameter in experts.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    x = torch.randn(1, 157, 8, requires_grad=True)
    together = experts(x)
    weights, chosen = experts.choose(experts.router(x[0]))
    alone = []
    for row, weight, numbers in zip(x[0], weights, chosen, strict=True):
        parts = []
        for share, number in zip(weight, numbers, strict=True):
            h = bend(experts.fc_weight[number] @ row + experts.fc_bias[number], config.mlp)
            y = experts.proj_weight[number] @ h + experts.proj_bias[number]
            parts.append(share * y)
        alone.append(torch.stack(parts).sum(0))
    expected = torch.stack(alone)
    torch.testing.assert_close(together[0], expected, rtol=1e-4, atol=1e-5)
    grads = torch.autograd.grad(together.square().sum(), experts.fc_weight, retain_graph=True)
    others = torch.autograd.grad(expected.square().sum(), experts.fc_weight)
    torch.testing.assert_close(grads, others, rtol=1e-3, atol=1e-4)
