"""Whole runs of the newer networks: they learn, resume to the bit, and tell of their routers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from engine import events
from engine.follow import Follower
from engine.lab import Lab
from engine.metrics import read_metrics
from engine.model import Routing
from tests.engine.test_session import (
    Run,
    assert_resumes,
    tiny_config,
)

MODERN: dict[str, Any] = {
    "model__norm": "rmsnorm",
    "model__position": "rope",
    "model__mlp": "swiglu",
    "model__qk_norm": True,
    "model__n_kv_head": 1,
    "model__bias": False,
}
SHAPES = {
    "modern": MODERN,
    "windows": MODERN
    | {"model__window": 4, "model__window_layers": "alternate", "model__sink_tokens": 1},
    "gpt-oss": MODERN
    | {"model__learned_sinks": True, "model__n_expert": 4, "model__mlp": "swiglu-clamped"},
    "experts": {
        "model__n_expert": 3,
        "model__n_expert_active": 1,
        "model__mlp": "relu2",
        "model__renormalise": False,
    },
}


@pytest.mark.parametrize("name", SHAPES)
def test_stopped_and_resumed_it_is_the_uninterrupted_run(small_lab: Lab, name: str) -> None:
    """With dropout, between two accumulated steps, evaluation and samples on the way."""
    assert_resumes(small_lab, tiny_config(**SHAPES[name]))


@pytest.mark.parametrize("name", SHAPES)
def test_it_learns(small_lab: Lab, name: str) -> None:
    run = Run()
    config = tiny_config(
        **SHAPES[name], train__max_steps=40, train__eval_every=0, sample__every=0, model__dropout=0
    )
    run.train(small_lab, config)
    losses = list(run.losses().values())
    assert sum(losses[-5:]) / 5 < losses[0] - 0.5


def test_the_routers_are_told_and_a_dense_run_tells_none(small_lab: Lab) -> None:
    """Balance is K = 1 when even; loads lie around 1, the busiest above and the idlest below."""
    run, dense = Run(), Run()
    run.train(small_lab, tiny_config(**SHAPES["experts"]), name="experts")
    dense.train(small_lab, tiny_config(**MODERN), name="dense")
    for step in run.of(events.StepDone):
        assert 0.9 < step.router_balance < 3
        assert 0 <= step.expert_idlest <= 1 <= step.expert_busiest <= 3
        assert 0 < step.router_entropy <= 1.0987
    assert {step.router_balance for step in dense.of(events.StepDone)} == {None}
    told = run.of(events.StepDone)
    columns = read_metrics(small_lab.checkpoints / "experts")
    for name in ("router_balance", "expert_busiest", "expert_idlest", "router_entropy"):
        assert columns[name].tolist() == [getattr(step, name) for step in told]
        assert name not in (small_lab.checkpoints / "dense" / "metrics.jsonl").read_text()
    followed = Follower(small_lab.checkpoints / "experts").poll()
    assert [event for event in followed if isinstance(event, events.StepDone)] == [
        replace(step, val_loss=None)
        for step in told  # which comes with the evaluation
    ]


def test_an_expert_that_stays_idle_is_told_once(
    small_lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For a while is nothing: routers waver at the start. A dead expert does not come back."""
    loads = iter([0.0, 0.5] + [0.0] * 6)
    monkeypatch.setattr("engine.trouble.IDLE_STEPS", 3)
    monkeypatch.setattr(Routing, "statistics", lambda _: torch.tensor([1.0, 2.0, next(loads), 0.5]))
    run = Run()
    config = tiny_config(
        **SHAPES["experts"], train__accumulate=1, train__max_steps=8, train__eval_every=0,
        sample__every=0,
    )  # fmt: skip
    run.train(small_lab, config)
    idle = [alert for alert in run.of(events.Alert) if "idle" in alert.title]
    assert [(alert.level, alert.title.split(":")[0]) for alert in idle] == [("warning", "step 5")]


def test_the_balance_loss_evens_the_experts_and_is_not_in_the_reported_loss(
    small_lab: Lab,
) -> None:
    uneven = {}
    first_losses = set()
    for weight in (0.0, 1.0):
        run = Run()
        config = tiny_config(
            **(SHAPES["experts"] | {"model__n_expert": 8}), model__balance_loss=weight,
            model__dropout=0, train__max_steps=80, train__eval_every=0, sample__every=0,
        )  # fmt: skip
        run.train(small_lab, config, name=f"weight-{weight}")
        steps = run.of(events.StepDone)
        first_losses.add(steps[0].loss)
        uneven[weight] = sum(step.router_balance for step in steps[-20:]) / 20
    assert uneven[1.0] - 1 < (uneven[0.0] - 1) / 3
    assert len(first_losses) == 1  # the same weights, the same text: whatever the penalty
