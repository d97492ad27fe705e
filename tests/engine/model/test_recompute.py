"""Activations computed twice give the gradients of activations kept."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from engine.config.sections import ModelConfig
from engine.model import GPT
from engine.objectives import Pretrain

SHAPE = {"n_layer": 3, "n_head": 2, "n_embd": 16, "context_length": 12}


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"dropout": 0.3},  # the second time drops what the first did
        {"n_expert": 4, "mlp": "swiglu", "norm": "rmsnorm", "position": "rope"},
        {"window": 4, "sink_tokens": 1, "window_layers": "alternate", "position": "rope"},
    ],
)
def test_loss_and_gradients_are_the_same(options: dict[str, Any]) -> None:
    results = []
    for recompute in (False, True):
        torch.manual_seed(0)
        config = ModelConfig(**SHAPE | options)
        model = GPT(config, 30)
        model.recompute = recompute
        batch = torch.randint(30, (2, 13))
        loss = Pretrain(config).loss(model, batch)
        loss.minimised.backward()
        results.append((loss, {name: p.grad for name, p in model.named_parameters()}))
    (kept, gradients), (again, others) = results
    assert torch.equal(kept.minimised, again.minimised)
    assert kept.statistics is None or torch.equal(kept.statistics, again.statistics)
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, others[name], msg=name)


def kept_bytes(recompute: bool) -> int:
    config = ModelConfig(**SHAPE | {"n_layer": 8})
    model = GPT(config, 30)
    model.recompute = recompute
    seen: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        seen[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        model(torch.randint(30, (4, 12)))
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    return sum(size for address, size in seen.items() if address not in weights)


def test_far_less_is_kept() -> None:
    assert kept_bytes(recompute=True) < 0.2 * kept_bytes(recompute=False)
