"""A checkpoint's tensors come back into a network that is there, or it is said why they do not."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from engine.checkpoints import describe
from engine.checkpoints.save import save
from engine.errors import CheckpointError
from engine.keeper import load_into
from tests.engine.checkpoints.making import meta


def network(width: int = 300) -> nn.Module:
    """One matrix that is read into its place, and one too small for that; the output is tied."""
    model = nn.Module()
    model.wte = nn.Embedding(400, width)
    model.norm = nn.LayerNorm(width)
    model.lm_head = nn.Linear(width, 400, bias=False)
    model.lm_head.weight = model.wte.weight
    return model


def test_all_of_it_comes_back_in_place(tmp_path: Path) -> None:
    first, second = network(), network()
    with torch.no_grad():
        first.norm.weight.normal_()
    path = save(tmp_path, first.state_dict(), None, None, meta(1)).path
    before = second.wte.weight
    load_into(second, describe(path))
    assert second.wte.weight is before is second.lm_head.weight
    for name, tensor in second.state_dict().items():
        assert torch.equal(tensor, first.state_dict()[name])


def test_weights_of_another_type_are_converted(tmp_path: Path) -> None:
    half = {name: tensor.bfloat16() for name, tensor in network().state_dict().items()}
    path = save(tmp_path, half, None, None, meta(1)).path
    model = network()
    load_into(model, describe(path))
    assert model.wte.weight.dtype == torch.float32
    assert torch.equal(model.wte.weight, half["wte.weight"].float())


def test_what_is_not_this_networks_is_named(tmp_path: Path) -> None:
    path = save(tmp_path, network(200).state_dict(), None, None, meta(1)).path
    with pytest.raises(CheckpointError, match="do not fit") as caught:
        load_into(network(), describe(path))
    assert caught.value.hint == "'norm.bias' is 200 there, 300 in the model"
    state = network().state_dict()
    more = state | {"extra": torch.zeros(3)}
    path = save(tmp_path, more, None, None, meta(2)).path
    with pytest.raises(CheckpointError, match="not known: extra"):
        load_into(network(), describe(path))
    del state["norm.weight"]
    path = save(tmp_path, state, None, None, meta(3)).path
    with pytest.raises(CheckpointError, match=r"missing: norm\.weight"):
        load_into(network(), describe(path))
