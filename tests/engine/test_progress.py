"""A saved progress is believed only as far as it could have been written."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch

from engine.errors import CheckpointError
from engine.keeper import set_random_states
from engine.progress import Progress


def test_what_was_written_comes_back() -> None:
    before = Progress(step=7, tokens=900, lr_scale=0.5, seconds=1.25, val_loss=2.0, best_step=5)
    assert Progress.from_dict(json.loads(json.dumps(before.to_dict()))) == before
    assert Progress.from_dict({"step": 3, "of another version": []}) == Progress(step=3)


@pytest.mark.parametrize(
    "values",
    [
        None,
        [],
        {"step": "7"},
        {"step": -1},
        {"step": True},
        {"step": 2**63},
        {"step": None},
        {"lr_scale": None},
        {"seconds": "1e9"},
        {"best_val_loss": [2.0]},
        {"val_loss": 10**400},
        {"rollback_to": 1.5},
    ],
)
def test_what_cannot_have_been_written_is_refused(values: Any) -> None:
    with pytest.raises(CheckpointError, match="saved progress"):
        Progress.from_dict(values)


@pytest.mark.parametrize("states", [{}, {"cpu": torch.zeros(3)}, {"cpu": torch.zeros(4).byte()}])
def test_a_random_state_that_torch_does_not_take_is_refused(
    states: dict[str, torch.Tensor],
) -> None:
    before = torch.get_rng_state()
    with pytest.raises(CheckpointError, match="random state"):
        set_random_states(states)
    assert torch.equal(torch.get_rng_state(), before)
