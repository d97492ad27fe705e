"""Rotations where their gradient is our own, against autograd's of the definition."""

from __future__ import annotations

import pytest
import torch

from engine.config.sections import ModelConfig
from engine.model.rope import Turned, rotation

SHAPE = {"n_embd": 64, "n_head": 4, "context_length": 32, "position": "rope"}


@pytest.mark.parametrize("rows", [False, True])
@pytest.mark.parametrize("scaling", ["none", "yarn"])
def test_turning_while_training_is_turning(rows: bool, scaling: str) -> None:
    """`rows`: each has places of its own. YaRN's cosines and sines are longer than one."""
    torch.manual_seed(0)
    factor = {} if scaling == "none" else {"rope_scaling": scaling, "rope_factor": 4.0}
    places = torch.arange(9) + 20
    places = torch.stack((places, places + 3)) if rows else places
    turn = rotation(ModelConfig(**SHAPE | factor), places)
    whole = torch.randn(2, 9, 12, 16)
    towards = torch.randn(2, 9, 4, 16)
    mine, plain = (whole.clone().requires_grad_() for _ in range(2))
    y = turn(mine[:, :, 4:8])
    assert Turned.__name__ in str(y.grad_fn)
    first, second = plain[:, :, 4:8].chunk(2, dim=-1)
    defined = torch.cat(
        (first * turn.cos - second * turn.sin, second * turn.cos + first * turn.sin), dim=-1
    )
    (y * towards).sum().backward()
    (defined * towards).sum().backward()
    torch.testing.assert_close(y, defined)
    torch.testing.assert_close(mine.grad, plain.grad)
    with torch.no_grad():
        torch.testing.assert_close(turn(whole[:, :, 4:8]), y)


def test_bfloat16_is_turned_in_float32() -> None:
    torch.manual_seed(0)
    turn = rotation(ModelConfig(**SHAPE), torch.arange(5))
    x = torch.randn(1, 5, 4, 16, dtype=torch.bfloat16)
    trained = turn(x.clone().requires_grad_())
    assert trained.dtype == torch.bfloat16
    torch.testing.assert_close(trained, turn(x.float()).bfloat16())
